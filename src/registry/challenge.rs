//! WWW-Authenticate (RFC 9110 11.6.1): what a registry wants to see before it answers. Pure.

/// More than this many challenges, or parameters of one, are not looked at.
const LIMIT: usize = 32;

/// One challenge: `Bearer realm="https://auth.example/token",service="registry.example"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    /// `bearer`, `basic`: in lower case.
    pub scheme: String,
    /// Names in lower case, values without their quotes, in order.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Reads one header, which may hold several challenges, separated by the same commas as their parameters. What cannot be
/// understood is passed over.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word = rest.split(|c| !is_token(c)).next().unwrap_or("");
        if word.is_empty() {
            let mut chars = rest.chars();
            if chars.next().is_none() {
                return challenges;
            }
            rest = chars.as_str();
            continue;
        }
        rest = rest[word.len()..].trim_start_matches([' ', '\t']);
        let Some(after) = rest.strip_prefix('=') else {
            if challenges.len() == LIMIT {
                return challenges;
            }
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            continue;
        };
        let (value, after) = value(after.trim_start_matches([' ', '\t']));
        if let Some(challenge) = challenges.last_mut().filter(|c| c.parameters.len() < LIMIT) {
            challenge.parameters.push((word.to_ascii_lowercase(), value));
        }
        rest = after;
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A value, quoted or not, and what follows it. Registries leave the quotes out, so more than a token's characters are taken.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',', '"']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    (value, chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, want: &[(&str, &[(&str, &str)])]) {
        let got = parse(header);
        let got: Vec<(&str, Vec<(&str, &str)>)> = got
            .iter()
            .map(|c| (&*c.scheme, c.parameters.iter().map(|(n, v)| (&**n, &**v)).collect()))
            .collect();
        let want: Vec<(&str, Vec<(&str, &str)>)> = want.iter().map(|(s, p)| (*s, p.to_vec())).collect();
        assert_eq!(got, want, "{header}");
    }

    const HUB: &str = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;

    #[test]
    fn challenges_are_told_apart() {
        check(
            HUB,
            &[(
                "bearer",
                &[
                    ("realm", "https://auth.docker.io/token"),
                    ("service", "registry.docker.io"),
                    ("scope", "repository:a/b:pull,push"),
                ],
            )],
        );
        check(
            r#"Basic realm="a, \"b\" = c", Bearer  REALM=https://x/t , service=s"#,
            &[
                ("basic", &[("realm", r#"a, "b" = c"#)]),
                ("bearer", &[("realm", "https://x/t"), ("service", "s")]),
            ],
        );
        check("Negotiate, basic", &[("negotiate", &[]), ("basic", &[])]);
        check(r#"Basic realm="open"#, &[("basic", &[("realm", "open")])]);
        check("", &[]);
        check(", ,=\"", &[]);
        check(r#"realm="x""#, &[]);
    }

    #[test]
    fn every_prefix_returns() {
        for end in (0..HUB.len()).filter(|n| HUB.is_char_boundary(*n)) {
            parse(&HUB[..end]);
        }
        assert!(parse(&"a=b,".repeat(10_000)).is_empty());
        assert_eq!(parse(&"a ".repeat(10_000)).len(), LIMIT);
        parse("Bearer é=\"ü\\");
    }
}
