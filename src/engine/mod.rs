//! The container verbs: take options, return data. Print nothing, parse nothing.

pub mod attach;
pub mod boot;
pub mod boot_hooks;
mod checks;
pub mod commit;
mod config;
pub mod connect;
pub mod copy;
pub mod create;
pub mod detach_keys;
mod devices;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod export;
pub mod files;
pub mod guest;
pub mod health;
mod id_range;
mod identity;
pub mod inspect;
mod inspect_config;
mod inspect_host;
pub mod inspect_mounts;
pub mod inspect_network;
pub mod list;
pub mod logs;
pub mod machine;
pub mod mounts;
pub mod name;
pub mod network;
pub mod network_alias;
pub mod overlap;
pub mod pause;
pub mod port;
pub mod processes;
pub mod reap;
pub mod remove;
pub mod rename;
pub mod reset;
pub mod restart;
pub mod secret;
pub mod shares;
pub mod shell;
pub mod size;
mod source;
pub mod start;
pub mod stats;
mod still;
pub mod stop;
pub mod top;
mod trees;
pub mod unlink;
pub mod update;
pub mod volume;
pub mod wait;
mod watch;
pub mod ways;
pub mod wiring;
pub mod zone;

use anyhow::{Result, anyhow};

use crate::error::{NotFound, ResultExt};
use crate::host::Host;
use crate::store::Store;
use crate::store::container::{self, ContainerDir, State, Status};

/// What every verb works with.
#[derive(Debug)]
pub struct Engine {
    /// Machine and caller.
    pub host: Host,
    /// The state on disk.
    pub store: Store,
}

impl Engine {
    /// Opens the store. What the last crash left is cleared by the verbs that come across it.
    pub fn open(host: Host) -> Result<Engine> {
        let store = Store::open(&host)?;
        Ok(Engine { host, store })
    }

    /// The container that the user named.
    pub fn find(&self, wanted: &str) -> Result<ContainerDir> {
        container::find(&self.store, wanted)
    }

    /// The container and its state, if it runs and is not paused.
    pub fn running(&self, wanted: &str) -> Result<(ContainerDir, State)> {
        match self.alive(wanted)? {
            (dir, Status::Running(state)) => Ok((dir, state)),
            _ => Err(anyhow!("container {wanted} is paused"))
                .hint(format!("unpause it first: dhow unpause {wanted}")),
        }
    }

    /// The container and whether it is `Running` or `Paused`; an error if it is neither.
    pub fn alive(&self, wanted: &str) -> Result<(ContainerDir, Status)> {
        let dir = self.find(wanted)?;
        match reap::settled(&self.store, &dir)? {
            status @ (Status::Running(_) | Status::Paused(_)) => Ok((dir, status)),
            Status::Restarting(..) => Err(anyhow!("container {wanted} is restarting: wait until it runs")),
            _ => Err(anyhow!("container {wanted} is not running")),
        }
    }
}

/// Whether an error says that there is no such container.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<NotFound>().is_some()
}
