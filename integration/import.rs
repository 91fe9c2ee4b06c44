//! `dhow import`, and what unpacking keeps of an archive.

use std::fs;
use std::process::Command;

use crate::archive::{Kind, Tar};
use crate::capability::needs;
use crate::images;
use crate::sandbox::{NONE, Sandbox};

for_each_user!(
    from_file_stdin_and_compressed,
    names_and_changes,
    prints_the_id,
    keeps_modes_times_and_links,
    keeps_odd_names,
    keeps_sparse_files,
    keeps_xattrs,
    lower_directories_come_first_or_not_at_all,
    later_members_win,
    not_an_archive,
);
for_users_with_many_ids!(keeps_owners);
for_root!(keeps_devices, keeps_file_capabilities, a_file_over_8_gib);

fn from_file_stdin_and_compressed(s: &Sandbox) {
    let tar = fs::read(images::busybox()).unwrap();
    let plain = s.file("plain.tar", &tar);
    for (tool, args) in [("gzip", ["-1", "-c"]), ("zstd", ["-1", "-c"])] {
        needs!(tool);
        let packed = s.program(tool).args(args).stdin_file(&plain).output().exits(0).stdout;
        s.file(tool, &packed);
        s.dhow(["import", tool, &format!("from-{tool}")]).ok();
        s.dhow(["import", "-", &format!("in-{tool}")]).stdin(packed).ok();
    }
    s.dhow(["import", "plain.tar", "from-plain"]).ok();
    for image in ["from-gzip", "from-zstd", "in-gzip", "in-zstd", "from-plain"] {
        assert_eq!(s.dhow(["run", "--rm", image, "cat", "/etc/motd"]).ok(), "hello", "{image}");
    }
    let layers = |image: &str| s.inspect(image, "{{json .RootFS.Layers}}");
    assert_eq!(layers("from-gzip"), layers("from-plain"), "the layer is what was packed, not how");
    s.dhow(["import", "no-such-file", "x"])
        .output()
        .complains("no-such-file")
        .expect("an error", |o| o.code != 0);
    s.dhow(["import", "/etc", "x"]).output().complains("/etc").expect("an error", |o| o.code != 0);
}

fn names_and_changes(s: &Sandbox) {
    let import = |args: &[&str]| s.dhow(["import"]).args(args).stdin_file(images::busybox()).output();
    import(&[
        "-m",
        "by hand",
        "--change",
        "EXPOSE 80/tcp",
        "-c",
        "LABEL a=b",
        "-c",
        "VOLUME /v",
        "-",
        "x.example:5000/y/z:v1",
    ])
    .exits(0);
    let get = |format: &str| s.inspect("x.example:5000/y/z:v1", format);
    assert_eq!(get("{{json .Config.ExposedPorts}}"), r#"{"80/tcp":{}}"#);
    assert_eq!(get("{{json .Config.Volumes}}"), r#"{"/v":{}}"#);
    assert_eq!(get("{{.Config.Labels.a}}"), "b");
    assert!(s.dhow(["history", "x.example:5000/y/z:v1"]).ok().contains("by hand"));
    import(&["-c", "NOSUCH x", "-", "bad"]).complains("NOSUCH").expect("an error", |o| o.code != 0);
    import(&["-c", "RUN true", "-", "bad"]).complains("RUN").expect("an error", |o| o.code != 0);
    for name in ["UPPER", "a//b", ":x", "a:", "a@b", "-x", "a b", "a:b:c"] {
        import(&["-", name]).expect(name, |o| o.code != 0);
    }
    assert_eq!(s.dhow(["images", "-q"]).ok().lines().count(), 2, "nothing was kept of what was refused");
}

fn prints_the_id(s: &Sandbox) {
    let id = s.dhow(["import", "-"]).stdin_file(images::busybox()).ok();
    assert!(id.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64), "{id}");
    assert_eq!(s.inspect(&id, "{{.Id}}"), id, "an image without a name is found by its id");
    s.dhow(["run", "--rm", &id[7..19], "true"]).ok();
}

/// Imports the archive on top of nothing and asks a busybox container that has it at /i what is there.
fn look(s: &Sandbox, archive: Vec<u8>, script: &str) -> String {
    // The busybox root and the test's own members in one archive: tar reads on after the first end with this.
    let base = fs::read(images::busybox()).unwrap();
    let end = base.iter().rposition(|b| *b != 0).unwrap() + 1;
    let joined = [&base[..end.next_multiple_of(512)], archive.as_slice()].concat();
    s.dhow(["import", "-", "look"]).stdin(joined).ok();
    s.dhow(["run", "--rm", "look", "sh", "-c", script]).ok()
}

fn keeps_modes_times_and_links(s: &Sandbox) {
    let tar = Tar::default()
        .pax(&[("mtime", b"1234567890.123456789"), ("atime", b"1.5")])
        .file("i/file", "data")
        .hard_link("i/hard", "i/file")
        .symlink("i/soft", "file")
        .symlink("i/dangling", "/no/such/file")
        .entry(Kind::Fifo, "i/fifo", "", "");
    let seen = look(
        s,
        tar.end(),
        "cd /i; stat -c '%n %a %F %h' file hard fifo; readlink soft; readlink dangling; ls -l --full-time file",
    );
    assert!(
        seen.contains(
            "file 644 regular file 2\nhard 644 regular file 2\nfifo 644 fifo 1\nfile\n/no/such/file\n"
        ),
        "{seen}"
    );
    assert!(seen.contains("2009-02-13 23:31:30"), "{seen}");
    let exact = fs::read_dir(s.store.join("layers"))
        .unwrap()
        .flatten()
        .find_map(|layer| find(&layer.path(), "i/file"));
    if let Some(file) = exact {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(file).unwrap().mtime_nsec(), 123_456_789);
    }
}

/// The file at this path somewhere below the directory.
fn find(dir: &std::path::Path, path: &str) -> Option<std::path::PathBuf> {
    let here = dir.join(path);
    if here.exists() {
        return Some(here);
    }
    fs::read_dir(dir).ok()?.flatten().filter(|e| e.path().is_dir()).take(3).find_map(|e| {
        let below = e.path().join(path);
        below.exists().then_some(below)
    })
}

fn keeps_odd_names(s: &Sandbox) {
    let long = format!("i/{}/{}", "d".repeat(200), "f".repeat(255));
    let tar = Tar::default()
        .file(b"i/latin-\xe9\xff", "1")
        .file("i/new\nline", "2")
        .file("i/ lead", "3")
        .file("./i/./dot", "4")
        .file("i/-dash", "5")
        .file(&long, "6")
        .file("i/.wh", "7");
    let seen = look(s, tar.end(), "cd /i; cat latin-* new* ' lead' dot ./-dash .wh; cat d*/*; ls | wc -l");
    assert_eq!(seen, "12345766", "{seen}");
}

fn keeps_sparse_files(s: &Sandbox) {
    let make = "mkdir i; truncate -s 1G i/sparse; printf x >> i/sparse; printf y | dd of=i/sparse bs=1 seek=524288000 conv=notrunc \
                2>/dev/null; tar c --sparse --format=pax i";
    let tar = s.program("sh").args(["-c", make]).output().exits(0).stdout;
    let seen =
        look(s, tar, "stat -c %s /i/sparse; test $(du -m /i/sparse | cut -f1) -lt 100; tail -c 1 /i/sparse");
    assert_eq!(seen, "1073741825\nx");
}

fn keeps_xattrs(s: &Sandbox) {
    let value: &[u8] = b"a\nb\0c";
    let tar = Tar::default().pax(&[("SCHILY.xattr.user.test", value)]).file("i/file", "x").dir("i/dir");
    look(s, tar.end(), "true");
    // Asked by python in the Debian image elsewhere; here, that save hands on the very bytes.
    s.dhow(["save", "-o", "look.tar", "look"]).ok();
    let saved = fs::read(s.work.join("look.tar")).unwrap();
    assert!(saved.windows(value.len()).any(|w| w == value));
}

fn lower_directories_come_first_or_not_at_all(s: &Sandbox) {
    let tar = Tar::default().file("i/a/b/c", "1").dir("i/a").dir("i");
    assert_eq!(look(s, tar.end(), "cat /i/a/b/c; stat -c %a /i/a/b"), "1755");
}

fn later_members_win(s: &Sandbox) {
    let tar = Tar::default()
        .file("i/x", "first")
        .file("i/x", "second")
        .file("i/y", "file")
        .dir("i/y")
        .file("i/y/z", "in")
        .symlink("i/l", "x")
        .file("i/l", "not through the link");
    assert_eq!(
        look(s, tar.end(), "cd /i; cat x; echo; cat y/z; echo; cat l"),
        "second\nin\nnot through the link"
    );
}

fn not_an_archive(s: &Sandbox) {
    for (what, bytes) in [
        ("text", b"just text\n".repeat(200)),
        ("nothing", vec![]),
        ("gzip", b"\x1f\x8b\x08garbage".repeat(99)),
    ] {
        let out = s.dhow(["import", "-", what]).stdin(bytes).output();
        assert!(out.code != 0 && !out.stderr.is_empty(), "{what}: {}", out.report());
        assert_eq!(
            out.error_text().lines().filter(|l| l.starts_with("dhow: ")).count(),
            1,
            "{}",
            out.report()
        );
    }
    assert_eq!(s.dhow(["images", "-q"]).args(NONE).ok().lines().count(), 1);
}

fn keeps_owners(s: &Sandbox) {
    let make = "mkdir i; touch i/a i/b; tar c --owner=1234 --group=4321 i";
    let tar = s.program("sh").args(["-c", make]).output().exits(0).stdout;
    assert_eq!(look(s, tar, "stat -c '%u:%g' /i /i/a"), "1234:4321\n1234:4321");
    s.dhow(["run", "--rm", "look", "sh", "-c", "chown 7:8 /i/a && stat -c %u:%g /i/a"]).ok();
}

fn keeps_devices(s: &Sandbox) {
    let tar = Tar::default().entry(Kind::CharDevice, "i/null", "", "");
    assert_eq!(look(s, tar.end(), "stat -c '%F %t:%T' /i/null"), "character special file 1:3");
}

fn keeps_file_capabilities(s: &Sandbox) {
    // cap_net_raw=ep, revision 2.
    let value: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let probe = fs::read(images::probe()).unwrap();
    let tar = Tar::default().pax(&[("SCHILY.xattr.security.capability", value)]).file("i/p", &probe).end();
    look(s, tar, "test -e /i/p");
    let layer =
        fs::read_dir(s.store.join("layers")).unwrap().flatten().find_map(|l| find(&l.path(), "i/p")).unwrap();
    let mut buffer = [0u8; 64];
    let n = rustix::fs::getxattr(&layer, "security.capability", &mut buffer).unwrap();
    assert_eq!(&buffer[..n], value);
}

fn a_file_over_8_gib(s: &Sandbox) {
    // More than eleven octal digits can say. Sparse, so that nobody has to write it.
    let make = "mkdir i; truncate -s 9G i/big; tar c --sparse --format=gnu i";
    let tar = Command::new("sh").current_dir(&s.work).args(["-c", make]).output().unwrap().stdout;
    assert_eq!(look(s, tar, "stat -c %s /i/big"), "9663676416");
}
