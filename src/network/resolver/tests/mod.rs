//! Queries and replies are made and read by simple-dns here, which knows nothing of our own reader and writer.

mod forward;
mod hostile;
mod serve;

use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

use super::answer::{Answer, Asked, answer};
use super::{Entry, Known, Records};

/// A query, with EDNS where a size is given.
fn query(name: &str, kind: TYPE, edns: Option<u16>) -> Vec<u8> {
    let mut packet = Packet::new_query(0x1234);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question =
        Question::new(Name::new(name).unwrap(), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    if let Some(udp_packet_size) = edns {
        *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 });
    }
    packet.build_bytes_vec().unwrap()
}

fn entry(id: &str, name: &str, aliases: &[&str], addresses: &[&str]) -> Entry {
    Entry {
        id: id.repeat(64),
        name: name.to_owned(),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

/// Two networks; the entry with the id of f's is dead.
fn records() -> Records {
    let front = vec![
        entry("a", "web", &["www", "Shop"], &["10.1.0.2", "fd01::2"]),
        entry("b", "api.v1", &["pool"], &["10.1.0.3"]),
        entry("c", "api.v2", &["pool"], &["10.1.0.4"]),
        entry("f", "gone", &["pool", "web"], &["10.1.0.9"]),
    ];
    let back = vec![
        entry("a", "web", &[], &["10.2.0.2"]),
        entry("d", "db_1-x", &["datenbank-ü", "with space"], &["10.2.0.3"]),
    ];
    let subnet = |text: &str| text.parse::<crate::subnet::Subnet>().unwrap();
    let mut front = Known::new("front", front);
    front.subnets = vec![subnet("10.1.0.0/24"), subnet("fd01::/64")];
    let mut back = Known::new("back", back);
    (back.subnets, back.is_internal) = (vec![subnet("10.2.0.0/24")], true);
    let link = |alias: &str, target: &str| (alias.to_owned(), target.to_owned());
    let links = vec![
        link("db", "db_1-x"),
        link("web", "web"),
        link("a", "b"),
        link("b", "a"),
        link("lost", "nobody"),
    ];
    Records { networks: vec![front, back], links }
}

fn is_alive(entry: &Entry) -> bool {
    !entry.id.starts_with('f')
}

const DATAGRAM: Asked = Asked { by_stream: false, may_forward: true, turn: 0 };

fn show(answer: &Answer) -> String {
    let bytes = match answer {
        Answer::Reply(bytes) => bytes,
        Answer::Forward => return "forward".to_owned(),
        Answer::Nothing => return "nothing".to_owned(),
    };
    let packet = Packet::parse(bytes).unwrap();
    assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_AVAILABLE));
    assert_eq!(packet.id(), 0x1234);
    let mut words = vec![format!("{:?}", packet.rcode())];
    words.extend(packet.has_flags(PacketFlag::TRUNCATION).then(|| "cut".to_owned()));
    words.extend(packet.answers.iter().map(|record| {
        assert_eq!(record.name.to_string(), packet.questions[0].qname.to_string());
        match &record.rdata {
            RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            other => format!("{other:?}"),
        }
    }));
    words.extend(packet.opt().map(|opt| format!("edns{}", opt.udp_packet_size)));
    words.join(" ")
}

fn check(name: &str, kind: TYPE, want: &str) {
    let got = answer(&query(name, kind, None), &records(), DATAGRAM, &mut is_alive);
    assert_eq!(show(&got), want, "{name} {kind:?}");
}

#[test]
fn names_of_ours_are_answered() {
    check("web", TYPE::A, "NoError 10.1.0.2");
    check("WEB", TYPE::A, "NoError 10.1.0.2");
    check("web", TYPE::AAAA, "NoError fd01::2");
    check("www", TYPE::A, "NoError 10.1.0.2");
    check("sHop", TYPE::A, "NoError 10.1.0.2");
    check("web.front", TYPE::A, "NoError 10.1.0.2");
    check("web.back", TYPE::A, "NoError 10.2.0.2");
    check("www.back", TYPE::A, "forward");
    check("pool", TYPE::A, "NoError 10.1.0.3 10.1.0.4");
    check("api.v1", TYPE::A, "NoError 10.1.0.3");
    check("api.v1.front", TYPE::A, "NoError 10.1.0.3");
    check(&"d".repeat(12), TYPE::A, "NoError 10.2.0.3");
    check("db_1-x", TYPE::A, "NoError 10.2.0.3");
    check("datenbank-ü", TYPE::A, "NoError 10.2.0.3");
    check("with space", TYPE::A, "NoError 10.2.0.3");
    // One that is there is not looked for elsewhere, whatever is asked for.
    check("db_1-x", TYPE::AAAA, "NoError");
    check("web", TYPE::MX, "NoError");
    check("web", TYPE::HTTPS, "NoError");
}

#[test]
fn links_are_followed_and_end() {
    check("db", TYPE::A, "NoError 10.2.0.3");
    check("lost", TYPE::A, "forward");
    check("a", TYPE::A, "forward");
}

#[test]
fn the_dead_and_the_unknown_are_not_ours() {
    check("gone", TYPE::A, "forward");
    check("example.com", TYPE::A, "forward");
    check("example.com", TYPE::HTTPS, "forward");
    check("front", TYPE::A, "forward");
    let inside = Asked { may_forward: false, ..DATAGRAM };
    let got = answer(&query("example.com", TYPE::A, None), &records(), inside, &mut is_alive);
    assert_eq!(show(&got), "NameError");
}

#[test]
fn addresses_have_names() {
    check("2.0.1.10.in-addr.arpa", TYPE::PTR, "NoError web.front");
    check("3.0.2.10.IN-ADDR.arpa", TYPE::PTR, "NoError db_1-x.back");
    check("2.0.1.10.in-addr.arpa", TYPE::A, "NoError");
    let v6 = format!("2{}.1.0.d.f.ip6.arpa", ".0".repeat(27));
    check(&v6, TYPE::PTR, "NoError web.front");
    // Nobody else knows who has an address of our networks.
    check("77.0.1.10.in-addr.arpa", TYPE::PTR, "NameError");
    check("9.0.1.10.in-addr.arpa", TYPE::PTR, "NameError");
    check("1.0.0.127.in-addr.arpa", TYPE::PTR, "forward");
    check("2.1.10.in-addr.arpa", TYPE::PTR, "forward");
    check("256.0.1.10.in-addr.arpa", TYPE::PTR, "forward");
}

#[test]
fn several_addresses_take_turns() {
    for (turn, want) in [(0, "10.1.0.3 10.1.0.4"), (1, "10.1.0.4 10.1.0.3"), (2, "10.1.0.3 10.1.0.4")] {
        let asked = Asked { turn, ..DATAGRAM };
        let got = answer(&query("pool", TYPE::A, None), &records(), asked, &mut is_alive);
        assert_eq!(show(&got), format!("NoError {want}"));
    }
}

#[test]
fn a_reply_is_as_long_as_the_asker_takes() {
    let many = |n: u32| -> Vec<String> { (0..n).map(|i| format!("10.9.{}.{}", i / 250, i % 250)).collect() };
    let addresses = many(100);
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let known = Known::new("n", vec![entry("a", "many", &[], &addresses)]);
    let records = Records { networks: vec![known], links: Vec::new() };
    let ask = |edns, by_stream| {
        let asked = Asked { by_stream, ..DATAGRAM };
        let got = answer(&query("many", TYPE::A, edns), &records, asked, &mut is_alive);
        let Answer::Reply(bytes) = &got else { panic!("{got:?}") };
        let packet = Packet::parse(bytes).unwrap();
        (bytes.len(), packet.answers.len(), packet.has_flags(PacketFlag::TRUNCATION), packet.opt().is_some())
    };
    let (size, n, is_cut, _) = ask(None, false);
    assert!(size <= 512 && n > 25 && is_cut, "{size} {n} {is_cut}");
    assert!(matches!(ask(Some(100), false), (..=512, 25..30, true, true)));
    assert!(matches!(ask(Some(1232), false), (513..=1232, 70..80, true, true)));
    assert!(matches!(ask(Some(4096), false), (_, 100, false, true)));
    assert!(matches!(ask(None, true), (_, 100, false, false)));
}

/// Byte by byte, once: the question comes back in its own spelling, the record points at it.
#[test]
fn a_reply_to_the_byte() {
    let got = answer(&query("Web", TYPE::A, Some(1232)), &records(), DATAGRAM, &mut is_alive);
    let want = b"\x12\x34\x85\x80\0\x01\0\x01\0\0\0\x01\x03Web\0\0\x01\0\x01\
        \xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04\x0a\x01\0\x02\
        \0\0\x29\x10\0\0\0\0\0\0\0";
    assert_eq!(got, Answer::Reply(want.to_vec()));
}
