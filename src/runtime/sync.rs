//! The sync ladder between `create`/`exec` and the process that becomes the container's program.
//!
//! ```text
//! parent                          child
//!   (clone)
//!   Preserved -->                            only in exec, one for each descriptor that is handed on
//!             <--  Forked + pidfd            only in exec: the intermediate process tells whom it made
//!             <--  Inside + descriptors      only where it is to be joined to networks: sockets of its name space
//!             <--  Console + descriptor      only with a terminal
//!             <--  Unshared                  only with an inner user name space: its ids are to be mapped
//!   Mapped    -->
//!             <--  Listener + descriptor     only with an emulation filter
//!             <--  Ready                     all is set up; the child waits
//!   Start     -->
//!             <--  end of file               execve(2) closed the child's end: the program runs
//!             <--  Failed                    or, at any step, why it cannot
//! ```
//! One message is one packet, so neither side ever reads a half one.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::preserved::Preserved;
use crate::error::{self, ExitWith, Hint};

/// The rungs, in the order of the ladder.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum Message {
    /// The intermediate process of an exec: the pid (in our name space) of the process to be; its pidfd comes along.
    Forked(i32),
    /// Child: sockets that were made in its network name space come along: see `Inside`.
    Inside,
    /// Command, in an exec: a descriptor that is to have this number comes along.
    Preserved(i32),
    /// Child: the pty's master comes along.
    Console,
    /// Child: in the inner user name space, where no id is mapped yet.
    Unshared,
    /// Parent: its ids are mapped.
    Mapped,
    /// Child: the seccomp listener comes along.
    Listener,
    /// Child: set up; waiting for `Start`.
    Ready,
    /// Parent: exec now.
    Start,
    /// Child: why it cannot go on.
    Failed(Failure),
}

/// An error on its way to another process.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Failure {
    /// The chain of causes.
    text: String,
    /// Advice, if any.
    hint: Option<String>,
    /// Exit code: 125, 126 or 127.
    code: u8,
}

/// So many descriptors go with a message.
const MAX_FDS: usize = 4;

/// One end of the ladder.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        Socket(fd)
    }
}

/// Two connected ends, close-on-exec.
pub fn pair() -> Result<(Socket, Socket)> {
    let (a, b) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .context("cannot make a socket pair")?;
    Ok((Socket(a), Socket(b)))
}

impl Socket {
    /// The same at a number that is in nobody's way.
    pub(super) fn clear_of(self, preserved: &Preserved) -> Result<Socket> {
        Ok(Socket(preserved.clear(self.0)?))
    }

    /// Sends one message, with a descriptor if there is one.
    pub fn send<M: Serialize>(&self, message: &M, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.send_all(message, &fd.into_iter().collect::<Vec<_>>())
    }

    /// Sends one message, with at most [`MAX_FDS`] descriptors.
    pub fn send_all<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes = serde_json::to_vec(message).context("cannot encode a message")?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
            .context("cannot send to the other process")?;
        Ok(())
    }

    /// Receives one message and the descriptor that came along; `None` at the end of file.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<Option<(M, Option<OwnedFd>)>> {
        Ok(self.receive_all()?.map(|(message, fds)| (message, fds.into_iter().next())))
    }

    /// Receives one message and all descriptors that came along; `None` at the end of file.
    pub fn receive_all<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; 64 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                // The other side closed with something unread: said once, in front of what it sent before (unix(7)).
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                other => break other.context("cannot receive from the other process")?.bytes,
            }
        };
        if received == 0 {
            return Ok(None);
        }
        let mut all = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                all.extend(fds);
            }
        }
        let message = serde_json::from_slice(&bytes[..received]).context("cannot read a message")?;
        Ok(Some((message, all)))
    }

    /// Receives exactly this message, as the child does.
    pub fn expect(&self, wanted: &Message) -> Result<()> {
        match self.receive::<Message>()? {
            Some((got, _)) if got == *wanted => Ok(()),
            Some((got, _)) => bail!("cannot start: {wanted:?} was due, {got:?} came"),
            None => bail!("cannot start: the other side went away"),
        }
    }

    /// Sends an error up; if even that fails, there is nobody left to tell.
    pub fn send_error(&self, error: &anyhow::Error) {
        let _ = self.send(&Message::Failed(Failure::of(error)), None);
    }
}

/// A message must fit one packet, and an error may name what a hostile image made a megabyte long.
const MAX_TEXT: usize = 4096;

fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push_str("...");
    }
    text
}

impl Failure {
    /// The error as it travels.
    pub fn of(error: &anyhow::Error) -> Failure {
        Failure {
            text: bounded(error::chain(error)),
            hint: error.downcast_ref::<Hint>().map(|h| h.0.clone()),
            code: error::exit_code(error),
        }
    }

    /// The error again, with its riders.
    pub fn into_error(self) -> anyhow::Error {
        let code = ExitWith(self.code);
        self.into_refusal().context(code)
    }

    /// The same where nothing was run, and the exit code is the verb's own.
    pub fn into_refusal(self) -> anyhow::Error {
        let error = anyhow!(self.text);
        match self.hint {
            Some(hint) => error.context(Hint(hint)),
            None => error,
        }
    }
}
