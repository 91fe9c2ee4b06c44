//! `push`: layers packed alike everywhere, what came goes on as it came, what is there is not sent, and docker's words.

use std::fs;

use crate::capability::needs;
use crate::hostile_registry::{Deed, Hostile};
use crate::image_made::{Image, Layer, Packing, digest};
use crate::sandbox::Sandbox;

for_each_user!(
    what_is_made_here_is_packed_alike,
    what_was_packed_is_not_packed_again,
    what_came_goes_on_as_it_came,
    another_packing_is_another_manifest,
    what_is_printed,
    foreign_layers_stay_where_they_are,
    all_tags,
    refusals,
    uploads_that_break_go_on,
    a_registry_that_is_slow_to_know,
    two_pushes_at_once,
);

/// `dhow push FLAGS FROM TO`; the digest that it tells.
#[track_caller]
fn push(s: &Sandbox, flags: &[&str], from: &str, to: &str) -> String {
    s.dhow(["push", "-q", "--digestfile", "pushed"]).args(flags).args([from, to]).ok();
    fs::read_to_string(s.work.join("pushed")).unwrap()
}

/// The blob of the only layer of a manifest that the registry has.
fn layer_of(registry: &Hostile, repository: &str, manifest: &str) -> (String, String, Vec<u8>) {
    let content = registry.content();
    let manifest = &content.manifests[&(repository.to_owned(), manifest.to_owned())];
    let manifest: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
    let layer = &manifest["layers"][0];
    let text = |name: &str| layer[name].as_str().unwrap().to_owned();
    let bytes = content.blobs[&(repository.to_owned(), text("digest"))].to_vec();
    assert_eq!(layer["size"], bytes.len());
    assert_eq!(digest(&bytes), text("digest"));
    (text("digest"), text("mediaType"), bytes)
}

/// Makes the store forget what it packed before.
fn forget(s: &Sandbox) {
    fs::remove_dir_all(s.store.join("shipped")).unwrap();
}

fn what_is_made_here_is_packed_alike(s: &Sandbox) {
    let registry = Hostile::start();
    let diff_id = s.inspect("busybox", "{{index .RootFS.Layers 0}}");
    for (kind, unpack) in [("gzip", ["gzip", "-dc"]), ("zstd", ["zstd", "-dc"])] {
        let all = push(s, &["--compression", kind], "busybox", &registry.name("all:v1"));
        forget(s);
        // On one processor; the program asks how many it may use.
        let one = s.dhow(["push", "-q", "--digestfile", "pushed", "--compression", kind, "busybox"]);
        one.arg(registry.name("one:v1")).under(&["taskset", "-c", "0"]).ok();
        assert_eq!(fs::read_to_string(s.work.join("pushed")).unwrap(), all, "{kind}");
        forget(s);
        let (_, media_type, bytes) = layer_of(&registry, "all", "v1");
        assert_eq!(media_type, format!("application/vnd.oci.image.layer.v1.tar+{kind}"));
        // What others unpack is the very archive.
        let tar = s.program(unpack[0]).arg(unpack[1]).stdin(bytes).output().exits(0).stdout;
        assert_eq!(digest(&tar), diff_id, "{kind}");
    }
}

fn what_was_packed_is_not_packed_again(s: &Sandbox) {
    let registry = Hostile::start();
    let first = push(s, &[], "busybox", &registry.name("one:v1"));
    // Without its files the layer cannot be packed.
    let layer = crate::leftovers::names(&s.store.join("layers"))
        .into_iter()
        .find(|name| name.len() == 64)
        .map(|name| s.store.join("layers").join(name))
        .unwrap();
    fs::rename(layer.join("diff"), layer.join("away")).unwrap();
    assert_eq!(push(s, &[], "busybox", &registry.name("one:v2")), first);
    assert_eq!(push(s, &[], "busybox", &registry.name("two:v1")), first, "lent by the other repository");
    s.dhow(["push", "-q", "busybox", &registry.name("three:v1"), "--compression", "zstd"])
        .output()
        .expect("it has to be packed anew", |o| o.code != 0);
    fs::rename(layer.join("away"), layer.join("diff")).unwrap();
    push(s, &["--compression", "zstd"], "busybox", &registry.name("three:v1"));
}

fn what_came_goes_on_as_it_came(s: &Sandbox) {
    let (from, to) = (Hostile::start(), Hostile::start_on("127.0.0.2"));
    let image = Image::small(1, 3, 50_000);
    // Blanks are bytes too, and so is what nobody knows.
    let odd = image.with_manifest(|m| m["annotations"] = serde_json::json!({"x": "y", "a": ""}));
    let docker = Image::new(&[Layer::random(Packing::Gzip, "a", 2, 1000)]).as_docker();
    let plain = Image::new(&[Layer::random(Packing::Plain, "a", 3, 1000)]);
    for (n, image) in [image, odd, docker, plain].iter().enumerate() {
        from.put("app", "v1", image);
        let (here, there) = (from.name("app:v1"), to.name(&format!("a/b/app{n}:v1")));
        s.dhow(["pull", "-q", &here]).ok();
        assert_eq!(push(s, &[], &here, &there), image.manifest.digest, "{n}");
        let key = (format!("a/b/app{n}"), "v1".to_owned());
        assert_eq!(to.content().manifests[&key].bytes, image.manifest.bytes, "{n}");
        assert_eq!(to.content().manifests[&key].media_type, image.manifest.media_type, "{n}");
    }
}

/// As docker does: a layer that is to be had elsewhere is not pushed, whatever else happens to the others, and the manifest
/// says as before where that is.
fn foreign_layers_stay_where_they_are(s: &Sandbox) {
    let (from, to, elsewhere) = (Hostile::start(), Hostile::start_on("127.0.0.2"), Hostile::start());
    for (n, media_type) in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ]
    .into_iter()
    .enumerate()
    {
        let layer = |seed| Layer::random(Packing::Gzip, "f", 10 * n as u64 + seed, 5000);
        let image = Image::new(&[layer(1), layer(2)]);
        let image = if n == 0 { image.as_docker() } else { image };
        let (foreign, own) = (image.layers[0].clone(), image.layers[1].clone());
        elsewhere.put("kept", "here", &image);
        let urls = [format!("http://{}/v2/kept/blobs/{}", elsewhere.addr(), foreign.digest)];
        let image = image.with_manifest(|m| {
            m["layers"][0]["mediaType"] = media_type.into();
            m["layers"][0]["urls"] = urls.to_vec().into();
        });
        let (name, tag) = (format!("foreign{n}"), "v1".to_owned());
        from.put(&name, &tag, &image);
        from.content().blobs.retain(|(_, digest), _| *digest != foreign.digest);
        let (here, there) = (from.name(&format!("{name}:v1")), to.name(&format!("{name}:v1")));
        s.dhow(["pull", "-q", &here]).ok();
        s.dhow(["push", &here, &there]).output().exits(0).complains("Skipped foreign layer");
        let has = |registry: &Hostile, tag: &str, layer: &str| {
            assert!(registry.content().manifests.contains_key(&(name.clone(), tag.to_owned())));
            registry.content().blobs.contains_key(&(name.clone(), layer.to_owned()))
        };
        assert!(!has(&to, "v1", &foreign.digest) && has(&to, "v1", &own.digest));
        assert_eq!(to.content().manifests[&(name.clone(), tag)].bytes, image.manifest.bytes, "byte for byte");
        assert_eq!(to.count(|r| r.path.contains(&foreign.digest)), 0, "nor asked for: {:?}", to.seen());
        // Packed otherwise, the others are; and what was pushed is an image.
        let packed = push(s, &["--compression", "zstd"], &here, &to.name(&format!("{name}:zstd")));
        let content = to.content().manifests[&(name.clone(), packed)].bytes.clone();
        let content: serde_json::Value = serde_json::from_slice(&content).unwrap();
        assert_eq!(content["layers"][0]["urls"], serde_json::json!(urls));
        assert_eq!(content["layers"][0]["digest"], foreign.digest.as_str());
        assert!(content["layers"][1]["mediaType"].as_str().unwrap().ends_with("+zstd"));
        s.dhow(["rmi", "-f", &here, &there]).ok();
        elsewhere.forget();
        s.dhow(["pull", "-q", &there]).ok();
        assert_eq!(elsewhere.sent(&foreign), foreign.len());
    }
}

fn another_packing_is_another_manifest(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(5, 3, 20_000);
    registry.put("app", "v1", &image);
    let here = registry.name("app:v1");
    s.dhow(["pull", "-q", &here]).ok();
    let other = push(s, &["--compression", "zstd"], &here, &registry.name("app:zstd"));
    assert_ne!(other, image.manifest.digest);
    let manifest = registry.content().manifests[&("app".to_owned(), "zstd".to_owned())].bytes.clone();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    for (n, layer) in manifest["layers"].as_array().unwrap().iter().enumerate() {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd", "{n}");
    }
    // What was zstd already is what it was.
    assert_eq!(manifest["layers"][1]["digest"], image.layers[1].digest.as_str());
    s.dhow(["rmi", "-f", &here]).ok();
    s.dhow(["pull", "-q", &registry.name("app:zstd")]).ok();
    let id = s.inspect(&registry.name("app:zstd"), "{{.Id}}");
    assert_eq!(id, image.config.digest, "another packing, the same image");
}

fn what_is_printed(s: &Sandbox) {
    let registry = Hostile::start();
    let to = registry.name("some/app:v1");
    s.dhow(["tag", "busybox", &to]).ok();
    let layer = s.inspect("busybox", "{{index .RootFS.Layers 0}}")[7..19].to_owned();
    let out = s.dhow(["push", &to, "--digestfile", "d"]).output().exits(0);
    let digest = fs::read_to_string(s.work.join("d")).unwrap();
    let manifest = registry.content().manifests[&("some/app".to_owned(), "v1".to_owned())].clone();
    assert_eq!(digest, manifest.digest);
    let want = format!(
        "The push refers to repository [{}/some/app]\nv1: digest: {digest} size: {}",
        registry.addr(),
        manifest.bytes.len()
    );
    assert_eq!(out.text(), want);
    assert_eq!(out.error_text(), format!("{layer}: Preparing\n{layer}: Pushed\n"));
    // What it is called there is known, and what is there is not pulled.
    let digests = s.inspect(&to, "{{json .RepoDigests}}");
    assert!(digests.contains(&format!("{}@{digest}", registry.name("some/app"))), "{digests}");
    s.inspect(&format!("{}@{digest}", registry.name("some/app")), "{{.Id}}");
    assert!(s.dhow(["pull", &to]).ok().contains("Image is up to date"));
    let again = s.dhow(["image", "push", &to]).output().exits(0);
    assert_eq!(again.error_text(), format!("{layer}: Preparing\n{layer}: Layer already exists\n"));
    s.dhow(["push", "busybox", &format!("docker://{}", registry.name("other"))])
        .output()
        .exits(0)
        .complains(&format!("{layer}: Mounted from some/app"));
    let quiet = s.dhow(["push", "-q", &to]).output().exits(0);
    assert_eq!((quiet.text(), quiet.error_text()), (to, String::new()));
}

fn all_tags(s: &Sandbox) {
    let registry = Hostile::start();
    for tag in ["v1", "v2", "latest"] {
        s.dhow(["tag", "busybox", &registry.name(&format!("app:{tag}"))]).ok();
    }
    s.dhow(["tag", "busybox", &registry.name("app2:v1")]).ok();
    let said = s.dhow(["push", "-a", &registry.name("app")]).ok();
    for tag in ["v1", "v2", "latest"] {
        assert!(said.contains(&format!("\n{tag}: digest: sha256:")), "{said}");
        assert!(registry.content().manifests.contains_key(&("app".to_owned(), tag.to_owned())));
    }
    assert!(!registry.content().manifests.keys().any(|(repository, _)| repository == "app2"));
    let refused = |args: &[&str]| s.dhow(["push", "-a"]).args(args).output().exits(1);
    refused(&[&registry.name("app:v1")]).complains("it has a tag itself");
    refused(&[&registry.name("none")]).complains("no image here is called so");
}

fn refusals(s: &Sandbox) {
    let registry = Hostile::start();
    let to = registry.name("app:v1");
    let refused = |args: &[&str], why: &str| {
        s.dhow(["push"]).args(args).output().complains(why).expect("refused", |o| o.code != 0);
    };
    let id = s.inspect("busybox", "{{.Id}}");
    refused(&["no-such", &to], "no such image: no-such");
    refused(&[&id], "not under which tag");
    refused(&["busybox", &registry.name(&format!("app@{id}"))], "it is found out");
    refused(&["busybox", "oci:dir:tag"], "dhow save");
    refused(&["busybox", "upper/Case"], "lower case");
    refused(&["--compression", "lzma", "busybox", &to], "use gzip or zstd");
    refused(&["--compression-level", "10", "busybox", &to], "levels 1 to 9");
    refused(&["--platform", "linux/s390x", "busybox", &to], "not for linux/s390x");
    refused(&["--creds", "secret", "busybox", &to], "a name, a colon and a password");
    assert!(
        registry.seen().is_empty(),
        "all of it is found before the registry is asked: {:?}",
        registry.seen()
    );
    registry.behave(|request| match request.method.as_str() {
        "PUT" if request.path.contains("/manifests/") => Deed::status(403),
        _ => Deed::serve(),
    });
    refused(&["busybox", &to], "cannot push");
    assert!(registry.content().manifests.is_empty());
}

fn uploads_that_break_go_on(s: &Sandbox) {
    let registry = Hostile::start();
    let bytes = crate::image_made::Random(7).bytes(3_000_000);
    let layer = Layer::of_files(Packing::Plain, [("noise", &bytes[..])]);
    let tar = s.file("noise.tar", &layer.blob.bytes[..]);
    s.dhow(["import", "-q", tar.to_str().unwrap(), "noise"]).ok();
    let whole = push(s, &[], "noise", &registry.name("whole:v1"));
    forget(s);
    registry.forget();
    // Of every second request that carries bytes, only some arrive.
    registry.behave(|request| match request.method.as_str() {
        "PATCH" if request.index % 2 == 0 => Deed { cut_request: Some(500_000), ..Deed::default() },
        "POST" if request.nth == 0 => Deed::status(503),
        _ => Deed::serve(),
    });
    assert_eq!(push(s, &[], "noise", &registry.name("broken:v1")), whole);
    assert_eq!(layer_of(&registry, "broken", "v1").0, layer_of(&registry, "whole", "v1").0);
}

fn a_registry_that_is_slow_to_know(s: &Sandbox) {
    let registry = Hostile::start();
    let answer = br#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
    registry.behave(move |request| match request.method.as_str() {
        "PUT" if request.path.contains("/manifests/") && request.nth < 2 => {
            Deed { status: Some(400), ..Deed::body(answer.to_vec()) }
        }
        _ => Deed::serve(),
    });
    push(s, &[], "busybox", &registry.name("app:v1"));
    // But one that never does is not asked for ever.
    registry.behave(move |request| match request.method.as_str() {
        "PUT" if request.path.contains("/manifests/") => {
            Deed { status: Some(400), ..Deed::body(answer.to_vec()) }
        }
        _ => Deed::serve(),
    });
    s.dhow(["push", "busybox", &registry.name("app:v2")]).output().complains("blob unknown").exits(1);
}

fn two_pushes_at_once(s: &Sandbox) {
    needs!("docker-registry");
    let registry = crate::registry_server::Registry::start(crate::registry_server::Options::default());
    let names: Vec<String> = (0..4).map(|n| registry.name(&format!("app:v{n}"))).collect();
    let digests: Vec<String> = std::thread::scope(|scope| {
        let push = |(n, name): (usize, &String)| {
            let (file, name) = (format!("digest{n}"), name.clone());
            scope.spawn(move || {
                s.dhow(["push", "-q", "--digestfile", &file, "busybox", &name]).ok();
                fs::read_to_string(s.work.join(&file)).unwrap()
            })
        };
        let running: Vec<_> = names.iter().enumerate().map(push).collect();
        running.into_iter().map(|r| r.join().unwrap()).collect()
    });
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    s.dhow(["pull", "-q", &names[3]]).ok();
    s.dhow(["system", "check"]).ok();
}
