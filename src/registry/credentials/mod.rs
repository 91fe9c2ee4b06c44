//! What the user logged in with, as docker and podman keep it.

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::host::Host;

/// Who we are to a registry. Never shown: `Debug` leaves the secret out.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password (or an access token in its place).
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that the registry's token service gave at login, good for fetching others.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Basic { user, .. } => write!(f, "Basic {{ user: {user:?}, password: *** }}"),
            Credentials::IdentityToken(_) => f.write_str("IdentityToken(***)"),
        }
    }
}

/// The credentials for a repository: the longest key that fits, `None` where there are none. `authfile` is `--authfile`.
pub fn find(
    _host: &Host,
    _authfile: Option<&Path>,
    _registry: &str,
    _repository: &str,
) -> Result<Option<Credentials>> {
    Ok(None)
}
