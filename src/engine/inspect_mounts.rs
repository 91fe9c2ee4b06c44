//! The mounts of a container as docker's inspect shows them: as they were asked for, and as they are.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::spec::mount::{Mount, Origin, Recursive};
use crate::spec::options::Options;
use crate::store::{Store, volume};

/// HostConfig.Binds: what -v asked for, apart from anonymous volumes.
pub fn binds(options: &Options) -> Vec<String> {
    let text = |source: &str, target: &Path, words: &[(bool, &str)], propagation: &Option<String>| {
        let mut words: Vec<&str> =
            words.iter().filter(|(is_set, _)| *is_set).map(|(_, word)| *word).collect();
        words.extend(propagation.as_deref());
        let colon = if words.is_empty() { "" } else { ":" };
        format!("{source}:{}{colon}{}", target.display(), words.join(","))
    };
    let bind = |mount: &Mount| match mount {
        Mount::Bind { source, target, read_only, propagation, own, origin: Origin::Volume, .. } => {
            let words = [(*read_only, "ro"), (*own, "own")];
            Some(text(&source.display().to_string(), target, &words, propagation))
        }
        Mount::Volume {
            name,
            target,
            read_only,
            no_copy,
            propagation,
            anonymous: false,
            origin: Origin::Volume,
            ..
        } => Some(text(name, target, &[(*read_only, "ro"), (*no_copy, "nocopy")], propagation)),
        _ => None,
    };
    options.mounts.iter().filter_map(bind).collect()
}

/// HostConfig.Mounts: what --mount asked for.
pub fn asked(options: &Options) -> Vec<Value> {
    options.mounts.iter().filter_map(one_asked).collect()
}

fn one_asked(mount: &Mount) -> Option<Value> {
    let mut shown = Map::new();
    let mut set = |key: &str, value: Value| drop(shown.insert(key.to_owned(), value));
    match mount {
        Mount::Bind {
            source,
            read_only,
            propagation,
            non_recursive,
            create_source,
            recursive,
            origin: Origin::Mount,
            ..
        } => {
            set("Type", "bind".into());
            set("Source", source.display().to_string().into());
            set("Target", mount.target().display().to_string().into());
            if *read_only {
                set("ReadOnly", true.into());
            }
            let mut options = Map::new();
            if let Some(propagation) = propagation {
                options.insert("Propagation".into(), propagation.as_str().into());
            }
            for (is_set, key) in [
                (*non_recursive, "NonRecursive"),
                (*create_source, "CreateMountpoint"),
                (*recursive == Recursive::Writable, "ReadOnlyNonRecursive"),
                (*recursive == Recursive::ReadOnly, "ReadOnlyForceRecursive"),
            ] {
                if is_set {
                    options.insert(key.into(), true.into());
                }
            }
            if !options.is_empty() {
                set("BindOptions", options.into());
            }
        }
        Mount::Volume {
            name,
            read_only,
            anonymous,
            no_copy,
            subpath,
            labels,
            options,
            origin: Origin::Mount,
            ..
        } => {
            set("Type", "volume".into());
            if !anonymous {
                set("Source", name.as_str().into());
            }
            set("Target", mount.target().display().to_string().into());
            if *read_only {
                set("ReadOnly", true.into());
            }
            let mut shown = Map::new();
            if *no_copy {
                shown.insert("NoCopy".into(), true.into());
            }
            if !labels.is_empty() {
                shown.insert("Labels".into(), json!(labels));
            }
            if let Some(subpath) = subpath {
                shown.insert("Subpath".into(), subpath.display().to_string().into());
            }
            if !options.is_empty() {
                shown.insert("DriverConfig".into(), json!({ "Name": "local", "Options": options }));
            }
            if !shown.is_empty() {
                set("VolumeOptions", shown.into());
            }
        }
        Mount::Image { image, subpath, .. } => {
            set("Type", "image".into());
            set("Source", image.as_str().into());
            set("Target", mount.target().display().to_string().into());
            if let Some(subpath) = subpath {
                set("ImageOptions", json!({ "Subpath": subpath.display().to_string() }));
            }
        }
        Mount::Tmpfs { options, origin: Origin::Mount, .. } => {
            set("Type", "tmpfs".into());
            set("Target", mount.target().display().to_string().into());
            let value = |key: &str| options.iter().find_map(|o| o.strip_prefix(key));
            let mut shown = Map::new();
            if let Some(size) = value("size=").and_then(|v| v.parse::<u64>().ok()) {
                shown.insert("SizeBytes".into(), size.into());
            }
            if let Some(mode) = value("mode=").and_then(|v| u32::from_str_radix(v, 8).ok()) {
                shown.insert("Mode".into(), mode.into());
            }
            if !shown.is_empty() {
                set("TmpfsOptions", shown.into());
            }
        }
        _ => return None,
    }
    Some(shown.into())
}

/// HostConfig.Tmpfs: what --tmpfs asked for; null without.
pub fn tmpfs(options: &Options) -> Value {
    let one = |mount: &Mount| match mount {
        Mount::Tmpfs { target, options, origin: Origin::Volume } => {
            Some((target.display().to_string(), Value::from(options.join(","))))
        }
        _ => None,
    };
    let shown: Map<String, Value> = options.mounts.iter().filter_map(one).collect();
    if shown.is_empty() { Value::Null } else { shown.into() }
}

/// Config.Volumes: where anonymous volumes are, the image's and -v's; null without.
pub fn config_volumes(options: &Options) -> Value {
    let one = |mount: &Mount| match mount {
        Mount::Volume { target, anonymous: true, origin: Origin::Volume | Origin::Image, .. } => {
            Some((target.display().to_string(), json!({})))
        }
        _ => None,
    };
    let shown: Map<String, Value> = options.mounts.iter().filter_map(one).collect();
    if shown.is_empty() { Value::Null } else { shown.into() }
}

/// Mounts: everything that is mounted, whoever asked for it; but for --tmpfs, which docker shows in HostConfig alone.
pub fn mounts(store: &Store, options: &Options) -> Vec<Value> {
    let is_shown = |mount: &&Mount| !matches!(mount, Mount::Tmpfs { origin: Origin::Volume, .. });
    options.mounts.iter().filter(is_shown).map(|mount| one(store, mount)).collect()
}

fn one(store: &Store, mount: &Mount) -> Value {
    let destination = mount.target().display().to_string();
    match mount {
        Mount::Bind { source, read_only, propagation, .. } => json!({
            "Type": "bind",
            "Source": source.display().to_string(),
            "Destination": destination,
            "Mode": if *read_only { "ro" } else { "" },
            "RW": !read_only,
            "Propagation": propagation.as_deref().unwrap_or("rprivate"),
        }),
        Mount::Volume { name, read_only, no_copy, propagation, .. } => {
            let words = [(*read_only, "ro"), (*no_copy, "nocopy")];
            let words: Vec<&str> =
                words.iter().filter(|(is_set, _)| *is_set).map(|(_, word)| *word).collect();
            json!({
                "Type": "volume",
                "Name": name,
                "Source": volume::data(store, name).display().to_string(),
                "Destination": destination,
                "Driver": "local",
                "Mode": words.join(","),
                "RW": !read_only,
                "Propagation": propagation.as_deref().unwrap_or(""),
            })
        }
        Mount::Image { image, .. } => json!({
            "Type": "image",
            "Source": image,
            "Destination": destination,
            "Mode": "ro",
            "RW": false,
            "Propagation": "",
        }),
        Mount::Tmpfs { options, .. } => json!({
            "Type": "tmpfs",
            "Source": "",
            "Destination": destination,
            "Mode": "",
            "RW": !options.iter().any(|o| o == "ro"),
            "Propagation": "",
        }),
    }
}
