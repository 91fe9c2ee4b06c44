//! Images whose documents and layers are named by sha384 and sha512: pulled, and in the store. What dhow makes is sha256;
//! what came is kept and verified by the digests that it came with. Where it goes from there is in `digests_shipped`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::hostile_registry::{Deed, Hostile};
use crate::image_made::{Image, Layer, Packing, digest_by};
use crate::leftovers;
use crate::sandbox::Sandbox;
use crate::store_care::is_well;

for_each_user!(
    pulled_by_any_digest,
    every_byte_is_compared,
    an_algorithm_that_nobody_knows,
    diff_ids,
    found_and_repaired,
    gone_on_with,
);
for_root!(an_address_that_is_none);

const OTHERS: [&str; 2] = ["sha384", "sha512"];

/// An image that runs: a layer of every packing, by these digests.
pub fn image(algorithm: &str) -> Image {
    let hello = |packing, name: &'static str| Layer::of_files(packing, [(name, name.as_bytes())]);
    let layers = [Layer::busybox(), hello(Packing::Zstd, "zstd"), hello(Packing::Plain, "plain")];
    Image::new(&layers).by(algorithm)
}

/// Puts it into a registry under `v1`; returns it and its name by digest.
pub fn put(registry: &Hostile, repository: &str, algorithm: &str) -> (Image, String) {
    let image = image(algorithm);
    registry.put(repository, "v1", &image);
    let name = registry.name(&format!("{repository}@{}", image.manifest.digest));
    (image, name)
}

fn blob(s: &Sandbox, digest: &str) -> PathBuf {
    s.store.join("blobs").join(digest.replace(':', "/"))
}

/// That a directory has all of the image, by its digests.
#[track_caller]
pub fn has_blobs(blobs: &Path, image: &Image) {
    for blob in image.blobs().chain([&image.manifest]) {
        assert_eq!(fs::read(blobs.join(blob.digest.replace(':', "/"))).unwrap(), *blob.bytes);
    }
}

#[track_caller]
pub fn runs(s: &Sandbox, name: &str) {
    assert_eq!(s.dhow(["run", "--rm", name, "cat", "/zstd", "/plain"]).ok(), "zstdplain");
}

fn pulled_by_any_digest(s: &Sandbox) {
    let registry = Hostile::start();
    let layers = leftovers::names(&s.store.join("layers"));
    for algorithm in OTHERS {
        let (image, name) = put(&registry, "d", algorithm);
        assert_eq!(s.dhow(["pull", "-q", &name]).ok(), name);
        has_blobs(&s.store.join("blobs"), &image);
        runs(s, &name);
        assert_eq!(s.inspect(&name, "{{json .RepoDigests}}"), format!("[\"{name}\"]"));
        let id = &image.config.digest;
        assert_eq!(s.inspect(&name, "{{.Id}}"), *id);
        let hex = id.split_once(':').unwrap().1;
        for by in [id, hex, &hex[..12], &id[..30]] {
            assert_eq!(s.dhow(["inspect", "--format", "{{.Id}}", by]).ok(), *id, "{by}");
        }
        assert_eq!(s.dhow(["images", "-q", &name]).ok(), hex[..12]);
        registry.forget();
        s.dhow(["pull", "-q", &name]).ok();
        assert_eq!(registry.seen().len(), 0, "a digest is what it is");
        // By tag the registry says the same digest, and nothing is fetched.
        let tag = registry.name("d:v1");
        s.dhow(["pull", "-q", &tag]).ok();
        assert_eq!(registry.count(|r| r.is_blob()), 0, "{:?}", registry.seen());
        let again = s.dhow(["pull", &tag]).output().exits(0);
        assert!(again.text().contains("Image is up to date"), "{}", again.report());
        assert!(again.text().contains(&format!("Digest: {}", image.manifest.digest)), "{}", again.report());
        is_well(s);
        s.dhow(["rmi", "-f", id]).ok();
        assert_eq!(leftovers::names(&s.store.join("blobs").join(algorithm)), [""; 0], "{algorithm}");
        assert_eq!(leftovers::names(&s.store.join("layers")), layers);
        is_well(s);
    }
}

/// Each blob of the image comes with one wrong byte: it is named, and nothing of it stays.
fn every_byte_is_compared(s: &Sandbox) {
    let registry = Hostile::start();
    for algorithm in OTHERS {
        let (image, name) = put(&registry, "lies", algorithm);
        for wrong in image.blobs().chain([&image.manifest]) {
            let digest = wrong.digest.clone();
            registry.behave(move |r| match r.path.ends_with(&digest) {
                true => Deed { flip: Some(40), ..Deed::serve() },
                false => Deed::serve(),
            });
            let said = s.dhow(["pull", "-q", &name]).output();
            assert_ne!(said.code, 0, "{}", said.report());
            assert!(said.error_text().contains(&wrong.digest), "{}", said.report());
            assert!(!blob(s, &wrong.digest).exists(), "{}", said.report());
            s.dhow(["image", "exists", &name]).fails(1);
            // The others came whole, and would not come again.
            s.dhow(["image", "prune", "-f"]).ok();
        }
        registry.behave(|_| Deed::serve());
        s.dhow(["pull", "-q", &name]).ok();
        runs(s, &name);
        s.dhow(["rmi", "-f", &name]).ok();
    }
}

fn an_algorithm_that_nobody_knows(s: &Sandbox) {
    let registry = Hostile::start();
    let said = "unsupported digest algorithm";
    let hex = "0f".repeat(64);
    for digest in
        [format!("md5:{}", &hex[..32]), format!("sha1:{}", &hex[..40]), format!("blake3:{}", &hex[..64])]
    {
        let name = registry.name(&format!("a@{digest}"));
        s.dhow(["pull", &name]).output().complains(said).exits(1);
        s.dhow(["run", &name]).output().complains(said).exits(125);
        assert_eq!(registry.seen().len(), 0, "refused before anybody is asked");
        for field in ["/config", "/layers/0"] {
            let bad = image("sha512")
                .with_manifest(|m| m.pointer_mut(field).unwrap()["digest"] = digest.as_str().into());
            registry.put("bad", "v1", &bad);
            s.dhow(["pull", &registry.name("bad:v1")]).output().complains(said).exits(1);
        }
        let mut layer = Layer::of_files(Packing::Gzip, [("a", &b"a"[..])]);
        layer.diff_id = digest;
        registry.put("bad", "v2", &Image::new(&[layer]));
        s.dhow(["pull", &registry.name("bad:v2")]).output().complains(said).exits(1);
        registry.forget();
    }
    is_well(s);
}

/// A layer whose diff id is not sha256 either.
fn with_diff_id(algorithm: &str, packing: Packing) -> (Image, String) {
    let tar = Layer::of_files(Packing::Plain, [("added", &b"hello\n"[..])]).blob.bytes;
    let mut layer = Layer::of_tar(packing, &tar);
    layer.diff_id = digest_by(algorithm, &tar);
    let diff_id = layer.diff_id.clone();
    (Image::new(&[Layer::busybox(), layer]), diff_id)
}

fn diff_ids(s: &Sandbox) {
    let registry = Hostile::start();
    for packing in [Packing::Gzip, Packing::Plain] {
        let (image, diff_id) = with_diff_id("sha512", packing);
        registry.put("diff", "v1", &image);
        let name = registry.name("diff:v1");
        s.dhow(["pull", "-q", &name]).ok();
        let cat = |name: &str| assert_eq!(s.dhow(["run", "--rm", name, "cat", "/added"]).ok(), "hello");
        cat(&name);
        assert!(s.inspect(&name, "{{json .RootFS.Layers}}").contains(&diff_id));
        is_well(s);
        let layer = s.store.join("layers").join(diff_id.strip_prefix("sha512:").unwrap());
        fs::write(layer.join("diff/added"), b"hellO\n").unwrap();
        s.dhow(["system", "check"]).output().expect("found", |o| o.text().contains(&diff_id)).exits(1);
        s.dhow(["system", "check", "--repair"]).output().exits(0);
        is_well(s);
        // Both kinds of archive, where what they have can be read after what it should be.
        for format in ["oci-archive", "docker-archive"] {
            s.dhow(["save", "--format", format, "-o", "saved.tar", &name]).ok();
            s.dhow(["rmi", "-f", &name]).ok();
            s.dhow(["load", "-i", "saved.tar"]).ok();
            cat(&name);
            is_well(s);
            s.dhow(["rmi", "-f", &name]).ok();
            // Of a bare tar that comes by its sha256 digest before the config, nobody can say by what it is to be hashed.
            let is_too_late = (packing, format) == (Packing::Plain, "oci-archive");
            let loaded = s.dhow(["load"]).stdin(fs::read(s.work.join("saved.tar")).unwrap()).output();
            match is_too_late {
                true => _ = loaded.complains("hint: load the archive from a file").exits(1),
                false => _ = loaded.exits(0),
            }
            s.dhow(["load", "-i", "saved.tar"]).ok();
            cat(&name);
        }
        // A layer on it has a chain id of both.
        s.dhow(["run", "--name", "more", &name, "sh", "-c", "echo more >/more"]).ok();
        s.dhow(["commit", "-q", "more", "more"]).ok();
        assert_eq!(s.dhow(["run", "--rm", "more", "cat", "/added", "/more"]).ok(), "hello\nmore");
        s.dhow(["rm", "more"]).ok();
        s.dhow(["rmi", "-f", "more", &name]).ok();
        fs::remove_file(s.work.join("saved.tar")).unwrap();
    }
    // A lie about one.
    let (_, diff_id) = with_diff_id("sha512", Packing::Gzip);
    let mut layer = Layer::of_files(Packing::Gzip, [("added", &b"other\n"[..])]);
    layer.diff_id = diff_id;
    registry.put("diff", "lie", &Image::new(&[layer]));
    let said = s.dhow(["pull", &registry.name("diff:lie")]).output().exits(1);
    said.complains("its content has digest sha512:");
}

fn found_and_repaired(s: &Sandbox) {
    let registry = Hostile::start();
    let (image, name) = put(&registry, "care", "sha512");
    s.dhow(["pull", "-q", &name]).ok();
    is_well(s);
    for broken in image.blobs().chain([&image.manifest]) {
        // The layer that came as it is, under a digest that its diff id is not, is a blob too.
        let path = blob(s, &broken.digest);
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let found = s.dhow(["system", "check"]).output().exits(1);
        assert!(found.text().contains(&broken.digest), "{}", found.report());
        let repaired = s.dhow(["system", "check", "--repair"]).output().exits(0);
        assert!(repaired.text().contains("repaired"), "{}", repaired.report());
        is_well(s);
        fs::remove_file(&path).unwrap();
        s.dhow(["system", "check", "--quick"]).output().exits(1);
        s.dhow(["system", "check", "--repair"]).output().exits(0);
        is_well(s);
        runs(s, &name);
    }
    // What nobody needs.
    let unneeded = blob(s, &digest_by("sha512", b"nobody"));
    fs::write(&unneeded, b"nobody").unwrap();
    std::os::unix::fs::chown(&unneeded, Some(s.account.uid), Some(s.account.gid)).unwrap();
    s.dhow(["system", "check", "--repair"]).output().exits(0);
    assert!(!unneeded.exists());
    s.dhow(["system", "df"]).output().exits(0);
}

/// What came of a blob before the connections broke does not come again.
fn gone_on_with(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(5, 1, 400_000).by("sha512");
    registry.put("on", "v1", &image);
    let name = registry.name(&format!("on@{}", image.manifest.digest));
    let layer = image.layers[0].clone();
    registry.behave(move |r| match r.is_of(&layer) {
        true if r.nth == 0 => Deed::cut(300_000),
        true => Deed::status(404),
        false => Deed::serve(),
    });
    s.dhow(["pull", "-q", &name]).output().expect("an error", |o| o.code == 1);
    let hex = image.layers[0].digest.strip_prefix("sha512:").unwrap();
    assert!(fs::metadata(s.store.join("partial").join(hex)).unwrap().len() >= 200_000);
    registry.behave(|_| Deed::serve());
    registry.forget();
    s.dhow(["pull", "-q", &name]).ok();
    assert!(registry.sent(&image.layers[0]) <= 210_000, "{}", registry.sent(&image.layers[0]));
    is_well(s);
}

/// Docker's grammar takes it for a host; only who connects can tell.
fn an_address_that_is_none(s: &Sandbox) {
    s.dhow(["tag", "busybox", "[1:2]/a"]).ok();
    assert_eq!(s.dhow(["images", "--format", "{{.Repository}}", "[1:2]/a"]).ok(), "[1:2]/a");
    s.dhow(["run", "--rm", "[1:2]/a", "true"]).ok();
    s.dhow(["push", "[1:2]/a"]).output().complains("\"[1:2]\" is not a host").exits(1);
    s.dhow(["pull", "[1:2]/a"]).output().complains("\"[1:2]\" is not a host").exits(1);
    s.dhow(["pull", "[1:g]/a"]).output().complains("is not an image reference").exits(1);
}
