//! `user[:group]` against the container's own /etc/passwd and /etc/group, as docker reads it. Pure.

use anyhow::{Result, anyhow};

use crate::error::ResultExt;

/// Who the program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids, the primary one among them.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Whether /etc/passwd has the user.
    pub is_known: bool,
}

struct Entry<'a> {
    name: &'a str,
    id: u32,
    gid: u32,
    home: &'a str,
}

/// Looks `text` up. An empty one is root. `extra` are further groups by name or number.
pub fn resolve(text: &str, extra: &[String], passwd: &str, group: &str) -> Result<Resolved> {
    let (user, group_word) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = find_user(passwd, user);
    let uid = match (&entry, user.parse::<u32>()) {
        (Some(entry), _) => entry.id,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => {
            return Err(anyhow!("cannot run as {user}: /etc/passwd in the container has no such user"))
                .hint("use a name that the image has, or numbers: -u UID:GID")
                .exit_with(125);
        }
    };
    let gid = match group_word {
        Some(word) => find_group(group, word)?,
        None => entry.as_ref().map_or(0, |e| e.gid),
    };
    let mut groups = vec![gid];
    // An explicit group takes the place of the user's own list.
    if let (Some(entry), None) = (&entry, group_word) {
        groups.extend(member_of(group, entry.name));
    }
    for word in extra {
        groups.push(find_group(group, word)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|g| seen.insert(*g));
    let is_known = entry.is_some();
    let home = entry.map_or("", |e| e.home);
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    Ok(Resolved { uid, gid, groups, home, is_known })
}

fn find_user<'a>(passwd: &'a str, wanted: &str) -> Option<Entry<'a>> {
    let entries = || {
        passwd.lines().filter_map(|line| {
            let f: Vec<&str> = line.trim().split(':').collect();
            (f.len() >= 6).then_some(())?;
            Some(Entry { name: f[0], id: f[2].parse().ok()?, gid: f[3].parse().ok()?, home: f[5] })
        })
    };
    // A name wins over a number, as in docker.
    entries().find(|e| e.name == wanted).or_else(|| entries().find(|e| Ok(e.id) == wanted.parse()))
}

fn find_group(group: &str, wanted: &str) -> Result<u32> {
    let named = groups(group).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid);
    named.or_else(|| wanted.parse().ok()).map_or_else(
        || {
            Err(anyhow!("cannot use group {wanted}: /etc/group in the container has no such group"))
                .hint("use a name that the image has, or a number")
        },
        Ok,
    )
}

fn member_of<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(group).filter(move |(_, _, members)| members.split(',').any(|m| m == user)).map(|(_, gid, _)| gid)
}

fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut f = line.trim().split(':');
        Some((f.next()?, f.nth(1)?.parse().ok()?, f.next().unwrap_or("")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# no\nal:x:1000:1000::/home/al:/bin/sh\n77:x:5:6::/h:/\nbad:x:a:b\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:al,bo\nal:x:1000:\nadm:x:4:bo,al\n";

    #[test]
    fn users_resolve_against_the_image() {
        let check = |text: &str, want: (u32, u32, &[u32], &str)| {
            let r = resolve(text, &[], PASSWD, GROUP).unwrap();
            assert_eq!((r.uid, r.gid, r.groups.as_slice(), r.home.as_str()), want, "{text}");
        };
        check("", (0, 0, &[0], "/root"));
        check("al", (1000, 1000, &[1000, 50, 4], "/home/al"));
        check("1000", (1000, 1000, &[1000, 50, 4], "/home/al"));
        check("al:staff", (1000, 50, &[50], "/home/al"));
        check("1234", (1234, 0, &[0], "/"));
        check("1234:4321", (1234, 4321, &[4321], "/"));
        check("77", (5, 6, &[6], "/h"));
        assert!(resolve("no", &[], PASSWD, GROUP).is_err());
        assert!(resolve("al:no", &[], PASSWD, GROUP).is_err());
        assert_eq!(resolve("al", &["adm".into(), "9".into()], PASSWD, "").unwrap_err().to_string(), "");
        assert_eq!(resolve("al", &["9".into()], PASSWD, GROUP).unwrap().groups, [1000, 50, 4, 9]);
    }
}
