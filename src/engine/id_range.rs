//! `--userns auto`: which ids a container has for itself.
//!
//! Root takes them from the ranges of the user `containers` in /etc/subuid and /etc/subgid, as podman does, or, where there
//! are none, from [`OURS`]; a user from those that they have. Whose they are is told by the containers' records, so they
//! are free again when the container is gone. Invariant: from looking which are taken until the record says so,
//! `ids.lock` is held.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::error::ResultExt;
use crate::fs;
use crate::host::{self, IdMapping, IdRange, Ids, OwnIds, extents};
use crate::spec::options::{Mount, Options, Userns};
use crate::store::Store;
use crate::store::container::{self, ContainerDir, Record, Source};
use crate::supervisor::users_of_image;
use crate::sys::lock::{self, Kind};

/// Above what systemd gives to its containers and users (its UIDS-GIDS document), below what a signed number ends at.
const OURS: IdRange = IdRange { start: 0x7000_0000, count: 0x1000_0000 };
/// Podman's least.
const LEAST: u32 = 1024;
/// What every image does with, where there is plenty.
const USUAL: u32 = 65_536;
/// The id of nobody, for which no range is widened.
const NOBODY: u32 = 65_534;
/// The kernel takes 340 lines (user_namespaces(7)); two come for each that is asked for.
const MOST_LINES: usize = 100;

/// What can be refused before anything is made.
pub fn check(store: &Store, options: &Options, source: &Source, is_person: bool) -> Result<()> {
    let (flag, lines) = match &options.userns {
        Userns::Auto { uids, gids, .. } => ("--userns auto", [uids, gids]),
        Userns::Mapped(ids) => ("--uidmap", [&ids.uids, &ids.gids]),
        _ => return Ok(()),
    };
    let about = || format!("cannot use {flag}");
    if is_person {
        return Err(anyhow!("a shell has the ids of who opens it")).with_context(about);
    }
    if store.ids == Ids::Single {
        return Err(anyhow!("this user has one id, and a container with ids of its own takes more"))
            .with_context(about)
            .hint("give this user subordinate ids in /etc/subuid and /etc/subgid: dhow setup says how");
    }
    if let Source::Dir { .. } = source {
        return Err(anyhow!("a directory is shown with the owners that it has"))
            .with_context(about)
            .hint("import a tar of it, or use --userns keep-id");
    }
    let is_own = |mount: &Mount| matches!(mount, Mount::Bind { own: true, .. });
    if store.ids != Ids::Root && options.mounts.iter().any(is_own) {
        return Err(anyhow!("the caller is nobody there, so that no mount can be theirs"))
            .with_context(about)
            .hint("let a user of the container be the caller, by --userns auto:uidmapping=UID:0:1,gidmapping=GID:0:1, and leave own out");
    }
    lines.into_iter().try_for_each(|lines| check_lines(lines)).with_context(about)
}

fn check_lines(lines: &[IdMapping]) -> Result<()> {
    anyhow::ensure!(lines.len() <= MOST_LINES, "it has more than {MOST_LINES} mappings");
    let shown = |l: &IdMapping| format!("{}:{}:{}", l.inside, l.outside, l.count);
    for (n, line) in lines.iter().enumerate() {
        let fits = |first: u32| first.checked_add(line.count).is_some();
        anyhow::ensure!(
            line.count > 0 && fits(line.inside) && fits(line.outside),
            "{} maps what are no ids",
            shown(line)
        );
        let meets = |a: u32, other: u32, count: u32| a < other + count && other < a + line.count;
        let other = lines[..n].iter().find(|other| {
            meets(line.inside, other.inside, other.count) || meets(line.outside, other.outside, other.count)
        });
        if let Some(other) = other {
            return Err(anyhow!("{} and {} map the same id", shown(other), shown(line)));
        }
    }
    Ok(())
}

/// Finds ids for the container, if it is to have its own, and puts them in its record; to be held until that is written.
pub fn claim(store: &Store, record: &mut Record, options: &Options) -> Result<Option<File>> {
    let (size, uids, gids) = match &options.userns {
        Userns::Mapped(ids) => {
            check_had("/proc/self/uid_map", &ids.uids)?;
            check_had("/proc/self/gid_map", &ids.gids)?;
            record.ids = Some(ids.clone());
            return Ok(None);
        }
        Userns::Auto { size, uids, gids } => (*size, uids, gids),
        _ => return Ok(None),
    };
    let about = "cannot use --userns auto";
    let free = available(store).context(about)?;
    let size = match size {
        Some(size) => size,
        None if free.0.iter().chain(&free.1).any(|range| range.count >= 256 * USUAL) => USUAL,
        None => needed(store, record, options).context(about)?,
    };
    let lock = fs::open_or_create(&store.data.join("ids.lock"), 0o600)?;
    lock::acquire(&lock, Kind::Exclusive).context("cannot lock the ids of containers")?;
    let taken = taken(store).context(about)?;
    let map = |lines: &[IdMapping], ranges: &[IdRange], taken: &[IdMapping]| {
        let found = find(size, lines, ranges, taken);
        found.with_context(|| format!("no {size} ids are free")).context(about).with_hint(|| hint(store))
    };
    let uids = map(uids, &free.0, &taken.uids)?;
    let gids = map(gids, &free.1, &taken.gids)?;
    record.ids = Some(OwnIds { uids, gids });
    Ok(Some(lock))
}

/// Whether all that is mapped is there in the name space that we are in. The kernel says no more than that it may not be.
fn check_had(map: &str, lines: &[IdMapping]) -> Result<()> {
    let map = fs::read_to_string(Path::new(map))?;
    let is_had = |line: &IdMapping| {
        let (first, end) = (u64::from(line.outside), u64::from(line.outside) + u64::from(line.count));
        extents(&map).any(|(start, count)| start <= first && end <= start + count)
    };
    let Some(IdMapping { inside, outside, count }) = lines.iter().find(|line| !is_had(line)) else {
        return Ok(());
    };
    Err(anyhow!("cannot map {inside}:{outside}:{count}: the caller does not have all of these ids"))
        .hint("the second number is one of the caller's own: to a user 0 is themselves, and 1 is the first that /etc/subuid gives them")
}

fn hint(store: &Store) -> String {
    let who = if store.ids == Ids::Root { "the user containers" } else { "this user" };
    format!(
        "remove containers that have ids of their own, ask for fewer by --userns auto:size=N, or give {who} more in /etc/subuid and /etc/subgid"
    )
}

/// The ranges to take from, of users and of groups, in ids of the name space that we are in.
fn available(store: &Store) -> Result<(Vec<IdRange>, Vec<IdRange>)> {
    if store.ids == Ids::Root {
        let (uids, gids) = host::ranges_of("containers")?;
        let is_there = !uids.is_empty() && !gids.is_empty();
        return Ok(if is_there { (uids, gids) } else { (vec![OURS], vec![OURS]) });
    }
    let of = |file: &str| -> Result<Vec<IdRange>> {
        let map = fs::read_to_string(&Path::new("/proc/self").join(file))?;
        let range = |(start, count): (u64, u64)| {
            let (first, end) = (start.max(1), start + count);
            Some(IdRange {
                start: u32::try_from(first).ok()?,
                count: u32::try_from(end.checked_sub(first)?).ok()?,
            })
        };
        Ok(extents(&map).filter_map(range).filter(|range| range.count > 0).collect())
    };
    Ok((of("uid_map")?, of("gid_map")?))
}

/// What other containers have.
fn taken(store: &Store) -> Result<OwnIds> {
    #[derive(serde::Deserialize)]
    struct Part {
        #[serde(default)]
        ids: Option<OwnIds>,
    }
    let mut all = OwnIds::default();
    for id in container::ids(store)? {
        let dir = ContainerDir::of(store, &id);
        // One that goes in this moment has none, and one that was not whole when the machine lost power never ran with any.
        let part: Result<Option<Part>> = container::read_json(&dir.file("record.json"));
        let part = match part {
            Err(_) if dir.is_half_written() => continue,
            // It may have the very ids that look free.
            other => other
                .with_context(|| format!("cannot tell which ids container {id} has"))
                .with_hint(|| format!("its record is damaged; remove it: dhow rm {id}"))?,
        };
        let Some(Part { ids: Some(ids) }) = part else { continue };
        all.uids.extend(ids.uids);
        all.gids.extend(ids.gids);
    }
    Ok(all)
}

/// As many ids as the image has users and groups for, and the flags ask for.
fn needed(store: &Store, record: &Record, options: &Options) -> Result<u32> {
    let (passwd, group) = users_of_image(store, record)?;
    let of_files = passwd.lines().chain(group.lines()).flat_map(|line| line.split(':').skip(2).take(2));
    let asked = record.user.split(':').chain(options.group_add.iter().map(String::as_str));
    let ids = of_files.chain(asked).filter_map(|field| field.parse::<u32>().ok());
    let most = ids.filter(|id| *id != NOBODY && *id < u32::MAX - 1).max().unwrap_or(0);
    Ok((most + 1).max(LEAST))
}

/// The map of `size` ids, of which `asked` are told; the others are of the ranges, and nobody's.
fn find(size: u32, asked: &[IdMapping], ranges: &[IdRange], taken: &[IdMapping]) -> Option<Vec<IdMapping>> {
    // What is asked for may lie in the same ranges, and the kernel takes no id twice.
    let taken = [taken, asked].concat();
    assign(size, asked, &|count| pick(ranges, &taken, count))
}

/// The first place in the ranges where so many ids are nobody's.
fn pick(ranges: &[IdRange], taken: &[IdMapping], count: u32) -> Option<u32> {
    for range in ranges {
        let (mut at, end) = (u64::from(range.start), u64::from(range.start) + u64::from(range.count));
        while at + u64::from(count) <= end {
            let in_the_way = taken
                .iter()
                .map(|line| (u64::from(line.outside), u64::from(line.outside) + u64::from(line.count)))
                .find(|(start, stop)| *start < at + u64::from(count) && at < *stop);
            match in_the_way {
                Some((_, stop)) => at = stop,
                None => return u32::try_from(at).ok(),
            }
        }
    }
    None
}

/// The map of `size` ids: what was asked for as it was, and the rest from a place that `pick` finds.
fn assign(size: u32, asked: &[IdMapping], pick: &dyn Fn(u32) -> Option<u32>) -> Option<Vec<IdMapping>> {
    let mut asked = asked.to_vec();
    asked.sort_by_key(|line| line.inside);
    let mut gaps = Vec::new();
    let mut at = 0;
    for line in &asked {
        if line.inside > at && at < size {
            gaps.push((at, line.inside.min(size) - at));
        }
        at = at.max(line.inside + line.count);
    }
    if at < size {
        gaps.push((at, size - at));
    }
    let count: u32 = gaps.iter().map(|(_, count)| count).sum();
    let mut outside = if count == 0 { 0 } else { pick(count)? };
    for (inside, count) in gaps {
        asked.push(IdMapping { inside, outside, count });
        // One that ends where all ids end has no next.
        outside = outside.saturating_add(count);
    }
    asked.sort_by_key(|line| line.inside);
    Some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line((inside, outside, count): (u32, u32, u32)) -> IdMapping {
        IdMapping { inside, outside, count }
    }

    #[test]
    fn the_first_free_place_is_taken() {
        let ranges = [IdRange { start: 100, count: 10 }, IdRange { start: 500, count: 100 }];
        let check = |taken: &[(u32, u32, u32)], count, want: Option<u32>| {
            let taken: Vec<_> = taken.iter().copied().map(line).collect();
            assert_eq!(pick(&ranges, &taken, count), want, "{taken:?} {count}");
        };
        check(&[], 10, Some(100));
        check(&[], 11, Some(500));
        check(&[], 101, None);
        check(&[(0, 100, 4)], 6, Some(104));
        check(&[(0, 104, 1)], 4, Some(100));
        check(&[(0, 104, 1)], 5, Some(105));
        check(&[(0, 104, 1), (0, 105, 5), (0, 90, 11)], 5, Some(500));
        check(&[(0, 500, 50), (0, 550, 50)], 10, Some(100));
        check(&[(0, 0, u32::MAX)], 1, None);
    }

    #[test]
    fn what_is_asked_for_has_its_place() {
        let check = |size, asked: &[(u32, u32, u32)], want: &[(u32, u32, u32)]| {
            let lines: Vec<_> = asked.iter().copied().map(line).collect();
            let got = assign(size, &lines, &|_| Some(1000)).unwrap();
            assert_eq!(got, want.iter().copied().map(line).collect::<Vec<_>>(), "{size} {asked:?}");
        };
        check(10, &[], &[(0, 1000, 10)]);
        check(10, &[(0, 0, 1)], &[(0, 0, 1), (1, 1000, 9)]);
        check(10, &[(5, 0, 1)], &[(0, 1000, 5), (5, 0, 1), (6, 1005, 4)]);
        check(10, &[(20, 7, 2)], &[(0, 1000, 10), (20, 7, 2)]);
        check(10, &[(8, 7, 4)], &[(0, 1000, 8), (8, 7, 4)]);
        check(4, &[(2, 9, 2), (0, 7, 2)], &[(0, 7, 2), (2, 9, 2)]);
        assert!(assign(10, &[], &|_| None).is_none());
    }

    #[test]
    fn no_id_outside_is_given_twice() {
        let ranges = [IdRange { start: 100, count: 20 }, IdRange { start: u32::MAX - 9, count: 10 }];
        let check = |asked: (u32, u32, u32), taken: &[(u32, u32, u32)], want: &[(u32, u32, u32)]| {
            let taken: Vec<_> = taken.iter().copied().map(line).collect();
            let got = find(10, &[line(asked)], &ranges, &taken).unwrap();
            assert_eq!(got, want.iter().copied().map(line).collect::<Vec<_>>(), "{asked:?}");
        };
        check((0, 7, 1), &[], &[(0, 7, 1), (1, 100, 9)]);
        check((0, 100, 1), &[], &[(0, 100, 1), (1, 101, 9)]);
        check((9, 105, 1), &[], &[(0, 106, 9), (9, 105, 1)]);
        check((0, 7, 1), &[(0, 100, 20)], &[(0, 7, 1), (1, u32::MAX - 9, 9)]);
    }

    #[test]
    fn maps_have_each_id_once() {
        let check =
            |lines: &[(u32, u32, u32)]| check_lines(&lines.iter().copied().map(line).collect::<Vec<_>>());
        assert!(check(&[(0, 5, 1), (1, 6, 1)]).is_ok());
        for wrong in [&[(0, 5, 0)][..], &[(u32::MAX, 5, 1)], &[(0, 5, 2), (1, 9, 1)], &[(0, 5, 2), (7, 6, 1)]]
        {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
