//! The built-in init (`--init`): pid 1 of the container, which starts the program, passes signals on and reaps orphans.
//! It is our sealed executable in the role `dhow reap FD PROGRAM...`; behaviour as tini's.

use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::WaitOptions;

use super::process::Program;
use super::sync::Socket;
use crate::sys::process::{self, Forked};

/// Called in the container's init: runs the reaper in our place; returns only an error.
pub fn become_it(executable: &OwnedFd, program: &Program, socket: &Socket) -> anyhow::Error {
    use std::os::fd::AsFd;
    let number = match super::init::keep_across_exec(socket.as_fd()) {
        Ok(number) => number,
        Err(error) => return error,
    };
    let words = ["dhow".to_owned(), "reap".to_owned(), number.to_string()];
    let words: Vec<CString> = words.into_iter().filter_map(|w| CString::new(w).ok()).collect();
    program.exec_via(executable, &words)
}

/// The role's arguments: the number of the sync socket, then the program.
pub fn main(args: &[OsString]) -> Result<u8> {
    let number =
        args.first().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()).context("not started by dhow")?;
    let sync_fd = process::inherited_fd(number).context("not started by dhow")?;
    let text = |w: &OsString| w.to_string_lossy().into_owned();
    let program: Vec<String> = args[1..].iter().map(text).collect();
    run(sync_fd, &program, &crate::host::raw_environment())
}

/// The role: `sync_fd` is the ladder's end, `args` the program, `env` its environment. Returns its exit code.
fn run(sync_fd: OwnedFd, args: &[String], env: &[String]) -> Result<u8> {
    rustix::io::fcntl_setfd(&sync_fd, rustix::io::FdFlags::CLOEXEC).context("cannot use the sync socket")?;
    let socket = Socket::from(sync_fd);
    let all = SigSet::all();
    all.thread_set_mask().context("cannot block signals")?;
    // By descriptor: sigwait(2) in nix knows no real-time signals and panics at one.
    let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC).context("cannot catch signals")?;
    match start(args, env, &socket) {
        Ok(child) => {
            // End of file on the ladder must mean that the program runs.
            drop(socket);
            serve(&child, &signals)
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
            // Stop signals are the shell's affair; the terminal gave them to the foreground group already.
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {}
            number => {
                let _ = process::signal(child_fd, number);
            }
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
