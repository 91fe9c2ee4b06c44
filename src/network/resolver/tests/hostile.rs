//! Whatever bytes come, there is an answer in bounds, and no panic.

use simple_dns::{Packet, TYPE};

use super::super::message::{self, Code, Read};
use super::*;

/// Numbers that look random and are the same each time (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }
}

fn real_messages() -> Vec<Vec<u8>> {
    let mut messages = vec![
        query("web", TYPE::A, None),
        query("pool.front", TYPE::AAAA, Some(1232)),
        query("2.0.1.10.in-addr.arpa", TYPE::PTR, Some(4096)),
        query(&format!("2{}.1.0.d.f.ip6.arpa", ".0".repeat(27)), TYPE::PTR, None),
        query(
            &["x".repeat(63), "y".repeat(63), "z".repeat(63), "w".repeat(61)].join("."),
            TYPE::TXT,
            Some(512),
        ),
        query("db", TYPE::HTTPS, Some(65535)),
    ];
    let replies: Vec<Vec<u8>> = messages
        .iter()
        .filter_map(|m| match answer(m, &records(), DATAGRAM, &mut is_alive) {
            Answer::Reply(reply) => Some(reply),
            _ => None,
        })
        .collect();
    messages.extend(replies);
    messages
}

/// What must hold of any message.
fn check_any(bytes: &[u8], records: &Records) {
    for asked in [DATAGRAM, Asked { by_stream: true, may_forward: false, turn: usize::MAX }] {
        if let Answer::Reply(reply) = answer(bytes, records, asked, &mut is_alive) {
            assert!(reply.len() >= 12 && reply[..2] == bytes[..2] && reply[2] & 0x80 != 0, "{bytes:x?}");
            assert!(asked.by_stream || reply.len() <= message::LARGEST_DATAGRAM);
            // A reply to us would be none to answer: two resolvers never talk for ever.
            assert_eq!(answer(&reply, records, asked, &mut is_alive), Answer::Nothing);
        }
    }
    let _ = message::is_reply_to(bytes, &query("web", TYPE::A, None));
    let _ = message::is_reply_to(&query("web", TYPE::A, None), bytes);
    let _ = message::room(bytes);
    let refusal = message::refusal(bytes, Code::ServerFailure);
    assert!(refusal.len() >= 12 && message::code_of(&refusal) == 2);
}

#[test]
fn every_prefix_and_every_single_byte() {
    let records = records();
    for message in real_messages() {
        for end in 0..=message.len() {
            check_any(&message[..end], &records);
        }
        for at in 0..message.len() {
            for value in [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff] {
                let mut changed = message.clone();
                changed[at] = value;
                check_any(&changed, &records);
            }
        }
    }
}

#[test]
fn thousands_of_mutations() {
    let (messages, records) = (real_messages(), records());
    let mut random = Random(5);
    for _ in 0..40_000 {
        let mut bytes = messages[random.next(messages.len())].clone();
        for _ in 0..=random.next(6) {
            let at = random.next(bytes.len().max(1));
            match random.next(5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random.next(8),
                1 if at < bytes.len() => bytes[at] = random.next(256) as u8,
                2 => bytes.truncate(at),
                3 => bytes.insert(at.min(bytes.len()), random.next(256) as u8),
                _ => {
                    let other = &messages[random.next(messages.len())];
                    bytes.extend_from_slice(&other[random.next(other.len())..]);
                }
            }
        }
        check_any(&bytes, &records);
    }
}

/// What simple-dns takes for a query with one question is one to us as well, with the same name and type.
#[test]
fn our_reader_agrees_with_simple_dns() {
    let messages = real_messages();
    let mut random = Random(7);
    let mut n_compared = 0;
    for _ in 0..20_000 {
        let mut bytes = messages[random.next(messages.len())].clone();
        let at = random.next(bytes.len());
        bytes[at] = random.next(256) as u8;
        let Ok(packet) = Packet::parse(&bytes) else { continue };
        let [question] = &packet.questions[..] else { continue };
        let Read::Query(ours) = message::read(&bytes) else { continue };
        let labels: Vec<&[u8]> = question.qname.as_bytes().collect();
        if labels.iter().any(|label| label.contains(&b'.')) {
            assert_eq!(ours.name, None);
            continue;
        }
        n_compared += 1;
        assert_eq!(ours.name, Some(labels.join(&b'.').to_ascii_lowercase()));
        assert_eq!(ours.kind, u16::from(question.qtype));
        assert_eq!(ours.edns.is_some(), packet.opt().is_some(), "{bytes:x?}");
    }
    assert!(n_compared > 5_000, "{n_compared}");
}

#[test]
fn what_is_no_query_is_refused_or_ignored() {
    let good = query("web", TYPE::A, None);
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        answer(&bytes, &records(), DATAGRAM, &mut is_alive)
    };
    let code = |answer| match answer {
        Answer::Reply(reply) => i32::from(message::code_of(&reply)),
        _ => -1,
    };
    assert_eq!(changed(2, 0x80), Answer::Nothing, "a reply");
    assert_eq!(code(changed(2, 0x28)), 4, "an update");
    assert_eq!(code(changed(5, 0)), 1, "no question");
    assert_eq!(code(changed(5, 2)), 1, "two questions");
    assert_eq!(code(changed(12, 0xc0)), 1, "a pointer in the question");
    assert_eq!(answer(&good[..11], &records(), DATAGRAM, &mut is_alive), Answer::Nothing);
    // A type that nobody knows yet, the reserved bit, and a class of its own: for others to judge.
    let unknown = query("example.com", TYPE::A, None);
    for (at, value) in [(unknown.len() - 3, 0xff), (3, 0x40), (unknown.len() - 1, 3)] {
        let mut bytes = unknown.clone();
        bytes[at] = value;
        assert_eq!(answer(&bytes, &records(), DATAGRAM, &mut is_alive), Answer::Forward);
    }
}
