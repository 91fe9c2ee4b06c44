//! What is said to a query, as far as we know it ourselves. Pure.

use std::net::IpAddr;

use super::message::{self, Code, Query, Read, Reply, kind};
use super::records::{Entry, Records, reversed};

/// How long an answer may be kept, in seconds: a container that is replaced is found at once.
const TTL: u32 = 1;

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These bytes are the reply.
    Reply(Vec<u8>),
    /// The resolvers of the machine are to be asked, with these very bytes.
    Forward,
    /// Nothing is said.
    Nothing,
}

/// How a query came, and what holds for who asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// By TCP: any reply fits.
    pub by_stream: bool,
    /// Others may be asked: the container is on a network that leads outside.
    pub may_forward: bool,
    /// Which one of several addresses is the first.
    pub turn: usize,
}

/// Answers the query `message`, or says what is to become of it. `is_alive` tells whether a container is to be counted.
pub fn answer(
    message: &[u8],
    records: &Records,
    asked: Asked,
    is_alive: &mut dyn FnMut(&Entry) -> bool,
) -> Answer {
    let query = match message::read(message) {
        Read::Query(query) => query,
        Read::Refused(code) => return Answer::Reply(message::refusal(message, code)),
        Read::Ignored => return Answer::Nothing,
    };
    if let Some(reply) = own(&query, records, asked, is_alive) {
        return Answer::Reply(reply);
    }
    if asked.may_forward { Answer::Forward } else { Answer::Reply(query.reply(Code::NameError)) }
}

/// The reply to a query for something that we know.
fn own(
    query: &Query<'_>,
    records: &Records,
    asked: Asked,
    is_alive: &mut dyn FnMut(&Entry) -> bool,
) -> Option<Vec<u8>> {
    let name = query.name.as_ref().filter(|_| query.is_internet)?;
    let mut reply = Reply::to(query, Code::NoError);
    if let Some(address) = reversed(name) {
        let name = records.name_of(address, is_alive)?;
        if name.is_empty() {
            return Some(query.reply(Code::NameError));
        }
        if matches!(query.kind, kind::PTR | kind::ANY) {
            reply.add_name(&name, TTL);
        }
        return Some(reply.finish());
    }
    let found = records.find(name, is_alive);
    if found.is_empty() {
        return None;
    }
    // A name of ours that has no address of this kind, or is asked for anything else, is there all the same: were that
    // forwarded, others would say that there is no such name, and be believed.
    let is_wanted = |address: &&IpAddr| match query.kind {
        kind::A => address.is_ipv4(),
        kind::AAAA => address.is_ipv6(),
        kind::ANY => true,
        _ => false,
    };
    let mut addresses: Vec<IpAddr> =
        found.iter().flat_map(|entry| &entry.addresses).filter(is_wanted).copied().collect();
    if !addresses.is_empty() {
        let first = asked.turn % addresses.len();
        addresses.rotate_left(first);
    }
    let room = if asked.by_stream { usize::from(u16::MAX) } else { query.room() };
    for address in addresses {
        if reply.len_with_address() > room {
            // What fits is there for those who never ask by TCP.
            reply.cut();
            break;
        }
        reply.add_address(address, TTL);
    }
    Some(reply.finish())
}
