//! The functions of a template: Go's builtins and those that docker adds.
//!
//! `printf` has a file of its own. `call` is left out: data holds no functions.

use std::cmp::Ordering;

use serde_json::Value;

use super::printf;
use super::value::Val;
use crate::cli::format::{json, quote};

/// Why a call went wrong.
pub(super) enum Wrong {
    /// The argument of this index has the wrong type.
    Argument(usize, String),
    /// Anything else.
    Call(String),
}

impl From<String> for Wrong {
    fn from(why: String) -> Wrong {
        Wrong::Call(why)
    }
}

impl From<&str> for Wrong {
    fn from(why: &str) -> Wrong {
        Wrong::Call(why.to_owned())
    }
}

type Answer<'a> = Result<Val<'a>, Wrong>;

/// Names, and how many arguments each takes.
const FUNCTIONS: &[(&str, usize, usize)] = &[
    ("and", 1, MANY),
    ("eq", 1, MANY),
    ("ge", 2, 2),
    ("gt", 2, 2),
    ("html", 0, MANY),
    ("index", 1, MANY),
    ("join", 2, 2),
    ("js", 0, MANY),
    ("json", 1, 1),
    ("le", 2, 2),
    ("len", 1, 1),
    ("lower", 1, 1),
    ("lt", 2, 2),
    ("ne", 2, 2),
    ("not", 1, 1),
    ("or", 1, MANY),
    ("pad", 3, 3),
    ("print", 0, MANY),
    ("printf", 1, MANY),
    ("println", 0, MANY),
    ("slice", 1, 4),
    ("split", 2, 2),
    ("title", 1, 1),
    ("truncate", 2, 2),
    ("upper", 1, 1),
    ("urlquery", 0, MANY),
];

const MANY: usize = usize::MAX;

/// Spaces that `pad` adds at most on one side: the number comes from the template.
const MAX_PAD: i64 = 10_000;

/// Whether there is such a function.
pub(super) fn is_known(name: &str) -> bool {
    FUNCTIONS.iter().any(|(n, ..)| *n == name)
}

/// Whether a function leaves the heading of its column as it is: `table {{upper .Names}}` is headed NAMES.
pub(super) fn is_transparent(name: &str) -> bool {
    ["json", "join", "lower", "pad", "split", "title", "truncate", "upper"].contains(&name)
}

/// Refuses a call with too few or too many arguments.
pub(super) fn check_count(name: &str, n: usize) -> Result<(), String> {
    let Some((_, least, most)) = FUNCTIONS.iter().find(|(other, ..)| *other == name) else {
        return Err(format!("function {name:?} not defined"));
    };
    if (*least..=*most).contains(&n) {
        return Ok(());
    }
    let want = if least == most { format!("{least}") } else { format!("at least {least}") };
    Err(format!("wrong number of args for {name}: want {want} got {n}"))
}

/// Calls a function whose number of arguments was checked. `is_row`: the first argument is a whole row.
pub(super) fn call<'a>(name: &str, arguments: &[Val<'a>], is_row: bool) -> Answer<'a> {
    match name {
        // The last value decides where none before did.
        "and" | "or" => Ok(arguments.last().cloned().unwrap_or(Val::Missing)),
        "not" => Ok(Val::owned(!arguments[0].is_true())),
        "eq" => equal_any(arguments),
        "ne" => Ok(Val::owned(!equal(&arguments[0], &arguments[1])?)),
        "lt" => order(arguments, Ordering::is_lt),
        "le" => order(arguments, Ordering::is_le),
        "gt" => order(arguments, Ordering::is_gt),
        "ge" => order(arguments, Ordering::is_ge),
        "len" => length(&arguments[0]),
        "index" => arguments[1..].iter().try_fold(arguments[0].clone(), |whole, key| index(&whole, key)),
        "slice" => slice(arguments),
        "print" => Ok(Val::owned(printf::print(arguments))),
        "println" => Ok(Val::owned(printf::println(arguments))),
        "printf" => Ok(Val::owned(printf::printf(text(arguments, 0)?, &arguments[1..]))),
        "html" => Ok(Val::owned(escape_html(&printf::print(arguments)))),
        "js" => Ok(Val::owned(escape_js(&printf::print(arguments)))),
        "urlquery" => Ok(Val::owned(escape_query(&printf::print(arguments)))),
        "json" if is_row => Ok(Val::owned(json::row(arguments[0].as_value().unwrap_or(&Value::Null)))),
        "json" => Ok(Val::owned(json::compact(arguments[0].as_value().unwrap_or(&Value::Null)))),
        "lower" => Ok(Val::owned(text(arguments, 0)?.to_lowercase())),
        "upper" => Ok(Val::owned(text(arguments, 0)?.to_uppercase())),
        "title" => Ok(Val::owned(title(text(arguments, 0)?))),
        "split" => split(text(arguments, 0)?, text(arguments, 1)?),
        "join" => join(arguments),
        "truncate" => truncate(text(arguments, 0)?, whole_number(arguments, 1)?),
        "pad" => pad(arguments),
        _ => Err(format!("function {name:?} not defined").into()),
    }
}

fn wrong_type(arguments: &[Val<'_>], i: usize, expected: &str) -> Wrong {
    Wrong::Argument(i, format!("wrong type for value; expected {expected}; got {}", arguments[i].type_name()))
}

fn text<'v>(arguments: &'v [Val<'_>], i: usize) -> Result<&'v str, Wrong> {
    match arguments[i].as_value() {
        Some(Value::String(text)) => Ok(text),
        _ => Err(wrong_type(arguments, i, "string")),
    }
}

fn whole_number(arguments: &[Val<'_>], i: usize) -> Result<i64, Wrong> {
    arguments[i].as_value().and_then(Value::as_i64).ok_or_else(|| wrong_type(arguments, i, "int"))
}

fn equal_any<'a>(arguments: &[Val<'a>]) -> Answer<'a> {
    if arguments.len() == 1 {
        return Err("missing argument for comparison".into());
    }
    for other in &arguments[1..] {
        if equal(&arguments[0], other)? {
            return Ok(Val::owned(true));
        }
    }
    Ok(Val::owned(false))
}

/// Go's rule: null equals null only, simple values are compared with their like, others not at all. Whole and
/// fractional numbers compare here, since JSON does not keep the difference.
fn equal(a: &Val<'_>, b: &Val<'_>) -> Result<bool, Wrong> {
    match (a.as_value(), b.as_value()) {
        (None, None) => Ok(true),
        (None, _) | (_, None) => Ok(false),
        (Some(Value::Array(_) | Value::Object(_)), _) | (_, Some(Value::Array(_) | Value::Object(_))) => {
            Err("non-comparable type".into())
        }
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => Ok(a == b),
        (Some(a), Some(b)) => {
            compare(a, b).map(Ordering::is_eq).ok_or_else(|| "incompatible types for comparison".into())
        }
    }
}

fn order<'a>(arguments: &[Val<'a>], is: fn(Ordering) -> bool) -> Answer<'a> {
    let (a, b) = (arguments[0].as_value(), arguments[1].as_value());
    let is_ordered = |v: Option<&Value>| matches!(v, Some(Value::Number(_) | Value::String(_)));
    if !is_ordered(a) || !is_ordered(b) {
        return Err("invalid type for comparison".into());
    }
    match a.zip(b).and_then(|(a, b)| compare(a, b)) {
        Some(ordering) => Ok(Val::owned(is(ordering))),
        None => Err("incompatible types for comparison".into()),
    }
}

/// The order of two numbers or two texts.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    let whole = |v: &Value| v.as_i64().map(i128::from).or_else(|| v.as_u64().map(i128::from));
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(x), Value::Number(y)) => match (whole(a), whole(b)) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => x.as_f64()?.partial_cmp(&y.as_f64()?),
        },
        _ => None,
    }
}

fn length<'a>(value: &Val<'_>) -> Answer<'a> {
    match value.as_value() {
        None if matches!(value, Val::Missing) => Err("len of nil pointer".into()),
        None => Ok(Val::owned(0)),
        Some(Value::String(text)) => Ok(Val::owned(text.len())),
        Some(Value::Array(items)) => Ok(Val::owned(items.len())),
        Some(Value::Object(map)) => Ok(Val::owned(map.len())),
        Some(_) => Err(format!("len of type {}", value.type_name()).into()),
    }
}

fn index<'a>(whole: &Val<'a>, key: &Val<'_>) -> Answer<'a> {
    match (whole, key.as_value()) {
        (Val::Missing, _) => Err("index of untyped nil".into()),
        // A nil map has no entries, a nil list no items.
        (Val::Nil(_), Some(Value::String(_))) => Ok(Val::owned("")),
        (Val::Nil(_), _) => {
            Err(format!("index out of range: {}", printf::print(std::slice::from_ref(key))).into())
        }
        (Val::Is(value), key_value) => match (&**value, key_value) {
            (Value::Object(map), Some(Value::String(key))) => {
                let found = whole.part(key, |v| v.get(key));
                // A map of texts has an empty text for a missing key: so is a label that is not set.
                let is_texts = map.values().all(Value::is_string);
                Ok(found.unwrap_or(if is_texts { Val::owned("") } else { Val::Missing }))
            }
            (Value::Object(_), _) => {
                Err(format!("value has type {}; should be string", key.type_name()).into())
            }
            (Value::Array(_) | Value::String(_), Some(key)) => {
                let Some(at) = key.as_i64() else {
                    return Err(format!(
                        "cannot index slice/array with type {}",
                        super::value::type_name(key)
                    )
                    .into());
                };
                let item = usize::try_from(at).ok().and_then(|at| match &**value {
                    Value::String(text) => text.as_bytes().get(at).map(|b| Val::owned(*b)),
                    _ => whole.part("", |v| v.get(at)),
                });
                item.ok_or_else(|| format!("index out of range: {at}").into())
            }
            (Value::Array(_) | Value::String(_), None) => Err("cannot index slice/array with nil".into()),
            _ => Err(format!("can't index item of type {}", whole.type_name()).into()),
        },
    }
}

fn slice<'a>(arguments: &[Val<'a>]) -> Answer<'a> {
    let n_items = match arguments[0].as_value() {
        Some(Value::String(text)) => text.len(),
        Some(Value::Array(items)) => items.len(),
        _ => return Err(format!("can't slice item of type {}", arguments[0].type_name()).into()),
    };
    let bound = |i: usize, default: usize| match arguments.get(i) {
        None => Ok(default),
        Some(_) => {
            let at = whole_number(arguments, i)?;
            let bound = usize::try_from(at).ok().filter(|at| *at <= n_items);
            bound.ok_or_else(|| Wrong::Call(format!("index out of range: {at}")))
        }
    };
    let (from, to) = (bound(1, 0)?, bound(2, n_items)?);
    bound(3, n_items)?; // The capacity of Go's slice: checked, and without effect.
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}").into());
    }
    match arguments[0].as_value() {
        Some(Value::String(_)) if arguments.len() > 3 => Err("cannot 3-index slice a string".into()),
        Some(Value::String(text)) => {
            Ok(Val::owned(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()))
        }
        Some(Value::Array(items)) => Ok(Val::owned(items[from..to].to_vec())),
        _ => Ok(Val::Missing),
    }
}

fn split<'a>(text: &str, separator: &str) -> Answer<'a> {
    let parts: Vec<String> = if separator.is_empty() {
        text.chars().map(String::from).collect()
    } else {
        text.split(separator).map(str::to_owned).collect()
    };
    Ok(Val::owned(parts))
}

fn join<'a>(arguments: &[Val<'_>]) -> Answer<'a> {
    let separator = text(arguments, 1)?;
    let items = match &arguments[0] {
        Val::Nil(_) => &[],
        value => match value.as_value() {
            Some(Value::Array(items)) => items.as_slice(),
            _ => return Err(wrong_type(arguments, 0, "[]string")),
        },
    };
    let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
    Ok(Val::owned(texts.ok_or_else(|| wrong_type(arguments, 0, "[]string"))?.join(separator)))
}

/// The first `length` bytes, and no half character.
fn truncate<'a>(text: &str, length: i64) -> Answer<'a> {
    let length = usize::try_from(length).map_err(|_| format!("slice bounds out of range [:{length}]"))?;
    Ok(Val::owned(&text[..text.floor_char_boundary(length)]))
}

fn pad<'a>(arguments: &[Val<'_>]) -> Answer<'a> {
    let inner = text(arguments, 0)?;
    let spaces = |i| -> Result<String, Wrong> {
        let n = whole_number(arguments, i)?;
        if (0..=MAX_PAD).contains(&n) {
            Ok(" ".repeat(n as usize))
        } else {
            Err(format!("{n} is not a number of spaces").into())
        }
    };
    let (before, after) = (spaces(1)?, spaces(2)?);
    Ok(Val::owned(if inner.is_empty() { String::new() } else { format!("{before}{inner}{after}") }))
}

/// The first letter of each word in upper case, as Go's strings.Title does: a word starts after what is no letter,
/// digit, underscore or apostrophe.
fn title(text: &str) -> String {
    let mut is_start = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_start {
            out.extend(c.to_uppercase())
        } else {
            out.push(c)
        }
        is_start = !(c.is_alphanumeric() || c == '_' || c == '\'' || (!c.is_ascii() && !c.is_whitespace()));
    }
    out
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if quote::is_printable(c) => out.push(c),
            c => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(b)),
            b' ' => out.push('+'),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}
