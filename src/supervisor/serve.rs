//! The supervisor's life: begin, start, one poll loop until init ends, drain, note, clear away.
//! Single-threaded; every line of `run` is one named step.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

use super::start::{self, Running};
use super::{Begin, CONTROL_FD, Control, DATA_FD};
use crate::host;
use crate::runtime::sync::{Failure, Socket};
use crate::runtime::{Isolation, chroot};
use crate::store::Store;
use crate::store::container::{ContainerDir, Exit, Grave, Record};
use crate::sys;

/// The role: supervises the container in the directory `path`.
pub fn run(path: &Path) -> Result<()> {
    let fd = |n| sys::process::inherited_fd(n).context("cannot supervise: not started by dhow");
    let control = Socket::from(fd(CONTROL_FD)?);
    let data = sys::process::inherited_fd(DATA_FD);
    for fd in [CONTROL_FD, DATA_FD] {
        sys::process::set_close_on_exec(fd);
    }
    let _ = rustix::process::setsid();
    let dir = ContainerDir { path: path.to_owned() };
    let mut store = store_of(path)?;
    let Some((Control::Begin(begin), Some(lock))) = control.receive::<Control>()? else {
        bail!("cannot supervise: the command went away");
    };
    let record = match dir.record() {
        Ok(record) => record,
        // Damaged, or removed by hand in this very moment.
        Err(error) => return control.send(&Control::Failed(Failure::of(&error)), None),
    };
    store.additional.clone_from(&record.additional_stores);
    if begin.foreground {
        die_with_the_command(&control)?;
    }
    if begin.isolation == Isolation::Chroot {
        // What loses its parent comes to us, to be ended when init ends.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("cannot become the reaper")?;
    }
    match prepare(&dir, &record).and_then(|()| start::start(&store, &dir, &record, &begin, &control, data)) {
        Ok(running) => {
            let _ = rustix::process::set_parent_process_death_signal(None);
            // A command that went away meanwhile is met by the loop.
            let _ = control.send(&Control::Started, None);
            Supervised { store, dir, record, begin, running, lock, control: Some(control) }.serve()
        }
        Err(error) => {
            let noted = note_failure(&store, &dir, &record, &error);
            drop(lock);
            let told = control.send(&Control::Failed(Failure::of(&error)), None);
            noted.and(told)
        }
    }
}

fn prepare(dir: &ContainerDir, record: &Record) -> Result<()> {
    dir.clear_run()?;
    if record.auto_remove { Ok(()) } else { dir.reserve_exit() }
}

/// Until the loop watches the command, starting may hang (on a file system that does not answer) with nobody left who
/// wants it.
fn die_with_the_command(control: &Socket) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot tie us to the command")?;
    let mut fds = [PollFd::from_borrowed_fd(control.as_fd(), PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).context("cannot look for the command")?;
    anyhow::ensure!(!fds[0].revents().contains(PollFlags::HUP), "cannot supervise: the command went away");
    Ok(())
}

fn store_of(path: &Path) -> Result<Store> {
    let data =
        path.parent().and_then(Path::parent).context("cannot supervise: no store around the container")?;
    Ok(Store { data: data.to_owned(), ids: host::current_ids()?, additional: Vec::new() })
}

fn note_failure(store: &Store, dir: &ContainerDir, record: &Record, error: &anyhow::Error) -> Result<()> {
    if record.auto_remove {
        return dir.remove(store);
    }
    dir.write_exit(&Exit {
        code: i32::from(crate::error::exit_code(error)),
        finished_at: Timestamp::now(),
        oom_killed: false,
        error: crate::error::chain(error),
    })
}

struct Supervised {
    store: Store,
    dir: ContainerDir,
    record: Record,
    begin: Begin,
    running: Running,
    /// Tells everybody that we live.
    lock: OwnedFd,
    /// The command, until it goes away.
    control: Option<Socket>,
}

/// What poll(2) can wake us for, in the order of the descriptors.
enum Source {
    Init,
    Control,
    Relay(usize),
    Emulation,
}

impl Supervised {
    fn serve(mut self) -> Result<()> {
        let code = loop {
            if let Some(code) = self.turn()? {
                break code;
            }
        };
        if let Some(root) = &self.running.chroot {
            chroot::end_all(root, &self.dir.path)?;
        }
        // Everything else in the container is dead by now: its pid name space ended with init. What the streams still
        // hold is the last of it.
        self.drain();
        self.finish(code)
    }

    /// One turn of the loop; the exit code if init ended.
    fn turn(&mut self) -> Result<Option<i32>> {
        let (sources, ready) = self.wait()?;
        let mut emulated = Vec::new();
        for (source, (events, n)) in sources.iter().zip(ready.iter().zip(0..)) {
            let woken = !events.is_empty();
            match source {
                Source::Init if woken => return self.running.init.wait().map(Some),
                Source::Control if woken => self.control_step()?,
                Source::Relay(at) if woken => self.running.relays[*at].step(self.running.log.as_mut()),
                Source::Emulation => {
                    emulated.push((ready[n].contains(PollFlags::IN), ready[n].contains(PollFlags::HUP)));
                }
                _ => {}
            }
        }
        if let Some(emulation) = &mut self.running.emulation {
            emulation.step(&emulated);
        }
        self.running.relays.retain(|r| !r.is_over());
        Ok(None)
    }

    fn wait(&self) -> Result<(Vec<Source>, Vec<PollFlags>)> {
        let running = &self.running;
        let mut sources = vec![Source::Init];
        let mut fds = vec![PollFd::from_borrowed_fd(running.init.pidfd.as_fd(), PollFlags::IN)];
        if let Some(control) = &self.control {
            sources.push(Source::Control);
            fds.push(PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN));
        }
        for (n, relay) in running.relays.iter().enumerate() {
            if let Some((fd, events)) = relay.interest() {
                sources.push(Source::Relay(n));
                fds.push(PollFd::from_borrowed_fd(fd, events));
            }
        }
        for fd in running.emulation.iter().flat_map(|e| e.interest()) {
            sources.push(Source::Emulation);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        loop {
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                other => {
                    other.context("cannot wait for the container")?;
                    break;
                }
            }
        }
        Ok((sources, fds.iter().map(PollFd::revents).collect()))
    }

    fn control_step(&mut self) -> Result<()> {
        let Some(control) = &self.control else { return Ok(()) };
        match control.receive::<Control>() {
            Ok(Some((Control::Signal(n), _))) => self.signal(n),
            Ok(Some((Control::Resize(rows, columns), _))) => self.resize(rows, columns),
            Ok(Some((Control::Detach, _))) => {
                self.begin.foreground = false;
                self.control = None;
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                self.control = None;
                if self.begin.foreground {
                    // The command was killed: the container is its child in spirit and goes too.
                    self.signal(Signal::KILL.as_raw());
                }
            }
        }
        Ok(())
    }

    fn signal(&self, number: i32) {
        let _ = sys::process::signal(&self.running.init.pidfd, number);
    }

    fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = &self.running.terminal {
            let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }

    /// Passes on what is left in the streams, up to their ends.
    fn drain(&mut self) {
        self.running.relays.retain(|r| !r.is_input());
        while let Some((n, _)) = self.running.relays.iter().enumerate().find(|(_, r)| !r.is_over()) {
            if let Some((fd, events)) = self.running.relays[n].interest() {
                let mut fds = vec![PollFd::from_borrowed_fd(fd, events)];
                // The command may be gone while its reader is not reading: then nobody waits for these bytes.
                if let Some(control) = &self.control {
                    fds.push(PollFd::from_borrowed_fd(control.as_fd(), PollFlags::empty()));
                }
                let _ = rustix::event::poll(&mut fds, None);
                if fds.get(1).is_some_and(|f| f.revents().contains(PollFlags::HUP))
                    && fds[0].revents().is_empty()
                {
                    break;
                }
            }
            self.running.relays[n].step(self.running.log.as_mut());
        }
        if let Some(log) = &mut self.running.log {
            log.finish();
        }
    }

    fn finish(self, code: i32) -> Result<()> {
        let Supervised { store, dir, record, running, lock, control, .. } = self;
        let oom_killed = running.cgroup.as_ref().is_some_and(|c| c.oom_kills().is_ok_and(|n| n > 0));
        let Running { cgroup, init, relays, emulation, open_stdin, .. } = running;
        drop::<(OwnedFd, _, _, _)>((init.pidfd, relays, emulation, open_stdin));
        if let Some(cgroup) = cgroup {
            // What cannot be removed now stays noted, and is removed by the next command.
            if cgroup.remove().is_ok() && !record.auto_remove {
                let _ = dir.forget_cgroup();
            }
        }
        let noted = if record.auto_remove {
            dir.bury(&store).map(Some)
        } else {
            let exit = Exit { code, finished_at: Timestamp::now(), oom_killed, error: String::new() };
            dir.write_exit(&exit).map(|()| None)
        };
        // What is buried is ours to clear as long as we hold its lock. Any other is free before the last word: who hears
        // it may start the container again at once.
        let lock = Some(lock).filter(|_| record.auto_remove);
        // Whatever became of the note: the command waits for the code.
        if let Some(control) = control {
            let _ = control.send(&Control::Exited(code), None);
        }
        // Nobody waits for the files to go.
        let cleared = noted?.map_or(Ok(()), Grave::clear);
        drop(lock);
        cleared
    }
}
