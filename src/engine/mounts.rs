//! What is mounted in a container: what was typed, what the image wants, what other containers have; and making and
//! filling the volumes among it.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Engine;
use crate::error::ResultExt;
use crate::fs;
use crate::host::Ids;
use crate::oci::DiffId;
use crate::oci::image::ImageConfiguration;
use crate::runtime::rootfs::Root;
use crate::spec::mount::{Mount, Origin, normal};
use crate::spec::mounts::Places;
use crate::spec::options::{ImageVolumes, Options};
use crate::store::container::{ContainerDir, Record, Source, VolumeUse};
use crate::store::journal::{Event, Kind, note_all};
use crate::store::view::View;
use crate::store::volume::{self, Volume, copy_up};
use crate::store::{Store, image, layer, mapped, view};
use crate::supervisor::moves_of;

/// What there is to know about the mounts of a container that is planned.
#[derive(Debug, Default)]
pub struct Planned {
    /// How volumes and images are mounted.
    pub places: Places,
    /// Volumes that it uses.
    pub volumes: Vec<VolumeUse>,
    /// Layers of the images that are mounted.
    pub layers: Vec<DiffId>,
}

/// The file in a container's directory that says that its volumes are yet to be filled.
pub const UNFILLED: &str = "unfilled";

/// Completes the mounts of `options`: with those of other containers, and with the image's volumes. Makes nothing.
pub fn plan(engine: &Engine, options: &mut Options, image: Option<&ImageConfiguration>) -> Result<Planned> {
    refuse_twice(&options.mounts)?;
    add_volumes_from(engine, options)?;
    add_image_volumes(options, image);
    let mut planned = Planned::default();
    planned.places.userxattr = engine.store.ids != Ids::Root;
    for mount in &mut options.mounts {
        match mount {
            Mount::Volume { .. } => plan_volume(&engine.store, mount, &mut planned)?,
            Mount::Image { image, .. } => {
                let found = image::find(&engine.store, image)
                    .with_context(|| format!("cannot mount the image {image}"))
                    .hint(format!("bring it here first: dhow pull {image}"))?;
                let dirs = layer::lower_dirs(&engine.store, &found.diff_ids)?;
                planned.places.images.insert(image.clone(), dirs);
                planned.layers.extend(found.diff_ids);
            }
            Mount::Bind { .. } | Mount::Tmpfs { .. } => {}
        }
    }
    Ok(planned)
}

fn refuse_twice(mounts: &[Mount]) -> Result<()> {
    let mut targets = HashSet::new();
    for mount in mounts {
        let target = mount.target();
        anyhow::ensure!(targets.insert(target), "cannot mount twice on {}", target.display());
    }
    Ok(())
}

fn plan_volume(store: &Store, mount: &mut Mount, planned: &mut Planned) -> Result<()> {
    if let Mount::Volume { name, .. } = &mut *mount
        && name.is_empty()
    {
        *name = volume::anonymous_name()?;
    }
    let Some(wanted) = wanted(mount) else { return Ok(()) };
    let found = volume::look_up(store, &wanted.name)?.unwrap_or(wanted);
    let place =
        volume::mount_of(store, &found).with_context(|| format!("cannot use the volume {}", found.name))?;
    let Mount::Volume { target, read_only, .. } = &*mount else { return Ok(()) };
    planned.volumes.push(VolumeUse {
        name: found.name.clone(),
        anonymous: found.anonymous,
        destination: target.clone(),
        read_only: *read_only,
    });
    planned.places.volumes.insert(found.name, place);
    Ok(())
}

/// The volume that a mount asks for, as it is made where there is none.
fn wanted(mount: &Mount) -> Option<Volume> {
    let Mount::Volume { name, anonymous, labels, options, .. } = mount else { return None };
    let (labels, options) = (labels.clone(), options.clone());
    Some(Volume { anonymous: *anonymous, labels, options, ..Volume::new(name) })
}

/// Docker's rule: what is asked for here goes before what others have, and of those the last.
fn add_volumes_from(engine: &Engine, options: &mut Options) -> Result<()> {
    let mut found: Vec<Mount> = Vec::new();
    for text in &options.volumes_from {
        let about = || format!("cannot use the volumes of {text}");
        let (name, is_read_only) = split_from(text).with_context(about)?;
        let record = engine.find(name).and_then(|dir| dir.record()).with_context(about)?;
        let theirs: Options = serde_json::from_value(record.options).context("cannot read the record")?;
        for mut mount in theirs.mounts {
            match &mut mount {
                Mount::Bind { read_only, origin, .. } | Mount::Volume { read_only, origin, .. } => {
                    *read_only |= is_read_only;
                    *origin = Origin::From;
                }
                Mount::Tmpfs { .. } | Mount::Image { .. } => continue,
            }
            if let Mount::Volume { no_copy, .. } = &mut mount {
                *no_copy = true;
            }
            found.retain(|other| other.target() != mount.target());
            found.push(mount);
        }
    }
    found.retain(|mount| options.mounts.iter().all(|own| own.target() != mount.target()));
    options.mounts.extend(found);
    Ok(())
}

/// `NAME[:ro|rw]`; SELinux's words mean nothing here.
fn split_from(text: &str) -> Result<(&str, bool)> {
    let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
    match mode {
        "ro" => Ok((name, true)),
        "rw" | "z" | "Z" | "" => Ok((name, false)),
        other => Err(anyhow!("there is no mode {other:?}")).hint("it is ro or rw"),
    }
}

fn add_image_volumes(options: &mut Options, image: Option<&ImageConfiguration>) {
    let volumes = image.and_then(|i| i.config().as_ref()).and_then(|c| c.volumes().clone());
    let mut targets: Vec<PathBuf> = volumes.unwrap_or_default().iter().map(|path| normal(path)).collect();
    // In an order that does not change from run to run.
    targets.sort();
    for target in targets {
        let is_taken = options.mounts.iter().any(|mount| mount.target() == target);
        if is_taken || target == Path::new("/") {
            continue;
        }
        match options.image_volumes {
            ImageVolumes::Volume => options.mounts.push(Mount::volume("", target, Origin::Image)),
            ImageVolumes::Tmpfs => {
                options.mounts.push(Mount::Tmpfs { target, options: Vec::new(), origin: Origin::Image });
            }
            ImageVolumes::Ignore => {}
        }
    }
}

/// Makes the volumes that are missing. The caller keeps off who removes volumes; the container's record is there.
pub fn make_volumes(store: &Store, options: &Options, places: &Places) -> Result<()> {
    let mut events = Vec::new();
    for mount in &options.mounts {
        let (Mount::Volume { name, .. }, Some(wanted)) = (mount, wanted(mount)) else { continue };
        volume::check_name(name)?;
        let (volume, is_new) = volume::ensure(store, &wanted)?;
        if is_new {
            events.push(Event::now(Kind::Volume, "create", name).with("driver", "local"));
        }
        if places.volumes.get(name) != Some(&volume::mount_of(store, &volume)?) {
            return Err(anyhow!("it was replaced by another of its name meanwhile"))
                .with_context(|| format!("cannot use the volume {name}"))
                .hint("try again");
        }
    }
    note_all(store, &events);
    Ok(())
}

/// Whether what the image has is to be copied to volumes of this container.
pub fn is_filling_wanted(options: &Options) -> bool {
    options.mounts.iter().any(|mount| matches!(mount, Mount::Volume { no_copy: false, subpath: None, .. }))
}

/// Copies what the image has to the volumes that are empty, and notes that it is done.
pub fn fill_volumes(store: &Store, dir: &ContainerDir, record: &Record, options: &Options) -> Result<()> {
    let mut image: Option<(View, Root)> = None;
    for mount in &options.mounts {
        let Mount::Volume { name, target, no_copy: false, subpath: None, .. } = mount else { continue };
        let Some(volume) = volume::look_up(store, name)? else { continue };
        if !copy_up::is_wanted(store, &volume)? {
            continue;
        }
        let about = || format!("cannot copy {} of the image to the volume {name}", target.display());
        let (_, root) = match &mut image {
            Some(image) => image,
            None => image.insert(open_image(store, dir, record).with_context(about)?),
        };
        if let Some(source) = directory_in(root, target).with_context(about)? {
            let path = PathBuf::from(format!("/proc/self/fd/{}/.", source.as_raw_fd()));
            copy_up::fill(store, &volume, &path).with_context(about)?;
        }
    }
    fs::remove_file(&dir.file(UNFILLED))
}

/// What was cut short when the container was made is done before it starts.
pub fn fill_if_unfilled(store: &Store, dir: &ContainerDir, record: &Record) -> Result<()> {
    if record.volumes.is_empty() || fs::metadata(&dir.file(UNFILLED))?.is_none() {
        return Ok(());
    }
    let options: Options =
        serde_json::from_value(record.options.clone()).context("cannot read the record")?;
    let held_off = volume::hold_off(store)?;
    for wanted in options.mounts.iter().filter_map(wanted) {
        volume::ensure(store, &wanted)?;
    }
    drop(held_off);
    fill_volumes(store, dir, record, &options)
}

fn open_image(store: &Store, dir: &ContainerDir, record: &Record) -> Result<(View, Root)> {
    let lower = match &record.source {
        Source::Image { diff_ids, .. } => match moves_of(store, dir, record)? {
            Some(moves) => vec![mapped::tree(store, diff_ids, moves)?],
            None => layer::lower_dirs(store, diff_ids)?,
        },
        Source::Dir { path, .. } => vec![path.clone()],
    };
    let view = view::open(store, &lower)?;
    let root = Root::from(view.root.try_clone().context("cannot use the image's root")?);
    Ok((view, root))
}

/// The directory that a mount on `target` would hide; symlinks lead nowhere but inside.
fn directory_in(root: &Root, target: &Path) -> Result<Option<OwnedFd>> {
    match root.open(target, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        // A dangling link, or one into nowhere: there is nothing to copy.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
