//! The variables of a link: what a container is told of the one that it is linked to. The names are docker's, from the time
//! before networks had names. Pure.

use std::net::IpAddr;

/// The container at the other end of a link.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// Its address, if it has one.
    pub address: Option<IpAddr>,
    /// The ports that it listens on: `5432/tcp`.
    pub ports: &'a [String],
    /// Its own variables, those that its image brings among them.
    pub env: &'a [String],
}

/// The variables that the container `own_name` gets for the link whose alias is `alias`. Without an address there is only
/// what does not need one.
pub fn variables(own_name: &str, alias: &str, target: &Target<'_>) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut env = Vec::new();
    if let Some(address) = target.address {
        let host = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        add_ports(&mut env, &prefix, address, &host, &sorted(target.ports));
    }
    env.push(format!("{prefix}_NAME=/{own_name}/{alias}"));
    // Every image brings these two, and they say nothing of what runs there.
    let is_told = |name: &str| !matches!(name, "HOME" | "PATH");
    let told = target.env.iter().filter_map(|v| v.split_once('=')).filter(|(name, _)| is_told(name));
    env.extend(told.map(|(name, value)| format!("{prefix}_ENV_{name}={value}")));
    env
}

type Port<'a> = (u16, &'a str);

/// By number, of one number tcp first: the first one is what `ALIAS_PORT` means.
fn sorted(ports: &[String]) -> Vec<Port<'_>> {
    let parse = |port| -> Option<Port<'_>> {
        let port: &String = port;
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        Some((number.parse().ok()?, protocol))
    };
    let mut ports: Vec<Port<'_>> = ports.iter().filter_map(parse).collect();
    ports.sort_by_key(|(number, protocol)| (*number, *protocol != "tcp", *protocol));
    ports.dedup();
    ports
}

fn add_ports(env: &mut Vec<String>, prefix: &str, address: IpAddr, host: &str, ports: &[Port<'_>]) {
    let name = |(number, protocol): &Port<'_>| format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
    let url = |(number, protocol): &Port<'_>| format!("{protocol}://{host}:{number}");
    if let Some(first) = ports.first() {
        env.push(format!("{prefix}_PORT={}", url(first)));
    }
    for port in ports {
        let (name, (number, protocol)) = (name(port), port);
        env.push(format!("{name}={}", url(port)));
        env.push(format!("{name}_ADDR={address}"));
        env.push(format!("{name}_PORT={number}"));
        env.push(format!("{name}_PROTO={protocol}"));
    }
    // Three and more of a protocol that follow each other are told as a range, too.
    let mut by_protocol = ports.to_vec();
    by_protocol.sort_by_key(|(number, protocol)| (*protocol, *number));
    let follows = |a: &Port<'_>, b: &Port<'_>| a.1 == b.1 && a.0.checked_add(1) == Some(b.0);
    for range in by_protocol.chunk_by(follows).filter(|range| range.len() > 2) {
        let (first, last) = (&range[0], &range[range.len() - 1]);
        let name = name(first);
        env.push(format!("{name}_START={}", url(first)));
        env.push(format!("{name}_PORT_START={}", first.0));
        env.push(format!("{name}_END={}", url(last)));
        env.push(format!("{name}_PORT_END={}", last.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(alias: &str, address: Option<&str>, ports: &[&str], env: &[&str], want: &str) {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<String>>();
        let (ports, env) = (words(ports), words(env));
        let target = Target { address: address.map(|a| a.parse().unwrap()), ports: &ports, env: &env };
        assert_eq!(variables("web", alias, &target).join("\n"), want.trim().replace("\n    ", "\n"));
    }

    #[test]
    fn variables_are_named_as_by_docker() {
        check(
            "my-db",
            Some("10.1.0.5"),
            &["53/udp", "5432/tcp"],
            &["PATH=/bin", "HOME=/root", "POSTGRES_DB=x=y", "EMPTY=", "odd"],
            "MY_DB_PORT=udp://10.1.0.5:53
    MY_DB_PORT_53_UDP=udp://10.1.0.5:53
    MY_DB_PORT_53_UDP_ADDR=10.1.0.5
    MY_DB_PORT_53_UDP_PORT=53
    MY_DB_PORT_53_UDP_PROTO=udp
    MY_DB_PORT_5432_TCP=tcp://10.1.0.5:5432
    MY_DB_PORT_5432_TCP_ADDR=10.1.0.5
    MY_DB_PORT_5432_TCP_PORT=5432
    MY_DB_PORT_5432_TCP_PROTO=tcp
    MY_DB_NAME=/web/my-db
    MY_DB_ENV_POSTGRES_DB=x=y
    MY_DB_ENV_EMPTY=",
        );
        check(
            "a.b-c",
            Some("10.1.0.5"),
            &["53/udp", "53/tcp"],
            &[],
            "A.B_C_PORT=tcp://10.1.0.5:53
    A.B_C_PORT_53_TCP=tcp://10.1.0.5:53
    A.B_C_PORT_53_TCP_ADDR=10.1.0.5
    A.B_C_PORT_53_TCP_PORT=53
    A.B_C_PORT_53_TCP_PROTO=tcp
    A.B_C_PORT_53_UDP=udp://10.1.0.5:53
    A.B_C_PORT_53_UDP_ADDR=10.1.0.5
    A.B_C_PORT_53_UDP_PORT=53
    A.B_C_PORT_53_UDP_PROTO=udp
    A.B_C_NAME=/web/a.b-c",
        );
        check("db", None, &["5432/tcp"], &[], "DB_NAME=/web/db");
        check("db", Some("10.1.0.5"), &[], &[], "DB_NAME=/web/db");
    }

    #[test]
    fn ranges_and_ipv6() {
        check(
            "q",
            Some("fd01::5"),
            // Two are no range yet.
            &["72/tcp", "70/tcp", "71/tcp", "90/tcp", "91/tcp"],
            &[],
            "Q_PORT=tcp://[fd01::5]:70
    Q_PORT_70_TCP=tcp://[fd01::5]:70
    Q_PORT_70_TCP_ADDR=fd01::5
    Q_PORT_70_TCP_PORT=70
    Q_PORT_70_TCP_PROTO=tcp
    Q_PORT_71_TCP=tcp://[fd01::5]:71
    Q_PORT_71_TCP_ADDR=fd01::5
    Q_PORT_71_TCP_PORT=71
    Q_PORT_71_TCP_PROTO=tcp
    Q_PORT_72_TCP=tcp://[fd01::5]:72
    Q_PORT_72_TCP_ADDR=fd01::5
    Q_PORT_72_TCP_PORT=72
    Q_PORT_72_TCP_PROTO=tcp
    Q_PORT_90_TCP=tcp://[fd01::5]:90
    Q_PORT_90_TCP_ADDR=fd01::5
    Q_PORT_90_TCP_PORT=90
    Q_PORT_90_TCP_PROTO=tcp
    Q_PORT_91_TCP=tcp://[fd01::5]:91
    Q_PORT_91_TCP_ADDR=fd01::5
    Q_PORT_91_TCP_PORT=91
    Q_PORT_91_TCP_PROTO=tcp
    Q_PORT_70_TCP_START=tcp://[fd01::5]:70
    Q_PORT_70_TCP_PORT_START=70
    Q_PORT_70_TCP_END=tcp://[fd01::5]:72
    Q_PORT_70_TCP_PORT_END=72
    Q_NAME=/web/q",
        );
    }
}
