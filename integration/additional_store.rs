//! Another store is used without touching it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::command::Cmd;
use crate::hostile_registry::Hostile;
use crate::sandbox::{Sandbox, dhow};
use crate::store_care::{hex, pulled};
use crate::user::User;

for_each_user!(an_additional_store_is_only_read, an_additional_store_by_configuration);
for_root!(an_additional_store_on_a_read_only_mount);
for_rootless!(an_additional_store_of_root, what_may_not_be_read);

/// Everything beneath, with what would tell a write: size, change time, mode.
fn picture(dir: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, u32)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        all.insert(path.clone(), (meta.size(), meta.ctime(), meta.ctime_nsec(), meta.mode()));
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all
}

/// dhow on a second store, which uses that of the sandbox.
fn beside(s: &Sandbox, args: &[&str]) -> Cmd {
    let option = format!("additionalimagestore={}", s.store.display());
    s.program(dhow()).args(["--root"]).arg(s.home.join("second")).args(["--storage-opt", &option]).args(args)
}

#[track_caller]
fn use_all(run: &dyn Fn(&[&str]) -> Cmd) {
    let shown = run(&["images", "--format", "{{.Repository}} {{.ReadOnly}}"]).ok();
    assert_eq!(shown, "busybox true");
    assert_eq!(run(&["images", "-q"]).ok().len(), 12);
    run(&["inspect", "busybox"]).ok();
    run(&["history", "busybox"]).ok();
    assert_eq!(run(&["run", "--rm", "busybox", "sh", "-c", "echo x > /etc/new; cat /etc/new"]).ok(), "x");
    run(&["create", "--name", "made", "busybox", "echo", "made"]).ok();
    assert_eq!(run(&["start", "-a", "made"]).ok(), "made");
    run(&["rm", "made"]).ok();
    run(&["rmi", "busybox"]).output().complains("only read").exits(1);
    run(&["image", "prune", "-af"]).ok();
    run(&["tag", "busybox", "mine"]).ok();
    assert_eq!(run(&["run", "--rm", "mine", "echo", "y"]).ok(), "y");
    run(&["system", "check"]).ok();
    run(&["system", "df"]).ok();
    run(&["save", "-o", "saved.tar", "busybox"]).ok();
    run(&["rmi", "mine"]).ok();
    assert_eq!(run(&["images", "--format", "{{.Repository}} {{.ReadOnly}}"]).ok(), "busybox true");
    run(&["system", "reset", "-f"]).ok();
}

fn an_additional_store_is_only_read(s: &Sandbox) {
    let before = picture(&s.store);
    use_all(&|args| beside(s, args));
    assert_eq!(picture(&s.store), before, "nothing was written there");
    // What that store has is not fetched, nor unpacked.
    let registry = Hostile::start();
    let (image, layers, name) = pulled(s, &registry);
    beside(s, &["pull", "-q", &name]).ok();
    let sent: u64 = image.layers.iter().map(|blob| registry.sent(blob)).sum();
    assert_eq!(sent, 0);
    for dir in ["layers", "blobs/sha256"] {
        let own = s.home.join("second").join(dir);
        assert!(
            layers
                .iter()
                .all(|l| !own.join(hex(&l.diff_id)).exists() && !own.join(hex(&l.blob.digest)).exists())
        );
    }
    beside(s, &["run", "--rm", &name, "true"]).ok();
}

fn an_additional_store_by_configuration(s: &Sandbox) {
    let run = |args: &[&str]| s.program(dhow()).arg("--root").arg(s.home.join("second")).args(args);
    let none = s.home.join("none");
    for (file, text) in [
        (".config/dhow/config.toml", format!("[storage]\nadditional-stores = [{none:?}, {:?}]\n", s.store)),
        (
            "named.conf",
            format!(
                "[storage]\ndriver = \"overlay\"\n[storage.options]\nadditionalimagestores = [{none:?}, {:?}]\n",
                s.store
            ),
        ),
    ] {
        assert_eq!(run(&["images", "-q"]).ok(), "", "before {file}");
        let path = s.home.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let with = |args: &[&str]| run(args).env("CONTAINERS_STORAGE_CONF", s.home.join("named.conf"));
        assert_eq!(with(&["run", "--rm", "busybox", "echo", "x"]).ok(), "x", "{file}");
        fs::remove_file(&path).unwrap();
    }
    let missing = format!("additionalimagestore={}", none.display());
    run(&["--storage-opt", &missing, "images"])
        .output()
        .complains("no store of dhow")
        .expect("refused", |o| o.code != 0);
    let own = s.home.join(".config/dhow/config.toml");
    for text in ["[storage]\nadditional-stores = [\"relative\"]", "[storage]\nadditional-stores = \"/x\""] {
        fs::write(&own, text).unwrap();
        let output =
            run(&["images"]).output().complains("config.toml").complains("storage.additional-stores");
        output.expect("refused", |o| o.code != 0);
    }
    fs::remove_file(&own).unwrap();
}

fn an_additional_store_on_a_read_only_mount(s: &Sandbox) {
    let mount = s.subdir("mount");
    let script = format!(
        "mount --bind {0} {1} && mount -o remount,ro,bind {1} && exec \"$@\"",
        s.store.display(),
        mount.display()
    );
    let option = format!("additionalimagestore={}", mount.display());
    let second = s.home.join("second");
    use_all(&|args| {
        let cmd = s.program(dhow()).arg("--root").arg(&second).args(["--storage-opt", &option]).args(args);
        cmd.under(&["unshare", "-m", "sh", "-c", &script, "sh"])
    });
}

/// The files are another user's: this one reads them, and has its own where it needs to.
fn an_additional_store_of_root(s: &Sandbox) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(root) = Sandbox::new(User::Root, "an_additional_store_of_root") else { return };
    fs::set_permissions(&root.store, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.store.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let before = picture(&root.store);
    let option = format!("additionalimagestore={}", root.store.display());
    let run = |args: &[&str]| {
        s.program(dhow()).arg("--root").arg(s.home.join("second")).args(["--storage-opt", &option]).args(args)
    };
    assert_eq!(run(&["images", "--format", "{{.Repository}} {{.ReadOnly}}"]).ok(), "busybox true");
    let script = "stat -c %u:%g /etc/passwd; echo x >> /etc/passwd; tail -n 1 /etc/passwd";
    assert_eq!(run(&["run", "--rm", "busybox", "sh", "-c", script]).ok(), "0:0\nx");
    run(&["system", "check"]).ok();
    run(&["system", "reset", "-f"]).ok();
    assert_eq!(picture(&root.store), before, "nothing was written there");
}

/// A file of another's store that this user may not read is named, whichever it is, and nothing is believed to be missing.
fn what_may_not_be_read(s: &Sandbox) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(root) = Sandbox::new(User::Root, "what_may_not_be_read") else { return };
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for dir in [root.store.parent().unwrap(), &root.store] {
        mode(dir, 0o755);
    }
    let option = format!("additionalimagestore={}", root.store.display());
    let first = |dir: &str| {
        let dir = root.store.join(dir);
        let mut names = crate::leftovers::names(&dir).into_iter();
        dir.join(names.find(|n| !n.as_encoded_bytes().starts_with(b".")).unwrap())
    };
    let layer = first("layers");
    let config = root.store.join("blobs/sha256").join(hex(&root.inspect("busybox", "{{.Id}}")));
    let name = first("images");
    for (path, verbs) in [
        (root.store.clone(), &["images", "run"][..]),
        (root.store.join("images"), &["images", "run"]),
        (name, &["run"]),
        (config, &["inspect", "run"]),
        (layer.join("diff/bin/busybox"), &["run"]),
        (layer.join("diff/etc"), &["run"]),
        (layer, &["run"]),
    ] {
        let before = fs::metadata(&path).unwrap().permissions().mode();
        mode(&path, 0);
        for verb in verbs {
            let args: &[&str] = match *verb {
                "run" => &["run", "--rm", "busybox", "true"],
                "inspect" => &["inspect", "busybox"],
                other => &[other],
            };
            // Nothing of an attempt before is used.
            let own = s.home.join(format!("own-{verb}"));
            let run = |args: &[&str]| s.program(dhow()).arg("--root").arg(&own).args(args);
            let out = run(&["--storage-opt", &option]).args(args).output();
            assert!(out.code != 0, "{}: {}", path.display(), out.report());
            out.complains("Permission denied");
            run(&["system", "reset", "-f"]).ok();
        }
        mode(&path, before & 0o7777);
    }
    // Where the configuration names it, too; and a listing says of what it could not read why that is.
    let own = s.home.join(".config/dhow/config.toml");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::write(&own, format!("[storage]\nadditional-stores = [{:?}]\n", root.store)).unwrap();
    mode(&root.store, 0o700);
    s.dhow(["images"]).output().complains("Permission denied").complains("hint: ").exits(1);
    mode(&root.store, 0o755);
    mode(&first("images"), 0);
    s.dhow(["images"]).output().complains("is damaged: ").complains("Permission denied").exits(0);
    fs::remove_file(&own).unwrap();
}
