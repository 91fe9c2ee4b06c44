//! `image copy`: from any kind of place to any other, without the store; every byte is what its digest says.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::capability::needs;
use crate::hostile_registry::{Deed, Hostile};
use crate::image_made::{Blob, DOCKER_LIST, Image, Layer, Packing, digest};
use crate::sandbox::Sandbox;

for_each_user!(
    every_place_to_every_place,
    docker_archives,
    all_platforms,
    dockers_words_in_a_layout,
    wrong_bytes_go_nowhere,
    broken_connections,
    refusals,
    a_directory_has_one_image,
);
for_root!(as_skopeo_does);

fn copy(s: &Sandbox, flags: &[&str], from: &str, to: &str) -> String {
    s.dhow(["image", "copy"]).args(flags).args([from, to]).ok()
}

fn docker(name: &str) -> String {
    format!("docker://{name}")
}

/// What a `dir:` has.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
        .collect();
    all.sort();
    all
}

/// Whether a layout has this image under this tag, byte for byte.
#[track_caller]
fn layout_has(dir: &Path, tag: &str, manifest: &Blob) {
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let named = |e: &&Value| e["annotations"]["org.opencontainers.image.ref.name"] == tag;
    let entry = entries.iter().find(named).unwrap_or_else(|| panic!("no {tag} in {index}"));
    assert_eq!(entry["digest"], manifest.digest.as_str());
    let bytes = fs::read(dir.join("blobs/sha256").join(&manifest.digest[7..])).unwrap();
    assert_eq!(bytes, *manifest.bytes);
    for file in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let file = file.unwrap();
        let name = format!("sha256:{}", file.file_name().to_str().unwrap());
        assert_eq!(digest(&fs::read(file.path()).unwrap()), name);
    }
}

fn every_place_to_every_place(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 3, 30_000);
    registry.put("app", "v1", &image);
    let places =
        [docker(&registry.name("app:v1")), "oci:l:v1".into(), "oci-archive:a.tar:v1".into(), "dir:d".into()];
    // Each from the one before, in a circle, and again over what is there.
    for round in 0..2 {
        for at in 0..places.len() {
            let (from, to) = (&places[at], &places[(at + 1) % places.len()]);
            assert_eq!(copy(s, &["-q"], from, to), "", "quiet");
            assert_eq!(copy(s, &[], from, to), image.manifest.digest, "{round}: {from} to {to}");
        }
    }
    layout_has(&s.work.join("l"), "v1", &image.manifest);
    copy(s, &[], "oci:l:v1", "oci:l:v2");
    layout_has(&s.work.join("l"), "v1", &image.manifest);
    layout_has(&s.work.join("l"), "v2", &image.manifest);
    s.dhow(["image", "copy", "oci:l", "dir:which"]).output().complains("there are 2 images").exits(1);
    let manifest = fs::read(s.work.join("d/manifest.json")).unwrap();
    assert_eq!(manifest, *image.manifest.bytes);
    for blob in image.blobs() {
        assert_eq!(fs::read(s.work.join("d").join(&blob.digest[7..])).unwrap(), *blob.bytes);
    }
    copy(s, &[], "dir:d", &docker(&registry.name("again/app:v2")));
    let key = ("again/app".to_owned(), "v2".to_owned());
    assert_eq!(registry.content().manifests[&key].bytes, image.manifest.bytes);
    // Within one registry nothing is fetched and nothing sent.
    registry.forget();
    copy(s, &["--digestfile", "df"], &places[0], &docker(&registry.name("lent:v1")));
    assert_eq!(fs::read_to_string(s.work.join("df")).unwrap(), image.manifest.digest);
    let moved = registry.seen().iter().filter(|e| e.request.is_blob() || e.request.method == "PATCH").count();
    assert_eq!(moved, 0, "{:#?}", registry.seen());
    // What was copied is an image; and nothing of all this was done to the store.
    let left = crate::leftovers::names(&s.store.join("layers"));
    s.dhow(["load", "-i", "a.tar"]).ok();
    assert_eq!(left.len() + 3, crate::leftovers::names(&s.store.join("layers")).len());
}

fn docker_archives(s: &Sandbox) {
    let registry = Hostile::start();
    let (id, layers) = (s.inspect("busybox", "{{.Id}}"), s.inspect("busybox", "{{json .RootFS.Layers}}"));
    s.dhow(["save", "-o", "busybox.tar", "busybox"]).ok();
    s.dhow(["push", "-q", "busybox", &registry.name("pushed")]).ok();
    // A registry gets it packed, and packed as by a push.
    copy(s, &[], "docker-archive:busybox.tar", &docker(&registry.name("copied")));
    let manifest = |name: &str| {
        let content = registry.content();
        let found = content.manifests[&(name.to_owned(), "latest".to_owned())].bytes.clone();
        serde_json::from_slice::<Value>(&found).unwrap()
    };
    assert_eq!(manifest("copied")["layers"], manifest("pushed")["layers"]);
    assert_eq!(manifest("copied")["config"]["digest"], id.as_str());
    s.program("gzip").args(["-k", "busybox.tar"]).ok();
    copy(
        s,
        &["--compression", "zstd"],
        "docker-archive:busybox.tar.gz:busybox",
        &docker(&registry.name("zstd")),
    );
    assert!(manifest("zstd")["layers"][0]["mediaType"].as_str().unwrap().ends_with("+zstd"));
    // And back: the layers are unpacked on the way.
    for from in ["copied", "zstd"] {
        copy(s, &[], &docker(&registry.name(from)), "docker-archive:back.tar:back:v1");
        s.dhow(["rmi", "-f", "busybox"]).ok();
        let said = s.dhow(["load", "-i", "back.tar"]).ok();
        assert!(said.contains("Loaded image: back:v1"), "{said}");
        assert_eq!(s.inspect("back:v1", "{{.Id}}"), id);
        assert_eq!(s.inspect("back:v1", "{{json .RootFS.Layers}}"), layers);
        assert_eq!(s.dhow(["run", "--rm", "back:v1", "cat", "/etc/motd"]).ok(), "hello");
        fs::remove_file(s.work.join("back.tar")).unwrap();
    }
    let refused = s.dhow(["image", "copy", "docker-archive:busybox.tar:other", "dir:d"]).output().exits(1);
    refused.complains("no image called other:latest");
}

/// An index of two images, put into a registry.
fn put_index(registry: &Hostile, repository: &str) -> (Blob, [Image; 2]) {
    let image = |seed, architecture| {
        Image::for_platform(&[Layer::random(Packing::Gzip, "f", seed, 5000)], architecture)
    };
    let images = [image(1, "amd64"), image(2, "arm64")];
    for image in &images {
        registry.put(repository, &image.manifest.digest, image);
    }
    let index = Image::index(&[("amd64", &images[0]), ("arm64", &images[1])]);
    registry.content().put_manifest(repository, "v1", index.clone());
    (index, images)
}

fn all_platforms(s: &Sandbox) {
    let registry = Hostile::start();
    let (index, [amd64, arm64]) = put_index(&registry, "multi");
    let from = docker(&registry.name("multi:v1"));
    assert_eq!(copy(s, &["--all"], &from, "oci:all:v1"), index.digest);
    layout_has(&s.work.join("all"), "v1", &index);
    assert_eq!(copy(s, &["-a"], "oci:all:v1", "dir:all-dir"), index.digest);
    assert_eq!(fs::read(s.work.join("all-dir/manifest.json")).unwrap(), *index.bytes);
    assert_eq!(copy(s, &["--all"], "dir:all-dir", &docker(&registry.name("again:v1"))), index.digest);
    for digest in [&index.digest, &amd64.manifest.digest, &arm64.manifest.digest] {
        assert!(registry.content().manifests.contains_key(&("again".to_owned(), digest.clone())));
    }
    for (platform, image) in [("linux/amd64", &amd64), ("linux/arm64", &arm64)] {
        let to = format!("dir:{}", platform.replace('/', "-"));
        assert_eq!(copy(s, &["--platform", platform], &from, &to), image.manifest.digest);
        assert_eq!(copy(s, &["--platform", platform], "oci:all:v1", &to), image.manifest.digest);
    }
    let refused = s.dhow(["image", "copy", "--platform", "linux/s390x", &from, "dir:none"]).output().exits(1);
    refused.complains("linux/amd64, linux/arm64");
    assert!(!s.work.join("none/manifest.json").exists());
}

fn dockers_words_in_a_layout(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::for_platform(&[Layer::random(Packing::Gzip, "f", 1, 5000)], "amd64").as_docker();
    registry.put("app", "v1", &image);
    let list = Image::index(&[("amd64", &image)]);
    let list =
        String::from_utf8(list.bytes.to_vec()).unwrap().replace(crate::image_made::OCI_INDEX, DOCKER_LIST);
    registry.content().put_manifest("app", "list", Blob::new(list.into_bytes(), DOCKER_LIST));
    // A directory and another registry take the words as they are.
    for to in ["dir:d".to_owned(), docker(&registry.name("b:v1"))] {
        assert_eq!(copy(s, &[], &docker(&registry.name("app:v1")), &to), image.manifest.digest);
    }
    // A layout knows only the specification's.
    let one = copy(s, &[], &docker(&registry.name("app:v1")), "oci:l:one");
    assert_ne!(one, image.manifest.digest);
    let all = copy(s, &["--all"], &docker(&registry.name("app:list")), "oci:l:all");
    let document = |digest: &str| {
        let text = fs::read_to_string(s.work.join("l/blobs/sha256").join(&digest[7..])).unwrap();
        assert!(!text.contains("vnd.docker"), "{text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    assert_eq!(document(&all)["manifests"][0]["digest"], one.as_str());
    assert_eq!(document(&one)["layers"][0]["digest"], image.layers[0].digest.as_str());
}

fn wrong_bytes_go_nowhere(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(3, 2, 20_000);
    registry.put("app", "v1", &image);
    let (bad, from) = (image.layers[1].clone(), docker(&registry.name("app:v1")));
    registry.behave(move |request| match request.is_of(&bad) {
        true => Deed { flip: Some(777), ..Deed::default() },
        false => Deed::serve(),
    });
    for to in ["dir:d", "oci:l:t", "oci-archive:a.tar:t", "docker-archive:b.tar:t"] {
        let refused = s.dhow(["image", "copy", &from, to]).output().exits(1);
        refused.complains(&image.layers[1].digest);
    }
    let to = docker(&registry.name("other:v1"));
    // In one registry it would be lent, unseen.
    let other = Hostile::start_on("127.0.0.2");
    s.dhow(["image", "copy", &from, &docker(&other.name("other:v1"))]).output().exits(1);
    assert!(other.content().manifests.is_empty());
    copy(s, &[], &from, &to);
    for left in ["d/manifest.json", "l/index.json", "a.tar", "b.tar"] {
        assert!(!s.work.join(left).exists(), "{left}");
    }
    let names = |dir: &str| files(&s.work.join(dir)).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert!(!names("d").contains(&image.layers[1].digest[7..].to_owned()), "{:?}", names("d"));
    // A layout that lies is found out likewise.
    registry.behave(|_| Deed::serve());
    copy(s, &[], &from, "oci:l:t");
    let blob = s.work.join("l/blobs/sha256").join(&image.layers[0].digest[7..]);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[100] ^= 1;
    fs::write(&blob, bytes).unwrap();
    s.dhow(["image", "copy", "oci:l:t", "dir:e"]).output().complains(&image.layers[0].digest).exits(1);
}

fn broken_connections(s: &Sandbox) {
    let (registry, other) = (Hostile::start(), Hostile::start_on("127.0.0.2"));
    let image = Image::small(4, 2, 400_000);
    registry.put("app", "v1", &image);
    registry.behave(|request| match request.is_blob() && request.nth < 2 {
        true => Deed::cut(100_000),
        false => Deed::serve(),
    });
    let from = docker(&registry.name("app:v1"));
    assert_eq!(copy(s, &[], &from, "oci:l:v1"), image.manifest.digest);
    layout_has(&s.work.join("l"), "v1", &image.manifest);
    registry.forget();
    assert_eq!(copy(s, &[], &from, &docker(&other.name("app:v1"))), image.manifest.digest);
    let ranges = registry.seen().iter().filter(|e| e.request.header("range").is_some()).count();
    assert!(ranges >= 2, "{:#?}", registry.seen());
}

fn refusals(s: &Sandbox) {
    let registry = Hostile::start();
    let refused = |from: &str, to: &str, why: &str| {
        s.dhow(["image", "copy", from, to]).output().complains(why).expect("refused", |o| o.code != 0);
    };
    let from = docker(&registry.name("app:v1"));
    refused("busybox", "dir:d", "what kind of place");
    refused("ftp:x", "dir:d", "no such kind of place");
    refused(&from, &from, "the same place");
    refused(&from, "dir:d", "no such manifest");
    refused("oci:none", "dir:d", "cannot open none");
    refused("dir:none", "oci:d", "cannot open none");
    s.file("full/file", "mine");
    registry.put("app", "v1", &Image::small(1, 1, 100));
    refused(&from, "dir:full", "neither empty nor");
    refused(&from, "oci:full:v1", "neither empty nor");
    assert_eq!(files(&s.work.join("full")), [("file".to_owned(), b"mine".to_vec())]);
    s.file("junk.tar", "junk");
    refused("oci-archive:junk.tar", "dir:d", "cannot copy");
    refused("docker-archive:junk.tar", "dir:d", "cannot copy");
}

fn a_directory_has_one_image(s: &Sandbox) {
    let registry = Hostile::start();
    let (one, two) = (Image::small(1, 2, 5000), Image::small(2, 2, 5000));
    let shared = Layer::random(Packing::Gzip, "shared", 7, 5000);
    let three = Image::new(&[shared.clone(), Layer::random(Packing::Zstd, "own", 8, 5000)]);
    let four = Image::new(&[shared]);
    for (tag, image) in [("one", &one), ("two", &two), ("three", &three), ("four", &four)] {
        registry.put("app", tag, image);
    }
    put_index(&registry, "multi");
    copy(s, &["--all"], &docker(&registry.name("multi:v1")), "dir:d");
    s.file("d/note", "mine");
    for (tag, image) in [("one", &one), ("two", &two), ("three", &three), ("four", &four)] {
        copy(s, &[], &docker(&registry.name(&format!("app:{tag}"))), "dir:d");
        let mut want: Vec<String> = image.blobs().map(|b| b.digest[7..].to_owned()).collect();
        want.extend(["manifest.json", "note", "version"].map(str::to_owned));
        want.sort();
        let names: Vec<String> = files(&s.work.join("d")).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, want, "{tag}");
    }
    // A copy that fails leaves the image that was there.
    registry.behave(|r| if r.is_blob() { Deed::status(404) } else { Deed::serve() });
    s.dhow(["image", "copy", &docker(&registry.name("app:one")), "dir:d"]).output().exits(1);
    assert_eq!(copy(s, &[], "dir:d", "oci:still:v1"), four.manifest.digest);
    if crate::capability::has("skopeo") {
        registry.behave(|_| Deed::serve());
        s.program("skopeo")
            .args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"])
            .args([&docker(&registry.name("app:two")), "dir:theirs"])
            .ok();
        s.program("skopeo")
            .args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"])
            .args([&docker(&registry.name("app:one")), "dir:theirs"])
            .ok();
        copy(s, &[], &docker(&registry.name("app:two")), "dir:ours");
        copy(s, &[], &docker(&registry.name("app:one")), "dir:ours");
        assert_eq!(files(&s.work.join("ours")), files(&s.work.join("theirs")));
    }
}

fn as_skopeo_does(s: &Sandbox) {
    needs!("docker-registry", "skopeo");
    let registry = crate::registry_server::Registry::start(crate::registry_server::Options::default());
    let skopeo = |args: &[&str]| s.program("skopeo").arg("--insecure-policy").args(args).ok();
    let (hostile, name) = (Hostile::start(), docker(&registry.name("multi:v1")));
    let (index, _) = put_index(&hostile, "multi");
    assert_eq!(copy(s, &["--all"], &docker(&hostile.name("multi:v1")), &name), index.digest);
    skopeo(&["copy", "-q", "--all", "--src-tls-verify=false", &name, "dir:theirs"]);
    copy(s, &["--all"], &name, "dir:ours");
    assert_eq!(files(&s.work.join("ours")), files(&s.work.join("theirs")));
    // Each reads what the other wrote.
    copy(s, &[], "dir:theirs", "oci:ours-of-theirs:v1");
    let ours = skopeo(&["inspect", "--format", "{{.Digest}}", "oci:ours-of-theirs:v1"]);
    let raw = skopeo(&["inspect", "--raw", "oci:ours-of-theirs:v1"]);
    assert_eq!(digest(raw.as_bytes()), ours);
    for to in ["oci-archive:theirs.tar:v1", "docker-archive:theirs-docker.tar:app:v1"] {
        skopeo(&["copy", "-q", "oci:ours-of-theirs:v1", to]);
    }
    assert_eq!(copy(s, &[], "oci-archive:theirs.tar:v1", "dir:back"), ours);
    copy(s, &[], "docker-archive:theirs-docker.tar:app:v1", "docker-archive:ours-docker.tar:app:v1");
    let config = |archive: &str| skopeo(&["inspect", "--config", "--raw", archive]);
    assert_eq!(config("docker-archive:ours-docker.tar"), config("docker-archive:theirs-docker.tar"));
}
