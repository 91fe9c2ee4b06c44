//! Names on networks: who is found by which, what is asked of others, what is said when nobody knows.

use std::net::Ipv4Addr;

use crate::name_server::NameServer;
use crate::sandbox::Sandbox;
use crate::wait;

for_root!(the_machines_file_is_followed);
for_each_user!(
    names_aliases_and_ids_are_found,
    names_are_those_of_a_network,
    several_take_turns_and_the_dead_do_not_count,
    others_are_asked_from_outside,
    an_internal_network_asks_nobody,
    port_53_inside_is_free,
    what_the_files_say,
    hosts_are_added,
    a_name_follows_who_is_called_so,
    an_alias_is_moved_without_a_gap,
    a_network_without_names,
);

const SLEEP: [&str; 2] = ["sleep", "10000"];

/// What a container is told when it asks; see the probe.
#[track_caller]
pub fn ask(s: &Sandbox, container: &str, name: &str, kind: &str) -> String {
    s.dhow(["exec", container, "/probe", "dns", name, kind]).ok()
}

/// The address of a container on a network.
#[track_caller]
pub fn address(s: &Sandbox, container: &str, network: &str) -> String {
    let id = s.inspect(container, "{{.Id}}");
    let text = std::fs::read(s.store.join("containers").join(id).join("network.json")).unwrap();
    let wired: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let ends = wired["ends"].as_array().unwrap();
    let end = ends.iter().find(|end| end["network"] == network).unwrap();
    end["ipv4"][0].as_str().unwrap().to_owned()
}

fn names_aliases_and_ids_are_found(s: &Sandbox) {
    s.dhow(["network", "create", "front"]).ok();
    let id = s.detached(
        ["--name", "web_1", "--network", "front", "--network-alias", "Shop", "--hostname", "host"],
        SLEEP,
    );
    s.detached(["--name", "asker", "--network", "front"], SLEEP);
    let web = address(s, "web_1", "front");
    assert!(!web.is_empty());
    for name in ["web_1", "WEB_1", "shop", "web_1.front", &id[..12], "host", "asker"] {
        let want = if name == "asker" { address(s, "asker", "front") } else { web.clone() };
        assert_eq!(ask(s, "asker", name, "A"), format!("NoError {want}"), "{name}");
    }
    assert_eq!(ask(s, "asker", "web_1", "AAAA"), "NoError", "it is there, without such an address");
    assert_eq!(ask(s, "asker", "web_1", "TXT"), "NoError");
    let mut octets: Vec<&str> = web.split('.').collect();
    octets.reverse();
    assert_eq!(ask(s, "asker", &format!("{}.in-addr.arpa", octets.join(".")), "PTR"), "NoError web_1.front");
    // By the library of programs, and by TCP.
    s.dhow(["exec", "asker", "ping", "-c", "1", "-W", "5", "shop"]).ok();
    assert_eq!(s.dhow(["exec", "asker", "/probe", "dns", "shop", "A", "tcp"]).ok(), format!("NoError {web}"));
}

fn names_are_those_of_a_network(s: &Sandbox) {
    for network in ["one", "two"] {
        s.dhow(["network", "create", network]).ok();
        // The same name in both: each set has its own.
        let name = format!("db-{network}");
        s.detached(["--name", &name, "--network", network, "--network-alias", "db"], SLEEP);
        s.detached(
            ["--name", &format!("asker-{network}"), "--network", network, "--dns", "127.0.0.1"],
            SLEEP,
        );
    }
    for (asker, own, other) in [("asker-one", "one", "two"), ("asker-two", "two", "one")] {
        let db = address(s, &format!("db-{own}"), own);
        assert_eq!(ask(s, asker, "db", "A"), format!("NoError {db}"));
        let foreign = ask(s, asker, &format!("db-{other}"), "A");
        assert!(!foreign.starts_with("NoError "), "{asker} finds {other}: {foreign}");
    }
    // Who is on both finds both, the first one's first.
    s.detached(["--name", "both", "--network", "two", "--network", "one"], SLEEP);
    assert_eq!(ask(s, "both", "db", "A"), format!("NoError {}", address(s, "db-two", "two")));
    assert_eq!(ask(s, "both", "db.one", "A"), format!("NoError {}", address(s, "db-one", "one")));
}

fn several_take_turns_and_the_dead_do_not_count(s: &Sandbox) {
    s.dhow(["network", "create", "pool"]).ok();
    for name in ["aa", "bb", "cc"] {
        s.detached(["--name", name, "--network", "pool", "--network-alias", "workers"], SLEEP);
    }
    s.detached(["--name", "asker", "--network", "pool"], SLEEP);
    let all = |names: &[&str]| {
        let mut all: Vec<String> = names.iter().map(|name| address(s, name, "pool")).collect();
        all.sort();
        format!("NoError {}", all.join(" "))
    };
    assert_eq!(ask(s, "asker", "workers", "A"), all(&["aa", "bb", "cc"]));
    let first = || {
        let text =
            s.dhow(["exec", "asker", "sh", "-c", "nslookup -type=a workers | sed -n 's/^Address: //p'"]).ok();
        text.lines().find(|line| !line.contains("127.0.0.11")).unwrap_or_default().to_owned()
    };
    let mut seen = std::collections::BTreeSet::new();
    wait::until("each of three to be the first", || {
        seen.insert(first());
        (seen.len() == 3).then_some(())
    });
    // One ends, and one's supervisor is killed: neither is told of any more.
    s.dhow(["rm", "-f", "aa"]).ok();
    assert_eq!(ask(s, "asker", "workers", "A"), all(&["bb", "cc"]));
    let left = all(&["cc"]);
    let bb = s.inspect("bb", "{{.Id}}");
    for pid in crate::bad_days::supervisors(s, &bb) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    wait::until("the killed one to be forgotten", || (ask(s, "asker", "workers", "A") == left).then_some(()));
    s.dhow(["start", "bb"]).ok();
    assert_eq!(ask(s, "asker", "workers", "A"), all(&["bb", "cc"]));
}

fn others_are_asked_from_outside(s: &Sandbox) {
    let server = NameServer::start(Ipv4Addr::new(192, 0, 2, 7));
    let dns = server.address.to_string();
    let flags = ["--name", "asker", "--network", "bridge", "--dns", &dns, "--dns-option", "timeout:2"];
    s.detached(flags, SLEEP);
    assert_eq!(ask(s, "asker", "example.test", "A"), "NoError 192.0.2.7");
    assert_eq!(ask(s, "asker", "example.test", "AAAA"), "NoError");
    assert_eq!(ask(s, "asker", "nothing.test", "A"), "NameError");
    // What does not fit is cut, and whole by TCP.
    assert_eq!(ask(s, "asker", "long.test", "TXT"), "NoError");
    let long = s.dhow(["exec", "asker", "/probe", "dns", "long.test", "TXT", "tcp"]).ok();
    assert_eq!(long.split(' ').count(), 61, "{long}");
    // The first server is not there at all: the second is asked at once.
    s.detached(["--name", "second", "--network", "bridge", "--dns", "127.0.0.99", "--dns", &dns], SLEEP);
    assert_eq!(ask(s, "second", "example.test", "A"), "NoError 192.0.2.7");
    // Nobody answers: that is said, and not waited for.
    s.detached(["--name", "alone", "--network", "bridge", "--dns", "127.0.0.99"], SLEEP);
    assert_eq!(ask(s, "alone", "example.test", "A"), "ServerFailure");
}

/// The machine's own servers, where its file says so at this moment. In a mount name space that has another file there.
fn the_machines_file_is_followed(s: &Sandbox) {
    let servers = [7, 8].map(|n| NameServer::start(Ipv4Addr::new(192, 0, 2, n)));
    let file = s.file("resolv.conf", format!("search a.test\nnameserver {}\n", servers[0].address));
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec {} --root {} run -d --name asker --network bridge busybox sleep 10000",
        file.display(),
        crate::sandbox::dhow().display(),
        s.store.display()
    );
    s.program("unshare").args(["-m", "sh", "-c", &script]).ok();
    assert_eq!(ask(s, "asker", "example.test", "A"), "NoError 192.0.2.7");
    let conf = s.dhow(["exec", "asker", "cat", "/etc/resolv.conf"]).ok();
    assert!(conf.contains("search a.test\n") && conf.contains("nameserver 127.0.0.11"), "{conf}");
    std::fs::write(&file, format!("nameserver {}\n", servers[1].address)).unwrap();
    assert_eq!(ask(s, "asker", "example.test", "A"), "NoError 192.0.2.8");
}

fn an_internal_network_asks_nobody(s: &Sandbox) {
    let server = NameServer::start(Ipv4Addr::new(192, 0, 2, 8));
    let dns = server.address.to_string();
    s.dhow(["network", "create", "--internal", "inner"]).ok();
    s.detached(["--name", "db", "--network", "inner"], SLEEP);
    s.detached(["--name", "asker", "--network", "inner", "--dns", &dns], SLEEP);
    assert_eq!(ask(s, "asker", "db", "A"), format!("NoError {}", address(s, "db", "inner")));
    assert_eq!(ask(s, "asker", "example.test", "A"), "NameError");
}

fn port_53_inside_is_free(s: &Sandbox) {
    s.dhow(["network", "create", "net"]).ok();
    s.detached(["--name", "db", "--network", "net"], SLEEP);
    // The probe has sockets of its own at port 53 of all addresses then, by both protocols.
    let said = s.dhow(["run", "--rm", "--network", "net", "busybox", "/probe", "dns", "db", "A", "own"]).ok();
    assert_eq!(said, format!("NoError {}", address(s, "db", "net")));
}

fn what_the_files_say(s: &Sandbox) {
    let on = ["--network", "bridge", "--hostname", "box"];
    let search = ["--dns-search", "a.test", "--dns-search", "b.test", "--dns-option", "ndots:2"];
    let conf = s.sh(on.iter().chain(&search), "cat /etc/resolv.conf").ok();
    assert_eq!(conf, "nameserver 127.0.0.11\nsearch a.test b.test\noptions ndots:2");
    let plain = s.sh(on.iter().chain(&["--dns-search", "."]), "cat /etc/resolv.conf").ok();
    assert!(plain.contains("nameserver 127.0.0.11") && plain.contains("ndots:"), "{plain}");
    assert!(!plain.contains("search"), "{plain}");
    let hosts = s.sh(on.iter().chain(&["--domainname", "example.test"]), "cat /etc/hosts; hostname -i").ok();
    let own = hosts.lines().last().unwrap().trim().to_owned();
    assert!(hosts.contains(&format!("{own}\tbox.example.test box\n")), "{hosts}");
    assert!(hosts.contains("127.0.0.1\tlocalhost\n"), "{hosts}");
}

fn hosts_are_added(s: &Sandbox) {
    let flags =
        ["--network", "bridge", "--add-host", "one.test:192.0.2.1", "--add-host", "machine:host-gateway"];
    let hosts =
        s.sh(flags, "cat /etc/hosts; ip route | sed -n 's/^default via \\([^ ]*\\).*/gateway \\1/p'").ok();
    let gateway = hosts.lines().find_map(|line| line.strip_prefix("gateway ")).unwrap().to_owned();
    assert!(hosts.contains("192.0.2.1\tone.test\n"), "{hosts}");
    assert!(hosts.contains(&format!("{gateway}\tmachine\n")), "{hosts}");
}

fn a_name_follows_who_is_called_so(s: &Sandbox) {
    s.dhow(["network", "create", "net"]).ok();
    s.detached(["--name", "asker", "--network", "net", "--dns", "127.0.0.99"], SLEEP);
    s.detached(["--name", "web", "--network", "net"], SLEEP);
    let old = ask(s, "asker", "web", "A");
    s.dhow(["rename", "web", "gone"]).ok();
    assert_eq!(ask(s, "asker", "web", "A"), "ServerFailure", "nobody is called so");
    assert_eq!(ask(s, "asker", "gone", "A"), old);
    s.detached(["--name", "web", "--network", "net"], SLEEP);
    assert_eq!(ask(s, "asker", "web", "A"), format!("NoError {}", address(s, "web", "net")));
}

fn an_alias_is_moved_without_a_gap(s: &Sandbox) {
    s.dhow(["network", "create", "net"]).ok();
    s.detached(["--name", "blue", "--network", "net", "--network-alias", "live"], SLEEP);
    s.detached(["--name", "green", "--network", "net"], SLEEP);
    s.detached(["--name", "asker", "--network", "net", "--dns", "127.0.0.99"], SLEEP);
    let (blue, green) = (address(s, "blue", "net"), address(s, "green", "net"));
    assert_eq!(ask(s, "asker", "live", "A"), format!("NoError {blue}"));
    let log = "while :; do /probe dns live A; done >/tmp/log";
    s.dhow(["exec", "-d", "asker", "sh", "-c", log]).ok();
    s.dhow(["network", "alias", "net", "green", "LIVE"]).ok();
    assert_eq!(ask(s, "asker", "live", "A"), format!("NoError {green}"));
    let seen = || s.dhow(["exec", "asker", "sort", "-u", "/tmp/log"]).ok();
    wait::until("the loop to see the new one", || seen().contains(&green).then_some(()));
    let mut both = [blue.as_str(), green.as_str()];
    both.sort_unstable();
    let fine = [format!("NoError {blue}"), format!("NoError {green}"), format!("NoError {}", both.join(" "))];
    for line in seen().lines().filter(|line| !line.is_empty()) {
        assert!(fine.iter().any(|fine| fine == line), "a client saw {line:?}");
    }
    s.dhow(["network", "alias", "--add", "net", "blue", "live"]).ok();
    assert_eq!(ask(s, "asker", "live", "A"), format!("NoError {}", both.join(" ")));
    s.dhow(["network", "alias", "--remove", "net", "green", "live"]).ok();
    assert_eq!(ask(s, "asker", "live", "A"), format!("NoError {blue}"));
    // It is what the container is called also when it starts again.
    s.dhow(["restart", "-t", "0", "blue"]).ok();
    assert_eq!(ask(s, "asker", "live", "A"), format!("NoError {}", address(s, "blue", "net")));
    s.dhow(["network", "alias", "nowhere", "blue", "live"]).output().exits(1).complains("nowhere");
    s.detached(["--name", "outside", "--network", "none"], SLEEP);
    s.dhow(["network", "alias", "net", "outside", "live"]).output().exits(1).complains("is not on it");
    s.dhow(["network", "alias", "net", "blue", "two words"]).output().exits(1).complains("is not a name");
}

fn a_network_without_names(s: &Sandbox) {
    let server = NameServer::start(Ipv4Addr::new(192, 0, 2, 9));
    let dns = server.address.to_string();
    s.dhow(["network", "create", "--disable-dns", "mute"]).ok();
    s.detached(["--name", "db", "--network", "mute"], SLEEP);
    s.detached(["--name", "asker", "--network", "mute", "--dns", &dns], SLEEP);
    assert_eq!(ask(s, "asker", "db", "A"), "NameError");
    assert_eq!(ask(s, "asker", "example.test", "A"), "NoError 192.0.2.9");
}
