//! The flags of run and create: one declarative table, and its reading into options.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::flags::{of_flag, switch};
use super::{
    env_flags, fd_flags, flags, health_flags, host_flags, job_flags, life_flags, log_flags, mount_flags,
    namespace_flags, network_flags, parse, registry_flags, retry, secret, security_flags, user_flags,
};
use crate::engine::create::{CreateOptions, From, env_of_host};
use crate::error::ResultExt;
use crate::host::Host;
use crate::quantity;
use crate::spec::options::{Limits, Options};

/// Flags with one value: long name, short, value, help.
const ONE: &[(&str, char, &str, &str)] = &[
    ("name", '\0', "NAME", "Name the container"),
    ("entrypoint", '\0', "PROGRAM", "Run PROGRAM in place of the image's entrypoint; empty takes it away"),
    ("workdir", 'w', "DIR", "Work in DIR, made if it is missing"),
    ("user", 'u', "USER[:GROUP]", "Run as this user, by name in the image or by number"),
    ("hostname", 'h', "NAME", "Set the container's host name"),
    ("domainname", '\0', "NAME", "Set the container's NIS domain name"),
    ("shm-size", '\0', "SIZE", "Size of /dev/shm (64m)"),
    ("memory", 'm', "SIZE", "Limit memory"),
    ("memory-swap", '\0', "SIZE", "Limit memory and swap together; -1 for unlimited swap"),
    ("memory-reservation", '\0', "SIZE", "Limit memory softly"),
    ("cpus", '\0', "N", "Limit to so many CPUs"),
    ("cpu-shares", 'c', "N", "Relative weight for the CPU"),
    ("cpu-quota", '\0', "USEC", "CPU time in each period"),
    ("cpu-period", '\0', "USEC", "Length of the period"),
    ("cpuset-cpus", '\0', "LIST", "CPUs to run on: 0-2,4"),
    ("cpuset-mems", '\0', "LIST", "Memory nodes to use"),
    ("pids-limit", '\0', "N", "Limit the number of processes; -1 for no limit"),
    (
        "isolation",
        '\0',
        "HOW",
        "full: fail where a sandbox allows no name spaces; auto: then make do with a chroot (auto)",
    ),
    ("cidfile", '\0', "FILE", "Write the id to FILE, which must not exist"),
    ("pidfile", '\0', "FILE", "Write the pid of the container's init to FILE"),
    ("stop-signal", '\0', "SIGNAL", "Signal that asks the container to end"),
    ("stop-timeout", '\0', "SECONDS", "Time until it is killed after that"),
    ("pull", '\0', "WHEN", "always, missing, newer or never: when to ask the registry (missing)"),
    ("platform", '\0', "OS/ARCH", "Which image of several platforms (what is here, or this machine's)"),
    ("oom-score-adj", '\0', "N", "Badness for the kernel's choice of whom to kill"),
];

/// Flags that can be given often.
const MANY: &[(&str, char, &str, &str)] = &[
    ("env", 'e', "KEY[=VALUE]", "Set an environment variable; without a value, the caller's"),
    ("env-file", '\0', "FILE", "Set the variables of FILE"),
    ("cap-add", '\0', "CAP", "Add a capability, or ALL"),
    ("cap-drop", '\0', "CAP", "Drop a capability, or ALL"),
    ("security-opt", '\0', "OPTION", security_flags::HELP),
    ("device", '\0', "HOST[:CONTAINER][:rwm]", "Add a device of the host"),
    ("ulimit", '\0', "NAME=SOFT[:HARD]", "Set a resource limit"),
    ("sysctl", '\0', "KEY=VALUE", "Set a kernel parameter of the container"),
    ("label", 'l', "KEY=VALUE", "Set a label"),
    ("group-add", '\0', "GROUP", "Add a supplementary group; keep-groups: have those of the caller"),
];

/// Switches.
const SWITCHES: &[(&str, char, &str)] = &[
    ("interactive", 'i', "Pass stdin on"),
    ("tty", 't', "Give it a terminal"),
    ("read-only", '\0', "Make the root file system read-only"),
    ("privileged", '\0', "Give it all rights of the caller"),
    ("init", '\0', "Run a small init as pid 1, which reaps and passes signals on"),
    ("rootfs", '\0', "The argument is a directory, not an image; DIR:O keeps its changes out of it"),
    ("quiet", 'q', "Print no progress"),
    ("strict-limits", '\0', "Fail if a limit cannot be enforced"),
    ("rm", '\0', "Remove the container when it ends"),
];

/// Adds the flags and words of `run` and `create`.
pub(super) fn add(command: Command) -> Command {
    flags(command).arg(life_flags::attach_arg()).arg(
        Arg::new("words")
            .value_name("IMAGE [COMMAND]")
            .required(true)
            .num_args(1..)
            .trailing_var_arg(true)
            .help("What to run, and the command in it"),
    )
}

/// Adds the flags alone.
pub(super) fn flags(command: Command) -> Command {
    let value = |(long, short, value, help): &(&'static str, char, &'static str, &'static str)| {
        let arg = Arg::new(*long).long(*long).value_name(*value).help(*help).allow_hyphen_values(true);
        if *short == '\0' { arg } else { arg.short(*short) }
    };
    let switch = |(long, short, help): &(&'static str, char, &'static str)| {
        switch(long, Some(*short).filter(|short| *short != '\0'), help)
    };
    let common = log_flags::add(life_flags::add(registry_flags::add(command)));
    let common = retry::add(job_flags::add_common(health_flags::add(common)));
    let common = namespace_flags::add(network_flags::add(common));
    env_flags::add(host_flags::add(secret::add(user_flags::add(common))))
        .disable_help_flag(true)
        .arg(Arg::new("help").long("help").action(ArgAction::Help).help("Print help"))
        .args(ONE.iter().chain(mount_flags::ONE).map(|f| value(f).overrides_with(f.0)))
        .args(MANY.iter().chain(mount_flags::MANY).map(|f| value(f).action(ArgAction::Append)))
        .args(SWITCHES.iter().map(switch))
}

/// One value of a flag.
pub(super) fn one<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

fn many<'a>(matches: &'a ArgMatches, name: &str) -> impl Iterator<Item = &'a str> {
    matches.get_many::<String>(name).into_iter().flatten().map(String::as_str)
}

fn number<T: std::str::FromStr>(matches: &ArgMatches, name: &str) -> Result<Option<T>> {
    let number =
        |text: &str| text.parse().map_err(|_| anyhow!("cannot use --{name} {text:?}: it is not a number"));
    of_flag(one(matches, name).map(number).transpose())
}

fn size(matches: &ArgMatches, name: &str) -> Result<Option<i64>> {
    let about = || format!("cannot use --{name}");
    of_flag(one(matches, name).map(quantity::bytes).transpose().with_context(about))
}

/// Reads what was typed.
pub(super) fn read(matches: &ArgMatches, host: &Host) -> Result<CreateOptions> {
    let mut words = many(matches, "words").map(str::to_owned);
    let first = words.next().unwrap_or_default();
    let command: Vec<String> = words.collect();
    read_for(matches, host, &first, command)
}

/// The same where image and command are read elsewhere.
pub(super) fn read_for(
    matches: &ArgMatches,
    host: &Host,
    first: &str,
    command: Vec<String>,
) -> Result<CreateOptions> {
    let options = options(matches, host, command)?;
    let log_config = log_flags::log_config(matches)?;
    let of_run = |name: &str| matches.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(false);
    let auto_remove = matches.get_flag("rm") || of_run("rmi");
    let detached = matches.try_get_one::<bool>("detach").ok().flatten().copied().unwrap_or(false);
    let log = log_flags::is_logged(matches, &log_config, auto_remove && !detached);
    Ok(CreateOptions {
        from: from(matches, first),
        name: one(matches, "name").map(str::to_owned),
        take_over: job_flags::read(matches)?.takes_over(),
        auto_remove,
        log,
        log_config,
        healthcheck: health_flags::healthcheck(matches)?,
        secrets: secret::wanted(matches)?,
        preserve: fd_flags::read(matches)?,
        restart: life_flags::restart(matches)?,
        timeout: life_flags::timeout(matches)?,
        person: None,
        options,
    })
}

fn from(matches: &ArgMatches, first: &str) -> From {
    if !matches.get_flag("rootfs") {
        return From::Image(first.to_owned(), None);
    }
    match first.strip_suffix(":O") {
        Some(path) => From::Rootfs { path: PathBuf::from(path), throw_away: true },
        None => From::Rootfs { path: PathBuf::from(first), throw_away: false },
    }
}

fn options(matches: &ArgMatches, host: &Host, command: Vec<String>) -> Result<Options> {
    let text = |name: &str| one(matches, name).map(str::to_owned);
    let all = |name: &str| many(matches, name).map(str::to_owned).collect::<Vec<_>>();
    let mut options = Options {
        command,
        entrypoint: one(matches, "entrypoint")
            .map(|e| if e.is_empty() { Vec::new() } else { vec![e.to_owned()] }),
        env: environment(matches, host)?,
        workdir: text("workdir"),
        user: text("user"),
        group_add: all("group-add"),
        hostname: text("hostname"),
        domainname: text("domainname"),
        terminal: matches.get_flag("tty"),
        interactive: matches.get_flag("interactive"),
        read_only: matches.get_flag("read-only"),
        cap_add: all("cap-add"),
        cap_drop: all("cap-drop"),
        privileged: matches.get_flag("privileged"),
        devices: many(matches, "device").map(parse::device).collect::<Result<_>>()?,
        ulimits: many(matches, "ulimit").map(parse::ulimit).collect::<Result<_>>()?,
        sysctls: many(matches, "sysctl").map(parse::label).collect::<Result<_>>()?,
        shm_size: size(matches, "shm-size")?.map(|n| n as u64),
        limits: limits(matches)?,
        full_isolation: match one(matches, "isolation") {
            None | Some("auto") => false,
            Some("full") => true,
            Some(other) => {
                return Err(anyhow!("cannot use --isolation {other}")).hint("it is full or auto");
            }
        },
        strict_limits: matches.get_flag("strict-limits"),
        init: matches.get_flag("init"),
        labels: many(matches, "label").map(parse::label).collect::<Result<_>>()?,
        stop_signal: text("stop-signal"),
        stop_timeout: number(matches, "stop-timeout")?,
        time_zone: text("tz"),
        cid_file: text("cidfile"),
        oom_score_adj: number(matches, "oom-score-adj")?,
        ..Options::default()
    };
    mount_flags::read(matches, &mut options)?;
    user_flags::read(matches, host, &mut options)?;
    network_flags::read(matches, &mut options)?;
    namespace_flags::read(matches, &mut options)?;
    env_flags::read(matches, host, &mut options)?;
    host_flags::read(matches, host, &mut options)?;
    if let Some(signal) = &options.stop_signal {
        crate::engine::stop::parse_signal(signal)?;
    }
    for word in many(matches, "security-opt") {
        security_flags::read(&mut options, word)?;
    }
    Ok(options)
}

pub(super) fn environment(matches: &ArgMatches, host: &Host) -> Result<Vec<String>> {
    let of_host = |name: &str| env_of_host(host, name);
    let mut env = Vec::new();
    for file in many(matches, "env-file") {
        env.extend(parse::env_file(file.as_ref(), &of_host)?);
    }
    for word in many(matches, "env") {
        env.extend(parse::env(word, &of_host)?);
    }
    Ok(env)
}

/// The flags of limits, for a verb that has only those.
pub(super) fn add_limits(command: Command) -> Command {
    const LIMITS: &[&str] = &["memory", "cpu", "pids"];
    let is_limit = |name: &str| LIMITS.iter().any(|limit| name.starts_with(limit));
    let all = ONE.iter().filter(|(name, ..)| is_limit(name));
    command.args(all.map(|(long, short, value, help)| {
        flags::value(long, Some(*short).filter(|short| *short != '\0'), value, help)
    }))
}

/// The limits that were typed.
pub(super) fn limits(matches: &ArgMatches) -> Result<Limits> {
    let swap = one(matches, "memory-swap").map(quantity::bytes_or_unlimited).transpose();
    let swap = of_flag(swap.context("cannot use --memory-swap"))?;
    Ok(Limits {
        memory: size(matches, "memory")?.filter(|n| *n != 0),
        memory_swap: swap.filter(|n| *n != 0),
        memory_reservation: size(matches, "memory-reservation")?.filter(|n| *n != 0),
        nano_cpus: one(matches, "cpus").map(parse::cpus).transpose()?,
        cpu_shares: number(matches, "cpu-shares")?,
        cpu_quota: number(matches, "cpu-quota")?,
        cpu_period: number(matches, "cpu-period")?,
        cpuset_cpus: one(matches, "cpuset-cpus").map(parse::number_list).transpose()?,
        cpuset_mems: one(matches, "cpuset-mems").map(parse::number_list).transpose()?,
        pids: number(matches, "pids-limit")?,
    })
}
