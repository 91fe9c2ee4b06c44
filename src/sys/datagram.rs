//! Many datagrams in one call (recvmmsg(2), sendmmsg(2)), with the address that each was sent to or is sent from.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

/// Room for the one control message that is asked for.
const CONTROL: usize = 64;

/// Control messages must be aligned as their header is.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Room for datagrams that come.
pub struct Inbox {
    bytes: Vec<u8>,
    size: usize,
    sources: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    lengths: Vec<(usize, usize)>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbox of {} x {}", self.sources.len(), self.size)
    }
}

/// A datagram that came.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Who sent it, where that is told.
    pub source: Option<SocketAddr>,
    /// Where it was sent to, on a socket that was asked to tell (IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR).
    pub target: Option<SocketAddr>,
    /// What it says; what found no room is cut off.
    pub bytes: &'a [u8],
}

fn zeroed<T: Copy>() -> T {
    // SAFETY: only used below for sockaddr_storage, msghdr, mmsghdr and iovec: plain data, valid when all zero.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

impl Inbox {
    /// Room for `count` of at most `size` bytes.
    pub fn new(count: usize, size: usize) -> Inbox {
        Inbox {
            bytes: vec![0; count * size],
            size,
            sources: vec![zeroed(); count],
            controls: vec![Control([0; CONTROL]); count],
            lengths: Vec::with_capacity(count),
        }
    }

    /// Receives what is there without waiting; how many came (0: none is there).
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.lengths.clear();
        let count = self.sources.len();
        let mut parts: Vec<libc::iovec> = self
            .bytes
            .chunks_mut(self.size)
            .map(|room| libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(count);
        for (n, part) in parts.iter_mut().enumerate() {
            let mut header: libc::mmsghdr = zeroed();
            header.msg_hdr.msg_name = (&raw mut self.sources[n]).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut *part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut self.controls[n]).cast();
            header.msg_hdr.msg_controllen = CONTROL as _;
            headers.push(header);
        }
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: each header points to one iovec, one address and one control buffer of the sizes given, all of which
        // outlive the call and are written by nobody else.
        let got = unsafe {
            libc::recvmmsg(fd, headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        if got < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        }
        let used = |h: &libc::mmsghdr| (h.msg_len as usize, h.msg_hdr.msg_controllen);
        self.lengths.extend(headers.iter().take(got as usize).map(used));
        Ok(got as usize)
    }

    /// What came last, in its order.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.lengths.iter().enumerate().map(|(n, (length, control))| Datagram {
            source: address(&self.sources[n]),
            target: target(&self.controls[n].0[..(*control).min(CONTROL)]),
            bytes: &self.bytes[n * self.size..][..(*length).min(self.size)],
        })
    }
}

fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: a storage is larger than, and aligned for, every address; the family says which one it is.
            Some(v4(unsafe { *std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() }))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            Some(v6(unsafe { *std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() }))
        }
        _ => None,
    }
}

fn v4(a: libc::sockaddr_in) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)), u16::from_be(a.sin_port)).into()
}

fn v6(a: libc::sockaddr_in6) -> SocketAddr {
    let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
    SocketAddrV6::new(ip, u16::from_be(a.sin6_port), 0, a.sin6_scope_id).into()
}

/// The address in the first control message, if that is what was asked for (cmsg(3)).
fn target(control: &[u8]) -> Option<SocketAddr> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let number = |at: usize| Some(i32::from_ne_bytes(control.get(at..at + 4)?.try_into().ok()?));
    // A length (8 bytes, or 4), then level and type.
    let (level, kind) = (number(HEADER - 8)?, number(HEADER - 4)?);
    let data = control.get(HEADER..)?;
    let port = u16::from_be_bytes(data.get(2..4)?.try_into().ok()?);
    match (level, kind) {
        (libc::SOL_IP, libc::IP_RECVORIGDSTADDR) => {
            let ip: [u8; 4] = data.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::new(ip.into(), port))
        }
        (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR) => {
            let ip: [u8; 16] = data.get(8..24)?.try_into().ok()?;
            Some(SocketAddr::new(ip.into(), port))
        }
        _ => None,
    }
}

fn storage(to: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    let mut storage: libc::sockaddr_storage = zeroed();
    let length = match to {
        SocketAddr::V4(to) => {
            let place = (&raw mut storage).cast::<libc::sockaddr_in>();
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: to.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: a storage has room for, and is aligned for, every address.
            unsafe { place.write(address) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(to) => {
            let place = (&raw mut storage).cast::<libc::sockaddr_in6>();
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: to.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: to.ip().octets() },
                sin6_scope_id: to.scope_id(),
            };
            // SAFETY: as above.
            unsafe { place.write(address) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// Sends many datagrams, each in two parts (a head and what follows), to `to`, or on a connected socket to nobody in
/// particular. Returns how many went; those that the socket has no room for are lost, as datagrams may be.
pub fn send_all(socket: impl AsFd, parts: &[[&[u8]; 2]], to: Option<SocketAddr>) -> io::Result<usize> {
    let mut address = to.map(storage);
    let part =
        |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut vectors: Vec<[libc::iovec; 2]> = parts.iter().map(|[a, b]| [part(a), part(b)]).collect();
    let (name, length) = match &mut address {
        Some((storage, length)) => ((&raw mut *storage).cast(), *length),
        None => (std::ptr::null_mut(), 0),
    };
    let header = |vector: &mut [libc::iovec; 2]| {
        let mut header: libc::mmsghdr = zeroed();
        header.msg_hdr.msg_name = name;
        header.msg_hdr.msg_namelen = length;
        header.msg_hdr.msg_iov = vector.as_mut_ptr();
        header.msg_hdr.msg_iovlen = 2;
        header
    };
    let mut headers: Vec<libc::mmsghdr> = vectors.iter_mut().map(header).collect();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: every header points to two iovecs over slices that outlive the call and are only read, and to an address of
    // the length given, or none.
    let sent = unsafe {
        libc::sendmmsg(socket.as_fd().as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, flags)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Sends one datagram to `to` from an address of this machine: an answer comes from where the question went
/// (IP_PKTINFO, IPV6_PKTINFO; ip(7), ipv6(7)).
pub fn send_from(socket: impl AsFd, bytes: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<usize> {
    let (mut address, length) = storage(to);
    let mut control = Control([0; CONTROL]);
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let (level, kind, data): (i32, i32, Vec<u8>) = match from {
        // struct in_pktinfo: interface, the address to send from, one that is not read.
        IpAddr::V4(ip) => (libc::SOL_IP, libc::IP_PKTINFO, [&[0; 4][..], &ip.octets(), &[0; 4]].concat()),
        // struct in6_pktinfo: address, interface.
        IpAddr::V6(ip) => (libc::SOL_IPV6, libc::IPV6_PKTINFO, [&ip.octets()[..], &[0; 4]].concat()),
    };
    let used = HEADER + data.len();
    control.0[..size_of::<usize>()].copy_from_slice(&used.to_ne_bytes());
    control.0[HEADER - 8..HEADER - 4].copy_from_slice(&level.to_ne_bytes());
    control.0[HEADER - 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
    control.0[HEADER..used].copy_from_slice(&data);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut header: libc::msghdr = zeroed();
    header.msg_name = (&raw mut address).cast();
    header.msg_namelen = length;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = used.next_multiple_of(size_of::<usize>()) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header points to an address, one iovec and one control message of the lengths given, all of which outlive
    // the call and are only read.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::inet::set_option;
    use std::net::UdpSocket;

    fn check(own: &str) {
        let (a, b) = (UdpSocket::bind((own, 0)).unwrap(), UdpSocket::bind((own, 0)).unwrap());
        let (level, name) = if own.contains(':') {
            (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR)
        } else {
            (libc::SOL_IP, libc::IP_RECVORIGDSTADDR)
        };
        set_option(&b, level, name, 1).unwrap();
        let (from, to) = (a.local_addr().unwrap(), b.local_addr().unwrap());
        assert_eq!(send_all(&a, &[[b"he", b"llo"], [b"", b""]], Some(to)).unwrap(), 2);
        assert_eq!(send_from(&a, b"again", from.ip(), to).unwrap(), 5);
        let mut inbox = Inbox::new(8, 4);
        assert_eq!(inbox.receive(&b).unwrap(), 3);
        let got: Vec<_> = inbox.datagrams().map(|d| (d.source, d.target, d.bytes.to_vec())).collect();
        let want = |bytes: &[u8]| (Some(from), Some(to), bytes.to_vec());
        assert_eq!(got, [want(b"hell"), want(b""), want(b"agai")]);
        assert_eq!(inbox.receive(&b).unwrap(), 0);
        assert_eq!(inbox.datagrams().count(), 0);
    }

    #[test]
    fn datagrams_come_with_their_addresses() {
        check("127.0.0.1");
        if UdpSocket::bind(("::1", 0)).is_ok() {
            check("::1");
        }
    }
}
