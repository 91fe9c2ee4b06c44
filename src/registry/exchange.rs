//! One request to one place: with what it wants to see, again where asking again may help.

use std::io::Read;
use std::sync::PoisonError;

use anyhow::{Result, anyhow};
use jiff::Timestamp;

use crate::error::ResultExt;

use super::Client;
use super::HUB;
use super::backoff::Backoff;
use super::config;
use super::credentials;
use super::credentials::Credentials;
use super::credentials::Stored;
use super::failure::BlobUnknown;
use super::failure::Cut;
use super::failure::Failure;
use super::failure::Unauthorized;
use super::header;
use super::message::Call;
use super::message::Response;
use super::transport::Security;
use super::url::Url;

/// A repository on one host: the origin, or a mirror.
#[derive(Debug, Clone)]
pub struct Place {
    /// The registry as the user knows it, and credentials are kept for it: `docker.io`.
    pub registry: String,
    /// The host that is asked: `registry-1.docker.io`.
    pub authority: String,
    /// The name of the repository there; empty for the registry as a whole.
    pub repository: String,
    /// What a connection must be like.
    pub security: Security,
    /// It is what the user named, not a mirror.
    pub is_origin: bool,
}

impl Place {
    /// Reads `host[:port]/repository`. `insecure` is the configuration's word, `tls_verify` the command line's, which counts
    /// more. This machine may speak plain HTTP, but if it speaks TLS its certificate has to be good.
    pub fn new(location: &str, insecure: bool, is_origin: bool, tls_verify: Option<bool>) -> Result<Place> {
        let (registry, repository) = location.split_once('/').unwrap_or((location, ""));
        let registry = if registry == "index.docker.io" || registry == HUB { "docker.io" } else { registry };
        if super::url::split_authority(registry).is_none() {
            return Err(anyhow!("{registry:?} is not a host with an optional port"));
        }
        let security = match tls_verify {
            Some(verify) => Security { verify, plain: !verify },
            None if config::is_local(registry) && !insecure => Security { verify: true, plain: true },
            None => Security { verify: !insecure, plain: insecure },
        };
        let authority = if registry == "docker.io" { HUB } else { registry };
        Ok(Place {
            registry: registry.to_owned(),
            authority: authority.to_ascii_lowercase(),
            repository: repository.to_owned(),
            security,
            is_origin,
        })
    }

    /// Whether an address, which may be one that the registry named, is on this host and port: no other is told who we are.
    fn has(&self, url: &Url) -> bool {
        Url::new(url.is_tls, &self.authority, "/").is_ok_and(|own| own.is_same_place(url))
    }
}

impl Client {
    /// Sends a request to a place: what it asks for in return is given once, and what may mend is tried again. The answer
    /// may be a refusal of another kind, which is the caller's to read.
    pub(super) fn exchange(&self, place: &Place, scopes: &[String], call: &Call<'_>) -> Result<Response> {
        self.exchange_as(place, scopes, call, None)
    }

    /// The same as somebody else than what is stored.
    pub(super) fn exchange_as(
        &self,
        place: &Place,
        scopes: &[String],
        call: &Call<'_>,
        login: Option<&Credentials>,
    ) -> Result<Response> {
        let mut used = self.authorization(place, &call.url, scopes, login)?;
        let mut has_answered = false;
        loop {
            let response = self.attempt(place, call, used.as_deref())?;
            if response.status != 401 || response.is_elsewhere || !place.has(&call.url) {
                return Ok(response);
            }
            if has_answered {
                return Err(self.refusal(place, &what(place), response));
            }
            has_answered = true;
            self.auth.learn(&response, &place.authority, used.as_deref()).map_err(|e| {
                let why = crate::error::chain(&e);
                Unauthorized { registry: place.registry.clone(), what: what(place), why }
            })?;
            used = self.authorization(place, &call.url, scopes, login)?;
            if used.is_none() {
                return Err(self.refusal(place, &what(place), response));
            }
            // Read to its end, the connection serves the next request.
            response.complaint();
        }
    }

    /// Sends a body that can be sent only once. A registry that wants another token for it says so by 401: then it is
    /// forgotten, and the caller, who knows how far the registry got, comes again.
    pub(super) fn exchange_stream(
        &self,
        place: &Place,
        scopes: &[String],
        call: &Call<'_>,
        body: (&mut dyn Read, u64),
    ) -> Result<Response> {
        let used = self.authorization(place, &call.url, scopes, None)?;
        let response = self
            .transport
            .send_stream(call, used.as_deref(), place.security, body)
            .map_err(|failure| failure.error)?;
        if response.status == 401 && place.has(&call.url) {
            self.auth.learn(&response, &place.authority, used.as_deref())?;
        }
        Ok(response)
    }

    /// Sends a request until it is answered by something else than `busy`, within reason.
    pub(super) fn attempt(
        &self,
        place: &Place,
        call: &Call<'_>,
        authorization: Option<&str>,
    ) -> Result<Response> {
        let mut backoff = Backoff::new();
        loop {
            match self.transport.send(call, authorization, place.security) {
                Err(failure) if failure.is_transient && backoff.wait(None) => {}
                Err(failure) => return Err(self.note(place, failure)),
                Ok(response) if is_busy(response.status) => {
                    let asked = response
                        .header("retry-after")
                        .and_then(|value| header::retry_after(value, Timestamp::now()));
                    if !backoff.wait(asked) {
                        return Err(busy(place, response, asked));
                    }
                }
                Ok(response) => return Ok(response),
            }
        }
    }

    fn note(&self, place: &Place, failure: Failure) -> anyhow::Error {
        if failure.is_unreachable {
            self.down.lock().unwrap_or_else(PoisonError::into_inner).insert(place.authority.clone());
        }
        failure.error
    }

    fn authorization(
        &self,
        place: &Place,
        url: &Url,
        scopes: &[String],
        login: Option<&Credentials>,
    ) -> Result<Option<String>> {
        // A helper program that keeps passwords is not started before somebody wants one.
        if !self.auth.is_known(&place.authority) || !place.has(url) {
            return Ok(None);
        }
        let stored = match login {
            Some(_) => None,
            None => self.credentials(place)?,
        };
        let credentials = login.or(stored.as_ref());
        self.auth.header(&place.authority, scopes, credentials, &|call, header| {
            self.ask_token_service(place, call, header)
        })
    }

    /// What the place's token service answers; all but a success is an error.
    pub(super) fn ask_token_service(
        &self,
        place: &Place,
        call: &Call<'_>,
        authorization: Option<&str>,
    ) -> Result<Response> {
        let response = self.attempt(place, call, authorization)?;
        match response.status {
            200 => Ok(response),
            // What token services say of a wrong password: 401, and the ones of oauth 400.
            400 | 401 | 403 => Err(self.denial(place, &what(place), response.complaint())),
            _ => {
                let from = response.url.authority.clone();
                Err(anyhow!("cannot get a token from {from}: {}", response.complaint()))
            }
        }
    }

    /// The stored credentials for a place, or `--creds` for what the user named.
    fn credentials(&self, place: &Place) -> Result<Option<Credentials>> {
        Ok(self.stored(place)?.credentials)
    }

    fn stored(&self, place: &Place) -> Result<Stored> {
        if place.is_origin && self.options.credentials.is_some() {
            return Ok(Stored { credentials: self.options.credentials.clone(), complaint: None });
        }
        let key = format!("{}/{}", place.registry, place.repository);
        let mut known = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = known.get(&key) {
            return Ok(stored.clone());
        }
        let authfile = self.options.authfile.as_deref();
        let stored = credentials::look_up(&self.host, authfile, &place.registry, &place.repository)?;
        known.insert(key, stored.clone());
        Ok(stored)
    }

    /// The error for a refusal: [`Unauthorized`] for 401 and 403, with the way out, else what the registry said.
    pub(super) fn refusal(&self, place: &Place, what: &str, response: Response) -> anyhow::Error {
        let (status, is_elsewhere) = (response.status, response.is_elsewhere);
        let from = response.url.authority.clone();
        let why = response.complaint();
        if is_elsewhere || !matches!(status, 401 | 403) {
            let is_blob_unknown = why.to_ascii_lowercase().contains("blob_unknown");
            let error = anyhow!("{from} refuses {what}: {why}");
            return if is_blob_unknown { error.context(BlobUnknown) } else { error };
        }
        self.denial(place, what, why)
    }

    fn denial(&self, place: &Place, what: &str, why: String) -> anyhow::Error {
        let registry = place.registry.clone();
        let hint = match self.stored(place) {
            Ok(Stored { complaint: Some(complaint), .. }) => complaint,
            Ok(Stored { credentials: None, .. }) => format!("if it is private: dhow login {registry}"),
            _ => format!(
                "the credentials for {registry} do not allow this: dhow login {registry} takes others"
            ),
        };
        let error = Unauthorized { registry, what: what.to_owned(), why };
        Err::<(), _>(error).hint(hint).expect_err("it is an error")
    }
}

/// What a refusal is about, said for a person.
pub fn what(place: &Place) -> String {
    if place.repository.is_empty() { "the registry".to_owned() } else { place.repository.clone() }
}

/// The answers that mean: not now.
pub fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

fn busy(place: &Place, response: Response, asked: Option<std::time::Duration>) -> anyhow::Error {
    let why = response.complaint();
    let error = anyhow!(Cut { why }).context(format!("{} is busy", place.registry));
    match asked {
        Some(asked) => {
            Err::<(), _>(error).hint(format!("it asks to be left alone for {} seconds", asked.as_secs()))
        }
        None => Err(error),
    }
    .expect_err("both are errors")
}
