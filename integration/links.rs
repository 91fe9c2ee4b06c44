//! --link: variables, a line of /etc/hosts, and a name that follows who bears it.

use crate::names::{address, ask};
use crate::sandbox::Sandbox;
use crate::wait;

for_each_user!(
    variables_are_dockers,
    a_link_follows_its_target,
    an_ambassador_is_replaced_unseen,
    a_link_means_who_is_on_its_network,
    a_link_is_removed,
    a_target_that_does_not_run_is_found_when_it_does,
    who_cannot_be_linked_to,
);

const SLEEP: [&str; 2] = ["sleep", "10000"];

fn hosts(s: &Sandbox, container: &str) -> String {
    s.dhow(["exec", container, "cat", "/etc/hosts"]).ok()
}

fn variables_are_dockers(s: &Sandbox) {
    let flags = [
        "--name",
        "db",
        "--network",
        "bridge",
        "--expose",
        "5432",
        "--expose",
        "53/udp",
        "-e",
        "POSTGRES_DB=x",
    ];
    s.detached(flags, SLEEP);
    s.detached(
        ["--name", "web", "--network", "bridge", "--link", "db:my-db", "-e", "MY_DB_PORT=mine"],
        SLEEP,
    );
    let db = address(s, "db", "bridge");
    // The program's own and an exec's are the same.
    let of_program = "tr '\\0' '\\n' </proc/1/environ | sort | grep MY_DB";
    let program = s.dhow(["exec", "web", "sh", "-c", of_program]).ok();
    let exec = s.dhow(["exec", "web", "sh", "-c", "env | sort | grep MY_DB"]).ok();
    let want = [
        "MY_DB_ENV_POSTGRES_DB=x".to_owned(),
        "MY_DB_NAME=/web/my-db".to_owned(),
        // Which docker has from the lowest port.
        "MY_DB_PORT=mine".to_owned(),
        format!("MY_DB_PORT_5432_TCP=tcp://{db}:5432"),
        format!("MY_DB_PORT_5432_TCP_ADDR={db}"),
        "MY_DB_PORT_5432_TCP_PORT=5432".to_owned(),
        "MY_DB_PORT_5432_TCP_PROTO=tcp".to_owned(),
        format!("MY_DB_PORT_53_UDP=udp://{db}:53"),
        format!("MY_DB_PORT_53_UDP_ADDR={db}"),
        "MY_DB_PORT_53_UDP_PORT=53".to_owned(),
        "MY_DB_PORT_53_UDP_PROTO=udp".to_owned(),
    ];
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(sorted(&program), want.into_iter().collect());
    assert_eq!(exec, program);
    let id = s.inspect("db", "{{.Id}}");
    let line = format!("{db}\tmy-db {} db", &id[..12]);
    assert!(hosts(s, "web").lines().any(|l| l == line), "{line}\n{}", hosts(s, "web"));
    s.dhow(["exec", "web", "ping", "-c", "1", "-W", "5", "my-db"]).ok();
    assert!(!ask(s, "db", "my-db", "A").starts_with("NoError "), "the name is the other one's alone");
}

fn a_link_follows_its_target(s: &Sandbox) {
    s.dhow(["network", "create", "net"]).ok();
    s.detached(["--name", "db", "--network", "net"], SLEEP);
    s.detached(["--name", "web", "--network", "net", "--link", "db:store"], SLEEP);
    s.dhow(["exec", "web", "sh", "-c", "echo '192.0.2.1 mine' >>/etc/hosts"]).ok();
    let old = address(s, "db", "net");
    assert_eq!(ask(s, "web", "store", "A"), format!("NoError {old}"));
    s.dhow(["rm", "-f", "db"]).ok();
    // Somebody else gets its address.
    s.detached(["--name", "other", "--network", "net", "--ip", &old], SLEEP);
    s.detached(["--name", "db", "--network", "net"], SLEEP);
    let new = address(s, "db", "net");
    assert_ne!(old, new);
    assert_eq!(ask(s, "web", "store", "A"), format!("NoError {new}"));
    let line = format!("{new}\tstore ");
    wait::until("/etc/hosts to follow", || hosts(s, "web").contains(&line).then_some(()));
    let now = hosts(s, "web");
    assert!(!now.contains(&format!("{old}\t")) && now.contains("192.0.2.1 mine"), "{now}");
    s.dhow(["rm", "-f", "db"]).ok();
    wait::until("the line to go", || (!hosts(s, "web").contains("store")).then_some(()));
}

/// client -> ambassador -> server; the one in the middle is replaced, and its client is not touched.
fn an_ambassador_is_replaced_unseen(s: &Sandbox) {
    s.dhow(["network", "create", "net"]).ok();
    let serve = "while :; do echo from-server | nc -l -p 7000; done";
    s.detached(["--name", "server", "--network", "net"], ["sh", "-c", serve]);
    let forward = "while :; do nc -l -p 7000 -e nc server 7000; done";
    s.detached(["--name", "blue", "--network", "net", "--network-alias", "redis"], ["sh", "-c", forward]);
    s.detached(["--name", "client", "--network", "net", "--link", "redis:db"], SLEEP);
    let get = || s.dhow(["exec", "client", "sh", "-c", "nc -w 5 db 7000 </dev/null"]).output();
    wait::until("the way through", || (get().text().trim() == "from-server").then_some(()));
    s.detached(["--name", "green", "--network", "net"], ["sh", "-c", forward]);
    s.dhow(["network", "alias", "net", "green", "redis"]).ok();
    s.dhow(["rm", "-f", "-t", "0", "blue"]).ok();
    let green = address(s, "green", "net");
    assert_eq!(ask(s, "client", "db", "A"), format!("NoError {green}"));
    wait::until("the way through the other one", || (get().text().trim() == "from-server").then_some(()));
}

/// Each environment has its own `db`; that somebody elsewhere bears the name, or has an id that begins so, changes nothing.
fn a_link_means_who_is_on_its_network(s: &Sandbox) {
    for network in ["one", "two"] {
        s.dhow(["network", "create", network]).ok();
    }
    s.detached(["--name", "db", "--network", "one", "-e", "OF=one"], SLEEP);
    s.detached(["--name", "other", "--network", "two", "--network-alias", "db", "-e", "OF=two"], SLEEP);
    let id = s.detached(["--name", "mine", "--network", "two", "-e", "OF=mine"], SLEEP);
    s.dhow(["network", "alias", "two", "mine", &id[..3]]).ok();
    s.dhow(["network", "alias", "two", "other", &id[..4]]).ok();
    s.detached(["--name", "web", "--network", "two", "--link", "db:store", "--link", &id[..4]], SLEEP);
    assert_eq!(s.dhow(["exec", "web", "sh", "-c", "echo $STORE_ENV_OF"]).ok(), "two");
    let other = address(s, "other", "two");
    for name in ["store", &id[..4]] {
        assert_eq!(ask(s, "web", name, "A"), format!("NoError {other}"), "{name}");
    }
    assert!(hosts(s, "web").contains(&format!("{other}\tstore ")), "{}", hosts(s, "web"));
    // Without an alias there, it is a stranger.
    s.dhow(["network", "alias", "--remove", "two", "other", "db"]).ok();
    let flags = ["run", "--rm", "--network", "two", "--link", "db:store", "busybox", "env"];
    let run = s.dhow(flags).output().exits(0).complains("is on none of its networks");
    assert!(!run.text().contains("STORE_ENV_OF"), "{}", run.text());
    // Until it comes.
    s.dhow(["network", "connect", "two", "db"]).ok();
    assert_eq!(ask(s, "web", "store", "A"), format!("NoError {}", address(s, "db", "two")));
}

fn a_link_is_removed(s: &Sandbox) {
    s.detached(["--name", "db", "--network", "bridge"], SLEEP);
    let flags = ["--name", "web", "--network", "bridge", "--dns", "127.0.0.99"];
    s.detached(flags.into_iter().chain(["--link", "db:store", "--link", "db:other"]), SLEEP);
    assert_eq!(s.dhow(["rm", "--link", "/web/store"]).ok(), "/web/store");
    wait::until("the line of /etc/hosts to go", || (!hosts(s, "web").contains("store")).then_some(()));
    assert!(hosts(s, "web").contains("\tother "), "{}", hosts(s, "web"));
    assert!(!ask(s, "web", "store", "A").starts_with("NoError "));
    assert_eq!(s.inspect("web", "{{json .HostConfig.Links}}"), "[\"/db:/web/other\"]");
    s.dhow(["restart", "-t", "0", "web"]).ok();
    assert_eq!(s.dhow(["exec", "web", "sh", "-c", "env | grep -c ^STORE; true"]).ok(), "0");
    s.dhow(["rm", "--link", "web/store"])
        .output()
        .exits(1)
        .complains("container web has no link of that name");
    s.dhow(["rm", "--link", "web"]).output().exits(1).complains("a link is CONTAINER/ALIAS");
    assert_eq!(s.dhow(["ps", "-q"]).ok().lines().count(), 2, "the containers stay");
}

fn a_target_that_does_not_run_is_found_when_it_does(s: &Sandbox) {
    s.dhow(["create", "--name", "db", "--network", "bridge", "-e", "X=1", "busybox", "sleep", "10000"]).ok();
    let flags = ["run", "-d", "--name", "web", "--network", "bridge", "--link", "db"];
    let run = s.dhow(flags).args(["busybox", "sleep", "10000"]).output().exits(0);
    let run = run.complains("db, which it is linked to as db, does not run");
    s.note(run.text(), &run);
    let env = s.dhow(["exec", "web", "sh", "-c", "env | grep ^DB_ | sort"]).ok();
    assert_eq!(env, "DB_ENV_X=1\nDB_NAME=/web/db");
    s.dhow(["start", "db"]).ok();
    assert_eq!(ask(s, "web", "db", "A"), format!("NoError {}", address(s, "db", "bridge")));
    wait::until("the line of /etc/hosts", || hosts(s, "web").contains("\tdb ").then_some(()));
}

fn who_cannot_be_linked_to(s: &Sandbox) {
    s.dhow(["run", "--rm", "--network", "bridge", "--link", "nobody", "busybox", "true"])
        .output()
        .exits(125)
        .complains("cannot link to nobody");
    s.detached(["--name", "db", "--network", "bridge"], SLEEP);
    s.dhow(["run", "--rm", "--network", "host", "--link", "db", "busybox", "true"])
        .output()
        .exits(125)
        .complains("host type networking can't be used with links");
    assert_eq!(s.dhow(["ps", "-aq"]).ok().lines().count(), 1, "nothing was made");
}
