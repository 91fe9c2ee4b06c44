//! dhow, docker, podman and skopeo push to and pull from Debian's docker-registry, each what another one has made: plain, with
//! TLS of a private authority, with a password. A digest is the same wherever it is asked for.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::capability::needs;
use crate::command::Cmd;
use crate::image_made::{Image, Layer, Packing};
use crate::images;
use crate::peers::{Docker, Podman};
use crate::registry_bad_days::measured;
use crate::registry_server::{Options, Registry};
use crate::sandbox::Sandbox;

for_each_user!(own_pushes_and_pulls, only_what_is_missing_moves);
for_root!(podman_and_dhow, docker_and_dhow, skopeo_and_dhow);
for_users_with_many_ids!(ten_layers_of_debian_packages);

const USER: &str = "me";
const PASSWORD: &str = "pass:word \u{e9}";

/// A registry, and what its clients are told to get in.
struct Place {
    registry: Registry,
    certs: Option<PathBuf>,
    has_password: bool,
}

/// Plain, with TLS, with TLS and a password.
fn places() -> Vec<Place> {
    let place = |tls, has_password: bool| {
        let htpasswd = has_password.then_some((USER, PASSWORD));
        let registry = Registry::start(Options { tls, htpasswd });
        let certs = tls.then(|| registry.cert_dir());
        Place { registry, certs, has_password }
    };
    vec![place(false, false), place(true, false), place(true, true)]
}

impl Place {
    fn name(&self, name: &str) -> String {
        self.registry.name(name)
    }

    /// dhow's flags for this place; logs in where that is asked for.
    fn enter(&self, s: &Sandbox) -> Vec<String> {
        let flags: Vec<String> =
            self.certs.iter().flat_map(|dir| ["--cert-dir".to_owned(), dir.display().to_string()]).collect();
        if self.has_password {
            let login =
                s.dhow(["login", "-u", USER, "--password-stdin"]).args(&flags).arg(self.registry.addr());
            login.stdin(PASSWORD).ok();
        }
        flags
    }

    /// podman's flags.
    fn of_podman(&self) -> Vec<String> {
        let mut flags = vec![match &self.certs {
            Some(dir) => format!("--cert-dir={}", dir.display()),
            None => "--tls-verify=false".into(),
        }];
        flags.extend(self.has_password.then(|| format!("--creds={USER}:{PASSWORD}")));
        flags
    }

    /// skopeo's, for one side of a copy.
    fn of_skopeo(&self, side: &str) -> Vec<String> {
        self.of_podman().iter().map(|flag| flag.replacen("--", &format!("--{side}-"), 1)).collect()
    }

    /// The digest of the manifest that a tag points to, as the registry's own files have it.
    #[track_caller]
    fn digest(&self, name: &str, tag: &str) -> String {
        let link = format!("docker/registry/v2/repositories/{name}/_manifests/tags/{tag}/current/link");
        let path = self.registry.storage().join(link);
        let digest = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(self.registry.blob_path(&digest).exists());
        digest
    }
}

/// `dhow push` to there; the digest it tells.
#[track_caller]
fn push(s: &Sandbox, flags: &[String], to: &str) -> String {
    s.dhow(["push", "-q", "--digestfile", "pushed"]).args(flags).arg(to).ok();
    let digest = fs::read_to_string(s.work.join("pushed")).unwrap().trim().to_owned();
    fs::remove_file(s.work.join("pushed")).unwrap();
    digest
}

#[track_caller]
fn pull(s: &Sandbox, flags: &[String], from: &str) {
    s.dhow(["pull", "-q"]).args(flags).arg(from).ok();
}

/// The image has this digest, and runs.
#[track_caller]
fn is(s: &Sandbox, image: &str, digest: &str) {
    let digests = s.inspect(image, "{{json .RepoDigests}}");
    assert!(digests.contains(digest), "{image} should be {digest}: {digests}");
    assert_eq!(s.dhow(["run", "--rm", image, "cat", "/etc/motd"]).ok(), "hello");
}

/// An image that the store has from elsewhere goes to another name in the registry, and is the same there.
#[track_caller]
fn goes_on(s: &Sandbox, place: &Place, flags: &[String], image: &str, digest: &str) {
    s.dhow(["tag", image, &place.name("again/and:v2")]).ok();
    assert_eq!(push(s, flags, &place.name("again/and:v2")), digest, "as pulled, byte for byte");
    assert_eq!(place.digest("again/and", "v2"), digest);
    s.dhow(["rmi", "-f", image, &place.name("again/and:v2")]).ok();
}

fn own_pushes_and_pulls(s: &Sandbox) {
    needs!("docker-registry", "openssl", "htpasswd");
    for place in places() {
        let flags = place.enter(s);
        let (ours, id) = (place.name("some/ours:v1"), s.inspect("busybox", "{{.Id}}"));
        s.dhow(["tag", "busybox", &ours]).ok();
        let digest = push(s, &flags, &ours);
        assert_eq!(place.digest("some/ours", "v1"), digest);
        assert_eq!(push(s, &flags, &ours), digest, "packed again, the same bytes");
        s.dhow(["rmi", &ours]).ok();
        pull(s, &flags, &ours);
        assert_eq!(s.inspect(&ours, "{{.Id}}"), id);
        is(s, &ours, &digest);
        s.dhow(["rmi", &ours]).ok();
        let by_digest = place.name(&format!("some/ours@{digest}"));
        pull(s, &flags, &by_digest);
        is(s, &by_digest, &digest);
        s.dhow(["rmi", "-f", &by_digest]).ok();
        if place.certs.is_some() {
            s.dhow(["pull", "-q", &ours])
                .output()
                .complains("certificate")
                .expect("refused", |o| o.code != 0);
            s.dhow(["pull", "-q", "--tls-verify=false", &ours]).ok();
            s.dhow(["rmi", &ours]).ok();
        }
        if place.has_password {
            s.dhow(["logout", &place.registry.addr()]).ok();
            let refused = s.dhow(["pull", "-q"]).args(&flags).arg(&ours).output();
            refused
                .complains("login")
                .expect("refused", |o| o.code != 0 && !o.error_text().contains(PASSWORD));
        }
        s.dhow(["system", "check"]).ok();
    }
}

fn only_what_is_missing_moves(s: &Sandbox) {
    needs!("docker-registry", "openssl", "htpasswd");
    let place = &places()[0];
    let flags = place.enter(s);
    let uploads = || {
        place.registry.requests().iter().filter(|r| r.starts_with("PATCH") || r.starts_with("PUT")).count()
    };
    let to = |name: &str| {
        let to = place.name(name);
        s.dhow(["tag", "busybox", &to]).ok();
        let before = uploads();
        push(s, &flags, &to);
        uploads() - before
    };
    let first = to("one:v1");
    assert!(first >= 3, "a layer, a configuration, a manifest: {first}");
    assert_eq!(to("one:v2"), 1, "the manifest alone: {:#?}", place.registry.requests());
    assert_eq!(to("two:v1"), 1, "the blobs are mounted: {:#?}", place.registry.requests());
    let mounted = |r: &String| r.contains("mount=") && r.ends_with(" 201");
    assert_eq!(place.registry.requests().into_iter().filter(mounted).count(), 2);
}

fn podman_and_dhow(s: &Sandbox) {
    needs!("docker-registry", "openssl", "htpasswd", "podman");
    let podman = Podman::new(s);
    let run = |args: &[&str], flags: &[String]| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        podman.run(&[&args[..args.len() - 1], &flags, &args[args.len() - 1..]].concat())
    };
    podman.run(&["import", "-q", "--change", "CMD [\"sh\"]", images::busybox().to_str().unwrap(), "peer:v1"]);
    for place in places() {
        let (flags, theirs) = (place.enter(s), place.of_podman());
        for format in ["oci", "v2s2"] {
            let name = place.name(&format!("peer/{format}:v1"));
            podman.run(&["tag", "peer:v1", &name]);
            run(&["push", "-q", "--format", format, &name], &theirs);
            let digest = place.digest(&format!("peer/{format}"), "v1");
            pull(s, &flags, &name);
            is(s, &name, &digest);
            goes_on(s, &place, &flags, &name, &digest);
            podman.run(&["rmi", &name]);
        }
        let ours = place.name("ours:v1");
        s.dhow(["tag", "busybox", &ours]).ok();
        for compression in ["gzip", "zstd"] {
            s.dhow(["push", "-q", "--compression", compression]).args(&flags).arg(&ours).ok();
            let digest = place.digest("ours", "v1");
            run(&["pull", "-q", &ours], &theirs);
            let inspected: Value = serde_json::from_str(&podman.run(&["image", "inspect", &ours])).unwrap();
            assert_eq!(inspected[0]["Digest"], digest.as_str(), "{compression}");
            let layers = s.inspect("busybox", "{{json .RootFS.Layers}}");
            assert_eq!(inspected[0]["RootFS"]["Layers"].to_string(), layers, "{compression}");
            podman.run(&["rmi", "-f", &ours]);
        }
        s.dhow(["system", "check"]).ok();
    }
}

fn docker_and_dhow(s: &Sandbox) {
    needs!("docker-registry", "openssl", "htpasswd", "dockerd", "docker");
    let Some(docker) = Docker::start(s) else { return };
    docker.run(&["import", "--change", "CMD [\"sh\"]", images::busybox().to_str().unwrap(), "peer:v1"]);
    // dockerd does not verify a certificate of 127.0.0.1: its list of insecure registries has it by default.
    for place in places() {
        let flags = place.enter(s);
        if place.has_password {
            docker.run(&["login", "-u", USER, "-p", PASSWORD, &place.registry.addr()]);
        }
        let theirs = place.name("peer/docker:v1");
        docker.run(&["tag", "peer:v1", &theirs]);
        let said = docker.run(&["push", &theirs]);
        let digest = place.digest("peer/docker", "v1");
        assert!(said.contains(&digest), "{said}");
        pull(s, &flags, &theirs);
        assert_eq!(
            s.inspect(&theirs, "{{.Id}}"),
            docker.run(&["inspect", "-f", "{{.Id}}", "peer:v1"]).trim()
        );
        is(s, &theirs, &digest);
        goes_on(s, &place, &flags, &theirs, &digest);
        let ours = place.name("ours:v1");
        s.dhow(["tag", "busybox", &ours]).ok();
        let digest = push(s, &flags, &ours);
        let said = docker.run(&["pull", &ours]);
        assert!(said.contains(&digest), "{said}");
        let id = docker.run(&["inspect", "-f", "{{.Id}}", &ours]);
        assert_eq!(id.trim(), s.inspect("busybox", "{{.Id}}"));
        docker.run(&["rmi", &ours, &theirs]);
    }
}

fn skopeo_and_dhow(s: &Sandbox) {
    needs!("docker-registry", "openssl", "htpasswd", "skopeo");
    let skopeo = |args: &[&str], flags: &[String]| {
        let run: Cmd = s.program("skopeo").arg("--insecure-policy").args(args).args(flags);
        run.ok()
    };
    let places = places();
    s.dhow(["save", "--format", "oci-archive", "-o", "busybox.tar", "busybox"]).ok();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let (from, to) = (&places[from], &places[to]);
        let theirs = from.name("peer/skopeo:v1");
        let docker = |name: &str| format!("docker://{name}");
        skopeo(&["copy", "-q", "oci-archive:busybox.tar", &docker(&theirs)], &from.of_skopeo("dest"));
        let digest = from.digest("peer/skopeo", "v1");
        let flags = from.enter(s);
        pull(s, &flags, &theirs);
        is(s, &theirs, &digest);
        goes_on(s, from, &flags, &theirs, &digest);
        // What dhow has pushed goes from one registry to the other, by skopeo and by dhow itself.
        let ours = from.name("ours:v1");
        s.dhow(["tag", "busybox", &ours]).ok();
        let digest = push(s, &flags, &ours);
        let both = [from.of_skopeo("src"), to.of_skopeo("dest")].concat();
        skopeo(&["copy", "-q", &docker(&ours), &docker(&to.name("copied:v1"))], &both);
        assert_eq!(to.digest("copied", "v1"), digest);
        let flags = to.enter(s);
        pull(s, &flags, &to.name("copied:v1"));
        is(s, &to.name("copied:v1"), &digest);
        s.dhow(["rmi", "-f", &to.name("copied:v1"), &ours]).ok();
    }
}

fn ten_layers_of_debian_packages(s: &Sandbox) {
    needs!("apt", "docker-registry", "openssl", "htpasswd", "skopeo");
    let mut layers = vec![Layer::of_tar(Packing::Gzip, &fs::read(images::debian()).unwrap())];
    layers.extend(
        images::debian_packages().iter().map(|tar| Layer::of_tar(Packing::Gzip, &fs::read(tar).unwrap())),
    );
    assert_eq!(layers.len(), 10);
    let image = Image::new(&layers);
    drop(layers);
    let hostile = crate::hostile_registry::Hostile::start();
    hostile.put("debian", "ten", &image);
    let place = places().remove(1);
    let flags = place.enter(s);
    let copy = s.program("skopeo").args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"]);
    let (from, to) = (
        format!("docker://{}", hostile.name("debian:ten")),
        format!("docker://{}", place.name("debian:ten")),
    );
    copy.args(place.of_skopeo("dest")).args([from, to]).patiently().ok();
    let name = place.name("debian:ten");
    // Larger than the memory that it may take.
    measured(s, s.dhow(["pull", "-q"]).args(&flags).arg(&name).patiently()).exits(0);
    let script = "jq -n -r '\"said\"'; file -b /usr/bin/tree | cut -d, -f1; tree --version | cut -c 1-4; hello -g 42; \
                  stat -c '%U:%G %a' /etc/shadow /usr/bin/passwd; dpkg --version | head -c 6";
    let out = s.dhow(["run", "--rm", &name, "bash", "-ec", script]).ok();
    assert_eq!(out, "said\nELF 64-bit LSB pie executable\ntree\n42\nroot:shadow 640\nroot:root 4755\nDebian");
    goes_on(s, &place, &flags, &name, &image.manifest.digest);
    s.dhow(["system", "check"]).patiently().ok();
}
