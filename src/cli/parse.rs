//! Values of flags: devices, ulimits, env files. Text in, options out.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use super::flags::of_flag;
use crate::error::ResultExt;
use crate::fs;
use crate::spec::mount::normal;
use crate::spec::options::Device;

/// `--device HOST[:CONTAINER][:rwm]`.
pub(super) fn device(text: &str) -> Result<Device> {
    let is_access = |s: &str| !s.is_empty() && s.bytes().all(|b| b"rwm".contains(&b));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, access) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, container] => (host, container, "rwm"),
        [host, container, access] if is_access(access) => (host, container, access),
        _ => bail!("cannot use the device {text:?}: it is not HOST[:CONTAINER][:rwm]"),
    };
    if !container.starts_with('/') {
        bail!("cannot use the device {text:?}: {container:?} is not absolute");
    }
    Ok(Device { host: host.into(), container: normal(container), access: access.to_owned() })
}

/// `--ulimit NAME=SOFT[:HARD]`; -1 or `unlimited` is no limit.
pub(super) fn ulimit(text: &str) -> Result<(String, u64, u64)> {
    let about = || format!("cannot use the ulimit {text:?}");
    let (name, values) =
        text.split_once('=').ok_or_else(|| anyhow!("it is not NAME=SOFT[:HARD]")).with_context(about)?;
    let number = |s: &str| match s {
        "-1" | "unlimited" => Ok(u64::MAX),
        s => s.parse::<u64>().map_err(|_| anyhow!("{s:?} is not a number")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (number(soft).with_context(about)?, number(hard).with_context(about)?);
    if soft > hard {
        return Err(anyhow!("the soft limit is above the hard one")).with_context(about);
    }
    Ok((name.to_owned(), soft, hard))
}

/// `KEY=VALUE`, or `KEY` from the caller's environment (nothing where it is not set).
pub(super) fn env(text: &str, of_host: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>> {
    match text.split_once('=') {
        Some(("", _)) => bail!("cannot use the environment variable {text:?}: it has no name"),
        Some(_) => Ok(Some(text.to_owned())),
        None if text.is_empty() => bail!("cannot use an environment variable without a name"),
        None => Ok(of_host(text)),
    }
}

/// A file of `KEY=VALUE` lines; `#` begins a comment, a bare `KEY` is taken from the caller's environment.
pub(super) fn env_file(path: &Path, of_host: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).context("cannot use the env file")?;
    let mut all = Vec::new();
    for (n, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("{}:{}: {name:?} is not a variable's name", path.display(), n + 1);
        }
        all.extend(env(line, of_host)?);
    }
    Ok(all)
}

/// `KEY=VALUE`; without `=` the value is empty.
pub(super) fn label(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    anyhow::ensure!(!key.is_empty(), "cannot use the label {text:?}: it has no name");
    Ok((key.to_owned(), value.to_owned()))
}

/// `--cpus N`, in billionths.
pub(super) fn cpus(text: &str) -> Result<u64> {
    let value = text.parse::<f64>();
    let value = value.map_err(|_| anyhow!("cannot limit CPUs to {text:?}: it is not a number"));
    let value = of_flag(value)?;
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1);
    if !(value > 0.0 && value <= online as f64) {
        bail!("cannot limit CPUs to {text:?}: it is not between 0 and {online}, the number of CPUs");
    }
    Ok((value * 1e9).round() as u64)
}

/// `--cpuset-cpus 0-2,4`: numbers and ranges.
pub(super) fn number_list(text: &str) -> Result<String> {
    let number = |s: &str| s.trim().parse::<u32>().ok();
    let is_item = |item: &str| match item.split_once('-') {
        Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to),
        None => number(item).is_some(),
    };
    if !text.split(',').all(is_item) {
        return Err(anyhow!("cannot use the list {text:?}")).hint("write numbers and ranges: 0-2,4");
    }
    Ok(text.to_owned())
}

/// `--dns ADDRESS`.
pub(super) fn address(text: &str) -> Result<String> {
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    anyhow::ensure!(is_address, "cannot use the name server {text:?}: it is not an address");
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_parse() {
        assert_eq!(ulimit("nofile=1:2").unwrap(), ("nofile".into(), 1, 2));
        assert_eq!(ulimit("core=-1").unwrap(), ("core".into(), u64::MAX, u64::MAX));
        assert!(ulimit("nofile=2:1").is_err() && ulimit("nofile").is_err());
        assert_eq!(cpus("0.5").unwrap(), 500_000_000);
        assert!(cpus("0").is_err() && cpus("x").is_err() && cpus("nan").is_err());
        assert!(cpus("99999").is_err());
        assert!(number_list("0-2,4").is_ok() && number_list("0").is_ok());
        assert!(["", "a", "1-", "0,,1", "-1"].iter().all(|l| number_list(l).is_err()));
        assert!(address("1.1.1.1").is_ok() && address("::1").is_ok() && address("ns").is_err());
        assert_eq!(device("/dev/a:rw").unwrap().access, "rw");
        assert_eq!(device("/dev/a:/dev/b").unwrap().container, Path::new("/dev/b"));
        assert!(device("/dev/a:b:rw").is_err());
        let host = |n: &str| (n == "H").then(|| "H=1".to_owned());
        assert_eq!(env("H", &host).unwrap().as_deref(), Some("H=1"));
        assert_eq!(env("N", &host).unwrap(), None);
        assert!(env("=x", &host).is_err());
    }
}
