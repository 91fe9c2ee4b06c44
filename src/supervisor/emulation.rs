//! The listeners of the emulation filters of a single-id container: its init's, and those of `exec`s, which are handed to
//! us over the socket `ctl` in the container's directory, because what an exec started may outlive its command.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::fs;
use crate::runtime::emulate::Handler;
use crate::runtime::sync::{Message, Socket};
use crate::store::container::ContainerDir;

/// All listeners of a container and the door for new ones.
#[derive(Debug)]
pub struct Emulation {
    door: OwnedFd,
    handlers: Vec<Handler>,
}

impl Emulation {
    /// Opens the door. Relative to the directory: a socket's path must fit 108 bytes.
    pub fn open(dir: &ContainerDir) -> Result<Emulation> {
        let path = dir.file("ctl");
        fs::remove_file(&path)?;
        rustix::process::chdir(&dir.path).context("cannot enter the container's directory")?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let door = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .context("cannot make a socket")?;
        let address = SocketAddrUnix::new("ctl").context("cannot name the socket")?;
        rustix::net::bind(&door, &address).with_context(|| format!("cannot make {}", path.display()))?;
        rustix::net::listen(&door, 16).with_context(|| format!("cannot listen on {}", path.display()))?;
        Ok(Emulation { door, handlers: Vec::new() })
    }

    /// Serves one more listener.
    pub fn add(&mut self, listener: OwnedFd) {
        self.handlers.push(Handler::new(listener));
    }

    /// What to wait for: the door first, then every listener.
    pub fn interest(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.door.as_fd()).chain(self.handlers.iter().map(AsFd::as_fd))
    }

    /// Deals with what poll(2) said, in the order of `interest`: readable, hung up.
    pub fn step(&mut self, ready: &[(bool, bool)]) {
        let mut gone = Vec::new();
        for (n, (readable, hung_up)) in ready.iter().enumerate().skip(1) {
            // A listener whose processes are all gone hangs up.
            let failed = *readable && self.handlers.get_mut(n - 1).is_some_and(|h| h.handle_one().is_err());
            if *hung_up || failed {
                gone.push(n - 1);
            }
        }
        for n in gone.into_iter().rev() {
            self.handlers.remove(n);
        }
        if ready.first().is_some_and(|(readable, _)| *readable) {
            let _ = self.admit();
        }
    }

    fn admit(&mut self) -> Result<()> {
        let socket = rustix::net::accept_with(&self.door, SocketFlags::CLOEXEC).context("cannot accept")?;
        // The other side is this user's own command, and sends right after connecting.
        if let Some((Message::Listener, Some(listener))) = Socket::from(socket).receive::<Message>()? {
            self.add(listener);
        }
        Ok(())
    }
}

/// The exec's side: hands a listener to the container's supervisor, and returns when it has it.
pub fn hand_over(dir: &Path, listener: BorrowedFd<'_>) -> Result<()> {
    let dir_fd = crate::runtime::rootfs::Root::open_host(dir)?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .context("cannot make a socket")?;
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}/ctl", dir_fd.as_fd().as_raw_fd());
    let address = SocketAddrUnix::new(path).context("cannot name the socket")?;
    rustix::net::connect(&socket, &address).context("cannot reach the container's supervisor")?;
    let socket = Socket::from(socket);
    socket.send(&Message::Listener, Some(listener))?;
    // End of file: it was taken.
    let mut byte = [0];
    let _ = rustix::net::recv(socket.as_fd(), &mut byte, RecvFlags::empty());
    Ok(())
}
