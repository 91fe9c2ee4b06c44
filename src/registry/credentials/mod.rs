//! What the user logged in with, as docker and podman keep it.
//!
//! | file | whose |
//! | --- | --- |
//! | `--authfile`, else REGISTRY_AUTH_FILE | what was named; then no other is looked at |
//! | $DOCKER_CONFIG/config.json, else ~/.docker/config.json | docker's: read first, and the one that `login` writes |
//! | $XDG_RUNTIME_DIR/containers/auth.json or /run/containers/UID/auth.json, then ~/.config/containers/auth.json | podman's |
//! | ~/.dockercfg | docker's oldest |
//!
//! Invariant: a secret is in no error, in no `Debug` and in no argument of a program: helpers get it on their stdin.

mod document;
mod files;
mod helper;
mod keep;
mod server;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::error::{self, Hint, ResultExt};
use crate::host::Host;

pub use files::target;
pub use keep::{Kept, erase, erase_all, store};
pub use server::Server;

/// Docker Hub, as it stands in references.
const HUB: &str = "docker.io";

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

impl Credentials {
    fn secret(&self) -> &str {
        match self {
            Credentials::Basic { password, .. } => password,
            Credentials::IdentityToken(token) => token,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Basic { user, .. } => write!(f, "Basic {{ user: {user:?}, password: *** }}"),
            Credentials::IdentityToken(_) => f.write_str("IdentityToken(***)"),
        }
    }
}

/// A helper was to be asked, and could not answer. Who can do without credentials may go on.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct HelperFailed {
    /// Which helper, and how it failed.
    pub why: String,
}

/// What is known of the credentials for a repository, where a helper that fails is no error yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// As [`find`] gives them.
    pub credentials: Option<Credentials>,
    /// Why a helper that may have some did not give them: to be told where they turn out to be needed.
    pub complaint: Option<String>,
}

/// The same as [`find`]; a helper that fails, which may be one that is not on this machine, must not keep anybody from what
/// is public.
pub fn look_up(host: &Host, authfile: Option<&Path>, registry: &str, repository: &str) -> Result<Stored> {
    match find(host, authfile, registry, repository) {
        Ok(credentials) => Ok(Stored { credentials, complaint: None }),
        Err(e) if e.is::<HelperFailed>() => {
            Ok(Stored { credentials: None, complaint: Some(error::chain(&e)) })
        }
        Err(e) => Err(e),
    }
}

/// Whether [`find`] may start a helper for this.
pub fn has_helper(host: &Host, authfile: Option<&Path>, registry: &str, repository: &str) -> Result<bool> {
    let keys = keys(registry, repository);
    for file in files::to_read(host, authfile)? {
        let Some(document) = file.document()? else { continue };
        if document.store().is_some() || keys.iter().any(|key| document.helper(key).is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The credentials for a repository: the longest key that fits, `None` where there are none. `authfile` is `--authfile`.
/// An empty `repository` asks for those of the registry as a whole.
/// Errors: a file that cannot be understood; [`HelperFailed`], where nothing else has any.
pub fn find(
    host: &Host,
    authfile: Option<&Path>,
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>> {
    let keys = keys(registry, repository);
    let mut failed = None;
    for file in files::to_read(host, authfile)? {
        let Some(document) = file.document()? else { continue };
        let about = || format!("cannot read {}", file.path.display());
        for key in &keys {
            // The store of all is asked last, and by registry alone: docker knows nothing finer.
            let whole = !key.contains('/');
            let helper = document.helper(key).or_else(|| document.store().filter(|_| whole));
            match helper.map(|name| helper::get(name, key)) {
                Some(Ok(Some(found))) => return Ok(Some(found)),
                // A helper that is not installed here must not hide what a file has.
                Some(Err(error)) => failed = failed.or(Some(error)),
                Some(Ok(None)) | None => (),
            }
            if let Some(found) = document.credentials(key).with_context(about)? {
                return Ok(Some(found));
            }
        }
    }
    let Some(error) = failed else { return Ok(None) };
    let hint = error.downcast_ref::<Hint>().map(|hint| hint.0.clone());
    let failed = HelperFailed { why: error::chain(&error) };
    match hint {
        Some(hint) => Err(failed).hint(hint),
        None => Err(failed.into()),
    }
}

/// The keys under which credentials for a repository may lie: `reg/a/b`, `reg/a`, `reg`.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let whole = if repository.is_empty() { registry.to_owned() } else { format!("{registry}/{repository}") };
    let mut key = document::normalize(&whole);
    let mut keys = vec![key.clone()];
    while let Some(at) = key.rfind('/') {
        key.truncate(at);
        keys.push(key.clone());
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_key_comes_first() {
        assert_eq!(keys("r:5000", "a/b/c"), ["r:5000/a/b/c", "r:5000/a/b", "r:5000/a", "r:5000"]);
        assert_eq!(keys("index.docker.io", ""), ["docker.io"]);
    }

    #[test]
    fn debug_shows_no_secret() {
        let basic = Credentials::Basic { user: "al".into(), password: "hunter2".into() };
        assert_eq!(format!("{basic:?}"), "Basic { user: \"al\", password: *** }");
        let token = Credentials::IdentityToken("hunter2".into());
        assert_eq!(format!("{token:#?}"), "IdentityToken(***)");
    }
}
