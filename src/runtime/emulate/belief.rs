//! A belief: the ids that a process thinks it has, and the rules of setuid(2) and its kin over them.
//!
//! Here it is only reckoned; which process believes what is `beliefs`.

/// EPERM as the rules give it; nothing else can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// An argument of -1: leave it.
pub const UNCHANGED: u32 = u32::MAX;

/// The four user ids, or the four group ids, of a process: credentials(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ids {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved set-user-id.
    pub saved: u32,
    /// For file access.
    pub file: u32,
}

/// All that a process believes. The default is root without further groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Belief {
    /// User ids.
    pub user: Ids,
    /// Group ids.
    pub group: Ids,
    /// Further groups.
    pub groups: Box<[u32]>,
    /// Which run of a set-user-id program has already raised `user`; 0 for none.
    pub raised_by: u64,
    /// The capabilities of [`KEPT`] that it has kept as somebody else than root (PR_SET_KEEPCAPS, then capset(2), as
    /// setpriv(1) does), and in which run of which program: exec takes them away.
    pub kept: (u32, u64),
}

/// CAP_CHOWN: any owner.
pub const CHOWN: u32 = 1 << 0;
/// CAP_SETGID: any group id.
pub const SETGID: u32 = 1 << 6;
/// CAP_SETUID: any user id.
pub const SETUID: u32 = 1 << 7;
/// CAP_MKNOD: devices.
pub const MKNOD: u32 = 1 << 27;
/// The capabilities that what is emulated here hangs on.
pub const KEPT: u32 = CHOWN | SETGID | SETUID | MKNOD;

impl Belief {
    /// Whether it is root, and so may do everything.
    pub fn is_root(&self) -> bool {
        self.user.effective == 0
    }

    /// Whether it may do what `capability` is for.
    pub fn may(&self, capability: u32) -> bool {
        self.is_root() || self.kept.0 & capability != 0
    }

    /// Whether `gid` is one of its groups.
    pub fn is_in(&self, gid: u32) -> bool {
        self.group.file == gid || self.groups.contains(&gid)
    }
}

/// `free` below: whether any id may be taken, by root or who has the capability.
impl Ids {
    fn all(id: u32) -> Ids {
        Ids { real: id, effective: id, saved: id, file: id }
    }

    /// setuid(2), setgid(2).
    pub fn set(self, id: u32, free: bool) -> Result<Ids, Refused> {
        if free {
            Ok(Ids::all(id))
        } else if id == self.real || id == self.saved {
            Ok(Ids { effective: id, file: id, ..self })
        } else {
            Err(Refused)
        }
    }

    /// setreuid(2), setregid(2).
    pub fn set_re(self, real: u32, effective: u32, free: bool) -> Result<Ids, Refused> {
        let may_real = [UNCHANGED, self.real, self.effective].contains(&real);
        let may_effective = [UNCHANGED, self.real, self.effective, self.saved].contains(&effective);
        if !(free || may_real && may_effective) {
            return Err(Refused);
        }
        let mut new = Ids { real: or(real, self.real), effective: or(effective, self.effective), ..self };
        // "If the real user ID is set or the effective user ID is set to a value not equal to the previous real user
        // ID, the saved set-user-ID will be set to the new effective user ID."
        if real != UNCHANGED || effective != UNCHANGED && effective != self.real {
            new.saved = new.effective;
        }
        new.file = new.effective;
        Ok(new)
    }

    /// setresuid(2), setresgid(2).
    pub fn set_res(self, real: u32, effective: u32, saved: u32, free: bool) -> Result<Ids, Refused> {
        let own = [UNCHANGED, self.real, self.effective, self.saved];
        if !(free || [real, effective, saved].iter().all(|id| own.contains(id))) {
            return Err(Refused);
        }
        let effective = or(effective, self.effective);
        Ok(Ids { real: or(real, self.real), effective, saved: or(saved, self.saved), file: effective })
    }

    /// setfsuid(2), setfsgid(2), which tell nobody that they refused.
    pub fn set_file(self, id: u32, free: bool) -> Ids {
        let own = [self.real, self.effective, self.saved, self.file];
        if id != UNCHANGED && (free || own.contains(&id)) { Ids { file: id, ..self } } else { self }
    }

    /// What exec of a set-user-id file owned by `owner` makes of it.
    pub fn raised_to(self, owner: u32) -> Ids {
        Ids { real: self.real, ..Ids::all(owner) }
    }
}

fn or(asked: u32, old: u32) -> u32 {
    if asked == UNCHANGED { old } else { asked }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: u32 = UNCHANGED;

    fn ids(real: u32, effective: u32, saved: u32) -> Ids {
        Ids { real, effective, saved, file: effective }
    }

    #[test]
    fn root_may_become_anybody_and_not_return() {
        let root = Ids::default();
        assert_eq!(root.set(7, true), Ok(ids(7, 7, 7)));
        assert_eq!(root.set_re(7, 8, true), Ok(ids(7, 8, 8)));
        assert_eq!(root.set_res(1, 2, 3, true), Ok(ids(1, 2, 3)));
        assert_eq!(ids(7, 7, 7).set(0, false), Err(Refused));
        assert_eq!(ids(7, 7, 7).set_res(NO, 0, NO, false), Err(Refused));
    }

    #[test]
    fn others_move_among_their_own() {
        for (result, want) in [
            (ids(7, 7, 0).set(0, false), Ok(ids(7, 0, 0))),
            (ids(7, 8, 9).set(8, false), Err(Refused)),
            (ids(7, 8, 9).set_re(8, 7, false), Ok(ids(8, 7, 7))),
            (ids(7, 8, 9).set_re(NO, 7, false), Ok(ids(7, 7, 9))),
            (ids(7, 8, 9).set_re(NO, 9, false), Ok(ids(7, 9, 9))),
            (ids(7, 8, 9).set_re(9, NO, false), Err(Refused)),
            (ids(7, 8, 9).set_re(NO, NO, false), Ok(ids(7, 8, 9))),
            (ids(7, 8, 9).set_res(9, 7, 8, false), Ok(ids(9, 7, 8))),
            (ids(7, 8, 9).set_res(NO, 9, NO, false), Ok(ids(7, 9, 9))),
            (ids(7, 8, 9).set_res(NO, NO, 1, false), Err(Refused)),
        ] {
            assert_eq!(result, want);
        }
    }

    #[test]
    fn file_ids_go_their_own_way() {
        let me = ids(7, 7, 7);
        assert_eq!(me.set_file(1, false), me);
        assert_eq!(me.set_file(NO, true), me);
        assert_eq!(me.set_file(1, true).file, 1);
        assert_eq!(me.set_file(1, true).set_file(7, false), me);
        assert_eq!(me.set_file(1, true).set_res(NO, NO, NO, false), Ok(me));
    }

    #[test]
    fn a_set_user_id_program_keeps_the_real_id() {
        assert_eq!(ids(7, 7, 7).raised_to(0), ids(7, 0, 0));
    }
}
