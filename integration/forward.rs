//! A user's way to the outside, and the outside's to a user's containers. Each test has a host of its own, on whose
//! addresses the outside is.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::capability::needs;
use crate::own_host::{self, OTHER, SILENT, V4, V6};
use crate::sandbox::Sandbox;
use crate::{leftovers, wait};

for_rootless!(
    connections_and_datagrams_go_out,
    what_cannot_be_reached_is_said,
    the_hosts_own_is_not_reached,
    clients_come_in_as_themselves,
    ports_that_cannot_be_had,
    it_lives_as_long_as_it_is_needed,
    it_is_healed,
    two_at_once_start_one,
    ten_thousand_connections,
    a_flood_leaves_room,
    an_internal_network_has_no_way_out,
);

const BRIDGE: [&str; 2] = ["--network", "bridge"];

/// What the probe says in a new container.
#[track_caller]
fn probe(s: &Sandbox, flags: &[&str], words: &str) -> String {
    s.dhow(["run", "--rm"]).args(flags).args(["busybox", "/probe"]).args(words.split(' ')).ok()
}

/// What it says in one that runs.
#[track_caller]
fn inside(s: &Sandbox, name: &str, words: &str) -> String {
    s.dhow(["exec", name, "/probe"]).args(words.split(' ')).ok()
}

fn connections_and_datagrams_go_out(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    s.dhow(["network", "create", "--ipv6", "six"]).ok();
    s.detached(["--name", "one", "--network", "six"], ["sleep", "1000"]);
    let (v4, v6) = (own_host::serve(V4), own_host::serve(V6));
    for to in [format!("{V4}:{v4}"), format!("[{V6}]:{v6}")] {
        for size in ["0", "1", "70000", "20000000"] {
            assert_eq!(inside(s, "one", &format!("tcp {to} {size}")), format!("outside {size}"), "{to}");
        }
        for size in ["0", "1", "1400", "30000"] {
            assert_eq!(inside(s, "one", &format!("udp {to} {size}")), format!("outside {size}"), "{to}");
        }
    }
    assert_eq!(inside(s, "one", &format!("tcp {V4}:{} 10", own_host::reset(V4))), "ConnectionReset");
}

fn what_cannot_be_reached_is_said(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    s.dhow(["network", "create", "--ipv6", "six"]).ok();
    s.detached(["--name", "one", "--network", "six"], ["sleep", "1000"]);
    for (words, want) in [
        (format!("tcp {V4}:1 1"), "ConnectionRefused"),
        (format!("tcp [{V6}]:1 1"), "ConnectionRefused"),
        (format!("udp {V4}:1 1"), "ConnectionRefused"),
        (format!("udp [{V6}]:1 1"), "ConnectionRefused"),
        ("tcp 203.0.113.1:1 1".to_owned(), "NetworkUnreachable"),
        ("tcp [2001:db8::1]:1 1".to_owned(), "NetworkUnreachable"),
        // Nobody has this address of the host's own network.
        ("tcp 10.99.0.200:1 1".to_owned(), "HostUnreachable"),
    ] {
        assert_eq!(inside(s, "one", &words), want, "{words}");
    }
}

fn the_hosts_own_is_not_reached(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    s.detached(["--name", "one"].into_iter().chain(BRIDGE), ["sleep", "1000"]);
    let secret = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = secret.local_addr().unwrap().port();
    let gateway = s.inspect("one", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}");
    assert!(gateway.starts_with("10."), "{gateway}");
    for to in ["127.0.0.1", "192.0.0.1", "192.0.0.2", &gateway] {
        let said = inside(s, "one", &format!("tcp {to}:{port} 1"));
        assert_eq!(said, "ConnectionRefused", "{to}");
    }
    secret.set_nonblocking(true).unwrap();
    assert!(secret.accept().is_err(), "somebody came");
}

/// Says something from an address of the host to another; what comes back.
fn say(from: &str, to: &str, port: u16) -> String {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket(family, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    if let Err(error) = connect(&socket, &to) {
        return error.to_string();
    }
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(wait::SOON)).unwrap();
    let mut text = String::new();
    // It may be reset at any moment.
    let said = stream.write_all(b"hello").and_then(|()| stream.shutdown(Shutdown::Write));
    match said.and_then(|()| stream.read_to_string(&mut text)) {
        Ok(_) => text,
        Err(error) => error.to_string(),
    }
}

fn say_by_datagram(from: &str, to: &str, port: u16) -> String {
    let socket = UdpSocket::bind((from.parse::<IpAddr>().unwrap(), 0)).unwrap();
    socket.set_read_timeout(Some(wait::SOON)).unwrap();
    // Connected: an answer from another address than was asked would not be heard.
    socket.connect((to.parse::<IpAddr>().unwrap(), port)).unwrap();
    socket.send(b"hello").unwrap();
    let mut answer = [0; 100];
    let length = socket.recv(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// A server that is published on the host's port.
fn serve(s: &Sandbox, name: &str, flags: &[&str]) {
    let flags = ["--name", name].into_iter().chain(flags.iter().copied());
    s.detached(flags, ["/probe", "serve", "7000"]);
    wait::until("the server", || s.dhow(["logs", name]).ok().contains("ready").then_some(()));
}

fn clients_come_in_as_themselves(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    s.dhow(["network", "create", "--ipv6", "six"]).ok();
    serve(s, "web", &["--network", "six", "-p", "8080:7000", "-p", "8080:7000/udp"]);
    for (from, to, seen) in [
        (V4, V4, V4),
        (OTHER, V4, OTHER),
        (V4, OTHER, V4),
        (V6, V6, V6),
        ("127.0.0.1", "127.0.0.1", "192.0.0.1"),
        ("::1", "::1", "fd64:686f:7700::1"),
    ] {
        assert_eq!(say(from, to, 8080), format!("{seen} 5"), "{from} to {to}");
        assert_eq!(say_by_datagram(from, to, 8080), format!("{seen} 5"), "{from} to {to} by UDP");
    }
    // From another container, by the host's address.
    let hairpin = probe(s, &BRIDGE, &format!("tcp {V4}:8080 5"));
    assert_eq!(hairpin, format!("{V4} 5"));
    // Nobody listens on the container's port: whoever comes is told as well as it can be.
    s.detached(["--name", "deaf", "-p", "8081:7001"].into_iter().chain(BRIDGE), ["sleep", "1000"]);
    assert!(say(V4, V4, 8081).contains("reset"), "{}", say(V4, V4, 8081));
    // Once more with the same name and port.
    s.dhow(["restart", "-t", "0", "web"]).ok();
    wait::until("the server", || (say(OTHER, V4, 8080) == format!("{OTHER} 5")).then_some(()));
    s.dhow(["rm", "-f", "web"]).ok();
    assert!(say(V4, V4, 8080).contains("refused"), "{}", say(V4, V4, 8080));
}

fn ports_that_cannot_be_had(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    let run =
        |port: &str| s.dhow(["run", "--rm", "-p", port]).args(BRIDGE).args(["busybox", "true"]).output();
    serve(s, "web", &["--network", "bridge", "-p", "8080:7000"]);
    run("8080:80").exits(125).complains("container web has it");
    run("80:80")
        .exits(125)
        .complains("net.ipv4.ip_unprivileged_port_start=80")
        // 8080, which it would have been, is taken.
        .complains("-p 8081:80");
    run("8082:80/sctp").exits(125).complains("that is root's");
    run("203.0.113.9:8082:80").exits(125).complains("no address of this machine");
}

/// The forwarders of this sandbox.
pub fn forwarders(s: &Sandbox) -> Vec<i32> {
    let store = s.store.display().to_string();
    let is_one = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == format!("dhow\0forward\0{store}\0").into_bytes()
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

fn it_lives_as_long_as_it_is_needed(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    assert_eq!(probe(s, &["--network", "none"], "exit 0"), "");
    assert!(forwarders(s).is_empty(), "nobody needs it");
    s.detached(["--name", "one"].into_iter().chain(BRIDGE), ["sleep", "1000"]);
    let first = forwarders(s);
    assert_eq!(first.len(), 1);
    s.detached(["--name", "two"].into_iter().chain(BRIDGE), ["sleep", "1000"]);
    s.dhow(["rm", "-f", "one"]).ok();
    assert_eq!(forwarders(s), first, "two is there yet");
    s.dhow(["rm", "-f", "two"]).ok();
    wait::until("its end", || forwarders(s).is_empty().then_some(()));
    assert!(!s.store.join("forward/socket").exists());
    // The command dies, and with it the container, and with that the forwarder.
    let running = s.dhow(["run", "--rm"]).args(BRIDGE).args(["busybox", "sleep", "1000"]).spawn_with(|_| ());
    wait::until("its beginning", || (forwarders(s).len() == 1).then_some(()));
    drop(running);
    wait::until("its end", || forwarders(s).is_empty().then_some(()));
}

fn it_is_healed(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    serve(s, "web", &["--network", "bridge", "-p", "8080:7000"]);
    s.detached(["--name", "other"].into_iter().chain(BRIDGE), ["sleep", "1000"]);
    let web = s.inspect("web", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    let outside = format!("{V4}:{}", own_host::serve(V4));
    let killed = forwarders(s);
    leftovers::kill_own(killed[0], Signal::KILL);
    leftovers::wait_for_end(killed[0]);
    let next =
        s.dhow(["run", "--rm"]).args(BRIDGE).args(["busybox", "/probe", "tcp", &outside, "5"]).output();
    let next = next.exits(0).complains("was ended; it is started again");
    assert_eq!(next.text(), "outside 5");
    assert!(inside(s, "other", &format!("tcp {web}:7000 5")).ends_with(" 5"), "the bridge is there yet");
    assert_eq!(forwarders(s).len(), 1);
    wait::until("the port", || (say(OTHER, V4, 8080) == format!("{OTHER} 5")).then_some(()));
    for name in ["web", "other"] {
        assert_eq!(inside(s, name, &format!("tcp {outside} 5")), "outside 5");
    }
    // Old and new are on one network.
    assert!(probe(s, &BRIDGE, &format!("tcp {web}:7000 5")).ends_with(" 5"));
    s.dhow(["rm", "-f", "web", "other"]).ok();
    wait::until("its end", || forwarders(s).is_empty().then_some(()));
}

fn two_at_once_start_one(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    let outside = format!("{V4}:{}", own_host::serve(V4));
    for _ in 0..3 {
        let all: Vec<_> = (0..6)
            .map(|_| {
                let run =
                    s.dhow(["run", "--rm"]).args(BRIDGE).args(["busybox", "/probe", "tcp", &outside, "5"]);
                let (mut command, ..) = run.command();
                command
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in all {
            let out = child.wait_with_output().unwrap();
            let said = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert_eq!((said.0.trim(), &*said.1), ("outside 5", ""));
        }
    }
}

fn ten_thousand_connections(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    // One at a time: the outside's halves are all ours.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let most = Some(70_000);
    if getrlimit(Resource::Nofile).maximum.is_some_and(|limit| limit < 70_000) {
        // Not everywhere may root do so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    }
    // Each takes two descriptors of the forwarder.
    let count = getrlimit(Resource::Nofile).maximum.map_or(10_000, |limit| (limit / 2 - 200).min(10_000));
    let outside = format!("{V4}:{}", own_host::serve(V4));
    let flags = ["--ulimit", "nofile=20000", "--network", "bridge"];
    assert_eq!(probe(s, &flags, &format!("crowd {outside} {count}")), count.to_string());
}

fn a_flood_leaves_room(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    let outside = format!("{V4}:{}", own_host::serve(V4));
    let flags = ["--name", "flood", "--ulimit", "nofile=10000", "--network", "bridge"];
    s.detached(flags, ["/probe", "flood", &format!("{SILENT}:1"), "9000"]);
    wait::until("the flood", || s.dhow(["logs", "flood"]).ok().contains("9").then_some(()));
    for size in ["1", "1000000"] {
        assert_eq!(probe(s, &BRIDGE, &format!("tcp {outside} {size}")), format!("outside {size}"));
    }
}

fn an_internal_network_has_no_way_out(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    s.dhow(["network", "create", "--internal", "inner"]).ok();
    let to = format!("{V4}:{}", own_host::serve(V4));
    assert_eq!(probe(s, &["--network", "inner"], &format!("tcp {to} 1")), "NetworkUnreachable");
    assert_eq!(probe(s, &BRIDGE, &format!("tcp {to} 1")), "outside 1");
}
