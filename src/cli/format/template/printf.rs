//! Go's `print`, `println` and `printf`, for JSON values.
//!
//! A verb that does not fit its value, a missing or a spare argument is no error: Go says so in the output, and so do we.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::Value;

use super::value::{self, Val};
use crate::cli::format::{number, quote};

/// Go refuses wider fields, and so the template cannot ask for gigabytes.
const MAX_WIDTH: i64 = 1_000_000;

/// `fmt.Sprint`: a space between two values neither of which is a text.
pub(super) fn print(arguments: &[Val<'_>]) -> String {
    let mut out = String::new();
    for (i, argument) in arguments.iter().enumerate() {
        if i > 0 && !argument.is_text() && !arguments[i - 1].is_text() {
            out.push(' ');
        }
        push(argument, &mut out);
    }
    out
}

/// `fmt.Sprintln`: a space between all values, and a new line.
pub(super) fn println(arguments: &[Val<'_>]) -> String {
    let mut out = String::new();
    for (i, argument) in arguments.iter().enumerate() {
        out.push_str(if i > 0 { " " } else { "" });
        push(argument, &mut out);
    }
    out.push('\n');
    out
}

/// Inside of functions, what is missing is nil.
fn push(argument: &Val<'_>, out: &mut String) {
    match argument {
        Val::Missing => out.push_str("<nil>"),
        argument => argument.print(out),
    }
}

/// What stands between `%` and the verb.
#[derive(Default, Clone)]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `fmt.Sprintf`.
pub(super) fn printf(format: &str, arguments: &[Val<'_>]) -> String {
    let mut out = String::new();
    let mut source = Source { arguments, next: 0, is_reordered: false };
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let flags = directive(&mut chars, &mut source, &mut out);
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match source.take() {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(argument) => out.push_str(&one(verb, &flags, argument)),
            },
        }
    }
    if !source.is_reordered && source.next < arguments.len() {
        let spare: Vec<String> = arguments[source.next..].iter().map(described).collect();
        out.push_str(&format!("%!(EXTRA {})", spare.join(", ")));
    }
    out
}

/// The arguments, taken in order unless `%[n]` says otherwise.
struct Source<'v, 'a> {
    arguments: &'v [Val<'a>],
    next: usize,
    is_reordered: bool,
}

impl<'v, 'a> Source<'v, 'a> {
    fn take(&mut self) -> Option<&'v Val<'a>> {
        let argument = self.arguments.get(self.next);
        self.next = self.next.saturating_add(1);
        argument
    }

    /// Reads `[n]`.
    fn reorder(&mut self, chars: &mut Peekable<Chars<'_>>) {
        if chars.next_if_eq(&'[').is_some() {
            let n = digits(chars);
            chars.next_if_eq(&']');
            self.is_reordered = true;
            self.next = n.and_then(|n| n.checked_sub(1)).unwrap_or(usize::MAX);
        }
    }

    /// A width or precision given as `*`.
    fn amount(&mut self) -> Option<i64> {
        let amount = self.take()?.as_value()?.as_i64()?;
        (-MAX_WIDTH..=MAX_WIDTH).contains(&amount).then_some(amount)
    }
}

fn directive(chars: &mut Peekable<Chars<'_>>, source: &mut Source<'_, '_>, out: &mut String) -> Flags {
    let mut flags = Flags::default();
    loop {
        match chars.peek() {
            Some('-') => flags.minus = true,
            Some('+') => flags.plus = true,
            Some('#') => flags.sharp = true,
            Some(' ') => flags.space = true,
            Some('0') => flags.zero = true,
            _ => break,
        }
        chars.next();
    }
    source.reorder(chars);
    if chars.next_if_eq(&'*').is_some() {
        match source.amount() {
            Some(width) => {
                flags.minus |= width < 0;
                flags.width = usize::try_from(width.abs()).ok();
            }
            None => out.push_str("%!(BADWIDTH)"),
        }
    } else {
        flags.width = digits(chars);
    }
    if chars.next_if_eq(&'.').is_some() {
        source.reorder(chars);
        flags.precision = if chars.next_if_eq(&'*').is_some() {
            let precision = source.amount().and_then(|p| usize::try_from(p).ok());
            if precision.is_none() {
                out.push_str("%!(BADPREC)");
            }
            precision
        } else {
            Some(digits(chars).unwrap_or(0))
        };
    }
    source.reorder(chars);
    flags
}

fn digits(chars: &mut Peekable<Chars<'_>>) -> Option<usize> {
    let mut n = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        n = Some((n.unwrap_or(0) * 10 + digit as usize).min(MAX_WIDTH as usize));
    }
    n
}

/// One argument under one verb.
fn one(verb: char, flags: &Flags, argument: &Val<'_>) -> String {
    match argument {
        _ if verb == 'T' => padded(argument.as_value().map_or("<nil>", value::type_name).to_owned(), flags),
        Val::Is(value) => apply(verb, flags, value),
        Val::Nil(text) if matches!(verb, 'v' | 's' | 'd') && *text != "<nil>" => {
            padded((*text).to_owned(), flags)
        }
        _ if verb == 'v' => padded("<nil>".to_owned(), flags),
        _ => format!("%!{verb}(<nil>)"),
    }
}

/// A list and a map pass the verb on to what they hold.
fn apply(verb: char, flags: &Flags, value: &Value) -> String {
    match value {
        Value::Null if verb == 'v' => padded("<nil>".to_owned(), flags),
        Value::Null => format!("%!{verb}(<nil>)"),
        Value::Bool(b) if matches!(verb, 't' | 'v') => padded(b.to_string(), flags),
        Value::String(s) => text(verb, flags, s).map_or_else(|| bad(verb, value), |s| padded(s, flags)),
        Value::Number(n) if n.is_f64() => {
            let float = n.as_f64().and_then(|f| fraction(verb, flags, f));
            float.map_or_else(|| bad(verb, value), |s| padded(s, flags))
        }
        Value::Number(n) => {
            let whole = n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
            whole.and_then(|n| integer(verb, flags, n)).map_or_else(|| bad(verb, value), |s| padded(s, flags))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|v| apply(verb, flags, v)).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) if value::is_struct(map) => {
            let fields = map.iter().map(|(k, v)| {
                let name = if flags.plus || flags.sharp { format!("{k}:") } else { String::new() };
                format!("{name}{}", one(verb, flags, &Val::named(k, v)))
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let entry = |k: &String| {
                let key = apply(verb, flags, &Value::String(k.clone()));
                format!("{key}:{}", apply(verb, flags, &map[k]))
            };
            let entries: Vec<String> = value::sorted_keys(map).into_iter().map(entry).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Bool(_) => bad(verb, value),
    }
}

fn bad(verb: char, value: &Value) -> String {
    format!("%!{verb}({}={})", value::type_name(value), shown(value))
}

/// A spare argument, as Go shows it.
fn described(argument: &Val<'_>) -> String {
    match argument.as_value() {
        None => "<nil>".to_owned(),
        Some(value) => format!("{}={}", value::type_name(value), shown(value)),
    }
}

fn shown(value: &Value) -> String {
    let mut out = String::new();
    value::print(value, &mut out);
    out
}

fn text(verb: char, flags: &Flags, text: &str) -> Option<String> {
    let cut: String = match flags.precision {
        Some(n) => text.chars().take(n).collect(),
        None => text.to_owned(),
    };
    let hex = |upper: bool| {
        let separator = if flags.space { " " } else { "" };
        let pairs: Vec<String> =
            cut.bytes().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect();
        pairs.join(separator)
    };
    match verb {
        'v' if flags.sharp => Some(quote::go(&cut)),
        's' | 'v' => Some(cut),
        'q' if flags.sharp && !cut.contains(['`', '\n', '\r']) => Some(format!("`{cut}`")),
        'q' if flags.plus => Some(quote::go_ascii(&cut)),
        'q' => Some(quote::go(&cut)),
        'x' => Some(hex(false)),
        'X' => Some(hex(true)),
        _ => None,
    }
}

fn integer(verb: char, flags: &Flags, n: i128) -> Option<String> {
    let magnitude = n.unsigned_abs();
    let (prefix, digits) = match verb {
        'd' | 'v' => ("", format!("{magnitude}")),
        'x' => (if flags.sharp { "0x" } else { "" }, format!("{magnitude:x}")),
        'X' => (if flags.sharp { "0X" } else { "" }, format!("{magnitude:X}")),
        'o' => (if flags.sharp { "0" } else { "" }, format!("{magnitude:o}")),
        'O' => ("0o", format!("{magnitude:o}")),
        'b' => (if flags.sharp { "0b" } else { "" }, format!("{magnitude:b}")),
        'c' | 'q' | 'U' => return Some(code_point(verb, n)),
        _ => return None,
    };
    let sign = sign(n < 0, flags);
    let mut least = flags.precision.unwrap_or(0);
    if flags.zero && !flags.minus && flags.precision.is_none() {
        // Zeros go between the sign and the digits.
        least = flags.width.unwrap_or(0).saturating_sub(sign.len());
    }
    Some(format!("{sign}{prefix}{digits:0>least$}"))
}

fn code_point(verb: char, n: i128) -> String {
    let c = u32::try_from(n).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    match verb {
        'c' => c.to_string(),
        'U' => format!("U+{n:04X}"),
        _ => quote::go_char(c),
    }
}

fn sign(is_negative: bool, flags: &Flags) -> &'static str {
    match (is_negative, flags.plus, flags.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    }
}

fn fraction(verb: char, flags: &Flags, n: f64) -> Option<String> {
    let magnitude = n.abs();
    // Rust's formatting takes at most 16 bits of precision; no double has a thousand decimals that differ from zero.
    let decimals = flags.precision.unwrap_or(6).min(1100);
    let digits = match verb {
        'f' | 'F' => format!("{magnitude:.decimals$}"),
        'e' => number::scientific(magnitude, decimals),
        'E' => number::scientific(magnitude, decimals).to_uppercase(),
        'g' | 'G' | 'v' => {
            let digits = flags
                .precision
                .map_or_else(|| number::shortest(magnitude), |p| number::general(magnitude, p.min(1100)));
            if verb == 'G' { digits.to_uppercase() } else { digits }
        }
        _ => return None,
    };
    let sign = sign(n.is_sign_negative(), flags);
    let least =
        if flags.zero && !flags.minus { flags.width.unwrap_or(0).saturating_sub(sign.len()) } else { 0 };
    Some(format!("{sign}{}{digits}", "0".repeat(least.saturating_sub(digits.len()))))
}

/// Fills up to the width, counted in characters.
fn padded(text: String, flags: &Flags) -> String {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if flags.minus {
        format!("{text}{}", " ".repeat(missing))
    } else {
        format!("{}{text}", if flags.zero { "0" } else { " " }.repeat(missing))
    }
}
