//! `system check`: what is broken in the store is found and made whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::Output;
use crate::hostile_registry::Hostile;
use crate::image_made::{Image, Layer, Packing};
use crate::leftovers;
use crate::sandbox::Sandbox;

for_each_user!(
    layers_are_made_again_from_their_blobs,
    only_what_is_broken_is_fetched_again,
    what_cannot_be_repaired_is_named,
    leftovers_are_removed,
    damage_hides_nothing_else,
    check_while_others_work,
    a_damaged_name_can_be_removed,
    a_store_of_another_version,
);
for_root!(a_pull_is_durable_in_order);

/// An image of the busybox layer and one of random bytes, pulled as `x`, so that the store has the compressed layers.
pub fn pulled(s: &Sandbox, registry: &Hostile) -> (Image, Vec<Layer>, String) {
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
pub fn is_well(s: &Sandbox) {
    let output = check(s, &[]).exits(0);
    assert!(output.text().ends_with("all well"), "{}", output.report());
}

fn blob(s: &Sandbox, digest: &str) -> PathBuf {
    s.store.join("blobs/sha256").join(hex(digest))
}

fn layer(s: &Sandbox, diff_id: &str) -> PathBuf {
    s.store.join("layers").join(hex(diff_id))
}

pub fn hex(digest: &str) -> &str {
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

fn a_store_of_another_version(s: &Sandbox) {
    s.dhow(["run", "--rm", "busybox", "true"]).ok();
    let format = s.store.join("format");
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "1\n");
    std::fs::write(&format, "2\n").unwrap();
    for words in
        [&["run", "--rm", "busybox", "true"][..], &["images"], &["ps", "-a"], &["system", "prune", "-f"]]
    {
        let out = s.dhow(words).output().complains("format 2").complains("hint: ");
        assert!(out.code != 0 && out.stdout.is_empty(), "{}", out.report());
    }
    // One from before there was a number is what it always was.
    std::fs::remove_file(&format).unwrap();
    assert_eq!(s.dhow(["run", "--rm", "busybox", "echo", "still"]).ok(), "still");
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "1\n");
}
