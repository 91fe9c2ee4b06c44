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
    let merged: Vec<String> = options.env_merge.iter().map(|entry| fill_in(entry, image)).collect();
    all.extend(merged);
    let mut seen = HashSet::new();
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut last: Vec<String> = all.into_iter().rev().filter(|e| seen.insert(key(e))).collect();
    last.reverse();
    last
}

/// `KEY=VALUE` with `$NAME` and `${NAME}` of the image's variables in place; what the image does not have is nothing.
fn fill_in(entry: &str, image: &[String]) -> String {
    let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
    let of_image = |name: &str| {
        image.iter().rev().find_map(|e| e.split_once('=').filter(|(k, _)| *k == name)).map_or("", |(_, v)| v)
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut text = format!("{key}=");
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        (text, rest) = match braced.filter(|(name, _)| !name.is_empty() && name.chars().all(is_name)) {
            Some((name, after)) => (text + of_image(name), after),
            None => match after.find(|c| !is_name(c)).unwrap_or(after.len()) {
                0 => (text + "$", after),
                end => (text + of_image(&after[..end]), &after[end..]),
            },
        };
    }
    text + rest
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
    fn variables_of_the_image_are_filled_in() {
        let image = ["A=1".to_owned(), "PATH=/bin:/x".into()];
        for (entry, want) in [
            ("PATH=${PATH}:/y", "PATH=/bin:/x:/y"),
            ("B=$A-$A.", "B=1-1."),
            ("B=$NO${NO}", "B="),
            ("B=$", "B=$"),
            ("B=$$A ${A", "B=$1 ${A"),
            ("B=${}x", "B=${}x"),
            ("B=\u{e9}$A\u{e9}", "B=\u{e9}1\u{e9}"),
            ("B", "B="),
        ] {
            assert_eq!(fill_in(entry, &image), want, "{entry}");
        }
    }

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
