//! `dhow run`: what is mounted: binds, tmpfs, a read-only root, the throw-away layer.

use std::fs;

use serde_json::Value;

use crate::sandbox::{NONE, Sandbox};

for_each_user!(
    bind_read_write,
    bind_read_only,
    a_missing_source,
    mount_long_form,
    bind_of_a_file,
    bind_of_a_relative_path,
    bind_is_recursive_and_private,
    malformed_mounts,
    tmpfs,
    read_only_root,
    changes_do_not_reach_the_image,
    shm_size,
    a_target_through_a_link_stays_inside,
    an_inner_mount_does_not_reach_the_host,
);
for_root!(propagation);

fn mount_at<'a>(seen: &'a Value, at: &str) -> &'a Value {
    seen["mounts"].as_array().unwrap().iter().rfind(|m| m["at"] == at).unwrap_or(&Value::Null)
}

fn has_option(mount: &Value, option: &str) -> bool {
    mount["options"].as_str().unwrap_or_default().split(',').any(|o| o == option)
}

fn bind_read_write(s: &Sandbox) {
    let dir = s.subdir("share");
    s.file("share/in", "from outside\n");
    let flag = format!("{}:/made/by/dhow", dir.display());
    assert_eq!(
        s.sh(["-v", &flag], "cat /made/by/dhow/in; echo inside > /made/by/dhow/out").ok(),
        "from outside"
    );
    assert_eq!(fs::read_to_string(dir.join("out")).unwrap(), "inside\n");
}

fn bind_read_only(s: &Sandbox) {
    let dir = s.subdir("share");
    s.file("share/in", "x");
    let flag = format!("{}:/share:ro", dir.display());
    assert!(s.sh(["-v", &flag], "echo y > /share/in").fails(1).contains("Read-only file system"));
    s.sh(["-v", &flag], "mount -o remount,rw,bind /share").output().expect("no way back", |o| o.code != 0);
    assert_eq!(fs::read_to_string(dir.join("in")).unwrap(), "x");
    let long = format!("type=bind,source={},target=/share,readonly", dir.display());
    s.sh(["--mount", &long], "touch /share/new").fails(1);
}

fn a_missing_source(s: &Sandbox) {
    let missing = s.work.join("not/there");
    let flag = format!("{}:/share", missing.display());
    let long = format!("type=bind,src={},dst=/share", missing.display());
    s.sh(["--mount", &long], "true").output().exits(125).complains("not/there");
    assert!(!missing.exists());
    s.sh(["-v", &flag], "touch /share/made").ok();
    assert!(missing.join("made").exists(), "-v makes it");
}

fn mount_long_form(s: &Sandbox) {
    let dir = s.subdir("share");
    s.file("share/in", "x");
    let dir = dir.display();
    for flag in [
        format!("type=bind,source={dir},target=/s"),
        format!("type=bind,src={dir},destination=/s,readonly=true"),
        format!("source={dir},type=bind,dst=/s,bind-propagation=rprivate"),
        format!("type=bind,src={dir},dst=/s,ro"),
    ] {
        assert_eq!(s.sh(["--mount", &flag], "cat /s/in").ok(), "x", "{flag}");
    }
}

fn bind_of_a_file(s: &Sandbox) {
    let file = s.file("one", "first\n");
    let flag = format!("{}:/etc/one", file.display());
    assert_eq!(s.sh(["-v", &flag], "cat /etc/one; echo second > /etc/one").ok(), "first");
    assert_eq!(fs::read_to_string(file).unwrap(), "second\n");
}

fn bind_of_a_relative_path(s: &Sandbox) {
    s.file("here/in", "x");
    assert_eq!(
        s.sh(["-v", "./here:/s"], "cat /s/in").ok(),
        "x",
        "relative to the caller's directory, as docker's"
    );
}

fn bind_is_recursive_and_private(s: &Sandbox) {
    let dir = s.subdir("share");
    let seen = s.probe(["-v", &format!("{}:/share", dir.display())]);
    let propagation = mount_at(&seen, "/share")["propagation"].to_string();
    assert!(!propagation.contains("shared"), "{propagation}");
    assert!(!mount_at(&seen, "/")["propagation"].to_string().contains("shared"));
}

fn malformed_mounts(s: &Sandbox) {
    for flag in ["/tmp:relative", "/tmp:/x:nosuch", "/tmp:/x:ro:more", ":/x", "/tmp:", "/tmp:/"] {
        s.sh(["-v", flag], "true").output().exits(125);
    }
    for flag in [
        "type=nosuch,dst=/x",
        "type=bind,dst=/x",
        "type=bind,src=/tmp",
        "type=bind,src=/tmp,dst=x",
        "what=ever",
        "",
    ] {
        s.sh(["--mount", flag], "true").output().exits(125);
    }
    s.sh(["-v", "/tmp:/x", "-v", "/etc:/x"], "true").output().exits(125).complains("/x");
}

fn tmpfs(s: &Sandbox) {
    let seen = s.probe([
        "--tmpfs",
        "/scratch:size=1m,mode=700",
        "--mount",
        "type=tmpfs,dst=/other,tmpfs-size=65536",
    ]);
    let scratch = mount_at(&seen, "/scratch");
    assert_eq!(scratch["type"], "tmpfs", "{scratch}");
    assert!(scratch["super"].as_str().unwrap().contains("size=1024k"), "{scratch}");
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(has_option(scratch, option), "{scratch}");
    }
    assert!(mount_at(&seen, "/other")["super"].as_str().unwrap().contains("size=64k"), "{seen:#}");
    s.sh(["--tmpfs", "/t:size=64k"], "head -c 1000000 /dev/zero > /t/x").fails(1);
    let kept = s.sh(["--tmpfs", "/t:exec"], "cp /probe /t/p && /t/p >/dev/null && stat -c %a /t").ok();
    assert_eq!(kept, "1777");
}

fn read_only_root(s: &Sandbox) {
    assert!(s.sh(["--read-only"], "touch /x").fails(1).contains("Read-only file system"));
    s.sh(["--read-only", "--tmpfs", "/tmp"], "touch /tmp/x /dev/shm/y").ok();
    let dir = s.subdir("share");
    s.sh(["--read-only", "-v", &format!("{}:/new/place", dir.display())], "touch /new/place/x").ok();
}

fn changes_do_not_reach_the_image(s: &Sandbox) {
    s.sh(NONE, "rm -rf /etc/motd /bin/vi; echo x > /etc/passwd; touch /new; mv /home /house").ok();
    assert_eq!(
        s.sh(NONE, "cat /etc/motd; ls -d /bin/vi /home; test ! -e /new").ok(),
        "hello\n/bin/vi\n/home"
    );
}

fn shm_size(s: &Sandbox) {
    assert!(
        mount_at(&s.probe(NONE), "/dev/shm")["super"].as_str().unwrap().contains("size=65536k"),
        "64 MiB, as docker's"
    );
    let seen = s.probe(["--shm-size", "2m"]);
    assert!(mount_at(&seen, "/dev/shm")["super"].as_str().unwrap().contains("size=2048k"), "{seen:#}");
    s.sh(["--shm-size", "lots"], "true").output().exits(125).complains("lots");
}

fn a_target_through_a_link_stays_inside(s: &Sandbox) {
    // An image whose /data is an absolute link: the mount lands inside the image, never on the host.
    let script = "set -e; mkdir r && cd r && tar x && rm -rf data && ln -s /etc/hidden data && ln -s ../../../../../../tmp up \
                  && tar c .";
    let tar =
        s.program("sh").args(["-c", script]).stdin_file(crate::images::busybox()).output().exits(0).stdout;
    s.dhow(["import", "-", "linked"]).stdin(tar).ok();
    let dir = s.subdir("share");
    s.file("share/in", "x");
    let run = |target: &str, script: &str| {
        let flag = format!("{}:{target}", dir.display());
        s.dhow(["run", "--rm", "-v", &flag, "linked", "sh", "-c", script]).ok()
    };
    assert_eq!(run("/data", "cat /etc/hidden/in"), "x");
    assert_eq!(run("/up/sub", "cat /tmp/sub/in"), "x");
    assert_eq!(run("/../../../../../tmp/dots", "cat /tmp/dots/in"), "x");
    assert!(!std::path::Path::new("/etc/hidden").exists());
    assert!(!std::path::Path::new("/tmp/dots").exists());
}

fn an_inner_mount_does_not_reach_the_host(s: &Sandbox) {
    let dir = s.subdir("share");
    let script = "mkdir -p /share/m && mount -t tmpfs none /share/m && touch /share/m/hidden";
    s.sh(["--privileged", "-v", &format!("{}:/share", dir.display())], script).ok();
    assert!(!dir.join("m/hidden").exists());
}

fn propagation(s: &Sandbox) {
    // In a mount name space of our own, where the source is made shared first.
    let dir = s.subdir("share");
    s.subdir("share/sub");
    let at = dir.display();
    let dhow = crate::sandbox::dhow().display();
    let store = s.store.display();
    let script = format!(
        "set -e; mount --bind {at} {at}; mount --make-rshared {at}
         {dhow} --root {store} run --rm --privileged -v {at}:/s:rshared busybox mount -t tmpfs none /s/sub
         grep -c '{at}/sub ' /proc/self/mountinfo
         umount {at}/sub
         {dhow} --root {store} run --rm --privileged -v {at}:/s:rslave busybox mount -t tmpfs none /s/sub
         grep -c '{at}/sub ' /proc/self/mountinfo || true"
    );
    assert_eq!(s.program("unshare").args(["-m", "sh", "-c", &script]).ok(), "1\n0");
}
