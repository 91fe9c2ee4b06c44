//! Quoting and shortening as docker's lists do: the column COMMAND is `"sh -c 'sleep 100'"`.

use unicode_width::UnicodeWidthChar;

/// The width to which `ps` shortens a command, and `history` its CREATED BY.
pub const COMMAND_WIDTH: usize = 20;

/// The command of a container as docker records it: arguments with spaces in single quotes.
pub fn command_line(path: &str, arguments: &[String]) -> String {
    let mut line = path.to_owned();
    for argument in arguments {
        let mark = if argument.contains(' ') { "'" } else { "" };
        line.push_str(&format!(" {mark}{argument}{mark}"));
    }
    line
}

/// The column COMMAND: quoted, and first shortened unless `no_trunc`.
pub fn command_column(line: &str, no_trunc: bool) -> String {
    if no_trunc { go(line) } else { go(&ellipsis(line, COMMAND_WIDTH)) }
}

/// A text of at most `width` columns, `…` in place of what is left out. Wide characters count twice.
pub fn ellipsis(text: &str, width: usize) -> String {
    let columns = |c: char| c.width().unwrap_or(0);
    // A short text needs no sum, and a text of a million characters ends the sum early.
    let mut used = 0;
    let mut kept = 0;
    for (at, c) in text.char_indices() {
        used += columns(c);
        if used > width {
            return if width == 0 { String::new() } else { format!("{}…", &text[..kept]) };
        }
        if used < width {
            kept = at + c.len_utf8();
        }
    }
    text.to_owned()
}

/// An id as lists show it: twelve digits, without `sha256:`.
pub fn short_id(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// A text in Go's quotation marks.
pub fn go(text: &str) -> String {
    quoted(text, '"', false)
}

/// The same in ASCII only.
pub(super) fn go_ascii(text: &str) -> String {
    quoted(text, '"', true)
}

/// A character in Go's quotation marks.
pub(super) fn go_char(c: char) -> String {
    quoted(c.encode_utf8(&mut [0; 4]), '\'', false)
}

/// Whether a character shows on a terminal as itself.
pub(super) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // Rust's own quoting knows. The letter before stands in for what a combining mark combines with.
    format!("a{c}").escape_debug().count() == 2
}

fn quoted(text: &str, mark: char, ascii_only: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(mark);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            c if c == mark => out.extend(['\\', c]),
            c if is_printable(c) && (c.is_ascii() || !ascii_only) => out.push(c),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c.is_ascii() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x10000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push(mark);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let cases: &[(&[&str], &str, &str)] = &[
            (&["sh"], r#""sh""#, r#""sh""#),
            (&["sh", "-c", "sleep 100"], r#""sh -c 'sleep 100'""#, r#""sh -c 'sleep 100'""#),
            (&["sleep", "100000000000000"], r#""sleep 1000000000000…""#, r#""sleep 100000000000000""#),
            (&["echo", "a\"b\\c\n"], r#""echo a\"b\\c\n""#, r#""echo a\"b\\c\n""#),
            (&["01234567890123456789"], r#""01234567890123456789""#, r#""01234567890123456789""#),
            (
                &["\u{1b}[2J\u{7f}\u{200b}\u{a0}é\u{301}"],
                "\"\\x1b[2J\\x7f\\u200b\\u00a0é\u{301}\"",
                "\"\\x1b[2J\\x7f\\u200b\\u00a0é\u{301}\"",
            ),
        ];
        for (words, short, long) in cases {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            let line = command_line(&words[0], &words[1..]);
            assert_eq!(
                (command_column(&line, false), command_column(&line, true)),
                (short.to_string(), long.to_string())
            );
        }
    }

    #[test]
    fn shortens_by_columns() {
        let cases = [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("abcd", 1, "…"),
            ("abcd", 0, ""),
            ("", 0, ""),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("e\u{301}e\u{301}e", 3, "e\u{301}e\u{301}e"),
        ];
        for (text, width, expected) in cases {
            assert_eq!(ellipsis(text, width), expected, "{text} {width}");
        }
    }

    #[test]
    fn ids() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("é"), "é");
    }
}
