//! port: what of a container is published where.

use anyhow::{Result, anyhow, bail};
use clap::{Arg, ArgMatches, Command};

use super::run_flags::one;
use super::{Session, out};
use crate::engine::port::{self, Published};

pub(super) fn port_args(command: Command) -> Command {
    command.arg(Arg::new("container").value_name("CONTAINER").required(true)).arg(
        Arg::new("port")
            .value_name("PORT[/PROTOCOL]")
            .help("Only where this port of the container is published"),
    )
}

pub(super) fn port_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let name = one(matches, "container").unwrap_or_default();
    let wanted = one(matches, "port").map(parse).transpose()?;
    let engine = session.engine()?;
    let all = addresses(&port::port(&engine, name)?);
    let Some((port, protocol)) = wanted else {
        let line = |one: &Address| format!("{}/{} -> {}\n", one.port, one.protocol, one.host());
        out::out(&all.iter().map(line).collect::<String>())?;
        return Ok(0);
    };
    let fitting = all.iter().filter(|one| one.port == port && one.protocol == protocol);
    let lines: Vec<String> = fitting.map(|one| one.host() + "\n").collect();
    if lines.is_empty() {
        bail!("no public port '{port}/{protocol}' published for {name}");
    }
    out::out(&lines.concat())?;
    Ok(0)
}

/// One line of `port`, in the order of lines.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    port: u16,
    protocol: String,
    ip: String,
    number: u16,
}

impl Address {
    /// `ADDRESS:PORT`.
    fn host(&self) -> String {
        let Address { ip, number, .. } = self;
        if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }
    }
}

fn addresses(published: &[Published]) -> Vec<Address> {
    let of = |one: &Published| {
        let (port, protocol) = (one.container_port, one.protocol.clone());
        let address = move |(ip, number)| Address { port, protocol: protocol.clone(), ip, number };
        port::shown(one).into_iter().map(address).collect::<Vec<_>>()
    };
    let mut all: Vec<Address> = published.iter().flat_map(of).collect();
    all.sort();
    all
}

fn parse(text: &str) -> Result<(u16, String)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = port.parse().ok().filter(|port| *port > 0);
    let number =
        number.ok_or_else(|| anyhow!("cannot look for the port {text:?}: it is not PORT[/PROTOCOL]"))?;
    Ok((number, protocol.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        assert_eq!(parse("80").unwrap(), (80, "tcp".to_owned()));
        assert_eq!(parse("53/UDP").unwrap(), (53, "udp".to_owned()));
        for bad in ["", "x", "0", "65536", "80-81", "/tcp"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
