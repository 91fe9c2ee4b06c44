//! For tests: a BPF interpreter, and the meaning of a profile without any compiler, to hold against each other.

use std::collections::BTreeMap;

use libc::sock_filter;

use super::condition::Condition;
use super::{AUDIT_AARCH64, AUDIT_ARM, AUDIT_I386, AUDIT_X86_64, multiplex, numbers};
use crate::oci::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

/// struct seccomp_data without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The system call.
    pub number: u32,
    /// AUDIT_ARCH_*.
    pub architecture: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

impl Event {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            16..64 if offset.is_multiple_of(4) => {
                (self.args[(offset as usize - 16) / 8] >> (offset % 8 * 8)) as u32
            }
            _ => panic!("load from {offset}"),
        }
    }
}

/// What `program` returns, and after how many steps. Panics where the kernel would refuse the program.
pub fn run(program: &[sock_filter], event: &Event) -> (u32, usize) {
    let (mut at, mut a, mut steps) = (0, 0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        at += 1;
        steps += 1;
        match code {
            0x20 => a = event.word(k),
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(a == k),
            0x25 => at += jump(a > k),
            0x35 => at += jump(a >= k),
            0x45 => at += jump(a & k != 0),
            0x06 => return (k, steps),
            _ => panic!("instruction {code:#x}"),
        }
    }
}

/// What a profile means, worked out without any compiler.
pub struct Meaning<'a> {
    profile: &'a LinuxSeccomp,
    tables: Vec<Table<'a>>,
}

struct Table<'a> {
    architecture: u32,
    /// The rules of each number, in the order of the profile.
    rules: BTreeMap<u32, Vec<Rule<'a>>>,
    newest: Option<u32>,
    x32: bool,
}

struct Rule<'a> {
    entry: &'a LinuxSyscall,
    /// i386: the rule is for what a `socketcall` or `ipc` with this condition stands for.
    carried: Option<Condition>,
}

impl<'a> Meaning<'a> {
    /// Of `profile` on `machine`.
    pub fn new(machine: Arch, profile: &'a LinuxSeccomp) -> Meaning<'a> {
        let has = |arch| profile.architectures().iter().flatten().any(|other| *other == arch);
        let x32 = has(Arch::ScmpArchX32);
        let mut tables = Vec::new();
        if machine == Arch::ScmpArchX86_64 {
            let native =
                if x32 { vec![Arch::ScmpArchX86_64, Arch::ScmpArchX32] } else { vec![Arch::ScmpArchX86_64] };
            tables.push(table(profile, AUDIT_X86_64, &native));
            tables.extend(has(Arch::ScmpArchX86).then(|| table(profile, AUDIT_I386, &[Arch::ScmpArchX86])));
        } else {
            tables.push(table(profile, AUDIT_AARCH64, &[Arch::ScmpArchAarch64]));
            tables.extend(has(Arch::ScmpArchArm).then(|| table(profile, AUDIT_ARM, &[Arch::ScmpArchArm])));
        }
        Meaning { profile, tables }
    }

    /// What the kernel is to do with `event`.
    pub fn returns(&self, event: &Event) -> u32 {
        let Some(table) = self.tables.iter().find(|table| table.architecture == event.architecture) else {
            return libc::SECCOMP_RET_KILL_PROCESS;
        };
        let mut number = event.number;
        if table.x32 {
            number &= !0x4000_0000;
        } else if table.architecture == AUDIT_X86_64 && number >= 0x4000_0000 && number != u32::MAX {
            return libc::SECCOMP_RET_KILL_PROCESS;
        }
        let rules = table.rules.get(&number).map_or(&[][..], Vec::as_slice);
        let always = rules.iter().find(|rule| rule.carried.is_none() && args(rule.entry).is_empty());
        let rule = always.or_else(|| rules.iter().find(|rule| rule.holds(event)));
        if let Some(Rule { entry, .. }) = rule {
            return action(entry.action(), entry.errno_ret());
        }
        let is_newer = table.newest.is_some_and(|newest| number > newest);
        if is_newer && rules.is_empty() && !lets_through(self.profile.default_action()) {
            return libc::SECCOMP_RET_ERRNO | 38;
        }
        action(self.profile.default_action(), self.profile.default_errno_ret())
    }

    fn looks_at_arguments(&self, event: &Event) -> bool {
        let number = event.number & !0x4000_0000;
        let tables = self.tables.iter().filter(|table| table.architecture == event.architecture);
        tables
            .flat_map(|table| table.rules.get(&number))
            .flatten()
            .any(|rule| rule.carried.is_some() || !args(rule.entry).is_empty())
    }
}

impl Rule<'_> {
    fn holds(&self, event: &Event) -> bool {
        match self.carried {
            Some(condition) => {
                condition.holds(event.args[0])
                    && (args(self.entry).is_empty() || !lets_through(self.entry.action()))
            }
            None => matches(args(self.entry), event),
        }
    }
}

fn table<'a>(profile: &'a LinuxSeccomp, architecture: u32, arches: &[Arch]) -> Table<'a> {
    let x32 = arches.len() > 1;
    let mut rules: BTreeMap<u32, Vec<Rule<'a>>> = BTreeMap::new();
    let mut newest = None;
    for entry in profile.syscalls().iter().flatten() {
        for name in entry.names() {
            for number in arches.iter().filter_map(|arch| numbers::by_name(name)?.number(*arch)) {
                rules.entry(number).or_default().push(Rule { entry, carried: None });
                if number < 0xf_0000 && !(x32 && (512..548).contains(&number)) {
                    newest = newest.max(Some(number));
                }
            }
            let carried =
                multiplex::carried().into_iter().find(|row| Some(row.call) == numbers::by_name(name));
            if let Some(row) = carried.filter(|_| architecture == AUDIT_I386) {
                let number = row.carrier.number(Arch::ScmpArchX86).unwrap();
                rules.entry(number).or_default().push(Rule { entry, carried: Some(row.condition) });
            }
        }
    }
    Table { architecture, rules, newest, x32 }
}

fn args(entry: &LinuxSyscall) -> &[LinuxSeccompArg] {
    entry.args().as_deref().unwrap_or_default()
}

fn lets_through(action: LinuxSeccompAction) -> bool {
    let refuses =
        ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"];
    !refuses.contains(&action.to_string().as_str())
}

fn matches(args: &[LinuxSeccompArg], event: &Event) -> bool {
    let holds = |arg: &LinuxSeccompArg| {
        let (value, other) = (event.args[arg.index()], arg.value());
        match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => value != other,
            LinuxSeccompOperator::ScmpCmpLt => value < other,
            LinuxSeccompOperator::ScmpCmpLe => value <= other,
            LinuxSeccompOperator::ScmpCmpEq => value == other,
            LinuxSeccompOperator::ScmpCmpGe => value >= other,
            LinuxSeccompOperator::ScmpCmpGt => value > other,
            LinuxSeccompOperator::ScmpCmpMaskedEq => (value ^ arg.value_two().unwrap_or(0)) & other == 0,
        }
    };
    let repeated =
        args.iter().enumerate().any(|(n, arg)| args[..n].iter().any(|other| other.index() == arg.index()));
    if repeated { args.iter().any(holds) } else { args.iter().all(holds) }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    // The crate's reading, not ours, so that the two check each other.
    action.as_u32(errno)
}

/// Compares `program` with the meaning of `profile`, for all numbers that could matter and arguments around `values`. Returns
/// the most steps that any event took.
pub fn check(machine: Arch, profile: &LinuxSeccomp, program: &[sock_filter], values: &[u64]) -> usize {
    let meaning = Meaning::new(machine, profile);
    let near =
        |value: &u64| [value.wrapping_sub(1), *value, value.wrapping_add(1), value | 1 << 32, value << 32];
    let mut values: Vec<u64> = values.iter().chain(&[0, u64::MAX]).flat_map(near).collect();
    values.sort_unstable();
    values.dedup();
    let ordinary = (0..600).chain(0xf_0000 - 1..0xf_0008).chain(0x7fff_fffe..0x8000_0002);
    let numbers: Vec<u32> =
        ordinary.flat_map(|n| [n, n | 0x4000_0000]).chain([u32::MAX - 1, u32::MAX]).collect();
    let mut most = 0;
    for architecture in [AUDIT_X86_64, AUDIT_I386, AUDIT_AARCH64, AUDIT_ARM] {
        for &number in &numbers {
            let event = Event { number, architecture, args: [0; 6] };
            let n_values = if meaning.looks_at_arguments(&event) { values.len() } else { 1 };
            for (n, value) in values.iter().enumerate().take(n_values) {
                // All arguments alike, then each another.
                let mixed = std::array::from_fn(|arg| values[(n + arg * 7) % values.len()]);
                for args in [[*value; 6], mixed] {
                    let event = Event { args, ..event };
                    let (got, steps) = run(program, &event);
                    assert_eq!(got, meaning.returns(&event), "{machine} {event:x?} {profile:?}");
                    most = most.max(steps);
                }
            }
        }
    }
    most
}

/// Whether any machine has a call of that name.
pub fn is_known(name: &str) -> bool {
    numbers::by_name(name).is_some()
}
