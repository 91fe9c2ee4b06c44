//! The record of a container: what was asked for when it was made, in record.json of its directory.
//!
//! Invariant: records of older versions are read: what came later has a default.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::health::Healthcheck;
use super::log_config::LogConfig;
use super::person::Person;
use super::restart::Restart;
use crate::endpoint::Wiring;
use crate::host::{InnerIds, OwnIds};
use crate::oci::DiffId;

/// What was asked for when the container was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// 64 hex digits.
    pub id: String,
    /// The name, without a slash.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Where its root comes from.
    pub source: Source,
    /// Other stores that layers of it lie in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_stores: Vec<PathBuf>,
    /// `user[:group]` as typed or as the image has it.
    pub user: String,
    /// Whether the user of -e HOME is kept: false lets the user's home be looked up.
    pub has_home: bool,
    /// Removed when it ends.
    pub auto_remove: bool,
    /// A pty.
    pub terminal: bool,
    /// stdin stays open.
    pub interactive: bool,
    /// The built-in init.
    pub init: bool,
    /// Signal that asks it to stop, a number.
    pub stop_signal: i32,
    /// Seconds until it is killed after that.
    pub stop_timeout: u64,
    /// Whether it runs again when it ended.
    #[serde(default, skip_serializing_if = "Restart::is_no")]
    pub restart: Restart,
    /// Seconds after which a run of it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Who of this machine it runs as, if it is a shell's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<Person>,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Whether limits that cannot be had are an error.
    pub strict_limits: bool,
    /// Whether the log is kept.
    pub log: bool,
    /// What the image and the flags came to, for listings and inspect.
    #[serde(default)]
    pub config: Config,
    /// Where it goes and how.
    #[serde(default)]
    pub log_config: LogConfig,
    /// The caller is themselves in it, or nobody, and not root: an inner user name space with these ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<InnerIds>,
    /// It has these ids, and a user name space of its own with them, which no other container shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<OwnIds>,
    /// Whom it was made for, as far as something in it is to be theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// The volumes that it uses: what keeps them from being removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeUse>,
    /// Layers of images that are mounted in it besides its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounted_layers: Vec<DiffId>,
    /// Its health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What it asks of networks.
    #[serde(default)]
    pub wiring: Wiring,
    /// The options as the engine understands them, for inspect.
    pub options: serde_json::Value,
}

/// The person who made a container.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Caller {
    /// User id on this machine.
    pub uid: u32,
    /// Group id on this machine.
    pub gid: u32,
    /// Name.
    pub name: String,
}

/// A volume that a container uses.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct VolumeUse {
    /// The volume's name.
    pub name: String,
    /// Whether nobody gave it that name: then it goes with the last container that uses it.
    pub anonymous: bool,
    /// Where it is in the container.
    #[serde(default)]
    pub destination: PathBuf,
    /// Whether it cannot be written to there.
    #[serde(default)]
    pub read_only: bool,
}

/// Where a container's root comes from.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub enum Source {
    /// Layers of an image.
    Image {
        /// The image as typed.
        name: String,
        /// Config digest, `sha256:...`.
        id: String,
        /// Layers, lowest first.
        diff_ids: Vec<DiffId>,
    },
    /// A directory of the host, itself or (`throw_away`) beneath an overlay.
    Dir {
        /// Absolute path.
        path: PathBuf,
        /// Changes go to an overlay and away with the container.
        throw_away: bool,
    },
}
