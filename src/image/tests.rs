//! Archives made in memory, good and hostile, through the store and back.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::error::chain;
use crate::fs;
use crate::host::Ids;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::blob;
use crate::store::gc;
use crate::store::image;
use crate::store::layer;
use crate::store::tests::Scratch;
use compression::Compression;
use remove::Removed;
use save::Format;

/// Files go to their owners, so this needs root; says so where it cannot run.
#[expect(clippy::disallowed_macros, reason = "a skipped test says so")]
fn scratch() -> Option<Scratch> {
    let map = fs::read_to_string(Path::new("/proc/self/uid_map")).unwrap();
    if !rustix::process::geteuid().is_root() || map.split_whitespace().last() != Some("4294967295") {
        eprintln!("skipped: needs root");
        return None;
    }
    Some(Scratch::new(Ids::Root))
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match std::str::from_utf8(content).ok().and_then(|c| c.strip_prefix("-> ")) {
            Some(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, name, target).unwrap();
            }
            None => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, *content).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    compression::encode(Compression::Gzip, &mut packed, |out| Ok(out.write_all(bytes)?)).unwrap();
    packed
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    config.to_string().into_bytes()
}

/// An OCI layout whose documents `change` may spoil before they are written.
fn oci(layers: &[(&[u8], Vec<u8>)], name: Option<&str>, change: impl Fn(&mut Value, &mut Value)) -> Vec<u8> {
    let config = config(&layers.iter().map(|(plain, _)| *plain).collect::<Vec<_>>());
    let mut blobs: Vec<Vec<u8>> = layers.iter().map(|(_, packed)| packed.clone()).collect();
    let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let gz = "application/vnd.oci.image.layer.v1.tar+gzip";
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": manifest::MANIFEST,
        "config": descriptor(manifest::CONFIG, &config),
        "layers": blobs.iter().map(|b| descriptor(gz, b)).collect::<Vec<_>>(),
    });
    let mut index = json!({"schemaVersion": 2, "manifests": []});
    change(&mut manifest, &mut index);
    let manifest = manifest.to_string().into_bytes();
    if index["manifests"] == json!([]) {
        index["manifests"] = json!([descriptor(manifest::MANIFEST, &manifest)]);
    }
    if let Some(name) = name {
        index["manifests"][0]["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    }
    blobs.extend([config, manifest]);
    let index = index.to_string().into_bytes();
    let names: Vec<String> = blobs.iter().map(|b| format!("blobs/sha256/{}", Digest::of(b).hex())).collect();
    let mut members: Vec<(&str, &[u8])> =
        names.iter().map(String::as_str).zip(blobs.iter().map(Vec::as_slice)).collect();
    members.push(("index.json", &index));
    tar(&members)
}

/// Loads from a file that can be read anywhere, or, compressed, as a stream.
fn load(scratch: &Scratch, archive: &[u8], as_stream: bool) -> anyhow::Result<Vec<load::Loaded>> {
    let path = scratch.dir.join("archive.tar");
    fs::write(&path, &if as_stream { gzip(archive) } else { archive.to_vec() })?;
    let options = load::Options { input: Input::Path(path), platform: Some("linux/amd64".parse()?) };
    load::load(&scratch.store, &options, &mut |_| {})
}

fn names(store: &Store) -> Vec<String> {
    image::list(store).unwrap().iter().flat_map(|i| i.names.iter().map(Reference::familiar)).collect()
}

#[test]
fn an_image_comes_back_as_it_was() {
    let Some(scratch) = scratch() else { return };
    let store = &scratch.store;
    let (one, two) = (tar(&[("a", b"1")]), tar(&[("b", b"2")]));
    let layers = [(one.as_slice(), gzip(&one)), (two.as_slice(), gzip(&two)), (one.as_slice(), gzip(&one))];
    for as_stream in [false, true] {
        let archive = oci(&layers, Some("x:1"), |_, _| {});
        let loaded = load(&scratch, &archive, as_stream).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(image::find(store, "x:1").unwrap().manifest, loaded[0].manifest);
        assert_eq!(blob::list(store).unwrap().len(), 4, "manifest, config, two compressed layers");
        assert_eq!(layer::list(store).unwrap().len(), 2);
        for format in [Format::OciArchive, Format::DockerArchive] {
            for as_stream in [false, true] {
                let mut saved = Vec::new();
                let compression = Compression::None;
                let options = save::Options { images: vec!["x".to_owned()], format, compression };
                save::save(store, &options, save::Output::Stream(&mut saved)).unwrap();
                let other = Scratch::new(Ids::Root);
                let again = load(&other, &saved, as_stream).unwrap();
                assert_eq!(
                    (again[0].id.clone(), names(&other.store)),
                    (loaded[0].id.clone(), vec!["x:1".to_owned()])
                );
                assert_eq!(again[0].manifest == loaded[0].manifest, format == Format::OciArchive);
                assert!(other.is_tidy());
            }
        }
        let options = remove::Options::default();
        let outcome = remove::remove(store, &["x:1".to_owned()], &options).unwrap();
        assert!(outcome.errors.is_empty());
        assert_eq!(outcome.removed.last(), Some(&Removed::Deleted(loaded[0].id.clone())));
        assert!(blob::list(store).unwrap().is_empty() && layer::list(store).unwrap().is_empty());
        assert!(scratch.is_tidy());
    }
}

#[test]
fn members_of_a_docker_archive_come_in_any_order() {
    let Some(scratch) = scratch() else { return };
    let layer = tar(&[("a", b"1")]);
    let config = config(&[&layer, &layer]);
    let list = br#"[{"Config":"c.json","RepoTags":["x:1","y:2"],"Layers":["1/layer.tar","2/layer.tar"]},
        {"Config":"c.json","RepoTags":null,"Layers":["1/layer.tar","z"]}]"#;
    let mut members: Vec<(&str, &[u8])> = vec![
        ("./manifest.json", list),
        ("c.json", &config),
        ("2/layer.tar", b"-> ../1/layer.tar"),
        ("z", b"-> 2/layer.tar"),
        ("1/layer.tar", &layer),
    ];
    for _ in 0..2 {
        for as_stream in [false, true] {
            let loaded = load(&scratch, &tar(&members), as_stream).unwrap();
            assert_eq!(loaded.len(), 2);
            assert_eq!(names(&scratch.store), ["x:1", "y:2"]);
            let outcome = remove::remove(
                &scratch.store,
                &["x:1".to_owned(), "y:2".to_owned()],
                &remove::Options::default(),
            );
            assert_eq!(outcome.unwrap().freed.layers.len(), 1);
        }
        members.reverse();
    }
    // A layer in it may be compressed: what bazel and ko write.
    let packed = gzip(&layer);
    members.iter_mut().find(|(name, _)| *name == "1/layer.tar").unwrap().1 = &packed;
    for as_stream in [false, true] {
        load(&scratch, &tar(&members), as_stream).unwrap();
        assert!(scratch.is_tidy());
    }
}

#[test]
fn a_tar_may_end_with_its_last_byte() {
    let Some(scratch) = scratch() else { return };
    // What umoci 0.4.7 writes: neither padding nor an end mark.
    let layer = &tar(&[("a", b"1")])[..513];
    let archive = oci(&[(layer, gzip(layer))], Some("x"), |_, _| {});
    let end = archive.iter().rposition(|b| *b != 0).unwrap() + 1;
    for as_stream in [false, true] {
        load(&scratch, &archive[..end], as_stream).unwrap();
        let mut written = Vec::new();
        let diff_id = crate::oci::DiffId(Digest::of(layer));
        layer::write_tar(&scratch.store, &diff_id, &mut written).unwrap();
        assert_eq!(written, layer);
    }
}

#[test]
fn lies_are_found_and_leave_nothing() {
    let Some(scratch) = scratch() else { return };
    let plain = tar(&[("a", b"1")]);
    let other = tar(&[("b", b"1")]);
    let good = [(plain.as_slice(), gzip(&plain))];
    let wrong = [(plain.as_slice(), gzip(&other))];
    let bare = [(other.as_slice(), plain.clone())];
    let digest = Digest::of(&gzip(&plain)).to_string();
    let check = |archive: &[u8], why: &str| {
        for as_stream in [false, true] {
            let error = chain(&load(&scratch, archive, as_stream).unwrap_err());
            assert!(error.contains(why), "{error} should hold {why}");
            assert!(names(&scratch.store).is_empty() && scratch.is_tidy(), "{why}");
            assert!(image::list(&scratch.store).unwrap().is_empty());
            gc::sweep(&scratch.store, &[]).unwrap();
        }
    };
    check(&oci(&good, None, |m, _| m["layers"][0]["size"] = json!(1)), &digest);
    check(&oci(&wrong, None, |_, _| {}), &Digest::of(&plain).to_string());
    check(&oci(&bare, None, |_, _| {}), &Digest::of(&plain).to_string());
    check(&oci(&good, None, |m, _| m["config"]["size"] = json!(1)), "not 1");
    check(&oci(&good, None, |m, _| m["layers"] = json!([])), "the manifest has 0 and the config 1");
    check(
        &oci(&good, None, |m, _| m["layers"][0]["digest"] = json!(Digest::of(b"none"))),
        "cannot find blob sha256:",
    );
    check(&oci(&good, None, |m, _| m["layers"][0]["digest"] = json!("sha256:../../etc/passwd")), "cannot");
    check(
        &oci(&good, None, |m, _| m["layers"][0]["mediaType"] = json!("text/plain")),
        "text/plain is not a layer",
    );
    check(&oci(&good, None, |m, _| m["schemaVersion"] = json!(1)), "schemaVersion is 1");
    let spoilt = |_: &mut Value, index: &mut Value| {
        index["manifests"] =
            json!([{"mediaType": manifest::MANIFEST, "digest": Digest::of(b"x"), "size": 1}]);
    };
    check(&oci(&good, None, spoilt), "cannot find blob");
    check(&tar(&[("manifest.json", b"[]")]), "there is no image in it");
    check(&tar(&[("etc/passwd", b"x")]), "neither index.json nor manifest.json");
    check(&tar(&[("manifest.json", b"[{\"Config\":\"../../etc/passwd\"}]")]), "cannot find ../../etc/passwd");
    check(&tar(&[("manifest.json", b"-> manifest.json")]), "leads nowhere");
    check(&tar(&[("manifest.json", b"-> ../../../etc/passwd")]), "neither index.json");
    let config = config(&[&plain]);
    let list = br#"[{"Config":"c","Layers":["l"]}]"#;
    check(&tar(&[("manifest.json", list), ("c", &config), ("l", &other)]), &Digest::of(&other).to_string());
    check(&tar(&[("manifest.json", list), ("c", &config)]), "cannot find the layer l");
    check(&tar(&[("manifest.json", list), ("c", &config), ("l", b"text")]), "");
    check(&tar(&[("manifest.json", &vec![b' '; 9 << 20])]), "");
}

#[test]
fn an_index_in_an_index_is_chosen_from_but_not_for_ever() {
    let Some(scratch) = scratch() else { return };
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest::MANIFEST, "layers": [],
        "config": {"mediaType": manifest::CONFIG, "digest": Digest::of(b"{}"), "size": 2}});
    let manifest = manifest.to_string();
    let mut members: Vec<(String, Vec<u8>)> = vec![];
    let mut add =
        |bytes: &[u8]| members.push((format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes.to_vec()));
    add(b"{}");
    add(manifest.as_bytes());
    let entry = |media_type: &str, bytes: &str, architecture: &str| {
        json!({"mediaType": media_type, "digest": Digest::of(bytes.as_bytes()), "size": bytes.len(),
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let mut inner = json!({"schemaVersion": 2, "manifests": [
        entry(manifest::MANIFEST, &manifest, "amd64"), entry(manifest::MANIFEST, "gone", "s390x"),
        entry(manifest::MANIFEST, "gone", "unknown")]})
    .to_string();
    add(inner.as_bytes());
    let first = inner.clone();
    for _ in 0..6 {
        inner =
            json!({"schemaVersion": 2, "manifests": [entry(manifest::INDEX, &inner, "amd64")]}).to_string();
        add(inner.as_bytes());
    }
    let archive = |members: &[(String, Vec<u8>)], top: &str| {
        let index =
            json!({"schemaVersion": 2, "manifests": [entry(manifest::INDEX, top, "amd64")]}).to_string();
        let mut all: Vec<(&str, &[u8])> = members.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
        all.push(("index.json", index.as_bytes()));
        tar(&all)
    };
    let loaded = load(&scratch, &archive(&members, &first), false).unwrap();
    assert_eq!(loaded[0].id, Digest::of(b"{}"));
    assert!(
        chain(&load(&scratch, &archive(&members, &inner), false).unwrap_err()).contains("not the manifest")
    );
}

#[test]
fn an_import_is_an_image_of_one_layer() {
    let Some(scratch) = scratch() else { return };
    let store = &scratch.store;
    let root = tar(&[("bin/sh", b"x")]);
    let path = scratch.dir.join("root.tar");
    let import = |name: Option<&str>, bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let options = import::Options {
            input: Input::Path(path.clone()),
            reference: name.map(|n| n.parse().unwrap()),
            changes: vec!["CMD [\"sh\"]".to_owned()],
            message: None,
            platform: Some("linux/arm64".parse().unwrap()),
        };
        import::import(store, &options, &mut |_| {})
    };
    let first = import(Some("r"), &root).unwrap();
    let second = import(None, &gzip(&root)).unwrap();
    assert_eq!(layer::list(store).unwrap().len(), 1);
    let all = image::list(store).unwrap();
    assert_eq!(all.iter().map(|i| i.names.len()).sum::<usize>(), 1);
    let value = inspect::inspect(store, second.id.hex()).unwrap();
    assert_eq!((&value["RepoTags"], &value["Config"]["Cmd"]), (&json!([]), &json!(["sh"])));
    assert_eq!((&value["Architecture"], &value["Size"]), (&json!("arm64"), &json!(root.len())));
    let steps = history::history(store, "r").unwrap();
    assert_eq!(
        (steps.len(), steps[0].comment.as_str(), &steps[0].id),
        (1, "Imported from -", &Some(first.id.clone()))
    );
    // A name that moves leaves its image behind, untagged.
    let third = import(Some("r:latest"), &tar(&[("a", b"")])).unwrap();
    assert_eq!(image::find(store, "r").unwrap().id, third.id);
    assert!(image::find(store, &first.id.hex()[..12]).unwrap().names.is_empty());
    assert!(chain(&import(Some("r"), b"").unwrap_err()).contains("it is empty"));
    assert_eq!(image::find(store, "r").unwrap().id, third.id);
    assert!(scratch.is_tidy());
}

#[test]
fn what_is_used_is_not_removed() {
    let Some(scratch) = scratch() else { return };
    let store = &scratch.store;
    let plain = tar(&[("a", b"1")]);
    let archive = oci(&[(&plain, gzip(&plain))], Some("x:1"), |_, _| {});
    let id = load(&scratch, &archive, false).unwrap()[0].id.clone();
    tag::tag(store, "x:1", &"y".parse().unwrap()).unwrap();
    let options = |force, running| {
        let diff_ids = vec![crate::oci::DiffId(Digest::of(&plain))];
        let in_use = vec![remove::InUse { container: "c".to_owned(), image: id.clone(), diff_ids, running }];
        remove::Options { force, in_use }
    };
    let check = |what: &str, options: remove::Options, why: &str| {
        let outcome = remove::remove(store, &[what.to_owned()], &options).unwrap();
        let errors: Vec<String> = outcome.errors.iter().map(chain).collect();
        assert!(outcome.removed.is_empty() && errors.len() == 1 && errors[0].contains(why), "{errors:?}");
    };
    check(&id.hex()[..6], options(false, false), "several names: x:1, y:latest");
    check(id.hex(), options(true, true), "running container c");
    let outcome = remove::remove(store, &["y".to_owned()], &options(false, true)).unwrap();
    assert_eq!(outcome.removed, [Removed::Untagged("y:latest".parse().unwrap())]);
    check("x:1", options(false, false), "container c uses it");
    let outcome = remove::remove(store, &["x:1".to_owned()], &options(true, false)).unwrap();
    assert_eq!(outcome.removed.len(), 2);
    assert_eq!(layer::list(store).unwrap().len(), 1, "the container stands on it");
    check("x:1", options(false, false), "no such image: x:1");
    gc::sweep(store, &[]).unwrap();
    assert!(layer::list(store).unwrap().is_empty());
}

#[test]
fn loads_and_removals_side_by_side_lose_nothing() {
    let Some(scratch) = scratch() else { return };
    let store = &scratch.store;
    let shared = tar(&[("a", b"1")]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let shared = &shared;
            let scratch = &scratch;
            scope.spawn(move || {
                let own = tar(&[("b", format!("{thread}").as_bytes())]);
                let layers = [(shared.as_slice(), gzip(shared)), (own.as_slice(), gzip(&own))];
                let name = format!("x:{thread}");
                let path = scratch.dir.join(&name);
                fs::write(&path, &oci(&layers, Some(&name), |_, _| {})).unwrap();
                for _ in 0..10 {
                    let options = load::Options { input: Input::Path(path.clone()), platform: None };
                    load::load(&scratch.store, &options, &mut |_| {}).unwrap();
                    let image = image::find(&scratch.store, &name).unwrap();
                    assert!(image.diff_ids.iter().all(|d| layer::exists(&scratch.store, d).unwrap()));
                    remove::remove(&scratch.store, std::slice::from_ref(&name), &remove::Options::default())
                        .unwrap();
                }
            });
        }
    });
    assert!(layer::list(store).unwrap().is_empty() && blob::list(store).unwrap().is_empty());
    assert!(scratch.is_tidy());
}
