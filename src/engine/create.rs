//! create: options -> a bundle on disk under a claimed name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;

use super::{
    Engine, checks, devices, id_range, identity, mounts, name, overlap, reap, secret, shares, source, wiring,
    zone,
};
use crate::dns;
use crate::error::ResultExt;
use crate::fs;
use crate::host::{Host, Ids};
use crate::network::etc::{Hosts, ResolvConf};
use crate::oci::runtime::{Capabilities, LinuxResources, Spec};
use crate::spec::options::{Mount, Network, Options};
use crate::spec::{self, Facts};
use crate::store::config::Config;
use crate::store::container::{self, ContainerDir, Record, Restart};
use crate::store::gc;
use crate::store::grave;
use crate::store::health::Healthcheck;
use crate::store::image::Image;
use crate::store::journal::{self, Event};
use crate::store::log_config::LogConfig;
use crate::store::person::Person;
use crate::store::volume;
use crate::supervisor::log::Settings;

/// What a container is to be made from and how.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Where its root comes from.
    pub from: From,
    /// Its name; one is made up otherwise.
    pub name: Option<String>,
    /// A container of this name that has ended is removed.
    pub take_over: bool,
    /// Removed when it ends.
    pub auto_remove: bool,
    /// Whether a log is kept.
    pub log: bool,
    /// Where it goes and how.
    pub log_config: LogConfig,
    /// Its health check, as far as a person said.
    pub healthcheck: Healthcheck,
    /// Whether it runs again when it ended.
    pub restart: Restart,
    /// Seconds after which a run of it is killed.
    pub timeout: Option<u64>,
    /// Who of this machine it runs as, if it is a shell's.
    pub person: Option<Person>,
    /// Secrets.
    pub secrets: Vec<secret::Wanted>,
    /// Descriptors of ours that its program gets, by their numbers.
    pub preserve: Vec<i32>,
    /// All else.
    pub options: Options,
}

/// Where the root comes from, as typed.
#[derive(Debug, Clone)]
pub enum From {
    /// An image, by name or id; looked up if the caller has not done so.
    Image(String, Option<Box<Image>>),
    /// A directory of the host.
    Rootfs {
        /// As typed.
        path: PathBuf,
        /// Beneath a throw-away overlay.
        throw_away: bool,
    },
}

/// A container that was made: its lock keeps everybody off until it is started or dropped.
#[derive(Debug)]
pub struct Created {
    /// Its directory.
    pub dir: ContainerDir,
    /// Its record.
    pub record: Record,
    /// Its limits.
    pub resources: LinuxResources,
    /// For the supervisor.
    pub lock: OwnedFd,
}

/// A container that could be made: everything is read and checked, nothing is written.
#[derive(Debug)]
pub struct Planned {
    /// The name that was asked for.
    name: Option<String>,
    take_over: bool,
    /// The file of its time zone.
    zone_data: Option<Vec<u8>>,
    secrets: Vec<crate::store::secret::Value>,
    record: Record,
    spec: Spec,
    hostname: String,
    options: Options,
    mounts: mounts::Planned,
}

/// Plans and makes the container `id`.
pub fn create(engine: &Engine, id: String, wanted: CreateOptions) -> Result<Created> {
    make(engine, plan(engine, id, wanted)?)
}

/// Reads and checks all that the container `id` needs. Writes nothing, so no id has to be mapped yet.
pub fn plan(engine: &Engine, id: String, wanted: CreateOptions) -> Result<Planned> {
    let store = &engine.store;
    if let Some(name) = &wanted.name
        && !container::is_name(name)
    {
        return Err(anyhow!("cannot use {name:?} as a name"))
            .hint("a name is made of a-z A-Z 0-9 _ . - and begins with a letter or digit");
    }
    let (source, config, config_bytes) = source::look_up(engine, &wanted.from)?;
    let healthcheck = super::health::healthcheck(wanted.healthcheck, config_bytes.as_deref())?;
    let mut options = wanted.options;
    checks::check(&options)?;
    if wanted.log {
        Settings::of(&wanted.log_config)?.check_machine()?;
    }
    shares::look_up(engine, &mut options)?;
    let (inner, caller) = identity::plan(engine, &mut options)?;
    id_range::check(store, &options, &source, wanted.person.is_some())?;
    let planned_mounts = mounts::plan(engine, &mut options, config.as_ref())?;
    let zone = options.time_zone.as_deref().map(|z| zone::look_up(store, &wanted.from, z)).transpose()?;
    let (zone_name, zone_data) = zone.map_or((None, None), |z| (Some(z.name), z.data));
    options.time_zone = zone_name;
    options.secrets = wanted.secrets.iter().map(|one| one.secret.clone()).collect();
    let secrets = secret::values(engine, &wanted.secrets)?;
    let dir = ContainerDir::of(store, &id);
    let found = devices::look_up(&options, &store.ids)?;
    // In a user name space no device can be made, only the host's be bound.
    let (devices, device_binds) = match store.ids {
        Ids::Root => (found.into_iter().map(|(_, device)| device).collect(), Vec::new()),
        _ => (Vec::new(), found.into_iter().map(|(host, device)| (host, device.path().clone())).collect()),
    };
    let kept = super::config::of(config.as_ref(), &options, &[]);
    let exposed: Vec<String> = kept.exposed_ports.iter().cloned().collect();
    let wiring = wiring::plan(engine, &mut options, &exposed)?;
    let facts = Facts {
        id: &id,
        dir: &dir.path,
        capabilities: held_capabilities()?,
        guards_devices: store.ids == Ids::Root,
        devices,
        device_binds,
        secrets: crate::store::secret::dir_of(store, &id),
        has_zone: zone_data.is_some(),
        has_mqueue: !options.ipc.is_own() && fs::metadata(Path::new("/dev/mqueue"))?.is_some(),
        host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        places: planned_mounts.places.clone(),
    };
    let spec = spec::build(config.as_ref(), &with_home(&options, wanted.person.as_ref(), &dir), &facts)?;
    let hostname = spec::hostname(&options, &facts);
    let image_config = config.as_ref().and_then(|c| c.config().clone()).unwrap_or_default();
    let mut labels: BTreeMap<String, String> =
        image_config.labels().clone().unwrap_or_default().into_iter().collect();
    labels.extend(options.labels.clone());
    let user = options.user.clone().or_else(|| image_config.user().clone()).unwrap_or_default();
    let env = spec.process().as_ref().and_then(|p| p.env().clone()).unwrap_or_default();
    let stop_signal = options.stop_signal.clone().or_else(|| image_config.stop_signal().clone());
    let args = spec.process().as_ref().and_then(|p| p.args().clone()).unwrap_or_default();
    let record = Record {
        id: id.clone(),
        name: String::new(),
        created: Timestamp::now(),
        source,
        additional_stores: Vec::new(),
        user,
        has_home: env.iter().any(|e| e.starts_with("HOME=")),
        auto_remove: wanted.auto_remove,
        terminal: options.terminal,
        interactive: options.interactive,
        init: options.init,
        stop_signal: super::stop::parse_signal(stop_signal.as_deref().unwrap_or("TERM"))?,
        stop_timeout: options.stop_timeout.unwrap_or(10),
        restart: wanted.restart,
        timeout: wanted.timeout,
        person: wanted.person,
        labels,
        strict_limits: options.strict_limits,
        log: wanted.log,
        config: Config { args, ..kept },
        log_config: wanted.log_config,
        inner,
        ids: None,
        caller,
        volumes: planned_mounts.volumes.clone(),
        mounted_layers: planned_mounts.layers.clone(),
        healthcheck,
        wiring,
        options: serde_json::to_value(&options).context("cannot encode the options")?,
    };
    Ok(Planned {
        name: wanted.name,
        take_over: wanted.take_over,
        zone_data,
        secrets,
        record,
        spec,
        hostname,
        options,
        mounts: planned_mounts,
    })
}

/// A person has a home in the container's own directory, unless something else is mounted there.
fn with_home<'a>(options: &'a Options, person: Option<&Person>, dir: &ContainerDir) -> Cow<'a, Options> {
    let Some(person) = person else { return Cow::Borrowed(options) };
    if options.mounts.iter().any(|mount| mount.target() == person.home) {
        return Cow::Borrowed(options);
    }
    let mut options = options.clone();
    options.mounts.push(Mount::bind(&dir.file("home"), &person.home));
    Cow::Owned(options)
}

/// Makes what was planned.
pub fn make(engine: &Engine, planned: Planned) -> Result<Created> {
    let store = &engine.store;
    let Planned { name, take_over, zone_data, secrets, mut record, spec, hostname, options, mounts } =
        planned;
    reap::sweep(store)?;
    if let Some(name) = &name {
        reap::settle_name(store, name)?;
    }
    // Last of what can be refused: it makes directories.
    make_bind_sources(&options)?;
    let config_json = serde_json::to_vec(&spec).context("cannot encode the spec")?;
    let hostname_line = format!("{hostname}\n");
    let (hosts, resolv_conf) = (hosts(&options, &hostname), resolv_conf(&options));
    let mut files: Vec<(&str, &[u8])> = vec![
        ("config.json", &config_json),
        ("hostname", hostname_line.as_bytes()),
        ("hosts", hosts.as_bytes()),
        ("resolv.conf", resolv_conf.as_bytes()),
    ];
    let is_unfilled = mounts::is_filling_wanted(&options);
    if is_unfilled {
        files.push((mounts::UNFILLED, b""));
    }
    files.extend(zone_data.iter().map(|data| ("localtime", data.as_slice())));
    // Before anything is held that a removal might wait for.
    if let Some(name) = name.as_deref().filter(|_| take_over) {
        overlap::take_over(engine, name)?;
    }
    let pins = source::take_home(store, &record.source)?;
    // From looking whether the layers are there until a record says that they are needed.
    let held_off = gc::hold_off(store)?;
    source::check_layers(store, &mut record)?;
    let no_removals = if record.volumes.is_empty() { None } else { Some(volume::hold_off(store)?) };
    let claimed = id_range::claim(store, &mut record, &options)?;
    let kept_secrets = match &secrets[..] {
        [] => None,
        all => Some(crate::store::secret::keep(store, &record.id, all)?),
    };
    let (dir, lock) = match name {
        Some(name) => {
            record.name = name;
            container::create(store, &record, &files)?
        }
        None => create_unnamed(engine, &mut record, &files)?,
    };
    kept_secrets.into_iter().for_each(crate::store::secret::Kept::stay);
    drop((held_off, pins, claimed));
    // The record is there first: whoever removes volumes sees that these are in use, and whoever finds us killed finds
    // whose they are.
    let made =
        if no_removals.is_some() { mounts::make_volumes(store, &options, &mounts.places) } else { Ok(()) };
    drop(no_removals);
    let filled = made.and_then(|()| {
        if is_unfilled { mounts::fill_volumes(store, &dir, &record, &options) } else { Ok(()) }
    });
    if let Err(error) = filled {
        dir.remove(store)?;
        grave::remove_volumes(store, &record)?;
        return Err(error.context(format!("cannot create container {}", record.name)));
    }
    journal::note(store, &Event::of_container(&record, "create"));
    let resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default();
    Ok(Created { dir, record, resources, lock })
}

/// Tries made-up names until one is free.
fn create_unnamed(
    engine: &Engine,
    record: &mut Record,
    files: &[(&str, &[u8])],
) -> Result<(ContainerDir, OwnedFd)> {
    let mut last = None;
    for attempt in 0..20 {
        let mut bytes = [0; 8];
        random(&mut bytes)?;
        record.name = name::from_random(bytes, attempt);
        if container::is_taken(&engine.store, &record.name)? {
            continue;
        }
        match container::create(&engine.store, record, files) {
            Ok(made) => return Ok(made),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow!("cannot find a free name")))
}

/// -v makes a missing source, --mount insists on it.
fn make_bind_sources(options: &Options) -> Result<()> {
    for mount in &options.mounts {
        let Mount::Bind { source, create_source, .. } = mount else { continue };
        if fs::metadata(source)?.is_some() {
            continue;
        }
        if !*create_source {
            return Err(anyhow!("cannot bind {}: it does not exist", source.display()))
                .hint("make it first, or use -v, which makes a directory");
        }
        fs::create_dir_all(source, 0o755)?;
    }
    Ok(())
}

/// The capabilities in our bounding set: no more can be given.
pub(super) fn held_capabilities() -> Result<Capabilities> {
    use std::str::FromStr;
    let held = caps::read(None, caps::CapSet::Bounding).context("cannot read our capabilities")?;
    Ok(held
        .iter()
        .filter_map(|c| {
            let name = c.to_string();
            crate::oci::runtime::Capability::from_str(name.strip_prefix("CAP_").unwrap_or(&name)).ok()
        })
        .collect())
}

/// /etc/hosts. That of a container on networks is written again when it has its addresses.
fn hosts(options: &Options, hostname: &str) -> String {
    // The host's own names hold on the host's network.
    let is_of_machine = options.network == Network::Host;
    let of_machine = fs::read_to_string(Path::new(dns::HOSTS)).ok().filter(|_| is_of_machine);
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let hosts = Hosts {
        of_machine: of_machine.as_deref(),
        hostname,
        domainname: options.domainname.as_deref(),
        added: &options.add_hosts,
        gateways: vec![loopback],
        ..Hosts::default()
    };
    hosts.text()
}

/// /etc/resolv.conf, likewise.
fn resolv_conf(options: &Options) -> String {
    let of_machine = fs::read_to_string(Path::new(dns::RESOLV_CONF)).unwrap_or_default();
    let conf = ResolvConf {
        of_machine: &of_machine,
        servers: &options.dns,
        search: &options.dns_search,
        options: &options.dns_options,
        has_own_resolver: false,
    };
    conf.text()
}

fn random(bytes: &mut [u8]) -> Result<()> {
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())
        .context("cannot read random bytes")?;
    Ok(())
}

/// An id for a new container: 64 hex digits.
pub fn random_id() -> Result<String> {
    let mut bytes = [0; 32];
    random(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// The environment of `-e NAME` without a value: the caller's.
pub fn env_of_host(host: &Host, name: &str) -> Option<String> {
    host.env.get(std::ffi::OsStr::new(name)).and_then(|v| v.to_str()).map(|v| format!("{name}={v}"))
}
