//! Lexemes to a tree. Unknown functions and variables are refused here, as in Go,
//! before anything is rendered.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Fault;
use super::functions;
use super::lexer::{Lexeme, Token, lex};
use super::tree::{Base, Branch, Command, Node, Operand, Pipe, Span, Tree};

/// Nested blocks and parentheses beyond this are refused: each costs a stack frame.
const MAX_DEPTH: usize = 100;

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Tree, Fault> {
    let mut parser = Parser {
        lexemes: lex(text)?,
        next: 0,
        end: text.len(),
        variables: vec!["$".to_owned()],
        n_ranges: 0,
        depth: 0,
        defined: BTreeMap::new(),
    };
    let (main, stop) = parser.list()?;
    match stop {
        Stop::EndOfText => Ok(Tree { main, defined: parser.defined }),
        Stop::End => Err(parser.fault("unexpected {{end}}")),
        Stop::Else => Err(parser.fault("unexpected {{else}}")),
    }
}

struct Parser {
    lexemes: Vec<Lexeme>,
    next: usize,
    end: usize,
    variables: Vec<String>,
    n_ranges: usize,
    depth: usize,
    defined: BTreeMap<String, Vec<Node>>,
}

/// Why a list of nodes ended. After `Else`, the parser stands behind the word `else`.
#[derive(PartialEq)]
enum Stop {
    EndOfText,
    End,
    Else,
}

/// What an action turned out to be.
enum Action {
    Node(Node),
    Nothing,
    Stop(Stop),
}

impl Parser {
    fn fault(&self, why: impl Into<String>) -> Fault {
        let at = self.next.checked_sub(1).and_then(|i| self.lexemes.get(i)).map_or(self.end, |l| l.at);
        Fault::parse(at, why)
    }

    fn peek(&self) -> Option<&Token> {
        self.lexemes.get(self.next).map(|l| &l.token)
    }

    fn take(&mut self) -> Option<Lexeme> {
        let lexeme = self.lexemes.get(self.next).cloned();
        self.next += 1;
        lexeme
    }

    fn take_if(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(w)) if w == word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token, context: &str) -> Result<(), Fault> {
        if self.take_if(token) {
            return Ok(());
        }
        self.next += 1;
        Err(self.unexpected(context))
    }

    /// The lexeme just taken has no place in `context`.
    fn unexpected(&self, context: &str) -> Fault {
        let what = match self.next.checked_sub(1).and_then(|i| self.lexemes.get(i)) {
            None => "end of template".to_owned(),
            Some(lexeme) => match &lexeme.token {
                Token::Text(_) | Token::Open => "text".to_owned(),
                Token::Close => "\"}}\"".to_owned(),
                Token::Dot => "<.>".to_owned(),
                Token::Field(name) => format!("<.{name}>"),
                Token::Variable(name) | Token::Word(name) => format!("<{name}>"),
                Token::Literal(value) => value.to_string(),
                Token::Pipe => "\"|\"".to_owned(),
                Token::Declare => "\":=\"".to_owned(),
                Token::Assign => "\"=\"".to_owned(),
                Token::Comma => "\",\"".to_owned(),
                Token::LeftParen => "\"(\"".to_owned(),
                Token::RightParen => "\")\"".to_owned(),
            },
        };
        self.fault(format!("unexpected {what} in {context}"))
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.fault("it is nested too deeply")) } else { Ok(()) }
    }

    fn list(&mut self) -> Result<(Vec<Node>, Stop), Fault> {
        self.deeper()?;
        let mut nodes = Vec::new();
        loop {
            match self.take().map(|l| l.token) {
                None => break Ok((nodes, Stop::EndOfText)),
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                Some(_) => match self.action()? {
                    Action::Node(node) => nodes.push(node),
                    Action::Nothing => {}
                    Action::Stop(stop) => {
                        self.depth -= 1;
                        break Ok((nodes, stop));
                    }
                },
            }
        }
    }

    /// What follows `{{`.
    fn action(&mut self) -> Result<Action, Fault> {
        let keyword = match self.peek() {
            Some(Token::Word(word)) => word.clone(),
            _ => String::new(),
        };
        self.next += 1;
        let node = match keyword.as_str() {
            "if" => Node::If(self.branch("if")?),
            "with" => Node::With(self.branch("with")?),
            "range" => Node::Range(self.branch("range")?),
            "else" => return Ok(Action::Stop(Stop::Else)),
            "end" => {
                self.expect(&Token::Close, "end")?;
                return Ok(Action::Stop(Stop::End));
            }
            "break" | "continue" => {
                self.expect(&Token::Close, &keyword)?;
                if self.n_ranges == 0 {
                    return Err(self.fault(format!("{{{{{keyword}}}}} outside {{{{range}}}}")));
                }
                if keyword == "break" { Node::Break } else { Node::Continue }
            }
            "define" => {
                self.define()?;
                return Ok(Action::Nothing);
            }
            "block" => self.block()?,
            "template" => self.call()?,
            _ => {
                self.next -= 1;
                Node::Action(self.pipe(&Token::Close, "command")?)
            }
        };
        Ok(Action::Node(node))
    }

    /// A pipeline, a body, what comes instead, and `{{end}}`. Variables live until there.
    fn branch(&mut self, keyword: &str) -> Result<Branch, Fault> {
        let n_variables = self.variables.len();
        let pipe = self.pipe(&Token::Close, keyword)?;
        let is_range = keyword == "range";
        self.n_ranges += usize::from(is_range);
        let (body, stop) = self.list()?;
        self.n_ranges -= usize::from(is_range);
        let otherwise = match stop {
            Stop::Else => self.otherwise(keyword)?,
            Stop::End => Vec::new(),
            Stop::EndOfText => return Err(self.fault("unexpected EOF")),
        };
        self.variables.truncate(n_variables);
        Ok(Branch { pipe, body, otherwise })
    }

    /// What follows `{{else`: `if` and `with` may be chained, and one `{{end}}` closes the chain.
    fn otherwise(&mut self, keyword: &str) -> Result<Vec<Node>, Fault> {
        for (chained, node) in [("if", Node::If as fn(Branch) -> Node), ("with", Node::With)] {
            if keyword == chained && self.take_word(chained) {
                self.deeper()?;
                let branch = self.branch(chained)?;
                self.depth -= 1;
                return Ok(vec![node(branch)]);
            }
        }
        self.expect(&Token::Close, "else")?;
        match self.list()? {
            (nodes, Stop::End) => Ok(nodes),
            (_, Stop::Else) => Err(self.fault("expected end; found {{else}}")),
            (_, Stop::EndOfText) => Err(self.fault("unexpected EOF")),
        }
    }

    fn name(&mut self, context: &str) -> Result<String, Fault> {
        match self.take().map(|l| l.token) {
            Some(Token::Literal(Value::String(name))) => Ok(name),
            _ => Err(self.unexpected(context)),
        }
    }

    /// A template of its own: neither the variables nor the loops around it are its.
    fn define(&mut self) -> Result<(), Fault> {
        let name = self.name("define clause")?;
        self.expect(&Token::Close, "define clause")?;
        self.define_as(name)
    }

    fn define_as(&mut self, name: String) -> Result<(), Fault> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let n_ranges = std::mem::take(&mut self.n_ranges);
        match self.list()? {
            (nodes, Stop::End) => self.defined.insert(name, nodes),
            (_, Stop::Else) => return Err(self.fault("unexpected {{else}} in define clause")),
            (_, Stop::EndOfText) => return Err(self.fault("unexpected EOF")),
        };
        self.variables = variables;
        self.n_ranges = n_ranges;
        Ok(())
    }

    fn block(&mut self) -> Result<Node, Fault> {
        let span = self.span_here();
        let name = self.name("block clause")?;
        let data = Some(self.pipe(&Token::Close, "block clause")?);
        self.define_as(name.clone())?;
        Ok(Node::Call { name, data, span })
    }

    fn call(&mut self) -> Result<Node, Fault> {
        let span = self.span_here();
        let name = self.name("template clause")?;
        let data = if self.take_if(&Token::Close) {
            None
        } else {
            Some(self.pipe(&Token::Close, "template clause")?)
        };
        Ok(Node::Call { name, data, span })
    }

    fn span_here(&self) -> Span {
        let (from, to) = self.lexemes.get(self.next).map_or((self.end, self.end), |l| (l.at, l.end));
        Span { at: from, from, to }
    }

    /// A pipeline up to and with `close`.
    fn pipe(&mut self, close: &Token, context: &str) -> Result<Pipe, Fault> {
        self.deeper()?;
        let (variables, declares) = self.declaration(context)?;
        let mut commands = Vec::new();
        loop {
            commands.push(self.command(context)?);
            if self.take_if(&Token::Pipe) {
                continue;
            }
            self.expect(close, context)?;
            break;
        }
        for (i, command) in commands.iter().enumerate().skip(1) {
            let first = &command.operands[0];
            let is_fixed = matches!(first.base, Base::Dot | Base::Nil | Base::Literal(_));
            if is_fixed && first.fields.is_empty() {
                let why = format!("non executable command in pipeline stage {}", i + 1);
                return Err(Fault::parse(first.span.at, why));
            }
        }
        if declares {
            self.variables.extend(variables.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipe { variables, declares, commands })
    }

    /// `$x :=`, `$x =`, and in a range `$i, $x :=`.
    fn declaration(&mut self, context: &str) -> Result<(Vec<String>, bool), Fault> {
        let start = self.next;
        let mut variables = Vec::new();
        while let Some(Token::Variable(name)) = self.peek() {
            variables.push(name.clone());
            self.next += 1;
            if context == "range" && variables.len() < 2 && self.take_if(&Token::Comma) {
                continue;
            }
            let declares = self.take_if(&Token::Declare);
            if declares || self.take_if(&Token::Assign) {
                if let Some(unknown) = variables.iter().find(|v| !declares && !self.variables.contains(v)) {
                    return Err(self.fault(format!("undefined variable {unknown:?}")));
                }
                return Ok((variables, declares));
            }
            break;
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self, context: &str) -> Result<Command, Fault> {
        let mut operands: Vec<Operand> = Vec::new();
        while !matches!(self.peek(), Some(Token::Pipe | Token::Close | Token::RightParen)) {
            operands.push(self.operand(context)?);
        }
        let (Some(first), Some(last)) = (operands.first(), operands.last()) else {
            self.next += 1;
            return Err(self.fault(format!("missing value for {context}")));
        };
        let span = Span { at: first.span.at, from: first.span.from, to: last.span.to };
        Ok(Command { operands, span })
    }

    fn operand(&mut self, context: &str) -> Result<Operand, Fault> {
        let Some(lexeme) = self.take() else {
            return Err(self.fault("unclosed action"));
        };
        let mut span = Span { at: lexeme.at, from: lexeme.at, to: lexeme.end };
        let mut fields = Vec::new();
        let base = match lexeme.token {
            Token::Dot => Base::Dot,
            Token::Field(name) => {
                fields.push(name);
                Base::Dot
            }
            Token::Literal(value) => Base::Literal(value),
            Token::Variable(name) if self.variables.contains(&name) => Base::Variable(name),
            Token::Variable(name) => return Err(self.fault(format!("undefined variable {name:?}"))),
            Token::Word(word) => match word.as_str() {
                "true" => Base::Literal(Value::Bool(true)),
                "false" => Base::Literal(Value::Bool(false)),
                "nil" => Base::Nil,
                _ if functions::is_known(&word) => Base::Function(word),
                _ => return Err(self.fault(format!("function {word:?} not defined"))),
            },
            Token::LeftParen => {
                let pipe = self.pipe(&Token::RightParen, "parenthesized pipeline")?;
                span.to = self.lexemes[self.next - 1].end;
                Base::Pipe(Box::new(pipe))
            }
            _ => return Err(self.unexpected(context)),
        };
        self.chain(&base, &mut fields, &mut span)?;
        Ok(Operand { base, fields, span })
    }

    /// Takes the fields that follow without a space: `.A.B`, `$x.A`, `(pipe).A`.
    fn chain(&mut self, base: &Base, fields: &mut Vec<String>, span: &mut Span) -> Result<(), Fault> {
        while let Some(Lexeme { token: Token::Field(name), at, end, spaced: false }) =
            self.lexemes.get(self.next)
        {
            let (name, at, end) = (name.clone(), *at, *end);
            self.next += 1;
            if matches!(base, Base::Literal(_) | Base::Nil) {
                return Err(self.fault(format!("unexpected <.{name}> after term")));
            }
            fields.push(name);
            span.at = at;
            span.to = end;
        }
        Ok(())
    }
}
