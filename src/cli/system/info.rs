//! version and info, with docker's field names. There is no server; what docker asks of its own, we answer for ourselves.

use std::path::Path;

use anyhow::Result;
use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use crate::cli::flags::value;
use crate::cli::format::{Template, human, json as written};
use crate::cli::run_flags::one;
use crate::cli::{Session, out};
use crate::engine::list;
use crate::fs;
use crate::image::Platform;
use crate::store::container::Status;
use crate::store::image::entries;

pub(in crate::cli) fn args(command: Command) -> Command {
    command.arg(value("format", Some('f'), "TEMPLATE", "json or a Go template"))
}

pub(in crate::cli) fn version(matches: &ArgMatches, _: &mut Session) -> Result<u8> {
    let uname = rustix::system::uname();
    let platform = Platform::host();
    let own = json!({
        "Platform": {"Name": "dhow"},
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": platform.os,
        "Arch": platform.architecture,
        "KernelVersion": uname.release().to_string_lossy(),
    });
    let text = || {
        let line = |name: &str, value: &Value| format!(" {name:<18}{}\n", value.as_str().unwrap_or_default());
        let mut text = "Client: dhow\n".to_owned();
        text.push_str(&line("Version:", &own["Version"]));
        text.push_str(&format!(" {:<18}{}/{}\n", "OS/Arch:", platform.os, platform.architecture));
        text.push_str(&line("Kernel version:", &own["KernelVersion"]));
        text
    };
    show(matches, &json!({"Client": own, "Server": own}), text)
}

pub(in crate::cli) fn info(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let containers = list::list(&engine)?;
    let running =
        containers.iter().filter(|c| matches!(c.status, Status::Running(_) | Status::Restarting(..))).count();
    let uname = rustix::system::uname();
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let kib = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let system = read("/etc/os-release");
    let system =
        system.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    let is_unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
    let is_unified = fs::metadata(is_unified).ok().flatten().is_some();
    let value = json!({
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": 0,
        "ContainersStopped": containers.len() - running,
        "Images": entries(&engine.store)?.len(),
        "Driver": "overlay",
        "AdditionalImageStores": engine.store.additional,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if is_unified { "2" } else { "1" },
        "KernelVersion": uname.release().to_string_lossy(),
        "OperatingSystem": system,
        "OSType": "linux",
        "Architecture": uname.machine().to_string_lossy(),
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": kib.unwrap_or(0) * 1024,
        "DockerRootDir": engine.store.data,
        "Name": uname.nodename().to_string_lossy(),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Rootless": engine.host.is_rootless(),
    });
    let text = || {
        let shown = |name: &str| match &value[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut text = format!("Containers: {}\n", shown("Containers"));
        for name in ["Running", "Paused", "Stopped"] {
            text.push_str(&format!(" {name}: {}\n", shown(&format!("Containers{name}"))));
        }
        for (title, name) in [
            ("Images", "Images"),
            ("Server Version", "ServerVersion"),
            ("Storage Driver", "Driver"),
            ("Cgroup Driver", "CgroupDriver"),
            ("Cgroup Version", "CgroupVersion"),
            ("Kernel Version", "KernelVersion"),
            ("Operating System", "OperatingSystem"),
            ("OSType", "OSType"),
            ("Architecture", "Architecture"),
            ("CPUs", "NCPU"),
        ] {
            text.push_str(&format!("{title}: {}\n", shown(name)));
        }
        text.push_str(&format!("Total Memory: {}\n", human::size_binary(kib.unwrap_or(0) * 1024)));
        for (title, name) in [("Name", "Name"), ("Root Dir", "DockerRootDir"), ("Rootless", "Rootless")] {
            text.push_str(&format!("{title}: {}\n", shown(name)));
        }
        for path in &engine.store.additional {
            text.push_str(&format!("Additional Image Store: {}\n", path.display()));
        }
        text
    };
    show(matches, &value, text)
}

fn show(matches: &ArgMatches, value: &Value, text: impl Fn() -> String) -> Result<u8> {
    let shown = match one(matches, "format") {
        None | Some("") => text(),
        Some("json") => written::compact(value) + "\n",
        Some(template) => Template::parse(template)?.render(value)? + "\n",
    };
    out::out(&shown)?;
    Ok(0)
}
