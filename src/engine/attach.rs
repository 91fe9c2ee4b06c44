//! The command's side of a container (or exec) in the foreground: signals and the terminal one way, bytes the other, and
//! the exit code at the end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};

use super::detach_keys::DetachKeys;
use super::start::terminal_size;
use crate::runtime::Init;
use crate::supervisor::{Client, Control};

/// How the time in the foreground ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The program ended with this code.
    Exited(i32),
    /// The user typed the detach keys; the program goes on.
    Detached,
    /// A signal told us to leave, which is not passed on; the program goes on.
    Left(i32),
}

/// How to stay.
#[derive(Debug, Clone)]
pub struct Stay {
    /// What is typed goes to the program.
    pub input: bool,
    /// What ends the stay.
    pub keys: DetachKeys,
    /// Signals go to the program; otherwise one that would end us ends the stay.
    pub sig_proxy: bool,
}

/// The terminal in raw mode, restored when dropped.
#[derive(Debug)]
pub(super) struct RawMode(Termios);

impl RawMode {
    /// `None` where stdin is no terminal.
    pub(super) fn enter_if_terminal() -> Result<Option<RawMode>> {
        rustix::termios::isatty(rustix::stdio::stdin()).then(RawMode::enter).transpose()
    }

    fn enter() -> Result<RawMode> {
        let saved =
            rustix::termios::tcgetattr(rustix::stdio::stdin()).context("cannot read the terminal's mode")?;
        let mut raw = saved.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &raw)
            .context("cannot set the terminal's mode")?;
        Ok(RawMode(saved))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Signals that are passed on, caught from now on: made before the container starts, so that none is lost.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Catches all that can be passed on.
    pub fn catch() -> Result<Signals> {
        let mut set = SigSet::all();
        // Faults are ours, job control is the shell's, and a broken pipe is told by the write.
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGPIPE,
            Signal::SIGTSTP,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
            Signal::SIGCONT,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGABRT,
            Signal::SIGURG,
        ] {
            set.remove(signal);
        }
        set.thread_set_mask().context("cannot block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&set, flags).context("cannot catch signals")?))
    }

    /// What can be read when a signal came.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn next(&self) -> Option<i32> {
        self.0.read_signal().ok().flatten().map(|s| s.ssi_signo as i32)
    }
}

/// What the loop was woken for.
#[derive(Debug, Default, Clone, Copy)]
struct Woken {
    end: bool,
    signal: bool,
    output: bool,
    input: bool,
}

/// The terminal's bytes, both ways.
struct Pump<'a> {
    signals: &'a Signals,
    data: Option<OwnedFd>,
    input: bool,
    /// stdin is a terminal in raw mode.
    raw: bool,
    keys: DetachKeys,
}

impl Pump<'_> {
    fn wait(&self, end: BorrowedFd<'_>) -> Result<Woken> {
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![
            PollFd::from_borrowed_fd(end, PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.0.as_fd(), PollFlags::IN),
        ];
        // Entries that are not wanted are there with no events, so that the places stay what they are.
        let (data, events) = match &self.data {
            Some(data) => (data.as_fd(), PollFlags::IN),
            None => (end, PollFlags::empty()),
        };
        fds.push(PollFd::from_borrowed_fd(data, events));
        if self.input {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        loop {
            match rustix::event::poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                other => {
                    other.context("cannot wait for the container")?;
                    break;
                }
            }
        }
        let woken = |n: usize| fds.get(n).is_some_and(|f| !f.revents().is_empty());
        Ok(Woken {
            end: woken(0),
            signal: woken(1),
            output: self.data.is_some() && woken(2),
            input: woken(3),
        })
    }

    /// Copies what the program wrote; false at its end.
    fn output(&mut self) -> Result<()> {
        let Some(data) = &self.data else { return Ok(()) };
        let mut buffer = [0; 32 * 1024];
        match rustix::io::read(data, &mut buffer) {
            Ok(0) => self.data = None,
            Ok(n) => write_all(rustix::stdio::stdout(), &buffer[..n]).context("cannot write to stdout")?,
            Err(Errno::INTR | Errno::AGAIN) => {}
            // The pty's other side is closed (EIO, pty(7)).
            Err(_) => self.data = None,
        }
        Ok(())
    }

    /// Copies what the user typed; true if it was the detach keys.
    fn typed(&mut self) -> Result<bool> {
        let Some(data) = &self.data else {
            self.input = false;
            return Ok(false);
        };
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            // A terminal in raw mode has no end of input: it is gone (tty_ioctl(4), hangup), and we go with it.
            Ok(0) | Err(Errno::IO) if self.raw => bail!("the terminal is gone"),
            Ok(0) | Err(Errno::IO) => {
                self.input = false;
                // End of input on a terminal is Ctrl-D (VEOF, termios(3)).
                let _ = write_all(data.as_fd(), &[4]);
            }
            Ok(n) => match self.keys.filter(&buffer[..n]) {
                Some(pass) => drop(write_all(data.as_fd(), &pass)),
                None => return Ok(true),
            },
            Err(_) => {}
        }
        Ok(false)
    }
}

pub(super) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Who presses Ctrl-C again means it.
const SECOND_INT: Duration = Duration::from_secs(10);

/// Stays with a container until it ends or the user detaches. A second SIGINT soon after the first kills it.
pub fn follow(client: Client, signals: &Signals, stay: Stay) -> Result<Ended> {
    let Client { control, data, .. } = client;
    let input = stay.input && data.is_some();
    let raw = if input { RawMode::enter_if_terminal()? } else { None };
    let mut pump = Pump { signals, data, input, raw: raw.is_some(), keys: stay.keys };
    let mut last_int: Option<Instant> = None;
    loop {
        let woken = pump.wait(control.as_fd())?;
        if woken.output {
            pump.output()?;
        }
        if woken.input && pump.typed()? {
            // It may be ending at this moment.
            let _ = control.send(&Control::Detach, None);
            return Ok(Ended::Detached);
        }
        if woken.signal {
            while let Some(signal) = signals.next() {
                let message = match signal {
                    libc::SIGWINCH => {
                        let (rows, columns) = terminal_size();
                        Control::Resize(rows, columns)
                    }
                    _ if !stay.sig_proxy => {
                        let _ = control.send(&Control::Detach, None);
                        return Ok(Ended::Left(signal));
                    }
                    libc::SIGINT if last_int.is_some_and(|last| last.elapsed() < SECOND_INT) => {
                        Control::Signal(libc::SIGKILL)
                    }
                    _ => Control::Signal(signal),
                };
                if signal == libc::SIGINT {
                    last_int = Some(Instant::now());
                }
                let _ = control.send(&message, None);
            }
        }
        if woken.end {
            match control.receive::<Control>()? {
                Some((Control::Exited(code), _)) => {
                    while pump.data.is_some() {
                        pump.output()?;
                    }
                    return Ok(Ended::Exited(code));
                }
                Some(_) => {}
                None => bail!("cannot wait for the container: its supervisor was killed"),
            }
        }
    }
}

/// Stays with a process that we wait for ourselves.
pub fn follow_process(
    process: &Init,
    console: Option<OwnedFd>,
    signals: &Signals,
    stay: Stay,
) -> Result<Ended> {
    let input = stay.input && console.is_some();
    let raw = if input { RawMode::enter_if_terminal()? } else { None };
    let mut pump = Pump { signals, data: console, input, raw: raw.is_some(), keys: stay.keys };
    loop {
        let woken = pump.wait(process.child())?;
        if woken.output {
            pump.output()?;
        }
        if woken.input && pump.typed()? {
            return Ok(Ended::Detached);
        }
        if woken.signal {
            while let Some(signal) = signals.next() {
                pass_on(signal, &process.pidfd, pump.data.as_ref());
            }
        }
        if woken.end && (pump.data.is_none() || !woken.output) {
            return Ok(Ended::Exited(process.wait()?));
        }
    }
}

fn pass_on(signal: i32, pidfd: &OwnedFd, console: Option<&OwnedFd>) {
    if signal == Signal::SIGWINCH as i32 {
        let (ws_row, ws_col) = terminal_size();
        if let Some(console) = console {
            let size = rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(console, size);
        }
    } else if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
        let _ = rustix::process::pidfd_send_signal(pidfd, signal);
    }
}
