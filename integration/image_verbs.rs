//! `images`, `rmi`, `tag`, `history`.

use serde_json::Value;

use crate::sandbox::{NONE, Sandbox};

for_each_user!(images_lists, tag_and_untag, rmi, rmi_in_use, history, names_are_normalised, unknown_images);

fn images_lists(s: &Sandbox) {
    let text = s.dhow(["images"]).ok();
    let mut lines = text.lines();
    let header: Vec<&str> =
        lines.next().unwrap().split("  ").map(str::trim).filter(|w| !w.is_empty()).collect();
    assert_eq!(header, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["busybox", "latest"]);
    let id = s.inspect("busybox", "{{.Id}}");
    assert_eq!(row[2], &id[7..19]);
    assert_eq!(s.dhow(["images", "-q"]).ok(), id[7..19]);
    assert_eq!(s.dhow(["images", "-q", "--no-trunc"]).ok(), id);
    assert_eq!(s.dhow(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).ok(), "busybox:latest");
    let json: Value = serde_json::from_str(&s.dhow(["images", "--format", "json"]).ok()).unwrap();
    assert_eq!([&json["Repository"], &json["Tag"]], ["busybox", "latest"]);
    assert_eq!(s.dhow(["images", "-q", "no-such"]).ok(), "");
    assert_eq!(s.dhow(["images", "-q", "busybox"]).ok(), id[7..19]);
    assert_eq!(s.dhow(["images", "-q", "--filter", "reference=busy*"]).ok(), id[7..19]);
}

fn tag_and_untag(s: &Sandbox) {
    let id = s.inspect("busybox", "{{.Id}}");
    s.dhow(["tag", "busybox", "other:v1"]).ok();
    s.dhow(["tag", &id[7..19], "reg.example/x/y"]).ok();
    for name in ["other:v1", "reg.example/x/y:latest", "docker.io/library/busybox"] {
        assert_eq!(s.inspect(name, "{{.Id}}"), id, "{name}");
    }
    let said = s.dhow(["rmi", "other:v1"]).ok();
    assert!(said.contains("Untagged: other:v1") && !said.contains("Deleted"), "{said}");
    s.dhow(["run", "--rm", "busybox", "true"]).ok();
    s.dhow(["tag", "busybox", "BAD"]).output().complains("BAD").expect("an error", |o| o.code != 0);
    s.dhow(["tag", "no-such", "x"]).output().complains("no-such").expect("an error", |o| o.code != 0);
}

fn rmi(s: &Sandbox) {
    let said = s.dhow(["rmi", "busybox"]).ok();
    assert!(said.contains("Untagged: busybox:latest") && said.contains("Deleted: sha256:"), "{said}");
    assert_eq!(s.dhow(["images", "-aq"]).ok(), "");
    for dir in ["blobs/sha256", "layers", "images"] {
        let mut left = crate::leftovers::names(&s.store.join(dir));
        left.retain(|name| !name.to_string_lossy().starts_with('.'));
        assert!(left.is_empty(), "left in {dir}: {left:?}");
    }
    s.import_busybox();
    s.dhow(["tag", "busybox", "second"]).ok();
    let id = s.inspect("busybox", "{{.Id}}");
    s.dhow(["rmi", &id]).output().expect("two names: not by id without force", |o| o.code != 0);
    s.dhow(["rmi", "-f", &id]).ok();
    assert_eq!(s.dhow(["images", "-q"]).ok(), "");
}

fn rmi_in_use(s: &Sandbox) {
    let id = s.detached(["--name", "user"], ["sleep", "1000"]);
    let said = s.dhow(["rmi", "busybox"]).output().expect("an error", |o| o.code != 0).error_text();
    assert!(said.contains(&id[..12]) || said.contains("user"), "it says who uses it: {said}");
    s.dhow(["exec", "user", "true"]).ok();
    s.dhow(["rm", "-f", "user"]).ok();
    s.dhow(["rmi", "busybox"]).ok();
}

fn history(s: &Sandbox) {
    let text = s.dhow(["history", "busybox"]).ok();
    for column in ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"] {
        assert!(text.contains(column), "{text}");
    }
    assert!(text.lines().count() >= 2, "{text}");
    assert!(!s.dhow(["history", "-q", "busybox"]).ok().is_empty());
    s.dhow(["history", "no-such"]).output().complains("no-such").expect("an error", |o| o.code != 0);
}

fn names_are_normalised(s: &Sandbox) {
    for name in [
        "busybox",
        "busybox:latest",
        "library/busybox",
        "docker.io/busybox",
        "docker.io/library/busybox:latest",
    ] {
        assert_eq!(s.dhow(["run", "--rm", name, "echo", "x"]).ok(), "x", "{name}");
    }
}

fn unknown_images(s: &Sandbox) {
    for args in [["rmi", "no-such"], ["history", "no-such"], ["save", "no-such"]] {
        let out = s.dhow(args).args(NONE).output();
        assert!(
            out.code != 0 && out.error_text().to_lowercase().contains("no such image"),
            "{}",
            out.report()
        );
    }
    s.dhow(["rmi", "-f", "no-such"])
        .output()
        .expect("with -f it is no error, as docker's rm -f", |o| o.code <= 1);
}
