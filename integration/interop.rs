//! Archives of docker, podman, skopeo and umoci load here, and ours load there. The golden archives are made by those very
//! programs, as root, in directories of their own.

use std::path::Path;

use serde_json::Value;

use crate::capability::needs;
use crate::images;
use crate::peers::{Docker, Podman};
use crate::sandbox::Sandbox;

for_root!(podman_to_dhow, dhow_to_podman, docker_to_dhow, dhow_to_docker, skopeo_and_umoci);
for_each_user!(own_formats, compressed, several_images_in_one, layers_are_shared_and_exact);

/// The image as loaded runs and has what was put into it.
fn runs(s: &Sandbox, image: &str) {
    let out = s
        .dhow(["run", "--rm", image, "sh", "-c", "cat /etc/motd; cat /added 2>/dev/null; echo $A"])
        .output()
        .exits(0);
    assert_eq!(out.text(), "hello\n1", "{}", out.report());
}

fn with_variable(s: &Sandbox, name: &str) {
    s.dhow(["import", "-c", "ENV A=1", "-c", "CMD [\"sh\"]", "-", name]).stdin_file(images::busybox()).ok();
}

fn own_formats(s: &Sandbox) {
    with_variable(s, "mine:v1");
    let id = s.inspect("mine:v1", "{{.Id}}");
    for (format, to) in [("docker-archive", "d.tar"), ("oci-archive", "o.tar"), ("oci-dir", "dir")] {
        s.dhow(["save", "--format", format, "-o", to, "mine:v1"]).ok();
        s.dhow(["rmi", "-f", "mine:v1"]).ok();
        let said = s.dhow(["load", "-i", to]).ok();
        assert!(said.contains("Loaded image: mine:v1"), "{format}: {said}");
        assert_eq!(s.inspect("mine:v1", "{{.Id}}"), id, "{format}");
        runs(s, "mine:v1");
    }
    let archive = s.dhow(["save", "mine:v1"]).output().exits(0).stdout;
    s.dhow(["rmi", "mine:v1"]).ok();
    s.dhow(["load", "-q"]).stdin(archive).ok();
    runs(s, "mine:v1");
    s.dhow(["save", "--format", "nosuch", "mine:v1"])
        .output()
        .complains("nosuch")
        .expect("an error", |o| o.code != 0);
    s.dhow(["load", "-i", "no-such-file"])
        .output()
        .complains("no-such-file")
        .expect("an error", |o| o.code != 0);
}

fn compressed(s: &Sandbox) {
    with_variable(s, "mine:v1");
    let archive = s.dhow(["save", "mine:v1"]).output().exits(0).stdout;
    s.dhow(["rmi", "mine:v1"]).ok();
    for tool in ["gzip", "zstd"] {
        needs!(tool);
        let packed = s.program(tool).args(["-1", "-c"]).stdin(archive.clone()).output().exits(0).stdout;
        let path = s.file("packed", packed);
        s.dhow(["load"]).stdin_file(&path).ok();
        runs(s, "mine:v1");
        s.dhow(["rmi", "mine:v1"]).ok();
    }
}

fn several_images_in_one(s: &Sandbox) {
    with_variable(s, "one:v1");
    s.dhow(["tag", "one:v1", "two:v2"]).ok();
    s.dhow(["save", "-o", "both.tar", "one:v1", "two:v2", "busybox"]).ok();
    s.dhow(["rmi", "-f", "one:v1", "two:v2", "busybox"]).ok();
    let said = s.dhow(["load", "-i", "both.tar"]).ok();
    for name in ["one:v1", "two:v2", "busybox:latest"] {
        assert!(said.contains(name), "{said}");
        s.dhow(["run", "--rm", name, "true"]).ok();
    }
}

fn layers_are_shared_and_exact(s: &Sandbox) {
    // The same image saved twice is the same bytes, and its layer has the digest that its config tells.
    let first = s.dhow(["save", "busybox"]).output().exits(0).stdout;
    let second = s.dhow(["save", "busybox"]).output().exits(0).stdout;
    assert!(first == second);
    with_variable(s, "other");
    let layers = crate::leftovers::names(&s.store.join("layers"));
    assert_eq!(layers.len(), 1, "two images, one layer: {layers:?}");
}

fn podman_to_dhow(s: &Sandbox) {
    needs!("podman");
    let podman = Podman::new(s);
    podman.run(&[
        "import",
        "-q",
        "--change",
        "ENV A=1",
        "--change",
        "CMD [\"sh\"]",
        path(images::busybox()),
        "peer:v1",
    ]);
    for format in ["docker-archive", "oci-archive", "oci-dir", "docker-dir"] {
        let to = s.work.join(format);
        podman.run(&["save", "-q", "--format", format, "-o", path(&to), "peer:v1"]);
        let loaded = s.dhow(["load", "-i", path(&to)]).output();
        if format == "docker-dir" && loaded.code != 0 {
            continue;
        }
        let said = loaded.exits(0).text();
        let name = said.rsplit(' ').next().unwrap().to_owned();
        runs(s, &name);
        s.dhow(["rmi", &name]).ok();
    }
}

fn dhow_to_podman(s: &Sandbox) {
    needs!("podman");
    let podman = Podman::new(s);
    with_variable(s, "ours:v1");
    let layers = s.inspect("ours:v1", "{{json .RootFS.Layers}}");
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let to = s.work.join(format);
        s.dhow(["save", "--format", format, "-o", path(&to), "ours:v1"]).ok();
        let said = podman.run(&["load", "-q", "-i", path(&to)]);
        let name = said.trim().rsplit(": ").next().unwrap().to_owned();
        let theirs: Value = serde_json::from_str(&podman.run(&["image", "inspect", &name])).unwrap();
        assert_eq!(theirs[0]["RootFS"]["Layers"].to_string(), layers, "{format}");
        assert!(theirs[0]["Config"]["Env"].to_string().contains("A=1"), "{format}");
        podman.run(&["rmi", "-f", &name]);
    }
}

fn docker_to_dhow(s: &Sandbox) {
    needs!("dockerd", "docker");
    let Some(docker) = Docker::start(s) else { return };
    docker.run(&[
        "import",
        "--change",
        "ENV A=1",
        "--change",
        "CMD [\"sh\"]",
        path(images::busybox()),
        "peer:v1",
    ]);
    let to = s.work.join("docker.tar");
    docker.run(&["save", "-o", path(&to), "peer:v1"]);
    let said = s.dhow(["load", "-i", path(&to)]).ok();
    assert!(said.contains("Loaded image: peer:v1"), "{said}");
    runs(s, "peer:v1");
    assert_eq!(s.inspect("peer:v1", "{{.Id}}"), docker.run(&["inspect", "-f", "{{.Id}}", "peer:v1"]).trim());
}

fn dhow_to_docker(s: &Sandbox) {
    needs!("dockerd", "docker");
    let Some(docker) = Docker::start(s) else { return };
    with_variable(s, "ours:v1");
    s.dhow(["save", "-o", "ours.tar", "ours:v1"]).ok();
    let said = docker.run(&["load", "-i", path(&s.work.join("ours.tar"))]);
    assert!(said.contains("Loaded image: ours:v1"), "{said}");
    assert_eq!(docker.run(&["inspect", "-f", "{{.Id}}", "ours:v1"]).trim(), s.inspect("ours:v1", "{{.Id}}"));
}

fn skopeo_and_umoci(s: &Sandbox) {
    needs!("skopeo", "umoci");
    with_variable(s, "ours:v1");
    s.dhow(["save", "--format", "oci-archive", "-o", "ours.tar", "ours:v1"]).ok();
    let skopeo =
        |from: &str, to: &str| s.program("skopeo").args(["--insecure-policy", "copy", "-q", from, to]).ok();
    skopeo("oci-archive:ours.tar", "oci:layout:v1");
    // umoci adds a layer to the layout.
    let added = s.file("added.txt", "x");
    s.program("umoci").args(["insert", "--image", "layout:v1", path(&added), "/umoci"]).ok();
    s.program("umoci").args(["config", "--image", "layout:v1", "--config.env", "B=2"]).ok();
    let name = |said: String| said.trim().rsplit(": ").next().unwrap().to_owned();
    let loaded = name(s.dhow(["load", "-i", "layout"]).ok());
    let check = |image: &str| {
        assert_eq!(
            s.dhow(["run", "--rm", image, "sh", "-c", "cat /umoci; echo $A$B"]).ok(),
            "x12",
            "{image}"
        );
        s.dhow(["rmi", "-f", image]).ok();
    };
    check(&loaded);
    for to in ["docker-archive:again.tar:again:v1", "oci-archive:again-oci.tar:again:v1"] {
        skopeo("oci:layout:v1", to);
        let file = to.split(':').nth(1).unwrap();
        check(&name(s.dhow(["load", "-i", file]).ok()));
    }
    s.dhow(["save", "-o", "docker.tar", "ours:v1"]).ok();
    skopeo("docker-archive:docker.tar", "oci:from-docker:v1");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
