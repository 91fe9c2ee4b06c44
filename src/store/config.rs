//! What a container's image and flags together came to, where neither the bundle nor the options say it: what docker calls
//! its `Config`. Kept, because the image may be gone when somebody asks.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The whole command line, program first: a listing need not read the bundle for it.
    pub args: Vec<String>,
    /// The entrypoint, the image's where no flag has another.
    pub entrypoint: Option<Vec<String>>,
    /// The command after it, likewise.
    pub cmd: Option<Vec<String>>,
    /// The ports of the image's EXPOSE: `80/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// The signal as a person wrote it.
    pub stop_signal: Option<String>,
}
