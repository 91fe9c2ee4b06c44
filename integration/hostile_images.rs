//! Images whose files mean harm, or are merely odd: what dhow mounts, makes and reads in a container stays in it, and ends.

use crate::archive::{Kind, Tar};
use crate::images;
use crate::sandbox::Sandbox;

for_each_user!(
    links_where_files_of_ours_go,
    links_that_dangle,
    proc_is_no_link,
    a_passwd_that_is_no_file,
    a_config_too_large_for_a_message,
    files_of_ours_whatever_the_umask,
);
for_root!(full_disk_costs_neither_container_nor_exit_code);

/// An image of busybox and this.
fn image(s: &Sandbox, tar: Tar) {
    let busybox = std::fs::read(images::busybox()).unwrap();
    // Without the etc of the test image: what is in `tar` is all there is.
    let dir = s.subdir("unpacked");
    let base = s.file("base.tar", busybox);
    let unpacked =
        s.program("tar").args(["x", "-C"]).arg(&dir).arg("-f").arg(&base).arg("--wildcards").arg("*bin*");
    unpacked.output();
    let packed = s.program("tar").args(["c", "-C"]).arg(&dir).arg(".").output().exits(0).stdout;
    // Two archives in one: the end of the first is taken off.
    let end = packed.iter().rposition(|b| *b != 0).map_or(0, |n| (n + 1).next_multiple_of(512));
    let both = [&packed[..end], &tar.end()].concat();
    s.dhow(["import", "-", "hostile"]).stdin(both).ok();
}

fn run(s: &Sandbox, script: &str) -> crate::command::Output {
    s.dhow(["run", "--rm", "--network", "none", "hostile", "/bin/sh", "-c", script]).output()
}

/// It cannot be run, in one line that says why.
#[track_caller]
fn refused(s: &Sandbox, about: &str) {
    let out = run(s, "echo ran").exits(125);
    let text = out.error_text();
    assert!(text.lines().count() <= 2 && text.contains(about), "{}", out.report());
    s.assert_nothing_left();
}

fn links_where_files_of_ours_go(s: &Sandbox) {
    let victim = s.file("victim/hosts", "untouched");
    let up = format!("/../../../..{}", s.work.join("victim").display());
    for etc in [up.clone(), up[1..].to_owned()] {
        image(s, Tar::default().symlink("etc", &etc));
        let out = run(s, "cat /etc/hostname").exits(0);
        assert!(!out.stdout.is_empty(), "{}", out.report());
        assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
        assert_eq!(crate::leftovers::names(&s.work.join("victim")).len(), 1, "nothing was made outside");
    }
    for to in ["/proc/1/root/etc/hosts", "/proc/self/exe", "/proc/self/cwd/hosts", "hosts"] {
        image(s, Tar::default().dir("etc").symlink("etc/hosts", to));
        refused(s, "/etc/hosts");
    }
    for to in ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"] {
        image(s, Tar::default().dir("etc").symlink("etc/hosts", to));
        refused(s, "/etc/hosts");
    }
    image(s, Tar::default().dir("etc").dir("etc/hosts"));
    refused(s, "is a directory");
}

fn links_that_dangle(s: &Sandbox) {
    // As distributions have it whose resolver writes the file once it runs.
    let tar = Tar::default()
        .dir("etc")
        .symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
        .symlink("etc/hosts", "/a/./b/hosts")
        .symlink("dev", "devices/of/mine");
    image(s, tar);
    let out = run(s, "cat /etc/hosts && test -e /run/systemd/resolve/stub-resolv.conf && echo x > /dev/null")
        .exits(0);
    assert!(out.text().contains("localhost"), "{}", out.report());
}

fn proc_is_no_link(s: &Sandbox) {
    for (name, to) in [("proc", "/tmp"), ("proc", "dangling"), ("sys", "/proc"), ("proc", "/")] {
        image(s, Tar::default().dir("tmp").symlink(name, to));
        refused(s, "symlink");
    }
    image(s, Tar::default().file("proc", ""));
    refused(s, "/proc");
    image(s, Tar::default().file("dev", ""));
    refused(s, "/dev");
    // The null device that masks is ours, whatever the image has there.
    let tar =
        Tar::default().dir("dev").symlink("dev/null", "/etc/passwd").dir("etc").file("etc/passwd", "secret");
    image(s, tar);
    let out = run(s, "cat /proc/kcore /proc/keys /proc/timer_list; stat -c %F /dev/null");
    assert_eq!(out.text(), "character special file", "{}", out.report());
}

fn a_passwd_that_is_no_file(s: &Sandbox) {
    let huge = "a:x:1:1::/:/bin/sh\n".repeat(500_000);
    let cases: Vec<(&str, Tar)> = vec![
        (
            "fifo",
            Tar::default().dir("etc").entry(Kind::Fifo, "etc/passwd", "", "").entry(
                Kind::Fifo,
                "etc/group",
                "",
                "",
            ),
        ),
        (
            "endless",
            Tar::default().dir("etc").symlink("etc/passwd", "/dev/zero").symlink("etc/group", "/dev/zero"),
        ),
        ("directory", Tar::default().dir("etc").dir("etc/passwd")),
        ("loop", Tar::default().dir("etc").symlink("etc/passwd", "passwd")),
        ("huge", Tar::default().dir("etc").file("etc/passwd", huge)),
        ("odd", Tar::default().dir("etc").file("etc/passwd", b"\xff\0:::\n:::::::\nx:y:99999999999:-1:::\n")),
    ];
    for (about, tar) in cases {
        image(s, tar);
        let out = run(s, "echo ran");
        assert!(out.code == 0 && out.text() == "ran", "{about}: {}", out.report());
        let out = s.dhow(["run", "--rm", "-u", "nobody-knows", "hostile", "/bin/true"]).output().exits(125);
        assert!(out.error_text().contains("nobody-knows"), "{about}: {}", out.report());
    }
}

fn a_config_too_large_for_a_message(s: &Sandbox) {
    // The error about it goes from process to process in one packet.
    let long = "x".repeat(120_000);
    let out = s.dhow(["run", "--rm", "busybox", &long]).output();
    assert!([126, 127].contains(&out.code), "{}", out.report());
    assert!(out.error_text().contains("cannot run") && out.stderr.len() < 20_000, "{}", out.report());
}

fn files_of_ours_whatever_the_umask(s: &Sandbox) {
    let user: &[&str] = if s.user == crate::user::User::Single { &[] } else { &["-u", "app"] };
    for umask in ["000", "077"] {
        let script = format!("umask {umask}; exec \"$@\"");
        let modes =
            "stat -c %a / /etc/hosts /etc/resolv.conf /etc/hostname; umask; cat /etc/hosts >/dev/null";
        let run = s.dhow(["run", "--rm"]).args(user).args(["busybox", "sh", "-c", modes]);
        let out = run.under(&["sh", "-c", &script, "sh"]).output().exits(0);
        assert_eq!(out.text(), "755\n644\n644\n644\n0022", "umask {umask}: {}", out.report());
    }
}

fn full_disk_costs_neither_container_nor_exit_code(s: &Sandbox) {
    crate::capability::needs!("mkfs.ext4");
    let (disk, dhow, tar) =
        (s.work.join("disk"), crate::sandbox::dhow().display(), images::busybox().display());
    let disk = disk.display();
    let script = format!(
        "set -e; truncate -s 24M {disk}; mkfs.ext4 -q -m 0 {disk}; mkdir -p at; mount -o loop {disk} at
         d='{dhow} --root at/store'
         $d import {tar} small >/dev/null
         loop='while [ ! -e /tmp/stop ]; do echo a line of the log; done; exit 7'
         $d run -d --name loud --tmpfs /tmp small sh -c \"$loop\" >/dev/null
         $d run -d --name quiet small sh -c 'while [ ! -e /stop ]; do sleep 0.01; done; exit 9' >/dev/null
         touch at/fill; cp {tar} at/x; while cat at/x >> at/fill 2>/dev/null; do :; done
         for size in 4096 1; do dd if=/dev/zero of=at/fill$size bs=$size count=100000 2>/dev/null || true; done
         if $d run --rm small true 2>said; then echo 1; else grep -c 'No space left' said; fi
         $d exec quiet touch /stop 2>/dev/null || $d kill quiet >/dev/null
         $d wait quiet
         $d inspect --format '{{{{.State.ExitCode}}}}' quiet
         $d ps -q | wc -l
         rm at/fill*; $d exec loud touch /tmp/stop || true; $d wait loud
         $d logs loud 2>&1 >/dev/null | grep -c 'is missing here' >/dev/null && echo told
         $d rm loud quiet >/dev/null; umount at"
    );
    let out = s.program("unshare").args(["-m", "sh", "-c", &script]).output().exits(0);
    let text = out.text();
    let lines: Vec<&str> = text.lines().collect();
    let codes = &["9", "137"];
    assert!(
        lines.len() == 6 && lines[0] == "1" && codes.contains(&lines[1]) && lines[1] == lines[2],
        "{}",
        out.report()
    );
    assert_eq!(lines[3..], ["1", "7", "told"], "{}", out.report());
}
