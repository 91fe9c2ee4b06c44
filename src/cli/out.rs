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
