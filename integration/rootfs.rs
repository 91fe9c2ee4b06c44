//! `--rootfs DIR`, `DIR:O` and `/:O`: containers without an image.

use std::fs;

use crate::capability::needs;
use crate::images;
use crate::sandbox::Sandbox;

for_each_user!(a_directory, a_throw_away_overlay, this_very_machine, what_is_no_directory);

fn unpack(s: &Sandbox) -> String {
    let dir = s.subdir("rootfs");
    s.program("tar")
        .args(["-x", "--no-same-owner", "-C", dir.to_str().unwrap()])
        .stdin_file(images::busybox())
        .ok();
    dir.to_str().unwrap().to_owned()
}

fn a_directory(s: &Sandbox) {
    let dir = unpack(s);
    let run = |script: &str| s.dhow(["run", "--rm", "--rootfs", &dir, "sh", "-c", script]).ok();
    assert_eq!(run("cat /etc/motd; id -u; echo changed > /made"), "hello\n0");
    assert_eq!(
        fs::read_to_string(format!("{dir}/made")).unwrap(),
        "changed\n",
        "the directory itself is the root"
    );
    let before: Vec<_> = crate::leftovers::names(std::path::Path::new(&dir));
    s.dhow(["run", "--rm", "--rootfs", "./rootfs", "true"]).ok();
    assert_eq!(crate::leftovers::names(std::path::Path::new(&dir)).len(), before.len(), "no litter in it");
}

fn a_throw_away_overlay(s: &Sandbox) {
    let dir = unpack(s);
    let root = format!("{dir}:O");
    let run = |script: &str| s.dhow(["run", "--rm", "--rootfs", &root, "sh", "-c", script]).ok();
    assert_eq!(run("echo x > /made; rm -r /home; mkdir /home; ls /home | wc -l"), "0");
    assert_eq!(run("test ! -e /made; cat /etc/motd"), "hello");
    assert!(!std::path::Path::new(&dir).join("made").exists());
    s.assert_nothing_left();
}

fn this_very_machine(s: &Sandbox) {
    let mark = format!("/usr/dhow-mark-{}", std::process::id());
    let script = "cat /etc/os-release | head -n 1; touch $0 2>/dev/null || touch /var/tmp/$$; test -x /usr/bin/env && echo ok";
    let out = s.dhow(["run", "--rm", "--rootfs", "/:O", "sh", "-c", script, &mark]).ok();
    assert!(out.ends_with("ok"), "{out}");
    assert!(!std::path::Path::new(&mark).exists());
    if s.user != crate::user::User::Single {
        needs!("python3");
        assert_eq!(s.dhow(["run", "--rm", "--rootfs", "/:O", "python3", "-c", "print(6*7)"]).ok(), "42");
    }
}

fn what_is_no_directory(s: &Sandbox) {
    for root in ["/no/such/dir", "/etc/passwd", "", "/no/such:O", "/tmp:X"] {
        s.dhow(["run", "--rm", "--rootfs", root, "true"]).output().exits(125);
    }
    let empty = s.subdir("empty");
    s.dhow(["run", "--rm", "--rootfs", empty.to_str().unwrap(), "sh"]).output().exits(127).complains("sh");
}
