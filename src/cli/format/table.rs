//! Lists: a table with headings, a line of JSON per row, or a template per row, as `--format` says.
//!
//! A row is an object whose fields are texts, numbers and booleans. `Labels` may be an object: it shows as `k=v,k=v`, and
//! `{{.Label "k"}}` looks in it. A list of texts shows as `a,b`.

use std::io::Write;

use anyhow::Result;
use serde_json::{Map, Value};
use tabwriter::TabWriter;

use super::{Template, json};

/// docker's columns: three spaces apart, at least ten wide with these.
const GAP: usize = 3;
const MIN_WIDTH: usize = 7;

/// Renders rows as `--format` asks for; `default` (a `table ...`) if it was not given, is empty or just `table`.
/// `headings` has the heading for each field that a table may show.
pub fn render_rows(
    format: Option<&str>,
    default: &str,
    headings: &[(&str, &str)],
    rows: &[Value],
) -> Result<String> {
    let format = match format {
        None | Some("" | "table") => default,
        Some(format) => format,
    };
    if format == "json" {
        return Ok(rows.iter().map(|row| json::row(&Row::new(row).shown) + "\n").collect());
    }
    let columns = format.strip_prefix("table");
    // The shell hands over a backslash and a letter where people mean the character.
    let text = columns.unwrap_or(format).trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
    let template = Template::parse(&text)?;
    let mut out = String::new();
    if columns.is_some() {
        let headings: Map<String, Value> =
            headings.iter().map(|(field, heading)| ((*field).to_owned(), Value::from(*heading))).collect();
        out.push_str(&template.render_headings(&Value::Object(headings))?);
        out.push('\n');
    }
    for row in rows {
        let row = Row::new(row);
        out.push_str(&template.render_row(&row.shown, &row.labels)?);
        out.push('\n');
    }
    Ok(if columns.is_some() { aligned(&out) } else { out })
}

/// Lines whose cells end in tabs, made into columns.
pub fn aligned(lines: &str) -> String {
    let mut writer = TabWriter::new(Vec::new()).minwidth(MIN_WIDTH).padding(GAP);
    let bytes = writer
        .write_all(lines.as_bytes())
        .and_then(|()| writer.flush())
        .ok()
        .and_then(|()| writer.into_inner().ok())
        .expect("a Vec takes every byte");
    String::from_utf8(bytes).expect("cells and spaces are UTF-8")
}

/// A row as templates see it.
struct Row {
    shown: Value,
    labels: Map<String, Value>,
}

impl Row {
    fn new(row: &Value) -> Row {
        let empty = Map::new();
        let fields = row.as_object().unwrap_or(&empty);
        let labels = fields.get("Labels").and_then(Value::as_object).cloned().unwrap_or_default();
        let shown = fields.iter().map(|(name, value)| (name.clone(), flat(value))).collect();
        Row { shown: Value::Object(shown), labels }
    }
}

fn flat(value: &Value) -> Value {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    match value {
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(",").into(),
        Value::Object(map) => {
            let mut pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
            pairs.sort();
            pairs.join(",").into()
        }
        Value::Null => "".into(),
        simple => simple.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::headers;
    use super::*;
    use serde_json::json;

    fn rows() -> Vec<Value> {
        vec![
            json!({"ID": "0123456789ab", "Names": ["web", "alias"], "Ports": "0.0.0.0:80->80/tcp", "Image": "nginx",
                "Command": "\"nginx -g 'daemon of…\"", "RunningFor": "2 hours ago", "Status": "Up 2 hours",
                "Labels": {"b": "2", "a.x-y": "1,2"}}),
            json!({"ID": "ba9876543210", "Names": "日本", "Ports": "", "Image": "busybox", "Command": "\"sh\"",
                "RunningFor": "3 days ago", "Status": "Created", "Labels": {}}),
        ]
    }

    fn check(format: &str, expected: &str) {
        let format = (format != "default").then_some(format);
        let out = render_rows(format, headers::CONTAINERS_TABLE, headers::CONTAINERS, &rows())
            .unwrap_or_else(|e| format!("error: {}", crate::error::chain(&e)));
        assert_eq!(out, expected, "{format:?}");
    }

    #[test]
    fn formats() {
        let table = "\
CONTAINER ID   IMAGE     COMMAND                  CREATED       STATUS       PORTS                NAMES
0123456789ab   nginx     \"nginx -g 'daemon of…\"   2 hours ago   Up 2 hours   0.0.0.0:80->80/tcp   web,alias
ba9876543210   busybox   \"sh\"                     3 days ago    Created                           日本
";
        for format in ["default", "", "table"] {
            check(format, table);
        }
        check(
            "table {{.Names}}\\t{{.ID}}",
            "NAMES       CONTAINER ID\nweb,alias   0123456789ab\n日本        ba9876543210\n",
        );
        check("table   {{upper .Image}}", "IMAGE\nNGINX\nBUSYBOX\n");
        check(
            "table {{.ID}} {{.Other}}",
            "error: template: :1:10: executing \"\" at <.Other>: can't evaluate field Other in type struct",
        );
        check(
            "table {{.Label \"a.x-y\"}}\t{{.Image}}",
            "x y       IMAGE\n1,2       nginx\n          busybox\n",
        );
        check(
            "table {{join (split .Image \"u\") \"-\"}}	{{json .Image}}",
            "IMAGE     IMAGE
nginx     \"nginx\"
b-sybox   \"busybox\"
",
        );
        check("{{.Names}}\\n-", "web,alias\n-\n日本\n-\n");
        check("{{.Label \"b\"}}|{{.Labels}}|{{json .Labels}}", "2|a.x-y=1,2,b=2|\"a.x-y=1,2,b=2\"\n||\"\"\n");
        check(
            "{{with .Label \"b\"}}{{.}}{{else}}none{{end}}{{\"b\" | .Label}}{{$.Label \"b\"}}",
            "222\nnone\n",
        );
        check("{{if eq (.Label \"b\") \"2\"}}two{{end}}", "two\n\n");
        check("{{json .Ports}}", "\"0.0.0.0:80->80/tcp\"\n\"\"\n");
        check(
            "{{.Label}}",
            "error: template: :1:2: executing \"\" at <.Label>: wrong number of args for Label: want 1 string, got 0",
        );
        check("x", "x\nx\n");
    }

    #[test]
    fn a_line_of_json_per_row() {
        let out = render_rows(Some("json"), "", headers::CONTAINERS, &rows()).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with(r#"{"Command":"\"nginx -g 'daemon of…\"","ID":"0123456789ab","Image":"nginx","Labels":"a.x-y=1,2,b=2","Names":"web,alias","Ports":"0.0.0.0:80-\u003e80/tcp""#), "{out}");
        assert_eq!(render_rows(Some("{{json .}}"), "", headers::CONTAINERS, &rows()).unwrap(), out);
    }

    #[test]
    fn no_rows() {
        assert_eq!(
            render_rows(None, "table {{.ID}}\t{{.Names}}", headers::CONTAINERS, &[]).unwrap(),
            "CONTAINER ID   NAMES\n"
        );
        assert_eq!(render_rows(Some("json"), "", headers::CONTAINERS, &[]).unwrap(), "");
        assert_eq!(render_rows(Some("{{.ID}}"), "", headers::CONTAINERS, &[]).unwrap(), "");
    }
}
