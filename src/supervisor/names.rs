//! The names that a container on networks of its own has and finds: its resolver, its /etc/hosts and its /etc/resolv.conf.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::PollFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::links;
use super::network::Joined;
use super::serve::Supervised;
use super::start::Starting;
use super::timers::Timer;
use crate::dns;
use crate::endpoint::Link;
use crate::fs;
use crate::network::etc::{Hosts, ResolvConf};
use crate::network::resolver::{ADDRESS, Resolver, Settings, Sockets, View, key};
use crate::oci::runtime::Spec;
use crate::store::Store;
use crate::store::container::{ContainerDir, Record};
use crate::store::network::member;
use crate::store::network::wired::Wired;

/// A hosts file that a container made larger than this is left as it is.
const MAX_HOSTS: usize = 1024 * 1024;

/// What serving names takes.
#[derive(Debug)]
pub(super) struct Names {
    resolver: Resolver,
    view: View,
    links: Vec<Link>,
    /// The lines of the hosts file that follow the links.
    lines: Vec<String>,
    /// Tells of changes on the networks, where there are links to follow.
    watch: Option<OwnedFd>,
    hostname: String,
    domainname: Option<String>,
}

impl Names {
    /// Serves a container that is joined so; it has its two files when this returns.
    pub fn open(starting: Starting<'_>, spec: &Spec, joined: &Joined) -> Result<Names> {
        let Starting { store, dir, record, .. } = starting;
        let (wired, wiring) = (joined.wired(), &record.wiring);
        let inside = joined.inside().context("cannot serve names: the container has no sockets")?;
        let copy = |fd: &OwnedFd| fd.try_clone().context("cannot copy a socket");
        let sockets = Sockets {
            datagram: copy(&inside.datagram)?,
            stream: copy(&inside.stream)?,
            filter: copy(&inside.filter)?.into(),
        };
        let settings = Settings { servers: wiring.dns.clone(), options: wiring.dns_options.clone() };
        let resolver = Resolver::open(sockets, &settings)?;
        let links = links::of(wiring);
        let mut names = Names {
            resolver,
            view: View::new(wired, &links),
            links,
            lines: Vec::new(),
            watch: None,
            hostname: spec.hostname().clone().unwrap_or_default(),
            domainname: spec.domainname().clone().filter(|domain| !domain.is_empty()),
        };
        names.watch(store, wired)?;
        names.write_files(store, dir, record, wired)?;
        Ok(names)
    }

    /// Goes on with a container that is joined otherwise now, or called otherwise. What its programs have written to
    /// /etc/hosts is lost if its addresses changed.
    pub fn rejoin(
        &mut self,
        store: &Store,
        dir: &ContainerDir,
        record: &Record,
        wired: &Wired,
    ) -> Result<()> {
        self.links = links::of(&record.wiring);
        self.view = View::new(wired, &self.links);
        self.watch(store, wired)?;
        self.write_files(store, dir, record, wired)
    }

    /// Its links may lead elsewhere now.
    fn relink(&mut self, store: &Store, dir: &ContainerDir, record: &Record, wired: &Wired) -> Result<()> {
        let links = links::of(&record.wiring);
        if links == self.links {
            return Ok(());
        }
        self.view = View::new(wired, &links);
        self.links = links;
        self.watch(store, wired)?;
        self.follow(store, dir);
        Ok(())
    }

    fn watch(&mut self, store: &Store, wired: &Wired) -> Result<()> {
        self.watch = None;
        if self.links.is_empty() {
            return Ok(());
        }
        let watch =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("cannot follow links")?;
        let events = WatchFlags::ATTRIB | WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        for end in wired.ends.iter().filter(|end| end.dns) {
            // A network that was removed meanwhile has nobody to follow.
            let _ = inotify::add_watch(&watch, member::place(store, &end.network_id), events);
        }
        self.watch = Some(watch);
        Ok(())
    }

    fn write_files(
        &mut self,
        store: &Store,
        dir: &ContainerDir,
        record: &Record,
        wired: &Wired,
    ) -> Result<()> {
        let options = |key: &str| record.options.get(key).cloned().unwrap_or_default();
        let added: Vec<(String, String)> = serde_json::from_value(options("add_hosts")).unwrap_or_default();
        let linked = self.linked(store);
        self.lines = linked.iter().map(|(address, names)| line(*address, names)).collect();
        let way_out = wired.ends.iter().find(|end| !end.internal).or(wired.ends.first());
        let gateways = way_out.map(|end| {
            let v4 = end.gateway4.map(IpAddr::from);
            v4.into_iter().chain(end.gateway6.map(IpAddr::from)).collect()
        });
        let hosts = Hosts {
            of_machine: None,
            hostname: &self.hostname,
            domainname: self.domainname.as_deref(),
            addresses: wired.ends.iter().flat_map(|end| end.addresses()).collect(),
            links: linked,
            added: &added,
            gateways: gateways.unwrap_or_default(),
        };
        overwrite(&dir.file("hosts"), hosts.text().as_bytes())?;
        let of_machine = fs::read_to_string(Path::new(dns::RESOLV_CONF)).unwrap_or_default();
        let resolv_conf = ResolvConf {
            of_machine: &of_machine,
            servers: &[ADDRESS.to_string()],
            search: &record.wiring.dns_search,
            options: &record.wiring.dns_options,
            has_own_resolver: true,
        };
        overwrite(&dir.file("resolv.conf"), resolv_conf.text().as_bytes())
    }

    /// Where those are that it is linked to, with their names.
    fn linked(&mut self, store: &Store) -> Vec<(IpAddr, Vec<String>)> {
        let mut found = Vec::new();
        if self.links.is_empty() {
            return found;
        }
        let records = self.view.now(store);
        for Link { target, alias } in &self.links {
            let targets = records.find(&key(target), &mut |entry| member::is_alive(store, &entry.id));
            let Some(entry) = targets.first() else { continue };
            let names = [alias.as_str(), entry.id.get(..12).unwrap_or_default(), entry.name.as_str()];
            // Names with blanks, or with what begins a comment, cannot stand in this file; the resolver knows them.
            let mut names: Vec<String> = names
                .iter()
                .filter(|n| !n.contains([' ', '\t', '\n', '#']))
                .map(|n| (*n).to_owned())
                .collect();
            names.dedup();
            found.extend(entry.addresses.iter().map(|address| (*address, names.clone())));
        }
        found
    }

    /// What to wait for, in the order in which [`Names::step`] wants to hear of it.
    pub fn interest(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let watch = self.watch.as_ref().map(|watch| (watch.as_fd(), PollFlags::IN));
        watch.into_iter().chain(self.resolver.interest())
    }

    /// When the next step is due, whatever comes.
    pub fn due(&self) -> Option<Instant> {
        self.resolver.due()
    }

    /// Deals with what poll(2) said, in the order of [`Names::interest`], and with what is due.
    pub fn step(&mut self, store: &Store, dir: &ContainerDir, ready: &[PollFlags]) {
        let (of_watch, of_resolver) = ready.split_at(usize::from(self.watch.is_some()).min(ready.len()));
        if of_watch.first().is_some_and(|flags| !flags.is_empty()) {
            self.follow(store, dir);
        }
        let records = self.view.now(store);
        self.resolver.step(of_resolver, records, &mut |entry| member::is_alive(store, &entry.id));
    }

    /// Puts the lines of the hosts file right after a change on the networks. Best effort: the resolver says the same.
    fn follow(&mut self, store: &Store, dir: &ContainerDir) {
        if let Some(watch) = &self.watch {
            let mut events = [0u8; 4096];
            // That something happened is all that is asked.
            while rustix::io::read(watch, &mut events).is_ok_and(|n| n > 0) {}
        }
        let lines: Vec<String> =
            self.linked(store).iter().map(|(address, names)| line(*address, names)).collect();
        if lines != self.lines && relink(&dir.file("hosts"), &self.lines, &lines).is_ok() {
            self.lines = lines;
        }
    }
}

impl Supervised {
    /// Serves names as far as there is something to serve.
    pub fn names_step(&mut self, ready: &[PollFlags]) {
        self.timers.clear(Timer::Names);
        let Some(names) = self.running.as_mut().and_then(|running| running.names.as_mut()) else { return };
        names.step(&self.store, &self.dir, ready);
        if let Some(due) = names.due() {
            self.timers.set(Timer::Names, due.saturating_duration_since(Instant::now()));
        }
    }

    /// The record was changed: what the container is called on its networks is what it says now.
    pub fn read_again(&mut self) -> Result<()> {
        self.record = self.dir.record()?;
        let Some(joined) = &mut self.joined else { return Ok(()) };
        let record = &self.record;
        joined.tell(&self.store, &self.dir, |wired| {
            wired.name.clone_from(&record.name);
            for end in &mut wired.ends {
                let asked = record.wiring.endpoints.iter().find(|asked| asked.network == end.network);
                asked.into_iter().for_each(|asked| end.aliases.clone_from(&asked.aliases));
            }
        })?;
        let names = self.running.as_mut().and_then(|running| running.names.as_mut());
        names.map_or(Ok(()), |names| names.relink(&self.store, &self.dir, record, joined.wired()))
    }

    /// Between two runs nobody is there to be found. Best effort: who does not hear of it finds a closed port.
    pub fn rest(&mut self, is_resting: bool) {
        if let Some(joined) = &mut self.joined {
            let _ = joined.tell(&self.store, &self.dir, |wired| wired.is_resting = is_resting);
        }
    }
}

fn line(address: IpAddr, names: &[String]) -> String {
    format!("{address}\t{}", names.join(" "))
}

/// Puts new lines in the place of old ones; what else is there is the container's own and stays.
fn relink(path: &Path, old: &[String], new: &[String]) -> Result<()> {
    let size = fs::metadata(path)?.map_or(0, |meta| meta.len());
    anyhow::ensure!(size <= MAX_HOSTS as u64, "{} is too large", path.display());
    let bytes = fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let kept = text.lines().filter(|line| !old.iter().any(|old| old == line));
    let lines: Vec<&str> = kept.chain(new.iter().map(String::as_str)).collect();
    overwrite(path, (lines.join("\n") + "\n").as_bytes())
}

/// Writes a file that is mounted in the container: in its place, and not empty at any moment. What was longer ends in empty
/// lines for a moment, not in the rest of a line.
fn overwrite(path: &Path, bytes: &[u8]) -> Result<()> {
    let about = || format!("cannot write {}", path.display());
    let file = fs::open_or_create(path, 0o644)?;
    let size = file.metadata().with_context(about)?.len().min(MAX_HOSTS as u64) as usize;
    let mut padded = bytes.to_vec();
    padded.resize(size.max(bytes.len()), b'\n');
    file.write_all_at(&padded, 0).with_context(about)?;
    file.set_len(bytes.len() as u64).with_context(about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_put_right_among_the_lines_of_others() {
        let path = std::env::temp_dir().join(format!("dhow-names-{}", std::process::id()));
        let check = |old: &[&str], new: &[&str], want: &str| {
            let lines = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<String>>();
            relink(&path, &lines(old), &lines(new)).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), want);
        };
        fs::write(&path, b"127.0.0.1\tlocalhost\n10.0.0.2\tdb\n# mine").unwrap();
        check(&["10.0.0.2\tdb"], &["10.0.0.3\tdb"], "127.0.0.1\tlocalhost\n# mine\n10.0.0.3\tdb\n");
        check(&["10.0.0.3\tdb"], &[], "127.0.0.1\tlocalhost\n# mine\n");
        check(&[], &["fd00::1\tdb"], "127.0.0.1\tlocalhost\n# mine\nfd00::1\tdb\n");
        fs::remove_file(&path).unwrap();
    }
}
