//! The whole of it, in a network name space of its own: needs a user who may make one.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::super::{Resolver, Settings, Sockets};
use super::*;
use crate::network::netlink;

/// Sockets of the name space that we are in.
fn own_sockets() -> Sockets {
    let make = |kind| socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).unwrap();
    let filter = netlink::Socket::open(netlink::Family::Filter).unwrap();
    Sockets { datagram: make(SocketType::DGRAM), stream: make(SocketType::STREAM), filter }
}

/// Serves until `is_done`.
fn serve(resolver: &mut Resolver, is_done: impl Fn() -> bool) {
    while !is_done() {
        let ready: Vec<PollFlags> = {
            let mut fds: Vec<PollFd<'_>> = Vec::new();
            for (fd, flags) in resolver.interest() {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
            let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            rustix::event::poll(&mut fds, Some(&soon)).unwrap();
            fds.iter().map(PollFd::revents).collect()
        };
        resolver.step(&ready, &records(), &mut is_alive);
    }
}

/// Asks from inside: by datagram, by TCP with two queries in one write, and listens at port 53 itself.
fn ask_inside() -> Vec<String> {
    let own = UdpSocket::bind("0.0.0.0:53").unwrap();
    let _own = (own, std::net::TcpListener::bind("0.0.0.0:53").unwrap());
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    udp.connect("127.0.0.11:53").unwrap();
    let mut said = Vec::new();
    let mut bytes = [0; 4096];
    for name in ["web", "pool", "example.com"] {
        udp.send(&query(name, TYPE::A, None)).unwrap();
        let n = udp.recv(&mut bytes).unwrap();
        said.push(show(&Answer::Reply(bytes[..n].to_vec())));
    }
    let mut tcp = TcpStream::connect("127.0.0.11:53").unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let both: Vec<u8> = ["db", "web"]
        .iter()
        .flat_map(|name| {
            let query = query(name, TYPE::A, None);
            [&(query.len() as u16).to_be_bytes()[..], &query].concat()
        })
        .collect();
    tcp.write_all(&both).unwrap();
    for _ in 0..2 {
        let mut length = [0; 2];
        tcp.read_exact(&mut length).unwrap();
        let n = usize::from(u16::from_be_bytes(length));
        tcp.read_exact(&mut bytes[..n]).unwrap();
        said.push(show(&Answer::Reply(bytes[..n].to_vec())));
    }
    said
}

#[test]
fn programs_inside_ask_at_port_53_which_stays_free() {
    let (to_us, from_inside) = std::sync::mpsc::channel();
    let (said, hear) = std::sync::mpsc::channel();
    let (go, went) = std::sync::mpsc::channel::<()>();
    let inside = std::thread::spawn(move || {
        if crate::sys::process::unshare(libc::CLONE_NEWNET).is_err() {
            return to_us.send(None).unwrap();
        }
        to_us.send(Some(own_sockets())).unwrap();
        went.recv().unwrap();
        crate::sys::net::set_up(c"lo").unwrap();
        said.send(ask_inside()).unwrap();
    });
    let Some(sockets) = from_inside.recv().unwrap() else {
        // This user may not make a network name space; the integration tests show it as every user.
        return;
    };
    // A server that is closed: what is not known is refused at once, from out here.
    let settings = Settings { servers: vec!["127.0.0.1".into()], options: vec!["attempts:1".into()] };
    let mut resolver = Resolver::open(sockets, &settings).unwrap();
    go.send(()).unwrap();
    serve(&mut resolver, || inside.is_finished());
    let said = hear.recv().unwrap();
    inside.join().unwrap();
    let pool = &said[1];
    assert!(pool == "NoError 10.1.0.3 10.1.0.4" || pool == "NoError 10.1.0.4 10.1.0.3", "{pool}");
    assert_eq!(said[0], "NoError 10.1.0.2");
    assert_eq!(said[2..], ["ServerFailure", "NoError 10.2.0.3", "NoError 10.1.0.2"]);
}
