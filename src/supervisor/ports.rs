//! The ports of the host that a container publishes. A socket of ours is bound to each for as long as we live: so the kernel
//! itself decides who has a port, and gives it back when we are killed. The firewall leads what comes for it past us to the
//! container; what cannot be led past (::1, IPv6 for a container that has none) arrives here and is passed on by `passage`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::passage::{Datagrams, Passages};
use super::port_owner;
use crate::endpoint::{Port, Published};
use crate::error::ResultExt;
use crate::network::forward::Lead;
use crate::network::plan::Plan;
use crate::store::Store;

/// All sockets of a container's ports.
#[derive(Debug, Default)]
pub struct Ports {
    published: Vec<Published>,
    doors: Vec<Door>,
    /// All of them as one descriptor; none where nothing is published.
    epoll: Option<OwnedFd>,
    passages: Passages,
    /// The container's addresses.
    targets: Vec<IpAddr>,
}

#[derive(Debug)]
struct Door {
    socket: OwnedFd,
    is_v6: bool,
    container_port: u16,
    datagrams: Option<Datagrams>,
}

impl Ports {
    /// Takes the ports; an error says who has one that is taken.
    pub fn bind(store: &Store, wanted: &[Port]) -> Result<Ports> {
        let mut ports = Ports::default();
        if wanted.is_empty() {
            return Ok(ports);
        }
        make_room(wanted.len() * 2 + 128);
        for port in wanted {
            ports.bind_one(store, port)?;
        }
        let all = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot make an epoll descriptor")?;
        for (n, door) in ports.doors.iter().enumerate() {
            let data = epoll::EventData::new_u64(n as u64);
            epoll::add(&all, &door.socket, data, epoll::EventFlags::IN).context("cannot watch a port")?;
        }
        ports.epoll = Some(all);
        Ok(ports)
    }

    /// Fails if one of the ports cannot be had. For a user who is not root of a name space yet: of a process in the outer
    /// one it cannot be seen from within that it has a port.
    pub fn check(store: &Store, wanted: &[Port]) -> Result<()> {
        // Of one that the kernel chooses, or of several, another will do; of a thousand the first tell enough.
        let is_fixed = |port: &&Port| {
            port.protocol != "sctp" && port.host.is_some_and(|(first, last)| first == last && first != 0)
        };
        let wanted: Vec<Port> = wanted.iter().filter(is_fixed).take(16).cloned().collect();
        wanted.iter().try_for_each(|port| Ports::default().bind_one(store, port))
    }

    fn bind_one(&mut self, store: &Store, port: &Port) -> Result<()> {
        let about = |number: u16| format!("cannot publish port {number}/{} of the host", port.protocol);
        let addresses: Vec<IpAddr> = match port.address.parse() {
            Ok(address) => vec![address],
            Err(_) => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        };
        let (first, last) = port.host.unwrap_or((0, 0));
        let mut refusal = None;
        // Of those that the kernel may choose, one may be taken for the other kind of address.
        let attempts = if first == 0 { vec![0; 16] } else { (first..=last).collect() };
        for number in attempts {
            match bind_all(&addresses, number, port) {
                Ok((number, doors)) => {
                    self.doors.extend(doors);
                    self.published.push(Published {
                        container_port: port.container_port,
                        protocol: port.protocol.clone(),
                        host_ip: port.address.clone(),
                        host_port: number,
                    });
                    return Ok(());
                }
                Err((Errno::ADDRINUSE, address)) => refusal = Some((number, address)),
                Err((Errno::ACCESS, _)) => {
                    return Err(anyhow!("ports below 1024 are root's")).with_context(|| about(number)).hint(format!(
                        "publish a high port, as in -p {}:{}, or run sysctl -w net.ipv4.ip_unprivileged_port_start={number} as root",
                        free_port(&addresses, number, port), port.container_port
                    ));
                }
                Err((Errno::ADDRNOTAVAIL, address)) => {
                    return Err(anyhow!("{address} is no address of this machine"))
                        .with_context(|| about(number));
                }
                Err((error, _)) => {
                    return Err(std::io::Error::from(error)).with_context(|| about(number));
                }
            }
        }
        let (number, address) = refusal.context("cannot find a free port")?;
        let owner = port_owner::of(store, &port.protocol, address, number);
        let taken = match owner {
            Some(owner) => anyhow!("{owner} has it"),
            None => anyhow!("somebody has it"),
        };
        let taken =
            if last > first { taken.context(format!("all of {first}-{last} are taken")) } else { taken };
        Err(taken)
            .with_context(|| about(number))
            .hint("choose another, or leave the host's port out to get a free one")
    }

    /// What was taken.
    pub fn published(&self) -> &[Published] {
        &self.published
    }

    /// Where it goes from now on.
    pub fn lead_to(&mut self, plan: &Plan) {
        self.targets = plan.ports.first().map(|(_, targets)| targets.clone()).unwrap_or_default();
    }

    /// All doors, for another process that opens them in our place, and where they lead.
    pub fn leads(&self) -> Result<Vec<(OwnedFd, Lead)>> {
        let lead = |door: &Door| {
            let to =
                self.targets.iter().map(|target| SocketAddr::new(*target, door.container_port)).collect();
            let socket = door.socket.try_clone().context("cannot copy a socket")?;
            Ok((socket, Lead { is_udp: door.datagrams.is_some(), to }))
        };
        self.doors.iter().map(lead).collect()
    }

    /// What to wait for.
    pub fn interest(&self) -> Option<BorrowedFd<'_>> {
        self.epoll.as_ref().map(AsFd::as_fd)
    }

    /// Deals with what came; true if something came that should have been led past us.
    pub fn step(&mut self) -> bool {
        let Some(epoll) = &self.epoll else { return false };
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 32];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let n = epoll::wait(epoll, &mut events[..], Some(&now)).unwrap_or(0);
        let mut is_odd = false;
        for event in &events[..n] {
            let token = event.data.u64();
            match self.doors.get_mut(token as usize) {
                Some(door) => {
                    let target = target(&self.targets, door);
                    is_odd |= door.open(epoll, target, &mut self.passages, token) && !door.is_v6;
                }
                None if token >= Datagrams::FIRST => {
                    let door = Datagrams::door_of(token);
                    if let Some(door) = self.doors.get_mut(door)
                        && let Some(datagrams) = &mut door.datagrams
                    {
                        datagrams.answer(&door.socket, token);
                    }
                }
                None => self.passages.step(epoll, token),
            }
        }
        is_odd
    }
}

/// Where a door leads: to an address of its own kind if there is one.
fn target(targets: &[IpAddr], door: &Door) -> Option<SocketAddr> {
    let same = targets.iter().find(|target| target.is_ipv6() == door.is_v6).or(targets.first());
    same.map(|target| SocketAddr::new(*target, door.container_port))
}

impl Door {
    /// Somebody is at it; whether somebody was.
    fn open(&mut self, epoll: &OwnedFd, target: Option<SocketAddr>, passages: &mut Passages, n: u64) -> bool {
        if let Some(datagrams) = &mut self.datagrams {
            return datagrams.pass_on(epoll, &self.socket, target, n as usize);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(client) = rustix::net::accept_with(&self.socket, flags) else { return false };
        if let Some(target) = target {
            passages.begin(epoll, client, target);
        }
        true
    }
}

/// Binds a port on all of these addresses, or on none. A machine without IPv6 has no second one.
fn bind_all(addresses: &[IpAddr], number: u16, port: &Port) -> Result<(u16, Vec<Door>), (Errno, IpAddr)> {
    let mut number = number;
    let mut doors = Vec::new();
    for address in addresses {
        match bind(SocketAddr::new(*address, number), &port.protocol) {
            Ok((socket, bound)) => {
                number = bound;
                let is_udp = port.protocol == "udp";
                doors.push(Door {
                    socket,
                    is_v6: address.is_ipv6(),
                    container_port: port.container_port,
                    datagrams: is_udp.then(Datagrams::default),
                });
            }
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if addresses.len() > 1 && address.is_ipv6() => {}
            // A kernel that does not speak sctp itself can still lead it on.
            Err(Errno::PROTONOSUPPORT) if port.protocol == "sctp" && number != 0 => {}
            Err(error) => return Err((error, *address)),
        }
    }
    Ok((number, doors))
}

/// A free port that everybody may have, for one that only root may: 80 -> 8080, 443 -> 8443.
fn free_port(addresses: &[IpAddr], wanted: u16, port: &Port) -> u16 {
    let first = wanted.saturating_add(8000);
    (first..first + 200).find(|number| bind_all(addresses, *number, port).is_ok()).unwrap_or(first)
}

fn bind(at: SocketAddr, protocol: &str) -> Result<(OwnedFd, u16), Errno> {
    let family = if at.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let (kind, protocol) = match protocol {
        "udp" => (SocketType::DGRAM, None),
        "sctp" => (SocketType::STREAM, Some(rustix::net::ipproto::SCTP)),
        _ => (SocketType::STREAM, None),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, protocol)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        // Connections that ended a moment ago do not keep a port; one that is listened at is still had by one alone.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &at)?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, 128)?;
    }
    let bound =
        SocketAddr::try_from(rustix::net::getsockname(&socket)?).map_or(at.port(), |bound| bound.port());
    Ok((socket, bound))
}

/// A socket for each port of a long range needs more descriptors than a process has unasked.
fn make_room(n: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < n as u64) {
        let wanted = limit.maximum.map_or(n as u64, |maximum| maximum.min(n as u64));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}
