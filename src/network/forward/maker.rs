//! A thread of this process that lives in the exchange and makes sockets there, and in the shared name space: a socket
//! belongs to the name space that its maker is in, and no thread of a user can come back to the host's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result, anyhow};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, sockopt};

use super::exchange::{self, INNER, OUT, Spaces};
use super::netlink::{Family, socket as netlink};
use super::relay::prepared;
use super::{INDEX, LISTEN, MARK, MARK_LONG, filter};
use crate::sys::inet::{packet_socket, set_option};
use crate::sys::process;

/// So many sockets are made at once.
const BATCH: usize = 16;

enum Wanted {
    Streams { is_v6: bool },
    Place,
}

/// The sockets that are there from the start. Of two, the second is of IPv6; where that is not there, there is one.
#[derive(Debug)]
pub struct Made {
    /// The shared name space.
    pub shared: OwnedFd,
    /// Hears the first packets of connections in the exchange.
    pub syn: OwnedFd,
    /// In the shared name space: puts such a packet back on its way.
    pub back: OwnedFd,
    /// Accept the connections of containers.
    pub listeners: Vec<OwnedFd>,
    /// Receive the datagrams of containers.
    pub datagrams: Vec<OwnedFd>,
    /// Hear what containers send by ICMP.
    pub echoes: Vec<OwnedFd>,
    /// Send packets to containers, header and all, from any address.
    pub raw: Vec<OwnedFd>,
    /// Sends datagrams of IPv6 from any address, divided as every network takes them; none where there is no IPv6.
    pub pieces: Option<OwnedFd>,
}

/// Our end of the thread.
#[derive(Debug)]
pub struct Maker {
    wanted: Sender<Wanted>,
    made: Receiver<Result<Vec<OwnedFd>>>,
    streams: [Vec<OwnedFd>; 2],
}

impl Maker {
    /// Starts the thread, which makes the exchange first; see [`exchange::make`].
    pub fn start(shared: Option<OwnedFd>) -> Result<(Maker, Made)> {
        let (wanted, hear) = channel();
        let (tell, made) = channel();
        let (tell_first, first) = channel();
        let work = move || {
            let spaces = exchange::make(shared).and_then(|spaces| Ok((first_sockets(&spaces)?, spaces)));
            match spaces {
                Ok((made, spaces)) => {
                    if tell_first.send(Ok(made)).is_ok() {
                        serve(&spaces, &hear, &tell);
                    }
                }
                Err(error) => drop(tell_first.send(Err(error))),
            }
        };
        std::thread::Builder::new()
            .name("exchange".to_owned())
            .stack_size(256 << 10)
            .spawn(work)
            .context("cannot start a thread")?;
        let first = first.recv().context("the thread for sockets ended")??;
        Ok((Maker { wanted, made, streams: [Vec::new(), Vec::new()] }, first))
    }

    fn ask(&self, wanted: Wanted) -> Result<Vec<OwnedFd>> {
        let gone = || anyhow!("the thread for sockets ended");
        self.wanted.send(wanted).map_err(|_| gone())?;
        self.made.recv().map_err(|_| gone())?
    }

    /// A TCP socket in the exchange, not waiting, that may have any address.
    pub fn stream(&mut self, is_v6: bool) -> Result<OwnedFd> {
        let n = usize::from(is_v6);
        if self.streams[n].is_empty() {
            self.streams[n] = self.ask(Wanted::Streams { is_v6 })?;
        }
        self.streams[n].pop().context("no socket was made")
    }

    /// Two netlink sockets in the shared name space, for links and for rules.
    pub fn place(&self) -> Result<[OwnedFd; 2]> {
        self.ask(Wanted::Place)?.try_into().map_err(|_| anyhow!("no sockets were made"))
    }
}

/// What the thread does for the rest of its life.
fn serve(spaces: &Spaces, hear: &Receiver<Wanted>, tell: &Sender<Result<Vec<OwnedFd>>>) {
    while let Ok(wanted) = hear.recv() {
        let made = match wanted {
            Wanted::Streams { is_v6 } => (0..BATCH).map(|_| transparent(is_v6, SocketType::STREAM)).collect(),
            Wanted::Place => {
                in_shared(spaces, || Ok(vec![netlink(Family::Route)?, netlink(Family::Netfilter)?]))
            }
        };
        if tell.send(made).is_err() {
            return;
        }
    }
}

/// Does something in the shared name space.
fn in_shared<T>(spaces: &Spaces, work: impl FnOnce() -> Result<T>) -> Result<T> {
    process::join_namespaces(&spaces.shared, libc::CLONE_NEWNET).context("cannot join the shared network")?;
    let done = work();
    process::join_namespaces(&spaces.exchange, libc::CLONE_NEWNET).context("cannot join the exchange")?;
    done
}

fn first_sockets(spaces: &Spaces) -> Result<Made> {
    let versions: &[bool] = if spaces.has_v6 { &[false, true] } else { &[false] };
    let each = |make: fn(bool) -> Result<OwnedFd>| versions.iter().map(|v6| make(*v6)).collect::<Result<_>>();
    let back = in_shared(spaces, || {
        let any = netlink(Family::Route)?;
        let out = rustix::net::netdevice::name_to_index(&any, OUT).context("cannot find our link")?;
        packet_socket(out, &[]).context("cannot make a packet socket")
    })?;
    Ok(Made {
        shared: spaces.shared.try_clone().context("cannot copy a descriptor")?,
        syn: packet_socket(INDEX, &filter::first_packets()).context("cannot make a packet socket")?,
        back,
        listeners: each(listener)?,
        datagrams: each(datagrams)?,
        echoes: each(echoes)?,
        raw: each(raw)?,
        pieces: spaces.has_v6.then(pieces).transpose()?,
    })
}

fn family(is_v6: bool) -> AddressFamily {
    if is_v6 { AddressFamily::INET6 } else { AddressFamily::INET }
}

/// A socket that may have, and be spoken to by, any address.
fn transparent(is_v6: bool, kind: SocketType) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let make = || -> io::Result<OwnedFd> {
        let socket = rustix::net::socket_with(family(is_v6), kind, flags, None)?;
        if is_v6 {
            sockopt::set_ipv6_v6only(&socket, true)?;
            set_option(&socket, libc::SOL_IPV6, libc::IPV6_TRANSPARENT, 1)?;
        } else {
            set_option(&socket, libc::SOL_IP, libc::IP_TRANSPARENT, 1)?;
        }
        sockopt::set_socket_reuseaddr(&socket, true)?;
        Ok(socket)
    };
    make().context("cannot make a socket that has any address")
}

fn bound(is_v6: bool, kind: SocketType) -> Result<OwnedFd> {
    let socket = transparent(is_v6, kind)?;
    let any: SocketAddr = if is_v6 { ([0_u16; 8], LISTEN).into() } else { ([0_u8; 4], LISTEN).into() };
    rustix::net::bind(&socket, &any).context("cannot bind a socket")?;
    Ok(socket)
}

fn listener(is_v6: bool) -> Result<OwnedFd> {
    let socket = bound(is_v6, SocketType::STREAM)?;
    prepared(&socket);
    rustix::net::listen(&socket, 4096).context("cannot listen")?;
    Ok(socket)
}

/// Asks to be told where each datagram was sent to.
fn tell_target(socket: OwnedFd, is_v6: bool) -> Result<OwnedFd> {
    let (level, name) = if is_v6 {
        (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR)
    } else {
        (libc::SOL_IP, libc::IP_RECVORIGDSTADDR)
    };
    set_option(&socket, level, name, 1).context("cannot set an option of a socket")?;
    Ok(socket)
}

fn datagrams(is_v6: bool) -> Result<OwnedFd> {
    let socket = tell_target(bound(is_v6, SocketType::DGRAM)?, is_v6)?;
    // Best effort: as much as the machine's limit allows.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, 4 << 20);
    Ok(socket)
}

fn raw_socket(is_v6: bool, protocol: i32) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = u32::try_from(protocol).ok().and_then(std::num::NonZeroU32::new).map(Protocol::from_raw);
    rustix::net::socket_with(family(is_v6), SocketType::RAW, flags, protocol)
        .context("cannot make a raw socket")
}

fn echoes(is_v6: bool) -> Result<OwnedFd> {
    let protocol = if is_v6 { libc::IPPROTO_ICMPV6 } else { libc::IPPROTO_ICMP };
    tell_target(raw_socket(is_v6, protocol)?, is_v6)
}

fn pieces() -> Result<OwnedFd> {
    let socket = raw_socket(true, libc::IPPROTO_UDP)?;
    let about = "cannot set an option of a socket";
    set_option(&socket, libc::SOL_IPV6, libc::IPV6_TRANSPARENT, 1).context(about)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_MARK, MARK_LONG as i32).context(about)?;
    let _ = sockopt::set_socket_send_buffer_size(&socket, 4 << 20);
    // It would hear all datagrams of the exchange otherwise.
    rustix::net::bind(&socket, &SocketAddr::new(INNER[1], 0)).context("cannot bind a socket")?;
    Ok(socket)
}

fn raw(is_v6: bool) -> Result<OwnedFd> {
    let socket = raw_socket(is_v6, libc::IPPROTO_RAW)?;
    let about = "cannot set an option of a socket";
    if is_v6 {
        set_option(&socket, libc::SOL_IPV6, libc::IPV6_HDRINCL, 1).context(about)?;
    }
    set_option(&socket, libc::SOL_SOCKET, libc::SO_MARK, MARK as i32).context(about)?;
    let _ = sockopt::set_socket_send_buffer_size(&socket, 4 << 20);
    Ok(socket)
}
