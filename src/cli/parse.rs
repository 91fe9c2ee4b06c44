//! Values of flags: mounts, devices, ulimits, env files. Text in, options out.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::error::ResultExt;
use crate::fs;
use crate::quantity;
use crate::spec::options::{Device, Mount};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// `-v SOURCE:TARGET[:OPTIONS]`.
pub(super) fn volume(text: &str, cwd: &Path) -> Result<Mount> {
    let about = || format!("cannot use the volume {text:?}");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, words) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, words] => (source, target, words),
        _ => return Err(anyhow!("it is not SOURCE:TARGET[:OPTIONS]")).with_context(about),
    };
    if source.is_empty() || target.is_empty() {
        return Err(anyhow!("source and target must not be empty")).with_context(about);
    }
    if !source.starts_with(['/', '.', '~']) {
        return Err(anyhow!("{source:?} is not a path"))
            .with_context(about)
            .hint("begin a path with / or ./");
    }
    if !target.starts_with('/') {
        return Err(anyhow!("the target {target:?} is not absolute")).with_context(about);
    }
    not_the_root(target).with_context(about)?;
    let mut mount = BindWords::default();
    for word in words.split(',').filter(|w| !w.is_empty()) {
        mount.word(word).with_context(about)?;
    }
    Ok(Mount::Bind {
        source: std::path::absolute(cwd.join(source)).with_context(about)?,
        target: normal(target),
        read_only: mount.read_only,
        propagation: mount.propagation,
        non_recursive: false,
        create_source: true,
    })
}

#[derive(Default)]
struct BindWords {
    read_only: bool,
    propagation: Option<String>,
}

impl BindWords {
    fn word(&mut self, word: &str) -> Result<()> {
        match word {
            "ro" | "readonly" => self.read_only = true,
            // Labels of SELinux: nothing to do where there is none.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "rbind" | "bind" => {}
            p if PROPAGATIONS.contains(&p) => self.propagation = Some(p.to_owned()),
            other => bail!("there is no option {other:?}"),
        }
        Ok(())
    }
}

/// `--mount type=...,source=...,target=...`.
pub(super) fn mount(text: &str, cwd: &Path) -> Result<Mount> {
    let about = || format!("cannot use the mount {text:?}");
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let mut bind = BindWords::default();
    let (mut non_recursive, mut options) = (false, Vec::new());
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        match key {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "destination" | "dst" => target = Some(value),
            "readonly" | "ro" => bind.read_only = truth(value).with_context(about)?,
            "bind-propagation" => bind.word(value).with_context(about)?,
            "bind-nonrecursive" => non_recursive = truth(value).with_context(about)?,
            "bind-recursive" => non_recursive = value == "disabled",
            "tmpfs-size" => options.push(format!("size={}", quantity::bytes(value).with_context(about)?)),
            "tmpfs-mode" => options.push(format!("mode={value}")),
            "consistency" => {}
            other => return Err(anyhow!("there is no field {other:?}")).with_context(about),
        }
    }
    let target = target.ok_or_else(|| anyhow!("it has no target")).with_context(about)?;
    if !target.starts_with('/') {
        return Err(anyhow!("the target {target:?} is not absolute")).with_context(about);
    }
    not_the_root(target).with_context(about)?;
    match kind {
        "tmpfs" => {
            if bind.read_only {
                options.push("ro".into());
            }
            Ok(Mount::Tmpfs { target: normal(target), options })
        }
        "bind" => {
            let source = source.ok_or_else(|| anyhow!("it has no source")).with_context(about)?;
            Ok(Mount::Bind {
                source: std::path::absolute(cwd.join(source)).with_context(about)?,
                target: normal(target),
                read_only: bind.read_only,
                propagation: bind.propagation,
                non_recursive,
                create_source: false,
            })
        }
        other => Err(anyhow!("type {other:?} is not bind or tmpfs")).with_context(about),
    }
}

/// `--tmpfs PATH[:OPTIONS]`.
pub(super) fn tmpfs(text: &str) -> Result<Mount> {
    let (target, words) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        bail!("cannot use the tmpfs {text:?}: its path is not absolute");
    }
    not_the_root(target).with_context(|| format!("cannot use the tmpfs {text:?}"))?;
    let options = words.split(',').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    Ok(Mount::Tmpfs { target: normal(target), options })
}

/// Something on top of the container's root would hide all of it.
fn not_the_root(target: &str) -> Result<()> {
    anyhow::ensure!(normal(target) != Path::new("/"), "its target is the container's root");
    Ok(())
}

fn truth(value: &str) -> Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => bail!("{other:?} is neither true nor false"),
    }
}

/// Without `.`, `..` and double slashes: what is mounted upon must be what is compared.
fn normal(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}

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
    let value: f64 =
        text.parse().map_err(|_| anyhow!("cannot limit CPUs to {text:?}: it is not a number"))?;
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
    fn volumes_parse() {
        let check = |text: &str, want: &str| {
            let got = match volume(text, Path::new("/cwd")) {
                Ok(Mount::Bind { source, target, read_only, propagation, .. }) => {
                    format!("{} {} {read_only} {propagation:?}", source.display(), target.display())
                }
                Ok(_) => unreachable!("-v binds"),
                Err(error) => error.root_cause().to_string(),
            };
            assert!(got.contains(want), "{text}: {got}");
        };
        check("/a:/b", "/a /b false None");
        check("./a:/b/../c:ro,rshared", "/cwd/a /c true Some(\"rshared\")");
        check("/a:b", "not absolute");
        check("/a:/b:no", "no option");
        check("/a", "SOURCE:TARGET");
        check(":/b", "must not be empty");
        check("/a:/b/..", "container's root");
    }

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
