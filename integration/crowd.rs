//! Many containers on one network, which come and go while clients connect, and of which some are killed.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::capability::needs;
use crate::names::{address, ask};
use crate::sandbox::Sandbox;
use crate::user::User;
use crate::{bad_days, forward, leftovers, own_host, wait};

for_each_user!(
    fifty_come_and_go_while_clients_connect,
    addresses_run_out_and_come_back,
    names_with_strange_characters,
);

const SLEEP: [&str; 2] = ["sleep", "10000"];

/// Who has an address of the network, by the claims of addresses.
fn claims(s: &Sandbox) -> BTreeSet<String> {
    let claims = s.store.join("networks/claims");
    let of = |network: &std::ffi::OsString| leftovers::names(&claims.join(network));
    let all = leftovers::names(&claims);
    all.iter().flat_map(of).map(|name| name.into_string().unwrap()).collect()
}

/// What a program says in the name space of this thread.
fn tell(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fifty_come_and_go_while_clients_connect(s: &Sandbox) {
    needs!("root", "ip", "nft");
    own_host::enter();
    s.dhow(["network", "create", "crowd"]).ok();
    let flags = ["--name", "server", "--network", "crowd", "--network-alias", "shop", "-p", "7000:7000"];
    s.detached(flags, ["/probe", "serve", "7000"]);
    s.detached(["--name", "client", "--network", "crowd", "--link", "server:store"], SLEEP);
    let server = format!("{}:7000", address(s, "server", "crowd"));
    let client = address(s, "client", "crowd");
    let said = || s.dhow(["exec", "client", "/probe", "tcp", &server, "5"]).output();
    wait::until("the server", || (said().text() == format!("{client} 5")).then_some(()));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) || count == 0 {
                let said = said().exits(0);
                assert_eq!(said.text(), format!("{client} 5"), "{}", said.report());
                let found = ask(s, "client", "shop", "A");
                assert_eq!(found, format!("NoError {}", server.strip_suffix(":7000").unwrap()));
                count += 1;
            }
        });
        let workers: Vec<_> = (0..5).map(|worker| scope.spawn(move || comes_and_goes(s, worker))).collect();
        // The client ends with them, also if one fails.
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        asking.join().unwrap();
        ended.into_iter().for_each(|end| end.unwrap());
    });
    // The killed have given nothing back themselves.
    assert_eq!(s.dhow(["ps", "-a", "--format", "{{.Names}}"]).ok().lines().count(), 2 + 10);
    let killed: Vec<String> = (0..5).flat_map(|w| [format!("c{w}-3"), format!("c{w}-8")]).collect();
    for name in ["c0-3", "c4-8"] {
        assert!(!ask(s, "client", name, "A").starts_with("NoError "), "{name} is dead");
    }
    s.dhow(["rm"]).args(&killed).ok();
    let left = BTreeSet::from([address(s, "server", "crowd"), client.clone()]);
    wait::until("the addresses of all others to be given back", || (claims(s) == left).then_some(()));
    assert_eq!(said().text(), format!("{client} 5"), "they are there yet");
    if s.user == User::Root {
        let ports = || {
            let links = tell(&["ip", "-o", "link", "show", "type", "veth"]);
            links.lines().filter(|line| line.contains("master")).count()
        };
        wait::until("the links of all others to go", || (ports() == 2).then_some(()));
        let rules = tell(&["nft", "list", "ruleset"]);
        assert!(rules.contains("7000") && !rules.contains(". 80"), "{rules}");
    }
    s.dhow(["rm", "-f", "server", "client"]).ok();
    s.dhow(["network", "rm", "crowd"]).ok();
    assert!(claims(s).is_empty());
    wait::until("the forwarder to end", || forward::forwarders(s).is_empty().then_some(()));
    wait::until("the links to go", || (tell(&["ip", "-o", "link"]).lines().count() == 3).then_some(()));
    if s.user == User::Root {
        assert_eq!(tell(&["nft", "list", "ruleset"]), "");
    }
    s.assert_nothing_left();
}

/// Ten of them, each of which finds the server by its name. Two are killed with all that holds them, the others are removed.
fn comes_and_goes(s: &Sandbox, worker: usize) {
    for n in 0..10 {
        let name = format!("c{worker}-{n}");
        let port = format!("{}:80", 8000 + worker * 10 + n);
        let flags = ["--name", &name, "--network", "crowd", "--network-alias", "guest", "--link", "shop"];
        let publish: &[&str] = if n % 2 == 0 { &[] } else { &["-p", &port] };
        let id = s.detached(flags.iter().chain(publish), ["sleep", "10000"]);
        s.dhow(["exec", &name, "ping", "-c", "1", "-W", "10", "shop"]).ok();
        match n % 5 {
            3 => bad_days::supervisors(s, &id).into_iter().for_each(|pid| {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }),
            1 => {
                s.dhow(["stop", "-t", "0", &name]).ok();
                s.dhow(["start", &name]).ok();
                s.dhow(["rm", "-f", &name]).ok();
            }
            _ => drop(s.dhow(["rm", "-f", &name]).ok()),
        }
    }
}

fn addresses_run_out_and_come_back(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    // Eight, without the first, the last and the gateway's.
    s.dhow(["network", "create", "--subnet", "10.97.9.0/29", "small"]).ok();
    let names = ["aa", "ab", "ac", "ad", "ae"];
    for name in names {
        s.detached(["--name", name, "--network", "small"], SLEEP);
    }
    assert_eq!(claims(s).len(), 5);
    let more = || s.dhow(["run", "--rm", "--network", "small", "busybox", "true"]).output();
    let full =
        || drop(more().exits(125).complains("all addresses of 10.97.9.0/29 are taken").complains("hint: "));
    full();
    s.dhow(["network", "create", "other"]).ok();
    s.detached(["--name", "guest", "--network", "other"], SLEEP);
    s.dhow(["network", "connect", "small", "guest"]).output().exits(1).complains("are taken");
    assert_eq!(s.dhow(["ps", "--filter", "name=guest", "--format", "{{.Networks}}"]).ok(), "other");
    assert_eq!(claims(s).len(), 6, "who failed has claimed nothing");
    // Removed, stopped, gone from the network, killed: each leaves room for one more.
    let room = || {
        more().exits(0);
    };
    s.dhow(["rm", "-f", "aa"]).ok();
    room();
    s.dhow(["network", "connect", "small", "guest"]).ok();
    full();
    s.dhow(["network", "disconnect", "small", "guest"]).ok();
    s.dhow(["start", "ab"]).output();
    room();
    s.detached(["--name", "aa", "--network", "small"], SLEEP);
    s.dhow(["stop", "-t", "0", "ab"]).ok();
    room();
    s.detached(["--name", "af", "--network", "small"], SLEEP);
    s.dhow(["start", "ab"]).output().exits(1).complains("are taken");
    let id = s.inspect("ac", "{{.Id}}");
    for pid in bad_days::supervisors(s, &id) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    wait::until("the killed one's address to be given to another", || (more().code == 0).then_some(()));
    s.dhow(["start", "ab"]).ok();
    full();
}

fn names_with_strange_characters(s: &Sandbox) {
    s.dhow(["network", "create", "Net.with-all_of.it"]).ok();
    let names =
        ["A", "web.example.com", "with-dash", "with_underscore", "0digit", "x.-_", "UPPER.Case-_9", "end-"];
    let long = "l".repeat(63);
    for name in names.into_iter().chain([long.as_str()]) {
        s.detached(["--name", name, "--network", "Net.with-all_of.it"], SLEEP);
    }
    let aliases = ["_srv._tcp", "über", "a+b", "*.example", "UP"];
    let flags = aliases.iter().flat_map(|alias| ["--network-alias", *alias]);
    s.detached(["--name", "aliased", "--network", "Net.with-all_of.it"].into_iter().chain(flags), SLEEP);
    s.detached(["--name", "asker", "--network", "Net.with-all_of.it", "--link", "x.-_:An.alias-_"], SLEEP);
    for (name, of) in names.iter().map(|name| (*name, *name)).chain([
        (long.as_str(), long.as_str()),
        ("an.ALIAS-_", "x.-_"),
        ("Web.Example.Com", "web.example.com"),
        ("upper.case-_9.net.with-all_of.it", "UPPER.Case-_9"),
    ]) {
        let want = format!("NoError {}", address(s, of, "Net.with-all_of.it"));
        assert_eq!(ask(s, "asker", name, "A"), want, "{name}");
        // By the library of programs, too.
        s.dhow(["exec", "asker", "ping", "-c", "1", "-W", "10", name]).ok();
    }
    let want = format!("NoError {}", address(s, "aliased", "Net.with-all_of.it"));
    for name in aliases {
        assert_eq!(ask(s, "asker", name, "A"), want, "{name}");
    }
    for wrong in ["two words", "a/b", "a,b", ""] {
        s.dhow([
            "run",
            "--rm",
            "--network-alias",
            wrong,
            "--network",
            "Net.with-all_of.it",
            "busybox",
            "true",
        ])
        .output()
        .exits(125);
    }
    for wrong in ["-a", ".a", "_a", "a b", "a/b", "ü", ""] {
        s.dhow(["run", "--rm", &format!("--name={wrong}"), "busybox", "true"]).output().exits(125);
    }
    // More than a label of a name may have: it runs, and is found by another name.
    let name = "n".repeat(64);
    s.detached(["--name", &name, "--network", "Net.with-all_of.it", "--network-alias", "short"], SLEEP);
    assert_eq!(ask(s, "asker", "short", "A"), format!("NoError {}", address(s, &name, "Net.with-all_of.it")));
}
