//! A pseudo-terminal with a program on it: what a person at a keyboard sees.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::command::Cmd;
use crate::leftovers;
use crate::wait;

/// See the module.
pub struct Terminal {
    pub child: Child,
    master: OwnedFd,
    /// The other end, kept open: its settings outlive the program, and can be looked at.
    pub slave: OwnedFd,
    /// All that was shown so far.
    pub seen: String,
    line: String,
}

impl Terminal {
    /// Starts the command as the leader of a session on a terminal of this size.
    pub fn start(cmd: Cmd, rows: u16, columns: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave: OwnedFd =
            File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap().into();
        tcsetwinsize(&slave, size(rows, columns)).unwrap();
        // setsid(1) makes the terminal a controlling one: with std alone that takes code between fork and exec.
        let (mut command, line, _) =
            cmd.env("TERM", "xterm").under(&["setsid", "--ctty", "--wait"]).command();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        leftovers::is_awaited(&child);
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        Terminal { child, master, slave, seen: String::new(), line }
    }

    /// Takes in what was shown since the last look.
    fn look(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = rustix::io::read(&self.master, &mut buffer) {
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    /// Types.
    pub fn write(&mut self, keys: &str) {
        File::from(self.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the text was shown, and forgets what was shown up to its end.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let found = wait::within(wait::SOON, || {
            self.look();
            self.seen.find(text)
        });
        let Some(at) = found else {
            panic!("{text:?} was never shown by {}\nshown: {:?}", self.line, self.seen)
        };
        let rest = self.seen.split_off(at + text.len());
        std::mem::replace(&mut self.seen, rest)
    }

    /// Changes the size, as a person does who drags the window's corner.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.slave, size(rows, columns)).unwrap();
    }

    /// Closes the window: both ends go, and the kernel sends SIGHUP to the session's leader.
    pub fn hang_up(&mut self) {
        let null: OwnedFd = File::open("/dev/null").unwrap().into();
        self.slave = null.try_clone().unwrap();
        self.master = null;
    }

    /// The settings of the terminal now.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }

    /// Waits for the end of the command; its exit code.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        let line = self.line.clone();
        let status = wait::until(&format!("the end of {line}"), || {
            self.look();
            self.child.try_wait().unwrap()
        });
        status.code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(ws_row: u16, ws_col: u16) -> Winsize {
    Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }
}
