//! What is particular to a user: a poor environment, no newuidmap, another user's store.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::capability::needs;
use crate::sandbox::{self, NONE, Sandbox};
use crate::user::User;

for_rootless!(
    without_runtime_dir,
    without_home,
    with_a_relative_home,
    with_an_empty_environment,
    from_su,
    default_places,
    newuidmap_is_not_there,
    another_user_cannot_read_the_store,
    chown_and_friends,
    sessions_see_the_same_containers,
    in_a_directory_of_others,
);
for_users_with_many_ids!(many_owners);

fn works(cmd: crate::command::Cmd) {
    let out =
        cmd.args(["run", "--rm", "busybox", "sh", "-c", "id -u; touch /x; echo fine"]).output().exits(0);
    assert_eq!(out.text(), "0\nfine", "{}", out.report());
}

fn without_runtime_dir(s: &Sandbox) {
    works(s.dhow(NONE).env_remove("XDG_RUNTIME_DIR"));
    works(s.dhow(NONE).env_remove("XDG_RUNTIME_DIR").env("XDG_RUNTIME_DIR", "/no/such/dir"));
    works(s.dhow(NONE).env_remove("XDG_RUNTIME_DIR").env("XDG_RUNTIME_DIR", "/root"));
}

fn without_home(s: &Sandbox) {
    works(s.dhow(NONE).env_remove("HOME"));
    works(s.dhow(NONE).env_remove("HOME").env("HOME", ""));
    works(s.dhow(NONE).env_remove("HOME").env("HOME", "/no/such/home"));
}

fn with_a_relative_home(s: &Sandbox) {
    works(s.dhow(NONE).env_remove("HOME").env("HOME", "relative"));
    assert!(!s.work.join("relative").exists());
}

fn with_an_empty_environment(s: &Sandbox) {
    works(
        s.dhow(NONE).env_remove("HOME").env_remove("XDG_RUNTIME_DIR").env_remove("PATH").env_remove("LANG"),
    );
}

fn from_su(s: &Sandbox) {
    needs!("root", "su");
    // As cron does it too: a shell of that user, no session, no XDG_RUNTIME_DIR.
    let line = format!(
        "cd / && {} --root {} run --rm busybox sh -c 'id -u; echo fine'",
        sandbox::dhow().display(),
        s.store.display()
    );
    let out = std::process::Command::new("su")
        .args(["-s", "/bin/sh", "-c", &line, &s.account.name])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.ends_with("0\nfine\n"), "{text}{}", String::from_utf8_lossy(&out.stderr));
}

fn default_places(s: &Sandbox) {
    let import = s.program(sandbox::dhow()).args(["import", "-", "here"]);
    import.stdin_file(crate::images::busybox()).ok();
    let store = s.home.join(".local/share/dhow");
    assert!(store.is_dir());
    assert_eq!(fs::metadata(&store).unwrap().uid(), s.account.uid);
    s.program(sandbox::dhow()).args(["run", "--rm", "here", "true"]).ok();
    let elsewhere = s.subdir("data-home");
    let images = |cmd: crate::command::Cmd| cmd.args(["images", "-q"]).ok();
    let plain = || s.program(sandbox::dhow());
    assert_eq!(images(plain().env("XDG_DATA_HOME", &elsewhere)), "");
    assert_ne!(images(plain().env("DHOW_ROOT", &store)), "");
    assert_ne!(images(plain().env("DHOW_ROOT", &s.store).arg("--root").arg(&store)), "", "the flag wins");
    s.program(sandbox::dhow()).args(["rmi", "here"]).ok();
}

fn newuidmap_is_not_there(s: &Sandbox) {
    needs!("root");
    // Hidden in a mount name space of the test's own: the user has ranges and cannot use them.
    let store = s.work.join("store2");
    let tar = s.file("busybox.tar", fs::read(crate::images::busybox()).unwrap());
    let (uid, gid) = (s.account.uid, s.account.gid);
    let script = format!(
        "for tool in newuidmap newgidmap; do [ ! -e /usr/bin/$tool ] || mount --bind /dev/null /usr/bin/$tool; done
         user() {{ setpriv --reuid={uid} --regid={gid} --clear-groups env -i HOME={home} PATH=$PATH {dhow} --root {store} \"$@\"; }}
         set -e; user import {tar} busybox >/dev/null
         user run --rm busybox cat /proc/self/uid_map
         user run --rm busybox sh -c 'touch /x; chown 33:33 /x && echo owned'",
        home = s.home.display(),
        dhow = sandbox::dhow().display(),
        store = store.display(),
        tar = tar.display(),
    );
    let root = User::Root.account().unwrap();
    let out = crate::command::Cmd::new("unshare", &root, &s.work)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["-m", "sh", "-c", &script])
        .ok();
    let lines: Vec<Vec<&str>> = out.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines, [vec!["0", &uid.to_string(), "1"], vec!["owned"]], "one id, and owners all the same");
}

fn another_user_cannot_read_the_store(s: &Sandbox) {
    needs!("root");
    let mode = fs::metadata(&s.store).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o077, 0, "the store has mode {mode:o}");
    let other = if s.user == User::Ranges { User::Single } else { User::Ranges };
    let Some(other) = Sandbox::empty(other, "other") else { return };
    other.program("ls").arg(&s.store).output().expect("it cannot be listed", |o| o.code != 0);
    other.program("cat").arg(s.store.join("images")).output().expect("nor read", |o| o.code != 0);
    let out = other.program(sandbox::dhow()).arg("--root").arg(&s.store).args(["images"]).output();
    assert!(out.code != 0 && out.error_text().contains(s.store.to_str().unwrap()), "{}", out.report());
}

fn chown_and_friends(s: &Sandbox) {
    // With one id these are emulated: no program fails for want of another id, and what is not about owners is as it was set.
    let script = "set -e; touch /f /g; chown 1000:1000 /f; chmod 4755 /f; stat -c %a /f; mkdir /d; chown -R 33:33 /d; mv /f /h; \
                  cp -p /h /i; chown 0:0 /h; ln /i /j; rm /i; ls -ln /j | cut -d' ' -f1; mkfifo /p; test -p /p; chgrp 5 /j";
    assert_eq!(s.sh(NONE, script).ok(), "4755\n-rwsr-xr-x");
    if s.user == User::Ranges {
        let seen = s.sh(NONE, "touch /f; chown 1000:33 /f; mv /f /h; cp -p /h /i; stat -c %u:%g /i").ok();
        assert_eq!(seen, "1000:33");
    } else {
        s.sh(NONE, "mknod /n c 1 3").ok();
    }
}

fn sessions_see_the_same_containers(s: &Sandbox) {
    // Started under one XDG_RUNTIME_DIR (a desktop), seen under none (cron), stopped under another (ssh).
    let id = s.detached(["--name", "c1"], ["sleep", "1000"]);
    assert_eq!(s.dhow(["ps", "-q"]).env_remove("XDG_RUNTIME_DIR").ok(), id[..12]);
    s.dhow(["exec", "c1", "true"]).env_remove("XDG_RUNTIME_DIR").env_remove("HOME").ok();
    let other = s.subdir("other-run");
    s.dhow(["rm", "-f", "c1"]).env_remove("XDG_RUNTIME_DIR").env("XDG_RUNTIME_DIR", other).ok();
    s.assert_nothing_left();
}

fn in_a_directory_of_others(s: &Sandbox) {
    works(s.dhow(NONE).dir("/"));
    if Path::new("/root").exists() && rustix::process::geteuid().is_root() {
        works(s.dhow(NONE).under(&["sh", "-c", "cd /proc && exec \"$@\"", "sh"]));
    }
}

fn many_owners(s: &Sandbox) {
    let script = "touch /f; chown 1000:1000 /f; su app -c 'touch /home/app/x 2>&1; id -u; test -O /f && echo mine'; \
                  chown 65000:65000 /f && stat -c %u /f";
    let seen = s.sh(NONE, script).ok();
    assert!(seen.ends_with("1000\nmine\n65000"), "{seen}");
}
