//! The prunes, `system df` and `system reset`: what nobody needs is freed and nothing else, and what is taken is what du(1)
//! says.

use std::fs;
use std::path::Path;

use crate::hostile_registry::Hostile;
use crate::leftovers;
use crate::sandbox::Sandbox;
use crate::store_care::{is_well, pulled};

for_each_user!(
    prune_images,
    prune_keeps_what_containers_use,
    manifest_lists_keep_their_images,
    prune_containers_and_all,
    nobody_answers,
    df_agrees_with_du,
    reset,
);

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

fn manifest_lists_keep_their_images(s: &Sandbox) {
    let registry = Hostile::start();
    let layer =
        |n: u8| crate::image_made::Layer::of_files(crate::image_made::Packing::Gzip, [("f", &[n][..])]);
    let images = [1, 2, 3].map(|n| crate::image_made::Image::new(&[layer(n)]));
    for (n, image) in images.iter().enumerate() {
        registry.put("app", &n.to_string(), image);
        s.dhow(["pull", "-q", &registry.name(&format!("app:{n}"))]).ok();
    }
    let names = [0, 1, 2].map(|n| registry.name(&format!("app:{n}")));
    let list = registry.name("list:v1");
    s.dhow(["manifest", "create", &list, &names[0]]).ok();
    s.dhow(["manifest", "add", &list, &names[1]]).ok();
    // Without a name it is still the list's; by its id it is said why it stays.
    assert_eq!(s.dhow(["rmi", &names[0]]).ok(), format!("Untagged: {}", names[0]));
    let id = &images[0].config.digest;
    for flags in [&["rmi"][..], &["rmi", "-f"]] {
        s.dhow(flags).arg(id).output().complains("the manifest list").complains("list:v1").exits(1);
    }
    for prune in [&["image", "prune", "-f"][..], &["image", "prune", "-af"], &["system", "prune", "-af"]] {
        s.dhow(prune).ok();
        is_well(s);
    }
    s.dhow(["image", "exists", &names[2]]).output().exits(1);
    assert_eq!(s.inspect(&images[1].config.digest, "{{json .RepoTags}}"), format!("[\"{}\"]", names[1]));
    // The list can be pushed, with all that is in it.
    registry.content().blobs.clear();
    registry.content().manifests.clear();
    s.dhow(["manifest", "push", &list]).ok();
    for image in &images[..2] {
        let key = ("list".to_owned(), image.manifest.digest.clone());
        assert_eq!(registry.content().manifests[&key].bytes, image.manifest.bytes);
    }
    // With the list goes its claim.
    s.dhow(["manifest", "rm", &list]).ok();
    s.dhow(["image", "prune", "-f"]).ok();
    s.dhow(["image", "exists", id]).output().exits(1);
    s.dhow(["image", "exists", &names[1]]).ok();
    s.dhow(["rmi", &names[1]]).ok();
    let left = leftovers::names(&s.store.join("layers")).len();
    assert_eq!(left, 0, "the prune of all took busybox too");
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
    assert_eq!(s.dhow(["system", "df", "--format", "{{.Size}}"]).ok().lines().nth(1), Some("0B"));
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
    assert!((sizes[1] - containers).abs() <= containers * 0.01 + 8192.0, "{} {containers}", sizes[1]);
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
