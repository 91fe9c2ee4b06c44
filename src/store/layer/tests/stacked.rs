//! Layers on top of each other: what overlay is given, and what it makes of it.

use super::archive::Header;
use super::*;

/// Unpacks layers, lowest first.
fn stack(store: &Store, archives: Vec<Archive>) -> Vec<DiffId> {
    archives.into_iter().map(|archive| unpacked(store, &archive.end()).diff_id).collect()
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().unwrap().mode() & 0o7777
}

fn own(mode: u32) -> Header {
    Header::new(b'5').mode(mode)
}

#[test]
fn layers_that_describe_their_directories_are_stacked_as_they_are() {
    let scratch = scratch();
    let store = &scratch.store;
    let layers = stack(
        store,
        vec![Archive::default().dir("a").file("a/f", "1"), Archive::default().dir("a").file("a/f", "2")],
    );
    let want: Vec<PathBuf> =
        layers.iter().rev().map(|diff_id| layout::layer(store, diff_id).join("diff")).collect();
    assert_eq!(lower_dirs(store, &layers).unwrap(), want);
}

#[test]
fn implied_directories_keep_what_lies_beneath() {
    let scratch = scratch();
    let store = &scratch.store;
    let new = Archive::default;
    let layers = stack(
        store,
        vec![
            new()
                .entry(&own(0o1777), b"tmp", b"")
                .entry(&own(0o700), b"root", b"")
                .entry(&own(0o711).pax("SCHILY.xattr.user.a", b"1"), b"root/deep", b"")
                .entry(&own(0o700), b"gone", b"")
                .entry(&own(0o700), b"hidden", b"")
                .entry(&own(0o700), b"hidden/in", b""),
            // Implied in the middle too: its own 0755 means nothing.
            new().file("tmp/middle", "").file(".wh.gone", "").file("hidden/.wh..wh..opq", ""),
            new()
                .file("tmp/f", "")
                .entry(&own(0o750), b"root", b"")
                .file("root/deep/f", "")
                .file("gone/f", "")
                .file("hidden/in/f", "")
                .file("new/f", ""),
        ],
    );
    let dirs = lower_dirs(store, &layers).unwrap();
    assert_eq!(dirs.len(), 5, "{dirs:?}");
    assert_eq!(lower_dirs(store, &layers).unwrap(), dirs, "made once");
    let extra = &dirs[0];
    assert!(extra.parent().unwrap().to_str().unwrap().ends_with(".dirs"));
    assert_eq!(mode_of(&extra.join("tmp")), 0o1777);
    assert_eq!(mode_of(&extra.join("root")), 0o750);
    assert_eq!(mode_of(&extra.join("root/deep")), 0o711);
    assert_eq!(mode_of(&extra.join("hidden")), 0o700);
    let mut names = fs::read_dir(extra).unwrap();
    names.sort();
    assert_eq!(names, ["hidden", "root", "tmp"]);
    assert!(fs::read_dir(&extra.join("hidden")).unwrap().is_empty());
    let mtime = fs::metadata(&extra.join("tmp")).unwrap().unwrap().mtime();
    assert_eq!(mtime, 1_700_000_000);
    let mut value = [0; 9];
    let deep = fs::open(&extra.join("root/deep")).unwrap();
    assert_eq!(rustix::fs::fgetxattr(deep, "user.a", &mut value[..]), Ok(1));

    assert_eq!(lower_dirs(store, &layers[2..]).unwrap().len(), 1, "nothing beneath, nothing extra");
    remove(store, &layers[0]).unwrap();
    assert!(!extra.exists(), "it goes with any layer of its chain");
    assert!(scratch.is_tidy());
}

#[test]
fn an_opaque_root_hides_whole_layers() {
    let scratch = scratch();
    let store = &scratch.store;
    let new = Archive::default;
    let layers = stack(store, vec![new().file("a", ""), new().file(".wh..wh..opq", ""), new().file("b", "")]);
    let dirs = lower_dirs(store, &layers).unwrap();
    assert_eq!(dirs.len(), 2);
    assert!(!dirs.contains(&layout::layer(store, &layers[0]).join("diff")));
}

/// Mounts the layers in a mount name space of its own, and asks the kernel.
#[test]
fn overlay_reads_it_as_meant() {
    let scratch = scratch();
    let store = &scratch.store;
    let new = Archive::default;
    let layers = stack(
        store,
        vec![
            new()
                .file("deleted", "x")
                .dir("dir")
                .file("dir/old", "x")
                .dir("replaced")
                .file("replaced/old", "x")
                .entry(&own(0o700), b"kept", b"")
                .file("kept/old", "x"),
            new()
                .file(".wh.deleted", "")
                .file("dir/.wh..wh..opq", "")
                .file("dir/new", "y")
                .file(".wh.replaced", "")
                .dir("replaced")
                .file("replaced/new", "y")
                .file("kept/new", "y"),
        ],
    );
    let lower: Vec<String> =
        lower_dirs(store, &layers).unwrap().iter().map(|d| d.display().to_string()).collect();
    let option = if ids() == Ids::Root { "" } else { ",userxattr" };
    let at = scratch.dir.join("merged");
    fs::create_dir(&at, 0o755).unwrap();
    let script = format!(
        "mount -t overlay overlay -o lowerdir={}{option} {at} && cd {at} && find . -mindepth 1 -printf '%P %m\\n' | sort",
        lower.join(":"),
        at = at.display()
    );
    let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && errors.contains("ermission denied") {
        return skip(&errors);
    }
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(),
        [
            "dir 755",
            "dir/new 644",
            "kept 700",
            "kept/new 644",
            "kept/old 644",
            "replaced 755",
            "replaced/new 644"
        ],
        "{errors}"
    );
}

#[expect(clippy::disallowed_macros, reason = "a skipped test says so")]
pub(super) fn skip(why: &str) {
    eprintln!("skipped: cannot be mounted here: {why}");
}
