//! The tags of a repository. Source: distribution-spec "Listing Tags".

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::error::NotFound;

use super::Repository;
use crate::registry::Client;
use crate::registry::exchange::Place;
use crate::registry::header;
use crate::registry::message::Call;
use crate::registry::message::Response;
use crate::registry::url::Url;

/// The most that one page of a list may have.
const PAGE_LIMIT: u64 = 16 << 20;

/// How many pages of a list are read.
const MAX_PAGES: usize = 1000;

/// How many names a list may have.
const MAX_NAMES: usize = 1_000_000;

#[derive(Deserialize)]
struct Tags {
    // null where there are none.
    tags: Option<Vec<String>>,
}

impl Repository<'_> {
    /// All tags, as the registry lists them. [`NotFound`] of kind `repository` where there is none.
    pub fn tags(&self) -> Result<Vec<String>> {
        let listed = self.each(|place| {
            let url = self.url(place, "tags/list?n=1000")?;
            let not_found = || NotFound { kind: "repository", name: self.name() }.into();
            list(
                self.client,
                (place, &self.scopes(place)),
                url,
                &|response| if response.status == 404 { not_found() } else { self.refusal(place, response) },
                &|page| Ok(serde_json::from_slice::<Tags>(page)?.tags.unwrap_or_default()),
            )
        });
        Self::about(listed, || format!("cannot list the tags of {}", self.name()))
    }
}

/// Reads a list page by page (the Link header leads on), within bounds. `at` is the place and the scopes for it, `refused`
/// makes the error of a page that is no success, `read` takes a page apart.
pub fn list(
    client: &Client,
    at: (&Place, &[String]),
    url: Url,
    refused: &dyn Fn(Response) -> anyhow::Error,
    read: &dyn Fn(&[u8]) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let (place, scopes) = at;
    let mut names: Vec<String> = Vec::new();
    let mut next = Some(url.clone());
    for _ in 0..MAX_PAGES {
        let Some(page) = next.take() else { return Ok(names) };
        let response = client.exchange(place, scopes, &Call::get(page.clone()))?;
        if response.status != 200 {
            return Err(refused(response));
        }
        if let Some(link) = response.headers("link").find_map(header::next_link) {
            let to = page.join(link).context("cannot follow the list")?;
            if !to.is_same_place(&url) {
                bail!("the list goes on elsewhere, on {}", to.authority);
            }
            next = Some(to);
        }
        let found = read(&response.bytes(PAGE_LIMIT)?).context("it is no list")?;
        if found.is_empty() && next.is_some() {
            // A page without names leads nowhere.
            next = None;
        }
        names.extend(found);
        if names.len() > MAX_NAMES {
            bail!("it has more than {MAX_NAMES} names");
        }
    }
    match next {
        None => Ok(names),
        Some(_) => bail!("it has more than {MAX_PAGES} pages"),
    }
}
