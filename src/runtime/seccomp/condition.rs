//! Conditions on arguments, and the code that decides between the clauses of one call.
//!
//! Arguments have 64 bits, the accumulator 32. Where all clauses look at one argument and each takes an interval of it (most
//! do: a list of values, all but two), the code is a range tree over its upper half, then one over its lower half.
//! Anything else is a chain of comparisons in the order of the profile.
//!
//! Invariant: [`Condition::holds`] is the meaning; the code is checked against it.

use super::assemble::{Assembler, Place, Test};
use super::rules::Clause;
use crate::oci::runtime::{LinuxSeccompArg, LinuxSeccompOperator};

/// More clauses than this become a chain: the work for a tree is cubic in the worst case, and profiles are hostile.
const MAX_TREE: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    GreaterOrEqual,
    Greater,
    /// Equal in these bits.
    MaskedEqual(u64),
}

/// What one argument must be. Comparisons are unsigned, over 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    arg: u32,
    relation: Relation,
    value: u64,
}

impl Condition {
    /// From a profile; the caller has checked the index. With MASKED_EQ `value` is the mask and `valueTwo` what is compared.
    pub fn new(arg: &LinuxSeccompArg) -> Condition {
        let index = arg.index() as u32;
        let relation = match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => Relation::NotEqual,
            LinuxSeccompOperator::ScmpCmpLt => Relation::Less,
            LinuxSeccompOperator::ScmpCmpLe => Relation::LessOrEqual,
            LinuxSeccompOperator::ScmpCmpEq => Relation::Equal,
            LinuxSeccompOperator::ScmpCmpGe => Relation::GreaterOrEqual,
            LinuxSeccompOperator::ScmpCmpGt => Relation::Greater,
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                return Condition::masked(index, arg.value(), arg.value_two().unwrap_or(0));
            }
        };
        Condition { arg: index, relation, value: arg.value() }
    }

    /// Argument `arg` equals `value` in the bits of `mask`; other bits of `value` do not count (as in libseccomp).
    pub fn masked(arg: u32, mask: u64, value: u64) -> Condition {
        let relation = if mask == u64::MAX { Relation::Equal } else { Relation::MaskedEqual(mask) };
        Condition { arg, relation, value: value & mask }
    }

    /// Whether the condition holds for an argument of this value.
    pub fn holds(&self, value: u64) -> bool {
        match self.relation {
            Relation::Equal => value == self.value,
            Relation::NotEqual => value != self.value,
            Relation::Less => value < self.value,
            Relation::LessOrEqual => value <= self.value,
            Relation::GreaterOrEqual => value >= self.value,
            Relation::Greater => value > self.value,
            Relation::MaskedEqual(mask) => value & mask == self.value,
        }
    }

    /// The first values, in the upper and the lower half, from which on the answer may be another. `None` if there is no
    /// short list of them.
    fn borders(&self) -> Option<[Vec<u32>; 2]> {
        let (high, low) = halves(self.value);
        let next = |value: u32| value.checked_add(1);
        if let Relation::MaskedEqual(mask) = self.relation {
            let (mask_high, mask_low) = halves(mask);
            // Only a mask of leading ones takes an interval, here of the lower half, whatever the upper one is.
            let is_prefix = mask_low.leading_ones() == mask_low.count_ones();
            let lows = [Some(low), next(low | !mask_low)];
            return (mask_high == 0 && is_prefix).then(|| [Vec::new(), lows.into_iter().flatten().collect()]);
        }
        Some(
            [(high, next(high)), (low, next(low))].map(|(a, b)| [Some(a), b].into_iter().flatten().collect()),
        )
    }

    /// Goes to `yes` if the condition holds, else to `no`.
    fn assemble(&self, asm: &mut Assembler, yes: Place, no: Place) -> Place {
        let (high, low) = halves(self.value);
        let [low_word, high_word] = words(self.arg);
        let compare = |asm: &mut Assembler, test, yes, no| {
            let lower = asm.branch(test, low, yes, no);
            let lower = asm.load(low_word, lower);
            let upper = asm.branch(Test::Equal, high, lower, no);
            let upper = if test == Test::Equal { upper } else { asm.branch(Test::Greater, high, yes, upper) };
            asm.load(high_word, upper)
        };
        match self.relation {
            _ if yes == no => yes,
            Relation::Equal => compare(asm, Test::Equal, yes, no),
            Relation::NotEqual => compare(asm, Test::Equal, no, yes),
            Relation::Greater => compare(asm, Test::Greater, yes, no),
            Relation::GreaterOrEqual => compare(asm, Test::AtLeast, yes, no),
            Relation::LessOrEqual => compare(asm, Test::Greater, no, yes),
            Relation::Less => compare(asm, Test::AtLeast, no, yes),
            Relation::MaskedEqual(mask) => {
                let (mask_high, mask_low) = halves(mask);
                let lower = masked_half(asm, low_word, mask_low, low, yes, no);
                masked_half(asm, high_word, mask_high, high, lower, no)
            }
        }
    }
}

fn masked_half(asm: &mut Assembler, word: u32, mask: u32, value: u32, yes: Place, no: Place) -> Place {
    if mask == 0 || yes == no {
        return yes;
    }
    if value == 0 {
        let test = asm.branch(Test::AnyBit, mask, no, yes);
        return asm.load(word, test);
    }
    let mut test = asm.branch(Test::Equal, value, yes, no);
    if mask != u32::MAX {
        test = asm.mask(mask, test);
    }
    asm.load(word, test)
}

/// Returns what the first clause that holds says, or `otherwise`. An unconditional clause wins over all others wherever it
/// stands, as with libseccomp and so with all other runtimes.
pub fn decide(asm: &mut Assembler, clauses: &[&Clause], otherwise: u32) -> Place {
    if let Some(clause) = clauses.iter().find(|clause| clause.conditions.is_empty()) {
        return asm.finish(clause.returns);
    }
    if let Some(place) = by_value(asm, clauses, otherwise) {
        return place;
    }
    let mut next = asm.finish(otherwise);
    for clause in clauses.iter().rev() {
        let returns = asm.finish(clause.returns);
        next =
            clause.conditions.iter().rev().fold(returns, |yes, condition| condition.assemble(asm, yes, next));
    }
    next
}

/// The clauses as range trees, if all look at one argument and take intervals of it.
fn by_value(asm: &mut Assembler, clauses: &[&Clause], otherwise: u32) -> Option<Place> {
    if clauses.len() > MAX_TREE {
        return None;
    }
    let arg = clauses.first()?.conditions.first()?.arg;
    let (mut highs, mut lows) = (vec![0], vec![0]);
    for clause in clauses {
        let [condition] = clause.conditions.as_slice() else { return None };
        let [high, low] = condition.borders().filter(|_| condition.arg == arg)?;
        highs.extend(high);
        lows.extend(low);
    }
    for borders in [&mut highs, &mut lows] {
        borders.sort_unstable();
        borders.dedup();
    }
    // Between two borders all values are alike, so the first of them speaks for them.
    let verdict = |high: u32, low: u32| {
        let value = u64::from(high) << 32 | u64::from(low);
        clauses
            .iter()
            .find(|clause| clause.conditions[0].holds(value))
            .map_or(otherwise, |clause| clause.returns)
    };
    let [low_word, high_word] = words(arg);
    let mut known: Vec<(Vec<(u32, u32)>, Place)> = Vec::new();
    let mut upper: Vec<(u32, Place)> = Vec::new();
    for high in highs {
        let mut lower: Vec<(u32, u32)> = lows.iter().map(|&low| (low, verdict(high, low))).collect();
        lower.dedup_by_key(|(_, returns)| *returns);
        let place = match known.iter().find(|(other, _)| *other == lower) {
            Some(&(_, place)) => place,
            None => {
                let place = half(asm, low_word, &lower);
                known.push((lower, place));
                place
            }
        };
        upper.push((high, place));
    }
    upper.dedup_by_key(|(_, place)| *place);
    if let [(_, place)] = upper[..] {
        return Some(place);
    }
    let tree = asm.tree(&upper);
    Some(asm.load(high_word, tree))
}

fn half(asm: &mut Assembler, word: u32, ranges: &[(u32, u32)]) -> Place {
    let places: Vec<(u32, Place)> =
        ranges.iter().map(|&(start, returns)| (start, asm.finish(returns))).collect();
    if let [(_, place)] = places[..] {
        return place;
    }
    let tree = asm.tree(&places);
    asm.load(word, tree)
}

/// Upper and lower 32 bits.
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

/// Where the lower and the upper half of argument `arg` lie in struct seccomp_data (both machines are little-endian).
fn words(arg: u32) -> [u32; 2] {
    [16 + 8 * arg, 20 + 8 * arg]
}
