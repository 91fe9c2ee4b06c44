//! Images whose documents and layers are named by sha384 and sha512, on their way: layouts, archives, pushes and copies
//! keep the digests that they came with.

use std::fs;

use serde_json::Value;

use crate::capability::needs;
use crate::digests::{has_blobs, put, runs};
use crate::hostile_registry::Hostile;
use crate::image_made::{Blob, Image, Layer, Packing, digest_by};
use crate::registry_server::{Options, Registry};
use crate::sandbox::Sandbox;
use crate::store_care::is_well;

for_each_user!(layouts_and_archives, pushed_as_it_came);
for_root!(a_real_registry, as_skopeo_does);

fn layouts_and_archives(s: &Sandbox) {
    let registry = Hostile::start();
    let (image, name) = put(&registry, "lay", "sha512");
    let tag = registry.name("lay:v1");
    s.dhow(["pull", "-q", &tag]).ok();
    s.dhow(["save", "--format", "oci-dir", "-o", "layout", &tag]).ok();
    has_blobs(&s.work.join("layout/blobs"), &image);
    let index: Value = serde_json::from_slice(&fs::read(s.work.join("layout/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], image.manifest.digest.as_str());
    s.dhow(["save", "--format", "oci-archive", "-o", "oci.tar", &tag]).ok();
    s.dhow(["save", "-o", "docker.tar", &tag]).ok();
    s.program("sh").args(["-c", "gzip -k oci.tar docker.tar"]).ok();
    let members = s.program("tar").args(["-tf", "oci.tar"]).ok();
    let named = |blob: &Blob| format!("blobs/{}", blob.digest.replace(':', "/"));
    assert!(image.blobs().all(|blob| members.lines().any(|line| line == named(blob))), "{members}");
    // From a registry without the store, and on from there.
    let copy = |from: &str, to: &str| s.dhow(["image", "copy", from, to]).ok();
    assert_eq!(copy(&format!("docker://{name}"), "oci:copied:v1"), image.manifest.digest);
    has_blobs(&s.work.join("copied/blobs"), &image);
    copy("oci:copied:v1", "oci-archive:copied.tar:v1");
    copy("oci-archive:copied.tar:v1", "dir:flat");
    let flat =
        |blob: &Blob| fs::read(s.work.join("flat").join(blob.digest.split_once(':').unwrap().1)).unwrap();
    assert!(image.blobs().all(|blob| flat(blob) == *blob.bytes));
    copy("oci:copied:v1", &format!("docker-archive:copied-docker.tar:{tag}"));
    s.dhow(["rmi", "-f", &tag]).ok();
    for archive in ["layout", "oci.tar", "oci.tar.gz", "docker.tar", "docker.tar.gz", "copied-docker.tar"] {
        s.dhow(["load", "-i", archive]).ok();
        runs(s, &tag);
        is_well(s);
        s.dhow(["rmi", "-f", &tag]).ok();
        if archive.ends_with(".tar") {
            s.dhow(["load"]).stdin_file(&s.work.join(archive)).ok();
            runs(s, &tag);
            s.dhow(["rmi", "-f", &tag]).ok();
        }
    }
    for archive in ["copied", "copied.tar", "flat"] {
        let said = s.dhow(["load", "-q", "-i", archive]).ok();
        let id = said.rsplit(' ').next().unwrap();
        runs(s, id);
        s.dhow(["rmi", "-f", id]).ok();
    }
    // Lies in a layout.
    let layer = s.work.join("layout/blobs").join(image.layers[1].digest.replace(':', "/"));
    let mut bytes = fs::read(&layer).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&layer, bytes).unwrap();
    s.dhow(["load", "-i", "layout"]).output().expect("refused", |o| o.code == 1);
    s.dhow(["image", "copy", "oci:layout", "oci:bad"]).output().complains(&image.layers[1].digest).exits(1);
    is_well(s);
}

fn pushed_as_it_came(s: &Sandbox) {
    let registry = Hostile::start();
    let (image, name) = put(&registry, "one", "sha512");
    s.dhow(["pull", "-q", &name]).ok();
    let kept = |repository: &str, tag: &str| {
        let key = (repository.to_owned(), tag.to_owned());
        registry.content().manifests.get(&key).map(|m| (m.digest.clone(), m.bytes.clone()))
    };
    let there = |repository: &str| {
        let content = registry.content();
        image.blobs().all(|b| content.blobs.contains_key(&(repository.to_owned(), b.digest.clone())))
    };
    // Lent by the repository that it came from, and, from another registry, sent.
    let other = Hostile::start();
    for (to, at) in [(registry.name("two:v2"), &registry), (other.name("two:v2"), &other)] {
        s.dhow(["tag", &name, &to]).ok();
        s.dhow(["push", "-q", &to]).ok();
        let content = at.content();
        let key = ("two".to_owned(), "v2".to_owned());
        assert_eq!(content.manifests[&key].bytes, image.manifest.bytes);
        assert!(image.blobs().all(|b| content.blobs.contains_key(&("two".to_owned(), b.digest.clone()))));
    }
    // Without the store, with what an index names, which is put by the digests that it names.
    let index = Image::index(&[("amd64", &image), ("arm64", &image)]);
    registry.content().put_manifest("one", "all", index.clone());
    let copy = |flags: &[&str], to: &str| {
        let from = format!("docker://{}", registry.name("one:all"));
        s.dhow(["image", "copy"]).args(flags).args([from, format!("docker://{}", registry.name(to))]).ok()
    };
    assert_eq!(copy(&["--all"], "three:v3"), index.digest);
    assert!(there("three"));
    assert_eq!(kept("three", &image.manifest.digest).unwrap().1, image.manifest.bytes);
    // A list of ours that names it.
    s.dhow(["manifest", "create", "list", &registry.name(&format!("one@{}", image.manifest.digest))]).ok();
    s.dhow(["manifest", "push", "list", &registry.name("four:v4")]).ok();
    assert!(there("four"));
    let list: Value = serde_json::from_slice(&kept("four", "v4").unwrap().1).unwrap();
    assert_eq!(list["manifests"][0]["digest"], image.manifest.digest.as_str());
    assert_eq!(kept("four", &image.manifest.digest).unwrap().1, image.manifest.bytes);
    let remote = s.dhow(["image", "inspect", "--format", "{{.Id}}", &format!("docker://{name}")]).ok();
    assert_eq!(remote, image.config.digest);
}

/// Debian's registry takes and gives blobs by any digest; a manifest it knows by sha256 only.
fn a_real_registry(s: &Sandbox) {
    needs!("docker-registry");
    let (registry, from) = (Registry::start(Options::default()), Hostile::start());
    let (image, name) = put(&from, "real", "sha512");
    s.dhow(["pull", "-q", &name]).ok();
    let to = registry.name("real:v1");
    s.dhow(["tag", &name, &to]).ok();
    s.dhow(["push", "-q", &to]).ok();
    s.dhow(["rmi", "-f", &image.config.digest]).ok();
    s.dhow(["pull", "-q", &to]).ok();
    runs(s, &to);
    assert_eq!(s.inspect(&to, "{{.Id}}"), image.config.digest);
    let by_sha256 = registry.name(&format!("real@{}", digest_by("sha256", &image.manifest.bytes)));
    assert_eq!(s.inspect(&to, "{{json .RepoDigests}}"), format!("[\"{by_sha256}\"]"));
    let by_sha512 = registry.name(&format!("real@{}", image.manifest.digest));
    s.dhow(["pull", &by_sha512]).output().expect("unknown there", |o| o.code == 1);
    s.dhow(["image", "copy", &format!("docker://{name}"), &format!("docker://{}", registry.name("copied"))])
        .ok();
    s.dhow(["pull", "-q", &registry.name("copied")]).ok();
    is_well(s);
}

/// Skopeo reads layers by any digest; configs and manifests, and whatever it writes, by sha256 only.
fn as_skopeo_does(s: &Sandbox) {
    needs!("skopeo");
    let registry = Hostile::start();
    let hello = |name: &'static str| Layer::of_files(Packing::Gzip, [(name, name.as_bytes())]);
    let whole = Image::new(&[Layer::busybox(), hello("zstd"), hello("plain")]);
    let layers: Vec<Blob> = whole.layers.iter().map(|layer| layer.by("sha512")).collect();
    let image = whole.with_manifest(|m| m["layers"] = layers.iter().map(Blob::descriptor).collect());
    registry.put("sk", "v1", &Image { layers, ..image });
    let name = registry.name("sk:v1");
    let skopeo =
        |from: &str, to: &str| s.program("skopeo").args(["--insecure-policy", "copy", "-q", from, to]).ok();
    for ours in ["oci:ours:v1", "oci-archive:ours.tar:v1"] {
        s.dhow(["image", "copy", &format!("docker://{name}"), ours]).ok();
        skopeo(ours, "docker-archive:theirs.tar:their/s:v1");
        s.dhow(["load", "-i", "theirs.tar"]).ok();
        runs(s, "their/s:v1");
        s.dhow(["rmi", "-f", "their/s:v1"]).ok();
        fs::remove_file(s.work.join("theirs.tar")).unwrap();
    }
    // What is saved for docker has only one kind of digest that is not ours to choose: diff ids.
    let (_, name) = put(&registry, "docker", "sha512");
    s.dhow(["pull", "-q", &name]).ok();
    s.dhow(["tag", &name, "saved:v1"]).ok();
    s.dhow(["save", "-o", "docker.tar", "saved:v1"]).ok();
    skopeo("docker-archive:docker.tar", "oci:theirs:v1");
    s.dhow(["load", "-i", "theirs"]).ok();
    is_well(s);
}
