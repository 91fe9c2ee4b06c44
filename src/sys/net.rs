//! What network and UTS name spaces need before netlink: SIOCSIFFLAGS (netdevice(7)), whose they are, and setdomainname(2).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

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

/// Whether our network name space belongs to our user name space, so that its root may change it (NS_GET_USERNS,
/// ioctl_ns(2)). One that belongs to an outer user name space is not shown to us at all.
pub fn owns_network() -> bool {
    use rustix::fs::{Mode, OFlags, fstat, open, stat};
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    let owner = || -> io::Result<bool> {
        let network = open(c"/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        // SAFETY: the request takes no argument, and returns a new descriptor or -1.
        let fd = unsafe { libc::ioctl(network.as_raw_fd(), NS_GET_USERNS) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which nobody else owns.
        let owner = fstat(unsafe { OwnedFd::from_raw_fd(fd) })?;
        let own = stat(c"/proc/self/ns/user")?;
        Ok((owner.st_dev, owner.st_ino) == (own.st_dev, own.st_ino))
    };
    owner().unwrap_or(false)
}
