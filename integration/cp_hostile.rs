//! `dhow cp` beside a container that means harm, and on bad days: deaths in the middle, two at once, a full disk.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::Signal;

use crate::sandbox::Sandbox;
use crate::wait;

for_each_user!(
    links_lead_nowhere_but_inside,
    swapping_paths_leads_nowhere,
    swapping_paths_while_they_are_read,
    what_is_no_file_is_never_opened,
    a_copy_that_is_killed_leaves_nothing,
    starts_wait_for_a_copy,
    two_at_once,
);
for_root!(a_full_disk, devices_stay_inside);

/// A container that runs a script and says when it is ready.
fn ready(s: &Sandbox, name: &str, script: &str) {
    let script = format!("{script}\ntouch /ready; sleep 1000");
    s.detached(["--name", name], ["sh", "-c", &script]);
    wait::until("the container", || {
        (s.dhow(["exec", name, "test", "-e", "/ready"]).output().code == 0).then_some(())
    });
}

/// A file of the host that no container may reach, by its path there.
fn secret(s: &Sandbox) -> String {
    s.file("host/secret", "of the host").display().to_string()
}

fn links_lead_nowhere_but_inside(s: &Sandbox) {
    let secret = secret(s);
    let host = s.work.join("host").display().to_string();
    let up = "../".repeat(30);
    ready(
        s,
        "c",
        &format!(
            "ln -s {secret} /abs; ln -s {up}{secret} /rel; ln -s {host} /dir; mkdir /d; ln -s {host} /d/out; ln -s {secret} /d/secret; ln -s /proc/1/root /proot; ln -s /proc/self/cwd /cwd"
        ),
    );
    s.dhow(["create", "--name", "stopped", "busybox"]).ok();
    // The same links in one that does not run.
    s.file("links/x", "");
    symlink(&secret, s.work.join("links/abs")).unwrap();
    symlink(&host, s.work.join("links/dir")).unwrap();
    s.dhow(["cp", "links/.", "stopped:/"]).ok();
    s.file("mine", "mine");
    for name in ["c", "stopped"] {
        for path in ["/abs", "/rel", "/dir/secret", "/dir/", "/proot/etc/../..", "/cwd/x"] {
            let out = s.dhow(["cp", "-L", &format!("{name}:{path}"), "stolen"]).output();
            assert!(!s.work.join("stolen").is_file(), "{name}:{path}: {}", out.report());
            let _ = fs::remove_dir_all(s.work.join("stolen"));
        }
        for path in ["/abs", "/dir/new", "/dir/", "/dir"] {
            s.dhow(["cp", "mine", &format!("{name}:{path}")]).output();
        }
        assert_eq!(fs::read_to_string(&secret).unwrap(), "of the host");
        assert_eq!(fs::read_dir(&host).unwrap().count(), 1, "{name}: nothing new on the host");
    }
    // Links that come out are links, and nothing goes through them.
    s.dhow(["cp", "c:/d", "out"]).ok();
    assert!(fs::symlink_metadata(s.work.join("out/out")).unwrap().is_symlink());
    s.dhow(["exec", "c", "sh", "-c", "rm -r /d; mkdir -p /d/out; echo no > /d/secret; echo no > /d/out/new"])
        .ok();
    s.dhow(["cp", "c:/d/.", "out"]).output().exits(1).complains("cannot take the place");
    assert_eq!(fs::read_dir(&host).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "of the host");
}

/// A program in the container turns a directory into a link and back as fast as it can.
fn swapping_paths_leads_nowhere(s: &Sandbox) {
    let secret = secret(s);
    let host = s.work.join("host").display().to_string();
    let script = format!(
        "mkdir /real; ln -s {host} /link; (while true; do mv -T /real /at; mv -T /at /real; mv -T /link /at; mv -T /at /link; done) &"
    );
    ready(s, "c", &script);
    s.file("in/secret", "overwritten");
    s.file("in/new", "new");
    s.file("in/sub/new", "new");
    for _ in 0..40 {
        s.dhow(["cp", "-q", "in/.", "c:/at"]).output();
        s.dhow(["cp", "-q", "in/new", "c:/at/new"]).output();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "of the host");
        assert_eq!(fs::read_dir(&host).unwrap().count(), 1, "nothing was written outside");
    }
}

fn swapping_paths_while_they_are_read(s: &Sandbox) {
    let secret = secret(s);
    let host = s.work.join("host").display().to_string();
    let script = format!(
        "mkdir -p /t/d /t/e; echo inside > /t/d/secret; ln -s {host} /t/link; ln -s {secret} /t/e/l; echo inside > /t/e/f;
         (while true; do mv -T /t/d /t/x; mv -T /t/link /t/d; mv -T /t/d /t/link; mv -T /t/x /t/d; mv /t/e/f /t/e/g; mv /t/e/l /t/e/f; mv /t/e/f /t/e/l; mv /t/e/g /t/e/f; done) &"
    );
    ready(s, "c", &script);
    for n in 0..40 {
        let to = format!("out{n}");
        s.dhow(["cp", "-q", "c:/t", &to]).output();
        s.dhow(["cp", "-q", "-L", "c:/t/d/secret", &format!("{to}-secret")]).output();
        for path in ["d/secret", "x/secret", "e/f", "e/g", "e/l"] {
            let path = s.work.join(&to).join(path);
            let is_file = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file());
            // A link is what it was; what is behind it may be the secret, and stayed there.
            let through_link = fs::canonicalize(&path).is_ok_and(|p| p.starts_with(&host));
            if is_file && !through_link {
                assert_eq!(fs::read_to_string(&path).unwrap(), "inside\n", "{}", path.display());
            }
        }
        if let Ok(text) = fs::read_to_string(s.work.join(format!("{to}-secret"))) {
            assert_eq!(text, "inside\n");
        }
    }
    assert_eq!(fs::read_dir(&host).unwrap().count(), 1);
}

fn what_is_no_file_is_never_opened(s: &Sandbox) {
    ready(s, "c", "mkdir /d; mkfifo /d/fifo; echo x > /d/x");
    // Opening a FIFO that nobody writes to would hang.
    s.dhow(["cp", "c:/d", "out"]).ok();
    assert_eq!(fs::read_to_string(s.work.join("out/x")).unwrap(), "x\n");
    s.file("f", "f");
    s.dhow(["cp", "f", "c:/d/fifo"]).output().exits(1).complains("no file");
    s.dhow(["cp", "f", "c:/dev/null"]).output().exits(1).complains("device");
    s.dhow(["cp", "c:/d", "-"]).output().exits(0);
}

fn a_copy_that_is_killed_leaves_nothing(s: &Sandbox) {
    s.dhow(["create", "--name", "c", "busybox", "true"]).ok();
    let mut copy = s.dhow(["cp", "-", "c:/tmp"]).spawn_with(|command| {
        command.stdin(std::process::Stdio::piped());
    });
    // It has the root mounted when it holds the lock of its files.
    let id = s.inspect("c", "{{.Id}}");
    wait::until("the copy to begin", || {
        s.store.join("containers").join(&id).join("files.lock").exists().then_some(())
    });
    copy.signal(Signal::KILL);
    copy.code();
    s.file("f", "f");
    s.dhow(["cp", "f", "c:/tmp/f"]).ok();
    assert_eq!(s.dhow(["start", "-a", "c"]).output().exits(0).code, 0);
    s.dhow(["rm", "c"]).ok();
    s.assert_nothing_left();
}

fn starts_wait_for_a_copy(s: &Sandbox) {
    s.dhow(["create", "--name", "c", "busybox", "cat", "/tmp/t"]).ok();
    let mut copy = s.dhow(["cp", "-", "c:/tmp"]).spawn_with(|command| {
        command.stdin(std::process::Stdio::piped());
    });
    let id = s.inspect("c", "{{.Id}}");
    wait::until("the copy to begin", || {
        s.store.join("containers").join(&id).join("files.lock").exists().then_some(())
    });
    assert_eq!(s.inspect("c", "{{.State.Status}}"), "created");
    let mut start = s.dhow(["start", "-a", "c"]).spawn_with(|command| {
        command.stdout(std::process::Stdio::piped());
    });
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o644);
    let mut builder = tar::Builder::new(copy.child.stdin.take().unwrap());
    builder.append_data(&mut header, "t", &b"text"[..]).unwrap();
    drop(builder.into_inner().unwrap());
    assert_eq!(copy.code(), 0);
    let mut text = String::new();
    std::io::Read::read_to_string(start.child.stdout.as_mut().unwrap(), &mut text).unwrap();
    assert_eq!((start.code(), text.as_str()), (0, "text"));
}

fn two_at_once(s: &Sandbox) {
    s.dhow(["create", "--name", "c", "busybox", "ls", "/tmp/many"]).ok();
    for n in 0..50 {
        s.file(&format!("many/{n}"), "x");
    }
    let mut copies: Vec<_> = (0..6)
        .map(|n| match n % 2 {
            0 => s.dhow(["cp", "-q", "many", "c:/tmp"]),
            _ => s.dhow(["cp", "-q", "c:/bin", &format!("bin{n}")]),
        })
        .map(|command| command.spawn_with(|_| ()))
        .collect();
    for copy in &mut copies {
        assert_eq!(copy.code(), 0);
    }
    assert!(s.dhow(["start", "-a", "c"]).ok().lines().count() >= 50);
}

fn a_full_disk(s: &Sandbox) {
    s.file("big", vec![1; 8 << 20]);
    s.detached(["--name", "c", "--tmpfs", "/small:size=4m"], ["sleep", "1000"]);
    s.file("small", "before");
    s.dhow(["cp", "small", "c:/small/big"]).ok();
    s.dhow(["cp", "big", "c:/small/big"]).output().exits(1).complains("No space left on device");
    assert_eq!(s.dhow(["exec", "c", "cat", "/small/big"]).ok(), "before", "the old one stays");
    assert_eq!(s.dhow(["exec", "c", "ls", "-A", "/small"]).ok(), "big", "no part of the new one does");
}

fn devices_stay_inside(s: &Sandbox) {
    ready(s, "c", "mkdir /d; mknod /d/sda b 8 0; mknod /d/null c 1 3; echo x > /d/x");
    let out = s.dhow(["cp", "-q", "c:/d", "out"]).output().exits(0).complains("left out");
    assert!(out.error_text().contains("sda"));
    assert_eq!(fs::read_dir(s.work.join("out")).unwrap().count(), 1);
    // An archive may hold them: whoever unpacks it decides.
    let out = s.dhow(["cp", "c:/d", "-"]).output().exits(0);
    let mut archive = tar::Archive::new(&out.stdout[..]);
    let kinds: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().header().entry_type()).collect();
    assert!(kinds.contains(&tar::EntryType::Block) && kinds.contains(&tar::EntryType::Char));
}
