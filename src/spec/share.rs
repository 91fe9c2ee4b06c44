//! Whose name spaces a container is in. Plain data, kept in the record.

use serde::{Deserialize, Serialize};

/// Whose name space a container is in.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub enum Share {
    /// One of its own.
    #[default]
    Private,
    /// One of its own, which other containers may join (IPC).
    Shareable,
    /// One of its own, with no /dev/shm (IPC).
    Nothing,
    /// The host's.
    Host,
    /// That of another container: its id, once the container is planned; before that, as typed.
    Container(String),
}

impl Share {
    /// Whether nothing was asked for.
    pub fn is_private(&self) -> bool {
        *self == Share::Private
    }

    /// Whether it is a name space of its own.
    pub fn is_own(&self) -> bool {
        matches!(self, Share::Private | Share::Shareable | Share::Nothing)
    }

    /// The other container.
    pub fn container(&self) -> Option<&str> {
        match self {
            Share::Container(id) => Some(id),
            _ => None,
        }
    }
}

/// What stands in config.json as the path of another container's name space, before its id; a start puts the real one in.
pub const OF_CONTAINER: &str = "container:";
