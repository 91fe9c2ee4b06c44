//! `login`, `logout`, `search`: against Debian's docker-registry with passwords; what is kept, where, and who sees it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::termios::LocalModes;

use crate::capability::needs;
use crate::command::Cmd;
use crate::leftovers;
use crate::registry_server::{Options, Registry};
use crate::sandbox::{NONE, Sandbox};
use crate::terminal::Terminal;
use crate::wait;

for_each_user!(
    a_password_is_checked_before_it_is_kept,
    what_is_kept_is_used,
    other_keys_and_a_symlink_stay,
    places,
    on_a_terminal,
    many_at_once,
    parts_of_a_registry,
    tls_of_a_private_authority,
    searching,
);
for_rootless!(no_home);
for_root!(other_engines_understand);

pub const PASSWORD: &str = "hunter2-of-the-test";

pub fn locked() -> Registry {
    Registry::start(Options { htpasswd: Some(("al", PASSWORD)), ..Options::default() })
}

pub fn login(s: &Sandbox, server: &str, password: &str) -> Cmd {
    s.dhow(["login", "-u", "al", "--password-stdin", server]).stdin(password)
}

fn config(s: &Sandbox) -> PathBuf {
    s.home.join(".docker/config.json")
}

#[track_caller]
fn private(path: &Path) {
    let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600, "{}: {mode:o}", path.display());
}

fn a_password_is_checked_before_it_is_kept(s: &Sandbox) {
    let registry = locked();
    let wrong = login(s, &registry.addr(), "wrong-secret").output().exits(1).complains("cannot log in to");
    let wrong =
        wrong.complains("al").expect("the password is not shown", |o| !o.report().contains("wrong-secret"));
    assert_eq!(wrong.text(), "");
    assert!(!config(s).exists());
    // Where nobody listens, too.
    login(s, "127.0.0.1:1", PASSWORD).output().exits(1).complains("127.0.0.1:1");
    assert!(!config(s).exists());
    let said = login(s, &registry.addr(), &format!("{PASSWORD}\r\n")).output().exits(0);
    assert_eq!(said.text(), "Login Succeeded");
    assert!(!said.report().contains(PASSWORD));
    private(&config(s));
    assert_eq!(s.dhow(["login", "--get-login", &registry.addr()]).ok(), "al");
    // Who is logged in need not say it again.
    assert_eq!(s.dhow(["login", &registry.addr()]).ok(), "Login Succeeded");
    let out = s.dhow(["logout", &registry.addr()]).ok();
    assert_eq!(out, format!("Removing login credentials for {}", registry.addr()));
    assert_eq!(s.dhow(["logout", &registry.addr()]).ok(), format!("Not logged in to {}", registry.addr()));
    s.dhow(["login", "--get-login", &registry.addr()]).output().exits(1).complains("not logged in");
    // What cannot be.
    for args in [
        &["login", "-u", "al", "-p", "", "127.0.0.1:1"][..],
        &["login", "-u", "a:l", "-p", "x", "127.0.0.1:1"],
        &["login", "--password-stdin", "127.0.0.1:1"],
        &["login", "127.0.0.1:1"],
        &["login", "-u", "al", "127.0.0.1:1"],
        &["login", "-u", "al", "-p", "x", "no-registry"],
        &["login", "-u", "al", "-p", "x", "127.0.0.1:1/a:tag"],
        &["logout", "not a registry"],
    ] {
        s.dhow(args).output().exits(1).complains("dhow: ");
    }
    let both = s.dhow(["login", "-u", "al", "-p", PASSWORD, "--password-stdin", "127.0.0.1:1"]).output();
    assert!(both.code != 0 && !both.error_text().contains(PASSWORD), "{}", both.report());
    // Docker's warning about -p.
    s.dhow(["login", "-u", "al", "-p", PASSWORD, &registry.addr()])
        .output()
        .exits(0)
        .complains("--password-stdin");
    assert_eq!(s.dhow(["logout", "--all"]).ok(), out);
}

fn what_is_kept_is_used(s: &Sandbox) {
    let registry = locked();
    let name = registry.name("a/b:v1");
    s.dhow(["tag", "busybox", &name]).ok();
    let refused = s.dhow(["push", &name]).output();
    assert!(refused.code != 0, "{}", refused.report());
    refused.complains(&format!("hint: if it is private: dhow login {}", registry.addr()));
    login(s, &registry.addr(), PASSWORD).ok();
    let pushed = s.dhow(["push", &name]).output().exits(0);
    s.dhow(["rmi", &name]).ok();
    let pulled = s.dhow(["pull", &name]).output().exits(0);
    for output in [pushed, pulled] {
        assert!(!output.report().contains(PASSWORD), "{}", output.report());
    }
    assert!(!s.dhow(["image", "inspect", &name]).ok().contains(PASSWORD));
    assert!(holds(&s.store, PASSWORD).is_none(), "the password is in the store");
    s.dhow(["logout", &registry.addr()]).ok();
    s.dhow(["pull", &name]).output().expect("it is refused again", |o| o.code != 0);
}

/// A file below `dir` that holds `text`.
fn holds(dir: &Path, text: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            if let Some(found) = holds(&path, text) {
                return Some(found);
            }
        } else if kind.is_file() && fs::read(&path).unwrap().windows(text.len()).any(|w| w == text.as_bytes())
        {
            return Some(path);
        }
    }
    None
}

fn other_keys_and_a_symlink_stay(s: &Sandbox) {
    let registry = locked();
    let before = "{\n\t\"psFormat\": \"x\",\n\t\"auths\": {\n\t\t\"b.example\": {\n\t\t\t\"auth\": \"YTpi\"\n\t\t}\n\t},\n\t\"HttpHeaders\": {\n\t\t\"A\": \"b\"\n\t}\n}\n";
    let real = s.file("dotfiles/config.json", before);
    let dir = s.home.join(".docker");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(s.account.uid), Some(s.account.gid)).unwrap();
    std::os::unix::fs::symlink(&real, config(s)).unwrap();
    std::os::unix::fs::chown(real.parent().unwrap(), Some(s.account.uid), Some(s.account.gid)).unwrap();
    login(s, &registry.addr(), PASSWORD).ok();
    assert!(fs::symlink_metadata(config(s)).unwrap().is_symlink());
    private(&real);
    let text = fs::read_to_string(&real).unwrap();
    let order =
        ["psFormat", "b.example", &registry.addr(), "HttpHeaders"].map(|key| text.find(key).expect(key));
    assert!(order.is_sorted(), "{text}");
    s.dhow(["logout", &registry.addr()]).ok();
    assert_eq!(fs::read_to_string(&real).unwrap(), before);
    // A file that is no JSON is named, quoted in nothing, and left as it is.
    let broken = format!("{{\"auths\": {PASSWORD}");
    fs::write(&real, &broken).unwrap();
    let said = login(s, &registry.addr(), PASSWORD).output().exits(1).complains("config.json");
    assert!(!said.report().contains(PASSWORD), "{}", said.report());
    assert_eq!(fs::read_to_string(&real).unwrap(), broken);
}

fn places(s: &Sandbox) {
    let registry = locked();
    let server = registry.addr();
    let at = |name: &str| s.work.join(name);
    let kept = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains(&server));
    let named = |cmd: Cmd| cmd.env("DOCKER_CONFIG", at("d")).env("REGISTRY_AUTH_FILE", at("r.json"));
    login(s, &server, PASSWORD).env("DOCKER_CONFIG", at("d")).ok();
    assert!(kept(&at("d/config.json")) && !config(s).exists());
    named(login(s, &server, PASSWORD)).ok();
    assert!(kept(&at("r.json")));
    named(login(s, &server, PASSWORD).args(["--authfile", "f.json"])).ok();
    assert!(kept(&at("f.json")));
    for file in ["d/config.json", "r.json", "f.json"] {
        private(&at(file));
    }
    // podman's own is read, after docker's, and never changed.
    let podman = s.runtime.join("containers");
    fs::create_dir(&podman).unwrap();
    fs::rename(at("f.json"), podman.join("auth.json")).unwrap();
    assert_eq!(s.dhow(["login", "--get-login", &server]).ok(), "al");
    s.dhow(["logout", &server]).output().exits(0).complains("other credentials");
    assert!(kept(&podman.join("auth.json")));
    // Only what was named is looked at.
    s.dhow(["login", "--get-login", &server]).env("REGISTRY_AUTH_FILE", at("empty")).output().exits(1);
    let named = s.dhow(["pull", "--authfile", "/nonexistent/x", &registry.name("a")]).output();
    assert!(named.code != 0 && named.error_text().contains("/nonexistent/x"), "{}", named.report());
}

fn on_a_terminal(s: &Sandbox) {
    let registry = locked();
    let mut terminal = Terminal::start(s.dhow(["login", &registry.addr()]), 24, 80);
    terminal.expect("Username: ");
    let echo = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    let before = terminal.settings().local_modes & echo;
    terminal.write("al\n");
    terminal.expect("Password: ");
    wait::until("a silent terminal", || (terminal.settings().local_modes & echo).is_empty().then_some(()));
    // With a slip of the finger.
    terminal.write(&format!("{PASSWORD}x\u{7f}\n"));
    let shown = terminal.expect("Login Succeeded");
    assert!(!shown.contains(PASSWORD) && !shown.contains("hunter"), "{shown:?}");
    assert_eq!(terminal.code(), 0);
    assert_eq!(terminal.settings().local_modes & echo, before);
    // Ctrl-C: nothing is kept, and the terminal shows again what is typed.
    s.dhow(["logout", &registry.addr()]).ok();
    let mut terminal = Terminal::start(s.dhow(["login", "-u", "al", &registry.addr()]), 24, 80);
    terminal.expect("Password: ");
    wait::until("a silent terminal", || (terminal.settings().local_modes & echo).is_empty().then_some(()));
    terminal.write("half\u{3}");
    assert_eq!(terminal.code(), 130);
    assert_eq!(terminal.settings().local_modes & echo, before);
    s.dhow(["login", "--get-login", &registry.addr()]).output().exits(1);
}

fn many_at_once(s: &Sandbox) {
    let registry = locked();
    let names: Vec<String> = (0..8).map(|n| registry.name(&format!("n{n}"))).collect();
    let password = s.file("password", PASSWORD);
    let running: Vec<_> = names
        .iter()
        .map(|name| {
            let cmd = s.dhow(["login", "-u", "al", "--password-stdin", name]).stdin_file(&password);
            cmd.spawn_with(|_| ())
        })
        .collect();
    running.into_iter().for_each(|mut r| assert_eq!(r.code(), 0, "{}", r.line));
    let text = fs::read_to_string(config(s)).unwrap();
    assert!(names.iter().all(|name| text.contains(&format!("\"{name}\""))), "{text}");
    assert_eq!(leftovers::names(&s.home.join(".docker")), ["config.json"]);
}

fn parts_of_a_registry(s: &Sandbox) {
    let registry = locked();
    let part = registry.name("mine");
    login(s, &part, PASSWORD).output().exits(0).complains("alone");
    for name in ["mine/x:v1", "other/x:v1"] {
        s.dhow(["tag", "busybox", &registry.name(name)]).ok();
    }
    s.dhow(["push", &registry.name("mine/x:v1")]).ok();
    s.dhow(["push", &registry.name("other/x:v1")]).output().expect("not with these", |o| o.code != 0);
    s.dhow(["logout", &registry.addr()]).ok();
    s.dhow(["push", &registry.name("mine/x:v1")]).ok();
    s.dhow(["logout", &part]).ok();
    s.dhow(["push", &registry.name("mine/x:v1")]).output().expect("not any more", |o| o.code != 0);
}

fn tls_of_a_private_authority(s: &Sandbox) {
    let registry = Registry::start(Options { tls: true, htpasswd: Some(("al", PASSWORD)) });
    let server = registry.addr();
    let refused = login(s, &server, PASSWORD).output().exits(1);
    assert!(!refused.report().contains(PASSWORD) && !config(s).exists(), "{}", refused.report());
    refused.expect("it is about the certificate", |o| o.error_text().to_lowercase().contains("certificate"));
    let certs = registry.cert_dir();
    login(s, &server, PASSWORD).arg("--cert-dir").arg(&certs).ok();
    s.dhow(["logout", &server]).ok();
    login(s, &server, PASSWORD).arg("--tls-verify=false").ok();
    s.dhow(["logout", &server]).ok();
    // In the user's own directory, under docker's name for it.
    let own = s.home.join(".config/containers/certs.d").join(&server);
    fs::create_dir_all(&own).unwrap();
    fs::copy(registry.ca_path(), own.join("ca.crt")).unwrap();
    fs::set_permissions(own.join("ca.crt"), fs::Permissions::from_mode(0o644)).unwrap();
    login(s, &server, PASSWORD).ok();
    let name = registry.name("x:v1");
    s.dhow(["tag", "busybox", &name]).ok();
    s.dhow(["push", &name]).ok();
    s.dhow(["pull", &name]).ok();
    // A certificate whose key is missing is named, and nothing goes on without it.
    fs::copy(registry.ca_path(), own.join("client.cert")).unwrap();
    s.dhow(["pull", &name]).output().complains("client.cert").expect("an error", |o| o.code != 0);
}

fn searching(s: &Sandbox) {
    let registry = locked();
    login(s, &registry.addr(), PASSWORD).ok();
    for name in ["team/web", "team/web-old", "db"] {
        let name = registry.name(&format!("{name}:v1"));
        s.dhow(["tag", "busybox", &name]).ok();
        s.dhow(["push", &name]).ok();
    }
    let format = ["--format", "{{.Name}}"];
    let found = s.dhow(["search", &registry.name("web")]).args(format).ok();
    assert_eq!(found, format!("{}\n{}", registry.name("team/web"), registry.name("team/web-old")));
    assert_eq!(s.dhow(["search", &registry.name("")]).args(format).ok().lines().count(), 3);
    assert_eq!(s.dhow(["search", "--limit", "1", &registry.addr()]).args(format).ok().lines().count(), 1);
    s.dhow(["search", "--limit", "101", &registry.addr()])
        .output()
        .complains("outside the range of [1, 100]")
        .exits(1);
    let table = s.dhow(["search", &registry.name("db")]).ok();
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
    assert_eq!(
        s.dhow(["search", "--filter", "is-official=true", &registry.name("db")]).args(format).ok(),
        ""
    );
    let tags = s.dhow(["search", "--list-tags", "--format", "{{.Name}} {{.Tag}}", &registry.name("db")]).ok();
    assert_eq!(tags, format!("{} v1", registry.name("db")));
    for args in [["--limit", "0"], ["--filter", "stars=many"], ["--filter", "color=red"]] {
        let out = s.dhow(["search"]).args(args).arg("x").output();
        assert!(out.code != 0, "{}", out.report());
    }
}

fn no_home(s: &Sandbox) {
    let registry = locked();
    // Both users of the harness have a home in /etc/passwd that does not exist: cron's case.
    let said = login(s, &registry.addr(), PASSWORD).env_remove("HOME").output();
    assert!(said.code != 0 && !said.report().contains(PASSWORD), "{}", said.report());
    said.complains("hint: ").complains("DOCKER_CONFIG");
    login(s, &registry.addr(), PASSWORD).env_remove("HOME").env("DOCKER_CONFIG", s.work.join("d")).ok();
    private(&s.work.join("d/config.json"));
    s.dhow(["logout", &registry.addr()])
        .args(NONE)
        .env_remove("HOME")
        .env("DOCKER_CONFIG", s.work.join("d"))
        .ok();
}

fn other_engines_understand(s: &Sandbox) {
    needs!("podman", "skopeo");
    let registry = locked();
    let server = registry.addr();
    let name = registry.name("x:v1");
    let file = s.work.join("auth.json");
    let file = file.to_str().unwrap();
    login(s, &server, PASSWORD).args(["--authfile", file]).ok();
    s.dhow(["tag", "busybox", &name]).ok();
    s.dhow(["push", "--authfile", file, &name]).ok();
    assert_eq!(s.program("podman").args(["login", "--authfile", file, "--get-login", &server]).ok(), "al");
    let source = format!("docker://{name}");
    s.program("skopeo").args(["inspect", "--tls-verify=false", "--authfile", file, &source]).ok();
    s.dhow(["logout", "--authfile", file, &server]).ok();
    // And what podman keeps, dhow finds.
    let podman = ["login", "--tls-verify=false", "--authfile", file, "-u", "al", "--password-stdin", &server];
    s.program("podman").args(podman).stdin(PASSWORD).ok();
    assert_eq!(s.dhow(["login", "--authfile", file, "--get-login", &server]).ok(), "al");
    s.dhow(["pull", "--authfile", file, &name]).ok();
    s.dhow(["logout", "--authfile", file, &server]).ok();
    let gone = s.program("podman").args(["login", "--authfile", file, "--get-login", &server]).output();
    assert!(gone.code != 0, "{}", gone.report());
}
