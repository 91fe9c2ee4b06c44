//! Addresses for networks that nobody chose any for: small subnets, from ranges that few others use, and none that the
//! machine has a route to, such as a VPN's. Pure.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Result, anyhow, ensure};

use crate::error::ResultExt;
use crate::store::network::Pool;
use crate::subnet::Subnet;

/// Where subnets are taken from, and how long their prefixes are: for user networks and for the default one.
const RANGES: [&str; 3] = ["10.208.0.0/12", "172.28.0.0/14", "192.168.192.0/18"];
const PREFIX: u8 = 24;
const DEFAULT_PREFIX: u8 = 20;

/// A subnet of IPv4 that overlaps none of `used`.
pub fn choose(used: &[Subnet], is_default: bool) -> Result<Subnet> {
    let prefix = if is_default { DEFAULT_PREFIX } else { PREFIX };
    for range in RANGES {
        let range: Subnet = range.parse()?;
        let step = 1_u128 << (32 - prefix);
        // The default one at the end, so that it is not in the way of those that are counted up.
        let count = (range.last_index() + 1) / step;
        let nth = |n: u128| range.nth(if is_default { count - 1 - n } else { n } * step);
        let mut subnets = (0..count).filter_map(nth).map(|address| Subnet::of(address, prefix));
        if let Some(free) = subnets.find(|subnet| !used.iter().any(|other| other.overlaps(*subnet))) {
            return Ok(free);
        }
    }
    Err(anyhow!("there is no subnet left that this machine has no route to"))
        .hint("choose one: dhow network create --subnet 10.1.2.0/24 NAME")
}

/// A subnet of IPv6 for the network with this id: unique and local (RFC 4193), its 40 bits those of the id.
pub fn choose_v6(id: &str) -> Subnet {
    let digits = id.get(..10).unwrap_or("0");
    let bits = u64::from_str_radix(digits, 16).unwrap_or(0).to_be_bytes();
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&bits[3..]);
    Subnet::of(Ipv6Addr::from(octets).into(), 64)
}

/// A pool over a subnet, with the gateway that was asked for or the first address.
pub fn of_subnet(subnet: Subnet, gateway: Option<IpAddr>, range: Option<Subnet>) -> Result<Pool> {
    if let Some(gateway) = gateway {
        ensure!(subnet.contains(gateway), "its gateway {gateway} is not in {subnet}");
    }
    if let Some(range) = range {
        ensure!(
            subnet.contains(range.address()) && range.prefix() >= subnet.prefix(),
            "its range {range} is not in {subnet}"
        );
    }
    let longest = if subnet.is_v6() { 126 } else { 30 };
    ensure!(subnet.prefix() <= longest, "its subnet {subnet} has no room for a gateway and a container");
    Ok(Pool { subnet, gateway: gateway.or(subnet.nth(1)), range, reserved: Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_routed_is_not_chosen() {
        let check = |used: &[&str], want: &str| {
            let used: Vec<Subnet> = used.iter().map(|text| text.parse().unwrap()).collect();
            let got = choose(&used, false).map_or_else(|_| "none".to_owned(), |subnet| subnet.to_string());
            assert_eq!(got, want, "{used:?}");
        };
        check(&[], "10.208.0.0/24");
        check(&["10.208.0.0/24", "10.208.1.128/25"], "10.208.2.0/24");
        check(&["10.0.0.0/8"], "172.28.0.0/24");
        check(&["10.0.0.0/8", "172.16.0.0/12"], "192.168.192.0/24");
        check(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], "none");
        check(&["10.208.0.0/13"], "10.216.0.0/24");
        assert_eq!(choose(&[], true).unwrap().to_string(), "10.223.240.0/20");
        assert_eq!(choose_v6("0123456789ab").to_string(), "fd01:2345:6789::/64");
    }

    #[test]
    fn pools_have_a_gateway() {
        let s = |text: &str| text.parse::<Subnet>().unwrap();
        assert_eq!(
            of_subnet(s("10.1.2.0/24"), None, None).unwrap().gateway,
            Some("10.1.2.1".parse().unwrap())
        );
        assert!(of_subnet(s("10.1.2.0/31"), None, None).is_err());
        assert!(of_subnet(s("10.1.2.0/24"), Some("10.1.3.1".parse().unwrap()), None).is_err());
        assert!(of_subnet(s("10.1.2.0/24"), None, Some(s("10.1.0.0/16"))).is_err());
    }
}
