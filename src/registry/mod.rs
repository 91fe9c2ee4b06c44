//! The distribution protocol: manifests, blobs and tags of a registry, as bytes and streams. Keeps nothing on disk.
//!
//! [`Client`] is one run's view of all registries, shared by threads; [`Repository`] is one repository of it.
//! Source: distribution-spec v1.1 "Endpoints", distribution/docs/spec/auth.

pub mod backoff;
pub mod catalog;
pub mod certs;
pub mod config;
pub mod credentials;
pub mod failure;
pub mod repository;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::host::Host;
use crate::oci::Reference;

pub use backoff::Backoff;
pub use credentials::Credentials;
pub use failure::{Cut, Unauthorized};
pub use repository::{BlobStream, Manifest, Repository};

/// What the user said about registries on the command line.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--tls-verify`: false accepts any certificate and plain HTTP; `None` is the default for the registry.
    pub tls_verify: Option<bool>,
    /// `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `--creds`: used instead of stored ones.
    pub credentials: Option<Credentials>,
}

/// What is to be done with a repository: it decides the scope that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
    /// Deleting.
    Delete,
}

/// All registries, as this run sees them: connections, tokens and what was learnt are kept until it is dropped.
pub struct Client {
    options: Options,
}

impl Client {
    /// Reads the configuration; touches no network.
    pub fn new(_host: &Host, options: Options) -> Result<Client> {
        Ok(Client { options })
    }

    /// A repository, for one kind of work. Resolves mirrors, and refuses what the configuration blocks; touches no network.
    pub fn repository(&self, reference: &Reference, _action: Action) -> Result<Repository<'_>> {
        Ok(Repository { client: self, reference: reference.clone() })
    }

    /// Asks whether the registry is there and takes `login`, or, without it, what is stored. The error is
    /// [`Unauthorized`] where it does not.
    pub fn ping(&self, registry: &str, _login: Option<&Credentials>) -> Result<()> {
        bail!("cannot reach {registry} with {:?}", self.options)
    }
}
