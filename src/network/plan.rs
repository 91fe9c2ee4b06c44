//! What joining a container comes to: records and claimed addresses -> links, addresses, routes, rules. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::endpoint::Published;
use crate::store::network::wired::{End, Wired};
use crate::store::network::{Driver, Network};

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// The network that a container's ends hang on, in the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its link's name.
    pub link: String,
    /// Its addresses with the lengths of their prefixes; the gateways of its pools.
    pub addresses: Vec<(IpAddr, u8)>,
    /// No way out or in.
    pub internal: bool,
    /// Bytes a packet; that of the way out where nothing was asked for.
    pub mtu: Option<u32>,
}

/// One pair of links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// What it hangs on.
    pub bridge: Bridge,
    /// The end in the place.
    pub link: String,
    /// The end in the container.
    pub interface: String,
    /// The container's.
    pub mac: Mac,
    /// Inside, with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default routes inside; none where another network has the way out, or there is none.
    pub gateways: Vec<IpAddr>,
    /// The container may use other addresses than these: it was given CAP_NET_ADMIN.
    pub is_trusted: bool,
}

/// A link of its own on a device of the machine, without bridge and firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDevice {
    /// Its interface, addresses and gateways; neither bridge nor end in the place.
    pub join: Join,
    /// `macvlan` or `ipvlan`.
    pub kind: &'static str,
    /// How containers on it reach each other: the kernel's number.
    pub mode: u32,
    /// The device.
    pub parent: String,
}

/// All that is to be brought about for one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of its wiring.
    pub joins: Vec<Join>,
    /// Those of its networks that are no bridges.
    pub devices: Vec<OnDevice>,
    /// What comes for a port of the host, and goes to which address of the container.
    pub ports: Vec<(Published, Vec<IpAddr>)>,
}

/// The plan of a container that is wired so. `networks` are those of its ends, in the same order.
pub fn plan(wired: &Wired, networks: &[Network], is_trusted: bool) -> Plan {
    let gateway_end = |is_v6: bool| {
        wired.ends.iter().position(|end| {
            !end.internal
                && if is_v6 { end.gateway6.is_some() && end.ipv6.is_some() } else { end.gateway4.is_some() }
        })
    };
    let (way4, way6) = (gateway_end(false), gateway_end(true));
    let join = |(n, (end, network)): (usize, (&End, &Network))| Join {
        bridge: bridge(network),
        link: end.link.clone(),
        interface: end.interface.clone(),
        mac: parse_mac(&end.mac).unwrap_or(Mac([2, 0, 0, 0, 0, 0])),
        addresses: prefixed(end),
        gateways: [
            end.gateway4.filter(|_| way4 == Some(n)).map(IpAddr::from),
            end.gateway6.filter(|_| way6 == Some(n)).map(IpAddr::from),
        ]
        .into_iter()
        .flatten()
        .collect(),
        is_trusted,
    };
    let (mut joins, mut devices) = (Vec::new(), Vec::new());
    for (n, (end, network)) in wired.ends.iter().zip(networks).enumerate() {
        let join = join((n, (end, network)));
        match network.driver {
            Driver::Bridge => joins.push(join),
            driver => {
                let (kind, mode) = mode(driver, &network.options);
                let parent = network.options.get("parent").cloned().unwrap_or_default();
                devices.push(OnDevice { join, kind, mode, parent });
            }
        }
    }
    // What comes from outside reaches the end by which the answers go back.
    let address = |way: Option<usize>, is_v6: bool| {
        way.filter(|n| networks.get(*n).is_none_or(|network| network.driver == Driver::Bridge))
            .and_then(|n| wired.ends[n].addresses().find(|address| address.is_ipv6() == is_v6))
    };
    let targets: Vec<IpAddr> = address(way4, false).into_iter().chain(address(way6, true)).collect();
    let ports = wired.ports.iter().map(|port| (port.clone(), targets.clone())).collect();
    Plan { joins, devices, ports }
}

/// Kind and mode of links on a device (linux/if_link.h), from docker's options.
fn mode(driver: Driver, options: &BTreeMap<String, String>) -> (&'static str, u32) {
    let key = format!("{}_mode", driver.word());
    let word = options.get("mode").or(options.get(&key)).map_or("", String::as_str);
    match (driver, word) {
        (Driver::Ipvlan, "l3") => ("ipvlan", 1),
        (Driver::Ipvlan, "l3s") => ("ipvlan", 2),
        (Driver::Ipvlan, _) => ("ipvlan", 0),
        (_, "private") => ("macvlan", 1),
        (_, "vepa") => ("macvlan", 2),
        (_, "passthru") => ("macvlan", 8),
        _ => ("macvlan", 4),
    }
}

/// The bridge of a network.
pub fn bridge(network: &Network) -> Bridge {
    let address =
        |pool: &crate::store::network::Pool| pool.gateway.map(|gateway| (gateway, pool.subnet.prefix()));
    Bridge {
        link: network.bridge(),
        addresses: network.pools.iter().filter_map(address).collect(),
        internal: network.internal,
        mtu: network.mtu(),
    }
}

fn prefixed(end: &End) -> Vec<(IpAddr, u8)> {
    let v4 = end.ipv4.map(|(address, prefix)| (IpAddr::from(address), prefix));
    v4.into_iter().chain(end.ipv6.map(|(address, prefix)| (IpAddr::from(address), prefix))).collect()
}

/// The hardware address that goes with an IPv4 address: who gets the address later gets the same, and no neighbour needs to
/// learn anew. The first byte says that it is locally administered.
pub fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x42, a, b, c, d])
}

/// Reads `02:42:0a:01:02:03`.
pub fn parse_mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && bytes[0] & 1 == 0).then_some(Mac(bytes))
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// How links of containers begin whose frames are looked at.
pub const GUARDED: &str = "dhv";
/// And of those that may use any address.
pub const TRUSTED: &str = "dht";

/// What the host's end of a container's pair is called, that leads to this network: `dhv`, or `dht` where the container is
/// trusted with addresses, and digits of both ids. 15 bytes, which is all that a name has (IFNAMSIZ).
pub fn link_of(container: &str, network_id: &str, is_trusted: bool) -> String {
    let digits = |id: &str, n| id.get(..n).unwrap_or(id).to_owned();
    format!("{}{}{}", if is_trusted { TRUSTED } else { GUARDED }, digits(container, 9), digits(network_id, 3))
}

/// As much of the plan as can be told without the records of its networks: enough to undo it.
pub fn leftover(wired: &Wired) -> Plan {
    let network = |end: &End| Network {
        name: end.network.clone(),
        internal: end.internal,
        options: [("com.docker.network.bridge.name".to_owned(), end.bridge.clone())].into(),
        ..Network::new(&end.network, end.network_id.clone())
    };
    plan(wired, &wired.ends.iter().map(network).collect::<Vec<_>>(), false)
}
