//! Credential helpers: programs that keep the passwords in place of a file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::command::Cmd;
use crate::login::{PASSWORD, locked, login};
use crate::registry_server::{Options, Registry};
use crate::sandbox::Sandbox;

for_each_user!(a_helper_keeps_it, a_helper_sees_its_user, a_helper_that_is_missing);

/// A helper `docker-credential-fake` that keeps what it gets in files, and writes down how it was called; a PATH to it.
fn fake_helper(s: &Sandbox) -> String {
    let dir = s.subdir("bin");
    let kept = s.subdir("kept");
    let script = format!(
        r#"#!/bin/sh
cd {kept} || exit 1
echo "$0 $*" >> calls
tr '\0' ' ' < /proc/$PPID/cmdline >> calls
case $1 in
store) cat > input; url=$(sed 's/.*"ServerURL":"\([^"]*\)".*/\1/' input); mv input "$(echo "$url" | tr / _)";;
get) read -r url; file=$(echo "$url" | tr / _)
  test -f "$file" && cat "$file" || {{ echo "credentials not found in native keychain"; exit 1; }};;
erase) read -r url; rm -f "$(echo "$url" | tr / _)";;
list) printf '{{'; comma=; for f in *:*; do test -f "$f" || continue; printf '%s"%s":"al"' "$comma" "$f"; comma=,; done; echo '}}';;
esac
"#,
        kept = kept.display()
    );
    let path = dir.join("docker-credential-fake");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", dir.display())
}

fn a_helper_keeps_it(s: &Sandbox) {
    let registry = locked();
    let server = registry.addr();
    let path = fake_helper(s);
    for config in
        [r#"{"credsStore": "fake"}"#.to_owned(), format!(r#"{{"credHelpers": {{"{server}": "fake"}}}}"#)]
    {
        s.file("d/config.json", config);
        std::os::unix::fs::chown(s.work.join("d"), Some(s.account.uid), Some(s.account.gid)).unwrap();
        let with = |cmd: Cmd| cmd.env("DOCKER_CONFIG", s.work.join("d")).env("PATH", &path);
        with(login(s, &server, PASSWORD)).ok();
        let written = fs::read_to_string(s.work.join("d/config.json")).unwrap();
        assert!(!written.contains("auth\":") && written.contains(&server), "{written}");
        assert!(fs::read_to_string(s.work.join("kept").join(&server)).unwrap().contains(PASSWORD));
        assert_eq!(with(s.dhow(["login", "--get-login", &server])).ok(), "al");
        let name = registry.name("x:v1");
        with(s.dhow(["tag", "busybox", &name])).ok();
        with(s.dhow(["push", &name])).ok();
        with(s.dhow(["pull", &name])).ok();
        with(s.dhow(["logout", &server])).ok();
        assert!(!s.work.join("kept").join(&server).exists());
        with(s.dhow(["login", "--get-login", &server])).output().exits(1);
        with(login(s, &server, PASSWORD)).ok();
        assert!(with(s.dhow(["logout", "--all"])).ok().contains(&server));
        assert!(!s.work.join("kept").join(&server).exists());
        // Neither the helper's arguments nor ours had the password.
        let calls = fs::read_to_string(s.work.join("kept/calls")).unwrap();
        assert!(calls.contains("docker-credential-fake store") && !calls.contains(PASSWORD), "{calls}");
    }
}

/// A keyring knows its user by id: a helper has to run as who the user is, not as the root of a user name space.
fn a_helper_sees_its_user(s: &Sandbox) {
    let registry = locked();
    let dir = s.subdir("bin");
    let said = s.work.join("ids");
    let helper = dir.join("docker-credential-who");
    let answer = format!(r#"{{"ServerURL":"x","Username":"al","Secret":"{PASSWORD}"}}"#);
    fs::write(&helper, format!("#!/bin/sh\nid -u >> {}\necho '{answer}'\n", said.display())).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    s.file("config.json", r#"{"credsStore": "who"}"#);
    let path = format!("{}:/usr/bin:/bin", dir.display());
    let with = |cmd: Cmd| cmd.env("DOCKER_CONFIG", &s.work).env("PATH", &path);
    let (name, list) = (registry.name("x:v1"), registry.name("list:v1"));
    s.dhow(["tag", "busybox", &name]).ok();
    with(s.dhow(["push", &name])).ok();
    with(s.dhow(["manifest", "create", &list, &name])).ok();
    with(s.dhow(["manifest", "push", &list])).ok();
    s.dhow(["rmi", &name]).ok();
    with(s.dhow(["pull", &name])).ok();
    s.dhow(["rmi", &name]).ok();
    with(s.dhow(["run", "--rm", &name, "true"])).ok();
    let asked = fs::read_to_string(&said).unwrap();
    assert!(asked.lines().all(|id| id == s.account.uid.to_string()), "{asked}");
    // An image that is here needs nobody's password.
    with(s.dhow(["run", "--rm", &name, "true"])).ok();
    assert_eq!(fs::read_to_string(&said).unwrap(), asked);
    s.file("config.json", "{ no JSON");
    with(s.dhow(["run", "--rm", &name, "true"])).ok();
}

fn a_helper_that_is_missing(s: &Sandbox) {
    let (open, locked) = (Registry::start(Options::default()), locked());
    s.file("config.json", r#"{"credsStore": "no-such-helper"}"#);
    let with = |cmd: Cmd| cmd.env("DOCKER_CONFIG", &s.work);
    let name = open.name("x:v1");
    s.dhow(["tag", "busybox", &name]).ok();
    // What is public needs none.
    with(s.dhow(["push", &name])).ok();
    with(s.dhow(["pull", &name])).ok();
    let refused = with(s.dhow(["pull", &locked.name("x")])).output();
    assert!(refused.code != 0, "{}", refused.report());
    refused.complains("docker-credential-no-such-helper");
    // A password that cannot be kept where it should be is not kept anywhere else.
    let unkept = with(login(s, &locked.addr(), PASSWORD)).output().exits(1);
    assert!(!unkept.report().contains(PASSWORD), "{}", unkept.report());
    unkept.complains("docker-credential-no-such-helper").complains("hint: ");
    assert!(!fs::read_to_string(s.work.join("config.json")).unwrap().contains("auths"));
}
