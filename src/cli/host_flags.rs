//! The flags of run and create about what the container has of the host's, and what is its own: cgroups, rules about devices,
//! files of /etc, variables of the image.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{Arg, ArgMatches, Command};

use super::flags::{list, many, switch, value};
use super::run_flags::one;
use crate::error::ResultExt;
use crate::host::Host;
use crate::spec::mount::{Mount, Origin};
use crate::spec::options::{DeviceRule, Limits, Options};

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    let tmpfs = Arg::new("read-only-tmpfs")
        .long("read-only-tmpfs")
        .value_name("BOOL")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(clap::builder::BoolishValueParser::new())
        .overrides_with("read-only-tmpfs")
        .help("With --read-only: /run, /tmp and /var/tmp can be written to, in memory (false)");
    command
        .arg(value(
            "cgroupns",
            None,
            "MODE",
            "private: its own cgroup is the root of what it sees; host (private)",
        ))
        .arg(value("cgroup-parent", None, "PATH", "Make its cgroup in this one (dhow)"))
        .arg(value(
            "cgroups",
            None,
            "MODE",
            "enabled; disabled: no cgroup of its own, so no limits either (enabled)",
        ))
        .arg(list("device-cgroup-rule", None, "RULE", "Allow devices: c 1:3 rwm, where * is any number"))
        .arg(tmpfs)
        .arg(switch("no-hosts", None, "Leave /etc/hosts as the image has it"))
        .arg(switch("no-hostname", None, "Leave /etc/hostname as the image has it"))
        .arg(value("os", None, "OS", "Which image of several platforms: the operating system (linux)"))
        .arg(value("arch", None, "ARCH", "The processor (this machine's)"))
        .arg(value("variant", None, "VARIANT", "The processor's variant: v7"))
        .arg(list(
            "env-merge",
            None,
            "KEY=VALUE",
            "Set a variable, with $NAME of the image's variables filled in",
        ))
        .arg(value(
            "passwd-entry",
            None,
            "LINE",
            "The line of /etc/passwd for a user that is only a number: $USERNAME, $UID, $GID, $HOME",
        ))
        .arg(value("group-entry", None, "LINE", "The line of /etc/group for it: $GROUPNAME, $GID"))
}

/// Reads them into `options`, which has all else already.
pub(super) fn read(matches: &ArgMatches, host: &Host, options: &mut Options) -> Result<()> {
    options.host_cgroups = match one(matches, "cgroupns") {
        None | Some("" | "private") => false,
        Some("host") => true,
        Some(other) => {
            return Err(anyhow!("cannot use --cgroupns {other:?}")).hint("it is private or host");
        }
    };
    options.no_cgroup = match one(matches, "cgroups") {
        None | Some("enabled") => false,
        Some("disabled") => true,
        Some(other) => {
            return Err(anyhow!("cannot use --cgroups {other:?}")).hint("it is enabled or disabled");
        }
    };
    options.cgroup_parent = one(matches, "cgroup-parent").map(parent).transpose()?;
    options.device_rules =
        many(matches, "device-cgroup-rule").into_iter().map(rule).collect::<Result<_>>()?;
    if options.no_cgroup && (options.limits != Limits::default() || options.cgroup_parent.is_some()) {
        return Err(anyhow!("cannot limit a container that has no cgroup"))
            .hint("leave --cgroups=disabled out, or the limits");
    }
    // It could make, or bring in its image, the node of any disk: only a cgroup refuses to open it.
    if options.no_cgroup && !host.is_rootless() && !options.privileged {
        return Err(anyhow!("cannot leave the cgroup out: for root it is what guards the machine's devices"))
            .hint("give --privileged too, if the container may have them all; a user needs no such guard");
    }
    if !options.device_rules.is_empty() && (options.no_cgroup || host.is_rootless()) {
        return Err(anyhow!("cannot use --device-cgroup-rule: devices are guarded for root, by a cgroup"))
            .hint("what a user may open on the machine they may open in a container, too: --device");
    }
    for (flag, name) in [("no-hosts", "hosts"), ("no-hostname", "hostname")] {
        if matches.get_flag(flag) {
            options.of_image.push(name.to_owned());
        }
    }
    if matches.get_flag("no-hosts") && !options.add_hosts.is_empty() {
        return Err(anyhow!("cannot use both --no-hosts and --add-host: conflicting options"));
    }
    for text in many(matches, "env-merge") {
        if text.split_once('=').is_none_or(|(key, _)| key.is_empty()) {
            return Err(anyhow!("cannot use --env-merge {text:?}: it is not KEY=VALUE"));
        }
        options.env_merge.push(text.to_owned());
    }
    options.passwd_entry = entry(matches, "passwd-entry", 7)?;
    options.group_entry = entry(matches, "group-entry", 4)?;
    if options.no_passwd && (options.passwd_entry.is_some() || options.group_entry.is_some()) {
        return Err(anyhow!(
            "cannot use --passwd-entry or --group-entry with --passwd=false: conflicting options"
        ));
    }
    if options.read_only && matches.get_one::<bool>("read-only-tmpfs") == Some(&true) {
        for target in ["/run", "/tmp", "/var/tmp"].map(PathBuf::from) {
            if options.mounts.iter().all(|mount| mount.target() != target) {
                let words = if target.ends_with("run") { "mode=755" } else { "mode=1777" };
                let options_of = ["rw", "nosuid", "nodev", words].map(str::to_owned).to_vec();
                options.mounts.push(Mount::Tmpfs { target, options: options_of, origin: Origin::Volume });
            }
        }
    }
    Ok(())
}

fn parent(path: &str) -> Result<String> {
    let is_plain = !path.is_empty() && !path.split('/').any(|name| name == ".." || name == ".");
    if is_plain && !path.ends_with(".slice") && !path.chars().any(char::is_control) {
        return Ok(path.trim_end_matches('/').to_owned());
    }
    Err(anyhow!("cannot use --cgroup-parent {path:?}"))
        .hint("it is a path in the cgroup file system, such as /ci/jobs; systemd's slices are not made here")
}

/// `c 1:3 rwm` (cgroups(7), device controller).
fn rule(text: &str) -> Result<DeviceRule> {
    let wrong = || anyhow!("cannot use --device-cgroup-rule {text:?}");
    let hint = "it is like c 1:3 rwm: a, b or c; the numbers, * for any; some of r, w and m";
    let words: Vec<&str> = text.split_whitespace().collect();
    let &[kind, numbers, access] = &words[..] else { return Err(wrong()).hint(hint) };
    let number = |n: &str| if n == "*" { Some(None) } else { n.parse().ok().map(Some) };
    let numbers = numbers.split_once(':').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    let is_access = !access.is_empty() && access.chars().all(|c| "rwm".contains(c));
    match (numbers, kind) {
        (Some((major, minor)), "a" | "b" | "c") if is_access => Ok(DeviceRule {
            kind: kind.chars().next().unwrap_or('a'),
            major,
            minor,
            access: access.to_owned(),
        }),
        _ => Err(wrong()).hint(hint),
    }
}

fn entry(matches: &ArgMatches, flag: &str, n_fields: usize) -> Result<Option<String>> {
    let Some(line) = one(matches, flag) else { return Ok(None) };
    if line.contains(|c: char| c.is_control()) || line.split(':').count() != n_fields {
        return Err(anyhow!("cannot use --{flag} {line:?}"))
            .hint(format!("it is one line of {n_fields} fields with colons in between"));
    }
    Ok(Some(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let read = |text: &str| rule(text).ok().map(|r| (r.kind, r.major, r.minor, r.access));
        assert_eq!(read("c 1:3 rwm"), Some(('c', Some(1), Some(3), "rwm".into())));
        assert_eq!(read("b *:* r"), Some(('b', None, None, "r".into())));
        for wrong in ["", "c", "c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c 1:3 rx", "c 1:3 r w", "c -1:3 r"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert!(parent("/a/b/").unwrap() == "/a/b" && parent("a").is_ok());
        for wrong in ["", "../x", "/a/./b", "x.slice"] {
            assert!(parent(wrong).is_err(), "{wrong}");
        }
    }
}
