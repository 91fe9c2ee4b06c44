//! What a word becomes: `$NAME` and `${NAME...}` replaced, quotes and escapes taken off. Knows no instruction.
//! Source: the Dockerfile reference, "Environment replacement". The pattern forms (`${a#b}`, `${a%b}`, `${a/b/c}`) are
//! refused by name.

use std::iter::Peekable;
use std::str::Chars;

/// What names stand for: `None` is unset.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands one word. The error says what is wrong with it.
pub fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    let mut expansion = Expansion { chars: word.chars().peekable(), escape, lookup, depth: 0 };
    expansion.until(None).map_err(|why| format!("cannot expand {word}: {why}"))
}

struct Expansion<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    lookup: Lookup<'a>,
    depth: u32,
}

impl Expansion<'_> {
    /// Everything up to the unquoted `stop`, which is consumed; `None` is the end of the word.
    fn until(&mut self, stop: Option<char>) -> Result<String, String> {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == stop => return Ok(text),
                '\'' => self.single_quoted(&mut text)?,
                '"' => self.double_quoted(&mut text)?,
                '$' => text.push_str(&self.variable()?),
                c if c == self.escape => text.extend(self.chars.next()),
                c => text.push(c),
            }
        }
        match stop {
            Some(stop) => Err(format!("{stop} is missing")),
            None => Ok(text),
        }
    }

    fn single_quoted(&mut self, text: &mut String) -> Result<(), String> {
        for c in self.chars.by_ref() {
            if c == '\'' {
                return Ok(());
            }
            text.push(c);
        }
        Err("the closing ' is missing".to_owned())
    }

    fn double_quoted(&mut self, text: &mut String) -> Result<(), String> {
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return Ok(()),
                '$' => text.push_str(&self.variable()?),
                // As in the shell, an escape before any other character is that character's neighbour.
                c if c == self.escape => match self.chars.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => text.push(next),
                    next => text.extend(Some(c).into_iter().chain(next)),
                },
                c => text.push(c),
            }
        }
        Err("the closing \" is missing".to_owned())
    }

    /// What follows a `$`.
    fn variable(&mut self) -> Result<String, String> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() {
                "$".to_owned()
            } else {
                (self.lookup)(&name).unwrap_or_default()
            });
        }
        let name = self.name();
        if name.is_empty() {
            return Err("${ must be followed by a name".to_owned());
        }
        // Hostile nesting must not use up the stack.
        self.depth += 1;
        if self.depth > 64 {
            return Err("it is nested too deeply".to_owned());
        }
        let value = (self.lookup)(&name);
        let text = match self.chars.next() {
            Some('}') => value.unwrap_or_default(),
            Some(':') => {
                let value = value.filter(|v| !v.is_empty());
                let operator = self.chars.next();
                self.otherwise(&name, value, operator)?
            }
            operator => self.otherwise(&name, value, operator)?,
        };
        self.depth -= 1;
        Ok(text)
    }

    /// `${name OPERATOR word}`.
    fn otherwise(&mut self, name: &str, value: Option<String>, op: Option<char>) -> Result<String, String> {
        let Some(op @ ('-' | '+' | '?')) = op else {
            return Err(match op {
                None => "} is missing".to_owned(),
                Some(op @ ('#' | '%' | '/')) => {
                    format!("the pattern form ${{{name}{op}...}} is not supported")
                }
                Some(op) => format!("${{{name}{op}...}} is not a form of expansion"),
            });
        };
        let word = self.until(Some('}'))?;
        match (op, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => Err(format!("{name} is not set")),
            (_, None) => Err(format!("{name}: {word}")),
        }
    }

    /// A name, or one digit or sign, as the shell has it; the latter are never set here.
    fn name(&mut self) -> String {
        let is_special = |c: &char| c.is_ascii_digit() || "@*#?-$!".contains(*c);
        let mut name: String = self.chars.next_if(is_special).into_iter().collect();
        if name.is_empty() {
            while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                name.push(c);
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("1 2".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn words_expand_as_in_the_shell() {
        let check = |word: &str, want: &str| {
            assert_eq!(expand(word, '\\', &lookup).as_deref(), Ok(want), "{word}");
        };
        check("", "");
        check("a$A", "a1 2");
        check("${A}b$A", "1 2b1 2");
        check("$NONE.", ".");
        check("'$A'", "$A");
        check("\"$A\"", "1 2");
        check(r"\$A", "$A");
        check(r#""\$A \" \\ \n""#, r#"$A " \ \n"#);
        check(r"a\ b\'c", "a b'c");
        check("'a'\"b\"c", "abc");
        check("$", "$");
        check("a$-b$.", "ab$.");
        check("${NONE:-x$A}", "x1 2");
        check("${EMPTY:-x}${EMPTY-y}", "x");
        check("${A:+x}${EMPTY:+y}${EMPTY+z}", "xz");
        check("${A:?no}", "1 2");
        check("${NONE:-'}'}", "}");
        check("$A_", "");
        check("$12", "2");
        check(r"a\", "a");
    }

    #[test]
    fn bad_words_say_why() {
        let check = |word: &str, why: &str| {
            let error = expand(word, '\\', &lookup).unwrap_err();
            assert!(error.contains(why), "{word}: {error}");
        };
        check("'a", "closing '");
        check("\"a", "closing \"");
        check("${A", "} is missing");
        check("${}", "a name");
        check("${NONE:?is needed}", "NONE: is needed");
        check("${NONE?}", "NONE is not set");
        check("${A#1}", "pattern form");
        check("${A!}", "not a form");
        check(&"${B:-".repeat(1000), "too deeply");
    }

    #[test]
    fn every_prefix_returns() {
        let all = "a$A${A:-\"x ${B+'y'}\"}\\'\"\\$${C:?d}\"é";
        for (at, _) in all.char_indices() {
            let _ = expand(&all[..at], '\\', &lookup);
        }
    }
}
