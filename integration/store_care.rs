//! The store is looked after: what is broken is found and made whole, what nobody needs is freed and nothing else, what it
//! takes is what du(1) says, and another store is used without touching it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::command::{Cmd, Output};
use crate::hostile_registry::Hostile;
use crate::image_made::{Image, Layer, Packing};
use crate::leftovers;
use crate::sandbox::{Sandbox, dhow};
use crate::user::User;

for_each_user!(
    layers_are_made_again_from_their_blobs,
    only_what_is_broken_is_fetched_again,
    what_cannot_be_repaired_is_named,
    leftovers_are_removed,
    damage_hides_nothing_else,
    check_while_others_work,
    prune_images,
    prune_keeps_what_containers_use,
    prune_containers_and_all,
    nobody_answers,
    df_agrees_with_du,
    reset,
    an_additional_store_is_only_read,
    an_additional_store_by_configuration,
    a_damaged_name_can_be_removed,
);
for_root!(an_additional_store_on_a_read_only_mount, a_pull_is_durable_in_order);
for_rootless!(an_additional_store_of_root);

/// An image of the busybox layer and one of random bytes, pulled as `x`, so that the store has the compressed layers.
fn pulled(s: &Sandbox, registry: &Hostile) -> (Image, Vec<Layer>, String) {
    let layers = vec![Layer::busybox(), Layer::random(Packing::Gzip, "data/random", 7, 300_000)];
    let image = Image::new(&layers);
    registry.put("care/x", "v1", &image);
    let name = registry.name("care/x:v1");
    s.dhow(["pull", "-q", &name]).ok();
    registry.forget();
    (image, layers, name)
}

fn check(s: &Sandbox, flags: &[&str]) -> Output {
    s.dhow(["system", "check"]).args(flags).output()
}

#[track_caller]
fn is_well(s: &Sandbox) {
    let output = check(s, &[]).exits(0);
    assert!(output.text().ends_with("all well"), "{}", output.report());
}

fn blob(s: &Sandbox, digest: &str) -> PathBuf {
    s.store.join("blobs/sha256").join(hex(digest))
}

fn layer(s: &Sandbox, diff_id: &str) -> PathBuf {
    s.store.join("layers").join(hex(diff_id))
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

/// Changes one byte and nothing else, the times included.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    let meta = fs::metadata(path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..=at], at as u64).unwrap();
    file.set_modified(meta.modified().unwrap()).unwrap();
}

fn layers_are_made_again_from_their_blobs(s: &Sandbox) {
    let registry = Hostile::start();
    let (_, layers, name) = pulled(s, &registry);
    is_well(s);
    let diff_id = &layers[1].diff_id;
    let (dir, file) = (layer(s, diff_id), layer(s, diff_id).join("diff/data/random"));
    let damages: [(&str, bool, &dyn Fn()); 5] = [
        ("a byte", false, &|| flip(&file, 1000)),
        ("a cut", true, &|| fs::File::options().write(true).open(&file).unwrap().set_len(10).unwrap()),
        ("a file", true, &|| fs::remove_file(&file).unwrap()),
        ("the record", true, &|| fs::write(dir.join("record.json"), b"").unwrap()),
        ("all", true, &|| fs::remove_dir_all(&dir).unwrap()),
    ];
    for (what, is_quick, damage) in damages {
        damage();
        let quick = check(s, &["--quick"]);
        assert_eq!(quick.code, i32::from(is_quick), "{what}: {}", quick.report());
        let found = check(s, &[]).exits(1);
        let line = format!("broken layer {diff_id}");
        assert!(found.text().contains(&line) && found.text().contains(&name), "{what}: {}", found.report());
        let repaired = check(s, &["--repair"]).exits(0);
        assert!(repaired.text().contains(&format!("repaired layer {diff_id}")), "{}", repaired.report());
        is_well(s);
        let sum = "sha256sum /data/random; cat /etc/passwd >/dev/null";
        s.dhow(["run", "--rm", &name, "sh", "-c", sum]).ok();
    }
    assert!(registry.seen().is_empty(), "no registry is needed for that: {:?}", registry.seen().len());
}

fn only_what_is_broken_is_fetched_again(s: &Sandbox) {
    let registry = Hostile::start();
    let (image, layers, name) = pulled(s, &registry);
    let digest = s.inspect(&name, "{{.Id}}");
    let gone = |digest: &str| fs::remove_file(blob(s, digest)).unwrap();
    let damages: [(&str, &str, &dyn Fn()); 5] = [
        ("a byte of a blob", &layers[1].blob.digest, &|| flip(&blob(s, &layers[1].blob.digest), 5000)),
        ("a blob", &layers[0].blob.digest, &|| gone(&layers[0].blob.digest)),
        ("the config", &image.config.digest, &|| gone(&image.config.digest)),
        ("the manifest", &image.manifest.digest, &|| flip(&blob(s, &image.manifest.digest), 3)),
        ("a layer and its blob", &layers[1].blob.digest, &|| {
            gone(&layers[1].blob.digest);
            flip(&layer(s, &layers[1].diff_id).join("diff/data/random"), 1);
        }),
    ];
    for (what, broken, damage) in damages {
        damage();
        let found = check(s, &[]).exits(1);
        assert!(found.text().contains(broken), "{what}: {}", found.report());
        registry.forget();
        let repaired = check(s, &["--repair"]);
        assert!(repaired.code == 0 && repaired.text().contains("repaired"), "{what}: {}", repaired.report());
        for (blob, sent) in image.blobs().map(|blob| (blob, registry.sent(blob))) {
            let is_config = blob.digest == image.config.digest;
            let may = if blob.digest == broken || is_config { blob.len() } else { 0 };
            assert!(sent <= may, "{what}: {sent} bytes of {}", blob.digest);
        }
        is_well(s);
        assert_eq!(s.inspect(&name, "{{.Id}}"), digest);
        s.dhow(["run", "--rm", &name, "true"]).ok();
    }
    assert_eq!(s.dhow(["images", "-q", &name]).ok().lines().count(), 1, "no new name, no second image");
}

/// The image of the sandbox under a name whose registry is not there.
fn local(s: &Sandbox) -> String {
    let name = "127.0.0.1:1/local:v1".to_owned();
    s.dhow(["tag", "busybox", &name]).ok();
    s.dhow(["rmi", "busybox"]).ok();
    name
}

fn only_layer(s: &Sandbox) -> PathBuf {
    let names = leftovers::names(&s.store.join("layers"));
    assert_eq!(names.len(), 1, "{names:?}");
    s.store.join("layers").join(&names[0])
}

fn what_cannot_be_repaired_is_named(s: &Sandbox) {
    let name = local(s);
    let passwd = only_layer(s).join("diff/etc/passwd");
    flip(&passwd, 0);
    let damaged = fs::read(&passwd).unwrap();
    let output = check(s, &["--repair"]).exits(1);
    assert!(output.text().contains("not repaired") && output.text().contains(&name), "{}", output.report());
    assert_eq!(fs::read(&passwd).unwrap(), damaged, "what was there is there still");
    s.dhow(["run", "--rm", &name, "true"]).ok();

    let container = s.dhow(["run", "-d", &name, "sleep", "1000"]).output();
    let id = s.note(container.text(), &container);
    let output = check(s, &["--repair"]).exits(1);
    assert!(output.text().contains("running"), "{}", output.report());
    s.dhow(["rm", "-f", &id]).ok();
    s.dhow(["rmi", &name]).ok();
    is_well(s);
}

fn leftovers_are_removed(s: &Sandbox) {
    let own = |path: &Path| {
        std::os::unix::fs::chown(path, Some(s.account.uid), Some(s.account.gid)).unwrap();
    };
    let draft = s.store.join("tmp/0123456789abcdef");
    fs::create_dir(&draft).unwrap();
    for name in ["lock", "blob"] {
        fs::write(draft.join(name), b"").unwrap();
        own(&draft.join(name));
    }
    own(&draft);
    std::os::unix::fs::symlink("f".repeat(64), s.store.join("names/ghost")).unwrap();
    let unneeded = s.store.join("blobs/sha256").join(hex(&crate::image_made::digest(b"nobody")));
    fs::write(&unneeded, b"nobody").unwrap();
    own(&unneeded);
    let found = check(s, &[]).exits(0);
    for what in ["draft tmp/0123456789abcdef", "container name ghost", "blob sha256:"] {
        assert!(found.text().contains(&format!("leftover {what}")), "{}", found.report());
    }
    let repaired = check(s, &["--repair"]).exits(0);
    assert!(repaired.text().contains("3 removed"), "{}", repaired.report());
    assert!(!draft.exists() && !unneeded.exists());
    is_well(s);
    s.assert_nothing_left();
    s.dhow(["run", "--rm", "busybox", "true"]).ok();
}

fn damage_hides_nothing_else(s: &Sandbox) {
    s.dhow(["tag", "busybox", "good"]).ok();
    let registry = Hostile::start();
    let (image, _, name) = pulled(s, &registry);
    let id = s.detached(["--name", "c1"], ["sleep", "1000"]);
    // A document of an image, the file of a name, the record of a container.
    fs::remove_file(blob(s, &image.manifest.digest)).unwrap();
    fs::remove_file(blob(s, &image.config.digest)).unwrap();
    fs::write(s.store.join("images/docker.io%2Flibrary%2Fbad%3Av1"), b"\0\0\0").unwrap();
    let stopped = s.dhow(["create", "--name", "c2", "busybox", "true"]).ok();
    fs::write(s.store.join("containers").join(&stopped).join("record.json"), b"{").unwrap();

    let found = check(s, &["--quick"]).exits(1);
    for what in ["manifest sha256:", "name bad:v1", &format!("container {stopped}")] {
        assert!(found.text().contains(&format!("broken {what}")), "{}", found.report());
    }
    let listed = s.dhow(["images", "--format", "{{.Repository}}"]).ok();
    assert!(["busybox", "good", "care/x"].iter().all(|n| listed.contains(n)), "{listed}");
    assert_eq!(s.dhow(["ps", "-q", "--no-trunc"]).ok(), id);
    s.dhow(["run", "--rm", "good", "true"]).ok();
    // What the damaged ones need is unknown: nothing is freed, and nobody fails.
    s.dhow(["image", "prune", "-f"]).ok();
    s.dhow(["container", "prune", "-f"]).ok();
    s.dhow(["system", "df"]).ok();
    s.dhow(["exec", "c1", "true"]).ok();
    s.dhow(["rmi", "good"]).ok();
    s.dhow(["rmi", "bad:v1"]).ok();
    s.dhow(["rmi", &name]).ok();
    s.dhow(["rm", "-f", &stopped, "c1"]).ok();
    s.dhow(["image", "prune", "-f"]).ok();
    is_well(s);
    assert_eq!(s.dhow(["images", "-q"]).ok().lines().count(), 1);
}

fn check_while_others_work(s: &Sandbox) {
    let registry = Hostile::start();
    let (_, _, name) = pulled(s, &registry);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            for n in 0..6 {
                s.import_busybox();
                s.dhow(["run", "--rm", &name, "true"]).ok();
                let image = Image::small(n, 3, 50_000);
                registry.put("care/more", "v1", &image);
                s.dhow(["pull", "-q", &registry.name("care/more:v1")]).ok();
                s.dhow(["rmi", &registry.name("care/more:v1")]).ok();
            }
        });
        while !worker.is_finished() {
            check(s, &[]).exits(0);
        }
    });
    check(s, &["--repair"]).exits(0);
    is_well(s);
}

fn prune_images(s: &Sandbox) {
    s.dhow(["tag", "busybox", "keep"]).ok();
    let labelled = |name: &str, label: &str| {
        let image = ["import", "--change", label, "-", name];
        s.dhow(image).stdin_file(crate::images::busybox()).ok();
    };
    labelled("one", "LABEL k=1");
    labelled("one", "LABEL k=2");
    labelled("two", "LABEL k=3");
    assert_eq!(s.dhow(["images", "-q", "-f", "dangling=true"]).ok().lines().count(), 1);
    let said = s.dhow(["image", "prune", "-f", "--filter", "label=k=9"]).ok();
    assert_eq!(said, "Total reclaimed space: 0B");
    let said = s.dhow(["image", "prune", "-f"]).ok();
    assert!(
        said.starts_with("Deleted Images:\ndeleted: sha256:") && said.contains("Total reclaimed space: "),
        "{said}"
    );
    assert!(s.dhow(["image", "prune", "-af", "--filter", "until=24h"]).ok().starts_with("Total"));
    let said = s.dhow(["image", "prune", "-a", "-f", "--filter", "label!=k=3", "--filter", "label=k"]).ok();
    assert!(said.contains("untagged: one:latest") && !said.contains("two"), "{said}");
    s.dhow(["image", "prune", "--all", "--force"]).ok();
    assert_eq!(s.dhow(["images", "-aq"]).ok(), "");
    for dir in ["blobs/sha256", "layers"] {
        assert!(leftovers::names(&s.store.join(dir)).is_empty(), "{dir}");
    }
    s.dhow(["image", "prune", "-f", "--filter", "name=x"]).output().complains("name").exits(1);
}

fn prune_keeps_what_containers_use(s: &Sandbox) {
    let registry = Hostile::start();
    let (_, _, name) = pulled(s, &registry);
    let one = s.dhow(["create", "--name", "stopped", &name, "cat", "/etc/passwd"]).output();
    s.note(one.text(), &one);
    let before = leftovers::names(&s.store.join("layers")).len();
    // By force the image goes, and the container keeps its layers.
    s.dhow(["rmi", "-f", &name]).ok();
    s.dhow(["image", "prune", "-af"]).ok();
    is_well(s);
    assert_eq!(leftovers::names(&s.store.join("layers")).len(), before, "busybox shares its only layer");
    assert!(s.dhow(["start", "-a", "stopped"]).ok().contains("root"));
    s.dhow(["rm", "stopped"]).ok();
    s.dhow(["image", "prune", "-af"]).ok();
    assert!(leftovers::names(&s.store.join("layers")).is_empty());
}

fn prune_containers_and_all(s: &Sandbox) {
    let runs = s.detached(["--name", "runs"], ["sleep", "1000"]);
    let done =
        s.detached(["--name", "done", "--label", "k=v"], ["sh", "-c", "head -c 100000 /dev/urandom > /x"]);
    s.dhow(["wait", "done"]).ok();
    let said = s.dhow(["container", "prune", "-f", "--filter", "label!=k"]).ok();
    assert_eq!(said, "Total reclaimed space: 0B");
    let said = s.dhow(["container", "prune", "--force"]).ok();
    assert!(said.starts_with(&format!("Deleted Containers:\n{done}\n\nTotal reclaimed space: 1")), "{said}");
    s.dhow(["create", "busybox", "true"]).ok();
    let said = s.dhow(["system", "prune", "-f", "-a", "--volumes"]).ok();
    assert!(said.contains("Deleted Containers:\n"), "{said}");
    assert_eq!(s.dhow(["ps", "-aq", "--no-trunc"]).ok(), runs);
    s.dhow(["exec", "runs", "true"]).ok();
    s.dhow(["rm", "-f", "runs"]).ok();
    let said = s.dhow(["system", "prune", "-af"]).ok();
    assert!(said.contains("untagged: busybox:latest"), "{said}");
}

fn nobody_answers(s: &Sandbox) {
    s.import_busybox();
    for verb in [&["image", "prune"][..], &["system", "prune"], &["container", "prune"], &["system", "reset"]]
    {
        let asked = s.dhow(verb).output().exits(1).complains("nobody answered");
        assert!(asked.text().starts_with("WARNING! This will remove"), "{}", asked.report());
        let no = s.dhow(verb).stdin("n\n").output().exits(0);
        assert!(!no.text().contains("Deleted"), "{}", no.report());
    }
    assert_eq!(s.dhow(["images", "-q"]).ok().lines().count(), 2);
    let yes = s.dhow(["image", "prune"]).stdin("y\n").ok();
    assert!(yes.contains("[y/N] Deleted Images:"), "{yes}");
}

/// Bytes on disk, by du's own count.
fn du(path: &Path) -> f64 {
    let output = std::process::Command::new("du").args(["-s", "-B1"]).arg(path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap().parse().unwrap()
}

/// `1.5MB` as docker writes it.
fn bytes(text: &str) -> f64 {
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).unwrap();
    let power = ["B", "kB", "MB", "GB"].iter().position(|unit| *unit == &text[digits..]).unwrap();
    text[..digits].parse::<f64>().unwrap() * 1000_f64.powi(power as i32)
}

fn df_agrees_with_du(s: &Sandbox) {
    let registry = Hostile::start();
    pulled(s, &registry);
    // A tree with hard links and a hole.
    let (root, tar) = (s.subdir("root"), s.work.join("links.tar"));
    fs::write(root.join("big"), vec![7; 400_000]).unwrap();
    (0..20).for_each(|n| fs::hard_link(root.join("big"), root.join(format!("link{n}"))).unwrap());
    fs::File::create(root.join("hole")).unwrap().set_len(50_000_000).unwrap();
    let pack = ["-C", &root.display().to_string(), "-Scf", &tar.display().to_string(), "."];
    assert!(std::process::Command::new("tar").args(pack).status().unwrap().success());
    s.dhow(["import", &tar.display().to_string(), "links"]).ok();
    s.dhow(["tag", "busybox", "second"]).ok();
    let write = ["sh", "-c", "head -c 200000 /dev/urandom > /x; ln /x /y"];
    s.dhow(["run", "--name", "wrote"]).arg("busybox").args(write).ok();
    s.detached(["--name", "runs"], ["sleep", "1000"]);
    let shown = s.dhow(["system", "df", "--format", "{{.Size}}"]).ok();
    let sizes: Vec<f64> = shown.lines().map(bytes).collect();
    assert_eq!(sizes.len(), 4, "{shown}");
    let is_near = |got: f64, want: f64| (got - want).abs() <= want * 0.01;
    let (sum, all) = (sizes.iter().sum::<f64>(), du(&s.store));
    assert!(is_near(sum, all), "df {sum}, du {all}: {shown}");
    let containers = du(&s.store.join("containers"));
    assert!((sizes[1] - containers).abs() <= containers * 0.01 + 20_000.0, "{} {containers}", sizes[1]);
    let table = s.dhow(["system", "df"]).ok();
    for line in
        ["TYPE            TOTAL     ACTIVE", "Images          3         1", "Containers      2         1"]
    {
        assert!(table.contains(line), "{table}");
    }
    let verbose = s.dhow(["system", "df", "-v"]).ok();
    for part in ["Images space usage:", "SHARED SIZE", "Containers space usage:", "wrote", "second"] {
        assert!(verbose.contains(part), "{verbose}");
    }
    s.dhow(["rm", "-f", "runs", "wrote"]).ok();
}

fn reset(s: &Sandbox) {
    s.detached(["--name", "runs"], ["sleep", "1000"]);
    s.dhow(["system", "reset"]).output().complains("runs").exits(1);
    s.dhow(["exec", "runs", "true"]).ok();
    fs::write(s.store.join("not-ours"), b"x").unwrap();
    s.dhow(["system", "reset", "--force"]).ok();
    assert_eq!(leftovers::names(&s.store), ["not-ours"]);
    s.import_busybox();
    s.dhow(["run", "--rm", "busybox", "true"]).ok();
}

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
        (".config/dhow/storage.conf", format!("additionalimagestores = [{:?}]\n", s.store)),
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

fn a_damaged_name_can_be_removed(s: &Sandbox) {
    let file = s.store.join("images/docker.io%2Flibrary%2Fbusybox%3Alatest");
    fs::write(&file, b"").unwrap();
    s.dhow(["images"]).output().complains("busybox:latest is damaged").exits(0);
    s.dhow(["run", "--rm", "busybox", "true"]).output().expect("an error", |o| o.code != 0);
    assert!(check(s, &["--repair"]).exits(1).text().contains("name busybox:latest"));
    s.import_busybox();
    s.dhow(["run", "--rm", "busybox", "true"]).ok();
    // Only now can anybody tell that the documents of the lost one are of no use.
    assert!(check(s, &["--repair"]).exits(0).text().contains("2 removed"));
    is_well(s);
}

/// What strace saw of what makes things durable: (call, arguments), in the order in which the calls ended.
fn traced(text: &str) -> Vec<(String, String)> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, start);
            continue;
        }
        let is_resumed = rest.starts_with("<... ");
        let whole = if is_resumed { begun.remove(pid).unwrap_or_default() } else { rest };
        if let Some((call, arguments)) = whole.split_once('(') {
            calls.push((call.to_owned(), arguments.to_owned()));
        }
    }
    calls
}

/// Nothing gets its place before its bytes are on the disk, and no name before what it stands for has its place there.
fn a_pull_is_durable_in_order(s: &Sandbox) {
    crate::capability::needs!("strace");
    let registry = Hostile::start();
    registry.put("care/x", "v1", &Image::small(5, 4, 100_000));
    let trace = s.work.join("trace");
    let calls =
        "write,pwrite64,writev,copy_file_range,ftruncate,syncfs,fsync,fdatasync,rename,renameat,renameat2";
    let wrapper = [
        "strace",
        "-f",
        "-y",
        "-s",
        "0",
        "-o",
        &trace.display().to_string(),
        "-e",
        &format!("trace={calls}"),
    ]
    .map(str::to_owned);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    s.dhow(["pull", "-q", &registry.name("care/x:v1")]).under(&wrapper).ok();
    let calls = traced(&fs::read_to_string(&trace).unwrap());
    let is_rename = |call: &str| call.starts_with("rename");
    let quoted = |arguments: &str| -> Vec<String> {
        arguments.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let place = |to: &str, dir: &str| Path::new(to).parent() == Some(&s.store.join(dir));
    let (mut n_objects, mut n_names) = (0, 0);
    for (at, (_, arguments)) in calls.iter().enumerate().filter(|(_, (call, _))| is_rename(call)) {
        let paths = quoted(arguments);
        let [from, to] = &paths[..] else { panic!("{arguments}") };
        let is_object = place(to, "layers") || place(to, "blobs/sha256");
        let is_name = place(to, "images");
        if !is_object && !is_name {
            continue;
        }
        let before = &calls[..at];
        let is_written = |(call, arguments): &(String, String)| {
            !call.contains("sync") && !is_rename(call) && arguments.contains(from.as_str())
        };
        if let Some(last) = before.iter().rposition(is_written) {
            let is_synced = before[last..].iter().any(|(call, arguments)| {
                call == "syncfs" || call.contains("sync") && arguments.contains(from.as_str())
            });
            assert!(is_synced, "{from} was renamed to {to} before it was on the disk");
        }
        n_objects += usize::from(is_object);
        n_names += usize::from(is_name);
        if !is_name {
            continue;
        }
        for dir in ["layers", "blobs/sha256"] {
            let into = |(call, arguments): &(String, String)| {
                is_rename(call) && quoted(arguments).get(1).is_some_and(|to| place(to, dir))
            };
            let last = before.iter().rposition(into).unwrap_or_else(|| panic!("nothing in {dir}"));
            let named = format!("<{}>", s.store.join(dir).display());
            let is_synced =
                |(call, arguments): &(String, String)| call == "fsync" && arguments.contains(&named);
            assert!(before[last..].iter().any(is_synced), "the name {to} came before {dir} was on the disk");
        }
    }
    assert!(n_objects >= 4 + 4 && n_names == 1, "{n_objects} {n_names}");
}
