//! Template text to lexemes: literal text, and the words between `{{` and `}}`.
//!
//! Trim markers and comments end here; the parser never sees them.

use serde_json::{Number, Value};

use super::Fault;

/// One unit of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Text outside of actions, trimmed.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// `.`
    Dot,
    /// `.Name`
    Field(String),
    /// `$` or `$name`, with the dollar sign.
    Variable(String),
    /// A function or a keyword.
    Word(String),
    /// A quoted string or a number.
    Literal(Value),
    /// `|`
    Pipe,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `,`
    Comma,
    /// `(`
    LeftParen,
    /// `)`
    RightParen,
}

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    /// Byte offset in the template.
    pub(super) at: usize,
    /// Byte offset of its end.
    pub(super) end: usize,
    /// Whether white space precedes it: `$x.Name` is one operand, `$x .Name` are two.
    pub(super) spaced: bool,
}

/// Splits a template.
pub(super) fn lex(text: &str) -> Result<Vec<Lexeme>, Fault> {
    let mut lexemes = Vec::new();
    let mut at = 0;
    let mut trim_start = false;
    while let Some(open) = text[at..].find("{{").map(|i| i + at) {
        let mut inside = open + 2;
        let trim_end = text[inside..].starts_with('-') && text[inside + 1..].starts_with(is_space);
        if trim_end {
            inside += 2;
        }
        push_text(&mut lexemes, &text[at..open], at, trim_start, trim_end);
        let after_space = text[inside..].trim_start_matches(is_space);
        if trim_end && after_space.starts_with("/*") {
            inside = text.len() - after_space.len();
        }
        (at, trim_start) = if text[inside..].starts_with("/*") {
            comment(text, inside)?
        } else {
            lexemes.push(Lexeme { token: Token::Open, at: open, end: open + 2, spaced: false });
            action(text, inside, &mut lexemes)?
        };
    }
    push_text(&mut lexemes, &text[at..], at, trim_start, false);
    Ok(lexemes)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn push_text(lexemes: &mut Vec<Lexeme>, text: &str, at: usize, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start_matches(is_space) } else { text };
    let text = if trim_end { text.trim_end_matches(is_space) } else { text };
    if !text.is_empty() {
        let end = at + text.len();
        lexemes.push(Lexeme { token: Token::Text(text.to_owned()), at, end, spaced: false });
    }
}

/// Skips `/* ... */}}` that starts at `at`; returns what follows and whether it is to be trimmed.
fn comment(text: &str, at: usize) -> Result<(usize, bool), Fault> {
    let Some(close) = text[at..].find("*/").map(|i| i + at + 2) else {
        return Err(Fault::parse(at, "unclosed comment"));
    };
    let rest = &text[close..];
    if rest.starts_with("}}") {
        return Ok((close + 2, false));
    }
    let trimmed = rest.trim_start_matches(is_space);
    if trimmed.len() < rest.len() && trimmed.starts_with("-}}") {
        return Ok((text.len() - trimmed.len() + 3, true));
    }
    Err(Fault::parse(at, "comment ends before closing delimiter"))
}

/// Reads one action up to and with its `}}`; returns what follows and whether it is to be trimmed.
fn action(text: &str, mut at: usize, lexemes: &mut Vec<Lexeme>) -> Result<(usize, bool), Fault> {
    loop {
        let rest = text[at..].trim_start_matches(is_space);
        let spaced = rest.len() < text.len() - at;
        at = text.len() - rest.len();
        if rest.is_empty() {
            return Err(Fault::parse(at, "unclosed action"));
        }
        let is_trim = spaced && rest.starts_with("-}}");
        if is_trim || rest.starts_with("}}") {
            let end = at + if is_trim { 3 } else { 2 };
            lexemes.push(Lexeme { token: Token::Close, at, end, spaced });
            return Ok((end, is_trim));
        }
        let (token, length) = token(rest).map_err(|why| Fault::parse(at, why))?;
        lexemes.push(Lexeme { token, at, end: at + length, spaced });
        at += length;
    }
}

/// The first token of `rest`, which is not empty, and its length in bytes.
fn token(rest: &str) -> Result<(Token, usize), String> {
    let first = rest.chars().next().unwrap_or_default();
    let second = rest[first.len_utf8()..].chars().next().unwrap_or_default();
    let punctuation = |token| Ok((token, first.len_utf8()));
    match first {
        '|' => punctuation(Token::Pipe),
        ',' => punctuation(Token::Comma),
        '(' => punctuation(Token::LeftParen),
        ')' => punctuation(Token::RightParen),
        ':' if second == '=' => Ok((Token::Declare, 2)),
        '=' => punctuation(Token::Assign),
        '"' => quoted(rest, '"').map(|(text, length)| (Token::Literal(text.into()), length)),
        '`' => match rest[1..].find('`') {
            Some(end) => Ok((Token::Literal(rest[1..=end].into()), end + 2)),
            None => Err("unterminated raw quoted string".into()),
        },
        '\'' => character(rest),
        '.' if second.is_ascii_digit() => number(rest),
        '.' => match word_length(&rest[1..]) {
            0 => punctuation(Token::Dot),
            length => Ok((Token::Field(rest[1..=length].to_owned()), length + 1)),
        },
        '$' => {
            let length = word_length(&rest[1..]) + 1;
            Ok((Token::Variable(rest[..length].to_owned()), length))
        }
        '+' | '-' if second.is_ascii_digit() || second == '.' => number(rest),
        '0'..='9' => number(rest),
        c if is_word(c) => {
            let length = word_length(rest);
            Ok((Token::Word(rest[..length].to_owned()), length))
        }
        c => Err(format!("unexpected {c:?} in command")),
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn word_length(text: &str) -> usize {
    text.find(|c| !is_word(c)).unwrap_or(text.len())
}

fn character(rest: &str) -> Result<(Token, usize), String> {
    let (text, length) = quoted(rest, '\'')?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok((Token::Literal(u32::from(c).into()), length)),
        _ => Err(format!("malformed character constant: {}", &rest[..length])),
    }
}

fn number(rest: &str) -> Result<(Token, usize), String> {
    let mut length = 1;
    let mut previous = rest.as_bytes()[0];
    for &b in &rest.as_bytes()[1..] {
        let is_exponent_sign = matches!(b, b'+' | b'-') && matches!(previous, b'e' | b'E');
        if !(b.is_ascii_alphanumeric() || b == b'.' || b == b'_' || is_exponent_sign) {
            break;
        }
        previous = b;
        length += 1;
    }
    let text = &rest[..length];
    let value = integer(text).map(Value::from).or_else(|| {
        // Rust reads "inf" and "nan" too, which are no digits.
        let is_decimal = !text.bytes().any(|b| b.is_ascii_alphabetic() && !matches!(b, b'e' | b'E'));
        let float = text.replace('_', "").parse().ok().filter(|_| is_decimal)?;
        Number::from_f64(float).map(Value::Number)
    });
    value.map(|v| (Token::Literal(v), length)).ok_or_else(|| format!("bad number syntax: {text:?}"))
}

/// A whole number as Go writes it: `10`, `-0x1f`, `0o17`, `017`, `0b1`, `1_000`.
fn integer(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase().replace('_', "");
    let (digits, radix) = match lower.get(..2) {
        Some("0x") => (&lower[2..], 16),
        Some("0o") => (&lower[2..], 8),
        Some("0b") => (&lower[2..], 2),
        Some(two) if two.starts_with('0') => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if text.starts_with('-') { -magnitude } else { magnitude }).ok()
}

/// Reads a string with Go's escapes that starts at its quotation mark; returns it and its length with both marks.
fn quoted(rest: &str, mark: char) -> Result<(String, usize), String> {
    let unterminated =
        || if mark == '"' { "unterminated quoted string" } else { "unterminated character constant" };
    // Bytes, because \xff is allowed to build a character from several escapes.
    let mut bytes = Vec::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' => break,
            '\\' => {
                let length = escape(&rest[at + 1..], mark, &mut bytes)
                    .ok_or_else(|| unknown_escape(&rest[at..], unterminated()))?;
                // An escape is one character or plain ASCII, so characters and bytes agree after the first.
                for _ in 0..length {
                    chars.next();
                }
            }
            c if c == mark => return Ok((String::from_utf8_lossy(&bytes).into_owned(), at + 1)),
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    Err(unterminated().into())
}

fn unknown_escape(rest: &str, unterminated: &str) -> String {
    match rest.chars().nth(1) {
        Some(c) => format!("unknown escape \\{c} in string"),
        None => unterminated.to_owned(),
    }
}

/// Appends what an escape (without its backslash) stands for; returns how many characters it has.
fn escape(rest: &str, mark: char, bytes: &mut Vec<u8>) -> Option<usize> {
    let radix = |from: usize, to: usize, radix| {
        rest.get(from..to)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_alphanumeric()))
            .and_then(|digits| u32::from_str_radix(digits, radix).ok())
    };
    let first = rest.chars().next()?;
    let plain = match first {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        c if c == mark => c as u8,
        'x' => {
            bytes.push(u8::try_from(radix(1, 3, 16)?).ok()?);
            return Some(3);
        }
        '0'..='7' => {
            bytes.push(u8::try_from(radix(0, 3, 8)?).ok()?);
            return Some(3);
        }
        'u' | 'U' => {
            let end = if first == 'u' { 5 } else { 9 };
            let c = char::from_u32(radix(1, end, 16)?)?;
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            return Some(end);
        }
        _ => return None,
    };
    bytes.push(plain);
    Some(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token>, String> {
        lex(text).map(|l| l.into_iter().map(|l| l.token).collect()).map_err(|f| f.why)
    }

    #[test]
    fn literals() {
        let cases: &[(&str, Result<Value, &str>)] = &[
            ("1", Ok(1.into())),
            ("-12", Ok((-12).into())),
            ("0x1F", Ok(31.into())),
            ("017", Ok(15.into())),
            ("0b11", Ok(3.into())),
            ("1_000", Ok(1000.into())),
            ("9223372036854775807", Ok(i64::MAX.into())),
            ("1.5", Ok(1.5.into())),
            (".5", Ok(0.5.into())),
            ("1e3", Ok(1000.0.into())),
            ("1e-1", Ok(0.1.into())),
            ("1x", Err("bad number syntax: \"1x\"")),
            ("1e999", Err("bad number syntax: \"1e999\"")),
            (r#""a\"b\n\t\\""#, Ok("a\"b\n\t\\".into())),
            (r#""\xc3\xa9\u00e9\101é""#, Ok("ééAé".into())),
            (r#""\xff""#, Ok("\u{fffd}".into())),
            (r#""\q""#, Err("unknown escape \\q in string")),
            (r#""\é""#, Err("unknown escape \\é in string")),
            (r#""\ud800""#, Err("unknown escape \\u in string")),
            ("\"a", Err("unterminated quoted string")),
            ("`a\\n\n`", Ok("a\\n\n".into())),
            ("`a", Err("unterminated raw quoted string")),
            ("'a'", Ok(97.into())),
            (r"'\''", Ok(39.into())),
            ("'ab'", Err("malformed character constant: 'ab'")),
            ("@", Err("unexpected '@' in command")),
        ];
        for (text, expected) in cases {
            let expected = expected
                .clone()
                .map(|v| vec![Token::Open, Token::Literal(v), Token::Close])
                .map_err(str::to_owned);
            assert_eq!(tokens(&format!("{{{{{text}}}}}")), expected, "{text}");
        }
    }

    #[test]
    fn trim_markers_and_comments() {
        let cases = [
            ("a {{- /* x */ -}} b", Ok(vec!["a", "b"])),
            ("a {{/* x */}} b", Ok(vec!["a ", " b"])),
            ("a{{/* x }}", Err("unclosed comment")),
            ("a{{/* x */ }}", Err("comment ends before closing delimiter")),
            ("a", Ok(vec!["a"])),
            ("a }} b", Ok(vec!["a }} b"])),
            ("{{", Err("unclosed action")),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|t| t.iter().map(|s| Token::Text((*s).into())).collect::<Vec<_>>());
            assert_eq!(tokens(text), expected.map_err(str::to_owned), "{text}");
        }
        assert_eq!(
            tokens("a {{- .X -}}  b"),
            Ok(vec![
                Token::Text("a".into()),
                Token::Open,
                Token::Field("X".into()),
                Token::Close,
                Token::Text("b".into())
            ])
        );
        assert_eq!(tokens("{{-1}}").map(|t| t[1].clone()), Ok(Token::Literal((-1).into())));
    }
}
