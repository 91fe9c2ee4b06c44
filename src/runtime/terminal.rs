//! The pty of a container: opened in the container's own devpts, so that `tty` names a file that exists there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::termios::Winsize;

use super::Outside;
use super::rootfs::Root;

/// Both sides of a pty.
#[derive(Debug)]
pub struct Terminal {
    /// The side that we read and write.
    pub master: OwnedFd,
    /// The program's side.
    pub slave: OwnedFd,
}

/// Opens a pty beneath `root`, which has devpts on /dev/pts; its size is set before anybody can ask for it.
pub fn open(root: &Root, rows: u16, columns: u16) -> Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = root
        .open(Path::new("/dev/pts/ptmx"), flags, Mode::empty())
        .context("cannot open /dev/pts/ptmx in the container")?;
    rustix::pty::unlockpt(&master).context("cannot unlock the terminal")?;
    // TIOCGPTPEER opens the other side without a path: what /dev/pts/N is by name does not matter.
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY,
    )
    .context("cannot open the terminal")?;
    rustix::io::fcntl_setfd(&slave, rustix::io::FdFlags::CLOEXEC).context("cannot open the terminal")?;
    if (rows, columns) != (0, 0) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).context("cannot set the terminal's size")?;
    }
    Ok(Terminal { master, slave })
}

impl Terminal {
    /// Gives the program's side to the container's user, where that is another id for us.
    pub fn belongs_to(&self, outside: Option<Outside>) -> Result<()> {
        let Some(Outside { user, root }) = outside else { return Ok(()) };
        let (uid, gid) = (rustix::fs::Uid::from_raw(user.0), rustix::fs::Gid::from_raw(root.1));
        rustix::fs::fchown(&self.slave, Some(uid), Some(gid)).context("cannot give the terminal to its user")
    }
}

/// Makes the pty the controlling terminal of our (new) session.
pub fn make_controlling(slave: impl AsFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(slave).context("cannot make the terminal ours")
}
