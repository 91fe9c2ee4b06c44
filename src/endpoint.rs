//! What a container asks of networks ([`Wiring`]) and the words for it: endpoints, ports, links. Plain data, as typed and
//! as its record keeps it; what came of it while it runs is `store::wired`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The name of the network that a container is in where nothing else was said.
pub const DEFAULT: &str = "bridge";

/// Which network name space a container is in.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub enum Network {
    /// The host's own.
    #[default]
    Host,
    /// Its own, with a loopback device and nothing else.
    None,
    /// Its own, joined to networks: see [`Wiring::endpoints`].
    Own,
    /// That of another container; its id.
    Container(String),
}

/// What a container asks of networks. In its record; `network connect` and `disconnect` change it there.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Wiring {
    /// Which name space.
    pub network: Network,
    /// The networks that it is joined to; the first one's gateway is its way to the outside. Empty unless `Network::Own`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// It may use other addresses than it is given: it has CAP_NET_ADMIN because somebody said so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_trusted: bool,
    /// Ports to publish; those of --publish-all among them, with any host port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// --link, with whom it meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Name servers in place of the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Search domains in place of the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Options of resolv.conf in place of the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_options: Vec<String>,
}

/// One network that a container is to be joined to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Endpoint {
    /// The network's name (never an id: whoever parses looks it up).
    pub network: String,
    /// This address and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// This IPv6 address and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip6: Option<Ipv6Addr>,
    /// This hardware address, `02:42:...`, and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Names for it in this network, besides its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Names that it alone has for others in this network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// The networks come in the order of these, the highest first.
    #[serde(skip_serializing_if = "is_zero")]
    pub gateway_priority: i64,
    /// What its interface is called inside; `eth0`, `eth1`... otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Endpoint {
    /// On this network, with nothing asked for.
    pub fn on(network: &str) -> Endpoint {
        Endpoint { network: network.to_owned(), ..Endpoint::default() }
    }
}

/// A name that a container has for another one: `--link TARGET:ALIAS`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Link {
    /// The other one's name, as typed: a link follows the name when its bearer is replaced.
    pub target: String,
    /// What it is called here.
    pub alias: String,
}

/// A port that is to be published.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Port {
    /// Of the host; empty for all.
    pub address: String,
    /// First and last port of the host that will do; any without.
    pub host: Option<(u16, u16)>,
    /// In the container.
    pub container_port: u16,
    /// tcp, udp or sctp.
    pub protocol: String,
}

/// A port that is published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// In the container.
    pub container_port: u16,
    /// tcp, udp or sctp.
    pub protocol: String,
    /// The address on the host; empty for all.
    #[serde(default)]
    pub host_ip: String,
    /// On the host.
    pub host_port: u16,
}

impl Published {
    /// `ADDRESS:PORT`.
    pub fn host(&self) -> String {
        match self.host_ip.as_str() {
            "" => format!("0.0.0.0:{}", self.host_port),
            ip if ip.contains(':') => format!("[{ip}]:{}", self.host_port),
            ip => format!("{ip}:{}", self.host_port),
        }
    }

    /// The one address on the host; `None` for all.
    pub fn address(&self) -> Option<IpAddr> {
        self.host_ip.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified())
    }
}
