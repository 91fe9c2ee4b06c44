//! A mount that was asked for, by a flag, an image or another container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Who asked for a mount: inspect tells them apart.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
pub enum Origin {
    /// -v, or --tmpfs.
    #[default]
    Volume,
    /// --mount.
    Mount,
    /// The image's VOLUME.
    Image,
    /// --volumes-from.
    From,
}

/// What being read-only means for the mounts beneath a bind mount.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
pub enum Recursive {
    /// They are read-only, too.
    #[default]
    Enabled,
    /// They stay as they are.
    Writable,
    /// They are read-only, and it is an error if they cannot be.
    ReadOnly,
}

/// A mount that was asked for.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub enum Mount {
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path in the container.
        target: PathBuf,
        /// Not writable.
        read_only: bool,
        /// `rprivate`, `rshared`...
        propagation: Option<String>,
        /// Submounts stay behind.
        non_recursive: bool,
        /// A missing source is made, as -v does.
        create_source: bool,
        /// What becomes of submounts.
        #[serde(default)]
        recursive: Recursive,
        /// What the container's user writes belongs to the caller.
        #[serde(default)]
        own: bool,
        /// Who asked.
        #[serde(default)]
        origin: Origin,
    },
    /// A volume.
    Volume {
        /// Its name; empty where none was given, until one is made up.
        name: String,
        /// Absolute path in the container.
        target: PathBuf,
        /// Not writable.
        read_only: bool,
        /// Nobody gave it its name.
        anonymous: bool,
        /// Stays empty where it is empty.
        no_copy: bool,
        /// What is mounted of it, without a slash at its beginning.
        subpath: Option<PathBuf>,
        /// `rprivate`, `rshared`...
        propagation: Option<String>,
        /// Labels for one that is made.
        labels: BTreeMap<String, String>,
        /// Options of the driver for one that is made.
        options: BTreeMap<String, String>,
        /// Who asked.
        origin: Origin,
    },
    /// An image's root, read-only.
    Image {
        /// As typed.
        image: String,
        /// Absolute path in the container.
        target: PathBuf,
        /// What is mounted of it.
        subpath: Option<PathBuf>,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Absolute path in the container.
        target: PathBuf,
        /// mount(8) options.
        options: Vec<String>,
        /// Who asked.
        #[serde(default)]
        origin: Origin,
    },
}

/// Without `.`, `..` and double slashes: what is mounted upon must be what is compared.
pub fn normal(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}

impl Mount {
    /// Where it is seen in the container.
    pub fn target(&self) -> &Path {
        match self {
            Mount::Bind { target, .. }
            | Mount::Volume { target, .. }
            | Mount::Image { target, .. }
            | Mount::Tmpfs { target, .. } => target,
        }
    }

    /// A writable bind mount of what exists.
    pub fn bind(source: &Path, target: &Path) -> Mount {
        Mount::Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only: false,
            propagation: None,
            non_recursive: false,
            create_source: false,
            recursive: Recursive::Enabled,
            own: false,
            origin: Origin::Mount,
        }
    }

    /// A volume without anything special about it; one without a name gets one when the container is planned.
    pub fn volume(name: &str, target: PathBuf, origin: Origin) -> Mount {
        Mount::Volume {
            name: name.to_owned(),
            target,
            read_only: false,
            anonymous: name.is_empty(),
            no_copy: false,
            subpath: None,
            propagation: None,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            origin,
        }
    }
}
