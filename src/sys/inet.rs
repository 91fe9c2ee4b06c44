//! Sockets of the kinds and with the options that rustix and nix lack: packet sockets with a filter, transparent ones.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Sets an option that is an int.
pub fn set_option(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `length` bytes of `value`, which outlives the call. An option that takes something longer
    // refuses an int with EINVAL.
    let done = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the next byte of a TCP socket is one that was sent as urgent (SIOCATMARK, tcp(7)).
pub fn is_at_mark(socket: impl AsFd) -> io::Result<bool> {
    const SIOCATMARK: libc::Ioctl = 0x8905;
    let mut answer: libc::c_int = 0;
    // SAFETY: the request writes one int, which `answer` is.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCATMARK, &raw mut answer) };
    if done == 0 { Ok(answer != 0) } else { Err(io::Error::last_os_error()) }
}

/// A packet socket (packet(7)) on the interface with this index, close-on-exec, not waiting. It hears what `filter` lets
/// through of what comes in and goes out there; an empty filter: it hears nothing and can only send.
pub fn packet_socket(interface: u32, filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Protocol 0: nothing is heard before the filter is in its place.
    // SAFETY: socket(2) takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if !filter.is_empty() {
        let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
        let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
        // SAFETY: the kernel reads one struct sock_fprog and copies `len` instructions from its pointer; both outlive the
        // call, and nothing is written through them.
        let done = unsafe {
            let program = (&raw const program).cast();
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program, length)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: struct sockaddr_ll is plain old data, for which all zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = if filter.is_empty() { 0 } else { (libc::ETH_P_ALL as u16).to_be() };
    address.sll_ifindex = interface as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of one struct sockaddr_ll.
    if unsafe { libc::bind(fd, (&raw const address).cast(), length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}
