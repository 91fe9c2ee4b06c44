//! Archives that mean harm, or that were cut or damaged: confined or refused, and the store as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::{Kind, Tar};
use crate::images;
use crate::sandbox::Sandbox;

for_each_user!(
    nothing_is_written_outside,
    nothing_is_read_from_outside,
    a_deep_path,
    truncated,
    damaged_image_archives,
    decompression_bomb_is_streamed,
    names_of_white_outs,
    killed_half_way,
);
for_rootless!(device_without_root);

/// Every file of the store with its size, but for locks and indexes, whose names begin with a dot.
/// The journal is left out: what happened did happen.
fn snapshot(store: &Path) -> BTreeMap<PathBuf, u64> {
    fn walk(dir: &Path, seen: &mut BTreeMap<PathBuf, u64>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let meta = entry.metadata().unwrap();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if meta.is_dir() {
                walk(&entry.path(), seen);
            } else {
                seen.insert(entry.path(), meta.len());
            }
        }
    }
    let mut seen = BTreeMap::new();
    walk(store, &mut seen);
    seen.retain(|path, _| !path.starts_with(store.join("events")));
    seen
}

/// The store must be as it was; names what came or went.
#[track_caller]
fn assert_unchanged(s: &Sandbox, before: &BTreeMap<PathBuf, u64>, case: &str) {
    let after = snapshot(&s.store);
    let came: Vec<_> = after.iter().filter(|(path, size)| before.get(*path) != Some(*size)).collect();
    let went: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).collect();
    assert!(
        came.is_empty() && went.is_empty(),
        "{case}: the store has changed: came {came:?}, went {went:?}"
    );
}

fn import(s: &Sandbox, bytes: Vec<u8>) -> crate::command::Output {
    s.dhow(["import", "-", "hostile"]).stdin(bytes).output()
}

fn nothing_is_written_outside(s: &Sandbox) {
    let outside = s.subdir("outside");
    let victim = s.file("outside/victim", "untouched");
    let at = outside.to_str().unwrap().to_owned();
    // Enough steps up from any layer to reach /, then down to where the sandbox lies.
    let up = format!("{}{at}", "../".repeat(40));
    let cases: Vec<(&str, Tar)> = vec![
        ("dots", Tar::default().file(format!("{up}/new"), "x")),
        ("dots within", Tar::default().dir("a").file(format!("a/{up}/new"), "x")),
        ("absolute", Tar::default().file(format!("{at}/new"), "x")),
        ("absolute over a file", Tar::default().file(format!("{at}/victim"), "x")),
        ("link, then through it", Tar::default().symlink("l", &at).file("l/new", "x")),
        ("link up, then through it", Tar::default().symlink("l", &up).file("l/new", "x")),
        ("link to a file, then over it", Tar::default().symlink("l", format!("{at}/victim")).file("l", "x")),
        ("two links", Tar::default().symlink("a", "..").symlink("b", format!("a/{up}")).file("b/new", "x")),
        ("hard link out, then over it", Tar::default().hard_link("h", format!("{at}/victim")).file("h", "x")),
        ("hard link up", Tar::default().hard_link("h", format!("{up}/victim")).file("h", "x")),
        (
            "hard link through a link",
            Tar::default().symlink("l", &at).hard_link("h", "l/victim").file("h", "x"),
        ),
        ("directory over a link", Tar::default().symlink("d", &at).dir("d").file("d/new", "x")),
        ("white-out through a link", Tar::default().symlink("l", &at).file("l/.wh.victim", "")),
        ("white-out up", Tar::default().file(format!("{up}/.wh.victim"), "")),
        ("white-out of dots", Tar::default().file("a/.wh...", "").file(".wh...", "")),
        ("opaque through a link", Tar::default().symlink("l", &at).file("l/.wh..wh..opq", "")),
        ("pax path", Tar::default().pax(&[("path", format!("{up}/new").as_bytes())]).file("x", "x")),
        (
            "pax link",
            Tar::default()
                .pax(&[("linkpath", format!("{at}/victim").as_bytes())])
                .hard_link("h", "x")
                .file("h", "x"),
        ),
        ("the root itself", Tar::default().symlink(".", &at).file("new", "x").symlink("..", &at)),
    ];
    for (case, tar) in cases {
        let out = import(s, tar.end());
        assert!(out.code == 0 || !out.stderr.is_empty(), "{case}: {}", out.report());
        assert_ne!(out.code, 101, "{case} must not panic: {}", out.report());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched", "{case}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{case}");
    }
    s.dhow(["run", "--rm", "busybox", "true"]).ok();
}

fn nothing_is_read_from_outside(s: &Sandbox) {
    let secret = s.file("secret", "the secret text");
    let at = secret.to_str().unwrap();
    let base = fs::read(images::busybox()).unwrap();
    let end = (base.iter().rposition(|b| *b != 0).unwrap() + 1).next_multiple_of(512);
    for tar in [
        Tar::default().hard_link("stolen", at),
        Tar::default().hard_link("stolen", format!("{}{at}", "../".repeat(40))),
        Tar::default().symlink("l", s.work.to_str().unwrap()).hard_link("stolen", "l/secret"),
        Tar::default().symlink("etc/hosts", at).symlink("stolen", at),
    ] {
        let _ = s.dhow(["import", "-", "thief"]).stdin([&base[..end], &tar.end()].concat()).output();
        let out = s.dhow(["run", "--rm", "thief", "cat", "/stolen", "/etc/hosts"]).output();
        assert!(!out.text().contains("secret"), "{}", out.report());
    }
    assert_eq!(
        fs::read_to_string(secret).unwrap(),
        "the secret text",
        "/etc/hosts is not written through a link"
    );
}

fn a_deep_path(s: &Sandbox) {
    let deep = format!("{}end", "d/".repeat(1000));
    let out = import(s, Tar::default().file(&deep, "x").end());
    if out.code == 0 {
        // Taken in, it must also go out again.
        s.dhow(["rmi", "hostile"]).ok();
    }
    let deeper = format!("{}end", "d/".repeat(100_000));
    let out = import(s, Tar::default().file(&deeper, "x").end());
    assert!(out.code != 0 && out.code != 101 && out.code < 128, "{}", out.report());
    let endless = "n".repeat(5000);
    let out = import(s, Tar::default().file(&endless, "x").end());
    assert!(out.code != 0 && out.code != 101 && out.code < 128, "{}", out.report());
}

fn device_without_root(s: &Sandbox) {
    // Kept out of band or left out; an image with devices in /dev is not a reason to fail, and no device comes to be.
    let base = fs::read(images::busybox()).unwrap();
    let end = (base.iter().rposition(|b| *b != 0).unwrap() + 1).next_multiple_of(512);
    let tar = Tar::default().entry(Kind::CharDevice, "i/null", "", "").file("after", "x");
    s.dhow(["import", "-", "device"]).stdin([&base[..end], &tar.end()].concat()).ok();
    assert_eq!(s.dhow(["run", "--rm", "device", "cat", "/after"]).ok(), "x");
    s.dhow(["run", "--rm", "device", "sh", "-c", "echo x > /i/null && test -s /i/null"]).output();
}

fn truncated(s: &Sandbox) {
    let whole = fs::read(images::busybox()).unwrap();
    let before = snapshot(&s.store);
    for cut in [1, 100, 511, 513, 1000, whole.len() / 2, whole.len() / 2 + 77] {
        let out = import(s, whole[..cut].to_vec());
        assert!((1..=125).contains(&out.code) && out.code != 101, "cut at {cut}: {}", out.report());
        assert_unchanged(s, &before, &format!("cut at {cut}"));
    }
    let zipped = s.program("gzip").args(["-1", "-c"]).stdin(whole).output().stdout;
    let out = import(s, zipped[..zipped.len() - 100].to_vec());
    assert!((1..=125).contains(&out.code), "{}", out.report());
    let mut damaged = zipped.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let out = import(s, damaged);
    assert!((1..=125).contains(&out.code), "{}", out.report());
    assert_unchanged(s, &before, "a damaged member");
}

fn damaged_image_archives(s: &Sandbox) {
    s.dhow(["save", "-o", "good.tar", "busybox"]).ok();
    let good = fs::read(s.work.join("good.tar")).unwrap();
    s.dhow(["rmi", "busybox"]).ok();
    let before = snapshot(&s.store);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Tar::default().end()),
        (
            "no layers",
            Tar::default().file("manifest.json", r#"[{"Config":"c.json","Layers":["no.tar"]}]"#).end(),
        ),
        ("not json", Tar::default().file("manifest.json", "{").end()),
        ("wrong json", Tar::default().file("manifest.json", r#"[{"Config":7}]"#).end()),
        (
            "config outside",
            Tar::default().file("manifest.json", r#"[{"Config":"/etc/passwd","Layers":[]}]"#).end(),
        ),
        ("index to nothing", oci(r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:00","size":1}]}"#)),
        (
            "index with a path",
            oci(r#"{"schemaVersion":2,"manifests":[{"digest":"../../etc/passwd","size":1}]}"#),
        ),
        ("deep json", oci(&"[".repeat(100_000))),
        ("a link as manifest", Tar::default().symlink("manifest.json", "/etc/passwd").end()),
    ];
    for (case, bytes) in cases {
        let out = s.dhow(["load"]).stdin(bytes).output();
        assert!((1..=125).contains(&out.code) && out.code != 101, "{case}: {}", out.report());
        assert_unchanged(s, &before, case);
    }
    // One byte of a layer changed: the digest in the config no longer fits.
    let at = good.windows(6).position(|w| w == b"hello\n").unwrap_or(good.len() / 2);
    let mut bad = good.clone();
    bad[at] ^= 1;
    let out = s.dhow(["load"]).stdin(bad).output();
    assert!((1..=125).contains(&out.code), "{}", out.report());
    assert_eq!(s.dhow(["images", "-q"]).ok(), "");
    s.dhow(["load"]).stdin(good).ok();
    s.dhow(["run", "--rm", "busybox", "true"]).ok();
}

fn oci(index: &str) -> Vec<u8> {
    Tar::default().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).file("index.json", index).end()
}

fn decompression_bomb_is_streamed(s: &Sandbox) {
    // 300 MB of zeros in one member: within 100 MB of memory it must pass, since nothing is held as a whole.
    let script = "mkdir i; truncate -s 300M i/zeros; tar c i | gzip -1";
    let bomb = s.program("sh").args(["-c", script]).output().exits(0).stdout;
    let limited = s.dhow(["import", "-", "big"]).under(&["prlimit", "--as=400000000", "--"]).stdin(bomb);
    limited.output().exits(0);
}

fn names_of_white_outs(s: &Sandbox) {
    // In a root file system these are white-outs of nothing, or plain nonsense; none may panic or escape.
    let tar = Tar::default()
        .file(".wh.", "")
        .file("a/.wh..", "")
        .file("a/.wh.b/c", "x")
        .file(".wh..wh..opq", "")
        .file(".wh..wh.plnk", "");
    let out = import(s, tar.end());
    assert!(out.code != 101 && out.code < 128, "{}", out.report());
}

fn killed_half_way(s: &Sandbox) {
    s.dhow(["run", "--rm", "busybox", "true"]).ok();
    let before = snapshot(&s.store);
    let whole = fs::read(images::busybox()).unwrap();
    for part in [0, 600, whole.len() / 3, whole.len() / 2] {
        let mut import = s.dhow(["import", "-", "half"]).spawn_with(|c| {
            c.stdin(std::process::Stdio::piped());
        });
        let mut pipe = import.child.stdin.take().unwrap();
        std::io::Write::write_all(&mut pipe, &whole[..part]).unwrap();
        import.signal(rustix::process::Signal::KILL);
        import.code();
    }
    // The next command that makes something sweeps what the dead ones left.
    s.dhow(["run", "--rm", "busybox", "true"]).ok();
    assert_unchanged(s, &before, "nothing of the four is left");
    s.dhow(["inspect", "half"]).output().exits(1);
}
