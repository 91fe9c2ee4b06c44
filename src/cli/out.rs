//! The one place that writes to the caller's streams.

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Data, to stdout. A reader that went away is not our error: the command ends quietly, as `head` expects of a pipe line.
pub(super) fn out(text: &str) -> Result<()> {
    out_bytes(text.as_bytes())
}

/// The same, for bytes.
pub(super) fn out_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to stdout"),
    }
}

/// Nobody reads what is still to be written: what goes on without an end is to end.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads it any more")]
struct ReaderLeft;

/// Data of what may go on for ever, to stdout; an error that [`until_reader_leaves`] takes away once nobody reads it.
pub(super) fn to_reader(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(ReaderLeft.into()),
        other => other.context("cannot write to stdout"),
    }
}

/// That the reader left is no error.
pub(super) fn until_reader_leaves(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is::<ReaderLeft>() => Ok(()),
        other => other,
    }
}

/// The same for who goes on for ever: false once the reader went away.
pub(super) fn try_out(text: &str) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).context("cannot write to stdout"),
    }
}

/// Everything else, to stderr.
pub(super) fn err(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Bytes to stderr.
pub(super) fn err_bytes(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

/// A line that says what works less well than asked for.
pub(super) fn warn(text: &str) {
    err(&format!("dhow: warning: {text}\n"));
}
