//! What the flags about networks take, one value at a time: networks with their fields, hosts, domains, links, addresses.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};

use crate::endpoint::{DEFAULT, Endpoint, Link, Network};
use crate::error::ResultExt;

/// One value of `--network`: docker's long form, podman's, or a name.
pub(super) fn network(text: &str) -> Result<(Network, Endpoint)> {
    if let Some(container) = text.strip_prefix("container:") {
        if container.is_empty() {
            bail!("invalid container format container:<name|id>");
        }
        return Ok((Network::Container(container.to_owned()), Endpoint::default()));
    }
    let is_long = text.split(',').next().is_some_and(|first| first.contains('=') && !first.contains(':'));
    let endpoint = match text.split_once(':') {
        _ if is_long => long(text)?,
        Some((name, fields)) if fields.contains('=') => {
            let mut endpoint = Endpoint::on(name);
            fields.split(',').try_for_each(|field| set(&mut endpoint, field))?;
            endpoint
        }
        _ if text.contains(',') => bail!("invalid field {}", text.split(',').next().unwrap_or_default()),
        _ => Endpoint::on(text),
    };
    let is_bare = Endpoint::on(&endpoint.network) == endpoint;
    let mode = match endpoint.network.as_str() {
        "" => bail!("no name set for network"),
        "host" => Network::Host,
        "none" => Network::None,
        helper @ ("pasta" | "slirp4netns") => {
            return Err(anyhow!("dhow has no need of {helper}"))
                .hint("use --network bridge, for a user, too");
        }
        "default" | "private" => {
            return Ok((Network::Own, Endpoint { network: DEFAULT.to_owned(), ..endpoint }));
        }
        _ => return Ok((Network::Own, endpoint)),
    };
    anyhow::ensure!(is_bare, "there are no options for {}", endpoint.network);
    Ok((mode, endpoint))
}

/// Docker's `name=NAME,ip=...`.
fn long(text: &str) -> Result<Endpoint> {
    let mut endpoint = Endpoint::default();
    text.split(',').try_for_each(|field| set(&mut endpoint, field))?;
    anyhow::ensure!(!endpoint.network.is_empty(), "network name/id is not specified");
    Ok(endpoint)
}

/// One `KEY=VALUE` of either form, in docker's words or podman's.
fn set(endpoint: &mut Endpoint, field: &str) -> Result<()> {
    let (key, value) = field
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| anyhow!("invalid field {field}"))?;
    let key = key.trim().to_ascii_lowercase();
    let value = value.trim();
    match key.as_str() {
        "name" => value.clone_into(&mut endpoint.network),
        "alias" => endpoint.aliases.push(alias(value)?),
        // Podman has one word for both.
        "ip" => match address::<IpAddr>(value, "")? {
            IpAddr::V4(ip) => endpoint.ip = Some(ip),
            IpAddr::V6(ip) => endpoint.ip6 = Some(ip),
        },
        "ip6" => endpoint.ip6 = Some(address(value, "v6")?),
        "mac" | "mac-address" => endpoint.mac = Some(mac(value)?),
        "interface_name" | "interface-name" => endpoint.interface = Some(interface(value)?),
        "driver-opt" => {
            endpoint.interface = match value.split_once('=') {
                Some(("com.docker.network.endpoint.ifname", name)) => Some(interface(name)?),
                Some((option, _)) if !option.is_empty() => bail!("there is no driver option {option}"),
                _ => bail!("invalid key value pair format in driver options"),
            }
        }
        "gw-priority" => {
            endpoint.gateway_priority =
                value.parse().map_err(|_| anyhow!("invalid gw-priority ({value}): it is not a number"))?;
        }
        _ => bail!("invalid field key {key}"),
    }
    Ok(())
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`; the address may have brackets, or be `host-gateway`.
pub(super) fn add_host(text: &str) -> Result<(String, String)> {
    let about = || format!("cannot add the host {text:?}");
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .filter(|(name, address)| !name.is_empty() && !address.is_empty())
        .ok_or_else(|| anyhow!("bad format for add-host: {text:?}"))
        .with_context(about)
        .hint("it is NAME:ADDRESS")?;
    if name.contains(char::is_whitespace) || name.contains(char::is_control) {
        return Err(anyhow!("{name:?} is not a name")).with_context(about);
    }
    if address == "host-gateway" {
        return Ok((name.to_owned(), address.to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address = bare
        .parse::<IpAddr>()
        .map_err(|_| anyhow!("invalid IP address in add-host: {address:?}"))
        .with_context(about)?;
    Ok((name.to_owned(), address.to_string()))
}

/// A domain to search, as docker checks it; `.` is none.
pub(super) fn domain(text: &str) -> Result<String> {
    let label = |label: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(fits)
    };
    let bare = text.strip_suffix('.').unwrap_or(text);
    let is_domain = text == "." || (text.len() <= 255 && bare.split('.').all(label));
    anyhow::ensure!(is_domain, "cannot use --dns-search: {text} is not a valid domain");
    Ok(text.to_owned())
}

/// `CONTAINER[:ALIAS]`; without an alias the container's own name.
pub(super) fn link(text: &str) -> Result<Link> {
    let parts: Vec<&str> = text.split(':').collect();
    let (container, alias) = match parts[..] {
        [container] | [container, ""] => (container, container),
        [container, alias] => (container, alias),
        _ => bail!("cannot use --link: bad format for links: {text}"),
    };
    anyhow::ensure!(!container.is_empty(), "cannot use --link {text:?}: it names no container");
    // As `docker inspect` shows links, a name begins with a slash.
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    Ok(Link { target: container.trim_start_matches('/').to_owned(), alias: alias.to_owned() })
}

/// A name that a resolver can be asked for: anything that is one word.
pub(super) fn alias(text: &str) -> Result<String> {
    let is_name = (1..=253).contains(&text.len())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',' || c == '/');
    anyhow::ensure!(is_name, "{text:?} is not a name");
    Ok(text.to_owned())
}

/// An address of either kind, or of the one that is asked for (`v4`, `v6`).
pub(super) fn address<T: FromStr>(text: &str, kind: &str) -> Result<T> {
    text.parse().map_err(|_| anyhow!("invalid IP{kind} address: {text}"))
}

/// Six bytes in hex, between colons or hyphens.
pub(super) fn mac(text: &str) -> Result<String> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .filter(|part| part.len() == 2)
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    if bytes.len() != 6 || text.len() != 17 {
        bail!("{text} is not a valid mac address");
    }
    if bytes[0] & 1 == 1 {
        return Err(anyhow!("{text} is the address of a group"))
            .hint("the first byte of a device's own is even");
    }
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"))
}

/// A name that the kernel takes for a device (dev_valid_name).
fn interface(text: &str) -> Result<String> {
    let is_name = (1..=15).contains(&text.len())
        && !matches!(text, "." | ".." | "lo")
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%');
    anyhow::ensure!(is_name, "{text:?} cannot be the name of a device");
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_docker() {
        let check = |text: &str, want: &str| {
            let got = match add_host(text) {
                Ok((name, address)) => format!("{name}:{address}"),
                Err(error) => error.root_cause().to_string(),
            };
            assert_eq!(got, want, "{text}");
        };
        check("a:1.1.1.1", "a:1.1.1.1");
        check("a=1.1.1.1", "a:1.1.1.1");
        check("a=::1", "a:::1");
        check("a:[::1]", "a:::1");
        check("a:::1", "a:::1");
        check("a:host-gateway", "a:host-gateway");
        check("a", "bad format for add-host: \"a\"");
        check(":1.1.1.1", "bad format for add-host: \":1.1.1.1\"");
        check("a:b", "invalid IP address in add-host: \"b\"");
        check("a\nb:1.1.1.1", "\"a\\nb\" is not a name");
    }

    #[test]
    fn domains_and_links() {
        assert!(domain(".").is_ok() && domain("a.b").is_ok() && domain("a_b.c.").is_ok());
        assert!(domain("a b").is_err() && domain("a..b").is_err() && domain("").is_err());
        let check = |text: &str, want: Option<(&str, &str)>| {
            let want = want.map(|(c, a)| Link { target: c.into(), alias: a.into() });
            assert_eq!(link(text).ok(), want, "{text}");
        };
        check("x", Some(("x", "x")));
        check("x:", Some(("x", "x")));
        check("x:a", Some(("x", "a")));
        check("/x:/y/a", Some(("x", "a")));
        check(":a", None);
        check("a:b:c", None);
    }
}
