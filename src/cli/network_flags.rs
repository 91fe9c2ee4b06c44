//! The flags of run and create about networks: which ones, under which names and addresses, how names are looked up, which
//! ports are published. Docker's grammar, and podman's `--network NAME:ip=...,alias=...`.

use anyhow::{Context, Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{list, many, switch, value};
use super::network_values::{add_host, address, alias, domain, link, mac, network};
use super::port_flags::{exposed, published};
use super::run_flags::one;
use super::{out, parse};
use crate::endpoint::{DEFAULT, Endpoint, Network};
use crate::error::ResultExt;
use crate::spec::options::Options;

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command
        .arg(
            list(
                "network",
                None,
                "NETWORK",
                "bridge, host, none, container:NAME, or a network: NAME[:ip=,ip6=,mac=,alias=,interface_name=]",
            )
            .visible_alias("net"),
        )
        .arg(value("default-network", None, "NETWORK", "What config.toml says").hide(true))
        .arg(value("ip", None, "ADDRESS", "Ask for this IPv4 address"))
        .arg(value("ip6", None, "ADDRESS", "Ask for this IPv6 address"))
        .arg(value("mac-address", None, "MAC", "Ask for this hardware address"))
        .arg(list("network-alias", None, "NAME", "Add a name of the container in its network").visible_alias("net-alias"))
        .arg(list("link", None, "CONTAINER[:ALIAS]", "Know another container under a name of its own"))
        .arg(list("add-host", None, "NAME:ADDRESS", "Add a line to /etc/hosts; host-gateway is the host"))
        .arg(list("dns", None, "ADDRESS", "Ask this name server in place of the host's"))
        .arg(list("dns-search", None, "DOMAIN", "Search this domain in place of the host's; . for none"))
        .arg(
            list("dns-option", None, "OPTION", "Set an option of resolv.conf in place of the host's")
                .visible_alias("dns-opt"),
        )
        .arg(list("expose", None, "PORT[/PROTOCOL]", "Say that the container listens there; ranges too"))
        .arg(list("publish", Some('p'), "[[IP:]PORT:]PORT[/PROTOCOL]", "Publish a port, or a range of ports"))
        .arg(switch("publish-all", Some('P'), "Publish all that is exposed"))
}

/// Reads them into `options`, whose host name is read already. Nothing is looked up.
pub(super) fn read(matches: &ArgMatches, options: &mut Options) -> Result<()> {
    for text in many(matches, "expose") {
        options.expose.extend(exposed(text)?);
    }
    for text in many(matches, "publish") {
        options.publish.extend(published(text)?);
    }
    options.publish_all = matches.get_flag("publish-all");
    options.add_hosts = many(matches, "add-host").into_iter().map(add_host).collect::<Result<_>>()?;
    options.dns = many(matches, "dns").into_iter().map(parse::address).collect::<Result<_>>()?;
    options.dns_search = many(matches, "dns-search").into_iter().map(domain).collect::<Result<_>>()?;
    options.dns_options = many(matches, "dns-option").into_iter().map(str::to_owned).collect();
    options.links = many(matches, "link").into_iter().map(link).collect::<Result<_>>()?;
    let mut typed = many(matches, "network");
    if typed.is_empty() {
        typed.extend(one(matches, "default-network"));
    }
    // An empty list says that nobody asked. The host's network then, unless something is asked of one of its own.
    let of_its_own = ["ip", "ip6", "mac-address", "network-alias"];
    let has_mac = matches.contains_id("mac-address");
    let is_own = of_its_own.iter().any(|flag| matches.contains_id(flag))
        || options.publish_all
        || !(options.publish.is_empty() && options.links.is_empty());
    let by_default = if is_own { Network::Own } else { Network::Host };
    let asked = if has_mac { vec![Endpoint::on(DEFAULT)] } else { Vec::new() };
    (options.network, options.networks) =
        if typed.is_empty() { (by_default, asked) } else { networks(&typed)? };
    for_the_first(matches, options)?;
    check(options).with_context(|| format!("cannot use --network {}", typed.join(" --network ")))?;
    if options.network == Network::Host && (options.publish_all || !options.publish.is_empty()) {
        // Docker's words.
        out::warn("published ports are discarded when using host network mode");
    }
    Ok(())
}

/// What the values of `--network` are together.
fn networks(typed: &[&str]) -> Result<(Network, Vec<Endpoint>)> {
    let mut modes = Vec::new();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for text in typed {
        let about = || format!("cannot use --network {text}");
        match network(text).with_context(about)? {
            (Network::Own, endpoint) => {
                if endpoints.iter().any(|other| other.network == endpoint.network) {
                    return Err(anyhow!("network {:?} is specified multiple times", endpoint.network))
                        .with_context(about);
                }
                endpoints.push(endpoint);
            }
            (mode, _) => modes.push(mode),
        }
    }
    match (modes.pop(), endpoints.is_empty(), modes.is_empty()) {
        (None, ..) => {
            // The way to the outside is the first one's.
            endpoints.sort_by_key(|end| std::cmp::Reverse(end.gateway_priority));
            Ok((Network::Own, endpoints))
        }
        (Some(mode), true, true) => Ok((mode, endpoints)),
        _ => Err(anyhow!(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        ))
        .with_context(|| format!("cannot use --network {}", typed.join(" --network "))),
    }
}

/// `--ip`, `--network-alias` and so on are about the first network.
fn for_the_first(matches: &ArgMatches, options: &mut Options) -> Result<()> {
    let mut typed = Endpoint::default();
    let text = |name: &str| one(matches, name).filter(|value| !value.is_empty());
    let flag = |name: &str| format!("cannot use --{name}");
    typed.ip = text("ip").map(|ip| address(ip, "v4")).transpose().with_context(|| flag("ip"))?;
    typed.ip6 = text("ip6").map(|ip| address(ip, "v6")).transpose().with_context(|| flag("ip6"))?;
    typed.mac = text("mac-address").map(mac).transpose().with_context(|| flag("mac-address"))?;
    let each = |name: &str| many(matches, name).into_iter();
    typed.aliases =
        each("network-alias").map(alias).collect::<Result<_>>().with_context(|| flag("network-alias"))?;
    if typed == Endpoint::default() {
        return Ok(());
    }
    let Some(first) = options.networks.first_mut() else {
        let used = [
            (
                "network-alias",
                !typed.aliases.is_empty(),
                "network-scoped aliases are only supported for user-defined networks",
            ),
            ("mac-address", typed.mac.is_some(), "conflicting options: mac-address and the network mode"),
            ("ip", typed.ip.is_some(), "conflicting options: address and the network mode"),
            ("ip6", typed.ip6.is_some(), "conflicting options: address and the network mode"),
        ];
        let (name, _, why) = used.iter().find(|(_, used, _)| *used).unwrap_or(&used[3]);
        return Err(anyhow!("{why}"))
            .with_context(|| flag(name))
            .hint("use --network bridge, or another network");
    };
    let both = |flag: &str, what: &str| {
        Err(anyhow!("conflicting options: cannot specify both --{flag} and per-network {what}"))
            .with_context(|| format!("cannot use --{flag}"))
    };
    if !typed.aliases.is_empty() && !first.aliases.is_empty() {
        return both("network-alias", "alias");
    }
    if typed.ip.is_some() && first.ip.is_some() {
        return both("ip", "IPv4 address");
    }
    if typed.ip6.is_some() && first.ip6.is_some() {
        return both("ip6", "IPv6 address");
    }
    if typed.mac.is_some() && first.mac.is_some() && typed.mac != first.mac {
        return both("mac-address", "MAC address");
    }
    first.aliases.extend(typed.aliases);
    first.ip = first.ip.or(typed.ip);
    first.ip6 = first.ip6.or(typed.ip6);
    first.mac = first.mac.take().or(typed.mac);
    Ok(())
}

/// What does not go together: docker's rules, in its words.
fn check(options: &Options) -> Result<()> {
    let is_container = matches!(options.network, Network::Container(_));
    let rules = [
        (
            is_container && (options.publish_all || !options.publish.is_empty()),
            "port publishing and the container type network mode",
        ),
        (is_container && !options.expose.is_empty(), "port exposing and the container type network mode"),
        (is_container && options.hostname.is_some(), "hostname and the network mode"),
        (
            is_container
                && !(options.dns.is_empty()
                    && options.dns_search.is_empty()
                    && options.dns_options.is_empty()),
            "dns and the network mode",
        ),
        (is_container && !options.add_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
        (
            is_container && !options.links.is_empty(),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (
            options.network == Network::Host && !options.links.is_empty(),
            "host type networking can't be used with links. This would result in undefined behavior",
        ),
    ];
    match rules.iter().find(|(is_broken, _)| *is_broken) {
        Some((_, rule)) => Err(anyhow!("conflicting options: {rule}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command line comes to, in short.
    fn shown(line: &str) -> String {
        let words = std::iter::once("run").chain(line.split(' ').filter(|word| !word.is_empty()));
        let matches = match add(Command::new("run")).try_get_matches_from(words) {
            Ok(matches) => matches,
            Err(error) => return error.to_string(),
        };
        let mut options = Options::default();
        if let Err(error) = read(&matches, &mut options) {
            return error.root_cause().to_string();
        }
        let mode = match &options.network {
            Network::Own => String::new(),
            other => format!("{other:?} "),
        };
        let ends: Vec<String> =
            options.networks.iter().map(|end| serde_json::to_string(end).unwrap()).collect();
        format!("{mode}{}", ends.join(" ")).replace('"', "")
    }

    #[test]
    fn networks_as_docker_and_podman() {
        let check = |line: &str, want: &str| assert_eq!(shown(line), want, "{line}");
        check("--network name=n1", "{network:n1}");
        check("--network name=n1,ip=1.2.3.4", "{network:n1,ip:1.2.3.4}");
        check("--network name=n1,alias=a,alias=b", "{network:n1,aliases:[a,b]}");
        check(
            "--network name=n1,driver-opt=com.docker.network.endpoint.ifname=e9,gw-priority=-3",
            "{network:n1,gateway_priority:-3,interface:e9}",
        );
        check("--network n1 --network name=n2,gw-priority=1", "{network:n2,gateway_priority:1} {network:n1}");
        check("--network name=n1,driver-opt=a=b", "there is no driver option a");
        check("--network name=n1,mac-address=02-42-AC-11-65-43", "{network:n1,mac:02:42:ac:11:65:43}");
        check(
            "--network n1:ip=1.2.3.4,ip=fd00::1,alias=x",
            "{network:n1,ip:1.2.3.4,ip6:fd00::1,aliases:[x]}",
        );
        check(
            "--net bridge:interface_name=e1,mac=02:00:00:00:00:01",
            "{network:bridge,mac:02:00:00:00:00:01,interface:e1}",
        );
        check("--network n1 --network n2", "{network:n1} {network:n2}");
        check(
            "--network n1 --network-alias x --ip 172.18.0.9 --ip6 fd00::9",
            "{network:n1,ip:172.18.0.9,ip6:fd00::9,aliases:[x]}",
        );
        check("--network default", "{network:bridge}");
        check("--mac-address 02:00:00:00:00:01", "{network:bridge,mac:02:00:00:00:00:01}");
        check("--network container:x", "Container(x) ");
        check("--network none", "None ");
        check("--default-network none", "None ");
        check("--default-network none --network host", "Host ");
        check("--network name=n1,foo=bar", "invalid field key foo");
        check("--network n1,alias=x", "invalid field n1");
        check("--network name=n1,alias", "invalid field alias");
        check("--network ip=1.2.3.4", "network name/id is not specified");
        check("--network=", "no name set for network");
        check("--network n1 --network name=n1", "network \"n1\" is specified multiple times");
        let both = "conflicting options: cannot attach both user-defined and non-user-defined network-modes";
        check("--network host --network n1", both);
        check("--network none --network host", both);
        check("--network container:", "invalid container format container:<name|id>");
        check(
            "--network name=n1,alias=x --network-alias y",
            "conflicting options: cannot specify both --network-alias and per-network alias",
        );
        check(
            "--network host --network-alias y",
            "network-scoped aliases are only supported for user-defined networks",
        );
        check(
            "--network container:x --network-alias y",
            "network-scoped aliases are only supported for user-defined networks",
        );
        check("--network n1 --mac-address xx", "xx is not a valid mac address");
        check("--network n1 --mac-address 01:00:00:00:00:00", "01:00:00:00:00:00 is the address of a group");
        check("--network n1 --ip x", "invalid IPv4 address: x");
        check("--network n1 --ip ::1", "invalid IPv4 address: ::1");
        check("--network n1 --ip6 1.2.3.4", "invalid IPv6 address: 1.2.3.4");
        check("--network n1:interface_name=a/b", "\"a/b\" cannot be the name of a device");
        check("--network host:ip=1.2.3.4", "there are no options for host");
        check("--network pasta", "dhow has no need of pasta");
    }

    #[test]
    fn what_does_not_go_with_another_containers_network() {
        let check = |line: &str, want: &str| {
            let line = format!("--network container:x {line}");
            assert_eq!(shown(&line), format!("conflicting options: {want}"), "{line}");
        };
        check("-p 80:80", "port publishing and the container type network mode");
        check("-P", "port publishing and the container type network mode");
        check("--expose 80", "port exposing and the container type network mode");
        check("--dns 1.1.1.1", "dns and the network mode");
        check("--add-host a:1.1.1.1", "custom host-to-IP mapping and the network mode");
        check(
            "--link x",
            "container type network can't be used with links. This would result in undefined behavior",
        );
        assert!(shown("--network host --link x").contains("host type networking can't be used with links"));
    }
}
