//! Bind mounts whose files belong to the caller (`own`), whatever user the container has: for root by mapping the ids of
//! the mount (mount_setattr(2), MOUNT_ATTR_IDMAP). For a user see `identity::inner_ids`.

use anyhow::Result;

use crate::host::Ids;
use crate::oci::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount, Spec};
use crate::oci::words::OWN;
use crate::store::Store;
use crate::store::container::Record;

fn is_own(mount: &Mount) -> bool {
    mount.options().iter().flatten().any(|word| word == OWN)
}

/// Whether there is such a mount.
pub(super) fn is_asked(spec: &Spec) -> bool {
    spec.mounts().iter().flatten().any(is_own)
}

/// Gives them the mappings by which what the container's user writes is the caller's on disk.
pub(super) fn map_mounts(spec: &mut Spec, store: &Store, record: &Record, user: (u32, u32)) -> Result<()> {
    let Some(caller) = record.caller.as_ref().filter(|_| store.ids == Ids::Root && is_asked(spec)) else {
        return Ok(());
    };
    if user == (caller.uid, caller.gid) {
        return Ok(());
    }
    let (uids, gids) = (mappings(caller.uid, user.0)?, mappings(caller.gid, user.1)?);
    for mount in spec.mounts_mut().iter_mut().flatten().filter(|m| is_own(m)) {
        mount.set_uid_mappings(Some(uids.clone()));
        mount.set_gid_mappings(Some(gids.clone()));
    }
    Ok(())
}

/// `caller` on disk is `user` in the container, and everybody else is who they are; but for `user` on disk, who would be
/// taken for the caller, and the caller in the container, who would be taken for `user`: those two are nobody, and
/// cannot write there.
fn mappings(caller: u32, user: u32) -> Result<Vec<LinuxIdMapping>> {
    let mapping = |inside: u32, outside: u32, size: u32| {
        LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(size).build()
    };
    let mut all = vec![mapping(caller, user, 1)?];
    let (low, high) = (caller.min(user), caller.max(user));
    let last = u32::MAX - 1;
    for (from, to) in [(0, low), (low + 1, high), (high.saturating_add(1), last)] {
        if from < to {
            all.push(mapping(from, from, to - from)?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_the_user_and_nobody_is_both() {
        let check = |caller: u32, user: u32, want: &[(u32, u32, u32)]| {
            let got: Vec<_> = mappings(caller, user)
                .unwrap()
                .iter()
                .map(|m| (m.container_id(), m.host_id(), m.size()))
                .collect();
            assert_eq!(got, want);
        };
        check(0, 1000, &[(0, 1000, 1), (1, 1, 999), (1001, 1001, u32::MAX - 1002)]);
        check(1000, 0, &[(1000, 0, 1), (1, 1, 999), (1001, 1001, u32::MAX - 1002)]);
        check(5, 6, &[(5, 6, 1), (0, 0, 5), (7, 7, u32::MAX - 8)]);
        check(7, 7, &[(7, 7, 1), (0, 0, 7), (8, 8, u32::MAX - 9)]);
    }
}
