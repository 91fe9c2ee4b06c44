//! How an instruction's arguments are cut into words, pairs and JSON strings. Quotes and escapes stay in the words:
//! [`super::expand`] takes them off.

/// Cuts at white space outside quotes.
///
/// An escape takes the next character along, whatever it is, except in single quotes; a lone one at the end is dropped.
/// A quote that is never closed runs to the end (expanding such a word is then the error).
pub fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            if let Some(next) = chars.next() {
                word.extend([c, next]);
            }
            continue;
        }
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The pairs of ENV and LABEL: `NAME=VALUE ...`, or the old form `NAME VALUE` with the rest of the line as the value.
pub fn pairs(text: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = words(text, escape);
    let Some(first) = words.first() else {
        return Err("needs at least one NAME=VALUE".to_owned());
    };
    if !first.contains('=') {
        let (name, value) = text
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("needs NAME=VALUE: {first} has no value"))?;
        return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(format!("needs a name before the = of {word}")),
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!("needs NAME=VALUE: {word} has no =")),
        })
        .collect()
}

/// The strings of the JSON form, `["a", "b"]`; `None` where the text is anything else, which makes it the shell form.
pub fn json_strings(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_quotes() {
        let check = |text: &str, want: &[&str]| assert_eq!(words(text, '\\'), want, "{text}");
        check("", &[]);
        check("  ", &[]);
        check("a b\tc", &["a", "b", "c"]);
        check("a='b c' d=\"e f\"", &["a='b c'", "d=\"e f\""]);
        check(r"a=b\ c d", &[r"a=b\ c", "d"]);
        check(r#"a="b\" c" d"#, &[r#"a="b\" c""#, "d"]);
        check(r"a='b\' d", &[r"a='b\'", "d"]);
        check(r"a=b\", &["a=b"]);
        check("a=\"b c", &["a=\"b c"]);
        check("\"\" x", &["\"\"", "x"]);
    }

    #[test]
    fn pairs_come_in_two_forms() {
        let check = |text: &str, want: &[(&str, &str)]| {
            let got = pairs(text, '\\').unwrap();
            let got: Vec<_> = got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(got, want, "{text}");
        };
        check("a=b", &[("a", "b")]);
        check("a=b c='d e' f=", &[("a", "b"), ("c", "'d e'"), ("f", "")]);
        check("a b=c  d", &[("a", "b=c  d")]);
        check("a=b=c", &[("a", "b=c")]);
        for bad in ["", "a", "a=b c", "=b"] {
            assert!(pairs(bad, '\\').is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_array_of_strings_is_the_json_form() {
        let check = |text: &str, want: Option<&[&str]>| {
            let want = want.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
            assert_eq!(json_strings(text), want, "{text}");
        };
        check(r#"["a", "b c"]"#, Some(&["a", "b c"]));
        check(" [] ", Some(&[]));
        check("['a']", None);
        check("[1]", None);
        check("[\"a\"] x", None);
        check("[ -f x ]", None);
        check("\"a\"", None);
    }
}
