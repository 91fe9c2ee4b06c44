use super::oracle::{self, Event};
use super::*;
use crate::oci::runtime::{LinuxSeccompBuilder, LinuxSyscall, LinuxSyscallBuilder};

const MACHINES: [Arch; 2] = [Arch::ScmpArchX86_64, Arch::ScmpArchAarch64];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];

fn profile(json: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn agree(profile: &LinuxSeccomp, values: &[u64]) -> usize {
    let sizes = MACHINES.map(|machine| {
        let program = compile_for(machine, profile).unwrap();
        oracle::check(machine, profile, &program, values);
        program.len()
    });
    sizes[0]
}

fn arches() -> serde_json::Value {
    serde_json::json!([
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM"
    ])
}

#[test]
fn every_action_has_its_value() {
    let check = |action: &str, errno: Option<u32>, value: u32| {
        let profile = profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["getpid"], "action": action, "errnoRet": errno }],
        }));
        let number = numbers::by_name("getpid").unwrap().number(NATIVE).unwrap();
        let architecture = if NATIVE == Arch::ScmpArchX86_64 { AUDIT_X86_64 } else { AUDIT_AARCH64 };
        let event = Event { number, architecture, args: [0; 6] };
        assert_eq!(oracle::run(&compile(&profile).unwrap(), &event).0, value, "{action}");
        agree(&profile, &[]);
    };
    check("SCMP_ACT_ALLOW", None, 0x7fff_0000);
    check("SCMP_ACT_LOG", None, 0x7ffc_0000);
    check("SCMP_ACT_TRACE", Some(7), 0x7ff0_0007);
    check("SCMP_ACT_TRACE", None, 0x7ff0_0001);
    check("SCMP_ACT_NOTIFY", None, 0x7fc0_0000);
    check("SCMP_ACT_ERRNO", Some(38), 0x0005_0026);
    check("SCMP_ACT_ERRNO", None, 0x0005_0001);
    check("SCMP_ACT_TRAP", None, 0x0003_0000);
    check("SCMP_ACT_KILL", None, 0);
    check("SCMP_ACT_KILL_THREAD", None, 0);
    check("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000);
}

#[test]
fn every_operator_on_64_bits() {
    for operator in OPERATORS {
        for value in [0, 1, 40, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0028, 0xffff_ffff_0000_0000, u64::MAX] {
            for other in [0, 1, 0x28, u64::MAX] {
                let arg = |index: u32| serde_json::json!({ "index": index, "value": value, "valueTwo": other, "op": format!("SCMP_CMP_{operator}") });
                let profile = profile(serde_json::json!({
                    "defaultAction": "SCMP_ACT_ERRNO",
                    "syscalls": [
                        { "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [arg(0)] },
                        { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [arg(5), arg(1)] },
                    ],
                }));
                let values = [value, other, value & other, value | other, !value];
                agree_on_calls(&profile, &values);
            }
        }
    }
}

/// As `agree`, for two calls only: the full sweep over numbers is for profiles with many.
fn agree_on_calls(profile: &LinuxSeccomp, values: &[u64]) {
    let (machine, architecture) = (Arch::ScmpArchX86_64, AUDIT_X86_64);
    let program = compile_for(machine, profile).unwrap();
    let meaning = oracle::Meaning::new(machine, profile);
    for number in [41, 56] {
        for a in values.iter().flat_map(|v| [v.wrapping_sub(1), *v, v.wrapping_add(1), v | 1 << 32]) {
            for b in values.iter().flat_map(|v| [v.wrapping_sub(1), *v, v.wrapping_add(1)]) {
                let event = Event { number, architecture, args: [a, b, 2, 3, 4, a] };
                assert_eq!(
                    oracle::run(&program, &event).0,
                    meaning.returns(&event),
                    "{event:x?} {profile:?}"
                );
            }
        }
    }
}

#[test]
fn rules_of_one_call() {
    let arg =
        |index: u32, op: &str, value: u64| serde_json::json!({ "index": index, "op": op, "value": value });
    let check = |syscalls: serde_json::Value| {
        let profile = profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": arches(), "syscalls": syscalls,
        }));
        agree(&profile, &[1, 2, 9, 38, 40, 0x7e02_0000]);
    };
    let (allow, errno) = ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO");
    // An unconditional rule wins, wherever it stands.
    check(serde_json::json!([
        { "names": ["read"], "action": errno, "errnoRet": 5, "args": [arg(0, "SCMP_CMP_EQ", 2)] },
        { "names": ["read"], "action": allow },
        { "names": ["read"], "action": errno, "errnoRet": 6 },
    ]));
    // The first of the others that holds.
    check(serde_json::json!([
        { "names": ["read"], "action": errno, "errnoRet": 5, "args": [arg(0, "SCMP_CMP_EQ", 2)] },
        { "names": ["read"], "action": allow, "args": [arg(0, "SCMP_CMP_LE", 9)] },
        { "names": ["read", "write"], "action": errno, "errnoRet": 6, "args": [arg(1, "SCMP_CMP_GT", 1)] },
    ]));
    // One argument named twice: any.
    check(serde_json::json!([
        { "names": ["read"], "action": allow, "args": [arg(0, "SCMP_CMP_EQ", 2), arg(0, "SCMP_CMP_EQ", 40), arg(1, "SCMP_CMP_EQ", 1)] },
    ]));
    // What i386 can reach through socketcall and ipc.
    check(serde_json::json!([
        { "names": ["socket", "semget"], "action": "SCMP_ACT_KILL_PROCESS", "args": [arg(0, "SCMP_CMP_EQ", 38)] },
        { "names": ["bind", "semop"], "action": allow },
        { "names": ["connect", "shmat"], "action": allow, "args": [arg(0, "SCMP_CMP_EQ", 2)] },
    ]));
    // More clauses than a tree takes.
    let many: Vec<_> = (0..80)
        .map(|n| serde_json::json!({ "names": ["ioctl"], "action": allow, "args": [arg(1, "SCMP_CMP_EQ", n * 3)] }))
        .collect();
    check(serde_json::json!(many));
}

/// xorshift64*: the same profiles on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    fn entry(&mut self, names: &[&str], values: &[u64]) -> LinuxSyscall {
        let args: Vec<_> = (0..self.of(&[0, 0, 0, 1, 1, 2, 3]))
            .map(|_| {
                serde_json::json!({
                    "index": self.of(&[0, 0, 0, 1, 2, 5]),
                    "value": self.of(values),
                    "valueTwo": self.of(values),
                    "op": format!("SCMP_CMP_{}", self.of(&OPERATORS)),
                })
            })
            .collect();
        let action = self.of(&["ALLOW", "ALLOW", "ERRNO", "KILL_PROCESS", "NOTIFY", "LOG"]);
        let names: Vec<_> = (0..1 + self.below(40)).map(|_| self.of(names)).collect();
        serde_json::from_value(serde_json::json!({
            "names": names, "action": format!("SCMP_ACT_{action}"), "errnoRet": 1 + self.below(3), "args": args,
        }))
        .unwrap()
    }
}

#[test]
fn random_profiles() {
    let names: Vec<&str> = numbers::names().collect();
    let values = [0, 1, 2, 38, 0xffff_ffff, 0xffff_fff0, 0x1_0000_0002, 0x7e02_0000, u64::MAX];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..24 {
        let entries: Vec<_> = (0..1 + random.below(60)).map(|_| random.entry(&names, &values)).collect();
        let default = random.of(&[LinuxSeccompAction::ScmpActErrno, LinuxSeccompAction::ScmpActAllow]);
        let mut profile =
            LinuxSeccompBuilder::default().default_action(default).syscalls(entries).build().unwrap();
        if round % 4 != 0 {
            profile.set_architectures(serde_json::from_value(arches()).unwrap());
        }
        agree(&profile, &values);
    }
}

#[test]
fn long_jumps() {
    // Every other number has an errno of its own, so that returns are far from what jumps to them.
    let entries: Vec<_> = numbers::names()
        .enumerate()
        .map(|(n, name)| {
            let action = LinuxSeccompAction::ScmpActErrno;
            let entry = LinuxSyscallBuilder::default().names([name.to_owned()]).action(action);
            let entry = entry.errno_ret(2 + n as u32 % 2000).build().unwrap();
            let mut conditional = entry.clone();
            if n % 3 == 0 {
                let arg = serde_json::json!([{ "index": 0, "value": n, "op": "SCMP_CMP_EQ" }, { "index": 1, "value": n, "op": "SCMP_CMP_GT" }]);
                conditional.set_args(serde_json::from_value(arg).unwrap());
            }
            conditional
        })
        .collect();
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .architectures(serde_json::from_value::<Vec<Arch>>(arches()).unwrap())
        .syscalls(entries)
        .build()
        .unwrap();
    let size = agree(&profile, &[0, 3, 300]);
    assert!(size > 1500, "{size} instructions are too few for this test");
}

#[test]
fn errors_say_where() {
    let check = |json: serde_json::Value, want: &str| {
        let error = compile(&profile(json)).unwrap_err();
        assert_eq!(crate::error::chain(&error), format!("cannot compile the seccomp profile: {want}"));
    };
    let one = |entry: serde_json::Value| serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_LOG" }, entry] });
    check(
        one(serde_json::json!({ "names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000 })),
        "syscalls[1] (mount): errnoRet 5000 is above 4095",
    );
    check(
        one(
            serde_json::json!({ "names": ["mount"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] }),
        ),
        "syscalls[1] (mount): args[0]: index 6 is above 5, the last argument",
    );
    check(
        serde_json::json!({ "defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65536 }),
        "defaultErrnoRet: errnoRet 65536 is above 65535",
    );
    let args = |n: u64| serde_json::json!([{ "index": 0, "value": n, "op": "SCMP_CMP_EQ" }, { "index": 1, "value": n, "op": "SCMP_CMP_EQ" }]);
    let many: Vec<_> = (0..2000)
        .map(|n| serde_json::json!({ "names": ["read"], "action": "SCMP_ACT_LOG", "args": args(n) }))
        .collect();
    check(
        serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": many }),
        "it takes more than the 4096 instructions that the kernel allows",
    );
    let mips = compile_for(Arch::ScmpArchMips, &LinuxSeccomp::default()).unwrap_err();
    assert!(crate::error::chain(&mips).ends_with("SCMP_ARCH_MIPS is not a machine we run on"));
}

#[test]
fn flags_of_a_profile() {
    let check = |json: serde_json::Value, want: u32| assert_eq!(flags(&profile(json)), want);
    check(serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW" }), 4);
    check(serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": [] }), 0);
    let all = ["LOG", "TSYNC", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"]
        .map(|flag| format!("SECCOMP_FILTER_FLAG_{flag}"));
    check(serde_json::json!({ "defaultAction": "SCMP_ACT_NOTIFY", "flags": all }), 2 + 4 + 8 + 32);
    let entry = serde_json::json!([{ "names": ["chown"], "action": "SCMP_ACT_NOTIFY" }]);
    check(serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": [], "syscalls": entry }), 8);
}
