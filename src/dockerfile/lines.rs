//! Physical lines -> logical lines: comments dropped, continued lines joined. Knows no instruction and no here-document.

/// The logical lines of a text, each with the number of its first physical line, counted from 1.
///
/// A line that ends in the escape and white space goes on in the next one; comments and empty lines in between do not
/// end it.
pub fn logical(text: &str, escape: char) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let start = line.trim_start();
        if start.is_empty() || start.starts_with('#') {
            continue;
        }
        let (_, joined) = open.get_or_insert_with(|| (at + 1, String::new()));
        let piece = if joined.is_empty() { start } else { line };
        match piece.trim_end().strip_suffix(escape) {
            Some(piece) => joined.push_str(piece),
            None => {
                joined.push_str(piece);
                lines.extend(open.take());
            }
        }
    }
    lines.extend(open);
    lines
        .into_iter()
        .map(|(at, line)| (at, line.trim_end().to_owned()))
        .filter(|(_, l)| !l.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_join_at_the_escape() {
        let check = |text: &str, want: &[(usize, &str)]| {
            let got = logical(text, '\\');
            let got: Vec<_> = got.iter().map(|(n, l)| (*n, l.as_str())).collect();
            assert_eq!(got, want, "{text:?}");
        };
        check("", &[]);
        check("CMD a", &[(1, "CMD a")]);
        check("# x\n\n CMD a \nUSER b\r\n", &[(3, "CMD a"), (4, "USER b")]);
        check("ENV a=1 \\\n  # why\n\n  b=2\nCMD x", &[(1, "ENV a=1   b=2"), (5, "CMD x")]);
        check("ENV a=1 \\  \n  b=2", &[(1, "ENV a=1   b=2")]);
        check("CMD a \\", &[(1, "CMD a")]);
        check("\\\n\\", &[]);
    }
}
