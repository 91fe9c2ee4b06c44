//! A template that has been read: nodes, pipelines, commands, operands.

use std::collections::BTreeMap;

use serde_json::Value;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    /// `{{template "name" pipe}}`
    Call {
        name: String,
        data: Option<Pipe>,
        span: Span,
    },
    Break,
    Continue,
}

/// `if`, `with` or `range`.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, each fed with the value of the one before.
#[derive(Debug)]
pub(super) struct Pipe {
    /// The variables that take its value.
    pub(super) variables: Vec<String>,
    /// Whether they are new (`:=`) rather than set (`=`).
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// A function or method with its arguments, or one value.
#[derive(Debug)]
pub(super) struct Command {
    /// Never empty.
    pub(super) operands: Vec<Operand>,
    pub(super) span: Span,
}

/// A value, and the fields then taken of it.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
    pub(super) span: Span,
}

/// What an operand starts with.
#[derive(Debug)]
pub(super) enum Base {
    Dot,
    Nil,
    Literal(Value),
    Variable(String),
    Function(String),
    Pipe(Box<Pipe>),
}

/// Where an error message points.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The offset that Go reports: of the last field in a chain.
    pub(super) at: usize,
    /// The text that Go quotes.
    pub(super) from: usize,
    pub(super) to: usize,
}

/// The nodes of the template itself, and those of each `{{define}}`.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) main: Vec<Node>,
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}
