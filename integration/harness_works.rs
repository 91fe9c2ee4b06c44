//! The harness itself: a test of it is worth what its harness notices.

use std::fs;

use crate::capability::needs;
use crate::command::Cmd;
use crate::hostile_registry::{Deed, Hostile};
use crate::image_made::Image;
use crate::leftovers;
use crate::registry_server::{Options, Registry};
use crate::sandbox::Sandbox;
use crate::terminal::Terminal;
use crate::user::User;
use crate::{images, wait};

#[test]
fn the_probe_prints_json() {
    let out = std::process::Command::new(images::probe()).output().unwrap();
    let seen: serde_json::Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    assert!(seen["fds"]["1"].is_string(), "{seen:#}");
    assert_eq!(seen["uids"][0], rustix::process::getuid().as_raw());
    assert!(seen["limits"]["Max open files"].is_array(), "{seen:#}");
}

#[test]
fn the_busybox_image_can_be_made() {
    let listing =
        std::process::Command::new("tar").arg("-tf").arg(images::busybox()).output().unwrap().stdout;
    let listing = String::from_utf8(listing).unwrap();
    for name in ["./bin/busybox", "./bin/sh", "./probe", "./etc/passwd"] {
        assert!(listing.lines().any(|l| l == name), "{name} is missing in {listing}");
    }
}

for_root!(registries_serve, the_hostile_registry_can_behave);

/// What a sandbox's user runs is run with that user's ids and nothing else.
fn runs_as_its_user(sandbox: &Sandbox) {
    let account = &sandbox.account;
    let ids = sandbox.program("id").args(["-u"]).ok();
    assert_eq!(ids, account.uid.to_string());
    if sandbox.is_rootless() {
        let groups = sandbox.program("id").args(["-G"]).ok();
        assert_eq!(groups, account.gid.to_string());
    }
    sandbox.program("touch").arg("here").ok();
    assert!(sandbox.work.join("here").exists());
}

fn sees_a_terminal(sandbox: &Sandbox) {
    let mut terminal =
        Terminal::start(sandbox.program("sh").args(["-c", "stty size; read x; echo got $x"]), 33, 77);
    terminal.expect("33 77");
    terminal.write("word\n");
    terminal.expect("got word");
    assert_eq!(terminal.code(), 0);
}

fn notices_a_process_left_behind(sandbox: &Sandbox) {
    let running = sandbox.program("sleep").arg("1000").spawn_with(|_| ());
    let pid = running.child.id().to_string();
    let left = wait::until("the process to be noticed", || {
        let left = leftovers::find(&sandbox.dir, &Default::default());
        (!left.is_empty()).then_some(left)
    });
    assert!(leftovers::report(&left).contains(&pid), "{left:?}");
}

/// Every process of the machine has `/` in some path of its, and this one's own mount name space in common with us: none but
/// what we started may be taken for a leftover, since leftovers are killed.
#[test]
fn strangers_are_left_alone() {
    leftovers::adopt_orphans();
    let own = std::process::id() as i32;
    for left in leftovers::find(std::path::Path::new("/"), &Default::default()) {
        if let leftovers::Leftover::Process(pid, why) = left {
            let descends = || {
                let mut above = Some(pid);
                while let Some(pid) = above.filter(|pid| *pid != own) {
                    above = leftovers::parent(pid);
                }
                above == Some(own)
            };
            // One above it may end while we go up, and hand it to us.
            let is_ours = || (descends() || leftovers::parent(pid).is_none()).then_some(());
            assert!(pid != own && wait::within(wait::SOON, is_ours).is_some(), "{pid}: {why}");
        }
    }
}

mod without_image {
    use super::*;

    fn each(test: &str, body: fn(&Sandbox)) {
        for user in [User::Root, User::Ranges, User::Single] {
            if let Some(sandbox) = Sandbox::empty(user, test) {
                body(&sandbox);
            }
        }
    }

    #[test]
    fn runs_as_its_user() {
        each("runs_as_its_user", super::runs_as_its_user);
    }

    #[test]
    fn sees_a_terminal() {
        each("sees_a_terminal", super::sees_a_terminal);
    }

    #[test]
    fn notices_a_process_left_behind() {
        each("notices_a_process_left_behind", super::notices_a_process_left_behind);
    }
}

#[test]
fn a_failed_command_is_reported_whole() {
    let account = User::Root.account().or(User::Ranges.account()).or(User::Single.account()).unwrap();
    let cmd = Cmd::new("/bin/sh", &account, std::path::Path::new("/"))
        .args(["-c", "echo out; echo err >&2; exit 3"]);
    let report = cmd.output().exits(3).report();
    for part in ["cd / ", "/bin/sh", "status 3", "out\n", "err\n"] {
        assert!(report.contains(part), "{part:?} is missing in {report}");
    }
}

/// Every module of this binary is in use, and small enough to be read at once.
#[test]
fn files_stay_small() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("integration");
    for name in leftovers::names(&dir) {
        let path = dir.join(&name);
        if path.extension().is_some_and(|e| e == "rs") {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= 400, "{} has {lines} lines", path.display());
        }
    }
}

/// Each kind of registry takes an image from another tool and gives it back, and refuses who has no password or does not
/// know its authority.
fn registries_serve(s: &Sandbox) {
    needs!("docker-registry", "openssl", "htpasswd", "skopeo");
    s.dhow(["save", "--format", "oci-archive", "-o", "image.tar", "busybox"]).ok();
    let config = s.inspect("busybox", "{{.Id}}");
    for (tls, htpasswd) in
        [(false, None), (true, None), (false, Some(("me", "pass:word"))), (true, Some(("me", "pw")))]
    {
        let registry = Registry::start(Options { tls, htpasswd });
        let certs = if tls { registry.cert_dir() } else { s.subdir("none") };
        let image = format!("docker://{}", registry.name("a/b:v1"));
        let skopeo = |verb: &str, side: &str, login: bool| {
            let mut c = s.program("skopeo").args(["--insecure-policy", verb]);
            c = c
                .arg(format!("--{side}cert-dir={}", certs.display()))
                .arg(format!("--{side}tls-verify={tls}"));
            match htpasswd {
                Some((user, password)) if login => c.arg(format!("--{side}creds={user}:{password}")),
                _ => c,
            }
        };
        skopeo("copy", "dest-", true).args(["-q", "oci-archive:image.tar", &image]).ok();
        assert!(registry.storage_bytes() > 100_000);
        assert!(registry.blob_path(&config).exists(), "the configuration keeps its digest");
        skopeo("inspect", "", true).arg(&image).ok();
        let put = "PUT /v2/a/b/manifests/v1 201".to_owned();
        assert!(registry.requests().contains(&put), "{:?}", registry.requests());
        if htpasswd.is_some() {
            skopeo("inspect", "", false).arg(&image).output().expect("refused", |o| o.code != 0);
        }
        if tls {
            s.program("skopeo").args(["inspect", &image]).output().expect("refused", |o| o.code != 0);
        }
    }
}

/// The registry of our own is one, as another tool sees it: what is pushed there comes back, also when it was cut.
fn the_hostile_registry_can_behave(s: &Sandbox) {
    needs!("skopeo");
    let hostile = Hostile::start();
    let image = Image::small(1, 3, 100_000);
    hostile.put("a/b", "v1", &image);
    let copy = |from: &str, to: &str| {
        let flags = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
        s.program("skopeo").args(flags).args([from, to]).ok()
    };
    let at = |name: &str| format!("docker://{}", hostile.name(name));
    copy(&at("a/b:v1"), "oci:layout:v1");
    copy("oci:layout:v1", &at("c:v2"));
    let pushed = hostile.content().manifests[&("c".to_owned(), "v2".to_owned())].clone();
    assert_eq!(pushed.digest, image.manifest.digest);
    assert_eq!(hostile.sent(&image.layers[0]), image.layers[0].len());
    // skopeo goes on after a cut, by Range.
    hostile.forget();
    let layer = image.layers[2].clone();
    hostile.behave(move |r| if r.is_of(&layer) && r.nth == 0 { Deed::cut(50_000) } else { Deed::serve() });
    let again = s.program("skopeo").args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"]);
    again.args([&at("a/b:v1"), "oci:other:v1"]).output();
    let first = hostile.seen().into_iter().find(|seen| seen.request.is_of(&image.layers[2])).unwrap();
    assert_eq!(first.sent, 50_000);
}
