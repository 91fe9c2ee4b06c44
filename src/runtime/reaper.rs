//! The built-in init (`--init`): pid 1 of the container, which starts the program, passes signals on and reaps orphans.
//! It is our sealed executable in the role `dhow reap FD[,GATE] PROGRAM...`; behaviour as tini's.
//!
//! With a gate, a socket to the supervisor, it does not end with its program, but says that the program ended, and ends
//! when it is let go: others may still be in there.
//! ```text
//! init                   supervisor
//!                   <--  a byte                this signal is for the program
//!   a byte    -->                              the program ended with this code
//!                   <--  end of file           end
//! ```
//! A signal that comes to init itself is for everybody: after it, it does not ask.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::WaitOptions;

use super::process::Program;
use super::sync::Socket;
use crate::sys::process::{self, Forked};

/// Called in the container's init: runs the reaper in our place; returns only an error.
pub fn become_it(
    executable: &OwnedFd,
    program: &Program,
    socket: &Socket,
    gate: Option<&OwnedFd>,
) -> anyhow::Error {
    let keep = |fd: BorrowedFd<'_>| super::init::keep_across_exec(fd).map(|number| number.to_string());
    let fds = std::iter::once(socket.as_fd()).chain(gate.map(AsFd::as_fd));
    let numbers = match fds.map(keep).collect::<Result<Vec<_>>>() {
        Ok(numbers) => numbers.join(","),
        Err(error) => return error,
    };
    let words = ["dhow".to_owned(), "reap".to_owned(), numbers];
    let words: Vec<CString> = words.into_iter().filter_map(|w| CString::new(w).ok()).collect();
    program.exec_via(executable, &words)
}

/// The descriptors that the role's first argument names: the sync socket, and the gate if there is one.
pub fn descriptors(word: &OsStr) -> Option<(i32, Option<i32>)> {
    let mut numbers = word.to_str()?.split(',').map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next().flatten()))
}

/// The role's arguments: the numbers of its descriptors, then the program.
pub fn main(args: &[OsString]) -> Result<u8> {
    let about = "not started by dhow";
    let (sync_fd, gate) = args.first().and_then(|word| descriptors(word)).context(about)?;
    let inherited = |number| {
        let fd = process::inherited_fd(number).context(about)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).context("cannot use a socket")?;
        Ok::<_, anyhow::Error>(fd)
    };
    let (sync_fd, gate) = (inherited(sync_fd)?, gate.map(inherited).transpose()?);
    let text = |w: &OsString| w.to_string_lossy().into_owned();
    let program: Vec<String> = args[1..].iter().map(text).collect();
    run(sync_fd, gate, &program, &crate::host::raw_environment())
}

/// The role: `sync_fd` is the ladder's end, `args` the program, `env` its environment. Returns its exit code.
fn run(sync_fd: OwnedFd, gate: Option<OwnedFd>, args: &[String], env: &[String]) -> Result<u8> {
    let socket = Socket::from(sync_fd);
    let all = SigSet::all();
    all.thread_set_mask().context("cannot block signals")?;
    // By descriptor: sigwait(2) in nix knows no real-time signals and panics at one.
    let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC).context("cannot catch signals")?;
    match start(args, env, &socket) {
        Ok(child) => {
            // End of file on the ladder must mean that the program runs.
            drop(socket);
            // What was handed to the program is its own.
            let own =
                [Some(child.1.as_raw_fd()), Some(signals.as_raw_fd()), gate.as_ref().map(AsRawFd::as_raw_fd)];
            let own: Vec<i32> = own.into_iter().flatten().chain(0..3).collect();
            let _ = process::close_all_but(&own);
            match gate {
                None => serve(&child, &signals),
                Some(gate) => serve_gate(&child, &signals, &gate),
            }
        }
        Err(error) => {
            socket.send_error(&error);
            Ok(crate::error::exit_code(&error))
        }
    }
}

/// The program: its pid, and its stable handle.
type Child = (i32, OwnedFd);

fn start(args: &[String], env: &[String], socket: &Socket) -> Result<Child> {
    let program = Program::new(args, env)?;
    match process::fork(0, None).context("cannot start the program")? {
        Forked::Child => {
            set_foreground();
            process::reset_signals();
            let error = program.exec();
            socket.send_error(&error);
            process::exit_now(super::create::error_code(&error));
        }
        Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}

/// Passes signals on until the program ends.
fn serve((child, child_fd): &Child, signals: &SignalFd) -> Result<u8> {
    loop {
        let Ok(Some(signal)) = signals.read_signal() else { continue };
        match signal.ssi_signo as i32 {
            libc::SIGCHLD => {
                if let Some(code) = reap(*child) {
                    return Ok(code);
                }
            }
            number if is_for_shells(number) => {}
            number => {
                let _ = process::signal(child_fd, number);
            }
        }
    }
}

/// Stop signals are the shell's affair; the terminal gave them to the foreground group already.
fn is_for_shells(number: i32) -> bool {
    matches!(number, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// The same with a gate.
fn serve_gate((child, child_fd): &Child, signals: &SignalFd, gate: &OwnedFd) -> Result<u8> {
    let mut ended: Option<u8> = None;
    let mut is_to_end = false;
    loop {
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(gate, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None)).context("cannot wait")?;
        let (has_signal, has_word) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if has_word {
            let mut word = [0];
            match rustix::io::read(gate, &mut word) {
                Ok(1) if ended.is_none() => drop(process::signal(child_fd, word[0].into())),
                Ok(1) | Err(Errno::INTR | Errno::AGAIN) => {}
                _ => return Ok(ended.unwrap_or(128 + libc::SIGKILL as u8)),
            }
        }
        if !has_signal {
            continue;
        }
        let Ok(Some(signal)) = signals.read_signal() else { continue };
        match signal.ssi_signo as i32 {
            libc::SIGCHLD => {
                let Some(code) = reap(*child) else { continue };
                ended = Some(code);
                if is_to_end || rustix::io::write(gate, &[code]).is_err() {
                    return Ok(code);
                }
            }
            number if is_for_shells(number) || number == libc::SIGCONT => {}
            number => match ended {
                // The terminal that the program had is hung up (tty_ioctl(4)), and we lead its session.
                Some(_) if signal.ssi_code == libc::SI_KERNEL => {}
                Some(code) => return Ok(code),
                None => {
                    is_to_end |= signal.ssi_code != libc::SI_KERNEL;
                    let _ = process::signal(child_fd, number);
                }
            },
        }
    }
}

/// Reaps all that have ended; the program's exit code if it is among them.
fn reap(child: i32) -> Option<u8> {
    let mut code = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_pid() == child => {
                let signal = status.terminating_signal().map(|s| 128 + s);
                code = code.or(status.exit_status().or(signal).map(|c| c as u8));
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return code,
        }
    }
}

/// A process group of its own in the terminal's foreground: Ctrl-C reaches the program once, not through us again.
fn set_foreground() {
    let me = nix::unistd::getpid();
    let _ = nix::unistd::setpgid(me, me);
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ttou), None);
    if let Some(me) = rustix::process::Pid::from_raw(me.as_raw()) {
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), me);
    }
}
