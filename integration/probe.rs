//! The probe: prints as JSON what the process that it is sees. Linked statically and put into the test images, so that a
//! test asks from inside a container instead of reading other programs' output.
//!
//! `probe` prints everything; `probe exit N` ends with N; `probe kill N` ends by signal N; `probe fill MIB` touches that
//! much memory and then waits; `probe tcp`, `udp`, `crowd`, `flood`, `serve`: see `probe_net`; `probe syscall NUMBER ARG...`
//! makes one system call and prints its errno; `probe dns NAME TYPE [tcp|own]` asks the first server of resolv.conf and
//! prints what it says: the code, then the answers.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    unsafe_code,
    reason = "not part of dhow: a program inside test images"
)]

mod probe_net;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |n: usize| args.get(n).and_then(|a| a.parse::<i64>().ok()).unwrap_or(0);
    match args.get(1).map(String::as_str) {
        Some("exit") => std::process::exit(number(2) as i32),
        Some("kill") => {
            let signal = rustix::process::Signal::from_named_raw(number(2) as i32).unwrap();
            rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
        }
        Some("fill") => fill(number(2) as usize),
        Some(_) if probe_net::run(&args[1..].iter().map(String::as_str).collect::<Vec<_>>()) => {}
        Some("syscall") => syscall(number(2), [number(3), number(4), number(5), number(6)]),
        Some("dns") => println!("{}", dns(&args[2..])),
        _ => println!("{:#}", everything()),
    }
}

fn everything() -> Value {
    let status = status();
    let field = |name: &str| status.get(name).cloned().unwrap_or_default();
    let numbers = |name: &str| -> Vec<u32> { field(name).split_whitespace().flat_map(str::parse).collect() };
    let link = |path: &str| fs::read_link(path).map(|p| p.display().to_string()).unwrap_or_default();
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    json!({
        "pid": std::process::id(),
        "uids": numbers("Uid"),
        "gids": numbers("Gid"),
        "groups": numbers("Groups"),
        "uid_map": text("/proc/self/uid_map").split_whitespace().collect::<Vec<_>>(),
        "caps": { "inheritable": field("CapInh"), "permitted": field("CapPrm"), "effective": field("CapEff"),
            "bounding": field("CapBnd"), "ambient": field("CapAmb") },
        "seccomp": field("Seccomp"),
        "no_new_privs": field("NoNewPrivs"),
        "umask": field("Umask"),
        "args": std::env::args().collect::<Vec<_>>(),
        "env": std::env::vars().collect::<BTreeMap<_, _>>(),
        "cwd": std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default(),
        "hostname": text("/proc/sys/kernel/hostname").trim(),
        "limits": limits(),
        "mounts": text("/proc/self/mountinfo").lines().map(mount).collect::<Vec<_>>(),
        "fds": fds(),
        "namespaces": namespaces(),
        "cgroup": text("/proc/self/cgroup").lines().collect::<Vec<_>>(),
        "tty": rustix::termios::tcgetwinsize(std::io::stdin()).ok().map(|s| json!([s.ws_row, s.ws_col])),
        "session": session(),
        "interfaces": names("/sys/class/net"),
        "dev": devices(),
        "oom_score_adj": text("/proc/self/oom_score_adj").trim(),
        "exe": link("/proc/self/exe"),
    })
}

/// Read and not asked for: the session's leader may be outside of our pid name space, and then it is 0, which is no pid.
fn session() -> i32 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().nth(3).and_then(|f| f.parse().ok()).unwrap_or(0)
}

fn status() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect()
}

fn limits() -> BTreeMap<String, [String; 2]> {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = |l: &str| {
        let mut values = l.get(26..)?.split_whitespace();
        Some((l.get(..26)?.trim().to_owned(), [values.next()?.to_owned(), values.next()?.to_owned()]))
    };
    text.lines().skip(1).filter_map(line).collect()
}

fn mount(line: &str) -> Value {
    let (left, right) = line.split_once(" - ").unwrap_or((line, ""));
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let at = |fields: &[&str], n: usize| fields.get(n).copied().unwrap_or_default().to_owned();
    json!({ "root": at(&left, 3), "at": at(&left, 4), "options": at(&left, 5), "propagation": left.get(6..),
        "type": at(&right, 0), "source": at(&right, 1), "super": at(&right, 2) })
}

/// Open descriptors, without the one that is open to list them.
fn fds() -> BTreeMap<String, String> {
    let mut fds = BTreeMap::new();
    for name in names("/proc/self/fd") {
        let to = fs::read_link(format!("/proc/self/fd/{name}"));
        if let Ok(to) = to.map(|p| p.display().to_string())
            && !to.starts_with(&format!("/proc/{}/fd", std::process::id()))
        {
            fds.insert(name, to);
        }
    }
    fds
}

fn namespaces() -> BTreeMap<String, String> {
    let link = |name: &String| {
        let to = fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
        Some((name.clone(), to.display().to_string()))
    };
    names("/proc/self/ns").iter().filter_map(link).collect()
}

fn devices() -> BTreeMap<String, String> {
    let describe = |name: &String| {
        let path = format!("/dev/{name}");
        let meta = fs::symlink_metadata(&path).ok()?;
        let text = if meta.is_symlink() {
            format!("-> {}", fs::read_link(&path).ok()?.display())
        } else if meta.is_dir() {
            "directory".to_owned()
        } else {
            let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            format!("{:o} {major}:{minor}", meta.mode() & 0o7777)
        };
        Some((name.clone(), text))
    };
    names("/dev").iter().filter_map(describe).collect()
}

fn names(dir: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .map(|d| d.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// Memory that is really there: every page is written.
fn fill(mib: usize) {
    let mut pages = Vec::new();
    for _ in 0..mib {
        pages.push(vec![1u8; 1 << 20]);
    }
    println!("filled {}", pages.len());
    std::thread::park();
}

fn syscall(number: i64, args: [i64; 4]) {
    // SAFETY: the arguments are numbers that the test chose for calls that fail or do nothing.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3]) };
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    println!("{}", if result < 0 { errno } else { 0 });
}

/// One question, one answer; `nobody` where there is none within ten seconds.
fn dns(words: &[String]) -> String {
    use simple_dns::rdata::RData;
    use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, Question, TYPE};
    let kind = match words[1].as_str() {
        "A" => TYPE::A,
        "AAAA" => TYPE::AAAA,
        "PTR" => TYPE::PTR,
        "TXT" => TYPE::TXT,
        other => panic!("{other}"),
    };
    let conf = fs::read_to_string("/etc/resolv.conf").unwrap();
    let server = conf.lines().find_map(|line| line.strip_prefix("nameserver ")).unwrap().trim();
    let mut packet = Packet::new_query(0x4321);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(
        Name::new(&words[0]).unwrap(),
        kind.into(),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    let query = packet.build_bytes_vec().unwrap();
    let own = words.get(2).is_some_and(|word| word == "own");
    let _held = own.then(|| {
        let any = ("0.0.0.0", 53);
        (std::net::UdpSocket::bind(any).unwrap(), std::net::TcpListener::bind(any).unwrap())
    });
    let asked = if words.get(2).is_some_and(|word| word == "tcp") {
        ask_tcp(server, &query)
    } else {
        ask_udp(server, &query)
    };
    let Ok(reply) = asked else { return "nobody".to_owned() };
    let reply = Packet::parse(&reply).unwrap();
    let mut said = vec![format!("{:?}", reply.rcode())];
    let mut answers: Vec<String> = reply
        .answers
        .iter()
        .map(|record| match &record.rdata {
            RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            RData::TXT(_) => "text".to_owned(),
            other => format!("{other:?}"),
        })
        .collect();
    answers.sort();
    said.extend(answers);
    said.join(" ")
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

fn ask_udp(server: &str, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((server, 53))?;
    socket.send(query)?;
    let mut bytes = vec![0; 65_536];
    let n = socket.recv(&mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

fn ask_tcp(server: &str, query: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect((server, 53))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
