//! What the packet socket in the exchange hears: the first packets of connections that containers want to make.

use super::BACK;

/// Codes of classic BPF (linux/bpf_common.h).
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// From where the index says.
const LOAD_BYTE_AT: u16 = 0x50;
/// The index: four times the low half of a byte, which is how long an IPv4 header is.
const LOAD_HEADER: u16 = 0xb1;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
/// SKF_AD_OFF + SKF_AD_PKTTYPE: 0 for what came to this machine.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;

/// SYN without ACK, in IPv4 and IPv6, that came in and was not put back by us.
pub fn first_packets() -> Vec<libc::sock_filter> {
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // The last two lines, which all others leap to.
    const NO: u8 = 19;
    let no = |from: u8| NO - from - 1;
    vec![
        line(LOAD_WORD, 0, 0, PACKET_TYPE),
        line(IF_EQUAL, 0, no(1), 0),
        line(LOAD_BYTE, 0, 0, 6),
        line(IF_EQUAL, no(3), 0, u32::from(BACK)),
        line(LOAD_HALF, 0, 0, 12),
        line(IF_EQUAL, 0, 7, 0x0800),
        // IPv4: TCP, no later fragment; flags behind the header.
        line(LOAD_BYTE, 0, 0, 14 + 9),
        line(IF_EQUAL, 0, no(7), libc::IPPROTO_TCP as u32),
        line(LOAD_HALF, 0, 0, 14 + 6),
        line(IF_SET, no(9), 0, 0x1fff),
        line(LOAD_HEADER, 0, 0, 14),
        line(LOAD_BYTE_AT, 0, 0, 14 + 13),
        line(JUMP, 0, 0, 4),
        // IPv6.
        line(IF_EQUAL, 0, no(13), 0x86dd),
        line(LOAD_BYTE, 0, 0, 14 + 6),
        line(IF_EQUAL, 0, no(15), libc::IPPROTO_TCP as u32),
        line(LOAD_BYTE, 0, 0, 14 + 40 + 13),
        line(AND, 0, 0, 0x12),
        line(IF_EQUAL, 1, 0, 0x02),
        line(RETURN, 0, 0, 0),
        line(RETURN, 0, 0, 0x1_0000),
    ]
}
