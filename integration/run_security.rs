//! `dhow run`: what a container may do: capabilities, seccomp, masks, devices.

use serde_json::Value;

use crate::sandbox::{NONE, Sandbox};

for_each_user!(
    default_capabilities,
    capabilities_added_and_dropped,
    privileged,
    no_new_privileges,
    default_seccomp_profile,
    seccomp_unconfined,
    seccomp_profile_file,
    security_options_are_checked,
    masked_paths,
    read_only_paths,
    devices_in_dev,
    added_devices,
    sysctls,
    own_namespaces,
    the_kernel_is_not_reachable,
);

/// docker's fourteen.
const DEFAULT: u64 = 0x0000_0000_a804_25fb;

fn caps(seen: &Value, set: &str) -> u64 {
    u64::from_str_radix(seen["caps"][set].as_str().unwrap(), 16).unwrap()
}

fn default_capabilities(s: &Sandbox) {
    let seen = s.probe(NONE);
    for set in ["permitted", "effective", "bounding"] {
        assert_eq!(caps(&seen, set), DEFAULT, "{set}");
    }
    for set in ["inheritable", "ambient"] {
        assert_eq!(caps(&seen, set), 0, "{set}: CVE-2022-24769");
    }
}

fn capabilities_added_and_dropped(s: &Sandbox) {
    let effective = |flags: &[&str]| caps(&s.probe(flags), "effective");
    let net_admin = 1 << 12;
    let chown = 1;
    assert_eq!(effective(&["--cap-add", "NET_ADMIN"]), DEFAULT | net_admin);
    assert_eq!(
        effective(&["--cap-add", "cap_net_admin", "--cap-drop", "CAP_CHOWN"]),
        (DEFAULT | net_admin) & !chown
    );
    assert_eq!(effective(&["--cap-drop", "ALL"]), 0);
    assert_eq!(effective(&["--cap-drop=all", "--cap-add=chown"]), chown);
    assert_ne!(effective(&["--cap-add", "ALL"]) & (1 << 21), 0);
    assert_eq!(effective(&["--cap-add", "ALL", "--cap-drop", "SYS_ADMIN"]) & (1 << 21), 0);
    s.sh(["--cap-add", "NO_SUCH"], "true").output().exits(125).complains("NO_SUCH");
    let seen = s.probe(["-u", "1000", "--cap-add", "NET_ADMIN"]);
    assert_eq!([caps(&seen, "effective"), caps(&seen, "bounding")], [0, DEFAULT | net_admin]);
}

fn privileged(s: &Sandbox) {
    let seen = s.probe(["--privileged"]);
    assert_ne!(caps(&seen, "effective") & (1 << 21), 0, "SYS_ADMIN");
    if s.user != crate::user::User::Single {
        // With one id, the filter that has chown answered stays.
        assert_eq!(seen["seccomp"], "0");
    }
    s.sh(["--privileged"], "mount -t tmpfs none /mnt 2>/dev/null || mkdir /mnt && mount -t tmpfs none /mnt")
        .ok();
    if !s.is_rootless() {
        // Outside of all user name spaces this file is root's, so that root in one cannot write it.
        s.sh(["--privileged"], ": >> /proc/sys/kernel/hostname").ok();
    }
}

fn no_new_privileges(s: &Sandbox) {
    assert_eq!(s.probe(NONE)["no_new_privs"], "0");
    for flag in ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"] {
        assert_eq!(s.probe(["--security-opt", flag])["no_new_privs"], "1", "{flag}");
    }
    assert_eq!(s.probe(["--security-opt", "no-new-privileges=false"])["no_new_privs"], "0");
}

/// The errno of a system call made inside, 0 where it succeeded.
fn errno(s: &Sandbox, flags: &[&str], number: i64, args: &[&str]) -> i32 {
    let run = s.dhow(["run", "--rm"]).args(flags).args(["busybox", "/probe", "syscall", &number.to_string()]);
    run.args(args).ok().trim().parse().unwrap()
}

fn default_seccomp_profile(s: &Sandbox) {
    assert_eq!(s.probe(NONE)["seccomp"], "2");
    let default = |number, args: &[&str]| errno(s, &[], number, args);
    assert_eq!(default(libc::SYS_clone3, &["0", "0"]), libc::ENOSYS, "so that glibc falls back to clone");
    assert_eq!(default(libc::SYS_add_key, &["0", "0"]), libc::EPERM);
    assert_eq!(default(libc::SYS_kexec_load, &["0", "0"]), libc::EPERM);
    assert_eq!(default(libc::SYS_unshare, &["268435456"]), libc::EPERM, "CLONE_NEWUSER");
    assert_eq!(default(libc::SYS_mount, &["0", "0", "0"]), libc::EPERM);
    assert_eq!(default(libc::SYS_personality, &["4294967295"]), 0, "asking is allowed");
    assert_eq!(default(libc::SYS_personality, &["262144"]), libc::EPERM, "ADDR_NO_RANDOMIZE is not");
    assert_eq!(default(libc::SYS_socket, &["38", "5", "0"]), libc::EPERM, "AF_ALG");
    assert_eq!(default(libc::SYS_getppid, &[]), 0);
    assert_eq!(default(5000, &[]), libc::ENOSYS, "a system call newer than the profile");
    // What a capability allows, the profile allows with it.
    assert_eq!(errno(s, &["--cap-add", "SYS_ADMIN"], libc::SYS_unshare, &["131072"]), 0, "CLONE_NEWNS");
    assert_ne!(errno(s, &["--cap-add", "SYS_ADMIN"], libc::SYS_clone3, &["0", "0"]), libc::ENOSYS);
    assert_eq!(errno(s, &["--cap-add", "SYSLOG"], libc::SYS_syslog, &["9"]) & !libc::EPERM, 0);
}

fn seccomp_unconfined(s: &Sandbox) {
    let seen = s.probe(["--security-opt", "seccomp=unconfined"]);
    if s.user != crate::user::User::Single {
        assert_eq!(seen["seccomp"], "0");
    }
    let number = libc::SYS_add_key;
    assert_eq!(errno(s, &["--security-opt", "seccomp=unconfined"], number, &["0", "0"]), libc::EFAULT);
    assert_eq!(errno(s, &["--security-opt", "seccomp:unconfined"], number, &["0", "0"]), libc::EFAULT);
}

fn seccomp_profile_file(s: &Sandbox) {
    let profile = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["getppid", "no_such_syscall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 33 },
        { "names": ["personality"], "action": "SCMP_ACT_ERRNO",
          "args": [{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] } ] }"#;
    s.file("profile.json", profile);
    let flags = &["--security-opt", "seccomp=profile.json"];
    assert_eq!(errno(s, flags, libc::SYS_getppid, &[]), 33);
    assert_eq!(errno(s, flags, libc::SYS_personality, &["8"]), libc::EPERM);
    assert_eq!(errno(s, flags, libc::SYS_personality, &["4294967295"]), 0);
    s.sh(["--security-opt", "seccomp=no-such-file"], "true").output().exits(125).complains("no-such-file");
    s.file("broken.json", "{ \"defaultAction\": ");
    s.sh(["--security-opt", "seccomp=broken.json"], "true").output().exits(125).complains("broken.json");
    s.file("wrong.json", "{ \"defaultAction\": \"SCMP_ACT_DANCE\" }");
    s.sh(["--security-opt", "seccomp=wrong.json"], "true").output().exits(125).complains("SCMP_ACT_DANCE");
}

fn security_options_are_checked(s: &Sandbox) {
    for option in ["nosuch", "nosuch=1", "no-new-privileges=maybe"] {
        s.sh(["--security-opt", option], "true").output().exits(125).complains(option);
    }
}

fn masked_paths(s: &Sandbox) {
    let script = "cat /proc/kcore | head -c 10; cat /proc/keys /proc/timer_list /proc/latency_stats /proc/sched_debug; \
                  ls -A /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap";
    let out = s.sh(NONE, &format!("({script}) 2>/dev/null")).output();
    let text = out.text();
    let shown: Vec<&str> = text.lines().filter(|l| !l.is_empty() && !l.ends_with(':')).collect();
    assert!(shown.is_empty(), "{}", out.report());
}

fn read_only_paths(s: &Sandbox) {
    // Opened for writing, never written to: where the protection fails, the machine must not pay for it.
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/profiling",
    ] {
        s.sh(NONE, &format!("test ! -e {path} || : >> {path}"))
            .output()
            .expect(path, |o| o.code != 0 || !std::path::Path::new(path).exists());
    }
    s.sh(NONE, "umount /proc/kcore").output().expect("masks stay", |o| o.code != 0);
}

fn devices_in_dev(s: &Sandbox) {
    let seen = s.probe(NONE);
    let dev = &seen["dev"];
    for (name, expected) in [
        ("null", "666 1:3"),
        ("zero", "666 1:5"),
        ("full", "666 1:7"),
        ("random", "666 1:8"),
        ("urandom", "666 1:9"),
        ("tty", "666 5:0"),
        ("fd", "-> /proc/self/fd"),
        ("stdin", "-> /proc/self/fd/0"),
        ("stdout", "-> /proc/self/fd/1"),
        ("stderr", "-> /proc/self/fd/2"),
        ("ptmx", "-> pts/ptmx"),
        ("shm", "directory"),
        ("mqueue", "directory"),
        ("pts", "directory"),
    ] {
        assert_eq!(dev[name], expected, "{name}");
    }
    let known = [
        "null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "ptmx", "shm",
        "mqueue", "pts", "core",
    ];
    let more: Vec<&String> =
        dev.as_object().unwrap().keys().filter(|n| !known.contains(&n.as_str())).collect();
    assert!(more.is_empty(), "{more:?}");
    s.sh(NONE, "echo x > /dev/null; head -c 3 /dev/zero | wc -c; ! echo x > /dev/full").ok();
}

fn added_devices(s: &Sandbox) {
    s.sh(["--device", "/dev/no-such-device"], "true").output().exits(125).complains("/dev/no-such-device");
    let seen = s.probe(["--device", "/dev/null:/dev/nothing", "--device", "/dev/zero:/dev/sub/zero:r"]);
    assert!(seen["dev"]["nothing"].as_str().unwrap().ends_with("1:3"), "{:#}", seen["dev"]);
    assert_eq!(s.sh(["--device", "/dev/zero:/dev/sub/z:r"], "head -c 4 /dev/sub/z | wc -c").ok(), "4");
    s.sh(["--device", "/dev/null:/dev/x:q"], "true").output().exits(125);
}

fn sysctls(s: &Sandbox) {
    let flags = ["--network", "none", "--sysctl", "net.ipv4.ip_unprivileged_port_start=81"];
    assert_eq!(s.sh(flags, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start").ok(), "81");
    assert_eq!(s.sh(["--sysctl", "kernel.msgmax=4000"], "cat /proc/sys/kernel/msgmax").ok(), "4000");
    // What no name space holds would change the machine; so would a net sysctl with the host's network.
    s.sh(["--sysctl", "vm.swappiness=1"], "true").output().exits(125).complains("vm.swappiness");
    let host = ["--network", "host", "--sysctl", "net.ipv4.ip_unprivileged_port_start=82"];
    s.sh(host, "true").output().exits(125).complains("net.ipv4");
    s.sh(["--sysctl", "nonsense"], "true").output().exits(125).complains("nonsense");
}

fn own_namespaces(s: &Sandbox) {
    let outside =
        |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let seen = s.probe(["--network", "none"]);
    for kind in ["ipc", "mnt", "net", "pid", "uts"] {
        assert_ne!(seen["namespaces"][kind], outside(kind), "{kind}");
    }
    assert_eq!(s.probe(["--network", "host"])["namespaces"]["net"], outside("net"));
    assert_eq!(seen["namespaces"]["user"] != outside("user"), s.is_rootless());
}

fn the_kernel_is_not_reachable(s: &Sandbox) {
    for script in [
        "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk | grep -q .",
        "mkdir /tmp/m && mount -t proc none /tmp/m",
        "chroot /proc/1/root/../../../.. ls /var/tmp/dhow-test-0",
        "dmesg",
        "date -s @$(date +%s) 2>&1 | grep -q 'not permitted' && exit 1",
        "insmod /probe",
    ] {
        s.sh(NONE, script).output().expect(script, |o| o.code != 0);
    }
}
