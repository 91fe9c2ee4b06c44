//! The column PORTS of `ps`, as docker's client makes it: neighbours are put together, except those that are published under
//! another number.

use crate::engine::port::Listed;

/// The ports, in docker's order and words.
pub(super) fn column(ports: &[Listed]) -> String {
    let mut ports: Vec<&Listed> = ports.iter().collect();
    let address = |port: &Listed| port.host.clone().unwrap_or_default();
    ports.sort_by_key(|port| {
        let (ip, number) = address(port);
        (port.container_port, ip, number, port.protocol.clone())
    });
    let mut shown = Vec::new();
    let mut renumbered = Vec::new();
    // In the order in which they came up: address and protocol, first and last.
    let mut groups: Vec<(String, &str, u16, u16)> = Vec::new();
    for port in ports {
        let (ip, number) = address(port);
        let inner = port.container_port;
        if port.host.is_some() && number != inner {
            renumbered.push(format!("{}:{number}->{inner}/{}", bracketed(&ip), port.protocol));
            continue;
        }
        match groups.iter_mut().find(|(of, protocol, ..)| *of == ip && *protocol == port.protocol) {
            None => groups.push((ip, &port.protocol, inner, inner)),
            Some((.., last)) if inner == *last + 1 => *last = inner,
            Some(group) => {
                shown.push(one(group));
                (group.2, group.3) = (inner, inner);
            }
        }
    }
    shown.extend(groups.iter().map(one));
    shown.extend(renumbered);
    shown.join(", ")
}

fn one((ip, protocol, first, last): &(String, &str, u16, u16)) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match ip.as_str() {
        "" => format!("{range}/{protocol}"),
        ip => format!("{}:{range}->{range}/{protocol}", bracketed(ip)),
    }
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `80/udp` is exposed, `1.2.3.4=8080=80/tcp` is published, `=8080=80/tcp` on all addresses.
    fn read(text: &str) -> Vec<Listed> {
        let one = |text: &str| {
            let parts: Vec<&str> = text.split('=').collect();
            let (inner, protocol) = parts.last().unwrap().split_once('/').unwrap();
            let listed = |host: Option<(String, u16)>| Listed {
                container_port: inner.parse().unwrap(),
                protocol: protocol.to_owned(),
                host,
            };
            match parts[..] {
                [ip, number, _] => {
                    let ips = if ip.is_empty() { vec!["0.0.0.0", "::"] } else { vec![ip] };
                    let number = number.parse().unwrap();
                    ips.into_iter().map(|ip| listed(Some((ip.to_owned(), number)))).collect()
                }
                _ => vec![listed(None)],
            }
        };
        text.split(' ').filter(|text| !text.is_empty()).flat_map(one).collect()
    }

    #[test]
    fn as_docker() {
        let check = |text: &str, want: &str| assert_eq!(column(&read(text)), want, "{text}");
        check("", "");
        check("=8000=80/tcp", "0.0.0.0:8000->80/tcp, [::]:8000->80/tcp");
        check(
            "80/udp =8081=80/tcp =8082=80/tcp",
            "80/udp, 0.0.0.0:8081->80/tcp, 0.0.0.0:8082->80/tcp, [::]:8081->80/tcp, [::]:8082->80/tcp",
        );
        check(
            "443/tcp 500/tcp 501/tcp 502/tcp 503/tcp 504/tcp 505/tcp 10/udp 22/sctp =8080=80/tcp \
             127.0.0.1=9000=90/tcp 127.0.0.1=9001=91/tcp 127.0.0.1=9002=92/tcp 127.0.0.1=9003=93/tcp =53=53/udp \
             =7000=70/udp =7001=71/udp =7002=72/udp =32769=9999/tcp",
            "443/tcp, 10/udp, 22/sctp, 0.0.0.0:53->53/udp, [::]:53->53/udp, 500-505/tcp, 0.0.0.0:7000->70/udp, \
             [::]:7000->70/udp, 0.0.0.0:7001->71/udp, [::]:7001->71/udp, 0.0.0.0:7002->72/udp, [::]:7002->72/udp, \
             0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:9000->90/tcp, 127.0.0.1:9001->91/tcp, \
             127.0.0.1:9002->92/tcp, 127.0.0.1:9003->93/tcp, 0.0.0.0:32769->9999/tcp, [::]:32769->9999/tcp",
        );
        check("=80=80/tcp =81=81/tcp", "0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp");
    }
}
