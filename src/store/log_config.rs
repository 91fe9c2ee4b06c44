//! Where a container's log goes and how, as it was asked for: part of its record. What the words mean is known to
//! `supervisor::log`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `--log-driver` and `--log-opt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// json-file, local, none, syslog, journald.
    pub driver: String,
    /// By key.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { driver: "json-file".into(), options: BTreeMap::new() }
    }
}
