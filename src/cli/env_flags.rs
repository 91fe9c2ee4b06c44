//! The flags of run and create about what surrounds the program: variables, labels and annotations from files and from the
//! caller, umask.

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;

use super::flags::{list, many, switch, value};
use super::parse;
use super::run_flags::one;
use crate::error::ResultExt;
use crate::fs;
use crate::host::Host;
use crate::spec::options::Options;

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command
        .arg(switch("env-host", None, "Pass the caller's environment on; the image's goes before it"))
        .arg(
            Arg::new("http-proxy")
                .long("http-proxy")
                .value_name("BOOL")
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(clap::value_parser!(bool))
                .help(
                    "Pass the caller's proxy variables, and the proxies of docker's config.json, on (true)",
                ),
        )
        .arg(list("unsetenv", None, "NAME", "Take a variable away that the image sets, or dhow"))
        .arg(switch("unsetenv-all", None, "Take all of them away"))
        .arg(value("umask", None, "OCTAL", "Set the umask (0022)"))
        .arg(list("label-file", None, "FILE", "Set the labels of FILE, one a line"))
        .arg(list("annotation", None, "KEY=VALUE", "Set an annotation of the runtime spec"))
}

/// The proxy variables that are passed on.
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Reads them into `options`, whose variables and labels are read already and go before these.
pub(super) fn read(matches: &ArgMatches, host: &Host, options: &mut Options) -> Result<()> {
    let entry = |(key, value): (&std::ffi::OsString, &std::ffi::OsString)| {
        Some(format!("{}={}", key.to_str()?, value.to_str()?))
    };
    if matches.get_flag("env-host") {
        options.env_beneath.extend(host.env.iter().filter_map(entry));
    }
    if matches.get_one::<bool>("http-proxy").copied().unwrap_or(true) {
        let is_proxy =
            |key: &std::ffi::OsString| PROXIES.iter().any(|name| key.to_ascii_lowercase() == *name);
        options.env_beneath.extend(host.env.iter().filter(|(key, _)| is_proxy(key)).filter_map(entry));
        let of_docker = docker_proxies(host);
        options.env.splice(0..0, of_docker);
    }
    options.unset_env = many(matches, "unsetenv").into_iter().map(str::to_owned).collect();
    options.unset_env_all = matches.get_flag("unsetenv-all");
    options.umask = one(matches, "umask").map(umask).transpose()?;
    for file in many(matches, "label-file") {
        let text = fs::read_to_string(file.as_ref()).context("cannot use the label file")?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) =
                parse::label(line).with_context(|| format!("cannot use the label file {file}"))?;
            options.labels.entry(key).or_insert(value);
        }
    }
    for text in many(matches, "annotation") {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| anyhow!("cannot use the annotation {text:?}: it is not KEY=VALUE"))?;
        options.annotations.insert(key.to_owned(), value.to_owned());
    }
    Ok(())
}

/// The proxies that docker's config.json has for containers, each in both spellings, as docker passes them on. A file that
/// cannot be read says nothing: it is not ours.
fn docker_proxies(host: &Host) -> Vec<String> {
    let dir = host.env("DOCKER_CONFIG").map(std::path::PathBuf::from);
    let Some(dir) = dir.or_else(|| host.home.as_ref().map(|home| home.join(".docker"))) else {
        return Vec::new();
    };
    let text = fs::read_to_string_if_exists(&dir.join("config.json")).ok().flatten().unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let proxies = &config["proxies"]["default"];
    let keys = ["httpProxy", "httpsProxy", "ftpProxy", "noProxy", "allProxy"];
    let set = keys.iter().zip(PROXIES).filter_map(|(key, name)| Some((name, proxies[key].as_str()?)));
    set.filter(|(_, value)| !value.is_empty())
        .flat_map(|(name, value)| {
            [format!("{}={value}", name.to_ascii_uppercase()), format!("{name}={value}")]
        })
        .collect()
}

fn umask(text: &str) -> Result<u32> {
    let mask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| anyhow!("cannot use --umask {text:?}")).hint("it is octal, as in 0027")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_octal() {
        assert!(umask("0027").is_ok() && umask("8").is_err() && umask("1777").is_err());
    }
}
