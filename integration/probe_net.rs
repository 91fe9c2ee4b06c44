//! The probe as a client and as a server of networks.
//!
//! `probe tcp ADDRESS:PORT N` sends N bytes, says that it is done, prints the answer; `probe udp` the same with one datagram;
//! `probe crowd ADDRESS:PORT N` has N connections at once, each of which must answer; `probe flood ADDRESS:PORT N` begins N
//! connections and waits for none; `probe half ADDRESS:PORT N` hears the other out before it sends N bytes; `probe tiny
//! ADDRESS:PORT N` sends N bytes one by one; `probe urgent ADDRESS:PORT` says `ab`, urgently `!`, then `cd`; `probe echo
//! ADDRESS:PORT N` sends a datagram that must come back as it was; `probe flows ADDRESS:PORT N` has N flows of datagrams at
//! once, each of which must be answered; `probe serve PORT` answers by both with the client's address and how much it said.

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
        Some("half") => tell(half(address(), number(2))),
        Some("tiny") => tell(tiny(address(), number(2))),
        Some("urgent") => tell(urgent(address())),
        Some("echo") => tell(echo(address(), number(2))),
        Some("flows") => tell(flows(address(), number(2))),
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

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn half(to: SocketAddr, size: usize) -> io::Result<String> {
    let mut stream = connect(to)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    stream.write_all(&vec![b'x'; size])?;
    Ok(text)
}

fn tiny(to: SocketAddr, count: usize) -> io::Result<String> {
    let mut stream = connect(to)?;
    for _ in 0..count {
        stream.write_all(b"x")?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn urgent(to: SocketAddr) -> io::Result<String> {
    let mut stream = connect(to)?;
    stream.write_all(b"ab")?;
    rustix::net::send(&stream, b"!", rustix::net::SendFlags::OOB)?;
    stream.write_all(b"cd")?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn datagram_socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    Ok(socket)
}

fn echo(to: SocketAddr, size: usize) -> io::Result<String> {
    let socket = datagram_socket(to)?;
    let sent: Vec<u8> = (0..size).map(|n| (n * 7 + n / 256) as u8).collect();
    socket.send(&sent)?;
    let mut answer = vec![0; 65536];
    let length = socket.recv(&mut answer)?;
    Ok(if answer[..length] == sent { "the same" } else { "something else" }.to_owned())
}

fn flows(to: SocketAddr, count: usize) -> io::Result<String> {
    let sockets = (0..count).map(|_| datagram_socket(to)).collect::<io::Result<Vec<_>>>()?;
    let mut answered = 0;
    // Not all at once: what finds no room is lost, as datagrams may be.
    for some in sockets.chunks(50) {
        for socket in some {
            socket.send(b"x")?;
        }
        for socket in some {
            answered += usize::from(socket.recv(&mut [0; 100])? > 0);
        }
    }
    Ok(answered.to_string())
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
