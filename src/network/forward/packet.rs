//! Packets as bytes: what is read of those that containers send, and those that are made for them. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
/// An Ethernet header.
const LINK: usize = 14;

/// The first packet of a connection, as it came on the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syn {
    /// Who wants to connect.
    pub source: SocketAddr,
    /// To whom.
    pub target: SocketAddr,
    sequence: u32,
    frame: Vec<u8>,
    /// Where the TCP header begins.
    tcp: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn v4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

impl Syn {
    /// Reads a frame; `None` if it is no first packet of a TCP connection, or not whole.
    pub fn read(frame: &[u8]) -> Option<Syn> {
        let ip = frame.get(LINK..)?;
        let (source, target, header, length) = match (word(frame, 12)?, ip.first()? >> 4) {
            (0x0800, 4) if ip.get(9)? == &TCP => {
                let header = usize::from(ip[0] & 15) * 4;
                (v4(ip, 12)?, v4(ip, 16)?, header, usize::from(word(ip, 2)?))
            }
            (0x86dd, 6) if ip.get(6)? == &TCP => {
                (v6(ip, 8)?, v6(ip, 24)?, 40, 40 + usize::from(word(ip, 4)?))
            }
            _ => return None,
        };
        if header < 20 || length < header + 20 || length > ip.len() {
            return None;
        }
        let tcp = &ip[header..length];
        if tcp[13] & 0x12 != 0x02 {
            return None;
        }
        let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
        Some(Syn {
            source: SocketAddr::new(source, word(tcp, 0)?),
            target: SocketAddr::new(target, word(tcp, 2)?),
            sequence,
            // Shorter frames are padded.
            frame: frame[..LINK + length].to_vec(),
            tcp: LINK + header,
        })
    }

    /// The frame again, from `mac`, with the checksum that a sender on the same machine leaves to a card.
    pub fn frame_from(&self, mac: u8) -> Vec<u8> {
        let mut frame = self.frame.clone();
        frame[6] = mac;
        frame[self.tcp + 16..self.tcp + 18].fill(0);
        let sum = sum_of(self.source.ip(), self.target.ip(), TCP, &[&frame[self.tcp..]]);
        frame[self.tcp + 16..self.tcp + 18].copy_from_slice(&sum);
        frame
    }

    /// What says that nobody listens there: a reset (RFC 9293, 3.10.7.1), with its IP header.
    pub fn refusal(&self) -> Vec<u8> {
        let mut tcp = vec![0; 20];
        tcp[0..2].copy_from_slice(&self.target.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.source.port().to_be_bytes());
        let head = self.tcp + usize::from(self.frame[self.tcp + 12] >> 4) * 4;
        let payload = self.frame.len().saturating_sub(head);
        let next = self.sequence.wrapping_add(1).wrapping_add(payload as u32);
        tcp[8..12].copy_from_slice(&next.to_be_bytes());
        tcp[12] = 5 << 4;
        // RST, ACK.
        tcp[13] = 0x14;
        let sum = sum_of(self.target.ip(), self.source.ip(), TCP, &[&tcp]);
        tcp[16..18].copy_from_slice(&sum);
        with_header(self.target.ip(), self.source.ip(), TCP, &tcp)
    }

    /// The packet that came, from its IP header on.
    pub fn packet(&self) -> &[u8] {
        &self.frame[LINK..]
    }
}

/// The Internet checksum (RFC 1071) of `parts` behind the pseudo header of IP. Only the last part may be of odd length.
fn sum_of(source: IpAddr, target: IpAddr, protocol: u8, parts: &[&[u8]]) -> [u8; 2] {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut sum = u64::from(protocol) + length as u64;
    let addresses = [octets(source), octets(target)].concat();
    for part in std::iter::once(&addresses[..]).chain(parts.iter().copied()) {
        sum += words(part);
    }
    fold(sum)
}

fn words(bytes: &[u8]) -> u64 {
    let mut pairs = bytes.chunks_exact(2);
    let mut sum = 0_u64;
    for pair in &mut pairs {
        sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    sum + pairs.remainder().first().map_or(0, |last| u64::from(*last) << 8)
}

fn fold(mut sum: u64) -> [u8; 2] {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An IP header for so many bytes. Both addresses are of one family; of IPv4 the kernel fills in checksum and number.
fn header(source: IpAddr, target: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut head = match source {
        IpAddr::V4(_) => {
            let [high, low] = ((length + 20) as u16).to_be_bytes();
            vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0]
        }
        IpAddr::V6(_) => {
            let [high, low] = (length as u16).to_be_bytes();
            vec![0x60, 0, 0, 0, high, low, protocol, 64]
        }
    };
    head.extend(octets(source));
    head.extend(octets(target));
    head
}

fn with_header(source: IpAddr, target: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = header(source, target, protocol, body.len());
    packet.extend(body);
    packet
}

/// The headers (IP and UDP) of a datagram. Its checksum is left out where that is allowed, which is in IPv4: it never leaves
/// the machine's memory.
pub fn udp_head(source: SocketAddr, target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() + 8;
    let mut udp = Vec::with_capacity(8);
    for number in [source.port(), target.port(), length as u16, 0] {
        udp.extend(number.to_be_bytes());
    }
    if source.is_ipv6() {
        let sum = sum_of(source.ip(), target.ip(), UDP, &[&udp, payload]);
        // Zero would say that there is none (RFC 8200, 8.1).
        udp[6..8].copy_from_slice(if sum == [0, 0] { &[0xff, 0xff] } else { &sum });
    }
    let mut head = header(source.ip(), target.ip(), UDP, length);
    head.extend(udp);
    head
}

/// Why something cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// There is no way to its network.
    Network,
    /// It does not answer on its own network.
    Host,
    /// Nobody listens on the port.
    Port,
    /// Something forbids it.
    Forbidden,
}

impl Unreachable {
    /// What an errno of connect(2) or send(2) comes to; `None` for one that says nothing about the way there.
    pub fn of(error: &std::io::Error) -> Option<Unreachable> {
        match error.raw_os_error()? {
            libc::ENETUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL => Some(Unreachable::Network),
            libc::EHOSTUNREACH | libc::EHOSTDOWN => Some(Unreachable::Host),
            libc::ECONNREFUSED => Some(Unreachable::Port),
            libc::EACCES | libc::EPERM => Some(Unreachable::Forbidden),
            _ => None,
        }
    }

    /// Type and code (RFC 792, RFC 4443).
    fn code(self, is_v6: bool) -> [u8; 2] {
        match (self, is_v6) {
            (Unreachable::Network, false) => [3, 0],
            (Unreachable::Host, false) => [3, 1],
            (Unreachable::Port, false) => [3, 3],
            (Unreachable::Forbidden, false) => [3, 13],
            (Unreachable::Network, true) => [1, 0],
            (Unreachable::Host, true) => [1, 3],
            (Unreachable::Port, true) => [1, 4],
            (Unreachable::Forbidden, true) => [1, 1],
        }
    }
}

/// What says so to the sender of `packet`, which begins with its IP header.
pub fn unreachable(packet: &[u8], why: Unreachable) -> Option<Vec<u8>> {
    let is_v6 = packet.first()? >> 4 == 6;
    let (sender, receiver) =
        if is_v6 { (v6(packet, 8)?, v6(packet, 24)?) } else { (v4(packet, 12)?, v4(packet, 16)?) };
    // As much as goes into the smallest packet that every network carries.
    let quoted = &packet[..packet.len().min(if is_v6 { 1232 } else { 548 })];
    let [kind, code] = why.code(is_v6);
    Some(icmp(receiver, sender, &[&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat()))
}

/// The headers of a datagram that was sent so, for quoting.
pub fn datagram(source: SocketAddr, target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    [udp_head(source, target, payload), payload.to_vec()].concat()
}

/// A message of ICMP, its checksum filled in.
fn icmp(source: IpAddr, target: IpAddr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let (protocol, sum) = match source {
        IpAddr::V4(_) => (libc::IPPROTO_ICMP as u8, fold(words(&message))),
        IpAddr::V6(_) => {
            let protocol = libc::IPPROTO_ICMPV6 as u8;
            (protocol, sum_of(source, target, protocol, &[&message]))
        }
    };
    message[2..4].copy_from_slice(&sum);
    with_header(source, target, protocol, &message)
}

/// What a ping says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// Whose it is.
    pub id: u16,
    /// Its number, and what it carries.
    pub rest: Vec<u8>,
}

impl Echo {
    /// Reads a message of ICMP that asks for an echo.
    pub fn read(message: &[u8], is_v6: bool) -> Option<Echo> {
        let kind = if is_v6 { 128 } else { 8 };
        if message.len() < 8 || message[0] != kind || message[1] != 0 {
            return None;
        }
        Some(Echo { id: word(message, 4)?, rest: message[6..].to_vec() })
    }

    /// The question, for a socket that fills the rest in.
    pub fn question(&self, is_v6: bool) -> Vec<u8> {
        self.message(if is_v6 { 128 } else { 8 })
    }

    fn message(&self, kind: u8) -> Vec<u8> {
        [&[kind, 0, 0, 0], &self.id.to_be_bytes()[..], &self.rest].concat()
    }

    /// The answer from `source`, with its IP header.
    pub fn answer(&self, source: IpAddr, target: IpAddr) -> Vec<u8> {
        icmp(source, target, &self.message(if source.is_ipv6() { 129 } else { 0 }))
    }

    /// The question as it was sent, with its IP header, for quoting.
    pub fn packet(&self, source: IpAddr, target: IpAddr) -> Vec<u8> {
        icmp(source, target, &self.question(source.is_ipv6()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN from 10.1.0.2:40000 to 1.2.3.4:80, its checksum left to a card, padded.
    fn syn4() -> Vec<u8> {
        let mut frame = vec![0; LINK];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 2, 1, 2, 3, 4]);
        frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0xaa, 0xaa, 0, 0]);
        frame.extend([0; 6]);
        frame
    }

    fn syn6() -> Vec<u8> {
        let mut frame = vec![0; LINK];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame.extend([0x60, 0, 0, 0, 0, 20, 6, 64]);
        frame.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets());
        frame.extend(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 1).octets());
        frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        frame
    }

    /// The checksum over a packet's body and pseudo header must come out as zero.
    fn is_sound(packet: &[u8]) -> bool {
        let is_v6 = packet[0] >> 4 == 6;
        let (a, b, body, protocol) = if is_v6 {
            (v6(packet, 8).unwrap(), v6(packet, 24).unwrap(), &packet[40..], packet[6])
        } else {
            (v4(packet, 12).unwrap(), v4(packet, 16).unwrap(), &packet[20..], packet[9])
        };
        match protocol {
            1 => fold(words(body)) == [0, 0],
            _ => sum_of(a, b, protocol, &[body]) == [0, 0],
        }
    }

    #[test]
    fn a_first_packet_is_read_put_back_and_refused() {
        for (frame, source, target) in
            [(syn4(), "10.1.0.2:40000", "1.2.3.4:80"), (syn6(), "[fd00::2]:40000", "[2001::1]:80")]
        {
            let syn = Syn::read(&frame).unwrap();
            assert_eq!((syn.source, syn.target), (source.parse().unwrap(), target.parse().unwrap()));
            let back = syn.frame_from(6);
            assert_eq!(back[6], 6);
            assert!(is_sound(&back[LINK..]));
            let refusal = syn.refusal();
            assert!(is_sound(&refusal));
            let tcp = &refusal[refusal.len() - 20..];
            assert_eq!((word(tcp, 0), word(tcp, 2), tcp[11], tcp[13]), (Some(80), Some(40000), 10, 0x14));
            let told = unreachable(syn.packet(), Unreachable::Host).unwrap();
            assert!(is_sound(&told));
        }
    }

    #[test]
    fn what_is_no_first_packet_is_left_alone() {
        for frame in [syn4(), syn6()] {
            for length in 0..frame.len() {
                let _ = Syn::read(&frame[..length]);
            }
            for at in 0..frame.len() {
                for byte in [0, 0x4f, 0x60, 0xff] {
                    let mut other = frame.clone();
                    other[at] = byte;
                    if let Some(syn) = Syn::read(&other) {
                        let _ = (syn.frame_from(6), syn.refusal());
                    }
                }
            }
            let mut answer = frame.clone();
            let flags = LINK + if frame[12] == 8 { 20 } else { 40 } + 13;
            answer[flags] = 0x12;
            assert_eq!(Syn::read(&answer), None);
        }
    }

    #[test]
    fn datagrams_and_echoes_are_sound() {
        let (a, b): (SocketAddr, SocketAddr) =
            ("[fd00::1]:53".parse().unwrap(), "[fd00::2]:9".parse().unwrap());
        for payload in [&b""[..], b"x", b"hello, world"] {
            assert!(is_sound(&datagram(a, b, payload)));
            let echo = Echo { id: 7, rest: [&[0, 1], payload].concat() };
            for (a, b) in [(a.ip(), b.ip()), ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap())] {
                let (question, answer) = (echo.packet(a, b), echo.answer(b, a));
                assert!(is_sound(&question) && is_sound(&answer));
                let head = if a.is_ipv6() { 40 } else { 20 };
                assert_eq!(Echo::read(&question[head..], a.is_ipv6()).unwrap(), echo);
                assert_eq!(Echo::read(&answer[head..], a.is_ipv6()), None);
            }
        }
        for length in 0..8 {
            assert_eq!(Echo::read(&[8, 0, 0, 0, 0, 0, 0, 0][..length], false), None);
        }
    }
}
