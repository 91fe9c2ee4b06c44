//! attach: one more at the streams of a container that runs, from now on.

use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::attach::{Ended, RawMode, Signals, Stay, write_all};
use super::detach_keys::DetachKeys;
use super::start::terminal_size;
use super::{Engine, reap, stop};
use crate::error::ResultExt;
use crate::event::{Event, Sink};
use crate::runtime::sync::Socket;
use crate::store::container::{ContainerDir, Status};
use crate::supervisor::{self, Attach, Control, ERR, OUT, TYPED};

/// Stays at the streams of a container until it ends or the user leaves.
pub fn attach(
    engine: &Engine,
    wanted: &str,
    signals: &Signals,
    stay: Stay,
    events: Sink<'_>,
) -> Result<Ended> {
    let about = || format!("cannot attach to {wanted}");
    let (dir, status) = engine.alive(wanted).with_context(about)?;
    if let Status::Paused(_) = status {
        return Err(anyhow!("it is paused")).with_context(about).hint(format!("dhow unpause {wanted}"));
    }
    let record = dir.record().with_context(about)?;
    let input = stay.input && record.interactive;
    let socket = supervisor::connect(&dir).with_context(about)?;
    let socket = socket.ok_or_else(|| anyhow!("it has just ended")).with_context(about)?;
    let attach = Attach { stdin: input, stdout: true, stderr: true, size: terminal_size() };
    socket.send(&Control::Attach(attach), None).with_context(about)?;
    match socket.receive::<Control>().with_context(about)? {
        Some((Control::Done, _)) => {}
        Some((Control::Failed(failure), _)) => return Err(failure.into_refusal()).with_context(about),
        Some((other, _)) => bail!("{}: unexpected {other:?} from its supervisor", about()),
        None => return Err(anyhow!("it has just ended")).with_context(about),
    }
    let raw = if input && record.terminal { RawMode::enter_if_terminal()? } else { None };
    let mut guest = Guest {
        socket,
        input,
        is_raw: raw.is_some(),
        keys: record.terminal.then_some(stay.keys),
        typed: Vec::new(),
    };
    loop {
        let woken = guest.wait(signals)?;
        if woken.heard {
            match guest.hear(events)? {
                Heard::More => {}
                Heard::Exited(code) => return Ok(Ended::Exited(code)),
                Heard::Nobody => return end_of(engine, &dir).with_context(about),
            }
        }
        if woken.typed && guest.read_typed()? {
            let _ = guest.socket.send(&Control::Detach, None);
            return Ok(Ended::Detached);
        }
        if !guest.typed.is_empty() {
            guest.pass_typed();
        }
        while let Some(signal) = signals.next() {
            match signal {
                libc::SIGWINCH => {
                    let (rows, columns) = terminal_size();
                    let _ = guest.socket.send(&Control::Resize(rows, columns), None);
                }
                // As docker: with a terminal, what is to reach the program is typed.
                _ if stay.sig_proxy && !record.terminal => {
                    // It may be ending at this moment, which we will hear of.
                    let _ = stop::kill(engine, &record.id, signal);
                }
                _ => {
                    let _ = guest.socket.send(&Control::Detach, None);
                    return Ok(Ended::Left(signal));
                }
            }
        }
    }
}

/// Its supervisor ended without a word to us: what it noted.
fn end_of(engine: &Engine, dir: &ContainerDir) -> Result<Ended> {
    match reap::settled(&engine.store, dir)? {
        Status::Exited(exit) => Ok(Ended::Exited(exit.code)),
        _ => bail!("its supervisor has gone away"),
    }
}

/// Our side of the connection.
struct Guest {
    socket: Socket,
    input: bool,
    /// stdin is a terminal in raw mode.
    is_raw: bool,
    /// With a terminal only.
    keys: Option<DetachKeys>,
    /// A packet that found no room yet. Writing never waits: who writes while he should read misses output.
    typed: Vec<u8>,
}

struct Woken {
    heard: bool,
    typed: bool,
}

enum Heard {
    More,
    Exited(i32),
    Nobody,
}

impl Guest {
    fn wait(&self, signals: &Signals) -> Result<Woken> {
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, !self.typed.is_empty());
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.socket.as_fd(), events),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        if self.input && self.typed.is_empty() {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))
            .context("cannot wait for the container")?;
        Ok(Woken {
            heard: fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
            typed: fds.get(2).is_some_and(|fd| !fd.revents().is_empty()),
        })
    }

    fn hear(&mut self, events: Sink<'_>) -> Result<Heard> {
        let mut bytes = vec![0; 64 << 10];
        let length = match rustix::net::recv(self.socket.as_fd(), &mut bytes, RecvFlags::DONTWAIT) {
            // Its supervisor ended with something of ours unread: said once, in front of its last words (unix(7)).
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => return Ok(Heard::More),
            Err(_) | Ok((0, _)) => return Ok(Heard::Nobody),
            Ok((length, _)) => length,
        };
        match bytes[0] {
            OUT => write_all(rustix::stdio::stdout(), &bytes[1..length]).context("cannot write to stdout")?,
            ERR => write_all(rustix::stdio::stderr(), &bytes[1..length]).context("cannot write to stderr")?,
            _ => match serde_json::from_slice(&bytes[..length]).context("cannot read a message")? {
                Control::Exited(code) => return Ok(Heard::Exited(code)),
                Control::Missing(n) => {
                    let text =
                        format!("{n} bytes of output are missing here: they came faster than they were read");
                    events(Event::Warning(text));
                }
                _ => {}
            },
        }
        Ok(Heard::More)
    }

    /// Takes what the user typed; true if it was the detach keys.
    fn read_typed(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        self.typed = match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) | Err(Errno::IO) if self.is_raw => bail!("the terminal is gone"),
            Ok(0) | Err(Errno::IO) => {
                self.input = false;
                vec![TYPED]
            }
            Ok(n) => {
                let typed = &buffer[..n];
                let pass = self.keys.as_mut().map_or_else(|| Some(typed.to_vec()), |keys| keys.filter(typed));
                match pass {
                    Some(pass) if pass.is_empty() => pass,
                    Some(pass) => [&[TYPED], pass.as_slice()].concat(),
                    None => return Ok(true),
                }
            }
            Err(_) => return Ok(false),
        };
        Ok(false)
    }

    fn pass_typed(&mut self) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::send(self.socket.as_fd(), &self.typed, flags) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // If it is gone we will hear so.
            _ => self.typed.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sync;

    #[test]
    fn a_supervisor_that_ends_with_typing_unread_is_heard_to_its_end() {
        let (socket, supervisor) = sync::pair().unwrap();
        let typed = vec![TYPED, b'x'];
        let mut guest = Guest { socket, input: true, is_raw: false, keys: None, typed };
        guest.pass_typed();
        supervisor.send(&Control::Missing(1), None).unwrap();
        supervisor.send(&Control::Exited(7), None).unwrap();
        drop(supervisor);
        let mut hear = || guest.hear(&mut |_| {}).unwrap();
        assert!(matches!(hear(), Heard::More), "the reset");
        assert!(matches!(hear(), Heard::More), "what is missing");
        assert!(matches!(hear(), Heard::Exited(7)));
        assert!(matches!(hear(), Heard::Nobody));
    }
}
