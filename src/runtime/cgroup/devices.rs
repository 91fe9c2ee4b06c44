//! Device rules: a list in which the last word counts, turned into v1's text or into a v2 BPF program. Pure.
//!
//! Invariant: each of read, write and mknod is judged by itself, by the last rule that speaks of it; a request is
//! granted if all that it asks for is. The default, where no rule speaks, is to allow: that is what a new cgroup does.

use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;

use crate::oci::runtime::LinuxDeviceCgroup;
use crate::oci::runtime::LinuxDeviceType;
use crate::sys::bpf::Insn;

/// BPF_DEVCG_ACC_*.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// BPF_DEVCG_DEV_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block = 1,
    Char = 2,
}

/// One rule; `None` stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Rule {
    /// Whether this rule speaks of every device and every access, so that nothing before it matters.
    fn is_total(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }
}

/// Reads the rules of a runtime spec.
pub fn rules(list: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    list.iter().map(|rule| read(rule).map_err(|e| anyhow!("cannot use device rule {rule}: {e}"))).collect()
}

fn read(rule: &LinuxDeviceCgroup) -> Result<Rule> {
    let number = |n: Option<i64>| -> Result<Option<u32>> {
        match n {
            None | Some(-1) => Ok(None),
            Some(n) => Ok(Some(u32::try_from(n).map_err(|_| anyhow!("{n} is not a device number"))?)),
        }
    };
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(Kind::Block),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(Kind::Char),
        LinuxDeviceType::P => bail!("a fifo is not a device"),
    };
    let mut access = 0;
    for letter in rule.access().as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => bail!("{letter:?} is none of r, w, m"),
        };
    }
    // The spec leaves a missing access open; the peers take it for all.
    let access = if access == 0 { ALL } else { access };
    Ok(Rule { allow: rule.allow(), kind, major: number(rule.major())?, minor: number(rule.minor())?, access })
}

/// What to write on v1: (`devices.deny` or `devices.allow`, text), in this order.
///
/// The kernel keeps a default and exceptions to it, so not every list can be said; one that cannot is an error, never
/// an approximation.
pub fn v1_text(rules: &[Rule]) -> Result<Vec<(&'static str, String)>> {
    let mut allow_by_default = true;
    let mut exceptions: Vec<(Kind, Rule)> = Vec::new();
    for rule in rules {
        if rule.is_total() {
            allow_by_default = rule.allow;
            exceptions.clear();
            continue;
        }
        // "a 1:3 r" is taken for "a" by the kernel, numbers and letters ignored: say b and c instead.
        let kinds = rule.kind.map_or_else(|| vec![Kind::Block, Kind::Char], |kind| vec![kind]);
        for kind in kinds {
            if rule.allow == allow_by_default {
                withdraw(&mut exceptions, kind, rule)?;
            } else {
                exceptions.push((kind, *rule));
            }
        }
    }
    let mut lines = Vec::new();
    if !allow_by_default {
        lines.push(("devices.deny", "a".to_owned()));
    }
    let file = if allow_by_default { "devices.deny" } else { "devices.allow" };
    lines.extend(exceptions.iter().map(|(kind, rule)| (file, text(*kind, rule))));
    Ok(lines)
}

/// Takes what `rule` says out of the exceptions, which `rule` goes back from.
fn withdraw(exceptions: &mut Vec<(Kind, Rule)>, kind: Kind, rule: &Rule) -> Result<()> {
    let disjoint = |a: Option<u32>, b: Option<u32>| a.is_some() && b.is_some() && a != b;
    let covers = |a: Option<u32>, b: Option<u32>| a.is_none() || a == b;
    for (other_kind, other) in exceptions.iter_mut() {
        let apart = *other_kind != kind
            || other.access & rule.access == 0
            || disjoint(rule.major, other.major)
            || disjoint(rule.minor, other.minor);
        if apart {
            continue;
        }
        if !covers(rule.major, other.major) || !covers(rule.minor, other.minor) {
            let verb = if rule.allow { "allow" } else { "deny" };
            bail!("cgroup v1 cannot {verb} {} and not {}", text(kind, rule), text(kind, other));
        }
        other.access &= !rule.access;
    }
    exceptions.retain(|(_, other)| other.access != 0);
    Ok(())
}

fn text(kind: Kind, rule: &Rule) -> String {
    let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let letter = if kind == Kind::Block { 'b' } else { 'c' };
    let access: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .iter()
        .filter(|(bit, _)| rule.access & bit != 0)
        .map(|x| x.1)
        .collect();
    format!("{letter} {}:{} {access}", number(rule.major), number(rule.minor))
}

/// Opcodes (linux/bpf_common.h, linux/bpf.h): class | operation | immediate.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP: u8 = 0x05;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_ANY_BIT: u8 = 0x45;
const EXIT: u8 = 0x95;

/// Registers: the verdict, the context, and what we keep in the others.
const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn insn(code: u8, to: u8, from: u8, offset: usize, immediate: u32) -> Insn {
    // Offsets here are at most 8.
    Insn { code, registers: to | from << 4, offset: offset as i16, immediate: immediate as i32 }
}

/// The v2 program: called by the kernel for each access, it returns 1 to allow.
///
/// It goes from the last rule to the first with the set of what is still asked for: a matching denial of any of it
/// ends in 0, a matching permission takes its part out, and an empty set ends in 1.
pub fn program(rules: &[Rule]) -> Vec<Insn> {
    // struct bpf_cgroup_dev_ctx { u32 access_type /* access << 16 | kind */, major, minor }
    let mut code = vec![
        insn(LOAD_WORD, KIND, CONTEXT, 0, 0),
        insn(MOVE_REGISTER, ASKED, KIND, 0, 0),
        insn(SHIFT_RIGHT, ASKED, 0, 0, 16),
        insn(AND, KIND, 0, 0, 0xffff),
        insn(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        insn(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    let verdict = |allow: bool| [insn(MOVE, VERDICT, 0, 0, u32::from(allow)), insn(EXIT, 0, 0, 0, 0)];
    for rule in rules.iter().rev() {
        if rule.is_total() {
            code.extend(verdict(rule.allow));
            // The verifier refuses a program with code that cannot be reached.
            return code;
        }
        let mut body = Vec::with_capacity(4);
        match (rule.allow, rule.access) {
            (_, ALL) => {}
            (true, access) => {
                body.push(insn(AND, ASKED, 0, 0, u32::from(ALL & !access)));
                body.push(insn(JUMP_NOT_EQUAL, ASKED, 0, 2, 0));
            }
            (false, access) => {
                body.push(insn(JUMP_ANY_BIT, ASKED, 0, 1, u32::from(access)));
                body.push(insn(JUMP, 0, 0, 2, 0));
            }
        }
        body.extend(verdict(rule.allow));
        let tests = [(KIND, rule.kind.map(|k| k as u32)), (MAJOR, rule.major), (MINOR, rule.minor)];
        let tests: Vec<(u8, u32)> = tests.iter().filter_map(|(r, v)| v.map(|v| (*r, v))).collect();
        for (n, (register, value)) in tests.iter().enumerate() {
            code.push(insn(JUMP_NOT_EQUAL, *register, 0, tests.len() - n - 1 + body.len(), *value));
        }
        code.extend(body);
    }
    code.extend(verdict(true));
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "+c 1:3 rwm" or "-a *:* rwm".
    fn parse(text: &str) -> Vec<Rule> {
        let number = |t: &str| t.parse().ok();
        text.lines()
            .map(|line| {
                let mut words = line[1..].split_whitespace();
                let kind = match words.next().unwrap() {
                    "b" => Some(Kind::Block),
                    "c" => Some(Kind::Char),
                    _ => None,
                };
                let (major, minor) = words.next().unwrap().split_once(':').unwrap();
                let access = words.next().unwrap().chars().fold(0, |a, c| a | 1 << "mrw".find(c).unwrap());
                let allow = line.starts_with('+');
                Rule { allow, kind, major: number(major), minor: number(minor), access }
            })
            .collect()
    }

    /// Runs a program as the kernel would; a jump out of it or a missing exit panics.
    fn run(code: &[Insn], context: [u32; 3]) -> u64 {
        let mut r = [0u64; 16];
        let mut at = 0;
        loop {
            let i = code[at];
            let (to, from) = ((i.registers & 15) as usize, (i.registers >> 4) as usize);
            let value = i.immediate as u64;
            at += 1;
            let jump = match i.code {
                JUMP => true,
                JUMP_NOT_EQUAL => r[to] != value,
                JUMP_ANY_BIT => r[to] & value != 0,
                _ => false,
            };
            match i.code {
                LOAD_WORD => r[to] = context[i.offset as usize / 4].into(),
                MOVE => r[to] = value,
                MOVE_REGISTER => r[to] = r[from],
                AND => r[to] &= value,
                SHIFT_RIGHT => r[to] >>= value,
                EXIT => return r[0],
                _ => at += if jump { i.offset as usize } else { 0 },
            }
        }
    }

    /// The invariant of this module, said again in the simplest way.
    fn expected(rules: &[Rule], kind: u32, major: u32, minor: u32, asked: u8) -> bool {
        [MKNOD, READ, WRITE].iter().filter(|bit| asked & **bit != 0).all(|bit| {
            rules
                .iter()
                .rev()
                .find(|r| {
                    r.access & bit != 0
                        && r.kind.is_none_or(|k| k as u32 == kind)
                        && r.major.is_none_or(|n| n == major)
                        && r.minor.is_none_or(|n| n == minor)
                })
                .is_none_or(|r| r.allow)
        })
    }

    const LISTS: &[&str] = &[
        "",
        "-a *:* rwm",
        "-a *:* rwm\n+c *:* m\n+b *:* m\n+c 1:3 rwm\n+c 1:5 rwm\n+c 136:* rwm",
        "-a *:* rwm\n+c 1:3 r\n+c 1:3 w",
        "-a *:* rwm\n+c *:* rwm\n-c 1:3 r",
        "-a *:* rwm\n+a 1:* rw\n-b 1:3 w\n+b 1:3 m",
        "-c 1:3 rw\n-b 136:* rwm",
        "+c 1:3 rwm\n-a *:* rwm\n+a *:* rwm\n-c *:5 w",
    ];

    #[test]
    fn the_program_says_what_the_rules_say() {
        for list in LISTS {
            let rules = parse(list);
            let code = program(&rules);
            for kind in [1, 2] {
                for major in [0, 1, 136] {
                    for minor in [0, 3, 5] {
                        for asked in 1..=ALL {
                            let context = [u32::from(asked) << 16 | kind, major, minor];
                            let want = expected(&rules, kind, major, minor, asked);
                            assert_eq!(run(&code, context), u64::from(want), "{list}\n{context:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn v1_says_it_or_refuses() {
        let check = |list: &str, expected: Result<&str, &str>| {
            let said = v1_text(&parse(list));
            let said = said
                .map(|l| l.iter().map(|(f, t)| format!("{} {t}", &f[8..])).collect::<Vec<_>>().join("\n"));
            match (said, expected) {
                (Ok(said), Ok(expected)) => assert_eq!(said, expected, "{list}"),
                (Err(e), Err(expected)) => assert_eq!(e.to_string(), expected, "{list}"),
                (said, _) => panic!("{list}: {said:?}"),
            }
        };
        check(LISTS[0], Ok(""));
        check(LISTS[1], Ok("deny a"));
        check("-a *:* rwm\n+c *:* m\n+a 1:3 rw", Ok("deny a\nallow c *:* m\nallow b 1:3 rw\nallow c 1:3 rw"));
        check("-a *:* rwm\n+c 1:3 rwm\n+c 1:5 rwm\n-c 1:* w\n-c 1:3 rm", Ok("deny a\nallow c 1:5 rm"));
        check("-a *:* rwm\n+c *:* m\n-c 1:3 rw", Ok("deny a\nallow c *:* m"));
        check("-c 1:3 rw", Ok("deny c 1:3 rw"));
        check("-c 1:3 rw\n+a *:* rwm", Ok(""));
        check(LISTS[4], Err("cgroup v1 cannot deny c 1:3 r and not c *:* rwm"));
    }

    #[test]
    fn what_the_spec_may_hold() {
        let check = |json: &str, expected: Result<&str, &str>| {
            let got = rules(&[serde_json::from_str(json).unwrap()]);
            match expected {
                Ok(text) => assert_eq!(got.unwrap(), parse(text), "{json}"),
                Err(text) => assert_eq!(got.unwrap_err().to_string(), text, "{json}"),
            }
        };
        check(r#"{"allow":false}"#, Ok("-a *:* rwm"));
        check(r#"{"allow":true,"type":"u","major":1,"minor":-1,"access":"rm"}"#, Ok("+c 1:* rm"));
        check(
            r#"{"allow":true,"type":"c","major":-7,"access":"r"}"#,
            Err("cannot use device rule c -7:* r: -7 is not a device number"),
        );
        check(
            r#"{"allow":true,"type":"b","access":"x"}"#,
            Err("cannot use device rule b *:* x: 'x' is none of r, w, m"),
        );
    }
}
