//! An OCI profile as the compiler wants it: validated, numbers instead of names, actions as the kernel's return values.
//!
//! Invariant: nothing here depends on the machine; which number a call has is asked when its table is written.

use anyhow::{Result, bail};

use super::condition::Condition;
use super::multiplex::{self, Carried};
use super::numbers::{self, Call};
use crate::oci::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

/// The kernel cuts a larger errno off at this (MAX_ERRNO); a profile that asks for one is a mistake.
const MAX_ERRNO: u32 = 4095;

/// What a rule says: if all conditions hold, return this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Empty: always.
    pub conditions: Vec<Condition>,
    /// SECCOMP_RET_* with its data.
    pub returns: u32,
}

/// A profile.
#[derive(Debug)]
pub struct Rules {
    /// What calls without a rule get.
    pub default: u32,
    /// Calls newer than the profile, which is judged by number, get ENOSYS rather than the default: programs take EPERM for
    /// an answer, but fall back to an older call on ENOSYS. Not where the default lets calls through or hands them to
    /// a tracer or listener, who must see them.
    pub enosys_above_highest: bool,
    /// Each entry is the clauses of one rule, of which any may hold.
    pub rules: Vec<Vec<Clause>>,
    /// Which calls a rule is for: index in `rules`.
    pub calls: Vec<(Call, usize)>,
    /// The same for i386 alone: what its `socketcall` and `ipc` stand for.
    pub multiplexed: Vec<(Call, usize)>,
}

/// Reads `profile`. Names that no machine of ours knows are passed over: they are calls of other machines, or newer than us.
pub fn read(profile: &LinuxSeccomp) -> Result<Rules> {
    let default = match returns(profile.default_action(), profile.default_errno_ret()) {
        Ok(value) => value,
        Err(e) => bail!("defaultErrnoRet: {e}"),
    };
    let mut rules = Rules {
        default,
        enosys_above_highest: !is_permissive(profile.default_action()),
        rules: Vec::new(),
        calls: Vec::new(),
        multiplexed: Vec::new(),
    };
    let carried = multiplex::carried();
    for (n, entry) in profile.syscalls().iter().flatten().enumerate() {
        if let Err(e) = add(&mut rules, &carried, entry) {
            let first = entry.names().first().map_or("no name", String::as_str);
            bail!("syscalls[{n}] ({first}): {e}");
        }
    }
    Ok(rules)
}

fn add(rules: &mut Rules, carried: &[Carried], entry: &LinuxSyscall) -> Result<()> {
    let clauses = clauses(entry)?;
    let index = rules.rules.len();
    let mut multiplexed = Vec::new();
    for name in entry.names() {
        let Some(call) = numbers::by_name(name) else { continue };
        rules.calls.push((call, index));
        multiplexed.extend(carried.binary_search_by_key(&call, |row| row.call).map(|row| carried[row]));
    }
    let returns = returns(entry.action(), entry.errno_ret())?;
    let unconditional = clauses.iter().any(|clause| clause.conditions.is_empty());
    rules.rules.push(clauses);
    // The arguments of a multiplexed call lie in memory, where no filter can look. So a condition on them cannot be tested:
    // such a rule is left out if it lets the call through, and taken as unconditional if it does not.
    if unconditional || !is_permissive(entry.action()) {
        for Carried { carrier, condition, .. } in multiplexed {
            rules.multiplexed.push((carrier, rules.rules.len()));
            rules.rules.push(vec![Clause { conditions: vec![condition], returns }]);
        }
    }
    Ok(())
}

/// The clauses of one rule. All its conditions must hold, but if two of them look at the same argument, any will do: profiles
/// from before 2018 list the values of one argument so, and runc and crun read them so.
fn clauses(entry: &LinuxSyscall) -> Result<Vec<Clause>> {
    let returns = returns(entry.action(), entry.errno_ret())?;
    let mut conditions = Vec::new();
    let mut seen = [false; 6];
    let mut repeated = false;
    for (n, arg) in entry.args().iter().flatten().enumerate() {
        let Some(seen) = seen.get_mut(arg.index()) else {
            bail!("args[{n}]: index {} is above 5, the last argument", arg.index());
        };
        repeated |= std::mem::replace(seen, true);
        conditions.push(Condition::new(arg));
    }
    if repeated {
        return Ok(conditions.into_iter().map(|c| Clause { conditions: vec![c], returns }).collect());
    }
    Ok(vec![Clause { conditions, returns }])
}

/// The kernel's value for an action. EPERM is what runc gives where no errno is named.
fn returns(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    use LinuxSeccompAction::*;
    let errno = errno.unwrap_or(libc::EPERM as u32);
    Ok(match action {
        ScmpActErrno if errno > MAX_ERRNO => bail!("errnoRet {errno} is above {MAX_ERRNO}"),
        ScmpActTrace if errno > libc::SECCOMP_RET_DATA => bail!("errnoRet {errno} is above {}", u16::MAX),
        ScmpActErrno => libc::SECCOMP_RET_ERRNO | errno,
        ScmpActTrace => libc::SECCOMP_RET_TRACE | errno,
        ScmpActAllow => libc::SECCOMP_RET_ALLOW,
        ScmpActLog => libc::SECCOMP_RET_LOG,
        ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        ScmpActTrap => libc::SECCOMP_RET_TRAP,
        ScmpActKill | ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
    })
}

fn is_permissive(action: LinuxSeccompAction) -> bool {
    use LinuxSeccompAction::*;
    matches!(action, ScmpActAllow | ScmpActLog | ScmpActTrace | ScmpActNotify)
}
