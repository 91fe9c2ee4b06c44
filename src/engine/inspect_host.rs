//! `HostConfig` of inspect: what was asked of the host. All of docker's keys, in docker's order; what dhow has no flag for
//! has docker's value for "not asked for".

use serde_json::{Map, Value, json};

use super::{inspect_mounts, inspect_network};
use crate::host::IdMapping;
use crate::oci::runtime::{LinuxNamespaceType, Spec};
use crate::spec::options::{DeviceRule, Options, Seccomp, Share, Userns};
use crate::spec::resources::default_swap;
use crate::store::container::Record;

/// From the options, the record and the bundle.
pub(super) fn host_config(options: &Options, record: &Record, spec: &Spec) -> Value {
    let groups = [asked(options, record, spec), resources(options, record), mounts(options, spec)];
    Value::Object(groups.into_iter().flat_map(fields).collect())
}

fn fields(group: Value) -> Map<String, Value> {
    match group {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Docker's null for a list that nobody gave.
fn or_null<T: serde::Serialize>(list: &[T]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn asked(options: &Options, record: &Record, spec: &Spec) -> Value {
    let own = |kind| has_namespace(spec, kind);
    let hosts: Vec<String> =
        options.add_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect();
    json!({
        "Binds": or_null(&inspect_mounts::binds(options)),
        "ContainerIDFile": options.cid_file.clone().unwrap_or_default(),
        "LogConfig": log_config(record),
        "NetworkMode": super::wiring::mode(options),
        "PortBindings": inspect_network::bindings(&options.publish),
        "RestartPolicy": { "Name": record.restart.name(), "MaximumRetryCount": record.restart.most() },
        "AutoRemove": record.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": or_null(&options.volumes_from),
        "ConsoleSize": [0, 0],
        "CapAdd": capabilities(&options.cap_add),
        "CapDrop": capabilities(&options.cap_drop),
        "CgroupnsMode": if own(LinuxNamespaceType::Cgroup) { "private" } else { "host" },
        "Dns": options.dns,
        "DnsOptions": options.dns_options,
        "DnsSearch": options.dns_search,
        "ExtraHosts": or_null(&hosts),
        "GroupAdd": or_null(&options.group_add),
        "IpcMode": share(&options.ipc, "private"),
        "Cgroup": "",
        "Links": or_null(&links(record)),
        "OomScoreAdj": options.oom_score_adj.unwrap_or(0),
        "PidMode": share(&options.pid, ""),
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": or_null(&security(options)),
        "UTSMode": share(&options.uts, ""),
        "UsernsMode": userns(&options.userns),
        "ShmSize": options.shm_size.unwrap_or(64 << 20),
        "Runtime": "dhow",
        "Isolation": "",
    })
}

/// Links as docker shows them: whom it links to, and what that is called inside.
fn links(record: &Record) -> Vec<String> {
    let links = record.wiring.links.iter();
    links.map(|link| format!("/{}:/{}/{}", link.target, record.name, link.alias)).collect()
}

/// Docker's word for whose name space it is; `own` for one's own.
fn share(share: &Share, own: &str) -> String {
    match share {
        Share::Private => own.to_owned(),
        Share::Shareable => "shareable".to_owned(),
        Share::Nothing => "none".to_owned(),
        Share::Host => "host".to_owned(),
        Share::Container(id) => format!("container:{id}"),
    }
}

fn log_config(record: &Record) -> Value {
    let driver = if record.log { record.log_config.driver.as_str() } else { "none" };
    json!({ "Type": driver, "Config": record.log_config.options })
}

fn resources(options: &Options, record: &Record) -> Value {
    let limits = &options.limits;
    let devices: Vec<Value> = options
        .devices
        .iter()
        .map(|d| {
            let (host, inside) = (d.host.display().to_string(), d.container.display().to_string());
            json!({ "PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": d.access })
        })
        .collect();
    let ulimits: Vec<Value> =
        options.ulimits.iter().map(|(n, s, h)| json!({ "Name": n, "Hard": h, "Soft": s })).collect();
    let mut shown = json!({
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": limits.memory.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CgroupParent": options.cgroup_parent.clone().unwrap_or_default(),
        "BlkioWeight": 0,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [],
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": limits.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.clone().unwrap_or_default(),
        "Devices": devices,
        "DeviceCgroupRules": or_null(&options.device_rules.iter().map(device_rule).collect::<Vec<_>>()),
        "DeviceRequests": null,
        "KernelMemory": 0,
        "KernelMemoryTCP": 0,
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "MemorySwap": limits.memory_swap.or(limits.memory.map(default_swap)).unwrap_or(0),
        "MemorySwappiness": null,
        "OomKillDisable": false,
        "PidsLimit": limits.pids,
        "Ulimits": ulimits,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    });
    if let Some(ids) = &record.ids {
        // Podman's words.
        let lines = |all: &[IdMapping]| {
            all.iter().map(|l| format!("{}:{}:{}", l.inside, l.outside, l.count)).collect::<Vec<_>>()
        };
        shown["IDMappings"] = json!({ "UidMap": lines(&ids.uids), "GidMap": lines(&ids.gids) });
    }
    if options.init {
        shown["Init"] = true.into();
    }
    shown
}

/// What docker leaves out where there is none of it, and the paths that are hidden.
fn mounts(options: &Options, spec: &Spec) -> Value {
    let mut shown = Map::new();
    let asked = inspect_mounts::asked(options);
    if !asked.is_empty() {
        shown.insert("Mounts".into(), asked.into());
    }
    let tmpfs = inspect_mounts::tmpfs(options);
    if !tmpfs.is_null() {
        shown.insert("Tmpfs".into(), tmpfs);
    }
    if !options.sysctls.is_empty() {
        shown.insert("Sysctls".into(), json!(options.sysctls));
    }
    let linux = spec.linux().as_ref();
    let paths = |paths: Option<Vec<String>>| json!(paths.unwrap_or_default());
    shown.insert("MaskedPaths".into(), paths(linux.and_then(|l| l.masked_paths().clone())));
    shown.insert("ReadonlyPaths".into(), paths(linux.and_then(|l| l.readonly_paths().clone())));
    shown.into()
}

fn has_namespace(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let all = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    all.iter().any(|namespace| namespace.typ() == kind)
}

fn device_rule(rule: &DeviceRule) -> String {
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    format!("{} {}:{} {}", rule.kind, number(rule.major), number(rule.minor), rule.access)
}

/// Docker's spelling, which is with the prefix.
fn capabilities(names: &[String]) -> Value {
    let full = |name: &String| match name.to_ascii_uppercase() {
        all if all == "ALL" => all,
        name if name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    or_null(&names.iter().map(full).collect::<Vec<_>>())
}

/// As it is asked for; docker's empty text where it is not.
fn userns(userns: &Userns) -> String {
    let map = |lines: &[IdMapping], key: &str| {
        let line = |l: &IdMapping| format!("{key}={}:{}:{}", l.inside, l.outside, l.count);
        lines.iter().map(line).collect::<Vec<_>>()
    };
    match userns {
        Userns::Mapped(_) => "private".to_owned(),
        Userns::Auto { size, uids, gids } => {
            let size = size.iter().map(|n| format!("size={n}"));
            let all = size.chain(map(uids, "uidmapping")).chain(map(gids, "gidmapping"));
            let words: Vec<String> = all.collect();
            if words.is_empty() { "auto".to_owned() } else { format!("auto:{}", words.join(",")) }
        }
        Userns::Host => String::new(),
        Userns::NoMap => "nomap".to_owned(),
        Userns::Container(id) => format!("container:{id}"),
        Userns::KeepId { uid, gid } => {
            let word = |name: &str, id: Option<u32>| id.map(|id| format!("{name}={id}"));
            let words: Vec<String> = word("uid", *uid).into_iter().chain(word("gid", *gid)).collect();
            if words.is_empty() { "keep-id".to_owned() } else { format!("keep-id:{}", words.join(",")) }
        }
    }
}

fn security(options: &Options) -> Vec<String> {
    let mut shown = Vec::new();
    if options.no_new_privileges {
        shown.push("no-new-privileges".to_owned());
    }
    shown.extend(options.selinux.iter().map(|word| format!("label={word}")));
    shown.extend(options.apparmor.iter().map(|profile| format!("apparmor={profile}")));
    match &options.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => shown.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile { path, .. } => shown.push(format!("seccomp={path}")),
    }
    if options.unmask {
        shown.push("systempaths=unconfined".to_owned());
    }
    for (key, paths) in [("mask", &options.mask), ("unmask", &options.unmasked)] {
        if !paths.is_empty() {
            shown.push(format!("{key}={}", paths.join(":")));
        }
    }
    if !options.proc_options.is_empty() {
        shown.push(format!("proc-opts={}", options.proc_options.join(",")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_dockers() {
        let all = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            capabilities(&all(&["net_admin", "CAP_SYS_TIME", "all"])),
            json!(["CAP_NET_ADMIN", "CAP_SYS_TIME", "ALL"])
        );
        assert_eq!(capabilities(&[]), Value::Null);
        let options = Options {
            no_new_privileges: true,
            seccomp: Seccomp::Profile { path: "p.json".into(), text: "secret".into() },
            unmask: true,
            ..Options::default()
        };
        assert_eq!(security(&options), ["no-new-privileges", "seccomp=p.json", "systempaths=unconfined"]);
        assert!(security(&Options::default()).is_empty());
        assert_eq!(userns(&Userns::Host), "");
        assert_eq!(userns(&Userns::KeepId { uid: None, gid: None }), "keep-id");
        assert_eq!(userns(&Userns::KeepId { uid: Some(1), gid: Some(2) }), "keep-id:uid=1,gid=2");
    }
}
