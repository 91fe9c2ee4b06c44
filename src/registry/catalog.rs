//! Searching: Docker Hub's own interface, and `_catalog` elsewhere.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Client;
use super::exchange::Place;
use super::message::Call;
use super::repository::list;
use super::url::query_escaped;

/// The host of Docker Hub's search, which is not its registry.
const HUB_INDEX: &str = "index.docker.io";

/// The most that Hub gives for one page.
const HUB_PAGE: usize = 100;

/// How many pages of Hub are read.
const HUB_PAGES: usize = 50;

/// The most that a page may have.
const PAGE_LIMIT: u64 = 16 << 20;

/// One repository that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its name, as a person writes it.
    pub name: String,
    /// What its owner says of it; may be empty.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// Whether it is one of Docker's own.
    pub is_official: bool,
    /// Whether it is built by Docker Hub.
    pub is_automated: bool,
}

/// Which repositories are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// Docker's own, or not.
    pub is_official: Option<bool>,
    /// Built by Docker Hub, or not.
    pub is_automated: Option<bool>,
    /// With at least so many stars.
    pub stars: u64,
}

impl Filters {
    fn let_through(&self, found: &Found) -> bool {
        self.is_official.is_none_or(|wanted| wanted == found.is_official)
            && self.is_automated.is_none_or(|wanted| wanted == found.is_automated)
            && found.stars >= self.stars
    }
}

/// A page of Hub's search, version 1, as docker uses it.
#[derive(Deserialize)]
struct HubPage {
    #[serde(default)]
    num_pages: usize,
    results: Option<Vec<HubResult>>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct HubResult {
    name: String,
    description: Option<String>,
    star_count: u64,
    is_official: bool,
    is_automated: bool,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

/// The repositories of `registry` that have `term` in their name, at most `limit`.
pub fn search(
    client: &Client,
    registry: &str,
    term: &str,
    limit: usize,
    filters: &Filters,
) -> Result<Vec<Found>> {
    let about = || format!("cannot search {registry}");
    let place = client.registry(registry).with_context(about)?;
    if place.registry == "docker.io" {
        let place = Place { authority: HUB_INDEX.to_owned(), ..place };
        return search_hub(client, &place, term, limit, filters).with_context(about);
    }
    let url =
        client.transport.url(&place.authority, "/v2/_catalog?n=1000", place.security).with_context(about)?;
    let scopes = ["registry:catalog:*".to_owned()];
    let names = list(
        client,
        (&place, &scopes),
        url,
        &|response| client.refusal(&place, "its catalogue", response),
        &|page| Ok(serde_json::from_slice::<Catalog>(page)?.repositories.unwrap_or_default()),
    )
    .with_context(about)?;
    let term = term.to_lowercase();
    let found = names
        .into_iter()
        .filter(|name| name.to_lowercase().contains(&term))
        .map(|name| Found { name: format!("{registry}/{name}"), ..Found::default() })
        .filter(|found| filters.let_through(found));
    Ok(found.take(limit).collect())
}

fn search_hub(
    client: &Client,
    place: &Place,
    term: &str,
    limit: usize,
    filters: &Filters,
) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for page in 1..=HUB_PAGES {
        let path = format!("/v1/search?q={}&n={}&page={page}", query_escaped(term), limit.clamp(1, HUB_PAGE));
        let url = client.transport.url(&place.authority, &path, place.security)?;
        let response = client.exchange(place, &[], &Call::get(url))?;
        if response.status != 200 {
            return Err(client.refusal(place, "the search", response));
        }
        let read: HubPage =
            serde_json::from_slice(&response.bytes(PAGE_LIMIT)?).context("it is no result of a search")?;
        let results = read.results.unwrap_or_default();
        let is_last = results.is_empty() || page >= read.num_pages;
        let found = results.into_iter().map(|r| Found {
            name: r.name,
            description: r.description.unwrap_or_default(),
            stars: r.star_count,
            is_official: r.is_official,
            is_automated: r.is_automated,
        });
        all.extend(found.filter(|found| filters.let_through(found)));
        if is_last || all.len() >= limit {
            break;
        }
    }
    all.truncate(limit);
    Ok(all)
}
