//! update: other limits and another restart policy, of a container that runs or does not.

use anyhow::{Context, Result, anyhow};

use super::{Engine, checks, reap};
use crate::error::ResultExt;
use crate::fs;
use crate::oci::runtime::LinuxResources;
use crate::runtime::cgroup;
use crate::spec::options::{Limits, Options};
use crate::spec::resources;
use crate::store::container::{ContainerDir, Record, Restart};
use crate::store::journal::{self, Event};
use crate::supervisor::{self, Control};

/// What is to be otherwise. What is not there stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Limits.
    pub limits: Limits,
    /// The restart policy.
    pub restart: Option<Restart>,
}

/// Changes a container. If a limit cannot be had, none is noted.
pub fn update(engine: &Engine, wanted: &str, change: &Change) -> Result<()> {
    let dir = engine.find(wanted)?;
    let about = || format!("cannot update {wanted}");
    checks::check_limits(&change.limits)?;
    let is_alive = reap::decided(&engine.store, &dir).with_context(about)?.is_alive();
    let record = dir.record().with_context(about)?;
    if record.auto_remove && change.restart.is_some_and(|restart| !restart.is_no()) {
        return Err(anyhow!("it is to be removed when it ends"))
            .with_context(about)
            .hint("a restart policy is for containers that are kept, as those that are run without --rm");
    }
    if change.limits != Limits::default() {
        let limits = merged(&record, &change.limits).with_context(about)?;
        let resources = resources::limited(&limits).with_context(about)?;
        if is_alive {
            // Here and not in the supervisor, whose pid name space does not show the processes that may have to move.
            cgroup::prepare(&resources).with_context(about)?;
            supervisor::ask(&dir, &Control::Limit(Box::new(resources.clone()))).with_context(about)?;
        }
        write_bundle(&dir, resources).with_context(about)?;
    }
    let record = dir
        .change_record(&engine.store, |record| {
            record.restart = change.restart.unwrap_or(record.restart);
            let mut options = options(record)?;
            options.limits = merged(record, &change.limits)?;
            record.options = serde_json::to_value(&options).context("cannot encode the options")?;
            Ok(())
        })
        .with_context(about)?;
    if is_alive {
        supervisor::ask(&dir, &Control::ReadAgain).with_context(about)?;
    }
    journal::note(&engine.store, &Event::of_container(&record, "update"));
    Ok(())
}

fn options(record: &Record) -> Result<Options> {
    serde_json::from_value(record.options.clone()).context("cannot read the record")
}

/// The limits that it has, and over them those that it is to have.
fn merged(record: &Record, new: &Limits) -> Result<Limits> {
    let old = options(record)?.limits;
    let new = new.clone();
    // Two ways to say the same: the later one holds.
    let by_quota = new.cpu_quota.is_some() || new.cpu_period.is_some();
    let by_cpus = new.nano_cpus.is_some();
    Ok(Limits {
        memory: new.memory.or(old.memory),
        memory_swap: new.memory_swap.or(old.memory_swap),
        memory_reservation: new.memory_reservation.or(old.memory_reservation),
        nano_cpus: new.nano_cpus.or(old.nano_cpus.filter(|_| !by_quota)),
        cpu_shares: new.cpu_shares.or(old.cpu_shares),
        cpu_quota: new.cpu_quota.or(old.cpu_quota.filter(|_| !by_cpus)),
        cpu_period: new.cpu_period.or(old.cpu_period.filter(|_| !by_cpus)),
        cpuset_cpus: new.cpuset_cpus.or(old.cpuset_cpus),
        cpuset_mems: new.cpuset_mems.or(old.cpuset_mems),
        pids: new.pids.or(old.pids),
    })
}

/// The next run has these limits; the device rules stay.
fn write_bundle(dir: &ContainerDir, mut resources: LinuxResources) -> Result<()> {
    let mut spec = supervisor::read_spec(dir)?;
    let mut linux = spec.linux().clone().context("config.json is not one of a Linux container")?;
    resources.set_devices(linux.resources().as_ref().and_then(|resources| resources.devices().clone()));
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
    let text = serde_json::to_vec(&spec).context("cannot encode the spec")?;
    fs::write_atomic(&dir.file("config.json"), &text)
}
