//! The flags of run and create about what surrounds the program: variables, labels and annotations from files and from the
//! caller, umask, ports.

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;

use super::flags::{list, many, switch, value};
use super::run_flags::one;
use super::{out, parse};
use crate::error::ResultExt;
use crate::fs;
use crate::host::Host;
use crate::spec::options::{Network, Options, Port};

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
        .arg(list("expose", None, "PORT[/PROTOCOL]", "Say that the container listens there; ranges too"))
        .arg(list("publish", Some('p'), "[[IP:]PORT:]PORT[/PROTOCOL]", "Publish a port, or a range of ports"))
        .arg(switch("publish-all", Some('P'), "Publish all that is exposed"))
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
    for text in many(matches, "expose") {
        options.expose.extend(exposed(text)?);
    }
    for text in many(matches, "publish") {
        options.publish.extend(published(text)?);
    }
    options.publish_all = matches.get_flag("publish-all");
    if options.network == Network::Host && (options.publish_all || !options.publish.is_empty()) {
        // Docker's words.
        out::warn("published ports are discarded when using host network mode");
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

fn protocol(text: &str) -> Result<(&str, String)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    anyhow::ensure!(
        matches!(protocol.as_str(), "tcp" | "udp" | "sctp"),
        "{protocol:?} is not tcp, udp or sctp"
    );
    Ok((ports, protocol))
}

/// `80` or `80-90`; no port is 0.
fn range(text: &str) -> Result<std::ops::RangeInclusive<u16>> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(anyhow!("{text:?} is not a port or a range of ports")),
    }
}

fn exposed(text: &str) -> Result<Vec<String>> {
    let about = || format!("cannot expose {text:?}");
    let (ports, protocol) = protocol(text).with_context(about)?;
    Ok(range(ports).with_context(about)?.map(|port| format!("{port}/{protocol}")).collect())
}

fn published(text: &str) -> Result<Vec<Port>> {
    let about = || format!("cannot publish {text:?}");
    let (rest, protocol) = protocol(text).with_context(about)?;
    let (before, inner) = rest.rsplit_once(':').map_or((None, rest), |(before, inner)| (Some(before), inner));
    let (address, outer) = match before {
        None => ("", ""),
        Some(before) => match before.strip_prefix('[').and_then(|b| b.split_once(']')) {
            Some((address, outer)) => (address, outer.strip_prefix(':').unwrap_or(outer)),
            None => before.rsplit_once(':').unwrap_or(("", before)),
        },
    };
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        return Err(anyhow!("{address:?} is not an address")).with_context(about);
    }
    let inner = range(inner).with_context(about)?;
    let outer = if outer.is_empty() { None } else { Some(range(outer).with_context(about)?) };
    if outer.as_ref().is_some_and(|outer| outer.len() != inner.len() && inner.len() != 1) {
        return Err(anyhow!("its ranges are not equally long")).with_context(about);
    }
    // A range of the host for one port: any of them that is free; the first and last are kept.
    let is_choice = outer.as_ref().is_some_and(|outer| outer.len() > inner.len());
    let port = |(n, container_port): (usize, u16)| {
        let host = outer.as_ref().map(|outer| {
            if is_choice {
                (*outer.start(), *outer.end())
            } else {
                let p = outer.start() + n as u16;
                (p, p)
            }
        });
        Port { address: address.to_owned(), host, container_port, protocol: protocol.clone() }
    };
    Ok(inner.enumerate().map(port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_parse() {
        let check = |text: &str, want: &str| {
            let got = match published(text) {
                Ok(ports) => ports
                    .iter()
                    .map(|p| format!("{} {:?} {}/{}", p.address, p.host, p.container_port, p.protocol))
                    .collect::<Vec<_>>()
                    .join("; "),
                Err(error) => error.root_cause().to_string(),
            };
            assert_eq!(got, want, "{text}");
        };
        check("80", " None 80/tcp");
        check("8080:80/udp", " Some((8080, 8080)) 80/udp");
        check("127.0.0.1:8080:80", "127.0.0.1 Some((8080, 8080)) 80/tcp");
        check("127.0.0.1::80", "127.0.0.1 None 80/tcp");
        check("[::1]:8080:80", "::1 Some((8080, 8080)) 80/tcp");
        check("1-2:3-4", " Some((1, 1)) 3/tcp;  Some((2, 2)) 4/tcp");
        check("8000-8010:80", " Some((8000, 8010)) 80/tcp");
        check("1-3:4-5", "its ranges are not equally long");
        for wrong in ["", "0", "x", "80/icmp", "1:2:3:4", "65536", "host:1:2", "2-1"] {
            assert!(published(wrong).is_err(), "{wrong}");
        }
        assert_eq!(exposed("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
        assert!(umask("0027").is_ok() && umask("8").is_err() && umask("1777").is_err());
    }
}
