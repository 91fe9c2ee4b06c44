//! Go templates as docker's `--format` takes them, over ordered JSON.
//!
//! `lexer` -> `parser` -> `eval`; `functions` and `printf` are Go's builtins and docker's additions, `value` is what Go's
//! types mean for JSON. The messages are docker's, because people look for them.
//!
//! Ours, and not the crate gtmpl-ng, since that one misses what docker's users rely on: `{{.Label "k"}}` is refused (methods
//! take no arguments), `{{json .}}` loses the order of fields (objects are HashMaps, functions cannot capture), and
//! `{{index .Config.Labels "k"}}` prints `<no value>` where docker prints nothing.
//!
//! Invariant: any text and any data end in a value or an error; parsing and `{{template}}` have a depth limit.

mod eval;
mod functions;
mod lexer;
mod parser;
mod printf;
mod tree;
mod value;

use anyhow::{Result, anyhow};
use serde_json::{Map, Value};

use crate::error::Hint;

use eval::Mode;
use tree::{Span, Tree};

/// A template that has been read.
#[derive(Debug)]
pub struct Template {
    text: String,
    tree: Tree,
}

impl Template {
    /// Reads a template; unknown functions and variables are refused here.
    pub fn parse(text: &str) -> Result<Template> {
        match parser::parse(text) {
            Ok(tree) => Ok(Template { text: text.to_owned(), tree }),
            Err(fault) => Err(fault.into_error(text)),
        }
    }

    /// Renders an object as `inspect --format` does: fields in their order, missing fields of a struct an error.
    pub fn render(&self, data: &Value) -> Result<String> {
        self.run(data, Mode::Object)
    }

    /// Renders a line of a list; `labels` is what `{{.Label "name"}}` looks in.
    pub(super) fn render_row(&self, row: &Value, labels: &Map<String, Value>) -> Result<String> {
        self.run(row, Mode::Row { labels })
    }

    /// Renders the heading of a table: `headings` has one for each field.
    pub(super) fn render_headings(&self, headings: &Value) -> Result<String> {
        self.run(headings, Mode::Headings)
    }

    fn run<'a>(&'a self, data: &'a Value, mode: Mode<'a>) -> Result<String> {
        eval::render(&self.tree, data, mode).map_err(|fault| fault.into_error(&self.text))
    }
}

/// What is wrong with a template, and where.
#[derive(Debug)]
struct Fault {
    why: String,
    hint: Option<String>,
    /// For what goes wrong while rendering.
    span: Option<Span>,
    /// For what goes wrong while reading.
    offset: usize,
}

impl Fault {
    fn plain(why: impl Into<String>) -> Fault {
        Fault { why: why.into(), hint: None, span: None, offset: 0 }
    }

    fn parse(offset: usize, why: impl Into<String>) -> Fault {
        Fault { offset, ..Fault::plain(why) }
    }

    fn at(span: Span, why: impl Into<String>) -> Fault {
        Fault { span: Some(span), ..Fault::plain(why) }
    }

    /// In Go's shape: `template: :LINE[:COLUMN: executing "" at <TEXT>]: WHY`.
    fn into_error(self, text: &str) -> anyhow::Error {
        let offset = self.span.map_or(self.offset, |s| s.at).min(text.len());
        let before = &text.as_bytes()[..offset];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let error = match self.span {
            None => anyhow!("template: :{line}: {}", self.why),
            Some(span) => {
                let column = before.iter().rev().take_while(|b| **b != b'\n').count();
                let quoted = text.get(span.from..span.to).unwrap_or_default();
                let quoted = match quoted.char_indices().nth(20) {
                    Some((end, _)) => format!("{}...", &quoted[..end]),
                    None => quoted.to_owned(),
                };
                anyhow!("template: :{line}:{column}: executing \"\" at <{quoted}>: {}", self.why)
            }
        };
        match self.hint {
            Some(hint) => error.context(Hint(hint)),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests;
