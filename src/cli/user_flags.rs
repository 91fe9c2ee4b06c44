//! The flags of run and create about who its users are: --userns, --uidmap and its like, --passwd.

use anyhow::{Context, Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{list, many, value};
use super::run_flags::one;
use crate::error::ResultExt;
use crate::host::{self, Host, IdMapping, IdRange, Ids, OwnIds};
use crate::spec::options::{Options, Userns};

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command
        .arg(value(
            "userns",
            None,
            "MODE",
            "host (a user is root inside), keep-id[:uid=N,gid=N] (they are themselves), nomap (they are nobody), auto[:size=N,uidmapping=C:H:N,gidmapping=C:H:N] (ids that no other container has) or container:NAME (as there) (host)",
        ))
        .arg(list("uidmap", None, "CONTAINER:HOST[:SIZE]", "Map these user ids, in a user name space of its own"))
        .arg(list("gidmap", None, "CONTAINER:HOST[:SIZE]", "Map these group ids"))
        .arg(value("subuidname", None, "NAME", "Map the user ids that /etc/subuid gives to NAME"))
        .arg(value("subgidname", None, "NAME", "Map the group ids that /etc/subgid gives to NAME"))
        .arg(
            value("passwd", None, "BOOL", "false: no entry in /etc/passwd for a user that is only a number (true)")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        )
}

/// Reads them.
pub(super) fn read(matches: &ArgMatches, host: &Host, options: &mut Options) -> Result<()> {
    options.no_passwd = match one(matches, "passwd") {
        None | Some("true" | "1") => false,
        Some("false" | "0") => true,
        Some(other) => return Err(anyhow!("cannot use --passwd={other}: it is neither true nor false")),
    };
    options.userns = match one(matches, "userns") {
        None | Some("" | "host") => Userns::Host,
        Some("nomap") => Userns::NoMap,
        Some("auto") => auto("")?,
        Some(mode) if mode.starts_with("auto:") => auto(&mode["auto:".len()..])?,
        Some("keep-id") => Userns::KeepId { uid: None, gid: None },
        Some(other) => match other.strip_prefix("keep-id:") {
            Some(words) => keep_id(words)?,
            None => match other.strip_prefix("container:").filter(|name| !name.is_empty()) {
                Some(name) => Userns::Container(name.to_owned()),
                None => {
                    return Err(anyhow!("cannot use --userns {other:?}: invalid USER mode"))
                        .hint("it is host, keep-id, keep-id:uid=N,gid=N, nomap, auto or container:NAME");
                }
            },
        },
    };
    if let Some(ids) = own_ids(matches, &host.ids)? {
        if one(matches, "userns").is_some_and(|mode| !matches!(mode, "" | "host" | "private")) {
            return Err(anyhow!(
                "cannot use --userns together with --uidmap, --gidmap, --subuidname or --subgidname"
            ))
            .hint("the maps say it all");
        }
        options.userns = Userns::Mapped(ids);
    }
    Ok(())
}

/// The maps that were typed. What is said of users holds for groups, if nothing is said of them, and the other way round.
fn own_ids(matches: &ArgMatches, callers: &Ids) -> Result<Option<OwnIds>> {
    let typed = |flag: &str| -> Result<Vec<IdMapping>> {
        many(matches, flag)
            .into_iter()
            .map(|text| mapping(text).with_context(|| format!("cannot use --{flag}")))
            .collect()
    };
    let (mut uids, mut gids) = (typed("uidmap")?, typed("gidmap")?);
    for (flag, file, lines) in
        [("subuidname", "/etc/subuid", &mut uids), ("subgidname", "/etc/subgid", &mut gids)]
    {
        let Some(name) = one(matches, flag) else { continue };
        let (of_users, of_groups) = host::ranges_of(name)?;
        let is_of_users = flag == "subuidname";
        let ranges = if is_of_users { of_users } else { of_groups };
        if ranges.is_empty() {
            return Err(anyhow!("cannot use --{flag} {name}: {file} has no range for it"));
        }
        let mut inside = 0;
        for range in ranges {
            let outside = match callers {
                Ids::Ranges { uids, gids } => place(range, if is_of_users { uids } else { gids })
                    .ok_or_else(|| {
                        let last = range.start + (range.count - 1);
                        anyhow!("cannot use --{flag} {name}: {file} gives the ids {}-{last} to {name}, and not to the caller", range.start)
                    })
                    .hint("a user can map ids of their own only: name yourself, or use --userns auto")?,
                // To one who has a single id that is told in the end, whatever the ids.
                Ids::Root | Ids::Single => range.start,
            };
            lines.push(IdMapping { inside, outside, count: range.count });
            inside = inside.saturating_add(range.count);
        }
    }
    if uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    if uids.is_empty() {
        uids.clone_from(&gids);
    }
    if gids.is_empty() {
        gids.clone_from(&uids);
    }
    Ok(Some(OwnIds { uids, gids }))
}

/// Where a range of ids of this machine begins in the user name space of a caller who has these, of which the first is 1
/// there. `None`: it is not the caller's.
fn place(range: IdRange, own: &[IdRange]) -> Option<u32> {
    let mut at = 1;
    for one in own {
        let is_within = range.start >= one.start && range.start + range.count <= one.start + one.count;
        if is_within {
            return Some(at + (range.start - one.start));
        }
        at += one.count;
    }
    None
}

/// `CONTAINER:HOST[:SIZE]`.
fn mapping(text: &str) -> Result<IdMapping> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|n| n.parse().ok()).collect();
    match numbers.as_deref() {
        Some([inside, outside]) => Ok(IdMapping { inside: *inside, outside: *outside, count: 1 }),
        Some([inside, outside, count]) => Ok(IdMapping { inside: *inside, outside: *outside, count: *count }),
        _ => Err(anyhow!("{text:?} is not CONTAINER:HOST[:SIZE]")),
    }
}

fn auto(words: &str) -> Result<Userns> {
    let about = || format!("cannot use --userns auto:{words}");
    let (mut size, mut uids, mut gids) = (None, Vec::new(), Vec::new());
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "size" => {
                let number = value.parse::<u32>().ok().filter(|n| *n > 0 && *n < u32::MAX);
                size = Some(
                    number.with_context(|| format!("{value:?} is no number of ids")).with_context(about)?,
                );
            }
            "uidmapping" => uids.push(mapping(value).with_context(about)?),
            "gidmapping" => gids.push(mapping(value).with_context(about)?),
            _ => {
                return Err(anyhow!("there is no option {word:?}"))
                    .with_context(about)
                    .hint("its options are size=N, uidmapping=CONTAINER:HOST:SIZE and gidmapping=CONTAINER:HOST:SIZE");
            }
        }
    }
    Ok(Userns::Auto { size, uids, gids })
}

fn keep_id(words: &str) -> Result<Userns> {
    let (mut uid, mut gid) = (None, None);
    for word in words.split(',') {
        let wrong = || anyhow!("cannot use --userns keep-id:{words}: {word:?} is neither uid=N nor gid=N");
        let (key, value) = word.split_once('=').ok_or_else(wrong)?;
        // The kernel's own "no id" (user_namespaces(7)) is none.
        let id = value.parse::<u32>().ok().filter(|id| *id < u32::MAX).ok_or_else(wrong)?;
        match key {
            "uid" => uid = Some(id),
            "gid" => gid = Some(id),
            _ => return Err(wrong()),
        }
    }
    Ok(Userns::KeepId { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_where_the_caller_has_them() {
        let range = |(start, count)| IdRange { start, count };
        let check = |wanted, own: &[(u32, u32)], want| {
            let own: Vec<_> = own.iter().copied().map(range).collect();
            assert_eq!(place(range(wanted), &own), want, "{wanted:?} {own:?}");
        };
        check((100_000, 65_536), &[(100_000, 65_536)], Some(1));
        check((300, 10), &[(100, 50), (300, 10)], Some(51));
        check((305, 5), &[(100, 50), (300, 10)], Some(56));
        check((305, 6), &[(100, 50), (300, 10)], None);
        check((99, 2), &[(100, 50)], None);
        check((1, 10), &[], None);
    }
}
