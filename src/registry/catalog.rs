//! Searching: Docker Hub's own interface, and `_catalog` elsewhere.

use anyhow::Result;

use super::Client;

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

/// The repositories of `registry` that have `term` in their name, at most `limit`.
pub fn search(
    _client: &Client,
    _registry: &str,
    _term: &str,
    _limit: usize,
    _filters: &Filters,
) -> Result<Vec<Found>> {
    Ok(Vec::new())
}
