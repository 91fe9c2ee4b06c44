//! The probe as a client and as a server of networks.
//!
//! `probe tcp ADDRESS:PORT N` sends N bytes, says that it is done, prints the answer; `probe udp` the same with one datagram;
//! `probe crowd ADDRESS:PORT N` has N connections at once, each of which must answer; `probe flood ADDRESS:PORT N` begins N
//! connections and waits for none; `probe serve PORT` answers by both with the client's address and how much it said.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Does what the words say; false if they are none of ours.
pub fn run(words: &[&str]) -> bool {
    let number = |n: usize| words.get(n).and_then(|word| word.parse().ok()).unwrap_or(0);
    let address = || words[1].parse::<SocketAddr>().unwrap();
    match words.first().copied() {
        Some("tcp") => tell(tcp(address(), number(2))),
        Some("udp") => tell(udp(address(), number(2))),
        Some("crowd") => tell(crowd(address(), number(2))),
        Some("flood") => flood(address(), number(2)),
        Some("serve") => serve(number(1) as u16),
        _ => return false,
    }
    true
}

fn tell(result: io::Result<String>) {
    match result {
        Ok(text) => println!("{text}"),
        Err(error) => println!("{:?}", error.kind()),
    }
}

fn tcp(to: SocketAddr, size: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&vec![b'x'; size])?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn udp(to: SocketAddr, size: usize) -> io::Result<String> {
    let any: SocketAddr = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(&vec![b'x'; size])?;
    let mut answer = vec![0; 65536];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn crowd(to: SocketAddr, count: usize) -> io::Result<String> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        streams.push(stream);
    }
    let mut answered = 0;
    for stream in &mut streams {
        stream.write_all(b"x")?;
        stream.shutdown(Shutdown::Write)?;
    }
    for stream in &mut streams {
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        answered += usize::from(text.ends_with(" 1"));
    }
    Ok(answered.to_string())
}

fn flood(to: SocketAddr, count: usize) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    let mut sockets = Vec::new();
    for _ in 0..count {
        let flags = SocketFlags::NONBLOCK;
        let Ok(socket) = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None) else { break };
        let _ = connect(&socket, &to);
        sockets.push(socket);
    }
    println!("{}", sockets.len());
    let _ = io::stdin().read_to_end(&mut Vec::new());
    loop {
        thread::park();
    }
}

fn answer(mut stream: TcpStream) {
    let Ok(client) = stream.peer_addr() else { return };
    let (mut bytes, mut count) = (vec![0; 65536], 0);
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        count += length;
    }
    let _ = stream.write_all(format!("{} {count}", client.ip().to_canonical()).as_bytes());
}

fn serve(port: u16) {
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))).unwrap();
    let socket = UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port))).unwrap();
    println!("ready");
    thread::spawn(move || {
        let mut bytes = vec![0; 65536];
        while let Ok((length, client)) = socket.recv_from(&mut bytes) {
            let text = format!("{} {length}", client.ip().to_canonical());
            let _ = socket.send_to(text.as_bytes(), client);
        }
    });
    listener.incoming().flatten().for_each(|stream| drop(thread::spawn(move || answer(stream))));
}
