//! Copies of layers, for where overlay cannot be had.

use std::os::unix::fs::FileExt;

use super::archive::Header;
use super::*;

fn own(kind: u8, mode: u32) -> Header {
    Header { uid: 5, gid: 6, ..Header::new(kind).mode(mode) }
}

/// The layers as one directory.
fn copied(scratch: &Scratch, archives: Vec<Archive>) -> PathBuf {
    let store = &scratch.store;
    let layers: Vec<DiffId> = archives.into_iter().map(|a| unpacked(store, &a.end()).diff_id).collect();
    let to = scratch.dir.join("copy");
    copy(store, &lower_dirs(store, &layers).unwrap(), &to).unwrap();
    assert!(scratch.is_tidy());
    to
}

fn lines(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    list_into(dir, "", &mut lines);
    lines.sort();
    lines
}

#[test]
fn it_is_what_overlay_would_show() {
    let scratch = scratch();
    let new = Archive::default;
    let lowest = new()
        .file("deleted", "x")
        .dir("dir")
        .file("dir/old", "x")
        .dir("replaced")
        .file("replaced/old", "x")
        .dir("becomes-file")
        .file("becomes-file/old", "x")
        .file("becomes-dir", "x")
        .entry(&Header::new(b'5').mode(0o700), b"kept", b"")
        .file("kept/old", "x")
        .file("kept/changed", "x")
        .file("kept/back", "x");
    let middle = new()
        .file(".wh.deleted", "")
        .file("dir/.wh..wh..opq", "")
        .file("dir/new", "y")
        .file(".wh.replaced", "")
        .file("becomes-file", "y")
        .file(".wh.becomes-dir", "")
        .file("kept/changed", "y")
        .file("kept/.wh.back", "");
    let top = new()
        .dir("replaced")
        .file("replaced/new", "z")
        .dir("becomes-dir")
        .file("kept/back", "z")
        .symlink("l", "kept");
    let want = [
        "becomes-dir d 755",
        "becomes-file f 644 y",
        "dir d 755",
        "dir/new f 644 y",
        "kept d 700",
        "kept/back f 644 z",
        "kept/changed f 644 y",
        "kept/old f 644 x",
        "l l kept",
        "replaced d 755",
        "replaced/new f 644 z",
    ];
    assert_eq!(lines(&copied(&scratch, vec![lowest, middle, top])), want);
}

#[test]
fn inodes_are_whole() {
    let scratch = scratch();
    let set_uid = own(b'0', 0o4755).pax("SCHILY.xattr.user.a", b"1").pax("mtime", b"1700000000.123456789");
    let archive = Archive::default()
        .entry(&own(b'5', 0o2750), b"d", b"")
        .entry(&set_uid, b"d/program", b"#!")
        .hard_link("other", "d/program")
        .entry(&Header::new(b'6').mode(0o600), b"fifo", b"")
        .device("null", b'3', 1, 3);
    let to = copied(&scratch, vec![archive]);
    let meta = |path: &str| fs::symlink_metadata(&to.join(path)).unwrap().unwrap();
    let program = meta("d/program");
    assert_eq!((program.mode() & 0o7777, meta("d").mode() & 0o7777), (0o4755, 0o2750));
    assert_eq!((program.mtime(), program.mtime_nsec()), (1_700_000_000, 123_456_789));
    assert_eq!(meta("d").mtime(), 1_700_000_000, "what was made in it left no trace");
    assert_eq!((program.ino(), program.nlink()), (meta("other").ino(), 2));
    assert!(meta("fifo").file_type().is_fifo());
    let file = fs::open(&to.join("d/program")).unwrap();
    assert_eq!(rustix::fs::fgetxattr(&file, "user.a", &mut [0; 9][..]), Ok(1));
    if ids() == Ids::Single {
        assert_eq!(owner::read(&file), Ok(Some(owner::Owner { uid: 5, gid: 6 })));
    } else {
        assert_eq!((program.uid(), program.gid()), (5, 6));
    }
    let null = fs::open(&to.join("null")).unwrap();
    let is_device = meta("null").rdev() == rustix::fs::makedev(1, 3);
    assert!(is_device || owner::read_node(null).unwrap().is_some());
}

#[test]
fn holes_stay_holes() {
    let scratch = scratch();
    let layer = unpacked(&scratch.store, &Archive::default().file("f", "").end());
    let sparse = fs::open_or_create(&diff(&scratch.store, &layer).join("f"), 0o644).unwrap();
    sparse.set_len(1 << 30).unwrap();
    sparse.write_all_at(b"middle", 500 << 20).unwrap();
    let to = scratch.dir.join("copy");
    copy(&scratch.store, &lower_dirs(&scratch.store, &[layer.diff_id]).unwrap(), &to).unwrap();
    let copy = fs::open(&to.join("f")).unwrap();
    let meta = copy.metadata().unwrap();
    let mut text = [0; 6];
    copy.read_exact_at(&mut text, 500 << 20).unwrap();
    assert_eq!((meta.len(), &text), (1 << 30, b"middle"));
    assert!(meta.blocks() < 1 << 15, "{}", meta.blocks());
}

#[test]
fn depth_and_failure() {
    let scratch = scratch();
    let path = "d/".repeat(2500);
    let to = copied(&scratch, vec![Archive::default().dir("d").file(&format!("{path}f"), "")]);
    let mut depth = 0;
    let mut at = beneath::root(&to).unwrap();
    while let Ok(next) = beneath::directory(&at, b"d") {
        (at, depth) = (next, depth + 1);
    }
    assert_eq!(depth, 2500);
    let missing = [scratch.dir.join("missing")];
    assert!(copy(&scratch.store, &missing, &scratch.dir.join("no")).is_err());
    assert!(scratch.is_tidy() && !scratch.dir.join("no").exists());
}
