//! i386 has two calls that stand for many: `socketcall` and `ipc`, with the real call as a number in the first argument.
//! A rule for `socket` is to hold for `socketcall(SYS_SOCKET)` too, or a 32-bit program walks around it.
//!
//! Invariant: the table is sorted by name, as that of all calls is, so that both can be searched.

use super::condition::Condition;
use super::numbers::{self, Call};
use Carrier::{Ipc, Socketcall};

#[derive(Debug, Clone, Copy)]
enum Carrier {
    Socketcall,
    Ipc,
}

/// A call that i386 can also reach through another.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// The call itself.
    pub call: Call,
    /// `socketcall` or `ipc`.
    pub carrier: Call,
    /// What tells it there.
    pub condition: Condition,
}

/// All such calls.
pub fn carried() -> Vec<Carried> {
    let row = |&(name, carrier, number): &(&str, Carrier, u64)| {
        // The upper half of ipc's first argument is a version, which the kernel cuts off before it looks at the number.
        let (carrier, mask) = match carrier {
            Socketcall => ("socketcall", u32::MAX.into()),
            Ipc => ("ipc", 0xffff),
        };
        Some(Carried {
            call: numbers::by_name(name)?,
            carrier: numbers::by_name(carrier)?,
            condition: Condition::masked(0, mask, number),
        })
    };
    CARRIED.iter().filter_map(row).collect()
}

/// From linux/net.h (SYS_*) and linux/ipc.h.
const CARRIED: &[(&str, Carrier, u64)] = &[
    ("accept", Socketcall, 5),
    ("accept4", Socketcall, 18),
    ("bind", Socketcall, 2),
    ("connect", Socketcall, 3),
    ("getpeername", Socketcall, 7),
    ("getsockname", Socketcall, 6),
    ("getsockopt", Socketcall, 15),
    ("listen", Socketcall, 4),
    ("msgctl", Ipc, 14),
    ("msgget", Ipc, 13),
    ("msgrcv", Ipc, 12),
    ("msgsnd", Ipc, 11),
    ("recv", Socketcall, 10),
    ("recvfrom", Socketcall, 12),
    ("recvmmsg", Socketcall, 19),
    ("recvmsg", Socketcall, 17),
    ("semctl", Ipc, 3),
    ("semget", Ipc, 2),
    ("semop", Ipc, 1),
    ("semtimedop", Ipc, 4),
    ("send", Socketcall, 9),
    ("sendmmsg", Socketcall, 20),
    ("sendmsg", Socketcall, 16),
    ("sendto", Socketcall, 11),
    ("setsockopt", Socketcall, 14),
    ("shmat", Ipc, 21),
    ("shmctl", Ipc, 24),
    ("shmdt", Ipc, 22),
    ("shmget", Ipc, 23),
    ("shutdown", Socketcall, 13),
    ("socket", Socketcall, 1),
    ("socketpair", Socketcall, 8),
];
