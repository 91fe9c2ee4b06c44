//! What network and UTS name spaces need before netlink: SIOCSIFFLAGS (netdevice(7)) and setdomainname(2).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Brings an interface of our name space up; `name` is shorter than IFNAMSIZ.
pub fn set_up(name: &CStr) -> io::Result<()> {
    set_up_of(
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?,
        name,
    )
}

/// The same in the name space that `socket` was made in.
pub fn set_up_of(socket: impl AsFd, name: &CStr) -> io::Result<()> {
    // SAFETY: struct ifreq is plain old data, for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one struct ifreq, whose name ends with NUL since `name` is shorter than the field.
    if unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Sets the NIS domain name of our UTS name space.
pub fn set_domainname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length come from one string slice.
    if unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
