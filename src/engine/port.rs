//! port: which ports of a container are published where, as its record has it.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Engine;

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
}

/// What is published of a container, in order. Nothing of one that does not run.
pub fn port(engine: &Engine, wanted: &str) -> Result<Vec<Published>> {
    let dir = engine.find(wanted)?;
    let record = dir.record()?;
    if super::reap::settled(&engine.store, &dir)?.run().is_none() {
        return Ok(Vec::new());
    }
    let mut all: Vec<Published> = record
        .options
        .get("published")
        .and_then(|published| serde_json::from_value(published.clone()).ok())
        .unwrap_or_default();
    all.sort();
    Ok(all)
}
