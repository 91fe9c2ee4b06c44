//! Who is in a network now, for whoever resolves names: read again only when something changed, which the directory of the
//! network's claims tells. A container that comes or goes changes it by its claims; one whose names change touches it.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use super::{claim, wired};
use crate::fs;
use crate::store::Store;
use crate::store::container::ContainerDir;

/// A state of a network's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    changed: (i64, i64),
    /// Old enough that no further change would carry the same time.
    is_settled: bool,
}

/// Times of files are as fine as the kernel's tick, which is 10 ms at the coarsest.
const TICK: Duration = Duration::from_millis(20);

/// Where changes show.
pub fn place(store: &Store, network_id: &str) -> PathBuf {
    claim::dir_of(store, network_id)
}

/// The state of the network now. To be taken before its members are read.
pub fn stamp(store: &Store, network_id: &str) -> Option<Stamp> {
    let meta = fs::metadata(&place(store, network_id)).ok().flatten()?;
    let changed = meta.modified().ok()?;
    let is_settled = SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICK);
    Some(Stamp { inode: meta.ino(), changed: (meta.mtime(), meta.mtime_nsec()), is_settled })
}

impl Stamp {
    /// Whether what was read then still holds, now that the state is `now`.
    pub fn holds(self, now: Stamp) -> bool {
        self.is_settled && self == now
    }
}

/// Tells those who resolve names that they are to be read again.
pub fn touch(store: &Store, network_id: &str) -> Result<()> {
    let place = place(store, network_id);
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    match rustix::fs::utimensat(CWD, &place, &times, AtFlags::empty()) {
        // Nobody was ever in it.
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => other.with_context(|| format!("cannot touch {}", place.display())),
    }
}

/// A container in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its end of this network, with all it is called there.
    pub end: wired::End,
}

/// Who is in the network, the dead among them: [`is_alive`] tells. One that is just coming, or is between two runs, is not
/// there; it will touch.
pub fn members(store: &Store, network_id: &str) -> Result<Vec<Member>> {
    let mut ids = BTreeSet::new();
    for address in fs::read_dir(&place(store, network_id))? {
        let owner = fs::read_link(&place(store, network_id).join(address))?;
        ids.extend(owner.and_then(|id| id.into_os_string().into_string().ok()).filter(|id| is_id(id)));
    }
    let mut members = Vec::with_capacity(ids.len());
    for id in ids {
        // What cannot be read is half gone.
        let Ok(Some(wired)) = wired::read(&ContainerDir::of(store, &id)) else { continue };
        if wired.is_resting {
            continue;
        }
        let end = wired.ends.into_iter().find(|end| end.network_id == network_id);
        members.extend(end.map(|mut end| {
            end.aliases.extend(wired.hostname);
            Member { id, name: wired.name, end }
        }));
    }
    Ok(members)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a container's supervisor lives: what is known of a dead one does not count.
pub fn is_alive(store: &Store, id: &str) -> bool {
    claim::is_alive(store, id).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::network::wired::{End, Wired};

    #[test]
    fn members_are_told_by_their_claims_and_touched() {
        let data = std::env::temp_dir().join(format!("dhow-member-{}", std::process::id()));
        let store = Store { data: data.clone(), ids: Ids::Root, additional: Vec::new() };
        fs::create_dir_all(&place(&store, "net"), 0o700).unwrap();
        let ids = ["a".repeat(64), "b".repeat(64), "short".to_owned()];
        for (n, id) in ids.iter().enumerate() {
            fs::create_dir_all(&data.join("containers").join(id), 0o700).unwrap();
            fs::symlink(id.as_ref(), &place(&store, "net").join(format!("10.0.0.{n}"))).unwrap();
        }
        let before = stamp(&store, "net").unwrap();
        assert!(!before.holds(before), "what changed just now may change again within the same tick");
        assert_eq!(members(&store, "net").unwrap(), [], "nobody has said yet how it is joined");
        let end = |id: &str| End { network_id: id.to_owned(), ..End::default() };
        let wired = Wired { name: "web".into(), ends: vec![end("other"), end("net")], ..Wired::default() };
        wired::write(&store, &ContainerDir::of(&store, &ids[0]), &wired).unwrap();
        wired::write(&store, &ContainerDir::of(&store, &ids[2]), &wired).unwrap();
        let found = members(&store, "net").unwrap();
        assert_eq!(found, [Member { id: ids[0].clone(), name: "web".into(), end: end("net") }]);
        let is_told = || stamp(&store, "net").is_some_and(|now| now.changed != before.changed);
        while !is_told() {
            touch(&store, "net").unwrap();
        }
        assert!(!is_alive(&store, &ids[0]), "nobody holds its lock");
        touch(&store, "nobody-was-ever-there").unwrap();
        fs::remove_tree(&data).unwrap();
    }
}
