//! The supervisor's life: begin, start, one poll loop until init ends, drain, perhaps once more, note, clear away.
//! Single-threaded; every line of `run` is one named step.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

use super::again::Life;
use super::gate::Gate;
use super::guests::Guests;
use super::health::Checks;
use super::log::Writer;
use super::network::Joined;
use super::relay::{Audience, Input};
use super::start::{self, Running, Starting};
use super::timers::{Timer, Timers};
use super::{Begin, CONTROL_FD, Control, DATA_FD};
use crate::host;
use crate::runtime::preserved::Preserved;
use crate::runtime::sync::{Failure, Socket};
use crate::runtime::{Isolation, chroot, kin};
use crate::store::Store;
use crate::store::container::{ContainerDir, Exit, Grave, Record};
use crate::store::journal::{self, Event};
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
    let mut preserved = Preserved::default();
    let (begin, lock) = loop {
        match control.receive::<Control>()? {
            Some((Control::Preserved(number), Some(fd))) => preserved.push(number, fd),
            Some((Control::Begin(begin), Some(lock))) => break (begin, lock),
            _ => bail!("cannot supervise: the command went away"),
        }
    };
    // Not earlier: now our ids are mapped.
    let mut store = store_of(path)?;
    let record = match dir.record() {
        Ok(record) => record,
        // Damaged, or removed by hand in this very moment.
        Err(error) => return control.send(&Control::Failed(Failure::of(&error)), None),
    };
    store.additional.clone_from(&record.additional_stores);
    if begin.foreground {
        die_with_the_command(&control)?;
    }
    if begin.isolation == Isolation::Chroot || !sys::process::is_alone() {
        // What loses its parent comes to us, to be ended when init ends.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("cannot become the reaper")?;
    }
    let starting = Starting {
        store: &store,
        dir: &dir,
        record: &record,
        begin: &begin,
        data: data.as_ref(),
        restarts: 0,
        preserved: Some(&preserved),
    };
    let warn = &mut |text| drop(control.send(&Control::Warning(text), None));
    let mut joined = None;
    let started = prepare(&dir, &record).and_then(|()| {
        // A chroot says itself that it can have none.
        if begin.isolation == Isolation::Full {
            joined = Joined::claim(&store, &dir, &record)?;
        }
        start::start(starting, joined.as_mut(), warn)
    });
    // The program's are its own from now on: their ends of file mean what they say.
    drop(preserved);
    match started {
        Ok(running) => {
            let _ = rustix::process::set_parent_process_death_signal(None);
            let pid = running.pid;
            let guests = Guests::open(&dir);
            let control = Some(control);
            let mut supervised = Supervised {
                store,
                dir,
                record,
                begin,
                lock,
                control,
                data,
                guests,
                joined,
                running: None,
                checks: None,
                timers: Timers::default(),
                life: Life::default(),
            };
            supervised.begin_run(running);
            // Who hears of it finds it in the journal, with its door open and its health begun. A command that went away
            // meanwhile is met by the loop.
            if let Some(control) = &supervised.control {
                let _ = control.send(&Control::Started(pid), None);
            }
            supervised.serve()
        }
        Err(error) => {
            if let Some(joined) = joined {
                joined.leave(&store, &dir);
            }
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

/// The store that the directory of a container lies in.
pub(super) fn store_of(path: &Path) -> Result<Store> {
    let data =
        path.parent().and_then(Path::parent).context("cannot supervise: no store around the container")?;
    Ok(Store { data: data.to_owned(), ids: host::current_ids()?, additional: Vec::new() })
}

fn note_failure(store: &Store, dir: &ContainerDir, record: &Record, error: &anyhow::Error) -> Result<()> {
    let let_go = super::shared::let_go(store, dir, record);
    if record.auto_remove {
        return let_go.and_then(|()| dir.remove(store));
    }
    dir.write_exit(&failed(error)).and(let_go)
}

/// The end of a run that did not begin.
pub(super) fn failed(error: &anyhow::Error) -> Exit {
    Exit {
        code: i32::from(crate::error::exit_code(error)),
        finished_at: Timestamp::now(),
        oom_killed: false,
        error: crate::error::chain(error),
    }
}

/// A container and all that its supervisor has of it.
pub(super) struct Supervised {
    pub store: Store,
    pub dir: ContainerDir,
    pub record: Record,
    pub begin: Begin,
    /// Tells everybody that we live.
    pub lock: OwnedFd,
    /// The command, until it goes away.
    pub control: Option<Socket>,
    /// Its end of the terminal, if there is one.
    pub data: Option<OwnedFd>,
    /// Other commands.
    pub guests: Guests,
    /// Its networks, if it is in any.
    pub joined: Option<Joined>,
    /// The run; `None` between two.
    pub running: Option<Running>,
    pub timers: Timers,
    /// The health checks of the run, where there are any.
    pub checks: Option<Checks>,
    /// What is remembered from run to run.
    pub life: Life,
}

/// What poll(2) can wake us for, in the order of the descriptors.
enum Source {
    Init,
    Control,
    Door,
    Guest(usize),
    Input,
    Relay(usize),
    /// A log that does not take all at once.
    Log,
    Check,
    /// A published port.
    Port,
    Emulation,
    Names,
    Gate,
}

/// What came of one turn of the loop.
pub(super) enum Turn {
    /// Nothing that ends anything.
    GoesOn,
    /// Init ended with this code.
    Ended(i32),
    /// It is time.
    Due(Timer),
}

impl Supervised {
    fn serve(mut self) -> Result<()> {
        loop {
            let exit = self.attend()?;
            if let Some(exit) = self.again(exit)? {
                return self.finish(&exit);
            }
        }
    }

    /// Stays with the run until it is over, and clears it away.
    fn attend(&mut self) -> Result<Exit> {
        let code = loop {
            match self.turn()? {
                Turn::Ended(code) => break code,
                Turn::Due(Timer::Limit | Timer::Insist) => self.signal(Signal::KILL.as_raw()),
                Turn::Due(Timer::Check) => self.check_is_due(),
                Turn::Due(Timer::CheckGivenUp) => self.give_check_up(),
                Turn::Due(Timer::Names) => self.names_step(&[]),
                _ => {}
            }
        };
        self.timers.clear(Timer::Limit);
        if let Some(root) = self.running.as_ref().and_then(|running| running.chroot.as_ref()) {
            chroot::end_all(root, &self.dir.path)?;
        } else if self.running.as_ref().is_some_and(|running| running.shares_pids) {
            kin::end_all(&self.record.id)?;
        }
        self.end_checks();
        // Everything else in the container is dead by now: its pid name space ended with init. What the streams still
        // hold is the last of it.
        self.drain();
        Ok(self.end_run(code))
    }

    /// One turn of the loop.
    pub fn turn(&mut self) -> Result<Turn> {
        let (sources, ready) = self.wait()?;
        let (mut emulated, mut named) = (Vec::new(), Vec::new());
        for (source, events) in sources.iter().zip(ready) {
            let woken = !events.is_empty();
            let running = self.running.as_mut();
            match (source, running) {
                (Source::Emulation, _) => {
                    emulated.push((events.contains(PollFlags::IN), events.contains(PollFlags::HUP)));
                }
                (Source::Names, _) => named.push(events),
                _ if !woken => {}
                (Source::Init, Some(running)) => return running.init.wait().map(Turn::Ended),
                (Source::Control, _) => self.control_step(),
                (Source::Door, _) => drop(self.guests.admit()),
                (Source::Guest(n), _) => self.guest_step(*n),
                (Source::Check, _) => self.check_ended(),
                (Source::Port, _) => self.joined.iter_mut().for_each(Joined::step),
                (Source::Gate, _) => self.gate_step(),
                (Source::Log, Some(running)) => running.log.iter_mut().for_each(Writer::step),
                (Source::Input, Some(running)) => running.input.iter_mut().for_each(Input::step),
                (Source::Relay(n), Some(running)) => {
                    let guests = &mut self.guests;
                    // The command may have gone in this very turn, and taken them along.
                    if let Some(relay) = running.relays.get_mut(*n) {
                        relay.step(&mut Audience { log: running.log.as_mut(), guests });
                    }
                }
                _ => {}
            }
        }
        self.guests.forget_gone();
        self.close_gate();
        if self.life.paused {
            self.void_check();
        }
        if named.iter().any(|events| !events.is_empty()) {
            self.names_step(&named);
        }
        if let Some(running) = &mut self.running {
            if let Some(emulation) = &mut running.emulation {
                emulation.step(&emulated);
            }
            running.relays.retain(|r| !r.is_over());
        }
        Ok(self.timers.next_due().map_or(Turn::GoesOn, Turn::Due))
    }

    fn wait(&self) -> Result<(Vec<Source>, Vec<PollFlags>)> {
        let (mut sources, mut fds) = (Vec::new(), Vec::new());
        let mut add = |source, fd, events| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, events));
        };
        if let Some(running) = &self.running {
            add(Source::Init, running.init.pidfd.as_fd(), PollFlags::IN);
        }
        if let Some(control) = &self.control {
            add(Source::Control, control.as_fd(), PollFlags::IN);
        }
        if let Some(door) = self.guests.door() {
            add(Source::Door, door, PollFlags::IN);
        }
        let input = self.running.as_ref().and_then(|running| running.input.as_ref());
        for (n, fd, events) in self.guests.interest(input.is_none_or(Input::has_room)) {
            add(Source::Guest(n), fd, events);
        }
        if let Some(fd) = input.and_then(Input::interest) {
            add(Source::Input, fd, PollFlags::OUT);
        }
        if let Some(fd) = self.check_interest() {
            add(Source::Check, fd, PollFlags::IN);
        }
        if let Some(fd) = self.joined.as_ref().and_then(Joined::interest) {
            add(Source::Port, fd, PollFlags::IN);
        }
        if let Some(running) = &self.running {
            for (n, relay) in running.relays.iter().enumerate() {
                if let Some((fd, events)) = relay.interest() {
                    add(Source::Relay(n), fd, events);
                }
            }
            if let Some((fd, events)) = running.log.as_ref().and_then(Writer::interest) {
                add(Source::Log, fd, events);
            }
            if let Some(fd) = running.gate.as_ref().and_then(Gate::interest) {
                add(Source::Gate, fd, PollFlags::IN);
            }
            for fd in running.emulation.iter().flat_map(|e| e.interest()) {
                add(Source::Emulation, fd, PollFlags::IN);
            }
            for (fd, events) in running.names.iter().flat_map(|names| names.interest()) {
                add(Source::Names, fd, events);
            }
        }
        loop {
            match rustix::event::poll(&mut fds, self.timers.timeout().as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                other => {
                    other.context("cannot wait for the container")?;
                    break;
                }
            }
        }
        Ok((sources, fds.iter().map(PollFd::revents).collect()))
    }

    /// Passes on what is left in the streams, up to their ends.
    fn drain(&mut self) {
        let Some(running) = &mut self.running else { return };
        let mut audience = Audience { log: running.log.as_mut(), guests: &mut self.guests };
        running.relays.retain(|r| !r.is_input());
        while let Some(relay) = running.relays.iter_mut().find(|r| !r.is_over()) {
            if let Some((fd, events)) = relay.interest() {
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
            relay.step(&mut audience);
        }
        if let Some(log) = &mut running.log {
            log.finish();
        }
    }

    /// Clears away what a run leaves; how it ended.
    fn end_run(&mut self, code: i32) -> Exit {
        let mut oom_killed = false;
        if let Some(Running { cgroup, .. }) = self.running.take()
            && let Some(cgroup) = cgroup
        {
            oom_killed = cgroup.oom_kills().is_ok_and(|n| n > 0);
            // What cannot be removed now stays noted, and is removed by the next command.
            self.life.is_cgroup_left = cgroup.remove().is_err();
        }
        Exit { code, finished_at: Timestamp::now(), oom_killed, error: String::new() }
    }

    /// Notes the end, frees the name if it is to be freed, and says the last words.
    fn finish(self, exit: &Exit) -> Result<()> {
        let mut events = if self.life.is_end_told { Vec::new() } else { self.events_of_end(exit) };
        let joined = self.joined.iter();
        events.extend(joined.flat_map(|joined| joined.events(&self.record, "disconnect")));
        events.extend(Event::of_volumes(&self.record, "unmount"));
        if self.record.auto_remove {
            events.push(self.event("destroy"));
        }
        let Supervised { store, dir, record, lock, control, mut guests, life, mut joined, .. } = self;
        // Who hears that it ended may want its ports at once. Links and addresses take a while, and nobody waits for them.
        joined.iter_mut().for_each(Joined::unpublish);
        if !life.is_cgroup_left && !record.auto_remove {
            let _ = dir.forget_cgroup();
        }
        let let_go = super::shared::let_go(&store, &dir, &record);
        let noted = match record.auto_remove {
            true => let_go.and_then(|()| dir.bury(&store)).map(Some),
            false => dir.write_exit(exit).and(let_go).map(|()| None),
        };
        journal::note_all(&store, &events);
        // What is buried is ours to clear as long as we hold its lock. Any other is free before the last word: who hears
        // it may start the container again at once.
        guests.close_door();
        let lock = Some(lock).filter(|_| record.auto_remove);
        // Whatever became of the note: the command waits for the code.
        if let Some(control) = control {
            let _ = control.send(&Control::Exited(exit.code), None);
        }
        guests.tell_end(exit.code);
        // Nobody waits for the files to go.
        let cleared = noted.and_then(|grave| grave.map_or(Ok(()), Grave::clear));
        if let Some(joined) = joined {
            joined.leave(&store, &dir);
        }
        drop(lock);
        guests.linger();
        cleared
    }
}
