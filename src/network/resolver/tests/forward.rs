//! Forwarding, against servers on this machine that behave as they are told.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::super::forward::{Asker, Due, Forwarder, Plan};
use super::super::open;
use super::*;

/// What a server does with a query that came by datagram, or else by TCP.
type Behaviour = fn(&[u8], bool) -> Vec<Vec<u8>>;

fn server(behaviour: Behaviour) -> SocketAddr {
    use std::io::{Read, Write};
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok((n, from)) = udp.recv_from(&mut bytes) {
            for reply in behaviour(&bytes[..n], false) {
                udp.send_to(&reply, from).unwrap();
            }
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).unwrap();
            for reply in behaviour(&query, true) {
                let _ = stream.write_all(&(reply.len() as u16).to_be_bytes());
                let _ = stream.write_all(&reply);
            }
        }
    });
    address
}

fn replied(query: &[u8], code: u8, rest: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply[3] = code;
    reply.extend_from_slice(rest);
    reply
}

fn good(query: &[u8], _: bool) -> Vec<Vec<u8>> {
    vec![replied(query, 0, b"good")]
}

fn failing(query: &[u8], _: bool) -> Vec<Vec<u8>> {
    vec![replied(query, 2, b"failing")]
}

fn silent(_: &[u8], _: bool) -> Vec<Vec<u8>> {
    Vec::new()
}

/// Others' replies come before its own.
fn among_forgeries(query: &[u8], _: bool) -> Vec<Vec<u8>> {
    let other_id = replied(&[&[query[0] ^ 1], &query[1..]].concat(), 0, b"forged");
    let mut other_name = replied(query, 0, b"forged");
    other_name[13] ^= 2;
    vec![b"x".to_vec(), query.to_vec(), other_id, other_name, replied(query, 0, b"good")]
}

/// Long answers only by TCP.
fn long(query: &[u8], by_stream: bool) -> Vec<Vec<u8>> {
    if by_stream {
        return vec![replied(query, 0, &[7; 30_000])];
    }
    let mut cut = replied(query, 0, b"");
    cut[2] |= 2;
    vec![cut]
}

/// Only datagrams.
fn hangs_up(query: &[u8], by_stream: bool) -> Vec<Vec<u8>> {
    if by_stream { Vec::new() } else { good(query, false) }
}

/// Turns the wheel until something is to be said.
fn run(forwarder: &mut Forwarder) -> Vec<Due> {
    loop {
        let timeout =
            forwarder.due().expect("something is under way").saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        for (fd, flags) in forwarder.interest() {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let due = forwarder.step(&ready, &mut open, Instant::now());
        if !due.is_empty() {
            return due;
        }
    }
}

fn plan(servers: &[SocketAddr]) -> Plan {
    Plan { servers: servers.to_vec(), timeout: Duration::from_millis(300), attempts: 2 }
}

fn asker() -> Asker {
    Asker::Datagram("127.0.0.1:9".parse::<SocketAddr>().unwrap())
}

/// The reply without header and question.
fn ask(asker: Asker, servers: &[SocketAddr]) -> (u8, Vec<u8>) {
    let question = query("example.com", TYPE::A, Some(1232));
    let mut forwarder = Forwarder::default();
    let mut due = forwarder.ask(asker, &question, &plan(servers), &mut open, Instant::now());
    if due.is_empty() {
        due = run(&mut forwarder);
    }
    let [(to, reply)] = &due[..] else { panic!("{due:?}") };
    assert_eq!(*to, asker);
    assert_eq!(reply[..2], question[..2], "the id is the asker's again");
    assert_eq!(forwarder.interest().count(), 0, "nothing is left open");
    (reply[3] & 15, reply[29..].to_vec())
}

#[test]
fn the_first_that_knows_is_believed() {
    // The bytes of the query, EDNS and all, are what the server got: it sends them back.
    let edns = query("example.com", TYPE::A, Some(1232))[29..].to_vec();
    let check = |servers: &[SocketAddr], code: u8, want: &[u8]| {
        let (got, rest) = ask(asker(), servers);
        assert_eq!((got, &rest[..]), (code, want), "{servers:?}");
    };
    let good_reply = [&edns[..], b"good"].concat();
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    check(&[server(good)], 0, &good_reply);
    check(&[closed, server(good)], 0, &good_reply);
    check(&[server(silent), server(good)], 0, &good_reply);
    check(&[server(failing), server(good)], 0, &good_reply);
    check(&[server(among_forgeries)], 0, &good_reply);
    check(&[server(failing), closed], 2, &[&edns[..], b"failing"].concat());
    check(&[server(long)], 0, &edns);
    // Nobody could tell: said by ourselves, with EDNS as it must be.
    check(&[closed], 2, b"\0\0\x29\x10\0\0\0\0\0\0\0");
    check(&[], 2, b"\0\0\x29\x10\0\0\0\0\0\0\0");
    check(&[server(silent)], 2, b"\0\0\x29\x10\0\0\0\0\0\0\0");
}

#[test]
fn who_asks_by_tcp_is_answered_in_full() {
    let stream = Asker::Stream(1);
    assert_eq!(ask(stream, &[server(long)]).1.len(), 30_011);
    assert_eq!(ask(stream, &[server(good)]).0, 0);
    assert_eq!(ask(stream, &[server(silent), server(long)]).1.len(), 30_011);
    // A server that does not speak TCP is asked by datagrams in the end.
    assert!(ask(stream, &[server(hangs_up)]).1.ends_with(b"good"));
}

#[test]
fn who_asks_again_waits_for_the_same_reply() {
    let question = query("example.com", TYPE::A, None);
    let (mut forwarder, plan, now) = (Forwarder::default(), plan(&[server(silent)]), Instant::now());
    for _ in 0..3 {
        assert!(forwarder.ask(asker(), &question, &plan, &mut open, now).is_empty());
    }
    assert_eq!(forwarder.interest().count(), 1);
    let other = Asker::Datagram("127.0.0.1:10".parse().unwrap());
    assert!(forwarder.ask(other, &question, &plan, &mut open, now).is_empty());
    assert_eq!(forwarder.interest().count(), 2);
    forwarder.forget(other);
    assert_eq!(forwarder.interest().count(), 1);
}

#[test]
fn a_flood_is_bounded() {
    let (mut forwarder, plan, now) = (Forwarder::default(), plan(&[server(silent)]), Instant::now());
    let mut n_refused = 0;
    for n in 0..1000u16 {
        let mut question = query("example.com", TYPE::A, None);
        question[..2].copy_from_slice(&n.to_be_bytes());
        let due = forwarder.ask(asker(), &question, &plan, &mut open, now);
        n_refused += due.iter().filter(|(_, reply)| reply[3] & 15 == 2).count();
    }
    assert_eq!((n_refused, forwarder.interest().count()), (872, 128));
}
