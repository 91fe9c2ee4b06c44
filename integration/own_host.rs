//! A network name space that a test has as its host: nothing that is done there is seen by other tests, and whoever listens
//! on its addresses is the outside for the containers in it.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::thread;

/// Its addresses: of two families, and a second one of the first, to be another client from.
pub const V4: &str = "10.99.0.1";
pub const OTHER: &str = "10.99.0.7";
pub const V6: &str = "fd99::1";
/// It can be routed to, but nobody is there.
pub const SILENT: &str = "10.98.0.1";

/// Puts this thread, and all that it starts from now on, into a host of its own. Only root can.
pub fn enter() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let script = "ip link set lo up
        ip link add h0 type veth peer name h1
        ip addr add 10.99.0.1/24 dev h0; ip addr add 10.99.0.7/24 dev h0
        ip -6 addr add fd99::1/64 dev h0 nodad
        ip link set h0 up; ip link set h1 up
        ip route add 10.98.0.0/16 dev h0
        ip neigh add 10.98.0.1 lladdr 02:00:00:00:00:99 dev h0";
    let done = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// What listens outside, by TCP and UDP, on a free port of an address: it answers with how much it was told. Goes on until
/// the test ends.
pub fn serve(address: &str) -> u16 {
    let ip: IpAddr = address.parse().unwrap();
    let (listener, socket) = (0..100)
        .find_map(|_| {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let socket = UdpSocket::bind(listener.local_addr().unwrap()).ok()?;
            Some((listener, socket))
        })
        .unwrap();
    let _ = rustix::net::listen(&listener, 4096);
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut bytes = vec![0; 65536];
        while let Ok((length, client)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(format!("outside {length}").as_bytes(), client);
        }
    });
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Without a thread for each: there may be ten thousand. Those of one crowd end in the order that they began in.
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    let (mut bytes, mut count) = (vec![0; 16384], 0);
                    while let Ok(length @ 1..) = stream.read(&mut bytes) {
                        count += length;
                    }
                    let _ = stream.write_all(format!("outside {count}").as_bytes());
                })
                .unwrap();
        }
    });
    port
}

/// What resets whoever connects, on a free port.
pub fn reset(address: &str) -> u16 {
    let listener = TcpListener::bind((address.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO));
        }
    });
    port
}
