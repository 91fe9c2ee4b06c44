//! Networks as inspect shows them: `NetworkSettings` of a container, and the two networks that are always there.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::Engine;
use super::list;
use crate::error::NotFound;
use crate::spec::options::{Network, Options};
use crate::store::container::State;

/// `NetworkSettings` of a container; `run` is the run that it is in, if it has processes.
pub(super) fn settings(options: &Options, run: Option<&State>) -> Value {
    let networks: Map<String, Value> = match &options.network {
        Network::Host => [("host".to_owned(), endpoint())].into_iter().collect(),
        Network::None => [("none".to_owned(), endpoint())].into_iter().collect(),
        Network::Own => options.networks.iter().map(|end| (end.network.clone(), endpoint())).collect(),
        Network::Container(_) => Map::new(),
    };
    // What nsenter(1) and ip-netns(8) can open.
    let key = run.map_or_else(String::new, |state| format!("/proc/{}/ns/net", state.init.pid));
    json!({
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": key,
        "Ports": {},
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
        "Networks": networks,
    })
}

/// A container's end of a network that has no addresses.
fn endpoint() -> Value {
    json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": null,
        "MacAddress": "",
        "DriverOpts": null,
        "GwPriority": 0,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": null,
    })
}

/// The network `host` or `none`, with the containers that run in it.
pub fn network(engine: &Engine, wanted: &str) -> Result<Value> {
    let driver = match wanted {
        "host" => "host",
        "none" => "null",
        _ => return Err(NotFound { kind: "network", name: wanted.to_owned() }.into()),
    };
    let inside =
        list::list(engine)?.into_iter().filter(|c| c.runs() && c.networks().iter().any(|n| n == wanted));
    let containers: Map<String, Value> = inside
        .map(|c| {
            let shown = json!({ "Name": c.record.name, "EndpointID": "", "MacAddress": "", "IPv4Address": "", "IPv6Address": "" });
            (c.record.id, shown)
        })
        .collect();
    Ok(json!({
        "Name": wanted,
        "Id": "",
        "Created": super::inspect::ZERO_TIME,
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": null },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": {},
        "Labels": {},
    }))
}
