//! Containers on disk: one directory each, its name a symlink, its life a lock.
//!
//! | file | what | written by |
//! | --- | --- | --- |
//! | config.json | OCI runtime spec | create |
//! | record.json | what was asked for | create |
//! | lock | held exclusively while a supervisor lives; in it, the cgroup that is to be removed after it | supervisor |
//! | state.json | pids and start time of the last start | supervisor |
//! | health.json | what health checks came to; kept by `store::health` | supervisor |
//! | exit.json | code and time of the last end | supervisor, or who finds it dead |
//! | stopped | a person ended it: no restart policy overrides that | stop, kill; start removes it |
//! | socket | where the supervisor listens | supervisor |
//! | files.lock | held by who has the root mounted to copy files while it does not run | cp |
//! | upper/ work/ merged/ | overlay; or rootfs/ where overlay is refused | supervisor |
//! | network.json | how it is joined to networks while it runs; kept by `store::network::wired` | supervisor |
//! | hosts hostname resolv.conf log | log.1, log.2... are the files before it, log.1.gz... where they are compressed | create, supervisor |
//! | home/ | the home of a shell's person | create |
//! | pieces/ | the changes to a host directory that is put together piece by piece | supervisor |
//!
//! Invariant: `lock` decides. A state.json without a held lock tells of the past.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::Store;
pub use super::grave::{Grave, sweep};
use super::name;
pub use super::name::{is_being_made, is_name, is_taken, sweep_names};
pub use super::record::{Caller, Record, Source, VolumeUse};
pub use super::restart::Restart;
pub use super::status::{Exit, ProcessId, State, Status, open_process, start_time};
use crate::error::{NotFound, ResultExt};
use crate::fs;
use crate::sys::lock::{self, Kind};

/// The directory of one container.
#[derive(Debug, Clone)]
pub struct ContainerDir {
    /// DATA/containers/ID.
    pub path: PathBuf,
}

/// The directory with a mark for each volume that the container's supervisor has mounted (`supervisor::shared`).
pub const SHARED: &str = "shared";

impl ContainerDir {
    /// The directory of this id.
    pub fn of(store: &Store, id: &str) -> ContainerDir {
        ContainerDir { path: store.data.join("containers").join(id) }
    }

    /// The id, which is the directory's name.
    pub fn id(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The record.
    pub fn record(&self) -> Result<Record> {
        read_json(&self.file("record.json"))?
            .with_context(|| format!("{} has no record", self.path.display()))
    }

    /// Whether its record never reached the disk before the machine lost power: ext4 leaves an empty file then, others one
    /// of zeros.
    pub fn is_half_written(&self) -> bool {
        fs::read(&self.file("record.json")).is_ok_and(|bytes| bytes.iter().all(|b| *b == 0))
    }

    /// Replaces the record.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        write_json(&self.file("record.json"), record)
    }

    /// The lock file.
    pub fn open_lock(&self) -> Result<File> {
        fs::open_or_create(&self.file("lock"), 0o600)
    }

    /// Takes the lock for a supervisor to be; `None` if there is one.
    pub fn try_lock(&self) -> Result<Option<OwnedFd>> {
        if fs::metadata(&self.path)?.is_none() {
            return Ok(None);
        }
        let file = self.open_lock()?;
        let taken = lock::try_acquire(&file, Kind::Exclusive).context("cannot lock the container")?;
        Ok(taken.then(|| file.into()))
    }

    /// Waits until no supervisor lives.
    pub fn wait_unlocked(&self) -> Result<()> {
        if fs::metadata(&self.path)?.is_none() {
            return Ok(());
        }
        lock::acquire(&self.open_lock()?, Kind::Shared).context("cannot wait for the container")
    }

    /// What it is doing. `NotFound` if it was removed meanwhile.
    pub fn status(&self) -> Result<Status> {
        let lock = match self.open_lock() {
            Err(_) if fs::metadata(&self.path)?.is_none() => return Err(self.not_found()),
            other => other?,
        };
        Ok(self.noted(lock::is_held(&lock).context("cannot look at the container's lock")?))
    }

    /// What its notes mean, given whether a supervisor holds the lock.
    pub fn noted(&self, held: bool) -> Status {
        // A note that cannot be read (the disk was full, the machine lost power) is none: the lock decides.
        // The end first: a removal between the two looks must not leave a state without an end, which is one that runs.
        let exit: Option<Exit> = read_json(&self.file("exit.json")).unwrap_or(None);
        let state: Option<State> = read_json(&self.file("state.json")).unwrap_or(None);
        Status::of(held, state, exit)
    }

    /// The state of the last start, whether it still holds or not.
    pub fn last_state(&self) -> Result<Option<State>> {
        read_json(&self.file("state.json"))
    }

    /// Forgets the last run: its end must not be taken for the end of the next.
    pub fn clear_run(&self) -> Result<()> {
        fs::remove_file(&self.file("state.json"))?;
        fs::remove_tree(&self.file(SHARED))?;
        fs::remove_file(&self.file("exit.json"))
    }

    /// Notes that a person ended it. To be written before it is ended.
    pub fn mark_stopped(&self) -> Result<()> {
        fs::open_or_create(&self.file("stopped"), 0o600).map(drop)
    }

    /// Whether a person ended it.
    pub fn is_marked_stopped(&self) -> bool {
        fs::metadata(&self.file("stopped")).is_ok_and(|meta| meta.is_some())
    }

    /// Forgets that a person ended it: it was started again.
    pub fn forget_stopped(&self) -> Result<()> {
        fs::remove_file(&self.file("stopped"))
    }

    /// The error for a container that is gone.
    pub fn not_found(&self) -> anyhow::Error {
        let id = self.path.file_name().unwrap_or_default().to_string_lossy();
        NotFound { kind: "container", name: id.into_owned() }.into()
    }

    /// Notes the cgroup that a start is about to make, for whoever finds its supervisor dead. In the lock file, because
    /// this is one write on every start; and best effort, because a disk that is full is told of by what comes next.
    pub fn note_cgroup(&self, cgroup: &serde_json::Value) {
        let _ = fs::write(&self.file("lock"), cgroup.to_string().as_bytes());
    }

    /// What was noted and not yet cleared.
    pub fn noted_cgroup(&self) -> Option<serde_json::Value> {
        read_json(&self.file("lock")).ok().flatten()
    }

    /// Says that nothing of the cgroup is left.
    pub fn forget_cgroup(&self) -> Result<()> {
        fs::write(&self.file("lock"), b"")
    }

    /// Notes that the program runs.
    pub fn write_state(&self, state: &State) -> Result<()> {
        write_json(&self.file("state.json"), state)
    }

    /// Sets room aside for the note of the end: a disk that is full by then must not cost the exit code.
    pub fn reserve_exit(&self) -> Result<()> {
        let path = self.file("exit.room");
        let about = || format!("cannot set room aside in {}", path.display());
        let file = fs::open_or_create(&path, 0o644)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, EXIT_ROOM) {
            // Not every file system can promise.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => other.with_context(about),
        }
    }

    /// Notes how it ended, in the room set aside for it if there is any.
    pub fn write_exit(&self, exit: &Exit) -> Result<()> {
        let (room, path) = (self.file("exit.room"), self.file("exit.json"));
        if fs::metadata(&room)?.is_none() {
            return write_json(&path, exit);
        }
        let about = || format!("cannot write {}", path.display());
        let bytes = serde_json::to_vec(exit).with_context(about)?;
        let file = fs::open_or_create(&room, 0o644)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).with_context(about)?;
        file.set_len(bytes.len() as u64).with_context(about)?;
        fs::rename(&room, &path)
    }
}

/// Room for exit.json.
const EXIT_ROOM: u64 = 4096;

/// The marker of a container that is to go when it ends: lets a sweep find the dead ones without reading all records.
pub(super) fn ephemeral(store: &Store, id: &str) -> PathBuf {
    store.data.join("ephemeral").join(id)
}

/// Makes a container under its name: all files at once or none. The returned lock is the supervisor's to hold.
pub fn create(store: &Store, record: &Record, files: &[(&str, &[u8])]) -> Result<(ContainerDir, OwnedFd)> {
    let draft = super::draft::Draft::new(store)?;
    let inner = draft.path().join("container");
    fs::create_dir(&inner, 0o700)?;
    let dir = ContainerDir { path: inner.clone() };
    for sub in ["merged", "upper", "work"] {
        fs::create_dir(&dir.file(sub), 0o755)?;
        set_mode(&dir.file(sub), 0o755)?;
    }
    if record.person.is_some() {
        fs::create_dir(&dir.file("home"), 0o700)?;
    }
    for (name, bytes) in files {
        fs::write(&dir.file(name), bytes)?;
        set_mode(&dir.file(name), 0o644)?;
    }
    fs::write(&dir.file("record.json"), &serde_json::to_vec(record).context("cannot encode the record")?)?;
    // What goes when it ends need not outlive the machine's power; anything else does, and none of it by half.
    if !record.auto_remove {
        files
            .iter()
            .map(|(name, _)| *name)
            .chain(["record.json"])
            .try_for_each(|name| fs::sync(&dir.file(name)))?;
    }
    let lock = dir.try_lock()?.context("cannot lock a new container")?;
    name::claim(store, &record.name, &record.id)
        .with_context(|| format!("cannot create container {}", record.name))?;
    let home = ContainerDir::of(store, &record.id);
    let publish = || {
        if record.auto_remove {
            fs::write(&ephemeral(store, &record.id), b"")?;
        }
        anyhow::ensure!(
            draft.publish(&inner, &home.path)?,
            "cannot create container {}: its id is taken",
            record.id
        );
        Ok(())
    };
    if let Err(error) = publish() {
        name::release(store, &record.name, &record.id)?;
        fs::remove_file(&ephemeral(store, &record.id))?;
        return Err(error);
    }
    Ok((home, lock))
}

/// What is seen inside has this mode, whatever the caller's umask: every user there reads /etc/hosts, and only root writes it.
fn set_mode(path: &Path, mode: u32) -> Result<()> {
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

/// The container that has exactly this name.
pub fn named(store: &Store, name: &str) -> Result<Option<ContainerDir>> {
    let Some(id) = name::owner_of(store, name)? else { return Ok(None) };
    let dir = ContainerDir::of(store, &id);
    Ok(fs::metadata(&dir.file("record.json"))?.map(|_| dir))
}

/// Finds a container by name, id, or the beginning of an id that fits only one.
pub fn find(store: &Store, wanted: &str) -> Result<ContainerDir> {
    let not_found = || anyhow::Error::from(NotFound { kind: "container", name: wanted.to_owned() });
    let exists = |id: &str| {
        Ok::<_, anyhow::Error>(fs::metadata(&ContainerDir::of(store, id).file("record.json"))?.is_some())
    };
    let wanted_name = wanted.strip_prefix('/').unwrap_or(wanted);
    if is_name(wanted_name)
        && let Some(id) = name::owner_of(store, wanted_name)?
        && exists(&id)?
    {
        return Ok(ContainerDir::of(store, &id));
    }
    if wanted.is_empty() || wanted.len() > 64 || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(not_found());
    }
    let all = ids(store)?;
    let fitting: Vec<&String> = all.iter().filter(|id| id.starts_with(wanted)).collect();
    match fitting[..] {
        [] => Err(not_found()),
        [one] => Ok(ContainerDir::of(store, one)),
        _ => Err(anyhow!("cannot tell which container {wanted} is: {} ids begin so", fitting.len()))
            .hint("type more of the id, or the name"),
    }
}

/// The ids of all containers.
pub fn ids(store: &Store) -> Result<Vec<String>> {
    let names = fs::read_dir(&store.data.join("containers"))?;
    Ok(names.into_iter().filter_map(|n| n.into_string().ok()).filter(|n| n.len() == 64).collect())
}

/// The ids of containers that are to go when they end; normally few, and only running ones.
pub fn ephemeral_ids(store: &Store) -> Result<Vec<String>> {
    let names = fs::read_dir(&store.data.join("ephemeral"))?;
    Ok(names.into_iter().filter_map(|n| n.into_string().ok()).collect())
}

/// Drops the marker of a container that is not there (its making was cut short), unless it is being made now.
pub fn forget_ephemeral(store: &Store, id: &str) -> Result<()> {
    if !name::is_alive_or_kept(store, id)? {
        fs::remove_file(&ephemeral(store, id))?;
    }
    Ok(())
}

/// What a file of a container says; `None`: there is no such file.
pub fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>> {
    let Some(text) = fs::read_to_string_if_exists(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).with_context(|| format!("cannot read {}", path.display()))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    fs::write_atomic(
        path,
        &serde_json::to_vec(value).with_context(|| format!("cannot encode {}", path.display()))?,
    )
}
