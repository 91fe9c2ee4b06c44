//! inspect of a container: docker's fields, in docker's order. The larger ones have files of their own: `inspect_host`,
//! `inspect_config`, `inspect_mounts`, `inspect_network`.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    Engine, inspect_config, inspect_host, inspect_mounts, inspect_network, list, processes, reap, size,
};
use crate::fs;
use crate::oci::Digest;
use crate::oci::runtime::Spec;
use crate::spec::options::Options;
use crate::store::container::{ContainerDir, Exit, Record, Source, State, Status};
use crate::store::{Store, health, layer};

/// What docker says of a moment that never was.
pub(super) const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Everything about one container. With its size, the files are counted: in a user name space by its root.
pub fn inspect(engine: &Engine, wanted: &str, with_size: bool) -> Result<Value> {
    let dir = engine.find(wanted)?;
    let status = reap::settled(&engine.store, &dir)?;
    let record = dir.record()?;
    let options: Options =
        serde_json::from_value(record.options.clone()).context("cannot read the record")?;
    let text = fs::read_to_string(&dir.file("config.json"))?;
    let spec: Spec = serde_json::from_str(&text).context("cannot read config.json")?;
    let args = list::command_of(&dir, &record);
    let image = match &record.source {
        Source::Image { id, .. } => id.clone(),
        Source::Dir { .. } => String::new(),
    };
    let file = |name: &str| dir.file(name).display().to_string();
    // What it was the last time; before the first, what is tried first.
    let last = match status.state() {
        Some(state) => Some(state.clone()),
        None => dir.last_state()?,
    };
    let driver = last.as_ref().map_or("overlay", |state| state.driver.as_str());
    // As docker counts: the one that is waited for, too.
    let pending = u32::from(matches!(status, Status::Restarting(..)));
    let restarts = last.as_ref().map_or(0, |state| state.restart_count.saturating_add(pending));
    let mut shown = json!({
        "Id": record.id,
        "Created": record.created.to_string(),
        "Path": args.first().cloned().unwrap_or_default(),
        "Args": args.get(1..).unwrap_or_default(),
        "State": with_health(state(&status, last.as_ref()), &record, &dir),
        "Image": image,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": if record.log { file("log") } else { String::new() },
        "Name": format!("/{}", record.name),
        "RestartCount": restarts,
        "Driver": driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": exec_ids(&record.id, &status)?,
        "HostConfig": inspect_host::host_config(&options, &record, &spec),
        "GraphDriver": { "Data": graph(&engine.store, &record, &dir), "Name": driver },
    });
    if with_size {
        let size = size::of(&engine.store, &record)?;
        shown["SizeRw"] = size.rw.into();
        shown["SizeRootFs"] = size.root.into();
    }
    shown["Mounts"] = inspect_mounts::mounts(&engine.store, &options).into();
    shown["Config"] = inspect_config::config(&options, &record, &spec);
    shown["NetworkSettings"] = inspect_network::settings(&engine.store, &dir, &record, status.run());
    Ok(shown)
}

/// What its health checks came to, if it has any: last, as docker has it.
fn with_health(mut state: Value, record: &Record, dir: &ContainerDir) -> Value {
    if record.healthcheck.as_ref().is_some_and(|check| check.command().is_some()) {
        state["Health"] = json!(health::read(dir).unwrap_or_default());
    }
    state
}

fn state(status: &Status, last: Option<&State>) -> Value {
    let started = last.map_or(ZERO_TIME.to_owned(), |s| s.started_at.to_string());
    let of = |word: &str, running: bool, pid: i32, exit: Option<&Exit>| {
        json!({
            "Status": word,
            "Running": running,
            "Paused": word == "paused",
            "Restarting": word == "restarting",
            "OOMKilled": exit.is_some_and(|e| e.oom_killed),
            "Dead": false,
            "Pid": pid,
            "ExitCode": exit.map_or(0, |e| e.code),
            "Error": exit.map_or("", |e| e.error.as_str()),
            "StartedAt": started,
            "FinishedAt": exit.map_or(ZERO_TIME.to_owned(), |e| e.finished_at.to_string()),
        })
    };
    match status {
        Status::Running(state) => of("running", true, state.init.pid, None),
        Status::Paused(state) => of("paused", true, state.init.pid, None),
        // Docker says so of a container that is about to run again.
        Status::Restarting(_, exit) => of("restarting", true, 0, Some(exit)),
        Status::Created | Status::Starting(None) => of("created", false, 0, None),
        Status::Exited(exit) | Status::Starting(Some(exit)) => of("exited", false, 0, Some(exit)),
        Status::Dead(_) => of("exited", false, 0, None),
    }
}

/// What `exec` has going in it: processes in the container whose parent is not. Nobody notes their ids: they follow from what
/// the kernel knows of the process, so that they are the same whoever asks. null without any.
fn exec_ids(id: &str, status: &Status) -> Result<Value> {
    let Some(state) = status.run() else { return Ok(Value::Null) };
    let all = processes::of(state)?;
    let is_inside = |pid: i32| all.iter().any(|process| process.pid == pid);
    let ids: Vec<String> = all
        .iter()
        .filter(|process| process.pid != state.init.pid && !is_inside(process.parent))
        .map(|process| {
            Digest::of(format!("{id} {} {}", process.pid, process.start).as_bytes()).hex().to_owned()
        })
        .collect();
    Ok(if ids.is_empty() { Value::Null } else { json!(ids) })
}

/// The directories that overlay stacks. What only the supervisor has mounted is not at MergedDir for others to see.
fn graph(store: &Store, record: &Record, dir: &ContainerDir) -> Value {
    let file = |name: &str| dir.file(name).display().to_string();
    let lower = match &record.source {
        // A layer that is missing is told by who needs it.
        Source::Image { diff_ids, .. } => layer::lower_dirs(store, diff_ids).unwrap_or_default(),
        Source::Dir { path, .. } => vec![path.clone()],
    };
    let lower: Vec<String> = lower.iter().map(|path| path.display().to_string()).collect();
    json!({
        "LowerDir": lower.join(":"),
        "MergedDir": file("merged"),
        "UpperDir": file("upper"),
        "WorkDir": file("work"),
    })
}
