//! What well-meant archives become.

use super::archive::Header;
use super::*;

#[test]
fn each_kind_of_entry_becomes_what_it_says() {
    check(
        Archive::default()
            .dir("./")
            .dir("a/")
            .file("a/f", "hello")
            .entry(&Header::new(b'0').mode(0o4755), b"a/suid", b"x")
            .entry(&Header::new(b'5').mode(0o1777), b"tmp", b"")
            .entry(&Header::new(b'5').mode(0o2750), b"sgid/", b"")
            .file("sgid/f", "")
            .entry(&Header::new(b'5').mode(0), b"closed/", b"")
            .file("closed/f", "in")
            .symlink("a/l", "../nowhere")
            .hard_link("a/h", "a/f")
            .hard_link("hl", "/a/l")
            .device("a/p", b'6', 0, 0)
            .entry(&Header::new(b'V'), b"volume", b"label")
            .file("old-style-dir/", ""),
        &[
            "a d 755",
            "a/f f 644 hello",
            "a/h f 644 hello",
            "a/l l ../nowhere",
            "a/p p 644",
            "a/suid f 4755 x",
            "closed d 0",
            "closed/f f 644 in",
            "hl l ../nowhere",
            "old-style-dir d 644",
            "sgid d 2750",
            "sgid/f f 644 ",
            "tmp d 1777",
        ],
    );
}

#[test]
fn later_entries_replace_earlier_ones() {
    check(
        Archive::default()
            .file("f", "one")
            .hard_link("g", "f")
            .file("f", "two")
            .file("f", "three")
            .hard_link("f2", "f")
            .hard_link("f2", "f")
            .file("dir-then-file/a/b", "deep")
            .hard_link("kept", "dir-then-file/a/b")
            .symlink("dir-then-file/l", "x")
            .file("dir-then-file", "flat")
            .file("file-then-dir", "gone")
            .dir("file-then-dir/")
            .file("file-then-dir/in", "in")
            .symlink("link-then-dir", "f")
            .dir("link-then-dir")
            .dir("merged")
            .file("merged/a", "a")
            .entry(&Header::new(b'5').mode(0o700), b"merged", b"")
            .dir("once/twice")
            .file("once", "file")
            .dir("once")
            .dir("once/twice/")
            .hard_link("self", "f2")
            .hard_link("self", "self"),
        &[
            "dir-then-file f 644 flat",
            "f f 644 three",
            "f2 f 644 three",
            "file-then-dir d 755",
            "file-then-dir/in f 644 in",
            "g f 644 one",
            "kept f 644 deep",
            "link-then-dir d 755",
            "merged d 700",
            "merged/a f 644 a",
            "once d 755",
            "once/twice d 755",
            "self f 644 three",
        ],
    );
}

#[test]
fn whiteouts_speak_of_the_layers_beneath_only() {
    check(
        Archive::default()
            .file(".wh.gone", "")
            .file("own", "mine")
            .file(".wh.own", "")
            .file(".wh.own2", "")
            .file("own2", "mine")
            .file(".wh.dir", "")
            .dir("dir")
            .file("dir/f", "f")
            .dir("dir2")
            .file(".wh.dir2", "")
            .file(".wh.implied", "")
            .file("implied/f", "f")
            .file("a/b/.wh.c", "")
            .file("opaque/.wh..wh..opq", "")
            .file("opaque/f", "f")
            .dir("late")
            .file("late/.wh..wh..opq", "")
            .file(".wh..wh.plnk/x", "")
            .file(".wh..wh.aufs", "")
            .file(".wh.twice", "")
            .file(".wh.twice", ""),
        &[
            ".wh..wh.plnk d 755",
            ".wh..wh.plnk/x f 644 ",
            "a d 755",
            "a/b d 755",
            "a/b/c whiteout",
            "dir d 755 opaque",
            "dir/f f 644 f",
            "dir2 d 755 opaque",
            "gone whiteout",
            "implied d 755 opaque",
            "implied/f f 644 f",
            "late d 755 opaque",
            "opaque d 755 opaque",
            "opaque/f f 644 f",
            "own f 644 mine",
            "own2 f 644 mine",
            "twice whiteout",
        ],
    );
}

#[test]
fn a_path_through_a_symlink_of_the_layer_stays_in_the_layer() {
    check(
        Archive::default()
            .dir("usr/bin")
            .symlink("bin", "usr/bin")
            .file("bin/sh", "shell")
            .symlink("abs", "/usr")
            .file("abs/lib/x", "x")
            .symlink("up", "../../../../usr/bin/..")
            .file("up/y", "y")
            .symlink("dangling", "not/yet")
            .file("dangling/z", "z")
            .hard_link("bin/bash", "bin/sh")
            .hard_link("zsh", "abs/bin/sh")
            .file("bin/sh", "new shell"),
        &[
            "abs l /usr",
            "bin l usr/bin",
            "dangling l not/yet",
            "not d 755",
            "not/yet d 755",
            "not/yet/z f 644 z",
            "up l ../../../../usr/bin/..",
            "usr d 755",
            "usr/bin d 755",
            "usr/bin/bash f 644 shell",
            "usr/bin/sh f 644 new shell",
            "usr/lib d 755",
            "usr/lib/x f 644 x",
            "usr/y f 644 y",
            "zsh f 644 shell",
        ],
    );
}

#[test]
fn names_are_bytes_and_paths_have_no_end() {
    let scratch = scratch();
    let deep = vec!["d".repeat(120); 1000].join("/");
    let archive = Archive::default()
        .entry(&Header::new(b'0'), b"\xff\x01\n\xfe", b"bytes")
        .file(&format!("{deep}/f"), "bottom")
        .dir(&format!("{deep}/g"))
        .hard_link(&format!("{deep}/h"), &format!("{deep}/f"))
        .file(&format!("{deep}/f"), "replaced")
        .end();
    let layer = unpacked(&scratch.store, &archive);
    let name = std::os::unix::ffi::OsStrExt::from_bytes(&b"\xff\x01\n\xfe"[..]);
    assert_eq!(fs::read(&diff(&scratch.store, &layer).join::<&std::ffi::OsStr>(name)).unwrap(), b"bytes");
    // Each directory has at least its inode; the walk has to get to the bottom.
    assert!(size_on_disk(&scratch.store, &layer.diff_id).unwrap() > 1000);
    remove(&scratch.store, &layer.diff_id).unwrap();
    assert!(!exists(&scratch.store, &layer.diff_id).unwrap());
    assert!(list(&scratch.store).unwrap().is_empty());
    assert!(scratch.is_tidy());
}

#[test]
fn times_and_attributes_are_exact() {
    let scratch = scratch();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Archive::default()
        .global("mtime", "77.5")
        .entry(&Header::new(b'5').pax("mtime", b"1.000000001"), b"d", b"")
        .entry(
            &Header::new(b'0')
                .mode(0o6755)
                .pax("mtime", b"-1.25")
                .pax("SCHILY.xattr.user.a", b"1\n\0=2")
                .pax("SCHILY.xattr.security.capability", &capability)
                .pax("SCHILY.xattr.user.overlay.opaque", b"y")
                .pax("SCHILY.xattr.user.dhow.owner", b"7:7"),
            b"d/f",
            b"content",
        )
        .entry(&Header { link: b"f".to_vec(), ..Header::new(b'2') }.pax("mtime", b"5.5"), b"d/l", b"")
        .file("d/g", "default")
        .end();
    let layer = unpacked(&scratch.store, &archive);
    let root = diff(&scratch.store, &layer);
    let time = |path: &str| {
        let meta = fs::symlink_metadata(&root.join(path)).unwrap().unwrap();
        (meta.mtime(), meta.mtime_nsec())
    };
    assert_eq!(time("d"), (1, 1));
    assert_eq!(time("d/f"), (-2, 750_000_000));
    assert_eq!(time("d/l"), (5, 500_000_000));
    assert_eq!(time("d/g"), (77, 500_000_000));
    let file = fs::open(&root.join("d/f")).unwrap();
    let xattr = |name: &str| {
        let mut value = vec![0; 99];
        let n = rustix::fs::fgetxattr(&file, name, &mut value[..])?;
        value.truncate(n);
        Ok::<_, rustix::io::Errno>(value)
    };
    assert_eq!(xattr("user.a").unwrap(), b"1\n\0=2");
    // In a user name space the kernel adds the id of its root.
    assert_eq!(xattr("security.capability").unwrap()[4..20], capability[4..]);
    assert!(xattr("user.overlay.opaque").is_err());
    assert_eq!(owner::read(&file), Ok(None));
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o6755);
}

#[test]
fn owners_are_given_or_kept() {
    let scratch = scratch();
    let owned = |kind, uid, gid| Header { uid, gid, ..Header::new(kind) };
    let archive = Archive::default()
        .entry(&owned(b'0', 33, 44), b"f", b"x")
        .entry(&owned(b'5', 33, 44), b"d", b"")
        .entry(&Header { link: b"x".to_vec(), ..owned(b'2', 33, 44) }, b"l", b"")
        .entry(&owned(b'0', 0, 0).pax("uid", b"4000000000").pax("gid", b"1"), b"large", b"")
        .entry(&owned(b'0', 0, 0).pax("uid", b"4294967295").pax("gid", b"5000000000"), b"huge", b"")
        .entry(&owned(b'0', 0, 0), b"zero", b"")
        .entry(&Header { device: (5, 1), mode: 0o620, ..owned(b'3', 0, 5) }, b"console", b"")
        .end();
    let layer = unpacked(&scratch.store, &archive);
    let root = diff(&scratch.store, &layer);
    let owner_of = |path: &str| {
        let meta = fs::symlink_metadata(&root.join(path)).unwrap().unwrap();
        (meta.uid(), meta.gid())
    };
    let kept = |path: &str| owner::read(fs::open(&root.join(path)).unwrap()).unwrap().map(|o| (o.uid, o.gid));
    assert_eq!(kept("huge"), Some((4_294_967_295, 5_000_000_000)));
    assert_eq!(kept("zero"), None);
    if ids() == Ids::Root {
        assert_eq!(owner_of("large"), (4_000_000_000, 1));
    } else {
        assert_eq!(kept("large"), Some((4_000_000_000, 1)));
    }
    if ids() == Ids::Single {
        assert_eq!(["f", "d", "l", "console"].map(owner_of), [owner_of("zero"); 4]);
        assert_eq!(["f", "d"].map(kept), [Some((33, 44)); 2]);
        assert_eq!(kept("console"), Some((0, 5)));
    } else {
        assert_eq!(["f", "d", "l"].map(owner_of), [(33, 44); 3]);
        assert_eq!(["f", "d"].map(kept), [None; 2]);
        assert_eq!(owner_of("console"), (0, 5));
    }
    if ids() != Ids::Root {
        let console = fs::open(&root.join("console")).unwrap();
        let node = owner::Node { is_block: false, major: 5, minor: 1 };
        assert_eq!(owner::read_node(&console), Ok(Some(node)));
        assert_eq!(console.metadata().unwrap().len(), 0);
    }
}

#[test]
fn a_layer_is_unpacked_once() {
    let scratch = scratch();
    let store = &scratch.store;
    let archive = Archive::default().file("f", "x").end();
    let first = extract(store, &archive[..], None).unwrap();
    let second = extract(store, &archive[..], None).unwrap();
    assert!(find(store, &first.layer.diff_id).unwrap().is_none());
    let layers = publish(store, vec![first, second]).unwrap();
    assert_eq!(layers[0], layers[1]);
    let diff_id = &layers[0].diff_id;
    assert_eq!(find(store, diff_id).unwrap().as_ref(), Some(&layers[0]));
    assert_eq!(unpack(store, &archive[..], Some(diff_id)).unwrap(), layers[0]);
    // One that is there is still checked.
    assert!(unpack(store, &archive[1..], Some(diff_id)).is_err());
    assert_eq!(list(store).unwrap(), std::slice::from_ref(diff_id));
    remove(store, diff_id).unwrap();
    remove(store, diff_id).unwrap();
    assert!(write_tar(store, diff_id, &mut Vec::new()).unwrap_err().is::<NotFound>());
    assert!(lower_dirs(store, std::slice::from_ref(diff_id)).unwrap_err().is::<NotFound>());
    assert!(scratch.is_tidy());
}

#[test]
fn a_layer_that_was_changed_is_not_written() {
    let scratch = scratch();
    let store = &scratch.store;
    let layer = unpacked(store, &Archive::default().file("f", "abc").end());
    let file = diff(store, &layer).join("f");
    for changed in [&b"abd"[..], b"ab", b"abcd"] {
        fs::write(&file, changed).unwrap();
        assert!(write_tar(store, &layer.diff_id, &mut std::io::sink()).is_err(), "{changed:?}");
    }
    fs::remove_file(&file).unwrap();
    assert!(write_tar(store, &layer.diff_id, &mut std::io::sink()).is_err());
    fs::symlink(Path::new("/etc/passwd"), &file).unwrap();
    assert!(write_tar(store, &layer.diff_id, &mut std::io::sink()).is_err());
}
