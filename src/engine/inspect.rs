//! inspect of a container: docker's fields, in docker's order.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Engine, inspect_mounts, reap};
use crate::fs;
use crate::oci::runtime::Spec;
use crate::spec::options::{Network, Options};
use crate::store::container::{ContainerDir, Exit, Record, Source, State, Status};

const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Everything about one container.
pub fn inspect(engine: &Engine, wanted: &str) -> Result<Value> {
    let dir = engine.find(wanted)?;
    let status = reap::settled(&engine.store, &dir)?;
    let record = dir.record()?;
    let options: Options =
        serde_json::from_value(record.options.clone()).context("cannot read the record")?;
    let text = fs::read_to_string(&dir.file("config.json"))?;
    let spec: Spec = serde_json::from_str(&text).context("cannot read config.json")?;
    let args = spec.process().as_ref().and_then(|p| p.args().clone()).unwrap_or_default();
    let (image, image_id) = match &record.source {
        Source::Image { name, id, .. } => (name.clone(), id.clone()),
        Source::Dir { path, .. } => (path.display().to_string(), String::new()),
    };
    let file = |name: &str| dir.file(name).display().to_string();
    // What it was the last time; before the first, what is tried first.
    let last = dir.last_state()?;
    let driver = last.as_ref().map_or_else(|| "overlay".to_owned(), |state| state.driver.clone());
    Ok(json!({
        "Id": record.id,
        "Created": record.created.to_string(),
        "Path": args.first().cloned().unwrap_or_default(),
        "Args": args.get(1..).unwrap_or_default(),
        "State": state(&status, &dir),
        "Image": image_id,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": if record.log { file("log") } else { String::new() },
        "Name": format!("/{}", record.name),
        "RestartCount": last.as_ref().map_or(0, |state| state.restart_count),
        "Driver": driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(&options, &record),
        "GraphDriver": { "Name": driver, "Data": { "MergedDir": file("merged"), "UpperDir": file("upper"), "WorkDir": file("work") } },
        "Mounts": inspect_mounts::mounts(&engine.store, &options),
        "Config": config(&options, &record, &spec, &image),
        "NetworkSettings": { "Ports": {}, "Networks": network(&options) },
    }))
}

fn state(status: &Status, dir: &ContainerDir) -> Value {
    let last: Option<State> = dir.last_state().ok().flatten();
    let started = last.as_ref().map_or(ZERO_TIME.to_owned(), |s| s.started_at.to_string());
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
        Status::Created | Status::Starting => of("created", false, 0, None),
        Status::Exited(exit) => of("exited", false, 0, Some(exit)),
        Status::Dead(_) => of("exited", false, 0, None),
    }
}

fn host_config(options: &Options, record: &Record) -> Value {
    let limits = &options.limits;
    let ulimits: Vec<Value> =
        options.ulimits.iter().map(|(n, s, h)| json!({ "Name": n, "Soft": s, "Hard": h })).collect();
    json!({
        "Binds": inspect_mounts::binds(options),
        "Mounts": inspect_mounts::asked(options),
        "Tmpfs": inspect_mounts::tmpfs(options),
        "VolumesFrom": options.volumes_from,
        "LogConfig": log_config(record),
        "NetworkMode": match options.network { Network::Host => "host", Network::None => "none" },
        "PortBindings": {},
        "RestartPolicy": { "Name": record.restart.name(), "MaximumRetryCount": record.restart.most() },
        "AutoRemove": record.auto_remove,
        "CapAdd": options.cap_add,
        "CapDrop": options.cap_drop,
        "Dns": options.dns,
        "DnsSearch": options.dns_search,
        "ExtraHosts": options.add_hosts.iter().map(|(n, a)| format!("{n}:{a}")).collect::<Vec<_>>(),
        "GroupAdd": options.group_add,
        "OomScoreAdj": options.oom_score_adj.unwrap_or(0),
        "Privileged": options.privileged,
        "ReadonlyRootfs": options.read_only,
        "ShmSize": options.shm_size.unwrap_or(64 << 20),
        "Sysctls": options.sysctls,
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": limits.memory.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.clone().unwrap_or_default(),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "MemorySwap": limits.memory_swap.unwrap_or(0),
        "PidsLimit": limits.pids,
        "Ulimits": ulimits,
        "Init": options.init,
    })
}

fn log_config(record: &Record) -> Value {
    let driver = if record.log { record.log_config.driver.as_str() } else { "none" };
    json!({ "Type": driver, "Config": record.log_config.options })
}

fn config(options: &Options, record: &Record, spec: &Spec, image: &str) -> Value {
    let process = spec.process().as_ref();
    let args = process.and_then(|p| p.args().clone()).unwrap_or_default();
    let entrypoint = options.entrypoint.clone();
    let command =
        if options.command.is_empty() && entrypoint.is_none() { args } else { options.command.clone() };
    json!({
        "Hostname": spec.hostname().clone().unwrap_or_default(),
        "Domainname": options.domainname.clone().unwrap_or_default(),
        "User": record.user,
        "AttachStdin": options.interactive,
        "AttachStdout": true,
        "AttachStderr": true,
        "Tty": options.terminal,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive,
        "Env": process.and_then(|p| p.env().clone()).unwrap_or_default(),
        "Cmd": command,
        "Image": image,
        "Volumes": inspect_mounts::config_volumes(options),
        "WorkingDir": process.map(|p| p.cwd().display().to_string()).unwrap_or_default(),
        "Entrypoint": entrypoint,
        "Labels": record.labels,
        "StopSignal": options.stop_signal.clone().unwrap_or_else(|| "SIGTERM".into()),
        "StopTimeout": record.stop_timeout,
    })
}

fn network(options: &Options) -> Value {
    let name = match options.network {
        Network::Host => "host",
        Network::None => "none",
    };
    json!({ name: { "Aliases": null, "MacAddress": "", "NetworkID": "", "Gateway": "", "IPAddress": "" } })
}
