//! A classic BPF assembler that writes a program from its last instruction to its first. BPF jumps only forwards, so
//! whoever writes backwards knows the place of every target, and a distance, once written, never changes.
//!
//! Knows nothing of system calls. Its larger piece is [`Assembler::tree`]: a decision over ranges of the accumulator.
//!
//! Invariant: no conditional jump is further than 255 instructions (its offset is one byte); [`Assembler::near`] puts a
//! stepping stone in between where it would be.

use libc::sock_filter;

/// Furthest offset of a conditional jump: jt and jf are one byte.
const REACH: usize = u8::MAX as usize;

/// How many single values are tested one after the other before a range tree branches instead. One such test replaces
/// two branches, but adds a step for all values of its leaf.
const MAX_EXCEPTIONS: usize = 2;

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;

/// An instruction already written, counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

/// A comparison of the accumulator with a constant, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// Equal.
    Equal,
    /// Greater.
    Greater,
    /// Greater or equal.
    AtLeast,
    /// Any of these bits set.
    AnyBit,
}

impl Test {
    fn code(self) -> u16 {
        let operation = match self {
            Test::Equal => libc::BPF_JEQ,
            Test::Greater => libc::BPF_JGT,
            Test::AtLeast => libc::BPF_JGE,
            Test::AnyBit => libc::BPF_JSET,
        };
        (libc::BPF_JMP | operation | libc::BPF_K) as u16
    }
}

/// The program so far.
#[derive(Debug, Default)]
pub struct Assembler {
    reversed: Vec<sock_filter>,
    /// The newest place that returns each value.
    returns: Vec<(u32, Place)>,
}

impl Assembler {
    /// Decides by the range that the accumulator is in. `ranges` holds the first value of each range and where to go;
    /// the first range starts at 0, the last ends at `u32::MAX`, neighbours differ.
    pub fn tree(&mut self, ranges: &[(u32, Place)]) -> Place {
        // A leaf is a run of ranges `[home, single, home, single, home]`: tested by equality, not by two bounds.
        let mut leaves = Vec::with_capacity(ranges.len());
        let mut rest = ranges;
        while !rest.is_empty() {
            let mut len = 1;
            while len <= 2 * (MAX_EXCEPTIONS - 1) + 1
                && rest
                    .get(len + 1)
                    .is_some_and(|&(start, place)| place == rest[0].1 && start - rest[len].0 == 1)
            {
                len += 2;
            }
            let (leaf, others) = rest.split_at(len);
            leaves.push(leaf);
            rest = others;
        }
        self.subtree(&leaves)
    }

    fn subtree(&mut self, leaves: &[&[(u32, Place)]]) -> Place {
        if let [leaf] = leaves {
            let exceptions = leaf.iter().skip(1).step_by(2);
            return exceptions
                .rev()
                .fold(leaf[0].1, |home, &(value, place)| self.branch(Test::Equal, value, place, home));
        }
        let (lower, upper) = leaves.split_at(leaves.len() / 2);
        let border = upper[0][0].0;
        let upper = self.subtree(upper);
        let lower = self.subtree(lower);
        self.branch(Test::AtLeast, border, upper, lower)
    }

    /// Ends the program with `value`; an instruction that does so and is near enough is shared.
    pub fn finish(&mut self, value: u32) -> Place {
        if let Some(&(_, place)) = self.returns.iter().find(|(other, _)| *other == value)
            && self.distance(place) <= REACH
        {
            return place;
        }
        let place = self.push(RETURN, 0, 0, value);
        self.returns.retain(|(other, _)| *other != value);
        self.returns.push((value, place));
        place
    }

    /// Goes to `yes` if the accumulator passes `test` against `k`, else to `no`.
    pub fn branch(&mut self, test: Test, k: u32, yes: Place, no: Place) -> Place {
        if yes == no {
            return yes;
        }
        // A stepping stone for `no` moves this branch one further from `yes`.
        let yes = self.near(yes, 1);
        let no = self.near(no, 0);
        let [yes, no] = [yes, no].map(|place| u8::try_from(self.distance(place)).expect("near sees to it"));
        self.push(test.code(), yes, no, k)
    }

    /// Loads the 32-bit word at `offset` of struct seccomp_data, then goes to `next`.
    pub fn load(&mut self, offset: u32, next: Place) -> Place {
        self.fall_into(next);
        self.push((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, offset)
    }

    /// Clears the bits of the accumulator that are not in `mask`, then goes to `next`.
    pub fn mask(&mut self, mask: u32, next: Place) -> Place {
        self.fall_into(next);
        self.push((libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, 0, 0, mask)
    }

    /// How many instructions there are.
    pub fn len(&self) -> usize {
        self.reversed.len()
    }

    /// The program, first instruction first.
    pub fn into_program(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Place {
        self.reversed.push(sock_filter { code, jt, jf, k });
        Place(self.reversed.len() - 1)
    }

    /// The jump offset from the next instruction written to `place`.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len() - 1 - place.0
    }

    /// A place equivalent to `place` that can still be reached after `reserve` more instructions.
    fn near(&mut self, place: Place, reserve: usize) -> Place {
        if self.distance(place) + reserve <= REACH {
            return place;
        }
        let target = self.reversed[place.0];
        if target.code != RETURN {
            return self.jump(place);
        }
        let shared = self.finish(target.k);
        // The shared one may be in reach, but not after `reserve`; a copy of one's own always is.
        if self.distance(shared) + reserve <= REACH { shared } else { self.push(RETURN, 0, 0, target.k) }
    }

    /// Makes sure that whatever is written next continues with `place`.
    fn fall_into(&mut self, place: Place) {
        if self.distance(place) > 0 {
            self.jump(place);
        }
    }

    fn jump(&mut self, place: Place) -> Place {
        let offset = u32::try_from(self.distance(place)).expect("a program has fewer than 2^32 instructions");
        self.push(JUMP, 0, 0, offset)
    }
}
