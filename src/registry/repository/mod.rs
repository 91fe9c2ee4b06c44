//! One repository: its manifests, blobs and tags, read from the first place that has them.

mod blob;
mod manifest;
mod tags;
mod upload;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::{Context, Result, anyhow};

use crate::error::NotFound;
use crate::oci::Digest;
use crate::oci::Reference;

use super::Action;
use super::Client;
use super::exchange::Place;
use super::message::Call;
use super::message::Response;
use super::url::Url;

pub use blob::BlobStream;
pub use manifest::Manifest;
pub(super) use tags::list;

/// One repository of a registry. Cheap; may be shared by threads.
pub struct Repository<'a> {
    client: &'a Client,
    registry: String,
    repository: String,
    places: Vec<Place>,
    action: Action,
    /// Uploads that the registry began where a blob could not be mounted: the next one goes on with it.
    begun: Mutex<HashMap<Digest, upload::Begun>>,
}

impl<'a> Repository<'a> {
    pub(super) fn new(
        client: &'a Client,
        reference: &Reference,
        places: Vec<Place>,
        action: Action,
    ) -> Repository<'a> {
        let (registry, repository) = (reference.registry.clone(), reference.repository.clone());
        Repository { client, registry, repository, places, action, begun: Mutex::default() }
    }

    /// `registry/repository`, for errors.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What a token has to allow at this place.
    fn scopes(&self, place: &Place) -> Vec<String> {
        let actions = match self.action {
            Action::Pull => "pull",
            Action::Push => "pull,push",
            Action::Delete => "delete,pull",
        };
        vec![format!("repository:{}:{actions}", place.repository)]
    }

    /// The address of a path beneath the repository.
    fn url(&self, place: &Place, path: &str) -> Result<Url> {
        let path = format!("/v2/{}/{path}", place.repository);
        self.client.transport.url(&place.authority, &path, place.security)
    }

    fn exchange(&self, place: &Place, call: &Call<'_>) -> Result<Response> {
        self.client.exchange(place, &self.scopes(place), call)
    }

    /// Asks each place, mirrors first, until one has it. The error is the origin's; what the mirrors said is named in it.
    fn each<T>(&self, ask: impl Fn(&Place) -> Result<T>) -> Result<T> {
        let mut mirrors = Vec::new();
        let Some((origin, others)) = self.places.split_last() else {
            return Err(anyhow!("{} is nowhere", self.name()));
        };
        for place in others {
            let is_down = |p: &Place| {
                self.client.down.lock().unwrap_or_else(PoisonError::into_inner).contains(&p.authority)
            };
            if is_down(place) {
                continue;
            }
            match ask(place) {
                Ok(found) => return Ok(found),
                Err(e) if e.downcast_ref::<NotFound>().is_some() => {}
                Err(e) => mirrors.push(format!("{}: {}", place.registry, crate::error::chain(&e))),
            }
        }
        let asked = ask(origin);
        if mirrors.is_empty() {
            return asked;
        }
        asked.with_context(|| format!("cannot use a mirror ({}), nor the origin", mirrors.join("; ")))
    }

    /// The place that is written to.
    fn origin(&self) -> Result<&Place> {
        self.places.last().ok_or_else(|| anyhow!("{} is nowhere", self.name()))
    }

    /// Says what was tried, unless the error says that there is no such thing, which says it all.
    fn about<T>(result: Result<T>, what: impl Fn() -> String) -> Result<T> {
        result.map_err(|e| if e.downcast_ref::<NotFound>().is_some() { e } else { e.context(what()) })
    }

    /// The error for an answer that is no success.
    fn refusal(&self, place: &Place, response: Response) -> anyhow::Error {
        self.client.refusal(place, &place.repository, response)
    }
}
