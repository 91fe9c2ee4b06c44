//! The distribution protocol: manifests, blobs and tags of a registry, as bytes and streams. Keeps nothing on disk.
//!
//! [`Client`] is one run's view of all registries, shared by threads; [`Repository`] is one repository of it. A request goes
//! through these, each of which knows nothing of the one before:
//!
//! 1. `repository/`, `catalog`: which request, and what its answer means
//! 2. `exchange`: the place that answers it (mirrors before the origin), again after 429, 5xx and broken connections
//! 3. `auth`: a password or a token, once the registry asked for one
//! 4. `transport`: connections, TLS or not, proxies, redirects; `resolver`, `tls`, `proxy`, `forward` for it
//!
//! Everything that a registry says is hostile: sizes, counts and walks are bounded, nothing of it is believed unchecked.
//! Source: distribution-spec v1.1 "Endpoints", distribution/docs/spec/auth.

mod auth;
pub mod backoff;
pub mod catalog;
pub mod certs;
mod challenge;
pub mod config;
pub mod credentials;
mod exchange;
pub mod failure;
mod forward;
mod header;
mod message;
mod proxy;
pub mod repository;
mod resolver;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod url;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::oci::Reference;

use auth::Auth;
use config::Config;
use credentials::Stored;
use exchange::Place;
use message::Call;
use transport::Transport;

pub use backoff::Backoff;
pub use credentials::Credentials;
pub use failure::{BlobUnknown, Cut, Unauthorized};
pub use repository::{BlobStream, Manifest, Repository};
pub use resolver::Resolver;

/// Where docker.io is: the name is older than its registry.
const HUB: &str = "registry-1.docker.io";

/// What the user said about registries on the command line.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--tls-verify`: false accepts any certificate and plain HTTP, true neither; `None` is the default for the registry.
    pub tls_verify: Option<bool>,
    /// `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `--creds`: used instead of stored ones.
    pub credentials: Option<Credentials>,
    /// What helpers were asked for beforehand, by registry and repository: see [`Options::ask_helpers`].
    pub helped: HashMap<String, Stored>,
}

impl Options {
    /// Asks credential helpers now for what these references may need. For a user, before the user name space is entered:
    /// in there a keyring takes the helper for root, and does not know it (D-Bus compares ids, gpg looks for another
    /// agent). Where no helper is configured, nothing is done.
    pub fn ask_helpers<'a>(
        &mut self,
        host: &Host,
        references: impl IntoIterator<Item = &'a Reference>,
    ) -> Result<()> {
        if self.credentials.is_some() || !host.is_rootless() {
            return Ok(());
        }
        let authfile = self.authfile.as_deref();
        for reference in references {
            if !credentials::has_helper(host, authfile, &reference.registry, &reference.repository)? {
                continue;
            }
            // What is blocked is refused later, by who uses it.
            let Ok(places) = config::load(host)?.endpoints(reference) else { continue };
            let origin = format!("{}/{}", reference.registry, reference.repository);
            let places: BTreeSet<String> = places.into_iter().map(|e| e.location).chain([origin]).collect();
            for place in places {
                let (registry, repository) = place.split_once('/').unwrap_or((&place, ""));
                let stored = credentials::look_up(host, authfile, registry, repository)?;
                self.helped.insert(place, stored);
            }
        }
        Ok(())
    }
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
    host: Host,
    options: Options,
    config: Config,
    transport: Transport,
    auth: Auth,
    /// By registry and repository: a credential helper is a process, asked once.
    credentials: Mutex<HashMap<String, Stored>>,
    /// Mirrors that nobody answered from: not asked again in this run.
    down: Mutex<HashSet<String>>,
}

impl Client {
    /// Reads the configuration; touches no network.
    pub fn new(host: &Host, options: Options) -> Result<Client> {
        Ok(Client {
            config: config::load(host)?,
            transport: Transport::new(host, options.cert_dir.clone()),
            auth: Auth::default(),
            credentials: Mutex::new(options.helped.clone()),
            down: Mutex::default(),
            host: host.clone(),
            options,
        })
    }

    /// A repository, for one kind of work. Resolves mirrors, which are for reading alone, and refuses what the
    /// configuration blocks; touches no network.
    pub fn repository(&self, reference: &Reference, action: Action) -> Result<Repository<'_>> {
        let about = || format!("cannot use {}/{}", reference.registry, reference.repository);
        let endpoints = match action {
            Action::Pull => self.config.endpoints(reference).with_context(about)?,
            Action::Push | Action::Delete => vec![self.config.origin(reference).with_context(about)?],
        };
        let last = endpoints.len().saturating_sub(1);
        let places: Vec<Place> = endpoints
            .iter()
            .enumerate()
            .map(|(at, e)| Place::new(&e.location, e.insecure, at == last, self.options.tls_verify))
            .collect::<Result<_>>()
            .with_context(about)?;
        if places.is_empty() {
            bail!(
                "cannot use {}/{}: it is configured to be nowhere",
                reference.registry,
                reference.repository
            );
        }
        Ok(Repository::new(self, reference, places, action))
    }

    /// Asks whether the registry is there and takes `login`, or, without it, what is stored. The error is
    /// [`Unauthorized`] where it does not.
    pub fn ping(&self, registry: &str, login: Option<&Credentials>) -> Result<()> {
        let place = self.registry(registry)?;
        let about = || format!("cannot use the registry {registry}");
        let url = self.transport.url(&place.authority, "/v2/", place.security).with_context(about)?;
        let response = self.exchange_as(&place, &[], &Call::get(url), login).with_context(about)?;
        match response.status {
            200 => Ok(()),
            404 => bail!("{registry} is no registry: it has no /v2/"),
            _ => Err(self.refusal(&place, "the registry", response)).with_context(about),
        }
    }

    /// The same, and returns what to keep: an identity token where the registry's token service gives one that works, so that
    /// the password need not lie anywhere, else `login` itself.
    pub fn login(&self, registry: &str, login: &Credentials) -> Result<Credentials> {
        self.ping(registry, Some(login))?;
        let place = self.registry(registry)?;
        let ask = |call: &Call<'_>, header: Option<&str>| self.ask_token_service(&place, call, header);
        let identity = self.auth.identity(&place.authority, login, &ask);
        Ok(identity.filter(|token| self.ping(registry, Some(token)).is_ok()).unwrap_or_else(|| login.clone()))
    }

    /// A registry as a whole, for what is not about one repository.
    fn registry(&self, registry: &str) -> Result<Place> {
        let insecure = self.config.registry_is_insecure(registry)?;
        Place::new(&format!("{registry}/"), insecure, true, self.options.tls_verify)
    }
}
