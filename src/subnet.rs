//! A subnet: addresses that share their first bits, `10.1.2.0/24` or `fd00::/64`. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Error, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

/// A subnet. Invariant: no bit behind the prefix is set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The subnet that `address` lies in, whose first `prefix` bits are shared; a prefix that is too long is the longest.
    pub fn of(address: IpAddr, prefix: u8) -> Subnet {
        let prefix = prefix.min(bits(address));
        let kept = number(address) & mask(prefix, bits(address));
        Subnet { address: to_address(kept, address), prefix }
    }

    /// The lowest address, which is the subnet's own.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits are shared.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it is one of IPv6.
    pub fn is_v6(self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether the address lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        self.is_v6() == address.is_ipv6() && Subnet::of(address, self.prefix) == self
    }

    /// Whether both have an address in common.
    pub fn overlaps(self, other: Subnet) -> bool {
        if self.prefix <= other.prefix { self.contains(other.address) } else { other.contains(self.address) }
    }

    /// The address `n` above the lowest; `None` if that is none of its own.
    pub fn nth(self, n: u128) -> Option<IpAddr> {
        (n <= self.last_index()).then(|| to_address(number(self.address) + n, self.address))
    }

    /// How far above the lowest the highest address is.
    pub fn last_index(self) -> u128 {
        full(bits(self.address) - self.prefix)
    }

    /// How far an address of it is above the lowest.
    pub fn index_of(self, address: IpAddr) -> u128 {
        number(address).saturating_sub(number(self.address))
    }

    /// The highest address, which in IPv4 reaches all.
    pub fn broadcast(self) -> IpAddr {
        to_address(number(self.address) + self.last_index(), self.address)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn full(bits: u8) -> u128 {
    if bits == 128 { u128::MAX } else { (1 << bits) - 1 }
}

fn mask(prefix: u8, bits: u8) -> u128 {
    full(bits) & !full(bits - prefix)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn to_address(number: u128, like: IpAddr) -> IpAddr {
    if like.is_ipv6() { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
}

impl FromStr for Subnet {
    type Err = Error;

    /// Reads `ADDRESS/PREFIX`; bits behind the prefix are dropped.
    fn from_str(text: &str) -> Result<Subnet> {
        let about = || anyhow!("{text:?} is not a subnet, as 10.1.2.0/24 is");
        let (address, prefix) = text.split_once('/').ok_or_else(about)?;
        let address: IpAddr = address.parse().map_err(|_| about())?;
        let prefix: u8 = prefix.parse().map_err(|_| about())?;
        ensure!(prefix <= bits(address), about());
        Ok(Subnet::of(address, prefix))
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;

    fn try_from(text: String) -> Result<Subnet> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_read_and_counted() {
        let check = |text: &str, want: &str| {
            let got = match text.parse::<Subnet>() {
                Ok(s) => format!("{s} {} {}", s.broadcast(), s.nth(1).map_or("-".into(), |a| a.to_string())),
                Err(_) => "refused".to_owned(),
            };
            assert_eq!(got, want, "{text}");
        };
        check("10.1.2.3/24", "10.1.2.0/24 10.1.2.255 10.1.2.1");
        check("0.0.0.0/0", "0.0.0.0/0 255.255.255.255 0.0.0.1");
        check("10.0.0.1/32", "10.0.0.1/32 10.0.0.1 -");
        check("fd00::5/64", "fd00::/64 fd00::ffff:ffff:ffff:ffff fd00::1");
        check("::/0", "::/0 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ::1");
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            check(wrong, "refused");
        }
    }

    #[test]
    fn overlaps_and_contains() {
        let s = |text: &str| text.parse::<Subnet>().unwrap();
        assert!(s("10.0.0.0/8").overlaps(s("10.9.0.0/16")) && s("10.9.0.0/16").overlaps(s("10.0.0.0/8")));
        assert!(!s("10.9.0.0/16").overlaps(s("10.8.0.0/16")) && !s("10.0.0.0/8").overlaps(s("fd00::/8")));
        assert!(s("0.0.0.0/0").contains("1.2.3.4".parse().unwrap()));
        assert!(!s("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert_eq!(s("10.1.0.0/16").index_of("10.1.1.2".parse().unwrap()), 258);
    }
}
