//! What passes through a user's way to the outside: streams to their ends, datagrams of all sizes, pings, and what happens
//! when there are too many of them.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use rustix::net::{RecvFlags, SendFlags};

use crate::capability::needs;
use crate::own_host::{self, SILENT, V4, V6};
use crate::sandbox::Sandbox;
use crate::wait;

for_rootless!(
    streams_end_as_they_are_ended,
    urgent_bytes,
    nobody_answers,
    large_and_tiny,
    many_flows,
    pings,
    old_ones_go_on_when_there_is_no_room
);

/// A container on a network of both families.
fn container(s: &Sandbox) {
    own_host::enter();
    s.dhow(["network", "create", "--ipv6", "-o", "mtu=1500", "six"]).ok();
    s.detached(["--name", "one", "--network", "six"], ["sleep", "1000"]);
}

#[track_caller]
fn inside(s: &Sandbox, name: &str, words: &str) -> String {
    s.dhow(["exec", name, "/probe"]).args(words.split(' ')).ok()
}

/// A server that is published on the host's port 8080.
fn publish(s: &Sandbox, dhow: crate::command::Cmd) {
    dhow.ok();
    wait::until("the server", || s.dhow(["logs", "web"]).ok().contains("ready").then_some(()));
}

const WEB: [&str; 11] =
    ["run", "-d", "--name", "web", "--network", "bridge", "-p", "8080:7000", "busybox", "/probe", "serve"];

fn streams_end_as_they_are_ended(s: &Sandbox) {
    needs!("root");
    container(s);
    for address in [V4, V6] {
        // The outside has said its last long before the container has.
        let listener = TcpListener::bind((address.parse::<IpAddr>().unwrap(), 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let outside = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"bye").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all.len()
        });
        assert_eq!(inside(s, "one", &format!("half {to} 3000000")), "bye");
        assert_eq!(outside.join().unwrap(), 3_000_000, "{address}");
    }
}

fn urgent_bytes(s: &Sandbox) {
    needs!("root");
    container(s);
    let listener = TcpListener::bind((V4, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let outside = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let urgent = wait::until("the urgent byte", || {
            let mut byte = [0];
            rustix::net::recv(&stream, &mut byte, RecvFlags::OOB).is_ok().then_some(byte[0])
        });
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        stream.write_all(b"heard").unwrap();
        (urgent, rest)
    });
    assert_eq!(inside(s, "one", &format!("urgent {to}")), "heard");
    assert_eq!(outside.join().unwrap(), (b'!', "abcd".to_owned()));
    // The other way; at the very end, too. The server does not look at urgent bytes.
    publish(s, s.dhow(WEB).arg("7000"));
    let mut stream = TcpStream::connect((V4, 8080)).unwrap();
    stream.write_all(b"ab").unwrap();
    rustix::net::send(&stream, b"!", SendFlags::OOB).unwrap();
    stream.write_all(b"cd").unwrap();
    rustix::net::send(&stream, b"?", SendFlags::OOB).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with(V4), "{text}");
    // The kernel takes an urgent byte for an ordinary one when the next is there before it was looked at.
    assert!(text.ends_with(" 4") || text.ends_with(" 5"), "{text}");
}

fn nobody_answers(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    let flags = ["--rm", "--network", "bridge", "--sysctl", "net.ipv4.tcp_syn_retries=1"];
    let said = s.dhow(["run"]).args(flags).args(["busybox", "/probe", "tcp", &format!("{SILENT}:1"), "1"]);
    assert_eq!(said.ok(), "TimedOut");
}

/// What sends datagrams back as they came.
fn echo(address: &str) -> SocketAddr {
    let socket = UdpSocket::bind((address.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let to = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = vec![0; 65536];
        while let Ok((length, client)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..length], client);
        }
    });
    to
}

fn large_and_tiny(s: &Sandbox) {
    needs!("root");
    container(s);
    // One network divides what is long, the other need not.
    s.dhow(["network", "create", "--ipv6", "wide"]).ok();
    s.detached(["--name", "two", "--network", "wide"], ["sleep", "1000"]);
    for address in [V4, V6] {
        let (tcp, udp) = (SocketAddr::new(address.parse().unwrap(), own_host::serve(address)), echo(address));
        for name in ["one", "two"] {
            assert_eq!(inside(s, name, &format!("tiny {tcp} 3000")), "outside 3000");
            assert_eq!(inside(s, name, &format!("tcp {tcp} 5000000")), "outside 5000000");
            for size in [0, 1, 1232, 1233, 1452, 9000, 65507] {
                assert_eq!(inside(s, name, &format!("echo {udp} {size}")), "the same", "{udp} {size}");
            }
        }
    }
}

fn many_flows(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    let to = echo(V4);
    let flags = ["--rm", "--network", "bridge", "--ulimit", "nofile=4000"];
    let said = s.dhow(["run"]).args(flags).args(["busybox", "/probe", "flows", &to.to_string(), "1000"]);
    assert_eq!(said.ok(), "1000");
}

fn pings(s: &Sandbox) {
    needs!("root");
    container(s);
    let ping = |to: &str, size: &str| {
        let args = ["exec", "one", "ping", "-c", "1", "-W", "5", "-s", size, to];
        s.dhow(args).output()
    };
    // Without ping sockets of its own, a user's machine answers for itself alone.
    for to in [V4, V6] {
        ping(to, "56").exits(0);
    }
    ping(SILENT, "56").exits(1);
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    for to in [V4, V6] {
        for size in ["0", "56", "1200"] {
            ping(to, size).exits(0);
        }
    }
    ping("203.0.113.1", "56").exits(1);
}

fn old_ones_go_on_when_there_is_no_room(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    // The forwarder may have few descriptors.
    publish(s, s.dhow(WEB).arg("7000").under(&["prlimit", "--nofile=1000:1000"]));
    let mut old = TcpStream::connect((V4, 8080)).unwrap();
    old.write_all(b"x").unwrap();
    let to = format!("{V4}:{}", own_host::serve(V4));
    let flags = ["--name", "crowd", "--ulimit", "nofile=3000", "--network", "bridge"];
    s.detached(flags, ["/probe", "flood", &to, "2000"]);
    wait::until("the flood", || s.dhow(["logs", "crowd"]).ok().contains("2000").then_some(()));
    old.write_all(&vec![b'x'; 3_000_000]).unwrap();
    old.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("{V4} 3000001"));
    // Those for whom there was no room asked again and again.
    s.dhow(["rm", "-f", "crowd"]).ok();
    let said = s.dhow(["run", "--rm", "--network", "bridge", "busybox", "/probe", "tcp", &to, "5"]);
    assert_eq!(said.ok(), "outside 5");
}
