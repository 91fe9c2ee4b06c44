use super::*;
use crate::runtime::seccomp::compile_for;
use crate::runtime::seccomp::oracle::{self, Event};

/// What docker gives a container by default.
const DOCKER: &str = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE \
                      SYS_CHROOT KILL AUDIT_WRITE";

fn caps(names: &str) -> Capabilities {
    names.split_whitespace().map(|name| name.parse().unwrap()).collect()
}

/// The errno that x86-64 gets for call `number`, 0 if it goes through.
fn errno(profile: &LinuxSeccomp, number: u32, args: [u64; 6]) -> u32 {
    let program = compile_for(Arch::ScmpArchX86_64, profile).unwrap();
    let (value, _) = oracle::run(&program, &Event { number, architecture: 0xc000_003e, args });
    if value == libc::SECCOMP_RET_ALLOW { 0 } else { value - libc::SECCOMP_RET_ERRNO }
}

#[test]
fn default_profile_means_what_it_says() {
    for capabilities in
        ["", DOCKER, "SYS_ADMIN SYS_PTRACE", "SYS_TIME BPF PERFMON SYSLOG SYS_NICE DAC_READ_SEARCH"]
    {
        for arch in [Arch::ScmpArchX86_64, Arch::ScmpArchAarch64] {
            let profile = default::profile(arch, &caps(capabilities));
            let program = compile_for(arch, &profile).unwrap();
            let values =
                [8, 31, 38, 39, 40, 45, 63, 0x2_0000, 0x2_0008, 0xffff_ffff, 0x1000_0000, 0x7e02_0000];
            let steps = oracle::check(arch, &profile, &program, &values);
            // Installing takes time by the instruction, and most steps are taken by what is refused.
            assert!(program.len() <= 250, "{} instructions", program.len());
            assert!(steps <= 24, "{steps} steps");
        }
    }
}

#[test]
fn default_profile_follows_capabilities() {
    let check = |capabilities: &str, number: u32, args: [u64; 6], want: i32| {
        let profile = default::profile(Arch::ScmpArchX86_64, &caps(capabilities));
        assert_eq!(errno(&profile, number, args), want as u32, "call {number} {args:x?} with {capabilities}");
    };
    const NONE: [u64; 6] = [0; 6];
    let first = |value| [value, 0, 0, 0, 0, 0];
    let (mount, unshare, bpf, chroot, ptrace, clone, clone3, socket) = (165, 272, 321, 161, 101, 56, 435, 41);
    check("", mount, NONE, libc::EPERM);
    check("SYS_ADMIN", mount, NONE, 0);
    check("", unshare, NONE, libc::EPERM);
    check("SYS_ADMIN", unshare, NONE, 0);
    check("", bpf, NONE, libc::EPERM);
    check("BPF", bpf, NONE, 0);
    check("", chroot, NONE, libc::EPERM);
    check("SYS_CHROOT", chroot, NONE, 0);
    check("", ptrace, NONE, 0);
    check("", clone3, NONE, libc::ENOSYS);
    check("SYS_ADMIN", clone3, NONE, 0);
    check("", clone, first(0x11), 0);
    check("", clone, first(libc::CLONE_NEWUSER as u64), libc::EPERM);
    check("", clone, first(1 << 32 | libc::CLONE_NEWNET as u64), libc::EPERM);
    check("SYS_ADMIN", clone, first(libc::CLONE_NEWUSER as u64), 0);
    for family in 0..64 {
        let want = if family == 38 || family == 40 { libc::EPERM } else { 0 };
        check("", socket, first(family), want);
        check("SYS_ADMIN", socket, first(0xffff_ffff_0000_0000 | family), want);
    }
    check("", 999, NONE, libc::ENOSYS);
}

#[test]
fn table_has_no_strangers() {
    let both = [Arch::ScmpArchX86_64, Arch::ScmpArchAarch64];
    for arch in both {
        let profile = default::profile(arch, &caps("SYS_ADMIN BPF"));
        // Each name of the table is known to some machine: a misspelt one would be passed over in silence.
        for name in profile.syscalls().iter().flatten().flat_map(|entry| entry.names()) {
            assert!(oracle::is_known(name), "{name}");
        }
    }
}

#[test]
fn conditions_of_a_file() {
    let text = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "comment": "passed over",
        "archMap": [
            { "architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null },
            { "architecture": "SCMP_ARCH_FUTURE", "subArchitectures": ["SCMP_ARCH_PAST"] },
            { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X32"] },
            { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] }
        ],
        "syscalls": [
            { "name": "old", "action": "SCMP_ACT_ALLOW", "args": [] },
            { "names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_KILL", "CAP_BPF"] } },
            { "names": ["b"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_KILL", "CAP_CHOWN"] } },
            { "names": ["c"], "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_BPF", "CAP_KILL"] } },
            { "names": ["d"], "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_BPF", "CAP_WHAT"] } },
            { "names": ["e"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["s390x", "arm64"] } },
            { "names": ["f"], "action": "SCMP_ACT_ALLOW", "excludes": { "arches": ["arm64"] } },
            { "names": ["g"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } },
            { "names": ["h"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "6.2" } },
            { "names": ["i"], "action": "SCMP_ACT_ALLOW", "excludes": { "minKernel": "4.8", "arches": [], "caps": null } },
            { "names": ["j"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "includes": {}, "excludes": {},
              "args": [{ "index": 1, "value": 18446744073709551615, "op": "SCMP_CMP_NE" }] }
        ]
    }"#;
    let check = |arch, names: &str, arches: &[Arch]| {
        let machine = Machine { arch, kernel: (6, 1), capabilities: &caps("KILL CHOWN") };
        let profile = file::read(text, &machine).unwrap();
        let got: Vec<&str> =
            profile.syscalls().iter().flatten().map(|entry| entry.names()[0].as_str()).collect();
        assert_eq!(got.join(" "), names);
        assert_eq!(profile.architectures().as_deref().unwrap(), arches);
        assert_eq!(profile.default_errno_ret(), Some(38));
    };
    check(Arch::ScmpArchX86_64, "old b d f g j", &[Arch::ScmpArchX86_64, Arch::ScmpArchX32]);
    check(Arch::ScmpArchAarch64, "old b d e g j", &[Arch::ScmpArchAarch64, Arch::ScmpArchArm]);
}

#[test]
fn oci_form_comes_back_as_it_went_in() {
    for capabilities in ["", "SYS_ADMIN"] {
        let profile = default_profile(&caps(capabilities));
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(from_text(&text, &caps("")).unwrap(), profile);
    }
    let text = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"], "architectures": ["SCMP_ARCH_X86"],
        "listenerPath": "/run/agent", "listenerMetadata": "m", "syscalls": [{ "names": ["chown"], "action": "SCMP_ACT_NOTIFY" }] }"#;
    let profile: LinuxSeccomp = serde_json::from_str(text).unwrap();
    assert_eq!(from_text(text, &caps("")).unwrap(), profile);
}

#[test]
fn errors_of_a_file() {
    let check = |text: &str, want: &str| {
        let error = crate::error::chain(&from_text(text, &caps("")).unwrap_err());
        assert!(error.starts_with(want), "{error}");
    };
    let entry = |entry: &str| {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["read"],"action":"SCMP_ACT_LOG"}},{entry}]}}"#
        )
    };
    let read = "cannot read the seccomp profile:";
    check("{\n\"defaultAction\": 1\n}", &format!("{read} expected value at line 2 column 18"));
    check("{", &format!("{read} EOF while parsing an object at line 1 column 1"));
    check("{}", &format!("{read} it has no defaultAction"));
    check(
        r#"{"defaultAction":"SCMP_ACT_DENY"}"#,
        &format!("{read} unknown variant `SCMP_ACT_DENY`, expected one of"),
    );
    check(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_VAX"]}"#,
        &format!("{read} no such architecture: SCMP_ARCH_VAX"),
    );
    check(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":""}]}"#,
        &format!("{read} it has both architectures and archMap: keep one"),
    );
    check(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOSYS"}"#,
        &format!("{read} it has the errno ENOSYS as a name"),
    );
    check(&entry(r#"{"action":"SCMP_ACT_LOG"}"#), &format!("{read} syscalls[1]: it names no system call"));
    check(
        &entry(r#"{"name":"a","names":["b"],"action":"SCMP_ACT_LOG"}"#),
        &format!("{read} syscalls[1]: it has both name and names: keep one"),
    );
    check(
        &entry(r#"{"name":"a","action":"SCMP_ACT_LOG","includes":{"minKernel":"new"}}"#),
        &format!("{read} syscalls[1]: includes: minKernel: \"new\" is not a version"),
    );
    check(
        &entry(
            r#"{"name":"mount","action":"SCMP_ACT_LOG","args":[{"index":9,"value":1,"op":"SCMP_CMP_EQ"}]}"#,
        ),
        "cannot compile the seccomp profile: syscalls[1] (mount): args[0]: index 9 is above 5",
    );
}

#[test]
fn every_prefix_of_a_file_returns() {
    let text = serde_json::to_string(&default_profile(&caps(""))).unwrap();
    let machine = Machine { arch: NATIVE, kernel: (6, 1), capabilities: &caps("") };
    for end in (0..text.len()).step_by(7) {
        assert!(file::read(&text[..end], &machine).is_err());
    }
}

#[test]
fn versions() {
    let check = |text, want| assert_eq!(kernel_version(text), want, "{text}");
    check("6.18.44-fc-v657", Some((6, 18)));
    check("4.8", Some((4, 8)));
    check("5.4-rc1", Some((5, 4)));
    check("6", None);
    check("a.b", None);
    check("", None);
}
