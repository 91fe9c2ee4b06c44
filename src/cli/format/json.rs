//! JSON as docker writes it: Go's encoder, whose numbers and escapes differ from serde_json's in small ways.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use serde_json::{Map, Value};

/// One line, fields in their order: `{{json .}}` of an object.
pub fn compact(value: &Value) -> String {
    write(value, GoNumbers { inner: CompactFormatter, escapes_html: false })
}

/// One line, keys in alphabetical order and `<`, `>`, `&` escaped: a row of a list, which docker writes through a map.
pub fn row(value: &Value) -> String {
    let formatter = GoNumbers { inner: CompactFormatter, escapes_html: true };
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let sorted: Map<String, Value> =
                entries.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            write(&Value::Object(sorted), formatter)
        }
        other => write(other, formatter),
    }
}

/// What `inspect` prints without `--format`: indented by four spaces, `<`, `>`, `&` escaped, without a final new line.
pub fn pretty(value: &Value) -> String {
    write(value, GoNumbers { inner: PrettyFormatter::with_indent(b"    "), escapes_html: true })
}

fn write(value: &Value, formatter: impl Formatter) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).expect("a Vec takes every byte and a Value has text keys");
    String::from_utf8(bytes).expect("JSON is written as UTF-8")
}

/// Go writes a whole float without `.0`, and never U+2028 and U+2029 as they are, since JavaScript took them for line ends.
struct GoNumbers<F> {
    inner: F,
    escapes_html: bool,
}

impl<F: Formatter> Formatter for GoNumbers<F> {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value.fract() == 0.0 && value.abs() < 1e21 {
            write!(writer, "{value:.0}")
        } else {
            self.inner.write_f64(writer, value)
        }
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(|c| self.escapes(c)) {
            let (before, after) = rest.split_at(at);
            let escaped = after.chars().next().unwrap_or_default();
            write!(writer, "{before}\\u{:04x}", u32::from(escaped))?;
            rest = &after[escaped.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.inner.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.inner.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object_value(writer)
    }
}

impl<F> GoNumbers<F> {
    fn escapes(&self, c: char) -> bool {
        matches!(c, '\u{2028}' | '\u{2029}') || (self.escapes_html && matches!(c, '<' | '>' | '&'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn like_go() {
        let value = json!({"B": "<a&b>\u{2028}\u{1}\u{8}\n\"", "A": [1.0, 0.5, 18446744073709551615_u64, []], "C": {}});
        assert_eq!(
            compact(&value),
            r#"{"B":"<a&b>\u2028\u0001\b\n\"","A":[1,0.5,18446744073709551615,[]],"C":{}}"#
        );
        assert_eq!(
            row(&value),
            r#"{"A":[1,0.5,18446744073709551615,[]],"B":"\u003ca\u0026b\u003e\u2028\u0001\b\n\"","C":{}}"#
        );
        assert_eq!(
            pretty(&json!([{"A": {}, "B": [], "C": ["<"]}])),
            "[\n    {\n        \"A\": {},\n        \"B\": [],\n        \"C\": [\n            \"\\u003c\"\n        ]\n    }\n]"
        );
    }
}
