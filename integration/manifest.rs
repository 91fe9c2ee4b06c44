//! `manifest`: lists of images for several platforms; and looking at a registry's image without pulling it.

use std::fs;

use serde_json::{Value, json};

use crate::capability::needs;
use crate::hostile_registry::{Deed, Hostile};
use crate::image_made::{DOCKER_LIST, Image, Layer, OCI_INDEX, Packing, digest};
use crate::sandbox::Sandbox;

for_each_user!(
    made_changed_pushed,
    of_a_registry,
    of_an_index,
    docker_in_docker_out,
    two_at_once,
    remote_inspect
);
for_root!(read_by_others);

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn image(seed: u64, architecture: &str) -> Image {
    Image::for_platform(&[Layer::random(Packing::Gzip, "f", seed, 5000)], architecture)
}

/// The bytes that the registry has under a name.
#[track_caller]
fn there(registry: &Hostile, repository: &str, tag: &str) -> Vec<u8> {
    let content = registry.content();
    let found = content.manifests.get(&(repository.to_owned(), tag.to_owned()));
    found.unwrap_or_else(|| panic!("no {repository}:{tag}")).bytes.to_vec()
}

fn made_changed_pushed(s: &Sandbox) {
    let registry = Hostile::start();
    let list = registry.name("app:v1");
    let said = s.dhow(["manifest", "create", &list, "busybox"]).ok();
    assert_eq!(said, format!("Created manifest list {list}"));
    s.dhow(["manifest", "create", &list]).output().complains("--amend").exits(1);
    s.dhow(["manifest", "create", "--amend", &list, "busybox"]).ok();
    s.dhow(["manifest", "exists", &list]).ok();
    s.dhow(["manifest", "exists", "no-such"]).output().exits(1).expect("silence", |o| o.stderr.is_empty());
    let shown = parse(&s.dhow(["manifest", "inspect", &list]).ok());
    assert_eq!(shown["manifests"].as_array().unwrap().len(), 1, "the same image once: {shown}");
    assert_eq!(shown["manifests"][0]["platform"]["os"], "linux");
    s.dhow(["manifest", "annotate", &list, "busybox"])
        .args([
            "--os",
            "linux",
            "--arch",
            "arm",
            "--variant",
            "v7",
            "--os-features",
            "a,b",
            "--annotation",
            "k=v",
        ])
        .ok();
    let digest_here = shown["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let entry = parse(&s.dhow(["manifest", "inspect", &list, &digest_here]).ok());
    let platform = json!({"architecture": "arm", "os": "linux", "variant": "v7", "os.features": ["a", "b"]});
    assert_eq!((&entry["platform"], &entry["annotations"]), (&platform, &json!({"k": "v"})));
    s.dhow(["manifest", "annotate", &list, "other"]).output().complains("no such image in the list").exits(1);
    // A push of the list as if it were an image says what to type.
    s.dhow(["push", &list]).output().complains("dhow manifest push").exits(1);
    assert!(registry.content().manifests.is_empty());
    let pushed = s.dhow(["manifest", "push", "--digestfile", "df", &list]).ok();
    assert_eq!(fs::read_to_string(s.work.join("df")).unwrap(), pushed);
    let index = there(&registry, "app", "v1");
    assert_eq!(digest(&index), pushed);
    let index = parse(std::str::from_utf8(&index).unwrap());
    assert_eq!(index["manifests"][0]["platform"], platform);
    // The image is there too, packed.
    let manifest = there(&registry, "app", index["manifests"][0]["digest"].as_str().unwrap());
    assert_eq!(index["manifests"][0]["size"], manifest.len());
    assert!(String::from_utf8(manifest).unwrap().contains("tar+gzip"));
    // Elsewhere, by another name; and then the list is gone.
    let again = s.dhow(["manifest", "push", "-p", &list, &docker(&registry.name("other/app:v2"))]).ok();
    assert_eq!(again, pushed);
    assert_eq!(digest(&there(&registry, "other/app", "v2")), pushed);
    s.dhow(["manifest", "exists", &list]).output().exits(1);
    s.dhow(["manifest", "rm", &list]).output().complains("no such manifest list").exits(1);
    s.dhow(["manifest", "create", "one"]).ok();
    s.dhow(["manifest", "create", "two"]).ok();
    s.dhow(["manifest", "push", "one", &registry.name("empty")]).output().complains("no images").exits(1);
    s.dhow(["manifest", "rm", "one", "two"]).ok();
    // What cannot be had makes no list.
    s.dhow(["manifest", "create", "half", "busybox", &registry.name("no-such")]).output().exits(1);
    s.dhow(["manifest", "exists", "half"]).output().exits(1);
}

fn docker(name: &str) -> String {
    format!("docker://{name}")
}

fn of_a_registry(s: &Sandbox) {
    let (from, to) = (Hostile::start(), Hostile::start_on("127.0.0.2"));
    let images = [image(1, "amd64"), image(2, "arm64")];
    from.put("one", "v1", &images[0]);
    from.put("two", "v1", &images[1]);
    let list = to.name("app:v1");
    s.dhow(["manifest", "create", &list, &from.name("one:v1")]).ok();
    assert_eq!(s.dhow(["manifest", "add", &list, &from.name("two:v1")]).ok(), images[1].manifest.digest);
    let pushed = s.dhow(["manifest", "push", "--all", &list]).ok();
    // Byte for byte as it was where it came from, and the index is what it should be.
    for image in &images {
        assert_eq!(there(&to, "app", &image.manifest.digest), *image.manifest.bytes);
        for blob in image.blobs() {
            assert!(to.content().blobs.contains_key(&("app".to_owned(), blob.digest.clone())));
        }
    }
    let want = Image::index(&[("amd64", &images[0]), ("arm64", &images[1])]);
    let shown = |bytes: &[u8]| parse(std::str::from_utf8(bytes).unwrap());
    assert_eq!(shown(&there(&to, "app", "v1")), shown(&want.bytes));
    assert_eq!(digest(&there(&to, "app", "v1")), pushed);
    // Of the index each takes what is for it.
    for (platform, image) in [("linux/amd64", &images[0]), ("linux/arm64", &images[1])] {
        s.dhow(["pull", "-q", "--platform", platform, &list]).ok();
        assert_eq!(s.inspect(&list, "{{.Id}}"), image.config.digest);
    }
    s.dhow(["manifest", "remove", &list, &images[0].manifest.digest]).ok();
    let left = parse(&s.dhow(["manifest", "inspect", &list]).ok());
    assert_eq!(left["manifests"].as_array().unwrap().len(), 1);
    // What lies in the same repository is only looked for.
    s.dhow(["manifest", "create", &from.name("both"), &from.name("one:v1")]).ok();
    from.forget();
    s.dhow(["manifest", "push", &from.name("both"), &from.name("one:list")]).ok();
    assert!(
        !from.seen().iter().any(|e| e.request.method == "POST" || e.request.is_blob()),
        "{:?}",
        from.seen()
    );
}

fn of_an_index(s: &Sandbox) {
    let registry = Hostile::start();
    let images = [image(1, "amd64"), image(2, "arm64"), image(3, "s390x")];
    for image in &images {
        registry.put("multi", &image.manifest.digest, image);
    }
    let index = Image::index(&[("amd64", &images[0]), ("arm64", &images[1]), ("s390x", &images[2])]);
    registry.content().put_manifest("multi", "v1", index.clone());
    let (name, list) = (registry.name("multi:v1"), registry.name("list:v1"));
    let count = || parse(&s.dhow(["manifest", "inspect", &list]).ok())["manifests"].as_array().unwrap().len();
    s.dhow(["manifest", "create", &list]).ok();
    assert_eq!(s.dhow(["manifest", "add", "--arch", "s390x", &list, &name]).ok(), images[2].manifest.digest);
    assert_eq!(count(), 1);
    s.dhow(["manifest", "add", "--all", &list, &name]).ok();
    assert_eq!(count(), 3);
    s.dhow(["manifest", "push", "-q", &list]).ok();
    for image in &images {
        there(&registry, "list", &image.manifest.digest);
    }
    let shown = parse(&s.dhow(["manifest", "inspect", "-v", &docker(&list)]).ok());
    assert_eq!(shown.as_array().unwrap().len(), 3);
    assert_eq!(shown[2]["Descriptor"]["platform"]["architecture"], "s390x");
    assert_eq!(shown[2]["OCIManifest"]["config"]["digest"], images[2].config.digest.as_str());
}

fn docker_in_docker_out(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("app", "a", &image(1, "amd64").as_docker());
    registry.put("app", "b", &image(2, "arm64"));
    let media_type = |flags: &[&str], images: &[&str]| {
        let list = registry.name("app:list");
        let images = images.iter().map(|tag| registry.name(&format!("app:{tag}")));
        s.dhow(["manifest", "create", &list]).args(images).ok();
        s.dhow(["manifest", "push", "-p"]).args(flags).arg(&list).ok();
        let index = parse(std::str::from_utf8(&there(&registry, "app", "list")).unwrap());
        index["mediaType"].as_str().unwrap().to_owned()
    };
    assert_eq!(media_type(&[], &["a"]), DOCKER_LIST);
    assert_eq!(media_type(&[], &["a", "b"]), OCI_INDEX);
    assert_eq!(media_type(&["--format", "oci"], &["a"]), OCI_INDEX);
    assert_eq!(media_type(&["--format", "v2s2"], &["b"]), DOCKER_LIST);
}

fn two_at_once(s: &Sandbox) {
    let registry = Hostile::start();
    let n = 6;
    for seed in 0..n {
        registry.put("app", &format!("v{seed}"), &image(seed, "amd64"));
    }
    s.dhow(["manifest", "create", "list"]).ok();
    std::thread::scope(|scope| {
        for seed in 0..n {
            let name = registry.name(&format!("app:v{seed}"));
            scope.spawn(move || s.dhow(["manifest", "add", "list", &name]).ok());
        }
    });
    let shown = parse(&s.dhow(["manifest", "inspect", "list"]).ok());
    assert_eq!(shown["manifests"].as_array().unwrap().len() as u64, n);
}

fn remote_inspect(s: &Sandbox) {
    let registry = Hostile::start();
    let images = [image(1, "amd64"), image(2, "arm64")];
    for image in &images {
        registry.put("app", &image.manifest.digest, image);
    }
    let index = Image::index(&[("amd64", &images[0]), ("arm64", &images[1])]);
    registry.content().put_manifest("app", "v1", index.clone());
    let name = docker(&registry.name("app:v1"));
    let raw = |args: &[&str]| s.dhow(args).arg(&name).output().exits(0).stdout;
    assert_eq!(raw(&["image", "inspect", "--raw"]), *index.bytes);
    assert_eq!(raw(&["manifest", "inspect", "--raw"]), *index.bytes);
    for (platform, image) in [("linux/amd64", &images[0]), ("linux/arm64", &images[1])] {
        assert_eq!(
            raw(&["image", "inspect", "--raw", "--config", "--platform", platform]),
            *image.config.bytes
        );
        let shown = s.dhow(["image", "inspect", "--platform", platform, &name]).ok();
        let shown = &parse(&shown)[0];
        assert_eq!(shown["Id"], image.config.digest.as_str());
        assert_eq!(shown["Architecture"], platform[6..]);
        assert_eq!(shown["Size"], image.layers[0].bytes.len());
        assert_eq!(shown["RepoDigests"][0], format!("{}@{}", registry.name("app"), index.digest));
        assert_eq!(shown["Descriptor"]["digest"], image.manifest.digest.as_str());
        let id = s.dhow(["image", "inspect", "-f", "{{.Id}}", "--platform", platform, &name]).ok();
        assert_eq!(id, image.config.digest);
    }
    // Nothing of it is in the store, and no layer was asked for.
    assert!(!s.dhow(["images"]).ok().contains("app"));
    let layers = |e: &crate::hostile_registry::Seen| images.iter().any(|i| e.request.is_of(&i.layers[0]));
    assert!(!registry.seen().iter().any(layers));
    assert_eq!(
        parse(&s.dhow(["manifest", "inspect", &registry.name("app:v1")]).ok())["mediaType"],
        OCI_INDEX
    );
    s.dhow(["image", "inspect", "--raw", "busybox"]).output().complains("docker://").exits(1);
    s.dhow(["image", "inspect", &docker(&registry.name("none"))])
        .output()
        .complains("no such manifest")
        .exits(1);
    let bad = images[0].config.clone();
    registry.behave(move |request| match request.is_of(&bad) {
        true => Deed { flip: Some(5), ..Deed::default() },
        false => Deed::serve(),
    });
    let refused = s.dhow(["image", "inspect", "--platform", "linux/amd64", &name]).output().exits(1);
    refused.complains(&images[0].config.digest);
}

fn read_by_others(s: &Sandbox) {
    needs!("docker-registry", "skopeo");
    let registry = crate::registry_server::Registry::start(crate::registry_server::Options::default());
    let hostile = Hostile::start();
    hostile.put("arm", "v1", &image(2, "arm64"));
    let list = registry.name("multi:v1");
    s.dhow(["manifest", "create", &list, "busybox", &hostile.name("arm:v1")]).ok();
    let pushed = s.dhow(["manifest", "push", &list]).ok();
    let skopeo =
        |args: &[&str]| s.program("skopeo").arg("--insecure-policy").args(args).output().exits(0).stdout;
    let (name, plain) = (docker(&list), "--tls-verify=false");
    assert_eq!(digest(&skopeo(&["inspect", plain, "--raw", &name])), pushed);
    for architecture in ["amd64", "arm64"] {
        let of = ["--override-arch", architecture, "inspect", plain, "--format", "{{.Architecture}}", &name];
        assert_eq!(String::from_utf8(skopeo(&of)).unwrap().trim(), architecture);
    }
    skopeo(&["copy", "-q", "--all", "--src-tls-verify=false", &name, "dir:theirs"]);
    assert_eq!(digest(&fs::read(s.work.join("theirs/manifest.json")).unwrap()), pushed);
}
