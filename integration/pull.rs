//! `pull`, and what run and create pull: what is said, under which names it is known, which image of several, when the
//! registry is asked and when it is not. Registries that fail are in `registry_bad_days`, deaths in `registry_deaths`.

use crate::hostile_registry::{Deed, Gate, Hostile};
use crate::image_made::{Image, Layer, OCI_INDEX, Packing};
use crate::sandbox::Sandbox;
use crate::terminal::Terminal;

for_each_user!(
    what_docker_says,
    by_digest,
    run_pulls_what_is_missing,
    the_image_for_a_platform,
    only_what_changed_moves,
    when_the_registry_is_asked,
);
for_root!(
    all_tags,
    equal_layers_come_once,
    foreign_layers,
    prune_gives_up_what_was_not_finished,
    bars_on_a_terminal,
    docker_manifests,
    wrong_words
);

fn digest_line(digest: &str) -> String {
    format!("Digest: {digest}")
}

/// The image that runs.
fn busybox() -> Image {
    Image::new(&[Layer::busybox(), Layer::of_files(Packing::Zstd, [("added", &b"hello\n"[..])])])
}

fn what_docker_says(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 2, 1000);
    registry.put("some/thing", "v1", &image);
    let name = registry.name("some/thing:v1");
    let out = s.dhow(["pull", &name]).output().exits(0);
    let lines = |status: &str| {
        let first = "v1: Pulling from some/thing".to_owned();
        let status = format!("Status: {status} for {name}");
        [first, digest_line(&image.manifest.digest), status, name.clone()].join("\n")
    };
    assert_eq!(out.text(), lines("Downloaded newer image"), "{}", out.report());
    let said = out.error_text();
    for layer in &image.layers {
        let short = &layer.digest["sha256:".len()..][..12];
        let states: Vec<&str> =
            said.lines().filter_map(|l| l.strip_prefix(short)?.strip_prefix(": ")).collect();
        assert_eq!(states, ["Pulling fs layer", "Download complete", "Pull complete"], "{}", out.report());
    }
    let out = s.dhow(["pull", &name]).output().exits(0);
    assert_eq!(out.text(), lines("Image is up to date"), "{}", out.report());
    let out = s.dhow(["image", "pull", "-q", &name]).output().exits(0);
    assert_eq!((out.text(), out.error_text()), (name.clone(), String::new()));
    // What is here by another name is not fetched.
    registry.put("some/thing", "v2", &image);
    s.dhow(["rmi", &name]).ok();
    s.dhow(["image", "exists", &name]).fails(1);
    s.dhow(["pull", "-q", &registry.name("some/thing:v2")]).ok();
    registry.forget();
    s.dhow(["pull", "-q", &name]).ok();
    assert_eq!(registry.count(|r| r.is_blob()), 0, "{:?}", registry.seen());
    s.dhow(["image", "exists", &name]).ok();
}

fn by_digest(s: &Sandbox) {
    let registry = Hostile::start();
    let image = busybox();
    registry.put("d", "v1", &image);
    let digest = &image.manifest.digest;
    let name = registry.name(&format!("d@{digest}"));
    let repository = registry.name("d");
    assert_eq!(s.dhow(["pull", "-q", &name]).ok(), name);
    assert_eq!(s.inspect(&name, "{{json .RepoTags}} {{json .RepoDigests}}"), format!("[] [\"{name}\"]"));
    let rows = |s: &Sandbox| {
        let format = "{{.Repository}} {{.Tag}} {{.Digest}}";
        s.dhow(["images", "--digests", "--format", format, &repository]).ok()
    };
    assert_eq!(rows(s), format!("{repository} <none> {digest}"));
    registry.forget();
    assert_eq!(s.dhow(["run", "--rm", &name, "cat", "/added"]).ok(), "hello");
    assert_eq!(registry.seen().len(), 0, "what is here is not asked for");
    assert_eq!(s.dhow(["pull", "-q", &name]).ok(), name);
    assert_eq!(registry.seen().len(), 0, "a digest is what it is");
    // With a tag beside it, the digest counts; and a tag hides the row without one.
    s.dhow(["rmi", &name]).ok();
    let both = registry.name(&format!("d:nothing@{digest}"));
    assert_eq!(s.dhow(["pull", "-q", &both]).ok(), name);
    s.dhow(["pull", "-q", &registry.name("d:v1")]).ok();
    assert_eq!(rows(s), format!("{repository} v1 {digest}"));
    assert_eq!(s.dhow(["run", "--rm", &both, "cat", "/added"]).ok(), "hello");
    let other = registry.name(&format!("d@sha256:{}", "0".repeat(64)));
    s.dhow(["pull", "-q", &other]).output().complains("no such manifest");
}

fn run_pulls_what_is_missing(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("r", "latest", &busybox());
    let name = registry.name("r");
    let out = s.dhow(["run", "--rm", &name, "cat", "/added"]).output().exits(0);
    assert_eq!(out.text(), "hello", "stdout is the program's: {}", out.report());
    out.complains(&format!("Unable to find image '{name}:latest' locally"))
        .complains("latest: Pulling from r")
        .complains("Pull complete");
    registry.forget();
    let out = s.dhow(["run", "--rm", &name, "true"]).output().exits(0);
    assert_eq!((out.error_text(), registry.seen().len()), (String::new(), 0));
    s.dhow(["rmi", &name]).ok();
    let out = s.dhow(["create", "-q", "--name", "made", &name]).output().exits(0);
    assert_eq!(out.error_text(), "");
    s.note(out.text(), &out);
    // A container uses it: it stays.
    s.dhow(["rmi", &name]).output().complains("made");
    s.dhow(["rm", "made"]).ok();
    // No id file is left by a pull that failed, and none is in its way.
    let cidfile = s.work.join("cid");
    let missing = registry.name("missing");
    let run = || s.dhow(["run", "--rm", "--cidfile", cidfile.to_str().unwrap(), &missing]).output();
    run().exits(125).complains("no such manifest");
    assert!(!cidfile.exists());
    run().exits(125).complains("no such manifest");
    s.dhow(["run", "--rm", &"0".repeat(64)]).output().exits(125).complains("no such image");
    s.assert_nothing_left();
}

fn the_image_for_a_platform(s: &Sandbox) {
    let registry = Hostile::start();
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let layer = |name: &str| Layer::of_files(Packing::Gzip, [(name, name.as_bytes())]);
    let (ours, other) = (Image::new(&[layer("ours")]), Image::for_platform(&[layer("other")], "s390x"));
    let index = Image::index(&[("s390x", &other), (own, &ours)]);
    for (tag, image) in [("ours", &ours), ("other", &other)] {
        registry.put("multi", tag, image);
    }
    registry.content().put_manifest("multi", "v1", index.clone());
    let name = registry.name("multi:v1");
    let architecture = |name: &str| s.inspect(name, "{{.Architecture}}");
    let out = s.dhow(["pull", &name]).output().exits(0);
    assert!(out.text().contains(&digest_line(&index.digest)), "the index's digest: {}", out.report());
    assert_eq!(architecture(&name), own);
    let by_index = registry.name(&format!("multi@{}", index.digest));
    assert_eq!(s.inspect(&name, "{{json .RepoDigests}}"), format!("[\"{by_index}\"]"));
    assert_eq!(architecture(&by_index), own);
    assert_eq!(s.inspect(&name, "{{.Descriptor.digest}}"), ours.manifest.digest);
    registry.forget();
    s.dhow(["pull", &name]).output().exits(0).expect("up to date", |o| o.text().contains("up to date"));
    assert_eq!(registry.count(|r| r.method == "GET" && r.path != "/v2/"), 0, "{:?}", registry.seen());
    s.dhow(["pull", "-q", "--platform", "linux/s390x", &name]).ok();
    assert_eq!(architecture(&name), "s390x");
    s.dhow(["create", "--name", "c", "--platform", &format!("linux/{own}"), &name]).ok();
    assert_eq!(architecture(&name), own);
    s.dhow(["rm", "c"]).ok();
    s.dhow(["pull", "-q", "--platform", "linux/ppc64le", &name])
        .output()
        .complains("there is no image for linux/ppc64le: there is linux/s390x, linux/");
    let lone = registry.name("multi:other");
    let never = ["create", "--pull", "never", "--platform", "linux/ppc64le", &name];
    s.dhow(never).output().exits(1).complains("it is for linux/");
    s.dhow(["pull", "-q", "--platform", &format!("linux/{own}"), &lone])
        .output()
        .complains("there is linux/s390x");
    s.dhow(["pull", "-q", &lone]).output().exits(0).complains("the image is for linux/s390x");
    s.dhow(["pull", "-q", "--platform", "linux/s390x/", &lone]).output().complains("is not a platform");
    // What the index says of a manifest has to be so.
    let lies = String::from_utf8(index.bytes.to_vec()).unwrap();
    let lies = lies.replace(&format!("\"size\":{}", ours.manifest.len()), "\"size\":7");
    let lies = crate::image_made::Blob::new(lies.into_bytes(), OCI_INDEX);
    registry.content().put_manifest("multi", "lies", lies);
    s.dhow(["rmi", &name]).ok();
    s.dhow(["pull", "-q", &registry.name("multi:lies")]).output().complains(&ours.manifest.digest);
}

fn only_what_changed_moves(s: &Sandbox) {
    let registry = Hostile::start();
    let layer = |seed| Layer::random(Packing::Gzip, "file", seed, 50_000);
    let (one, two) = (Image::new(&[layer(1), layer(2)]), Image::new(&[layer(1), layer(3)]));
    registry.put("c", "v1", &one);
    let name = registry.name("c:v1");
    s.dhow(["pull", "-q", &name]).ok();
    registry.put("c", "v1", &two);
    registry.forget();
    s.dhow(["pull", &name]).output().exits(0).complains("Already exists");
    assert_eq!(registry.sent(&two.layers[0]), 0);
    assert_eq!(registry.sent(&two.layers[1]), two.layers[1].len());
    assert_eq!(s.inspect(&name, "{{.Id}}"), two.config.digest);
    // What had the name is still there, without one.
    assert_eq!(s.inspect(&one.config.digest, "{{json .RepoTags}}"), "[]");
    s.dhow(["system", "check"]).ok();
}

fn when_the_registry_is_asked(s: &Sandbox) {
    let registry = Hostile::start();
    let other = Image::new(&[Layer::busybox(), Layer::of_files(Packing::Gzip, [("added", &b"new\n"[..])])]);
    registry.put("p", "v1", &busybox());
    let name = registry.name("p:v1");
    let run = |policy: &str| s.dhow(["run", "--rm", "-q", "--pull", policy, &name, "cat", "/added"]).output();
    run("never").exits(125).complains("no such image");
    assert_eq!(registry.seen().len(), 0, "never is never");
    assert_eq!(run("missing").exits(0).text(), "hello");
    registry.put("p", "v1", &other);
    registry.forget();
    for policy in ["missing", "never"] {
        assert_eq!(run(policy).exits(0).text(), "hello");
    }
    assert_eq!(registry.seen().len(), 0, "what is here is enough");
    assert_eq!(run("newer").exits(0).text(), "new");
    registry.put("p", "v1", &busybox());
    assert_eq!(run("always").exits(0).text(), "hello");
    registry.behave(|_| Deed::status(404));
    run("always").exits(125).complains("no such manifest");
    assert_eq!(run("newer").exits(0).complains("as it is here").text(), "hello");
    // `pull` has the same words, and always is what it does without one.
    registry.forget();
    s.dhow(["pull", "--policy", "missing", &name]).output().exits(0);
    assert_eq!(registry.seen().len(), 0);
    s.dhow(["pull", "-q", &name]).output().complains("no such manifest");
    s.dhow(["pull", "--policy", "never", &registry.name("q")]).output().complains("no such image");
    // An id is nothing that a registry knows.
    registry.forget();
    let id = s.inspect(&name, "{{.Id}}");
    s.dhow(["run", "--rm", "--pull", "always", &id, "true"]).ok();
    assert_eq!(registry.seen().len(), 0);
}

fn all_tags(s: &Sandbox) {
    let registry = Hostile::start();
    for (n, tag) in ["a", "b", "c"].into_iter().enumerate() {
        registry.put("all", tag, &Image::small(n as u64, 1, 500));
    }
    let out = s.dhow(["pull", "-a", &registry.name("all")]).output().exits(0);
    assert_eq!(out.text().matches("Status: Downloaded newer image").count(), 3, "{}", out.report());
    assert_eq!(out.text().lines().last(), Some(registry.name("all").as_str()));
    let tags = s.dhow(["images", "--format", "{{.Tag}}", &registry.name("all")]).ok();
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["a", "b", "c"]);
    s.dhow(["pull", "-a", &registry.name("all:a")]).output().complains("one of them");
    s.dhow(["pull", "-a", &registry.name("none")]).output().complains("all tags of");
}

fn equal_layers_come_once(s: &Sandbox) {
    let registry = Hostile::start();
    let layer = Layer::random(Packing::Gzip, "f", 1, 5000);
    let image = Image::new(&[layer.clone(), layer.clone(), layer]);
    registry.put("same", "v1", &image);
    s.dhow(["pull", "-q", &registry.name("same:v1")]).ok();
    assert_eq!(registry.sent(&image.layers[0]), image.layers[0].len());
    assert_eq!(s.inspect(&registry.name("same:v1"), "{{len .RootFS.Layers}}"), "3");
    // Of a layer that came uncompressed there is no copy beside what was unpacked.
    let plain = Image::new(&[Layer::random(Packing::Plain, "f", 2, 5000)]);
    registry.put("same", "plain", &plain);
    s.dhow(["pull", "-q", &registry.name("same:plain")]).ok();
    let hex = plain.layers[0].digest.strip_prefix("sha256:").unwrap();
    assert!(s.store.join("layers").join(hex).exists());
    assert!(!s.store.join("blobs/sha256").join(hex).exists() && !s.store.join("partial").join(hex).exists());
    s.dhow(["system", "check"]).ok();
}

fn prune_gives_up_what_was_not_finished(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 1, 200_000);
    registry.put("half", "v1", &image);
    let (name, layer) = (registry.name("half:v1"), image.layers[0].clone());
    registry.behave(move |r| match (r.is_of(&layer), r.nth) {
        (true, 0) => Deed::cut(100_000),
        (true, _) => Deed::status(404),
        _ => Deed::serve(),
    });
    s.dhow(["pull", "-q", &name]).output().expect("an error", |o| o.code != 0);
    let partials = || crate::leftovers::names(&s.store.join("partial")).len();
    assert_eq!(partials(), 1, "it is kept to be gone on with");
    s.dhow(["rmi", "busybox"]).ok();
    assert_eq!(partials(), 1, "also when an image is removed");
    s.dhow(["image", "prune", "-f"]).ok();
    assert_eq!(partials(), 0);
}

fn foreign_layers(s: &Sandbox) {
    let (registry, elsewhere) = (Hostile::start(), Hostile::start());
    let image = Image::small(1, 1, 5000);
    let layer = image.layers[0].clone();
    elsewhere.put("kept", "here", &image);
    let url = format!("http://{}/v2/kept/blobs/{}", elsewhere.addr(), layer.digest);
    let foreign = image.with_manifest(|m| {
        m["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
        m["layers"][0]["urls"] = serde_json::json!([format!("http://{}/gone", elsewhere.addr()), url]);
    });
    registry.put("foreign", "v1", &foreign);
    let gone = layer.digest.clone();
    registry.behave(move |r| if r.path.ends_with(&gone) { Deed::status(404) } else { Deed::serve() });
    s.dhow(["pull", "-q", &registry.name("foreign:v1")]).ok();
    assert_eq!(elsewhere.sent(&layer), layer.len());
    // No other layer may say where it is to be had.
    let sly = Image::small(2, 1, 5000).with_manifest(|m| m["layers"][0]["urls"] = serde_json::json!([url]));
    registry.put("foreign", "sly", &sly);
    elsewhere.forget();
    registry.behave(|r| if r.is_blob() && r.nth == 0 { Deed::status(404) } else { Deed::serve() });
    registry.forget();
    s.dhow(["pull", "-q", &registry.name("foreign:sly")]).output().expect("refused", |o| o.code != 0);
    assert_eq!(elsewhere.seen().len(), 0);
}

fn bars_on_a_terminal(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 3, 100_000);
    registry.put("bars", "v1", &image);
    let (gate, layer) = (Gate::default(), image.layers[0].clone());
    let held = gate.clone();
    // One comes slowly, for what comes at once is not drawn, and stays half way until it was seen.
    let half = move || Deed {
        gate: Deed::gate(layer.len() / 2, &held).gate,
        ..Deed::drip(4096, std::time::Duration::from_millis(10))
    };
    let slow = image.layers[0].clone();
    registry.behave(move |r| if r.is_of(&slow) { half() } else { Deed::serve() });
    let mut terminal = Terminal::start(s.dhow(["pull", &registry.name("bars:v1")]), 24, 100);
    terminal.expect("v1: Pulling from bars");
    terminal.expect("Downloading");
    terminal.expect("[=");
    gate.open();
    terminal.expect("Status: Downloaded newer image");
    assert_eq!(terminal.code(), 0);
}

fn docker_manifests(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::new(&[Layer::random(Packing::Gzip, "f", 1, 5000)]).as_docker();
    registry.put("docker", "v1", &image);
    s.dhow(["pull", "-q", &registry.name("docker:v1")]).ok();
    assert_eq!(s.inspect(&registry.name("docker:v1"), "{{.Descriptor.digest}}"), image.manifest.digest);
}

fn wrong_words(s: &Sandbox) {
    for (args, about) in [
        (&["pull", "upper/Case"][..], "lower case"),
        (&["pull", "--policy", "sometimes", "x"], "sometimes"),
        (&["run", "--pull", "sometimes", "busybox"], "sometimes"),
        (&["pull", "--platform", "a/b/c/d", "x"], "is not a platform"),
        (&["pull", "-a", "--policy", "missing", "x"], "all tags"),
        (&["pull"], "required"),
    ] {
        s.dhow(args).output().expect("an error", |o| o.code != 0).complains(about);
    }
}
