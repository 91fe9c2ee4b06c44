//! The lines of /etc/passwd and /etc/group that make a person known in a container. Pure.

/// Whether a text can be a field of /etc/passwd that is a path.
pub fn is_field(text: &str) -> bool {
    text.starts_with('/') && !text.contains(|c: char| c == ':' || c.is_control())
}

/// Whether a text can be a name in /etc/passwd.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c == ':' || c == '/' || c.is_control() || c.is_whitespace())
}

/// The text of /etc/passwd in which `name` has the id `uid`, and the id that name; `None` where it is so already.
///
/// `line` is the whole entry, to be used where there is none. It goes before others of the same id, because whoever looks an
/// id up takes the first.
pub fn passwd(text: &str, name: &str, uid: u32, line: &str) -> Option<String> {
    let fields = |line: &str| -> Option<(String, u32)> {
        let mut f = line.split(':');
        Some((f.next()?.to_owned(), f.nth(1)?.parse().ok()?))
    };
    let first_of_id = text.lines().filter_map(fields).find(|(_, id)| *id == uid);
    let first_of_name = text.lines().filter_map(fields).find(|(other, _)| other == name);
    let is = |found: &Option<(String, u32)>| found.as_ref().is_some_and(|(n, id)| n == name && *id == uid);
    if is(&first_of_id) && is(&first_of_name) {
        return None;
    }
    let mut lines: Vec<&str> =
        text.lines().filter(|l| fields(l).is_none_or(|(other, _)| other != name)).collect();
    let at = lines.iter().position(|l| fields(l).is_some_and(|(_, id)| id == uid)).unwrap_or(lines.len());
    lines.insert(at, line);
    Some(lines.join("\n") + "\n")
}

/// The text of /etc/group in which the id `gid` has a name, `name` if that is free; `None` where it has one already.
pub fn group(text: &str, name: &str, gid: u32) -> Option<String> {
    let entries = || {
        text.lines().filter_map(|line| {
            let mut f = line.split(':');
            Some((f.next()?, f.nth(1)?.parse::<u32>().ok()?))
        })
    };
    if entries().any(|(_, id)| id == gid) {
        return None;
    }
    let is_taken = entries().any(|(other, _)| other == name);
    let name = if is_taken { format!("g{gid}") } else { name.to_owned() };
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Some(format!("{text}{newline}{name}:x:{gid}:\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_id_find_each_other() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(passwd(text, "al", 1000, "al:x:1000:7::/h:/s").as_deref(), want, "{text}");
        };
        check("", Some("al:x:1000:7::/h:/s\n"));
        check("root:x:0:0::/:/s\n", Some("root:x:0:0::/:/s\nal:x:1000:7::/h:/s\n"));
        check("root:x:0:0::/:/s", Some("root:x:0:0::/:/s\nal:x:1000:7::/h:/s\n"));
        check("al:x:1000:1:Al:/home/al:/bin/zsh\n", None);
        // The image has a user of that id, or of that name, or both.
        check("node:x:1000:1000::/n:/s\n", Some("al:x:1000:7::/h:/s\nnode:x:1000:1000::/n:/s\n"));
        check("al:x:5:5::/n:/s\nb:x:6:6::/:/s\n", Some("b:x:6:6::/:/s\nal:x:1000:7::/h:/s\n"));
        check("al:x:5:5::/n:/s\nb:x:1000:6::/:/s\n", Some("al:x:1000:7::/h:/s\nb:x:1000:6::/:/s\n"));
        check("b:x:1000:6::/:/s\nal:x:1000:5::/n:/s\n", Some("al:x:1000:7::/h:/s\nb:x:1000:6::/:/s\n"));
        check("nonsense\n::::\n", Some("nonsense\n::::\nal:x:1000:7::/h:/s\n"));
    }

    #[test]
    fn an_id_of_a_group_gets_a_name() {
        assert_eq!(group("", "al", 5).as_deref(), Some("al:x:5:\n"));
        assert_eq!(group("a:x:1:\nb", "al", 5).as_deref(), Some("a:x:1:\nb\nal:x:5:\n"));
        assert_eq!(group("al:x:1:\n", "al", 5).as_deref(), Some("al:x:1:\ng5:x:5:\n"));
        assert_eq!(group("staff:x:5:bo\n", "al", 5), None);
    }
}
