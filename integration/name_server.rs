//! A name server of the machine, for `--dns`: a thread at port 53 of an address of 127.0.0.0/8 that nobody else has.
//! It knows `example.test` and, with an answer that fits no datagram, `long.test`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use simple_dns::rdata::{A, RData, TXT};
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

/// A server that runs until the tests end.
pub struct NameServer {
    pub address: Ipv4Addr,
}

impl NameServer {
    /// `example.test` is this address. Root alone may start it.
    pub fn start(example: Ipv4Addr) -> NameServer {
        static N: AtomicU8 = AtomicU8::new(1);
        let pid = std::process::id().to_le_bytes();
        let address = Ipv4Addr::new(127, pid[0].max(1), pid[1], N.fetch_add(1, Ordering::Relaxed));
        let udp = UdpSocket::bind((address, 53)).unwrap();
        let tcp = TcpListener::bind((address, 53)).unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok((n, from)) = udp.recv_from(&mut bytes) {
                let _ = udp.send_to(&answer(&bytes[..n], example, false), from);
            }
        });
        thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let mut length = [0; 2];
                let Ok(()) = stream.read_exact(&mut length) else { continue };
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                let Ok(()) = stream.read_exact(&mut query) else { continue };
                let reply = answer(&query, example, true);
                let _ = stream.write_all(&[&(reply.len() as u16).to_be_bytes()[..], &reply].concat());
            }
        });
        NameServer { address }
    }
}

fn answer(query: &[u8], example: Ipv4Addr, is_tcp: bool) -> Vec<u8> {
    let question = Packet::parse(query).unwrap();
    let mut reply = Packet::parse(query).unwrap().into_reply();
    let asked = &question.questions[0];
    let add = |data| ResourceRecord::new(asked.qname.clone(), CLASS::IN, 1, data);
    match (asked.qname.to_string().as_str(), asked.qtype) {
        ("example.test", QTYPE::TYPE(TYPE::A)) => {
            reply.answers.push(add(RData::A(A { address: example.into() })))
        }
        ("example.test", _) => {}
        ("long.test", _) if !is_tcp => reply.set_flags(PacketFlag::TRUNCATION),
        ("long.test", _) => {
            let text = "x".repeat(250);
            for _ in 0..60 {
                reply.answers.push(add(RData::TXT(TXT::new().with_string(&text).unwrap())));
            }
            return reply.build_bytes_vec().unwrap();
        }
        _ => *reply.rcode_mut() = RCODE::NameError,
    }
    reply.build_bytes_vec().unwrap()
}
