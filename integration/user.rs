//! Whom a test runs as. Root's tests run as root and as two users that the harness makes: `dhowsub`, who has
//! subordinate ids, and `dhowone`, who has none. Run by a plain user, the tests are run as that user alone.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;

use crate::capability;

/// The three ways that ids can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Root of this machine.
    Root,
    /// A user with subordinate ids.
    Ranges,
    /// A user with one id.
    Single,
}

/// Ids and name of a user.
#[derive(Debug, Clone)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// The account behind this user, or, after saying so, nothing: this run of the tests cannot be that user.
    pub fn account(self) -> Option<Account> {
        let me = rustix::process::geteuid().as_raw();
        if me == 0 {
            return match self {
                User::Root => Some(Account { name: "root".into(), uid: 0, gid: 0 }),
                User::Ranges if !capability::has("userns") => None,
                User::Single if !capability::has("userns") => None,
                User::Ranges => Some(made().0.clone()),
                User::Single => Some(made().1.clone()),
            };
        }
        let gid = rustix::process::getegid().as_raw();
        let name = passwd_name(me).unwrap_or_default();
        let mine = if subordinate("/etc/subuid", &name) { User::Ranges } else { User::Single };
        if self != mine {
            capability::skip("root", &format!("only root can run tests as {self:?}"));
            return None;
        }
        Some(Account { name, uid: me, gid })
    }
}

fn passwd() -> Vec<(String, u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").unwrap();
    let line = |l: &str| {
        let f: Vec<&str> = l.split(':').collect();
        Some((f.first()?.to_string(), f.get(2)?.parse().ok()?, f.get(3)?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn passwd_name(uid: u32) -> Option<String> {
    passwd().into_iter().find(|(_, u, _)| *u == uid).map(|(name, _, _)| name)
}

fn subordinate(file: &str, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().any(|l| l.split(':').next() == Some(name))
}

/// Both users, made if they do not exist: once per process, and one process at a time.
fn made() -> &'static (Account, Account) {
    static MADE: OnceLock<(Account, Account)> = OnceLock::new();
    MADE.get_or_init(|| {
        let lock = fs::File::create("/run/dhow-test-users.lock").unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        (make("dhowsub", true), make("dhowone", false))
    })
}

fn make(name: &str, with_ranges: bool) -> Account {
    if !passwd().iter().any(|(n, _, _)| n == name) {
        // A system user gets no subordinate ids of useradd's own accord.
        let made = Command::new("useradd")
            .args(["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"])
            .args(["--shell", "/bin/sh", name])
            .output()
            .expect("useradd is in the package passwd");
        assert!(made.status.success(), "cannot add user {name}: {}", String::from_utf8_lossy(&made.stderr));
    }
    if with_ranges {
        for file in ["/etc/subuid", "/etc/subgid"] {
            if !subordinate(file, name) {
                let line = format!("{name}:{}:65536\n", free_range(file));
                let mut file = fs::File::options().create(true).append(true).open(file).unwrap();
                file.write_all(line.as_bytes()).unwrap();
            }
        }
    }
    let (name, uid, gid) = passwd().into_iter().find(|(n, _, _)| n == name).unwrap();
    Account { name, uid, gid }
}

/// The first id above every range that the file gives away.
fn free_range(file: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let end = |line: &str| {
        let mut fields = line.split(':').skip(1);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.trim().parse::<u64>().ok()?)
    };
    text.lines().filter_map(end).max().unwrap_or(0).max(1_000_000)
}

/// Makes one test for each user out of each function `fn name(sandbox: &Sandbox)`.
macro_rules! for_each_user {
    ($($test:ident),* $(,)?) => {
        tests_as!(as_root, Root, $($test),*);
        tests_as!(as_user_with_ranges, Ranges, $($test),*);
        tests_as!(as_user_with_one_id, Single, $($test),*);
    };
}

/// Makes a test as root out of each function.
macro_rules! for_root {
    ($($test:ident),* $(,)?) => {
        tests_as!(only_root, Root, $($test),*);
    };
}

/// Makes two tests out of each function: as a user with subordinate ids and as one without.
macro_rules! for_rootless {
    ($($test:ident),* $(,)?) => {
        tests_as!(only_user_with_ranges, Ranges, $($test),*);
        tests_as!(only_user_with_one_id, Single, $($test),*);
    };
}

/// Makes two tests out of each function: as root and as a user with subordinate ids, for what takes many ids.
macro_rules! for_users_with_many_ids {
    ($($test:ident),* $(,)?) => {
        tests_as!(many_ids_root, Root, $($test),*);
        tests_as!(many_ids_user, Ranges, $($test),*);
    };
}

macro_rules! tests_as {
    ($module:ident, $user:ident, $($test:ident),*) => {
        mod $module {
            $(#[test]
            fn $test() {
                $crate::sandbox::run($crate::user::User::$user, stringify!($test), super::$test);
            })*
        }
    };
}
