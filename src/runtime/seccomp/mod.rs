//! OCI seccomp profile -> BPF program. Pure: installing it is `sys::seccomp`, docker's default profile is `spec::seccomp`.
//!
//! ```text
//! program    load architecture; native -> section, its 32-bit sibling -> section, any other -> kill
//! section    load call number; binary tree over ranges of numbers -> return, or the decision of one call
//! decision   range trees or comparisons over arguments -> return
//! ```
//!
//! Since 5.11 the kernel runs the program once per number when it is installed and notes which calls are always allowed;
//! those then cost nothing. It follows only loads of number and architecture, jumps on constants, `and`, and return,
//! so a section is made of nothing else; and what counts for the rest is how long installing takes: few instructions.
//!
//! Invariant: the order of architectures, names and unconditional rules in the profile does not matter.

mod assemble;
mod condition;
mod multiplex;
mod numbers;
#[cfg(test)]
pub mod oracle;
mod rules;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result, bail};
use libc::sock_filter;

use crate::oci::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};
use assemble::{Assembler, Place, Test};
use rules::{Clause, Rules};

/// The machine we run on.
pub const NATIVE: Arch =
    if cfg!(target_arch = "aarch64") { Arch::ScmpArchAarch64 } else { Arch::ScmpArchX86_64 };

/// The kernel takes no longer programs (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// AUDIT_ARCH_* of linux/audit.h, what the kernel calls an architecture here.
const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARM: u32 = 0x4000_0028;

/// In the number of every x32 call; the architecture of x32 is that of x86-64.
const X32_BIT: u32 = 0x4000_0000;

/// The numbers that only x32 has, set apart from the table that all others share.
const X32_OWN: std::ops::Range<u32> = 512..548;

/// Numbers from here on are ARM's private calls (__ARM_NR_BASE), not the end of its table.
const ARM_PRIVATE: u32 = 0xf_0000;

/// A call of an architecture that the profile does not name. The process, because one thread missing leaves it hanging.
const FOREIGN: u32 = libc::SECCOMP_RET_KILL_PROCESS;

const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// The program for the machine we run on, to be installed with [`flags`].
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<sock_filter>> {
    compile_for(NATIVE, profile)
}

/// The program for `machine`, which is x86-64 or aarch64. Of the profile's architectures those count that can run on it.
pub fn compile_for(machine: Arch, profile: &LinuxSeccomp) -> Result<Vec<sock_filter>> {
    let program = rules::read(profile).and_then(|rules| assemble(machine, profile, &rules));
    program.context("cannot compile the seccomp profile")
}

/// SECCOMP_FILTER_FLAG_* to install the program with: those of the profile, NEW_LISTENER if any of its actions needs one.
/// TSYNC is left out: the filter is installed by the only thread there is.
pub fn flags(profile: &LinuxSeccomp) -> u32 {
    let Some(flags) = profile.flags() else {
        // As runc: a profile that says nothing does not mean to turn on the mitigation of Speculative Store Bypass, which
        // kernels before 5.16 do for every process with a filter.
        return listener(profile) | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
    };
    let flag = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
            libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32
        }
    };
    flags.iter().map(flag).fold(listener(profile), |all, flag| all | flag)
}

fn listener(profile: &LinuxSeccomp) -> u32 {
    let mut actions = profile.syscalls().iter().flatten().map(|entry| entry.action());
    let notifies = |action| action == LinuxSeccompAction::ScmpActNotify;
    if notifies(profile.default_action()) || actions.any(notifies) {
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32
    } else {
        0
    }
}

fn assemble(machine: Arch, profile: &LinuxSeccomp, rules: &Rules) -> Result<Vec<sock_filter>> {
    let has = |arch| profile.architectures().iter().flatten().any(|other| *other == arch);
    let (native, sibling) = match machine {
        Arch::ScmpArchX86_64 => (AUDIT_X86_64, (Arch::ScmpArchX86, AUDIT_I386)),
        Arch::ScmpArchAarch64 => (AUDIT_AARCH64, (Arch::ScmpArchArm, AUDIT_ARM)),
        other => bail!("{other} is not a machine we run on"),
    };
    let mut writer = Writer { rules, asm: Assembler::default(), decisions: Vec::new() };
    let mut start = writer.asm.finish(FOREIGN);
    // The program is written backwards: the section written last is the first, where the native one belongs.
    if has(sibling.0) {
        let section = writer.section(sibling.0, false)?;
        start = writer.asm.branch(Test::Equal, sibling.1, section, start);
    }
    let section = writer.section(machine, machine == Arch::ScmpArchX86_64 && has(Arch::ScmpArchX32))?;
    start = writer.asm.branch(Test::Equal, native, section, start);
    writer.asm.load(ARCHITECTURE, start);
    writer.check_length()?;
    Ok(writer.asm.into_program())
}

struct Writer<'a> {
    rules: &'a Rules,
    asm: Assembler,
    /// Decisions already written, by the rules they follow: calls, and sections, share them.
    decisions: Vec<(Vec<usize>, Place)>,
}

/// Where a range of numbers leads, before it has a place. The same value may be returned in several places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Return(u32),
    Decision(Place),
}

impl Writer<'_> {
    fn section(&mut self, arch: Arch, with_x32: bool) -> Result<Place> {
        let ranges = self.ranges(arch, with_x32)?;
        let places: Vec<(u32, Place)> = ranges
            .into_iter()
            .map(|(start, target)| match target {
                Target::Return(value) => (start, self.asm.finish(value)),
                Target::Decision(place) => (start, place),
            })
            .collect();
        let mut start = self.asm.tree(&places);
        if with_x32 {
            // x32 shares the tree of x86-64. The few calls that the two number differently are in it under both numbers;
            // the wrong one of each pair is a call that the kernel does not have.
            start = self.asm.mask(!X32_BIT, start);
        }
        Ok(self.asm.load(NUMBER, start))
    }

    /// The ranges of call numbers, neighbours differing.
    fn ranges(&mut self, arch: Arch, with_x32: bool) -> Result<Vec<(u32, Target)>> {
        let calls = self.calls(arch, with_x32);
        let is_apart = |number: &u32| *number >= ARM_PRIVATE || with_x32 && X32_OWN.contains(number);
        let highest = calls.iter().map(|(number, _)| *number).filter(|number| !is_apart(number)).max();
        let default = Target::Return(self.rules.default);
        let no_rule = |number: u32| match highest {
            Some(highest) if number > highest && self.rules.enosys_above_highest => Target::Return(ENOSYS),
            _ => default,
        };
        let mut ranges = vec![(0, no_rule(0))];
        for rules_of_one in calls.chunk_by(|a, b| a.0 == b.0) {
            let number = rules_of_one[0].0;
            let target = self.target(rules_of_one)?;
            ranges.push((number, target));
            ranges.push((number + 1, no_rule(number + 1)));
        }
        if arch == Arch::ScmpArchX86_64 && !with_x32 {
            // Left to the default, x32 would be a second, unfiltered set of all calls under a profile that denies by name.
            // -1 is what a tracer sets to skip a call, not a call.
            ranges.extend([(X32_BIT, Target::Return(FOREIGN)), (u32::MAX, no_rule(u32::MAX))]);
        }
        // Two ranges with one start: the first is empty.
        ranges.reverse();
        ranges.dedup_by_key(|(start, _)| *start);
        ranges.reverse();
        ranges.dedup_by_key(|(_, target)| *target);
        Ok(ranges)
    }

    /// Numbers and rules of all calls that have a rule, sorted, without repetition.
    fn calls(&self, arch: Arch, with_x32: bool) -> Vec<(u32, usize)> {
        let multiplexed = if arch == Arch::ScmpArchX86 { self.rules.multiplexed.as_slice() } else { &[] };
        let named = self.rules.calls.iter().chain(multiplexed);
        let mut calls: Vec<(u32, usize)> =
            named.clone().filter_map(|(call, rule)| Some((call.number(arch)?, *rule))).collect();
        if with_x32 {
            calls.extend(named.filter_map(|(call, rule)| Some((call.number(Arch::ScmpArchX32)?, *rule))));
        }
        calls.sort_unstable();
        calls.dedup();
        calls
    }

    fn target(&mut self, rules_of_one: &[(u32, usize)]) -> Result<Target> {
        let clauses = || rules_of_one.iter().flat_map(|(_, rule)| &self.rules.rules[*rule]);
        if let Some(clause) = clauses().find(|clause| clause.conditions.is_empty()) {
            return Ok(Target::Return(clause.returns));
        }
        let key: Vec<usize> = rules_of_one.iter().map(|(_, rule)| *rule).collect();
        if let Some(&(_, place)) = self.decisions.iter().find(|(other, _)| *other == key) {
            return Ok(Target::Decision(place));
        }
        let clauses: Vec<&Clause> = clauses().collect();
        let place = condition::decide(&mut self.asm, &clauses, self.rules.default);
        self.check_length()?;
        self.decisions.push((key, place));
        Ok(Target::Decision(place))
    }

    /// Asked after every decision, so that a hostile profile ends before its program fills the memory.
    fn check_length(&self) -> Result<()> {
        if self.asm.len() > MAX_INSTRUCTIONS {
            bail!("it takes more than the {MAX_INSTRUCTIONS} instructions that the kernel allows");
        }
        Ok(())
    }
}
