//! Other containers whose name spaces a container is to be in: from names as typed to ids, and whether that can be.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow};

use super::Engine;
use crate::error::ResultExt;
use crate::spec::options::{Network, Options, Share, Userns};
use crate::store::container::{ContainerDir, Status, open_process};

/// Looks up who was named in `--network`, `--pid`, `--ipc` and `--userns container:NAME`.
pub(super) fn look_up(engine: &Engine, options: &mut Options) -> Result<()> {
    let id_of = |flag: &str, name: &str| -> Result<String> {
        let dir = engine.find(name).with_context(|| format!("cannot use --{flag} container:{name}"))?;
        Ok(dir.record()?.id)
    };
    if let Network::Container(name) = &options.network {
        options.network = Network::Container(id_of("network", name)?);
    }
    if let Share::Container(name) = &options.pid {
        options.pid = Share::Container(id_of("pid", name)?);
    }
    if let Share::Container(name) = &options.ipc {
        let id = id_of("ipc", name)?;
        check_shareable(engine, name, &id)?;
        options.ipc = Share::Container(id);
    }
    if let Userns::Container(name) = &options.userns {
        options.userns = Userns::Container(id_of("userns", name)?);
    }
    Ok(())
}

/// As docker: a container's IPC objects are its own unless it was made to share them.
fn check_shareable(engine: &Engine, name: &str, id: &str) -> Result<()> {
    let record = ContainerDir::of(&engine.store, id).record()?;
    let ipc = record.options.get("ipc").cloned().map(serde_json::from_value::<Share>);
    match ipc.transpose().context("cannot read the record")?.unwrap_or_default() {
        Share::Shareable | Share::Host | Share::Container(_) => Ok(()),
        Share::Private | Share::Nothing => {
            Err(anyhow!("cannot use --ipc container:{name}: non-shareable IPC"))
                .hint(format!("make {name} with --ipc shareable"))
        }
    }
}

/// The ids or names of the containers whose name spaces are to be joined.
fn named(options: &Options) -> impl Iterator<Item = &str> {
    let network = match &options.network {
        Network::Container(name) => Some(name.as_str()),
        _ => None,
    };
    let userns = match &options.userns {
        Userns::Container(name) => Some(name.as_str()),
        _ => None,
    };
    [network, userns, options.pid.container(), options.ipc.container()].into_iter().flatten()
}

/// Whether any container is named.
pub fn is_any(options: &Options) -> bool {
    named(options).next().is_some()
}

/// The supervisor of the container whose name spaces are to be joined: a user has to be in that one's user name space
/// before anything is started. `None` if no container was named, or none that runs: then there is nothing to join.
pub fn host_of(engine: &Engine, options: &Options) -> Option<OwnedFd> {
    named(options).find_map(|name| {
        let dir = engine.find(name).ok()?;
        match super::reap::settled(&engine.store, &dir).ok()? {
            Status::Running(state) | Status::Paused(state) => open_process(state.supervisor),
            _ => None,
        }
    })
}
