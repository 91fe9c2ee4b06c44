//! The process of the spec: command, environment, directory, limits.

use std::collections::HashSet;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};

use super::Options;
use crate::error::ResultExt;
use crate::oci::image::ImageConfiguration;
use crate::oci::runtime::{
    Capabilities, LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, ProcessBuilder, UserBuilder,
};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn build(
    image: Option<&ImageConfiguration>,
    options: &Options,
    hostname: &str,
    caps: Capabilities,
) -> Result<Process> {
    let config = image.and_then(|i| i.config().as_ref());
    let cwd = options
        .workdir
        .clone()
        // As docker has it, `-w ""` asks for nothing.
        .filter(|d| !d.is_empty())
        .or_else(|| config.and_then(|c| c.working_dir().clone()).filter(|d| !d.is_empty()));
    let cwd = cwd.unwrap_or_else(|| "/".into());
    if !cwd.starts_with('/') {
        return Err(anyhow!("cannot use the working directory {cwd:?}: it is not absolute"))
            .hint("begin it with a slash");
    }
    let image_env = config.and_then(|c| c.env().clone()).unwrap_or_default();
    let mut process = ProcessBuilder::default()
        .terminal(options.terminal)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).build()?)
        .args(command(image, options)?)
        .env(environment(&image_env, options, hostname))
        .cwd(cwd)
        .capabilities(capabilities(caps)?)
        .rlimits(rlimits(&options.ulimits)?)
        .no_new_privileges(options.no_new_privileges)
        .build()
        .context("cannot build the process")?;
    process.user_mut().set_umask(options.umask);
    process.set_apparmor_profile(options.apparmor.clone().filter(|profile| profile != "unconfined"));
    process.set_oom_score_adj(options.oom_score_adj);
    Ok(process)
}

/// Entrypoint and command. An entrypoint of one's own takes the image's command away, as in docker.
pub fn command(image: Option<&ImageConfiguration>, options: &Options) -> Result<Vec<String>> {
    let config = image.and_then(|i| i.config().as_ref());
    let of_image = |f: fn(&crate::oci::image::Config) -> &Option<Vec<String>>| {
        config.and_then(|c| f(c).clone()).unwrap_or_default()
    };
    let mut words = match &options.entrypoint {
        Some(own) => own.clone(),
        None => of_image(crate::oci::image::Config::entrypoint),
    };
    if !options.command.is_empty() {
        words.extend(options.command.iter().cloned());
    } else if options.entrypoint.is_none() {
        words.extend(of_image(crate::oci::image::Config::cmd));
    }
    if words.is_empty() {
        return Err(anyhow!("cannot run: no command was given, and the image has none"))
            .hint("name a command after the image: dhow run IMAGE COMMAND");
    }
    Ok(words)
}

/// Docker's order: what we set, what the image sets, what the user sets; the last of a name wins.
fn environment(image: &[String], options: &Options, hostname: &str) -> Vec<String> {
    let mut all = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if options.terminal {
        all.push("TERM=xterm".into());
    }
    all.extend(options.env_beneath.iter().chain(image).cloned());
    let is_unset = |entry: &String| {
        let key = entry.split('=').next().unwrap_or_default();
        options.unset_env_all || options.unset_env.iter().any(|name| name == key)
    };
    all.retain(|entry| !is_unset(entry));
    all.extend(options.time_zone.iter().map(|zone| format!("TZ={zone}")));
    all.extend(options.env.iter().cloned());
    let mut seen = HashSet::new();
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut last: Vec<String> = all.into_iter().rev().filter(|e| seen.insert(key(e))).collect();
    last.reverse();
    last
}

fn capabilities(set: Capabilities) -> Result<LinuxCapabilities> {
    Ok(LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()?)
}

fn rlimits(ulimits: &[(String, u64, u64)]) -> Result<Vec<PosixRlimit>> {
    ulimits
        .iter()
        .map(|(name, soft, hard)| {
            let kind = PosixRlimitType::from_str(&format!("RLIMIT_{}", name.to_ascii_uppercase()))
                .map_err(|_| anyhow!("cannot set ulimit {name}: there is no such limit"))
                .hint("getrlimit(2) lists them: nofile, nproc, core, memlock...")?;
            Ok(PosixRlimitBuilder::default().typ(kind).soft(*soft).hard(*hard).build()?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_wins() {
        let options = Options { env: vec!["A=2".into(), "PATH=/x".into()], ..Options::default() };
        let env = environment(&["A=1".into(), "B=1".into()], &options, "h");
        assert_eq!(env, ["HOSTNAME=h", "B=1", "A=2", "PATH=/x"]);
        let image = ["A=1".to_owned(), "B=1".into()];
        let beneath = Options { env_beneath: vec!["A=0".into(), "C=0".into()], ..Options::default() };
        assert_eq!(environment(&image, &beneath, "h")[2..], ["C=0", "A=1", "B=1"]);
        let unset = Options { unset_env: vec!["A".into(), "PATH".into()], ..options.clone() };
        assert_eq!(environment(&image, &unset, "h"), ["HOSTNAME=h", "B=1", "A=2", "PATH=/x"]);
        let all = Options { unset_env_all: true, ..options };
        assert_eq!(environment(&image, &all, "h"), ["A=2", "PATH=/x"]);
    }
}
