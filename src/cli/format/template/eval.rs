//! Rendering: walks the tree with a value for `.` and appends to the output.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Fault;
use super::functions::{self, Wrong};
use super::tree::{Base, Branch, Command, Node, Operand, Pipe, Span, Tree};
use super::value::{self, Val};

/// `{{template}}` calls within each other beyond this are refused: each costs several stack frames.
const MAX_DEPTH: usize = 100;

/// What the data is.
#[derive(Clone, Copy)]
pub(super) enum Mode<'a> {
    /// What `inspect` shows.
    Object,
    /// A line of a list: it has the method `Label`, and is written as JSON in alphabetical order, as docker's rows are.
    Row { labels: &'a Map<String, Value> },
    /// The headings of a table, by field.
    Headings,
}

/// One rendering.
pub(super) struct Eval<'a> {
    pub(super) tree: &'a Tree,
    pub(super) mode: Mode<'a>,
    pub(super) root: &'a Value,
    pub(super) out: String,
    variables: Vec<(&'a str, Val<'a>)>,
    depth: usize,
}

/// How a list of nodes ended.
#[derive(PartialEq)]
enum Flow {
    Done,
    Break,
    Continue,
}

/// Renders a tree.
pub(super) fn render<'a>(tree: &'a Tree, root: &'a Value, mode: Mode<'a>) -> Result<String, Fault> {
    let dot = Val::named("", root);
    let mut eval =
        Eval { tree, mode, root, out: String::new(), variables: vec![("$", dot.clone())], depth: 0 };
    eval.walk(&tree.main, &dot)?;
    Ok(eval.out)
}

impl<'a> Eval<'a> {
    fn walk(&mut self, nodes: &'a [Node], dot: &Val<'a>) -> Result<Flow, Fault> {
        let n_variables = self.variables.len();
        let mut flow = Flow::Done;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::Done {
                break;
            }
        }
        self.variables.truncate(n_variables);
        Ok(flow)
    }

    fn node(&mut self, node: &'a Node, dot: &Val<'a>) -> Result<Flow, Fault> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                // An assignment prints nothing.
                if pipe.variables.is_empty() {
                    value.print(&mut self.out);
                }
            }
            Node::If(branch) => return self.condition(branch, dot, false),
            Node::With(branch) => return self.condition(branch, dot, true),
            Node::Range(branch) => return self.range(branch, dot),
            Node::Call { name, data, span } => self.call(name, data.as_ref(), *span, dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Done)
    }

    fn condition(&mut self, branch: &'a Branch, dot: &Val<'a>, sets_dot: bool) -> Result<Flow, Fault> {
        let n_variables = self.variables.len();
        let value = self.pipe(&branch.pipe, dot)?;
        let flow = if value.is_true() {
            self.walk(&branch.body, if sets_dot { &value } else { dot })
        } else {
            self.walk(&branch.otherwise, dot)
        }?;
        self.variables.truncate(n_variables);
        Ok(flow)
    }

    fn range(&mut self, branch: &'a Branch, dot: &Val<'a>) -> Result<Flow, Fault> {
        let n_variables = self.variables.len();
        let span = branch.pipe.commands[0].span;
        let value = self.value(&branch.pipe, dot)?;
        let count = value.as_value().and_then(Value::as_i64);
        if count.is_some() && branch.pipe.variables.len() > 1 {
            return Err(Fault::at(
                span,
                format!("can't use {} to iterate over more than one variable", text(&value)),
            ));
        }
        let mut is_empty = true;
        // Numbers are counted, not collected: `range 1000000000` costs time only.
        let mut numbers = 0..count.unwrap_or(0);
        let mut items = match (count, value.items()) {
            (None, Some(items)) => items.into_iter(),
            (Some(_), _) => Vec::new().into_iter(),
            (None, None) => {
                return Err(Fault::at(span, format!("range can't iterate over {}", text(&value))));
            }
        };
        while let Some((key, item)) =
            items.next().or_else(|| numbers.next().map(|n| (Val::owned(n), Val::owned(n))))
        {
            is_empty = false;
            match branch.pipe.variables.as_slice() {
                [] => {}
                [only] => self.assign(&branch.pipe, only, item.clone(), span)?,
                [first, second, ..] => {
                    self.assign(&branch.pipe, first, key, span)?;
                    self.assign(&branch.pipe, second, item.clone(), span)?;
                }
            }
            let flow = self.walk(&branch.body, &item)?;
            if branch.pipe.declares {
                self.variables.truncate(n_variables);
            }
            if flow == Flow::Break {
                break;
            }
        }
        if is_empty { self.walk(&branch.otherwise, dot) } else { Ok(Flow::Done) }
    }

    fn call(&mut self, name: &str, data: Option<&'a Pipe>, span: Span, dot: &Val<'a>) -> Result<(), Fault> {
        let Some(nodes) = self.tree.defined.get(name) else {
            return Err(Fault::at(span, format!("template {name:?} not defined")));
        };
        if self.depth == MAX_DEPTH {
            return Err(Fault::at(span, format!("exceeded maximum template depth ({MAX_DEPTH})")));
        }
        let data = data.map_or(Ok(Val::Nil("<no value>")), |pipe| self.pipe(pipe, dot))?;
        let outer = std::mem::replace(&mut self.variables, vec![("$", data.clone())]);
        self.depth += 1;
        self.walk(nodes, &data)?;
        self.depth -= 1;
        self.variables = outer;
        Ok(())
    }

    /// The value of a pipeline, also given to its variables.
    fn pipe(&mut self, pipe: &'a Pipe, dot: &Val<'a>) -> Result<Val<'a>, Fault> {
        let value = self.value(pipe, dot)?;
        for name in &pipe.variables {
            self.assign(pipe, name, value.clone(), pipe.commands[0].span)?;
        }
        Ok(value)
    }

    fn value(&mut self, pipe: &'a Pipe, dot: &Val<'a>) -> Result<Val<'a>, Fault> {
        let mut piped = None;
        for command in &pipe.commands {
            piped = Some(self.command(command, dot, piped)?);
        }
        Ok(piped.unwrap_or(Val::Missing))
    }

    fn assign(&mut self, pipe: &'a Pipe, name: &'a str, value: Val<'a>, span: Span) -> Result<(), Fault> {
        if pipe.declares {
            self.variables.push((name, value));
            return Ok(());
        }
        match self.variables.iter_mut().rfind(|(n, _)| *n == name) {
            Some(variable) => variable.1 = value,
            None => return Err(Fault::at(span, format!("undefined variable: {name}"))),
        }
        Ok(())
    }

    fn command(
        &mut self,
        command: &'a Command,
        dot: &Val<'a>,
        piped: Option<Val<'a>>,
    ) -> Result<Val<'a>, Fault> {
        let (first, rest) = (&command.operands[0], &command.operands[1..]);
        if let (Base::Function(name), true) = (&first.base, first.fields.is_empty()) {
            return self.function(name, first.span, command.span, rest, dot, piped);
        }
        if first.fields.last().is_some_and(|f| f == "Label") && !matches!(self.mode, Mode::Object) {
            return self.label(first, rest, dot, piped);
        }
        if matches!(first.base, Base::Nil) {
            return Err(Fault::at(first.span, "nil is not a command"));
        }
        let n_arguments = rest.len() + usize::from(piped.is_some());
        if n_arguments == 0 {
            return self.operand(first, dot);
        }
        Err(Fault::at(
            first.span,
            match first.fields.last() {
                Some(field) => format!("wrong number of args for {field}: want 0 got {n_arguments}"),
                None => format!("can't give argument to non-function {}", text(&self.operand(first, dot)?)),
            },
        ))
    }

    /// The method `Label` of a row: the label of that name. In the headings, the last word of the name.
    fn label(
        &mut self,
        operand: &'a Operand,
        rest: &'a [Operand],
        dot: &Val<'a>,
        piped: Option<Val<'a>>,
    ) -> Result<Val<'a>, Fault> {
        let mut arguments = rest.iter().map(|o| self.operand(o, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(piped);
        let (1, Some(Value::String(name))) = (arguments.len(), arguments.first().and_then(Val::as_value))
        else {
            let why = format!("wrong number of args for Label: want 1 string, got {}", arguments.len());
            return Err(Fault::at(operand.span, why));
        };
        Ok(match self.mode {
            Mode::Row { labels } => labels.get(name).map_or(Val::owned(""), |v| Val::named("", v)),
            _ => Val::owned(name.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ")),
        })
    }

    fn function(
        &mut self,
        name: &str,
        span: Span,
        whole: Span,
        operands: &'a [Operand],
        dot: &Val<'a>,
        piped: Option<Val<'a>>,
    ) -> Result<Val<'a>, Fault> {
        let n_arguments = operands.len() + usize::from(piped.is_some());
        functions::check_count(name, n_arguments).map_err(|why| Fault::at(span, why))?;
        let mut arguments = Vec::with_capacity(n_arguments);
        for operand in operands {
            let value = self.operand(operand, dot)?;
            // `and` and `or` end at the first value that decides: `and .A .A.B` must not trip over the second.
            let decides = match name {
                "and" => !value.is_true(),
                "or" => value.is_true(),
                _ => false,
            };
            if decides {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(piped);
        if matches!(self.mode, Mode::Headings) && functions::is_transparent(name) {
            let heading = arguments.swap_remove(0);
            return Ok(if heading.is_text() { heading } else { Val::owned("") });
        }
        // Only docker's own rows are sorted and escaped; an object inside of one keeps its order.
        let is_row = matches!(self.mode, Mode::Row { .. })
            && matches!(arguments.first(), Some(Val::Is(Cow::Borrowed(v))) if std::ptr::eq(*v, self.root));
        functions::call(name, &arguments, is_row).map_err(|wrong| match wrong {
            Wrong::Argument(i, why) => Fault::at(operands.get(i).map_or(span, |o| o.span), why),
            Wrong::Call(why) => Fault::at(whole, format!("error calling {name}: {why}")),
        })
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Val<'a>) -> Result<Val<'a>, Fault> {
        let mut value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Nil => Val::Nil("<nil>"),
            Base::Literal(value) => Val::named("", value),
            Base::Variable(name) => match self.variables.iter().rfind(|(n, _)| n == name) {
                Some((_, value)) => value.clone(),
                None => return Err(Fault::at(operand.span, format!("undefined variable: {name}"))),
            },
            Base::Function(name) => self.function(name, operand.span, operand.span, &[], dot, None)?,
            Base::Pipe(pipe) => {
                let n_variables = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                self.variables.truncate(n_variables);
                value
            }
        };
        for (i, name) in operand.fields.iter().enumerate() {
            let is_last = i + 1 == operand.fields.len();
            value = self.field(&value, name, is_last).map_err(|mut fault| {
                fault.span = Some(operand.span);
                fault
            })?;
        }
        Ok(value)
    }

    fn field(&self, receiver: &Val<'a>, name: &str, is_last: bool) -> Result<Val<'a>, Fault> {
        let whole = match receiver {
            Val::Missing => return Ok(Val::Missing),
            Val::Nil(_) => return Err(Fault::plain(format!("nil pointer evaluating field {name}"))),
            Val::Is(whole) => whole,
        };
        let Value::Object(map) = &**whole else {
            return Err(Fault::plain(format!(
                "can't evaluate field {name} in type {}",
                receiver.type_name()
            )));
        };
        let found = receiver.part(name, |v| v.as_object().and_then(|map| value::field(map, name)));
        match found {
            Some(value) => Ok(value),
            None if matches!(self.mode, Mode::Headings) || !value::is_struct(map) => Ok(Val::Missing),
            None if value::is_optional(name) && is_last => Ok(Val::named(name, &Value::Null)),
            None if value::is_optional(name) => {
                Err(Fault::plain(format!("map has no entry for key {name:?}")))
            }
            None => Err(Fault {
                hint: Some(fields_hint(map)),
                ..Fault::plain(format!("can't evaluate field {name} in type struct"))
            }),
        }
    }
}

fn text(value: &Val<'_>) -> String {
    let mut text = String::new();
    value.print(&mut text);
    text
}

fn fields_hint(map: &Map<String, Value>) -> String {
    let names: Vec<&str> = map.keys().map(String::as_str).collect();
    format!("the fields here are {}", names.join(", "))
}
