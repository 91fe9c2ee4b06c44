//! What goes wrong with a registry, where a caller branches on it.

use std::io;

/// The registry wants other credentials, or any: HTTP 401 and 403.
#[derive(Debug, thiserror::Error)]
#[error("{registry} refuses access to {what}: {why}")]
pub struct Unauthorized {
    /// The registry, as the user knows it.
    pub registry: String,
    /// What was asked for: a repository, or `the registry`.
    pub what: String,
    /// What the registry said.
    pub why: String,
}

/// The connection broke in the middle of a body: asking again from where it broke goes on.
#[derive(Debug, thiserror::Error)]
#[error("the connection broke: {why}")]
pub struct Cut {
    /// How it broke.
    pub why: String,
}

impl Cut {
    /// Whether an error of a [`BlobStream`](super::BlobStream), or of a request that ran out of attempts, is one that
    /// asking again may mend.
    pub fn is_in(error: &anyhow::Error) -> bool {
        error.chain().any(|link| link.is::<Cut>() || link.downcast_ref::<io::Error>().is_some_and(Cut::is_io))
    }

    /// The same for the error of a `read`.
    pub fn is_io(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Cut>())
    }

    /// As the error of a `read`.
    pub(super) fn io(why: impl Into<String>) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, Cut { why: why.into() })
    }
}
