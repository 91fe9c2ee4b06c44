//! boot: what a reboot ended is started again, as its restart policy says.

use std::collections::VecDeque;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::Engine;
use super::list::{self, Listed};
use crate::fs;
use crate::host;
use crate::store::Store;
use crate::store::container::{ContainerDir, Restart, Status};
use crate::sys::lock::{self, Kind};

/// What came of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was started.
    Started,
    /// It cannot be: what `start` said.
    Failed(String),
}

/// The containers that are to be started, in the order in which they were made.
///
/// As docker decides when its daemon starts: `always` even if a person stopped it, `unless-stopped` if none did, and
/// `on-failure` if it ended with an error (which being killed by a reboot is), has tries left, and nobody stopped it.
/// What was never started is not started now.
pub fn wanted(engine: &Engine) -> Result<Vec<String>> {
    let mut listed = list::list(engine)?;
    listed.retain(|one| is_wanted(&engine.store, one));
    listed.sort_by(|a, b| (a.record.created, &a.record.id).cmp(&(b.record.created, &b.record.id)));
    Ok(listed.into_iter().map(|one| one.record.name).collect())
}

fn is_wanted(store: &Store, one: &Listed) -> bool {
    let dir = ContainerDir::of(store, &one.record.id);
    let code = match &one.status {
        Status::Exited(exit) => exit.code,
        // Killed with its supervisor, and nobody has written that down yet.
        Status::Dead(_) => 128 + libc::SIGKILL,
        _ => return false,
    };
    let count = dir.last_state().ok().flatten().map_or(0, |state| state.restart_count);
    let is_stopped = dir.is_marked_stopped() && one.record.restart != Restart::Always;
    !is_stopped && one.record.restart.wants(code, count)
}

/// Starts them, several at once and in this order; `each` is told of each in this order. Each is started by a command of
/// its own: a start takes milliseconds of waiting, and a process with threads may not start one.
pub fn start(engine: &Engine, names: &[String], each: &mut dyn FnMut(&str, Outcome)) -> Result<()> {
    let most = std::thread::available_parallelism().map_or(2, |n| n.get() * 2);
    let mut going: VecDeque<(&str, Result<(Child, std::fs::File)>)> = VecDeque::new();
    for name in names {
        if going.len() >= most
            && let Some((name, child)) = going.pop_front()
        {
            each(name, outcome(child));
        }
        going.push_back((name, begin(engine, name)));
    }
    for (name, child) in going {
        each(name, outcome(child));
    }
    Ok(())
}

fn begin(engine: &Engine, name: &str) -> Result<(Child, std::fs::File)> {
    let about = || format!("cannot start {name}");
    let said = fs::create_unnamed(&engine.store.data.join("tmp"))?;
    let child = Command::new("/proc/self/exe")
        .arg("--root")
        .arg(&engine.store.data)
        .args(["start", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said.try_clone().with_context(about)?)
        .spawn()
        .with_context(about)?;
    Ok((child, said))
}

fn outcome(child: Result<(Child, std::fs::File)>) -> Outcome {
    let ended = child.and_then(|(mut child, mut said)| {
        let status = child.wait().context("cannot wait for a start")?;
        let mut text = String::new();
        said.rewind().context("cannot read what a start said")?;
        said.take(16 << 10).read_to_string(&mut text).context("cannot read what a start said")?;
        Ok((status.success(), text))
    });
    match ended {
        Ok((true, _)) => Outcome::Started,
        Ok((false, text)) => Outcome::Failed(text),
        Err(error) => Outcome::Failed(crate::error::report(&error)),
    }
}

/// What keeps `boot --once` to one time a boot: held while it goes on.
#[derive(Debug)]
pub struct Once {
    file: std::fs::File,
    boot_id: String,
}

/// Waits for a boot that goes on; `None` if one was done since the machine started.
pub fn once(store: &Store) -> Result<Option<Once>> {
    let path = store.data.join("booted");
    let mut file = fs::open_or_create(&path, 0o600)?;
    lock::acquire(&file, Kind::Exclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    let mut noted = String::new();
    // What cannot be read is no boot of this one.
    let _ = Read::by_ref(&mut file).take(100).read_to_string(&mut noted);
    let boot_id = host::boot_id()?;
    Ok((noted != boot_id).then_some(Once { file, boot_id }))
}

impl Once {
    /// Notes that it was done.
    pub fn done(mut self) -> Result<()> {
        use std::io::Write;
        let about = "cannot note that the containers were started";
        self.file.set_len(0).context(about)?;
        self.file.rewind().context(about)?;
        self.file.write_all(self.boot_id.as_bytes()).context(about)
    }
}

/// The program that we are, for lines that are to run it later.
pub fn program() -> Result<std::path::PathBuf> {
    fs::read_link(Path::new("/proc/self/exe"))?.context("cannot tell where this program lies")
}
