//! Messages of RFC 1035 as a responder sees them: reads the one question of a query, writes a reply to it. Pure.
//!
//! Read by hand and not by simple-dns, because what is forwarded must be let through as it is: that crate refuses query types
//! that it does not know and headers whose reserved bit is set, and makes room for as many records as a hostile header
//! claims. Nothing here makes room by what a message says. In the tests simple-dns reads what is written here.

use std::net::IpAddr;

/// Bytes of a header (RFC 1035, 4.1.1).
const HEADER: usize = 12;

/// What fits into a datagram when a query does not say (RFC 1035, 2.3.4).
pub const DATAGRAM: usize = 512;

/// What we send in one datagram at most, and say that we take (RFC 6891, 6.2.5).
pub const LARGEST_DATAGRAM: usize = 4096;

/// Additional records that are looked through for EDNS.
const MAX_RECORDS: usize = 16;

/// Query types (RFC 1035, 3.2.2; RFC 3596).
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// A name for an address.
    pub const PTR: u16 = 12;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// What EDNS is said by.
    pub const OPT: u16 = 41;
    /// Whatever there is.
    pub const ANY: u16 = 255;
}

/// The class of the internet.
const IN: u16 = 1;

/// What may be said instead of an answer (RFC 1035, 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Here is what there is.
    NoError = 0,
    /// That is no query.
    FormatError = 1,
    /// Nobody could tell.
    ServerFailure = 2,
    /// There is no such name.
    NameError = 3,
    /// We do no such thing.
    NotImplemented = 4,
}

/// A query, read as far as a responder needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// The header and the question.
    head: &'a [u8],
    /// The name: labels in lower case with dots between. `None` where a label has a dot of its own: nobody of ours has such
    /// a name.
    pub name: Option<Vec<u8>>,
    /// What is asked for; see [`kind`].
    pub kind: u16,
    /// The class: the internet's, or any.
    pub is_internet: bool,
    /// EDNS, where the query has it: the size of datagrams it takes, and whether it wants signatures.
    pub edns: Option<(u16, bool)>,
}

/// What a message is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<'a> {
    /// A query with one question.
    Query(Query<'a>),
    /// A query that is refused with this code.
    Refused(Code),
    /// A reply, or too little to say anything to.
    Ignored,
}

/// Reads a message.
pub fn read(message: &[u8]) -> Read<'_> {
    let (Some(flags), Some(n_questions)) = (number(message, 2), number(message, 4)) else {
        return Read::Ignored;
    };
    if message.len() < HEADER || flags & 0x8000 != 0 {
        return Read::Ignored;
    }
    if flags & 0x7800 != 0 {
        return Read::Refused(Code::NotImplemented);
    }
    let question = if n_questions == 1 { name_at(message, HEADER) } else { None };
    let Some((name, end)) = question else { return Read::Refused(Code::FormatError) };
    let (Some(kind), Some(class)) = (number(message, end), number(message, end + 2)) else {
        return Read::Refused(Code::FormatError);
    };
    let n_records: usize = [6, 8, 10].iter().map(|at| usize::from(number(message, *at).unwrap_or(0))).sum();
    let edns = find_edns(message, end + 4, n_records.min(MAX_RECORDS));
    Read::Query(Query {
        head: &message[..end + 4],
        name,
        kind,
        is_internet: matches!(class, IN | kind::ANY),
        edns,
    })
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// A name, and where it ends. A question is the first name of a message: there is nothing yet that a pointer could mean.
fn name_at(message: &[u8], mut at: usize) -> Option<(Option<Vec<u8>>, usize)> {
    let start = at;
    let mut name = Some(Vec::with_capacity(64));
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        let label = message.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        // RFC 1035, 2.3.4: 255 octets with the lengths and the last zero.
        if at - start > 254 {
            return None;
        }
        if label.contains(&b'.') {
            name = None;
        }
        if let Some(name) = &mut name {
            if !name.is_empty() {
                name.push(b'.');
            }
            name.extend(label.iter().map(u8::to_ascii_lowercase));
        }
    }
}

/// Where the name at `at` ends, whatever it is.
fn end_of_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += 1 + length,
        }
    }
}

fn find_edns(message: &[u8], mut at: usize, n_records: usize) -> Option<(u16, bool)> {
    for _ in 0..n_records {
        at = end_of_name(message, at)?;
        if number(message, at)? == kind::OPT {
            return Some((number(message, at + 2)?, number(message, at + 6)? & 0x8000 != 0));
        }
        at += 10 + usize::from(number(message, at + 8)?);
    }
    None
}

impl Query<'_> {
    /// How long a reply in a datagram may be.
    pub fn room(&self) -> usize {
        self.edns.map_or(DATAGRAM, |(size, _)| usize::from(size).clamp(DATAGRAM, LARGEST_DATAGRAM))
    }

    /// The reply that has no records.
    pub fn reply(&self, code: Code) -> Vec<u8> {
        Reply::to(self, code).finish()
    }
}

/// The refusal of a message that could not be read, or whose question was not looked at.
pub fn refusal(message: &[u8], code: Code) -> Vec<u8> {
    match read(message) {
        Read::Query(query) => query.reply(code),
        _ => {
            let mut reply = vec![0; HEADER];
            let n = message.len().min(4);
            reply[..n].copy_from_slice(&message[..n]);
            set_flags(&mut reply, code);
            reply
        }
    }
}

/// Turns a query's header into the one of a reply: opcode, "recursion desired" and "checking disabled" are the asker's.
fn set_flags(reply: &mut [u8], code: Code) {
    reply[2] = 0x80 | (reply[2] & 0x79);
    reply[3] = 0x80 | (reply[3] & 0x10) | code as u8;
}

/// A reply in the making.
#[derive(Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    n_answers: u16,
    edns: Option<(u16, bool)>,
}

impl Reply {
    /// A reply without a record yet.
    pub fn to(query: &Query<'_>, code: Code) -> Reply {
        let mut bytes = Vec::with_capacity(query.head.len() + 64);
        bytes.extend_from_slice(query.head);
        set_flags(&mut bytes, code);
        // We are who knows these names (RFC 1035, 4.1.1: AA).
        if matches!(code, Code::NoError | Code::NameError) {
            bytes[2] |= 0x04;
        }
        bytes[6..HEADER].fill(0);
        Reply { bytes, n_answers: 0, edns: query.edns }
    }

    /// Adds an address of the name that was asked for.
    pub fn add_address(&mut self, address: IpAddr, seconds: u32) {
        match address {
            IpAddr::V4(address) => self.add(kind::A, seconds, &address.octets()),
            IpAddr::V6(address) => self.add(kind::AAAA, seconds, &address.octets()),
        }
    }

    /// Adds a name of the address that was asked for; one that cannot be written is left out.
    pub fn add_name(&mut self, name: &str, seconds: u32) {
        let mut data = Vec::with_capacity(name.len() + 2);
        for label in name.split('.') {
            let Some(length) = u8::try_from(label.len()).ok().filter(|n| (1..64).contains(n)) else { return };
            data.push(length);
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        if data.len() <= 255 {
            self.add(kind::PTR, seconds, &data);
        }
    }

    fn add(&mut self, kind: u16, seconds: u32, data: &[u8]) {
        let Ok(length) = u16::try_from(data.len()) else { return };
        // The name is the question's: a pointer to just behind the header (RFC 1035, 4.1.4).
        self.bytes.extend_from_slice(&[0xc0, HEADER as u8]);
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&IN.to_be_bytes());
        self.bytes.extend_from_slice(&seconds.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(data);
        self.n_answers = self.n_answers.saturating_add(1);
    }

    /// How long it will be if one address more is added.
    pub fn len_with_address(&self) -> usize {
        // The record of an IPv6 address: name, type, class, time, length, address.
        self.bytes.len() + 28 + self.edns.map_or(0, |_| 11)
    }

    /// Says that this is not all, and that the rest is to be had by TCP.
    pub fn cut(&mut self) {
        self.bytes[2] |= 0x02;
    }

    /// The message. Who asked with EDNS is answered with it (RFC 6891, 6.1.1), and told its "DO" bit back (RFC 3225, 3).
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[6..8].copy_from_slice(&self.n_answers.to_be_bytes());
        if let Some((_, wants_signatures)) = self.edns {
            self.bytes[11] = 1;
            self.bytes.push(0);
            self.bytes.extend_from_slice(&kind::OPT.to_be_bytes());
            self.bytes.extend_from_slice(&(LARGEST_DATAGRAM as u16).to_be_bytes());
            self.bytes.extend_from_slice(&[0, 0, if wants_signatures { 0x80 } else { 0 }, 0, 0, 0]);
        }
        self.bytes
    }
}

/// How long a datagram who asked takes, as it said itself.
pub fn room(query: &[u8]) -> usize {
    match read(query) {
        Read::Query(Query { edns: Some((size, _)), .. }) => usize::from(size).max(DATAGRAM),
        _ => DATAGRAM,
    }
}

/// Whether `reply` is an upstream server's reply to `query`, which was sent with this very id: the question comes back as it
/// was, but for the case of its letters, which some servers change.
pub fn is_reply_to(reply: &[u8], query: &[u8]) -> bool {
    let Read::Query(Query { head, .. }) = read(query) else { return false };
    let is_reply = reply.len() >= HEADER && reply[..2] == head[..2] && reply[2] & 0x80 != 0;
    // Who refuses a query may leave its question out.
    let is_bare = number(reply, 4) == Some(0) && code_of(reply) != 0;
    let question = reply.get(HEADER..head.len());
    is_reply && (is_bare || question.is_some_and(|question| question.eq_ignore_ascii_case(&head[HEADER..])))
}

/// The code of a reply; 0 is "here is what there is".
pub fn code_of(reply: &[u8]) -> u8 {
    reply.get(3).map_or(0, |flags| flags & 0x0f)
}
