//! The errors that a caller branches on, and what rides along with an error: a hint and an exit code.
//!
//! Everything else is a plain `anyhow` chain, each link of the shape `cannot VERB OBJECT`, the last one the cause.
//! Riders have an empty text, so that they never show up in the chain itself: `report` leaves them out.

use std::fmt;

/// Advice on the way out of an error, printed as a second line. Attach with [`ResultExt::hint`].
#[derive(Debug)]
pub struct Hint(pub String);

/// The exit code that this error is to end the command with, where it is not 125.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitWith(pub u8);

/// An object that the user named does not exist: `no such container: web`.
#[derive(Debug, thiserror::Error)]
#[error("no such {kind}: {name}")]
pub struct NotFound {
    /// What was looked for: `container`, `image`, `volume`.
    pub kind: &'static str,
    /// As the user typed it.
    pub name: String,
}

impl fmt::Display for Hint {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl fmt::Display for ExitWith {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Attaches riders to an error.
pub trait ResultExt<T> {
    /// Adds the line `hint: ...` under the error.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
    /// The same for advice that costs something to find.
    fn with_hint(self, hint: impl FnOnce() -> String) -> anyhow::Result<T>;
    /// Ends the command with `code` instead of 125.
    fn exit_with(self, code: u8) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> ResultExt<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.with_hint(|| hint.into())
    }
    fn with_hint(self, hint: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|e| e.into().context(Hint(hint())))
    }
    fn exit_with(self, code: u8) -> anyhow::Result<T> {
        self.map_err(|e| e.into().context(ExitWith(code)))
    }
}

/// The error as text, `cannot A: cannot B: CAUSE`, without riders and with control characters escaped
/// (a file name or a registry's answer must not drive the terminal).
pub fn chain(error: &anyhow::Error) -> String {
    let links: Vec<String> = error.chain().map(ToString::to_string).filter(|s| !s.is_empty()).collect();
    let mut text = String::new();
    for c in links.join(": ").chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// The whole report: `dhow: CHAIN` and, where there is one, `hint: ...`.
pub fn report(error: &anyhow::Error) -> String {
    let mut text = format!("dhow: {}\n", chain(error));
    if let Some(hint) = error.downcast_ref::<Hint>() {
        text.push_str(&format!("hint: {}\n", hint.0));
    }
    text
}

/// Whether it comes of a file system, or what the user may have of it, that is full.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        let code = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        let code = code.or(cause.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error()));
        code.is_some_and(|code| code == libc::ENOSPC || code == libc::EDQUOT)
    };
    error.chain().any(is_full)
}

/// The exit code for this error: what [`ExitWith`] says, else 125.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<ExitWith>().map_or(125, |e| e.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn riders_are_not_in_the_chain() {
        let error = Err::<(), _>(anyhow!("no such file"))
            .hint("make it")
            .exit_with(127)
            .context("cannot run x\u{1b}[2J")
            .unwrap_err();
        assert_eq!(report(&error), "dhow: cannot run x\\u{1b}[2J: no such file\nhint: make it\n");
        assert_eq!(exit_code(&error), 127);
    }
}
