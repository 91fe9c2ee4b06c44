//! One question to one server: RFC 1035 over UDP, and over TCP where the answer did not fit.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::time::Duration;
use std::time::Instant;

use simple_dns::CLASS;
use simple_dns::Name;
use simple_dns::Packet;
use simple_dns::PacketFlag;
use simple_dns::QCLASS;
use simple_dns::QTYPE;
use simple_dns::Question;
use simple_dns::RCODE;
use simple_dns::TYPE;
use simple_dns::rdata::RData;

/// What a server said of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Its addresses; none where the name is there but has no address.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
    /// The answer did not fit into a datagram.
    Truncated,
    /// The server cannot tell.
    Failed,
}

/// Asks for the IPv4 and the IPv6 addresses of an absolute name, both at once. The error is that the server did not answer.
pub fn ask(server: SocketAddr, name: &str, timeout: Duration) -> io::Result<Answer> {
    let deadline = Instant::now() + timeout;
    let local: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(local)?;
    // Connected: the kernel drops what comes from elsewhere, and a closed port is an error at once.
    socket.connect(server)?;
    let ids = random_ids()?;
    let mut open: Vec<(u16, TYPE)> = vec![(ids[0], TYPE::A), (ids[1], TYPE::AAAA)];
    for (id, kind) in &open {
        socket.send(&question(*id, name, *kind)?)?;
    }
    let mut answers = Vec::new();
    let mut buffer = [0; 4096];
    while !open.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let n = match socket.recv(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(e) => return Err(e),
        };
        let Some((at, answer)) = open
            .iter()
            .enumerate()
            .find_map(|(at, (id, kind))| Some((at, read(&buffer[..n], *id, name, *kind)?)))
        else {
            continue;
        };
        let (id, kind) = open.swap_remove(at);
        answers.push(match answer {
            Answer::Truncated => ask_by_tcp(server, id, name, kind, deadline)?,
            answer => answer,
        });
    }
    // Some servers never answer the one for IPv6: half an answer is one.
    combine(answers).ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))
}

fn combine(answers: Vec<Answer>) -> Option<Answer> {
    let mut found = Vec::new();
    let mut is_there = false;
    let mut rest = None;
    for answer in answers {
        match answer {
            Answer::Addresses(addresses) => {
                is_there = true;
                found.extend(addresses);
            }
            other => rest = Some(other),
        }
    }
    if is_there { Some(Answer::Addresses(found)) } else { rest }
}

fn random_ids() -> io::Result<[u16; 2]> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let ids = [u16::from_ne_bytes([bytes[0], bytes[1]]), u16::from_ne_bytes([bytes[2], bytes[3]])];
    Ok([ids[0], if ids[1] == ids[0] { ids[0].wrapping_add(1) } else { ids[1] }])
}

fn invalid(e: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, e)
}

fn question(id: u16, name: &str, kind: TYPE) -> io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(invalid)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(invalid)
}

/// The answer to one question, `None` where the message is no answer to it. Pure.
fn read(message: &[u8], id: u16, name: &str, kind: TYPE) -> Option<Answer> {
    let packet = Packet::parse(message).ok()?;
    let is_ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && packet.questions.first().is_some_and(|q| {
            q.qtype == QTYPE::TYPE(kind)
                && q.qname.to_string().trim_end_matches('.').eq_ignore_ascii_case(name)
        });
    if !is_ours {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Answer::Truncated);
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Some(Answer::NoSuchName),
        _ => return Some(Answer::Failed),
    }
    // Aliases were followed by the server: what it lists is what the name comes to.
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) if kind == TYPE::A => Some(IpAddr::V4(a.address.into())),
        RData::AAAA(a) if kind == TYPE::AAAA => Some(IpAddr::V6(a.address.into())),
        _ => None,
    });
    Some(Answer::Addresses(addresses.take(16).collect()))
}

fn ask_by_tcp(server: SocketAddr, id: u16, name: &str, kind: TYPE, deadline: Instant) -> io::Result<Answer> {
    let left = || Some(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
    let mut stream = TcpStream::connect_timeout(&server, left().unwrap_or_default())?;
    stream.set_write_timeout(left())?;
    stream.set_read_timeout(left())?;
    let question = question(id, name, kind)?;
    let length = u16::try_from(question.len()).map_err(invalid)?;
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    // Truncated once more: nothing left to try with this server.
    Ok(match read(&message, id, name, kind) {
        Some(Answer::Truncated) | None => Answer::Failed,
        Some(answer) => answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::A;
    use simple_dns::rdata::AAAA;
    use std::net::TcpListener;

    /// Answers one message: `big.test` only by TCP.
    fn answer(message: &[u8], is_tcp: bool) -> Vec<u8> {
        let question = Packet::parse(message).unwrap();
        let mut reply = Packet::parse(message).unwrap().into_reply();
        let q = &question.questions[0];
        let name = q.qname.to_string();
        let is_v4 = q.qtype == QTYPE::TYPE(TYPE::A);
        match (name.as_str(), is_tcp) {
            ("none.test", _) => *reply.rcode_mut() = RCODE::NameError,
            ("broken.test", _) => *reply.rcode_mut() = RCODE::ServerFailure,
            ("big.test", false) => reply.set_flags(PacketFlag::TRUNCATION),
            ("empty.test", _) => {}
            _ => {
                let data = if is_v4 {
                    RData::A(A { address: u32::from(std::net::Ipv4Addr::new(10, 1, 2, 3)) })
                } else {
                    RData::AAAA(AAAA { address: u128::from(std::net::Ipv6Addr::LOCALHOST) })
                };
                reply.answers.push(ResourceRecord::new(q.qname.clone(), CLASS::IN, 1, data));
            }
        }
        reply.build_bytes_vec().unwrap()
    }

    #[test]
    fn a_server_is_asked_by_udp_and_then_by_tcp() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(server).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((n, from)) = udp.recv_from(&mut buffer) {
                // What is no answer to the question comes first, and is passed over.
                udp.send_to(b"junk", from).unwrap();
                udp.send_to(&buffer[..n], from).unwrap();
                udp.send_to(&answer(&buffer[..n], false), from).unwrap();
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut message).unwrap();
                let reply = answer(&message, true);
                stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&reply).unwrap();
            }
        });
        let ask = |name: &str| ask(server, name, Duration::from_secs(20)).unwrap();
        let both = |answer| {
            let Answer::Addresses(mut found) = answer else { panic!("{answer:?}") };
            found.sort();
            assert_eq!(found, ["10.1.2.3".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        };
        both(ask("reg.test"));
        both(ask("big.test"));
        assert_eq!(ask("empty.test"), Answer::Addresses(vec![]));
        assert_eq!(ask("none.test"), Answer::NoSuchName);
        assert_eq!(ask("broken.test"), Answer::Failed);
    }

    #[test]
    fn hostile_messages_are_no_answer() {
        let query = question(7, "a.test", TYPE::A).unwrap();
        for end in 0..query.len() {
            assert_eq!(read(&query[..end], 7, "a.test", TYPE::A), None);
        }
        let reply = answer(&query, true);
        assert!(read(&reply, 7, "A.test", TYPE::A).is_some());
        assert_eq!(read(&reply, 8, "a.test", TYPE::A), None);
        assert_eq!(read(&reply, 7, "b.test", TYPE::A), None);
        assert_eq!(read(&reply, 7, "a.test", TYPE::AAAA), None);
        // A name that points at itself.
        let mut looped = reply[..12].to_vec();
        looped.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(read(&looped, 7, "a.test", TYPE::A), None);
    }
}
