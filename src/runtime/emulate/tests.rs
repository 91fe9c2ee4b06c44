//! Each test is run again in a process of its own, which enters a user name space with one id, puts a child under the
//! filter and plays the supervisor. Calls are made by the child through nix, as a C program would make them.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests read the environment and print"
)]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use nix::errno::Errno as E;
use nix::fcntl::AtFlags;
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, SFlag, mknod, umask};
use nix::unistd::{self, Gid, Uid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{self, RecvAncillaryMessage, SendAncillaryMessage};

use super::*;
use crate::fs;
use crate::sys::process::{Forked, exit_now, fork};

const INSIDE: &str = "DHOW_TEST_INSIDE";

/// Runs `body` under emulation, in a new directory on which it is given the path; `name` is the test's.
fn emulated(name: &str, body: impl FnOnce(&Path)) {
    Scene { program: filter(), pid_flags: 0, proc: Proc::new }.run(name, body);
}

/// What differs between the tests.
struct Scene {
    program: Vec<libc::sock_filter>,
    /// CLONE_NEWPID if the supervisor is to have a pid name space of its own, without a /proc of its own.
    pid_flags: u64,
    /// How the handler looks processes up.
    proc: fn() -> Proc,
}

impl Scene {
    fn run(self, name: &str, body: impl FnOnce(&Path)) {
        if std::env::var_os(INSIDE).is_some() {
            return self.stage(name, body);
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&format!("runtime::emulate::tests::{name}"), "--exact", "--nocapture", "--test-threads=1"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if let Some(line) = text.lines().find(|l| l.contains("skipped: ")) {
            eprintln!("{name}: {line}");
        }
        assert!(output.status.success() && text.contains("1 passed"), "{name}:\n{text}");
    }

    /// The test harness runs us in a second thread, and a process with threads may not enter a user name space: a fork
    /// has one only (the other thread but waits for us, so it holds no lock).
    fn stage(self, name: &str, body: impl FnOnce(&Path)) {
        let dir = std::env::temp_dir().join(format!("dhow-emulate-{name}-{}", std::process::id()));
        fs::create_dir(&dir, 0o755).unwrap();
        let done = in_child(0, || self.enter(&dir, body));
        fs::remove_tree(&dir).unwrap();
        assert!(done);
    }

    fn enter(self, dir: &Path, body: impl FnOnce(&Path)) {
        let (our_uid, our_gid) = (unistd::getuid(), unistd::getgid());
        match nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS) {
            Err(e @ (E::EPERM | E::ENOSPC)) => {
                return eprintln!("skipped: cannot enter a user name space: {e}");
            }
            result => result.unwrap(),
        }
        fs::write(Path::new("/proc/self/setgroups"), b"deny").unwrap();
        fs::write(Path::new("/proc/self/uid_map"), format!("0 {our_uid} 1").as_bytes()).unwrap();
        fs::write(Path::new("/proc/self/gid_map"), format!("0 {our_gid} 1").as_bytes()).unwrap();
        assert!(in_child(self.pid_flags, || self.supervise(dir, body)));
    }

    fn supervise(&self, dir: &Path, body: impl FnOnce(&Path)) {
        let (family, kind) = (net::AddressFamily::UNIX, net::SocketType::STREAM);
        let (ours, theirs) = net::socketpair(family, kind, net::SocketFlags::CLOEXEC, None).unwrap();
        match fork(0, None).unwrap() {
            Forked::Child => {
                let listener = install(&self.program).unwrap();
                send(&theirs, listener.as_ref());
                drop((ours, theirs, listener));
                body(dir);
                exit_now(0);
            }
            Forked::Parent { pid, pidfd } => {
                drop(theirs);
                match receive(&ours) {
                    Some(listener) => {
                        let mut handler = Handler::new(listener);
                        handler.proc = (self.proc)();
                        serve(handler, &pidfd);
                    }
                    None => eprintln!("skipped: another emulation is at work already"),
                }
                assert!(succeeded(pid));
            }
        }
    }
}

/// Whether `body` has not panicked in a child of ours.
fn in_child(flags: u64, body: impl FnOnce()) -> bool {
    match fork(flags, None).unwrap() {
        Forked::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            exit_now(i32::from(done.is_err()))
        }
        Forked::Parent { pid, .. } => succeeded(pid),
    }
}

fn succeeded(pid: i32) -> bool {
    let status = nix::sys::wait::waitpid(unistd::Pid::from_raw(pid), None).unwrap();
    matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0))
}

fn serve(mut handler: Handler, pidfd: &OwnedFd) {
    loop {
        let fds = &mut [
            PollFd::from_borrowed_fd(handler.as_fd(), PollFlags::IN),
            PollFd::new(pidfd, PollFlags::IN),
        ];
        poll(fds, None).unwrap();
        let (asked, ended) = (fds[0].revents(), fds[1].revents());
        if asked.contains(PollFlags::IN) {
            handler.handle_one().unwrap();
        } else if !ended.is_empty() {
            return;
        }
    }
}

fn send(socket: &OwnedFd, fd: Option<&OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = net::SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    net::sendmsg(socket, &[IoSlice::new(b"x")], &mut ancillary, net::SendFlags::empty()).unwrap();
}

fn receive(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = net::RecvAncillaryBuffer::new(&mut space);
    net::recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut ancillary, net::RecvFlags::CMSG_CLOEXEC)
        .unwrap();
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

fn uid(id: u32) -> Uid {
    Uid::from_raw(id)
}

fn gid(id: u32) -> Gid {
    Gid::from_raw(id)
}

/// What is written beside a file.
fn beside(path: &Path, attribute: &std::ffi::CStr) -> Option<String> {
    let mut text = [0; 64];
    let n = rustix::fs::lgetxattr(path, attribute, &mut text).ok()?;
    Some(String::from_utf8(text[..n].to_vec()).unwrap())
}

fn owner_of(path: &Path) -> Option<String> {
    beside(path, owner::OWNER)
}

/// Makes a file; false, aloud, where the file system has no such attributes (tmpfs before Linux 6.6).
fn make(path: &Path) -> bool {
    fs::write(path, b"").unwrap();
    let done = rustix::fs::setxattr(path, c"user.dhow.probe", b"", rustix::fs::XattrFlags::empty());
    if done.is_err() {
        eprintln!("skipped: {} has no user attributes", path.display());
    }
    done.is_ok()
}

#[test]
fn ids_are_believed_and_handed_down() {
    emulated("ids_are_believed_and_handed_down", |_| {
        assert_eq!((unistd::getuid(), unistd::getegid()), (uid(0), gid(0)));
        assert_eq!(unistd::getgroups().unwrap(), []);
        unistd::setgroups(&[gid(9), gid(7)]).unwrap();
        unistd::setresgid(gid(1), gid(2), gid(3)).unwrap();
        unistd::setresuid(uid(1), uid(2), uid(3)).unwrap();
        let check = || {
            let ids = unistd::getresuid().unwrap();
            assert_eq!((ids.real, ids.effective, ids.saved), (uid(1), uid(2), uid(3)));
            let ids = unistd::getresgid().unwrap();
            assert_eq!((ids.real, ids.effective, ids.saved), (gid(1), gid(2), gid(3)));
            assert_eq!((unistd::getuid(), unistd::geteuid()), (uid(1), uid(2)));
            assert_eq!(unistd::getgroups().unwrap(), [gid(7), gid(9)]);
        };
        check();
        assert_eq!(unistd::setuid(uid(0)), Err(E::EPERM));
        assert_eq!(unistd::setgroups(&[]), Err(E::EPERM));
        std::thread::spawn(check).join().unwrap();
        // A daemon forks twice, so that its parent is gone when it first asks.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        if matches!(fork(0, None).unwrap(), Forked::Child) {
            let parent = unistd::getpid();
            if let Forked::Parent { .. } = fork(0, None).unwrap() {
                exit_now(0);
            }
            while unistd::getppid() == parent {}
            check();
            rustix::io::write(&writer, b"x").unwrap();
            exit_now(0);
        }
        drop(writer);
        nix::sys::wait::wait().unwrap();
        assert_eq!(rustix::io::read(&reader, &mut [0; 2]).unwrap(), 1, "the daemon has failed");
    });
}

#[test]
fn limits_do_not_change_who_one_is() {
    emulated("limits_do_not_change_who_one_is", |_| {
        unistd::setresuid(uid(0), uid(5), uid(0)).unwrap();
        let all = rustix::process::getrlimit(rustix::process::Resource::Core);
        rustix::process::setrlimit(rustix::process::Resource::Locks, all).unwrap();
        assert_eq!(unistd::geteuid(), uid(5));
        unistd::seteuid(uid(0)).unwrap();
        assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Locks).current, None);
    });
}

#[test]
fn capabilities_outlive_root_if_kept() {
    emulated("capabilities_outlive_root_if_kept", |_| {
        unistd::setresuid(uid(5), uid(5), uid(5)).unwrap();
        assert_eq!(unistd::setresgid(gid(6), gid(6), gid(6)), Err(E::EPERM));
        let all = caps::read(None, caps::CapSet::Permitted).unwrap();
        caps::set(None, caps::CapSet::Effective, &all).unwrap();
        unistd::setresgid(gid(6), gid(6), gid(6)).unwrap();
        let none = Default::default();
        caps::set(None, caps::CapSet::Effective, &none).unwrap();
        assert_eq!(unistd::setgroups(&[gid(6)]), Err(E::EPERM));
    });
}

#[test]
fn owners_are_written_beside_files() {
    emulated("owners_are_written_beside_files", |dir| {
        let file = dir.join("f");
        if !make(&file) {
            return;
        }
        let chown = |path: &Path, u: Option<u32>, g: Option<u32>| unistd::chown(path, u.map(uid), g.map(gid));
        chown(&file, Some(5), None).unwrap();
        assert_eq!(owner_of(&file).as_deref(), Some("5:0"));
        chown(&file, None, Some(6)).unwrap();
        assert_eq!(owner_of(&file).as_deref(), Some("5:6"));
        unistd::fchown(fs::open(&file).unwrap(), Some(uid(70000)), None).unwrap();
        assert_eq!(owner_of(&file).as_deref(), Some("70000:6"));
        let open_dir = fs::open(dir).unwrap();
        let at = |name: &str, flags| unistd::fchownat(&open_dir, name, Some(uid(1)), Some(gid(2)), flags);
        at("f", AtFlags::empty()).unwrap();
        assert_eq!(owner_of(&file).as_deref(), Some("1:2"));
        at("", AtFlags::AT_EMPTY_PATH).unwrap();
        assert_eq!(owner_of(dir).as_deref(), Some("1:2"));
        chown(&file, Some(0), Some(0)).unwrap();
        assert_eq!(owner_of(&file), None);
        // A symlink holds nothing itself.
        fs::symlink(Path::new("f"), &dir.join("l")).unwrap();
        at("l", AtFlags::AT_SYMLINK_NOFOLLOW).unwrap();
        assert_eq!(owner_of(&file), None);
        at("l", AtFlags::empty()).unwrap();
        assert_eq!(owner_of(&file).as_deref(), Some("1:2"));
        // The set-id bits fall.
        rustix::fs::chmod(&file, rustix::fs::Mode::from_raw_mode(0o6755)).unwrap();
        chown(&file, Some(0), None).unwrap();
        assert_eq!(rustix::fs::stat(&file).unwrap().st_mode & 0o7777, 0o755);

        fs::symlink(Path::new("loop"), &dir.join("loop")).unwrap();
        assert_eq!(at("loop", AtFlags::empty()), Err(E::ELOOP));
        assert_eq!(at("no", AtFlags::empty()), Err(E::ENOENT));
        assert_eq!(at("", AtFlags::empty()), Err(E::ENOENT));
        assert_eq!(at("f/x", AtFlags::empty()), Err(E::ENOTDIR));
        assert_eq!(at("f", AtFlags::AT_REMOVEDIR), Err(E::EINVAL));
        assert_eq!(chown(Path::new("/dev/stdout"), Some(5), None), Ok(()));
        assert_eq!(chown(Path::new("/proc/version"), Some(5), None), Ok(()));
        unistd::setuid(uid(5)).unwrap();
        assert_eq!(chown(&file, Some(6), None), Err(E::EPERM));
        assert_eq!(chown(&file, Some(5), Some(0)), Ok(()));
    });
}

#[test]
fn callers_are_found_without_a_proc_of_ours() {
    let scene = Scene { program: filter(), pid_flags: libc::CLONE_NEWPID as u64, proc: Proc::new };
    scene.run("callers_are_found_without_a_proc_of_ours", chown_in_a_thread);
}

#[test]
fn callers_are_found_in_an_outer_proc() {
    let scene = Scene { program: filter(), pid_flags: libc::CLONE_NEWPID as u64, proc: || Proc::Outer };
    scene.run("callers_are_found_in_an_outer_proc", chown_in_a_thread);
}

fn chown_in_a_thread(dir: &Path) {
    let file = dir.join("f");
    if !make(&file) {
        return;
    }
    let shown = fs::read_link(Path::new("/proc/self")).unwrap().unwrap();
    assert_ne!(shown.to_str(), Some(&*std::process::id().to_string()));
    unistd::chown(&file, Some(uid(5)), None).unwrap();
    assert_eq!(owner_of(&file).as_deref(), Some("5:0"));
    std::thread::scope(|scope| {
        scope.spawn(|| unistd::chown(&file, Some(uid(6)), None).unwrap());
    });
    if owner_of(&file).as_deref() != Some("6:0") {
        eprintln!("skipped: this kernel finds no threads by pidfd");
    }
}

#[test]
fn paths_stay_in_the_root_of_the_caller() {
    emulated("paths_stay_in_the_root_of_the_caller", |dir| {
        let (outside, root) = (dir.join("f"), dir.join("root"));
        fs::create_dir_all(&root.join("d"), 0o755).unwrap();
        if !make(&outside) || !make(&root.join("f")) || !make(&root.join("d/f")) {
            return;
        }
        fs::symlink(&outside, &root.join("d/there")).unwrap();
        fs::symlink(Path::new("/f"), &root.join("d/abs")).unwrap();
        fs::symlink(Path::new("../../../f"), &root.join("d/up")).unwrap();
        let host = fs::open(dir).unwrap();
        unistd::chroot(&root).unwrap();
        unistd::chdir("/d").unwrap();
        let chown = |path: &str, id| unistd::chown(path, Some(uid(id)), None);
        for (path, id) in [
            ("../../../../f", 1),
            ("abs", 2),
            ("up", 3),
            ("/d/../../../f", 4),
            ("/d/up", 5),
            ("./../d/../f", 6),
        ] {
            assert_eq!(chown(path, id), Ok(()), "{path}");
            assert_eq!(owner_of(Path::new("/f")), Some(format!("{id}:0")), "{path}");
        }
        chown("f", 7).unwrap();
        assert_eq!(owner_of(Path::new("/d/f")).as_deref(), Some("7:0"));
        assert_eq!(chown("there", 8), Err(E::ENOENT));
        // A directory without the root gives nothing above itself.
        let at = unistd::fchownat(&host, "../f", Some(uid(9)), None, AtFlags::empty());
        assert_eq!(at, Err(E::ENOENT));
        unistd::fchdir(&host).unwrap();
        assert_eq!(owner_of(Path::new("f")), None);
    });
}

#[test]
fn devices_are_marked_files() {
    emulated("devices_are_marked_files", |dir| {
        if !make(&dir.join("f")) {
            return;
        }
        umask(Mode::from_bits_truncate(0o027));
        let path = |name: &str| -> PathBuf { dir.join(name) };
        let make = |name: &str, kind| mknod(&path(name), kind, Mode::from_bits_truncate(0o666), 0x103);
        make("null", SFlag::S_IFCHR).unwrap();
        assert_eq!(beside(&path("null"), owner::NODE).as_deref(), Some("c:1:3"));
        assert_eq!(rustix::fs::stat(path("null")).unwrap().st_mode, 0o100640);
        mknod(&path("disk"), SFlag::S_IFBLK, Mode::empty(), libc::makedev(259, 70000)).unwrap();
        assert_eq!(beside(&path("disk"), owner::NODE).as_deref(), Some("b:259:70000"));
        mknod(&path("gone"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        assert_eq!(beside(&path("gone"), owner::NODE).as_deref(), Some("c:0:0"));
        make("fifo", SFlag::S_IFIFO).unwrap();
        assert_eq!(make("null", SFlag::S_IFCHR), Err(E::EEXIST));
        assert_eq!(make(".", SFlag::S_IFCHR), Err(E::EEXIST));
        assert_eq!(make("no/null", SFlag::S_IFCHR), Err(E::ENOENT));
        assert_eq!(make("no/", SFlag::S_IFCHR), Err(E::ENOENT));
        assert_eq!(make("f/null", SFlag::S_IFCHR), Err(E::ENOTDIR));
        assert_eq!(mknod("/", SFlag::S_IFCHR, Mode::empty(), 0), Err(E::EEXIST));
        assert_eq!(mknod("", SFlag::S_IFCHR, Mode::empty(), 0), Err(E::ENOENT));
        unistd::setuid(uid(5)).unwrap();
        assert_eq!(make("other", SFlag::S_IFCHR), Err(E::EPERM));
    });
}

#[test]
fn owners_are_seen() {
    let scene = Scene { program: filter_showing_owners(), pid_flags: 0, proc: Proc::new };
    scene.run("owners_are_seen", |dir| {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
        let file = dir.join("f");
        if !make(&file) {
            return;
        }
        umask(Mode::from_bits_truncate(0o022));
        let seen = |name: &str| {
            let stat = rustix::fs::lstat(dir.join(name)).unwrap();
            let open = rustix::fs::open(dir.join(name), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
            let fstat = rustix::fs::fstat(open.unwrap()).unwrap();
            let statx = std::fs::metadata(dir.join(name)).unwrap();
            let all = (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777);
            assert_eq!(all, (fstat.st_uid, fstat.st_gid, fstat.st_mode & 0o7777));
            assert_eq!(all, (statx.uid(), statx.gid(), statx.mode() & 0o7777));
            assert_eq!((stat.st_ino, stat.st_size), (statx.ino(), statx.len() as i64));
            all
        };
        assert_eq!(seen("f"), (0, 0, 0o644));
        unistd::chown(&file, Some(uid(5)), Some(gid(6))).unwrap();
        assert_eq!(seen("f"), (5, 6, 0o644));
        mknod(&dir.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), 0x103).unwrap();
        let node = std::fs::metadata(dir.join("null")).unwrap();
        assert_eq!((node.mode(), node.rdev()), (0o020_644, 0x103));
        assert_eq!(rustix::fs::lstat(dir.join("null")).unwrap().st_rdev, 0x103);

        // What others make is theirs.
        unistd::setresgid(gid(8), gid(8), gid(8)).unwrap();
        unistd::setresuid(uid(7), uid(7), uid(7)).unwrap();
        let new = |name: &str| {
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(dir.join(name))
        };
        let mut made = new("mine").unwrap();
        std::io::Write::write_all(&mut made, b"abc").unwrap();
        assert_eq!(seen("mine"), (7, 8, 0o644));
        assert_eq!(std::fs::read(dir.join("mine")).unwrap(), b"abc");
        assert_eq!(new("mine").unwrap_err().raw_os_error(), Some(libc::EEXIST));
        assert_eq!(new("no/mine").unwrap_err().raw_os_error(), Some(libc::ENOENT));
        let flags = rustix::io::fcntl_getfd(&made).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        std::fs::DirBuilder::new().mode(0o1777).create(dir.join("d/")).unwrap();
        assert_eq!(seen("d"), (7, 8, 0o1755));
        fs::write(&dir.join("f"), b"x").unwrap();
        assert_eq!(seen("f"), (5, 6, 0o644));
        rustix::fs::chmod(dir.join("d"), rustix::fs::Mode::from_raw_mode(0o2755)).unwrap();
        unistd::chown(&dir.join("d"), None, Some(gid(8))).unwrap();
        fs::create_dir(&dir.join("d/d"), 0o700).unwrap();
        assert_eq!(seen("d/d"), (7, 8, 0o2700));
    });
}

#[test]
fn a_set_user_id_program_makes_root_again() {
    emulated("a_set_user_id_program_makes_root_again", |dir| {
        // coreutils may be one program under many names, so `id` is copied under its own.
        let id = dir.join("id");
        std::fs::copy("/usr/bin/id", &id).unwrap();
        let ask = |what: &str| {
            let output = std::process::Command::new(&id).arg(what).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        unistd::setresuid(uid(5), uid(5), uid(5)).unwrap();
        assert_eq!(ask("-u"), "5");
        rustix::fs::chmod(&id, rustix::fs::Mode::from_raw_mode(0o4755)).unwrap();
        assert_eq!((ask("-u"), ask("-ru")), ("0".to_owned(), "5".to_owned()));
        assert_eq!(unistd::geteuid(), uid(5));
    });
}

#[test]
fn callers_may_be_killed_at_any_time() {
    emulated("callers_may_be_killed_at_any_time", |_| {
        for _ in 0..50 {
            match fork(0, None).unwrap() {
                Forked::Child => loop {
                    let _ = (unistd::getresuid(), unistd::setresuid(uid(5), uid(0), uid(0)));
                },
                Forked::Parent { pid, .. } => {
                    // A few turns of our own, so that the child is somewhere in its loop.
                    (0..20).for_each(|_| assert_eq!(unistd::getuid(), uid(0)));
                    let pid = unistd::Pid::from_raw(pid);
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
                    nix::sys::wait::waitpid(pid, None).unwrap();
                }
            }
        }
        assert_eq!(unistd::getuid(), uid(0));
    });
}
