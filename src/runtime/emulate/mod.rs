//! Root emulation: how programs in the container of a user with one single id can chown, mknod and change their ids.
//!
//! 1. The container's init installs [`filter()`] with SECCOMP_FILTER_FLAG_NEW_LISTENER and sends the listener to the
//!    supervisor. From then on each call of `filter::Call` waits for an answer.
//! 2. The supervisor polls the listener and calls [`Handler::handle_one`].
//! 3. Ids are answered from what the process believes (`belief`, `beliefs`); owners and devices are written beside the
//!    files (`owner`), which are found as the process would find them (`process`).
//!
//! It gives a container nothing that its user does not have: all is done with the rights of the supervisor, root of the
//! same user name space. So that a path or a pid changes between our look and our act is no matter of security; yet
//! each call is asked whether it still waits, because a pid may by then be a stranger's.
//!
//! 4. With [`filter_showing_owners`] in place of [`filter()`], stat(2) tells those owners too (`sight`); otherwise all files
//!    are root's to the programs inside.
//!
//! Not emulated: /proc/PID/status and the credentials that sockets pass show the true ids, and access(2) says that all is
//! allowed.
//!
//! Invariant: memory is bounded by `beliefs`; no descriptor is kept but the listener.

mod belief;
mod beliefs;
mod filter;
mod owner;
mod process;
mod sight;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::sys::notify;
use crate::sys::notify::Answer;
use crate::sys::notify::Notification;
use crate::sys::seccomp;

use belief::{Belief, Ids, KEPT, Refused, SETGID, SETUID, UNCHANGED};
use beliefs::Beliefs;
use filter::Call;
pub use filter::{filter, filter_showing_owners};
use process::{Found, Memory, Proc, Process};

/// NGROUPS_MAX: what setgroups(2) refuses before it reads anything.
const NGROUPS_MAX: u32 = 65536;

/// Puts this process, and all that it starts, under `program` of [`filter()`]; the listener goes to the supervisor, which
/// must answer from the next instant on. `None` where another emulation is at work already, for the kernel has one
/// listener per process: a dhow within a dhow, whose calls the outer one answers.
///
/// Needs no_new_privs or CAP_SYS_ADMIN in the user name space. Allocates nothing.
pub fn install(program: &[libc::sock_filter]) -> io::Result<Option<OwnedFd>> {
    // Once received, a call is not interrupted by signals that do not kill (Linux 5.19): else a handler without
    // SA_RESTART would make getuid(2) fail, which no program expects.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    let killable = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;
    let result = match seccomp::install(program, flags | killable) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => seccomp::install(program, flags),
        result => result,
    };
    match result {
        // EACCES: no right to install any, as in the sandbox of another container; then that one's answers count.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EACCES)) => Ok(None),
        result => result,
    }
}

/// Answers the calls of one listener.
#[derive(Debug)]
pub struct Handler {
    listener: OwnedFd,
    buffer: notify::Buffer,
    beliefs: Beliefs,
    proc: Proc,
}

/// What to poll: readable when a call waits; POLLHUP when the last process with the filter is gone.
impl AsFd for Handler {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl From<Refused> for Errno {
    fn from(_: Refused) -> Errno {
        Errno::PERM
    }
}

impl Handler {
    /// Takes the listener over.
    pub fn new(listener: OwnedFd) -> Handler {
        // Linux 6.6; without it answers take a little longer.
        let _ = notify::wake_synchronously(&listener);
        Handler { listener, buffer: notify::Buffer::new(), beliefs: Beliefs::default(), proc: Proc::new() }
    }

    /// Answers the next call; to be called when poll says readable. A caller that is killed meanwhile is no error.
    pub fn handle_one(&mut self) -> io::Result<()> {
        let asked = match notify::receive(&self.listener, &mut self.buffer) {
            Ok(asked) => asked,
            Err(e) if gone(&e) => return Ok(()),
            Err(e) => return Err(e),
        };
        let answer = match filter::call(asked.arch, asked.number) {
            None => Answer::Continue,
            Some(Call::Capset) => {
                // What cannot be noted is no reason to refuse; the kernel finds the faults of the call itself.
                let _ = self.note_capabilities(&asked);
                Answer::Continue
            }
            Some(call @ (Call::Fstat | Call::Stat | Call::Lstat | Call::Newfstatat | Call::Statx)) => {
                self.stat(call, &asked)
            }
            Some(call @ (Call::Open | Call::Openat | Call::Creat | Call::Mkdir | Call::Mkdirat)) => {
                match self.create(call, &asked) {
                    Some(answer) => answer,
                    None => return Ok(()),
                }
            }
            Some(call) => match self.answer(call, &asked) {
                Ok(value) => Answer::Value(value),
                Err(e) => Answer::Error(e.raw_os_error()),
            },
        };
        match notify::send(&self.listener, asked.id, answer) {
            Err(e) if !gone(&e) => Err(e),
            _ => Ok(()),
        }
    }

    fn stat(&self, call: Call, asked: &Notification) -> Answer {
        let caller = self.proc.process(asked.pid).ok();
        let Some(sight) = caller.and_then(|caller| sight::look(call, asked, &caller)) else {
            return Answer::Continue;
        };
        match self.check_waiting(asked).and_then(|()| sight.tell(call, asked)) {
            Ok(()) => Answer::Value(0),
            Err(e) => Answer::Error(e.raw_os_error()),
        }
    }

    /// Creates for somebody who is not root; `None` if the call has been answered with a descriptor.
    fn create(&mut self, call: Call, asked: &Notification) -> Option<Answer> {
        let place = match self.belief(asked) {
            Ok(belief) if (belief.user.file, belief.group.file) != (0, 0) => {
                let caller = self.proc.process(asked.pid).ok();
                caller.and_then(|caller| sight::place(call, asked, &caller, &belief))
            }
            _ => None,
        };
        let Some(place) = place.filter(|_| self.check_waiting(asked).is_ok()) else {
            return Some(Answer::Continue);
        };
        if matches!(call, Call::Mkdir | Call::Mkdirat) {
            return Some(place.make_dir().map_or(Answer::Continue, |()| Answer::Value(0)));
        }
        let Ok(file) = place.make_file() else { return Some(Answer::Continue) };
        if notify::send_fd(&self.listener, asked.id, &file, place.is_close_on_exec()).is_err() {
            // An old kernel, or a caller with too many open files: the kernel is to say.
            place.remove_file();
            return Some(Answer::Continue);
        }
        None
    }

    fn answer(&mut self, call: Call, asked: &Notification) -> Result<i64, Errno> {
        let belief = self.belief(asked)?;
        let caller = Memory(asked.pid);
        let (user, group) = (belief.user, belief.group);
        match call {
            Call::Getuid => Ok(user.real.into()),
            Call::Geteuid => Ok(user.effective.into()),
            Call::Getgid => Ok(group.real.into()),
            Call::Getegid => Ok(group.effective.into()),
            Call::Getresuid => self.tell(caller, asked, user),
            Call::Getresgid => self.tell(caller, asked, group),
            Call::Getgroups => self.tell_groups(caller, asked, &belief),
            Call::Setuid | Call::Setreuid | Call::Setresuid => {
                let user = changed(user, call, asked, belief.may(SETUID))?;
                self.believe(asked, Belief { user, ..belief })
            }
            Call::Setgid | Call::Setregid | Call::Setresgid => {
                let group = changed(group, call, asked, belief.may(SETGID))?;
                self.believe(asked, Belief { group, ..belief })
            }
            Call::Setfsuid => {
                let new = user.set_file(id(asked, 0), belief.may(SETUID));
                self.believe(asked, Belief { user: new, ..belief })?;
                Ok(user.file.into())
            }
            Call::Setfsgid => {
                let new = group.set_file(id(asked, 0), belief.may(SETGID));
                self.believe(asked, Belief { group: new, ..belief })?;
                Ok(group.file.into())
            }
            Call::Setgroups => self.set_groups(caller, asked, belief),
            Call::Chown | Call::Lchown | Call::Fchown | Call::Fchownat => self.chown(call, asked, &belief),
            Call::Mknod | Call::Mknodat => self.mknod(call, asked, &belief),
            // The rest has been told apart before.
            _ => Err(Errno::NOSYS),
        }
    }

    /// What the caller believes. One that is somebody else and runs a set-user-id program (su, sudo) has become its
    /// owner at exec, which is seen only now.
    fn belief(&mut self, asked: &Notification) -> Result<Belief, Errno> {
        if asked.pid == 0 {
            return Ok(Belief::default());
        }
        let mut belief = self.beliefs.of(asked.pid).map_err(|e| errno(&e))?;
        if belief.is_root() {
            return Ok(belief);
        }
        let Ok(caller) = self.proc.process(asked.pid) else { return Ok(belief) };
        if belief.kept.0 != 0 && caller.stack_start() != Some(belief.kept.1) {
            belief.kept = (0, 0);
        }
        let Some((start, owner)) = set_user_id_run(&caller) else { return Ok(belief) };
        if belief.raised_by == start {
            return Ok(belief);
        }
        let raised = Belief { user: belief.user.raised_to(owner), raised_by: start, ..belief };
        self.believe(asked, raised.clone())?;
        Ok(raised)
    }

    /// Somebody who is not root, yet sets capabilities, has kept them: to us it has them all, so that the kernel will
    /// not refuse.
    fn note_capabilities(&mut self, asked: &Notification) -> Result<(), Errno> {
        let belief = self.belief(asked)?;
        if belief.is_root() {
            return Ok(());
        }
        let caller = self.proc.process(asked.pid)?;
        // The first word of the second argument is the effective set, 0 to 31.
        let effective = caller.memory().ids(asked.args[1], 1)?[0] & KEPT;
        let kept = (effective, caller.stack_start().ok_or(Errno::SRCH)?);
        if belief.kept != kept && (effective != 0 || belief.kept.0 != 0) {
            self.believe(asked, Belief { kept, ..belief })?;
        }
        Ok(())
    }

    fn believe(&mut self, asked: &Notification, belief: Belief) -> Result<i64, Errno> {
        self.check_waiting(asked)?;
        self.beliefs.set(asked.pid, belief).map_err(|e| errno(&e))?;
        Ok(0)
    }

    /// ESRCH goes nowhere: it stops us from touching a process that has got the pid of the caller.
    fn check_waiting(&self, asked: &Notification) -> Result<(), Errno> {
        if asked.pid != 0 && notify::is_valid(&self.listener, asked.id) { Ok(()) } else { Err(Errno::SRCH) }
    }

    fn tell(&self, caller: Memory, asked: &Notification, ids: Ids) -> Result<i64, Errno> {
        self.check_waiting(asked)?;
        for (address, id) in asked.args.iter().zip([ids.real, ids.effective, ids.saved]) {
            caller.store_ids(*address, &[id])?;
        }
        Ok(0)
    }

    fn tell_groups(&self, caller: Memory, asked: &Notification, belief: &Belief) -> Result<i64, Errno> {
        let room = usize::try_from(asked.args[0] as i32).map_err(|_| Errno::INVAL)?;
        let count = belief.groups.len();
        if room != 0 {
            if room < count {
                return Err(Errno::INVAL);
            }
            if count > 0 {
                self.check_waiting(asked)?;
                caller.store_ids(asked.args[1], &belief.groups)?;
            }
        }
        Ok(count as i64)
    }

    fn set_groups(&mut self, caller: Memory, asked: &Notification, belief: Belief) -> Result<i64, Errno> {
        if !belief.may(SETGID) {
            return Err(Errno::PERM);
        }
        let count = id(asked, 0);
        // More than the table has room for is refused too, sooner than kept in part.
        if count > NGROUPS_MAX || count as usize > beliefs::MOST_GROUPS {
            return Err(Errno::INVAL);
        }
        let mut groups = if count == 0 { Vec::new() } else { caller.ids(asked.args[1], count as usize)? };
        groups.sort_unstable();
        self.believe(asked, Belief { groups: groups.into(), ..belief })
    }

    fn chown(&self, call: Call, asked: &Notification, belief: &Belief) -> Result<i64, Errno> {
        // Not to be seen: as with what cannot bear a mark.
        let Ok(caller) = self.proc.process(asked.pid) else { return Ok(0) };
        let found = if call == Call::Fchown {
            Found::File(caller.file(asked.args[0] as i32)?)
        } else {
            let flags = if call == Call::Fchownat { asked.args[4] as i32 } else { 0 };
            if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
                return Err(Errno::INVAL);
            }
            let (dir_fd, path) = place(call == Call::Fchownat, asked);
            let path = caller.memory().path(path)?;
            let flags = if call == Call::Lchown { libc::AT_SYMLINK_NOFOLLOW } else { flags };
            caller.find_at(dir_fd, &path, flags)?
        };
        self.check_waiting(asked)?;
        let first = if call == Call::Fchownat { 2 } else { 1 };
        if let Found::File(file) = found {
            owner::chown(&file, id(asked, first), id(asked, first + 1), belief)?;
        }
        Ok(0)
    }

    fn mknod(&self, call: Call, asked: &Notification, belief: &Belief) -> Result<i64, Errno> {
        let caller = self.proc.process(asked.pid).map_err(|_| Errno::PERM)?;
        let (dir_fd, path) = place(call == Call::Mknodat, asked);
        let first = if call == Call::Mknodat { 2 } else { 1 };
        let path = caller.memory().path(path)?;
        let Some((dir, name)) = caller.parent(dir_fd, &path)? else { return Err(Errno::EXIST) };
        let mode = id(asked, first) & !caller.umask();
        self.check_waiting(asked)?;
        owner::make_node(&dir, &name, mode, id(asked, first + 1), belief)?;
        Ok(0)
    }
}

/// The directory and the address of the path, of a call with or without `at`.
fn place(at: bool, asked: &Notification) -> (i32, u64) {
    if at { (asked.args[0] as i32, asked.args[1]) } else { (libc::AT_FDCWD, asked.args[0]) }
}

/// An argument that is an id, a mode or a device: 32 bits, whatever is in the rest of the register.
fn id(asked: &Notification, at: usize) -> u32 {
    asked.args[at] as u32
}

fn changed(ids: Ids, call: Call, asked: &Notification, root: bool) -> Result<Ids, Errno> {
    let (first, second, third) = (id(asked, 0), id(asked, 1), id(asked, 2));
    Ok(match call {
        Call::Setuid | Call::Setgid if first == UNCHANGED => return Err(Errno::INVAL),
        Call::Setuid | Call::Setgid => ids.set(first, root)?,
        Call::Setreuid | Call::Setregid => ids.set_re(first, second, root)?,
        _ => ids.set_res(first, second, third, root)?,
    })
}

/// If the process runs a set-user-id program: which run of it that is, and who owns the program.
fn set_user_id_run(process: &Process) -> Option<(u64, u32)> {
    let program = process.program().ok()?;
    if process::stat(&program).ok()?.st_mode & libc::S_ISUID == 0 || process.has_no_new_privileges() {
        return None;
    }
    Some((process.stack_start()?, owner::owner(&program).0))
}

fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::PERM)
}
