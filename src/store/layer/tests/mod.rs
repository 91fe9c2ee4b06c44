//! Tests of the unpacker on archives made in memory, by hand, header by header.

mod archive;
mod copied;
mod formats;
mod hostile;
mod stacked;
mod trees;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::*;
use crate::host::Ids;
use crate::store::tests::Scratch;
use archive::Archive;

/// The ids that this test process has. The tests are meant to be run as root, and again under `unshare -Ur` and
/// `unshare -U --map-users=... --setuid 0`.
fn ids() -> Ids {
    let map = fs::read_to_string(Path::new("/proc/self/uid_map")).unwrap();
    match map.split_whitespace().last() {
        Some("4294967295") => Ids::Root,
        Some("1") => Ids::Single,
        _ => Ids::Ranges { uids: Vec::new(), gids: Vec::new() },
    }
}

fn scratch() -> Scratch {
    Scratch::new(ids())
}

fn unpacked(store: &Store, archive: &[u8]) -> Layer {
    let layer = unpack(store, archive, None).unwrap();
    assert_eq!(layer.diff_id.0, crate::oci::Digest::of(archive));
    assert_eq!(layer.size, archive.len() as u64);
    assert!(written(store, &layer.diff_id) == archive, "the archive comes back as it was");
    for depth in [Depth::Quick, Depth::Full] {
        assert_eq!(verify(store, &layer.diff_id, depth).unwrap(), layer.size, "{depth:?}");
    }
    layer
}

fn written(store: &Store, diff_id: &DiffId) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_tar(store, diff_id, &mut bytes).unwrap();
    bytes
}

/// The layer's tree as lines `PATH KIND MODE DETAIL`, sorted.
fn listing(store: &Store, layer: &Layer) -> Vec<String> {
    let mut lines = Vec::new();
    list_into(&diff(store, layer), "", &mut lines);
    lines.sort();
    lines
}

fn diff(store: &Store, layer: &Layer) -> PathBuf {
    layout::layer(store, &layer.diff_id).join(layout::DIFF)
}

fn list_into(dir: &Path, prefix: &str, lines: &mut Vec<String>) {
    for name in fs::read_dir(dir).unwrap() {
        let path = dir.join(&name);
        let shown = format!("{prefix}{}", name.to_string_lossy());
        let meta = fs::symlink_metadata(&path).unwrap().unwrap();
        let kind = meta.file_type();
        let mode = meta.mode() & 0o7777;
        if kind.is_dir() {
            let opaque = if is_opaque(&path) { " opaque" } else { "" };
            lines.push(format!("{shown} d {mode:o}{opaque}"));
            list_into(&path, &format!("{shown}/"), lines);
        } else if kind.is_symlink() {
            lines.push(format!("{shown} l {}", fs::read_link(&path).unwrap().unwrap().display()));
        } else if kind.is_file() {
            lines.push(format!("{shown} f {mode:o} {}", String::from_utf8_lossy(&fs::read(&path).unwrap())));
        } else if kind.is_char_device() && meta.rdev() == 0 {
            lines.push(format!("{shown} whiteout"));
        } else if kind.is_fifo() {
            lines.push(format!("{shown} p {mode:o}"));
        } else {
            lines.push(format!("{shown} dev {mode:o} {:x}", meta.rdev()));
        }
    }
}

fn is_opaque(path: &Path) -> bool {
    overlay::Overlay::new(&ids()).is_opaque(fs::open(path).unwrap()).unwrap()
}

/// Unpacks the archive and compares the tree.
fn check(archive: Archive, want: &[&str]) {
    let scratch = scratch();
    let layer = unpacked(&scratch.store, &archive.end());
    assert_eq!(listing(&scratch.store, &layer), want);
    assert!(scratch.is_tidy());
}

#[test]
fn what_was_changed_in_a_layer_is_found() {
    let scratch = scratch();
    let store = &scratch.store;
    let archive = Archive::default().dir("d").file("d/f", "text").symlink("d/l", "f").file("d/x", "");
    let layer = unpacked(store, &archive.end());
    let root = diff(store, &layer);
    let home = root.join("d");
    let check = |what: &str, change: &dyn Fn(), undo: &dyn Fn()| {
        change();
        let error = verify(store, &layer.diff_id, Depth::Full).expect_err(what);
        assert!(crate::error::chain(&error).contains("d/"), "{what}: {error:#}");
        undo();
        verify(store, &layer.diff_id, Depth::Full).unwrap();
    };
    let mode = |mode: u32| rustix::fs::chmod(home.join("f"), rustix::fs::Mode::from_raw_mode(mode)).unwrap();
    check("a mode", &|| mode(0o600), &|| mode(0o644));
    let link = |target: &str| fs::symlink(Path::new(target), &home.join("l")).unwrap();
    check("no symlink", &|| fs::remove_file(&home.join("l")).unwrap(), &|| link("f"));
    let relink = |target: &str| {
        fs::remove_file(&home.join("l")).unwrap();
        link(target);
    };
    check("another symlink", &|| relink("g"), &|| relink("f"));
    let move_away = || fs::rename(&home.join("x"), &root.join("x")).unwrap();
    check("no empty file", &move_away, &|| fs::rename(&root.join("x"), &home.join("x")).unwrap());
    let write = |text: &[u8]| fs::write(&home.join("f"), text).unwrap();
    write(b"tExt");
    assert!(verify(store, &layer.diff_id, Depth::Full).is_err());
    verify(store, &layer.diff_id, Depth::Quick).unwrap();
    write(b"longer");
    assert!(verify(store, &layer.diff_id, Depth::Quick).is_err());
}
