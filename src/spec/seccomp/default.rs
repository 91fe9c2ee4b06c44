//! Docker's default profile: most calls by name (the table in default.txt), four by their arguments.
//!
//! Invariant: what is not allowed gets EPERM, except clone3, which gets ENOSYS so that programs fall back to clone.

use super::{is_held, machine_name};
use crate::oci::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

const TABLE: &str = include_str!("default.txt");

/// Masks and values of the address families that socket(2) may be asked for: all but AF_ALG (38) and AF_VSOCK (40). AF_VSOCK
/// is not name-spaced, so it reaches the host; AF_ALG has been a way into the kernel's crypto code.
///
/// Docker says this with `< 38`, `= 39`, `> 40`, but a filter compares 64 bits and the kernel then takes 32 of them as
/// the family: 0x1_0000_0028 is above 40 and AF_VSOCK. A mask compares what the kernel looks at.
const FAMILIES: &[(u64, u64)] = &[
    (0xffff_ffe0, 0),  // 0-31
    (0xffff_fffc, 32), // 32-35
    (0xffff_fffe, 36), // 36, 37
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42), // 42, 43
    (0xffff_fffc, 44), // 44-47; 6.18 ends at 45
    (0xffff_fff0, 48), // 48-63
];

/// The execution domains that personality(2) may set: PER_LINUX and PER_LINUX32, with and without UNAME26, and "what is it?".
/// The flags beside them turn off address space randomisation or make all mappings executable.
const PERSONALITIES: &[u64] = &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// CLONE_NEW* of clone(2): cgroup, uts, ipc, user, pid, net and mount name spaces. (The bit of the time name space is part of the
/// exit signal there.)
const NAME_SPACES: u64 = 0x7e02_0000;

/// The profile for a container with `capabilities` on `arch`.
pub(super) fn profile(arch: Arch, capabilities: &Capabilities) -> LinuxSeccomp {
    let mut syscalls = vec![entry(names(arch, capabilities), LinuxSeccompAction::ScmpActAllow, Vec::new())];
    let allow_if = |name: &str, op, value, value_two| {
        entry(
            vec![name.to_owned()],
            LinuxSeccompAction::ScmpActAllow,
            vec![first_argument(op, value, value_two)],
        )
    };
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpMaskedEq};
    syscalls
        .extend(FAMILIES.iter().map(|&(mask, value)| allow_if("socket", ScmpCmpMaskedEq, mask, Some(value))));
    syscalls.extend(PERSONALITIES.iter().map(|&value| allow_if("personality", ScmpCmpEq, value, None)));
    if !capabilities.contains(&Capability::SysAdmin) {
        syscalls.push(allow_if("clone", ScmpCmpMaskedEq, NAME_SPACES, Some(0)));
        // The flags of clone3 lie in memory, where no filter can look.
        let mut clone3 = entry(vec!["clone3".to_owned()], LinuxSeccompAction::ScmpActErrno, Vec::new());
        clone3.set_errno_ret(Some(libc::ENOSYS as u32));
        syscalls.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActErrno);
    profile.set_default_errno_ret(Some(libc::EPERM as u32));
    profile.set_architectures(Some(match arch {
        Arch::ScmpArchAarch64 => vec![arch, Arch::ScmpArchArm],
        _ => vec![arch, Arch::ScmpArchX86, Arch::ScmpArchX32],
    }));
    profile.set_syscalls(Some(syscalls));
    profile
}

/// The names in the table whose section applies.
fn names(arch: Arch, capabilities: &Capabilities) -> Vec<String> {
    let mut names = Vec::with_capacity(400);
    let mut applies = false;
    for line in TABLE.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            applies = match section.split_once(' ') {
                Some(("machine", machine)) => machine == machine_name(arch),
                Some((_, capability)) => is_held(capability, capabilities),
                None => true,
            };
        } else if applies {
            names.extend(line.split_ascii_whitespace().map(str::to_owned));
        }
    }
    names
}

fn entry(names: Vec<String>, action: LinuxSeccompAction, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut entry = LinuxSyscall::default();
    entry.set_names(names);
    entry.set_action(action);
    entry.set_args((!args.is_empty()).then_some(args));
    entry
}

fn first_argument(op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let arg = LinuxSeccompArgBuilder::default().index(0usize).op(op).value(value);
    let arg = if let Some(value) = value_two { arg.value_two(value) } else { arg };
    arg.build().expect("every field has a default")
}
