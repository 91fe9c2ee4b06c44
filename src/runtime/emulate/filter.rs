//! Which calls are notified, as numbers and as a BPF program.
//!
//! Besides the native calls, those of the 32-bit architecture of the same machine are notified, in the form that every
//! C library of this century uses (`chown32`, not the 16-bit `chown`). x32 calls are left to the kernel: their numbers
//! have bit 30 set and so match nothing.
//!
//! Setting RLIMIT_LOCKS is made to succeed without effect, because `beliefs` keeps its mark there: pam_limits(8), in
//! every su and sudo, sets all limits to what pid 1 has. (No kernel since 2.4.25 obeys that limit anyway.)
//!
//! Invariant: what the program notifies is exactly what [`call`] knows, on both architectures.

use libc::sock_filter;

/// A call that is emulated. Those from `Fstat` on are notified only by [`filter_showing_owners`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Chown,
    Lchown,
    Fchown,
    Fchownat,
    Mknod,
    Mknodat,
    Setuid,
    Setgid,
    Setreuid,
    Setregid,
    Setresuid,
    Setresgid,
    Setfsuid,
    Setfsgid,
    Setgroups,
    Getuid,
    Geteuid,
    Getgid,
    Getegid,
    Getresuid,
    Getresgid,
    Getgroups,
    Capset,
    Fstat,
    Stat,
    Lstat,
    Newfstatat,
    Statx,
    Open,
    Openat,
    Creat,
    Mkdir,
    Mkdirat,
}

/// The numbers of one architecture.
struct Architecture {
    /// AUDIT_ARCH_* of linux/audit.h: ELF machine, 64-bit and little-endian bits.
    audit: u32,
    calls: &'static [(u32, Call)],
    showing: &'static [(u32, Call)],
    setrlimit: u32,
    prlimit64: u32,
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        audit: 0xc000_003e,
        calls: &[
            (92, Call::Chown),
            (94, Call::Lchown),
            (93, Call::Fchown),
            (260, Call::Fchownat),
            (133, Call::Mknod),
            (259, Call::Mknodat),
            (105, Call::Setuid),
            (106, Call::Setgid),
            (113, Call::Setreuid),
            (114, Call::Setregid),
            (117, Call::Setresuid),
            (119, Call::Setresgid),
            (122, Call::Setfsuid),
            (123, Call::Setfsgid),
            (116, Call::Setgroups),
            (102, Call::Getuid),
            (107, Call::Geteuid),
            (104, Call::Getgid),
            (108, Call::Getegid),
            (118, Call::Getresuid),
            (120, Call::Getresgid),
            (115, Call::Getgroups),
            (126, Call::Capset),
        ],
        showing: &[
            (5, Call::Fstat),
            (4, Call::Stat),
            (6, Call::Lstat),
            (262, Call::Newfstatat),
            (332, Call::Statx),
            (2, Call::Open),
            (257, Call::Openat),
            (85, Call::Creat),
            (83, Call::Mkdir),
            (258, Call::Mkdirat),
        ],
        setrlimit: 160,
        prlimit64: 302,
    },
    // i386
    Architecture {
        audit: 0x4000_0003,
        calls: &thirty_two_bit(297, 298),
        showing: &[],
        setrlimit: 75,
        prlimit64: 340,
    },
];

#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        audit: 0xc000_00b7,
        calls: &[
            (55, Call::Fchown),
            (54, Call::Fchownat),
            (33, Call::Mknodat),
            (146, Call::Setuid),
            (144, Call::Setgid),
            (145, Call::Setreuid),
            (143, Call::Setregid),
            (147, Call::Setresuid),
            (149, Call::Setresgid),
            (151, Call::Setfsuid),
            (152, Call::Setfsgid),
            (159, Call::Setgroups),
            (174, Call::Getuid),
            (175, Call::Geteuid),
            (176, Call::Getgid),
            (177, Call::Getegid),
            (148, Call::Getresuid),
            (150, Call::Getresgid),
            (158, Call::Getgroups),
            (91, Call::Capset),
        ],
        showing: &[
            (80, Call::Fstat),
            (79, Call::Newfstatat),
            (291, Call::Statx),
            (56, Call::Openat),
            (34, Call::Mkdirat),
        ],
        setrlimit: 164,
        prlimit64: 261,
    },
    // ARM EABI
    Architecture {
        audit: 0x4000_0028,
        calls: &thirty_two_bit(324, 325),
        showing: &[],
        setrlimit: 75,
        prlimit64: 369,
    },
];

/// The calls of i386 and ARM EABI, which agree but for the two `*at` ones.
const fn thirty_two_bit(mknodat: u32, fchownat: u32) -> [(u32, Call); 23] {
    [
        (212, Call::Chown),
        (198, Call::Lchown),
        (207, Call::Fchown),
        (fchownat, Call::Fchownat),
        (14, Call::Mknod),
        (mknodat, Call::Mknodat),
        (213, Call::Setuid),
        (214, Call::Setgid),
        (203, Call::Setreuid),
        (204, Call::Setregid),
        (208, Call::Setresuid),
        (210, Call::Setresgid),
        (215, Call::Setfsuid),
        (216, Call::Setfsgid),
        (206, Call::Setgroups),
        (199, Call::Getuid),
        (201, Call::Geteuid),
        (200, Call::Getgid),
        (202, Call::Getegid),
        (209, Call::Getresuid),
        (211, Call::Getresgid),
        (205, Call::Getgroups),
        (185, Call::Capset),
    ]
}

/// What a notified number means.
pub fn call(audit: u32, number: i32) -> Option<Call> {
    let architecture = ARCHITECTURES.iter().find(|a| a.audit == audit)?;
    architecture
        .calls
        .iter()
        .chain(architecture.showing)
        .find(|(n, _)| i64::from(*n) == i64::from(number))
        .map(|(_, call)| *call)
}

/// The program for seccomp(2), to be installed with SECCOMP_FILTER_FLAG_NEW_LISTENER besides the container's own profile.
/// A profile that refuses a call goes before: the kernel takes the strictest answer of all filters.
///
/// It costs nothing where it does not match: the kernel knows which numbers are always allowed (Linux 5.11, seccomp's
/// bitmap) and does not run it for them.
pub fn filter() -> Vec<sock_filter> {
    program(false)
}

/// [`filter()`], and besides what makes owners seen: the stat family, and calls that may create a file. For containers whose
/// programs ask whether a file is theirs (PostgreSQL); each stat then costs some microseconds.
pub fn filter_showing_owners() -> Vec<sock_filter> {
    program(true)
}

fn program(showing: bool) -> Vec<sock_filter> {
    // Offsets in struct seccomp_data.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    let mut program = Vec::new();
    for architecture in &ARCHITECTURES {
        let more = if showing { architecture.showing } else { &[] };
        let mut body = vec![load(NUMBER)];
        for (number, call) in architecture.calls.iter().chain(more) {
            body.extend(match call {
                Call::Mknod => when(*number, device_only(1)),
                Call::Mknodat => when(*number, device_only(2)),
                Call::Open => when(*number, creating_only(1)),
                Call::Openat => when(*number, creating_only(2)),
                _ => when(*number, vec![give(libc::SECCOMP_RET_USER_NOTIF)]),
            });
        }
        body.extend(when(architecture.setrlimit, keep_locks_limit(0, false)));
        body.extend(when(architecture.prlimit64, keep_locks_limit(1, true)));
        body.push(give(libc::SECCOMP_RET_ALLOW));
        program.push(load(ARCH));
        program.extend(when(architecture.audit, body));
    }
    program.push(give(libc::SECCOMP_RET_ALLOW));
    program
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn give(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

fn equals(value: u32, jt: u8, jf: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, jt, jf)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// `body` if the loaded word is `value`, else on.
fn when(value: u32, body: Vec<sock_filter>) -> Vec<sock_filter> {
    let over = u8::try_from(body.len()).expect("the tables above are short enough to jump over");
    std::iter::once(equals(value, 0, over)).chain(body).collect()
}

/// Notifies if the mode, argument `index`, asks for a device; files, fifos and sockets are the kernel's.
fn device_only(index: u32) -> Vec<sock_filter> {
    vec![
        // The low half of the argument; both architectures are little-endian.
        load(16 + 8 * index),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, libc::S_IFMT, 0, 0),
        equals(libc::S_IFCHR, 1, 0),
        equals(libc::S_IFBLK, 0, 1),
        give(libc::SECCOMP_RET_USER_NOTIF),
        give(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Notifies if the flags, argument `index`, ask to create.
fn creating_only(index: u32) -> Vec<sock_filter> {
    vec![
        load(16 + 8 * index),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, libc::O_CREAT as u32, 0, 1),
        give(libc::SECCOMP_RET_USER_NOTIF),
        give(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Success without effect (errno 0) for RLIMIT_LOCKS, argument `index`; with `optional`, only if the next argument is no
/// null pointer, as otherwise the limit is but asked for.
fn keep_locks_limit(index: u32, optional: bool) -> Vec<sock_filter> {
    let next = 16 + 8 * (index + 1);
    let mut set = vec![give(libc::SECCOMP_RET_ERRNO)];
    if optional {
        set.splice(0..0, [load(next), equals(0, 0, 2), load(next + 4), equals(0, 1, 0)]);
        set.push(give(libc::SECCOMP_RET_ALLOW));
    }
    let mut body = vec![load(16 + 8 * index)];
    body.extend(when(libc::RLIMIT_LOCKS, set));
    body.push(give(libc::SECCOMP_RET_ALLOW));
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel does, for the instructions it uses.
    fn run(program: &[sock_filter], number: u32, arch: u32, args: [u32; 4]) -> u32 {
        let (mut pc, mut word) = (0, 0);
        loop {
            let i = &program[pc];
            pc += 1;
            match u32::from(i.code) {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    word = match i.k {
                        0 => number,
                        4 => arch,
                        k if k % 8 == 4 => 0,
                        k => args[(k as usize - 16) / 8],
                    }
                }
                c if c == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => word &= i.k,
                c if c == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => {
                    pc += usize::from(if word & i.k != 0 { i.jt } else { i.jf });
                }
                c if c == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    pc += usize::from(if word == i.k { i.jt } else { i.jf });
                }
                _ => return i.k,
            }
        }
    }

    #[test]
    fn the_program_notifies_what_call_knows() {
        let (program, showing) = (filter(), filter_showing_owners());
        // Both a device and O_CREAT.
        let args = [libc::S_IFCHR | libc::O_CREAT as u32; 4];
        for arch in [ARCHITECTURES[0].audit, ARCHITECTURES[1].audit, 0xdead] {
            for number in (0..600).chain(0x4000_0000..0x4000_0200) {
                let notifies = |program| run(program, number, arch, args) == libc::SECCOMP_RET_USER_NOTIF;
                let call = call(arch, number as i32);
                assert_eq!(notifies(&showing), call.is_some(), "{number} on {arch:x}");
                let shows =
                    ARCHITECTURES.iter().any(|a| a.audit == arch && a.showing.iter().any(|s| s.0 == number));
                assert_eq!(notifies(&program), call.is_some() && !shows, "{number} on {arch:x}");
            }
        }
    }

    #[test]
    fn only_devices_are_notified() {
        let program = filter();
        for architecture in &ARCHITECTURES {
            for (number, made) in architecture.calls {
                let mode_at = match made {
                    Call::Mknod => 1,
                    Call::Mknodat => 2,
                    _ => continue,
                };
                for (kind, notified) in [
                    (libc::S_IFBLK, true),
                    (libc::S_IFCHR, true),
                    (libc::S_IFIFO, false),
                    (libc::S_IFSOCK, false),
                    (libc::S_IFREG, false),
                    (0, false),
                ] {
                    let mut args = [0; 4];
                    args[mode_at] = kind | 0o777;
                    let want = if notified { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
                    assert_eq!(run(&program, *number, architecture.audit, args), want);
                }
            }
        }
    }

    #[test]
    fn the_locks_limit_is_kept() {
        let (program, locks) = (filter(), libc::RLIMIT_LOCKS);
        for a in &ARCHITECTURES {
            for (number, args, kept) in [
                (a.setrlimit, [locks, 1, 0, 0], true),
                (a.setrlimit, [1, 1, 0, 0], false),
                (a.prlimit64, [0, locks, 1, 0], true),
                (a.prlimit64, [0, locks, 0, 1], false),
                (a.prlimit64, [0, 1, 1, 0], false),
            ] {
                let want = if kept { libc::SECCOMP_RET_ERRNO } else { libc::SECCOMP_RET_ALLOW };
                assert_eq!(run(&program, number, a.audit, args), want, "{number} {args:?}");
            }
        }
    }

    /// The tables are numbers, because libc lacks some of them; those it has must agree.
    #[test]
    fn numbers_are_those_of_libc() {
        let native = ARCHITECTURES[0].audit;
        for (number, want) in [
            (libc::SYS_fchown, Call::Fchown),
            (libc::SYS_fchownat, Call::Fchownat),
            (libc::SYS_mknodat, Call::Mknodat),
            (libc::SYS_setuid, Call::Setuid),
            (libc::SYS_setgid, Call::Setgid),
            (libc::SYS_setreuid, Call::Setreuid),
            (libc::SYS_setregid, Call::Setregid),
            (libc::SYS_setresuid, Call::Setresuid),
            (libc::SYS_setresgid, Call::Setresgid),
            (libc::SYS_setfsuid, Call::Setfsuid),
            (libc::SYS_setfsgid, Call::Setfsgid),
            (libc::SYS_setgroups, Call::Setgroups),
            (libc::SYS_getuid, Call::Getuid),
            (libc::SYS_geteuid, Call::Geteuid),
            (libc::SYS_getgid, Call::Getgid),
            (libc::SYS_getegid, Call::Getegid),
            (libc::SYS_getresuid, Call::Getresuid),
            (libc::SYS_getresgid, Call::Getresgid),
            (libc::SYS_getgroups, Call::Getgroups),
            (libc::SYS_capset, Call::Capset),
            (libc::SYS_fstat, Call::Fstat),
            (libc::SYS_newfstatat, Call::Newfstatat),
            (libc::SYS_statx, Call::Statx),
            (libc::SYS_openat, Call::Openat),
            (libc::SYS_mkdirat, Call::Mkdirat),
        ] {
            assert_eq!(call(native, number as i32), Some(want));
        }
        assert_eq!(i64::from(ARCHITECTURES[0].setrlimit), libc::SYS_setrlimit);
        assert_eq!(i64::from(ARCHITECTURES[0].prlimit64), libc::SYS_prlimit64);
    }
}
