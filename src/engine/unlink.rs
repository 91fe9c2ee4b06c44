//! rm --link: a link goes, and both containers stay.

use anyhow::{Context, Result, anyhow, ensure};

use super::{Engine, network_alias};
use crate::endpoint::Link;
use crate::error::ResultExt;

/// Removes a link that is called as docker calls it: `CONTAINER/ALIAS`, where the container is the one that knows another by
/// the alias. If it runs, the line of its /etc/hosts goes, and its resolver forgets the name; variables stay until it starts
/// anew. Fails if there is no such container, or if it has no such link.
pub fn unlink(engine: &Engine, path: &str) -> Result<()> {
    let about = || format!("cannot remove the link {path}");
    let (container, alias) = path
        .trim_start_matches('/')
        .split_once('/')
        .ok_or_else(|| anyhow!("it is not one"))
        .hint("a link is CONTAINER/ALIAS, with the container that was run with --link")
        .with_context(about)?;
    let dir = engine.find(container).with_context(about)?;
    network_alias::rename(engine, &dir, |record| {
        let wiring = &mut record.wiring;
        let mut is_there = false;
        let mut keep = |link: &Link| {
            is_there |= link.alias == alias;
            link.alias != alias
        };
        wiring.links.retain(&mut keep);
        wiring.endpoints.iter_mut().for_each(|end| end.links.retain(&mut keep));
        ensure!(is_there, "container {} has no link of that name", record.name);
        Ok(())
    })
    .with_context(about)
}
