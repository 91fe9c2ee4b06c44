//! A test's own world: a store, a home, a working directory and an environment that no other test sees.
//! Invariant: when a sandbox ends, its containers are removed by dhow's own `rm -f`, and nothing of it may be left: no
//! process, no mount, no cgroup. What is left fails the test.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::command::{Cmd, Output};
use crate::images;
use crate::leftovers;
use crate::user::{Account, User};

/// No flags.
pub const NONE: [&str; 0] = [];

/// See the module.
pub struct Sandbox {
    pub user: User,
    pub account: Account,
    /// Holds everything below; its name is found nowhere else on the machine.
    pub dir: PathBuf,
    pub store: PathBuf,
    pub home: PathBuf,
    pub work: PathBuf,
    pub runtime: PathBuf,
    ids: Mutex<BTreeSet<String>>,
}

/// Runs a test as this user, in a sandbox that has the busybox image; skips aloud where there is no such user.
pub fn run(user: User, test: &str, body: impl FnOnce(&Sandbox)) {
    let Some(sandbox) = Sandbox::new(user, test) else { return };
    body(&sandbox);
}

/// Where the sandboxes lie.
pub fn base() -> PathBuf {
    let dir = std::env::var_os("DHOW_TEST_DIR").map_or(PathBuf::from("/var/tmp"), PathBuf::from);
    dir.join(format!("dhow-test-{}", rustix::process::geteuid().as_raw()))
}

/// The program under test, copied to where every user can run it (a checkout in /root cannot be entered by others).
pub fn dhow() -> &'static Path {
    static DHOW: OnceLock<PathBuf> = OnceLock::new();
    DHOW.get_or_init(|| {
        let other = std::env::var_os("DHOW_TEST_PROGRAM").map(PathBuf::from);
        let built = other.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_dhow")));
        let text = fs::metadata(built).unwrap();
        // One copy per checkout and build, so that two runs of the tests do not replace each other's program.
        let key = format!("{}-{:?}-{}", built.display(), text.modified().unwrap(), text.len());
        let dir = base().join("bin").join(images::short_hash(key.as_bytes()));
        let copy = dir.join("dhow");
        if !copy.exists() {
            make_dir(&dir, 0o755);
            let half = dir.join(format!("dhow.{}", std::process::id()));
            fs::copy(built, &half).unwrap();
            fs::set_permissions(&half, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(&half, &copy).unwrap();
        }
        copy
    })
}

fn make_dir(dir: &Path, mode: u32) {
    fs::create_dir_all(dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
}

impl Sandbox {
    /// A sandbox with an empty store.
    pub fn empty(user: User, test: &str) -> Option<Sandbox> {
        leftovers::adopt_orphans();
        static N: AtomicU32 = AtomicU32::new(0);
        let account = user.account()?;
        let n = N.fetch_add(1, Ordering::Relaxed);
        let name = test.rsplit("::").next().unwrap();
        make_dir(&base(), 0o755);
        let dir = base().join(format!("{}-{n}-{name}-{}", std::process::id(), account.name));
        make_dir(&dir, 0o755);
        let own = |name: &str, mode| {
            let path = dir.join(name);
            make_dir(&path, mode);
            std::os::unix::fs::chown(&path, Some(account.uid), Some(account.gid)).unwrap();
            path
        };
        let (home, work, runtime) = (own("home", 0o755), own("work", 0o755), own("run", 0o700));
        // The store's parent is the user's, the store itself dhow makes: its mode is dhow's to choose.
        let store = own("data", 0o755).join("store");
        Some(Sandbox { user, account, dir, store, home, work, runtime, ids: Mutex::default() })
    }

    /// A sandbox whose store has the image `busybox`.
    pub fn new(user: User, test: &str) -> Option<Sandbox> {
        let sandbox = Sandbox::empty(user, test)?;
        sandbox.import_busybox();
        Some(sandbox)
    }

    #[track_caller]
    pub fn import_busybox(&self) {
        self.dhow(["import", "--change", "CMD [\"sh\"]", "-", "busybox"]).stdin_file(images::busybox()).ok();
    }

    #[track_caller]
    pub fn import_debian(&self) {
        self.dhow(["import", "--change", "CMD [\"bash\"]", "-", "debian"])
            .stdin_file(images::debian())
            .patiently()
            .ok();
    }

    /// Whether the tests run here as an ordinary user.
    pub fn is_rootless(&self) -> bool {
        self.user != User::Root
    }

    /// Any program, as this sandbox's user and in its environment.
    pub fn program(&self, program: impl AsRef<Path>) -> Cmd {
        Cmd::new(program.as_ref(), &self.account, &self.work)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .env("LANG", "C.UTF-8")
    }

    /// dhow on this sandbox's store.
    pub fn dhow<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        self.program(dhow()).arg("--root").arg(&self.store).args(args)
    }

    /// `dhow run --rm FLAGS busybox sh -c SCRIPT`.
    pub fn sh<A: AsRef<OsStr>>(&self, flags: impl IntoIterator<Item = A>, script: &str) -> Cmd {
        self.dhow(["run", "--rm"]).args(flags).args(["busybox", "sh", "-c", script])
    }

    /// `dhow run --rm FLAGS busybox /probe`: what a container sees, asked from inside.
    #[track_caller]
    pub fn probe<A: AsRef<OsStr>>(&self, flags: impl IntoIterator<Item = A>) -> serde_json::Value {
        let output = self.dhow(["run", "--rm"]).args(flags).args(["busybox", "/probe"]).output().exits(0);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}\n{}", output.report()))
    }

    /// `dhow run -d FLAGS busybox ARGS`: the id of the container.
    #[track_caller]
    pub fn detached<A: AsRef<OsStr>, B: AsRef<OsStr>>(
        &self,
        flags: impl IntoIterator<Item = A>,
        args: impl IntoIterator<Item = B>,
    ) -> String {
        let output = self.dhow(["run", "-d"]).args(flags).arg("busybox").args(args).output().exits(0);
        self.note(output.text(), &output)
    }

    /// The text must be a container's id; the cgroups of that container are looked for at the end.
    #[track_caller]
    pub fn note(&self, id: String, output: &Output) -> String {
        let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        assert!(is_id, "not the id of a container: {id:?}\n{}", output.report());
        self.ids.lock().unwrap().insert(id.clone());
        id
    }

    /// Makes a file that the container's program waits for. It may end at the sight of it, and the command that made the
    /// file with it, which has not ended by itself yet.
    #[track_caller]
    pub fn let_go(&self, name: &str, file: &str) {
        let out = self.dhow(["exec", name, "touch", file]).output();
        assert!([0, 137].contains(&out.code), "{}", out.report());
    }

    /// One value of `dhow inspect --format`.
    #[track_caller]
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.dhow(["inspect", "--format", format, name]).ok()
    }

    /// A file in the working directory.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        std::os::unix::fs::chown(&path, Some(self.account.uid), Some(self.account.gid)).unwrap();
        path
    }

    /// A directory in the working directory.
    pub fn subdir(&self, name: &str) -> PathBuf {
        let path = self.work.join(name);
        fs::create_dir_all(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(self.account.uid), Some(self.account.gid)).unwrap();
        path
    }

    /// Nothing of any container may be there: no process, no mount, no cgroup, no record, no name, no draft.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        leftovers::wait_for_none(&self.dir, &self.noted());
        for dir in ["containers", "names", "tmp"] {
            // `.lock` is no object: it stays.
            let mut names: Vec<OsString> = leftovers::names(&self.store.join(dir));
            names.retain(|name| name != ".lock");
            assert!(names.is_empty(), "left in {}/{dir}: {names:?}", self.store.display());
        }
    }

    /// Removes every container by dhow's own means and says what would not go.
    fn remove_containers(&self) -> Result<(), String> {
        if !self.store.exists() {
            return Ok(());
        }
        let listed = self.dhow(["ps", "-aq", "--no-trunc"]).output();
        let ids: Vec<String> = listed.text().split_whitespace().map(str::to_owned).collect();
        self.ids.lock().unwrap().extend(ids.iter().cloned());
        if ids.is_empty() {
            return if listed.code == 0 { Ok(()) } else { Err(listed.report()) };
        }
        let removed = self.dhow(["rm", "-f"]).args(&ids).output();
        if removed.code == 0 { Ok(()) } else { Err(removed.report()) }
    }
}

impl Sandbox {
    /// The ids that were noted, also after a test that failed while noting one.
    fn noted(&self) -> BTreeSet<String> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the sandbox; what was wrong with what it left.
    fn end(&self) -> Result<(), String> {
        let removed = self.remove_containers();
        let left = leftovers::wait(&self.dir, &self.noted());
        leftovers::kill(&left);
        // Bridges stay as long as their networks, and the default one is there for good.
        if self.user == User::Root && self.store.join("networks").exists() {
            let _ = self.dhow(["system", "reset", "-f"]).output();
        }
        remove_dir(&self.dir);
        removed.map_err(|report| format!("containers could not be removed:\n{report}"))?;
        if left.is_empty() {
            return Ok(());
        }
        Err(format!("left behind by {}:\n{}", self.dir.display(), leftovers::report(&left)))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A panic out of a destructor while another unwinds would end the whole test program.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.end()));
        if std::thread::panicking() {
            return;
        }
        match ended {
            Ok(Ok(())) => (),
            Ok(Err(wrong)) => panic!("{wrong}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Removes the directory, files of subordinate ids too.
fn remove_dir(dir: &Path) {
    if fs::remove_dir_all(dir).is_ok() {
        return;
    }
    // What unpacking left without write permission, or with another owner where we are not root.
    let _ = std::process::Command::new("chmod").args(["-R", "u+rwX"]).arg(dir).output();
    if fs::remove_dir_all(dir).is_err() {
        let map = ["--map-root-user", "--map-auto", "rm", "-rf"];
        let _ = std::process::Command::new("unshare").args(map).arg(dir).output();
    }
}
