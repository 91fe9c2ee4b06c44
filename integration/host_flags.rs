//! Flags about what a container has of the host's: cgroups, rules about devices, files of /etc, variables of the image.

use crate::capability::needs;
use crate::sandbox::Sandbox;
use crate::user::User;

for_each_user!(
    cgroup_name_spaces,
    no_cgroup,
    files_of_the_image,
    variables_are_filled_in,
    lines_of_passwd_and_group,
    tmpfs_on_a_read_only_root,
    platforms_in_parts,
    what_is_refused,
);
for_root!(a_parent_cgroup, rules_about_devices);

fn cgroup_name_spaces(s: &Sandbox) {
    let outside = std::fs::read_link("/proc/self/ns/cgroup").unwrap().display().to_string();
    let seen = |flags: &[&str]| s.sh(flags, "readlink /proc/self/ns/cgroup").ok();
    assert_ne!(seen(&[]), outside);
    assert_ne!(seen(&["--cgroupns", "private"]), outside);
    assert_eq!(seen(&["--cgroupns", "host"]), outside);
    s.dhow(["create", "--name", "c", "--cgroupns=host", "busybox", "true"]).ok();
    assert_eq!(s.inspect("c", "{{.HostConfig.CgroupnsMode}}"), "host");
}

fn no_cgroup(s: &Sandbox) {
    let mut flags = vec!["--name", "c", "--cgroups=disabled"];
    if s.user == User::Root {
        // Without a cgroup nothing would keep it from the machine's disks.
        let node = s.sh(["--cgroups=disabled"], "mknod /disk b 8 0").output().exits(125);
        node.complains("guards the machine's devices");
        flags.push("--privileged");
    }
    s.detached(flags, ["sleep", "1000"]);
    let pid = s.inspect("c", "{{.State.Pid}}");
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let id = s.inspect("c", "{{.Id}}");
    assert!(!own.contains(&id), "{own}");
    assert_eq!(s.dhow(["exec", "c", "echo", "in"]).ok(), "in");
    s.dhow(["stop", "-t", "0", "c"]).ok();
    let refused = s.sh(["--cgroups=disabled", "-m", "64m"], "true").output().exits(125);
    refused.complains("no cgroup");
}

fn a_parent_cgroup(s: &Sandbox) {
    needs!("cgroup");
    let parent = format!("/dhow-test-parent-{}", std::process::id());
    s.detached(["--name", "c", "--cgroup-parent", &parent], ["sleep", "1000"]);
    let pid = s.inspect("c", "{{.State.Pid}}");
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let place = format!("{parent}/{}", s.inspect("c", "{{.Id}}"));
    assert!(own.lines().any(|line| line.ends_with(&place)), "{own}");
    assert_eq!(s.inspect("c", "{{.HostConfig.CgroupParent}}"), parent);
    s.dhow(["rm", "-f", "c"]).ok();
    // The parent is the caller's, who may have limits on it.
    for dir in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        let _ = std::fs::remove_dir(dir.unwrap().path().join(&parent[1..]));
    }
    let _ = std::fs::remove_dir(format!("/sys/fs/cgroup{parent}"));
}

fn rules_about_devices(s: &Sandbox) {
    needs!("cgroup");
    // /dev/kmsg, which no container has.
    let script = "mknod /tmp/k c 1 11 && head -c 0 /tmp/k && : >>/tmp/k && echo open";
    s.sh(["--cap-add", "SYSLOG"], script).output().expect("guarded", |o| o.code != 0);
    let flags = ["--cap-add", "SYSLOG", "--device-cgroup-rule", "c 1:11 rwm"];
    assert_eq!(s.sh(flags, script).ok(), "open");
    s.dhow(["create", "--name", "c", "--device-cgroup-rule", "c 7:* r", "busybox"]).ok();
    assert_eq!(s.inspect("c", "{{.HostConfig.DeviceCgroupRules}}"), "[c 7:* r]");
}

fn files_of_the_image(s: &Sandbox) {
    let mounts = |flags: &[&str]| s.sh(flags, "grep -cE ' /etc/(hosts|hostname) ' /proc/mounts || true").ok();
    assert_eq!(mounts(&[]), "2");
    assert_eq!(mounts(&["--no-hosts"]), "1");
    assert_eq!(mounts(&["--no-hosts", "--no-hostname"]), "0");
    s.sh(["--no-hosts", "--add-host", "a:1.2.3.4"], "true").output().exits(125).complains("--no-hosts");
}

fn variables_are_filled_in(s: &Sandbox) {
    s.dhow(["create", "--name", "base", "busybox"]).ok();
    s.dhow(["commit", "-c", "ENV PATH=/bin:/sbin", "-c", "ENV GREETING=hello", "base", "withenv"]).ok();
    let flags = ["--env-merge", "PATH=${PATH}:/opt", "--env-merge", "X=$GREETING-x$NOSUCH"];
    let run = s.dhow(["run", "--rm"]).args(flags).args(["withenv", "sh", "-c", "echo $PATH $X"]);
    assert_eq!(run.ok(), "/bin:/sbin:/opt hello-x");
}

fn lines_of_passwd_and_group(s: &Sandbox) {
    let entry = "me:*:$UID:$GID:It is $USERNAME:/somewhere:/bin/ash";
    let flags = ["-u", "4321:4322", "--passwd-entry", entry, "--group-entry", "ours:x:$GID:"];
    let shown = s.sh(flags, "id -un; grep ^me: /etc/passwd; grep ^ours: /etc/group").ok();
    assert_eq!(shown, "me\nme:*:4321:4322:It is 4321:/somewhere:/bin/ash\nours:x:4322:");
    for wrong in [
        ["--passwd-entry", "x:y"],
        ["--group-entry", "x"],
        ["--passwd-entry", "a:b:c:d:e:f:g\nroot::0:0::/:"],
    ] {
        s.sh(wrong, "true").output().exits(125).complains(wrong[0]);
    }
}

fn tmpfs_on_a_read_only_root(s: &Sandbox) {
    let script = "for d in /run /tmp /var/tmp /etc; do touch $d/x 2>/dev/null && echo $d; done; true";
    assert_eq!(s.sh(["--read-only", "--read-only-tmpfs"], script).ok(), "/run\n/tmp\n/var/tmp");
    assert_eq!(s.sh(["--read-only"], script).ok(), "", "as docker has it");
    assert_eq!(s.sh(["--read-only", "--read-only-tmpfs=false"], script).ok(), "");
}

fn platforms_in_parts(s: &Sandbox) {
    s.sh(["--os", "linux", "--arch", std::env::consts::ARCH.replace("x86_64", "amd64").as_str()], "true")
        .ok();
    let both = s.sh(["--arch", "arm64", "--platform", "linux/arm64"], "true").output().exits(125);
    both.complains("--platform");
    s.sh(["--arch", "s390x", "--pull", "never"], "true").output().expect("another image", |o| o.code == 125);
}

fn what_is_refused(s: &Sandbox) {
    for flags in [
        ["--cgroupns", "x"],
        ["--cgroups", "split"],
        ["--cgroup-parent", "../x"],
        ["--device-cgroup-rule", "x"],
        ["--env-merge", "x"],
    ] {
        s.sh(flags, "true").output().exits(125).complains(flags[0]);
    }
    if s.user != User::Root {
        s.sh(["--device-cgroup-rule", "c 1:3 r"], "true").output().exits(125).complains("root");
    }
}
