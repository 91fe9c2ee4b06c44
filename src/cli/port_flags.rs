//! `-p` and `--expose`: the grammar of docker's nat.ParsePortSpec, in its words. What docker takes and cannot mean anything
//! (port 0 in the container, a range of three ends, two protocols) is refused.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, anyhow, bail};

use crate::spec::options::Port;

/// `--expose PORT[-PORT][/PROTOCOL]`: each port as `PORT/PROTOCOL`.
pub(super) fn exposed(text: &str) -> Result<Vec<String>> {
    let about = || format!("cannot expose {text:?}");
    if text.contains(':') {
        return Err(anyhow!("invalid port format for --expose: {text}")).with_context(about);
    }
    let (ports, protocol) = with_protocol(text);
    let ports = match ports {
        "" => Err(anyhow!("empty string specified for ports")),
        ports => range(ports, 1).ok_or_else(|| anyhow!("{ports:?} is neither a port nor a range of ports")),
    };
    let ports =
        ports.with_context(|| format!("invalid range format for --expose: {text}")).with_context(about)?;
    let protocol = known(protocol).with_context(about)?;
    Ok(ports.map(|port| format!("{port}/{protocol}")).collect())
}

/// `-p`, in the short and in the long form: each port of the container on its own.
pub(super) fn published(text: &str) -> Result<Vec<Port>> {
    let about = || format!("cannot publish {text:?}");
    let short = if text.contains('=') { short_of_long(text).with_context(about)? } else { text.to_owned() };
    parse(&short).with_context(about)
}

/// `target=80,published=8080,protocol=udp`, as docker reads it: put together to the short form.
fn short_of_long(text: &str) -> Result<String> {
    let (mut address, mut outer, mut inner, mut protocol) = (None, "", "", "tcp");
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            bail!("invalid publish opts format (should be name=value but got '{field}')");
        };
        match key.to_ascii_lowercase().as_str() {
            "target" => inner = value,
            "published" => outer = value,
            "protocol" => protocol = value,
            "host_ip" | "host-ip" => address = Some(value.trim_start_matches('[').trim_end_matches(']')),
            // Of a swarm; every port of ours is one of the host.
            "mode" if matches!(value, "host" | "ingress") => {}
            _ => bail!("invalid publish opts format: there is no {key}={value}"),
        }
    }
    let address = address.map(|address| format!("[{address}]:")).unwrap_or_default();
    Ok(format!("{address}{outer}:{inner}/{protocol}"))
}

fn parse(text: &str) -> Result<Vec<Port>> {
    let parts: Vec<&str> = text.rsplitn(3, ':').collect();
    let (ip, outer, inner) = match parts[..] {
        [inner, outer, ip] => (ip, outer, inner),
        [inner, outer] => ("", outer, inner),
        _ => ("", "", text),
    };
    let (inner, protocol) = with_protocol(inner);
    let address = address(ip)?;
    if inner.is_empty() {
        bail!("no port specified: {text}<empty>");
    }
    let ports = range(inner, 1).ok_or_else(|| anyhow!("invalid containerPort: {inner}"))?;
    let hosts = match outer {
        "" => None,
        outer => Some(range(outer, 0).ok_or_else(|| anyhow!("invalid hostPort: {outer}"))?),
    };
    if hosts.as_ref().is_some_and(|hosts| hosts.len() != ports.len() && ports.len() != 1) {
        bail!("invalid ranges specified for container and host Ports: {inner} and {outer}");
    }
    let protocol = known(protocol)?;
    // A range of the host for one port: any of them that is free.
    let is_choice = hosts.as_ref().is_some_and(|hosts| hosts.len() > ports.len());
    let port = |(n, container_port): (usize, u16)| {
        let host = hosts.as_ref().map(|hosts| match is_choice {
            true => (*hosts.start().max(&1), *hosts.end()),
            false => (hosts.start() + n as u16, hosts.start() + n as u16),
        });
        // Port 0 asks for any.
        let host = host.filter(|(_, last)| *last > 0);
        Port { address: address.clone(), host, container_port, protocol: protocol.clone() }
    };
    Ok(ports.enumerate().map(port).collect())
}

/// The address without its brackets, as docker takes them off.
fn address(text: &str) -> Result<String> {
    let bare = match text.strip_prefix('[') {
        None => text,
        Some(rest) => match rest.strip_suffix(']') {
            Some(bare) => bare,
            None => bail!("invalid IP address {text}: address {text}:: missing ']' in address"),
        },
    };
    if !text.is_empty() && bare.parse::<IpAddr>().is_err() {
        bail!("invalid IP address: {bare}");
    }
    Ok(bare.to_owned())
}

/// Ports, and the protocol after the slash; without any, or with an empty one, tcp.
fn with_protocol(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((ports, protocol)) if !protocol.is_empty() => (ports, protocol),
        Some((ports, _)) => (ports, "tcp"),
        None => (text, "tcp"),
    }
}

fn known(protocol: &str) -> Result<String> {
    let lower = protocol.to_ascii_lowercase();
    anyhow::ensure!(matches!(lower.as_str(), "tcp" | "udp" | "sctp"), "invalid proto: {protocol}");
    Ok(lower)
}

/// `80` or `80-90`, from `least` on.
fn range(text: &str, least: u16) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port >= least)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What real docker 28 said, one a line: what was typed, then the ports or the error.
    const DOCKER: &str = include_str!("../../testdata/ports");

    #[test]
    fn as_docker() {
        let mut count = 0;
        for line in DOCKER.lines().filter(|line| !line.starts_with('#')) {
            let (text, want) = line.split_once('\t').unwrap();
            let got = match published(text) {
                Ok(ports) => ports.iter().map(shown).collect::<Vec<_>>().join(" "),
                Err(error) => format!("{:#}", error.root_cause()),
            };
            assert_eq!(got, want, "{text:?}");
            count += 1;
        }
        assert!(count > 50);
    }

    fn shown(port: &Port) -> String {
        let host = match port.host {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        format!("{}|{host}|{}/{}", port.address, port.container_port, port.protocol)
    }

    #[test]
    fn no_prefix_panics() {
        for line in DOCKER.lines() {
            for (at, _) in line.char_indices() {
                let _ = published(&line[..at]);
                let _ = exposed(&line[..at]);
            }
        }
    }

    #[test]
    fn exposed_ports() {
        assert_eq!(exposed("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
        assert_eq!(exposed("80").unwrap(), ["80/tcp"]);
        let said = |text: &str| crate::error::chain(&exposed(text).unwrap_err());
        assert_eq!(said("8080:80"), "cannot expose \"8080:80\": invalid port format for --expose: 8080:80");
        assert!(said("x").contains("invalid range format for --expose: x"));
        assert!(said("").contains("empty string specified for ports"));
        for wrong in ["0", "2-1", "80/x", "65536", "80-"] {
            assert!(exposed(wrong).is_err(), "{wrong}");
        }
    }
}
