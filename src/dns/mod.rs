//! What a resolver knows before it asks anybody: resolv.conf(5) and hosts(5), as the machine has them. Asking for the
//! engine itself is `registry::resolver`; answering containers is `network::resolver`.

mod files;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

pub use files::{Configuration, configuration, hosts};

use crate::fs;

/// Where the machine says whom to ask.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where the machine says whom it knows.
pub const HOSTS: &str = "/etc/hosts";

/// Whom this machine asks, where the lines in `more` do not say otherwise. A file that cannot be read is as good as none.
pub fn configuration_of_machine(more: &str) -> Configuration {
    configuration_of(&format!("{}\n{more}", text(RESOLV_CONF)))
}

/// Whom to ask by this text, which is one of resolv.conf.
pub fn configuration_of(text: &str) -> Configuration {
    configuration(text, interface_index)
}

/// The hosts that this machine knows. A file that cannot be read is as good as none.
pub fn hosts_of_machine() -> HashMap<String, Vec<IpAddr>> {
    hosts(&text(HOSTS))
}

fn text(path: &str) -> String {
    fs::read_to_string_if_exists(Path::new(path)).ok().flatten().unwrap_or_default()
}

/// The number of a network interface: the scope of a link-local address (`fe80::1%eth0`).
fn interface_index(interface: &str) -> Option<u32> {
    match interface.parse() {
        Ok(index) => Some(index),
        Err(_) if interface.contains(['/', '.']) => None,
        Err(_) => text(&format!("/sys/class/net/{interface}/ifindex")).trim().parse().ok(),
    }
}
