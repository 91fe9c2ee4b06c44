//! One more process in a container that runs, as `exec` and the health check ask `runtime::exec` for it.

use std::path::Path;

use anyhow::{Context, Result};

use super::start::read_spec;
use super::{apply_user, become_person, extra_groups, keep_groups};
use super::{links, secrets};
use crate::host::{self, Ids};
use crate::oci::runtime::Capabilities;
use crate::runtime::Outside;
use crate::runtime::exec::Request;
use crate::runtime::rootfs::Root;
use crate::spec::capabilities;
use crate::store::Store;
use crate::store::container::{ContainerDir, Record, State};
use crate::store::person::Person;

/// What it is to be. In all else it is as the container's own process.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=VALUE` on top of the container's.
    pub env: &'a [String],
    /// Working directory.
    pub workdir: Option<&'a str>,
    /// `user[:group]`.
    pub user: Option<&'a str>,
    /// As this person, if no user is named.
    pub person: Option<&'a Person>,
    /// All rights: those that the caller holds.
    pub privileged: Option<Capabilities>,
    /// Rows and columns, if it gets a terminal.
    pub terminal: Option<(u16, u16)>,
}

/// Finds out what that means in this container. An error if its user, or its secrets, are not to be found.
pub fn request(
    store: &Store,
    dir: &ContainerDir,
    record: &Record,
    state: &State,
    wanted: Wanted<'_>,
) -> Result<Request> {
    let spec = read_spec(dir)?;
    let mut process = spec.process().clone().context("config.json has no process")?;
    process.set_args(Some(wanted.command));
    if let Some(dir) = wanted.workdir {
        process.set_cwd(dir.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    if wanted.terminal.is_some() && !env.iter().any(|e| e.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    for new in secrets::variables(store, record)?.iter().chain(wanted.env) {
        let key = format!("{}=", new.split('=').next().unwrap_or_default());
        env.retain(|e| !e.starts_with(&key));
        env.push(new.clone());
    }
    links::add_variables(&mut env, store, record)?;
    let has_home = env.iter().any(|e| e.starts_with("HOME="));
    process.set_env(Some(env));
    let is_privileged = wanted.privileged.is_some();
    if let Some(held) = wanted.privileged {
        process.set_capabilities(capabilities::everything(process.capabilities().as_ref(), held));
    }
    let root = match &state.chroot {
        Some(path) => Root::open_host(path)?,
        None => Root::open_host(Path::new(&format!("/proc/{}/root", state.init.pid)))?,
    };
    let person = wanted.person.or(record.person.as_ref()).filter(|_| wanted.user.is_none());
    if let Some(person) = person {
        become_person(&mut process, person, &root);
        if root.locate(process.cwd()).is_err() {
            process.set_cwd(person.home.clone());
        }
    } else {
        let user = wanted.user.unwrap_or(&record.user);
        apply_user(&mut process, user, &extra_groups(record), has_home, &root)?;
    }
    // How ids are mapped in the name space that we are in by now.
    let is_single = host::current_ids()? == Ids::Single;
    // With one id another user is one by emulation, which is for those outside.
    let is_other = is_single && wanted.user.is_some();
    let is_inner = person.map_or(state.is_inner && !is_other, |p| p.is_inner);
    if is_inner && is_single {
        keep_groups(&mut process);
    }
    let user = (process.user().uid(), process.user().gid());
    let outside =
        record.ids.as_ref().map(|ids| Outside { root: ids.outside((0, 0)), user: ids.outside(user) });
    let linux = spec.linux().clone().unwrap_or_default();
    let namespaces = linux.namespaces().clone().unwrap_or_default();
    Ok(Request {
        process,
        namespaces: namespaces.iter().fold(0, |flags, n| flags | n.typ() as i32),
        seccomp: linux.seccomp().clone().filter(|_| !is_privileged && state.chroot.is_none()),
        cgroup: state.cgroup.clone().and_then(|cgroup| serde_json::from_value(cgroup).ok()),
        terminal: wanted.terminal,
        emulate: !is_inner && is_single,
        chroot: state.chroot.clone(),
        is_inner,
        outside,
        n_preserved: 0,
        limit: None,
    })
}
