//! version and info, with docker's field names. There is no server; what docker asks of its own, we answer for ourselves.

use std::path::Path;

use anyhow::Result;
use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use crate::cli::flags::value;
use crate::cli::format::{Template, human, json as written};
use crate::cli::run_flags::one;
use crate::cli::{Session, out};
use crate::engine::list::{self, Listed};
use crate::engine::ways::{self, Ways};
use crate::engine::{Engine, doctor};
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
    let mut engine = session.engine()?;
    let containers = list::list(&engine)?;
    let images = entries(&engine.store)?.len();
    let refused = doctor::enter(&mut engine.host);
    engine.store.ids.clone_from(&engine.host.ids);
    let ways = ways::find(&engine, refused.as_ref())?;
    let value = value_of(&engine, &containers, images, &ways);
    show(matches, &value, || text_of(&value))
}

/// docker's names, and what is ours: Ways.
fn value_of(engine: &Engine, containers: &[Listed], images: usize, ways: &Ways) -> Value {
    let count = |f: fn(&Status) -> bool| containers.iter().filter(|c| f(&c.status)).count();
    let running = count(|s| matches!(s, Status::Running(_) | Status::Restarting(..)));
    let paused = count(|s| matches!(s, Status::Paused(_)));
    let uname = rustix::system::uname();
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let kib = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let system = read("/etc/os-release");
    let of_system = |key: &str| {
        let value = system.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        value.map(|v| v.trim_matches('"').to_owned())
    };
    let limits = |controller: &str| ways.controllers.iter().any(|c| c == controller);
    let env = |name: &str| engine.host.env(name).map(|v| without_password(&v.to_string_lossy()));
    let proxy = |name: &str| env(name).or_else(|| env(&name.to_ascii_uppercase())).unwrap_or_default();
    let mut security = Vec::new();
    if ways.has_seccomp {
        security.push("name=seccomp,profile=builtin");
    }
    if engine.host.is_rootless() {
        security.push("name=rootless");
    }
    if ways.has_name_spaces {
        security.push("name=cgroupns");
    }
    let lacking =
        [("memory", "memory"), ("cpu", "cpu"), ("pids", "pids")].into_iter().filter(|(c, _)| !limits(c));
    let warnings: Vec<String> =
        lacking.map(|(_, what)| format!("WARNING: No {what} limit support")).collect();
    let store = json!({
        "ID": "",
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers.len() - running - paused,
        "Images": images,
        "Driver": ways.driver,
        "DriverStatus": [["userxattr", engine.host.is_rootless().to_string()]],
        "AdditionalImageStores": engine.store.additional,
        "Plugins": {
            "Volume": ["local"],
            "Network": ["host", "none"],
            "Authorization": null,
            "Log": ["journald", "json-file", "local", "none", "syslog"],
        },
        "MemoryLimit": limits("memory"),
        "SwapLimit": limits("memory"),
        "CpuCfsPeriod": limits("cpu"),
        "CpuCfsQuota": limits("cpu"),
        "CPUShares": limits("cpu"),
        "CPUSet": limits("cpuset"),
        "PidsLimit": limits("pids"),
    });
    let machine = json!({
        "IPv4Forwarding": read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        "Debug": false,
        "OomKillDisable": false,
        "SystemTime": jiff::Timestamp::now().to_string(),
        "LoggingDriver": "json-file",
        "CgroupDriver": if ways.controllers.is_empty() { "none" } else { "cgroupfs" },
        "CgroupVersion": ways.cgroup_version,
        "CgroupControllers": ways.controllers,
        "KernelVersion": uname.release().to_string_lossy(),
        "OperatingSystem": of_system("PRETTY_NAME").unwrap_or_else(|| "Linux".into()),
        "OSVersion": of_system("VERSION_ID").unwrap_or_default(),
        "OSType": "linux",
        "Architecture": uname.machine().to_string_lossy(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": kib.unwrap_or(0) * 1024,
        "DockerRootDir": engine.store.data,
        "HttpProxy": proxy("http_proxy"),
        "HttpsProxy": proxy("https_proxy"),
        "NoProxy": proxy("no_proxy"),
        "Name": uname.nodename().to_string_lossy(),
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Runtimes": { "dhow": { "path": "dhow" } },
        "DefaultRuntime": "dhow",
        "LiveRestoreEnabled": true,
        "Isolation": ways.all.iter().find(|w| w.of == "isolation").map_or("", |w| w.is.as_str()),
        "InitBinary": "dhow",
        "SecurityOptions": security,
        "Warnings": warnings,
        "Rootless": engine.host.is_rootless(),
        "Ways": ways.all.iter().map(|w| json!({"Of": w.of, "Is": w.is, "Why": w.why})).collect::<Vec<_>>(),
    });
    let (Value::Object(mut all), Value::Object(machine)) = (store, machine) else { return Value::Null };
    all.extend(machine);
    Value::Object(all)
}

/// What is before the @ of a proxy may be a secret.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://xxxxx:xxxxx@{host}"),
        (None, Some((_, host))) => format!("xxxxx:xxxxx@{host}"),
        _ => url.to_owned(),
    }
}

fn text_of(value: &Value) -> String {
    let shown = |name: &str| match &value[name] {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(|v| v.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" "),
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
        ("Cgroup Controllers", "CgroupControllers"),
        ("Security Options", "SecurityOptions"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ] {
        text.push_str(&format!("{title}: {}\n", shown(name)));
    }
    text.push_str(&format!(
        "Total Memory: {}\n",
        human::size_binary(value["MemTotal"].as_u64().unwrap_or(0))
    ));
    for (title, name) in [("Name", "Name"), ("Root Dir", "DockerRootDir"), ("Rootless", "Rootless")] {
        text.push_str(&format!("{title}: {}\n", shown(name)));
    }
    for path in value["AdditionalImageStores"].as_array().into_iter().flatten() {
        text.push_str(&format!("Additional Image Store: {}\n", path.as_str().unwrap_or_default()));
    }
    text.push_str("Ways:\n");
    for way in value["Ways"].as_array().into_iter().flatten() {
        let field = |name: &str| way[name].as_str().unwrap_or_default();
        text.push_str(&format!(" {}: {} ({})\n", field("Of"), field("Is"), field("Why")));
    }
    text
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
