//! Who has a port of the host, and which one is free.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use crate::fs;

/// The process that has the port, as far as we may see: `nginx (pid 12)`.
pub fn process_of(port: u16, is_udp: bool) -> Option<String> {
    let tables: [&str; 2] =
        if is_udp { ["/proc/net/udp", "/proc/net/udp6"] } else { ["/proc/net/tcp", "/proc/net/tcp6"] };
    let sockets: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(Path::new(table)).ok())
        .flat_map(|text| inodes(&text, port, is_udp))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir(Path::new("/proc")).ok()?;
    processes.iter().filter_map(|name| name.to_str()?.parse::<u32>().ok()).find_map(|pid| {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let has = |fd: &std::ffi::OsString| {
            let link = fs::read_link(&dir.join("fd").join(fd)).ok().flatten();
            link.is_some_and(|link| sockets.iter().any(|socket| link == Path::new(socket)))
        };
        fs::read_dir(&dir.join("fd")).ok()?.iter().find(|fd| has(fd))?;
        let name = fs::read_to_string(&dir.join("comm")).ok()?;
        Some(format!("{} (pid {pid})", name.trim()))
    })
}

/// Inode numbers of the sockets that are bound to the port and listen (proc(5), /proc/net/tcp).
fn inodes(table: &str, port: u16, is_udp: bool) -> Vec<String> {
    let listens = if is_udp { "07" } else { "0A" };
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bound = u16::from_str_radix(words.get(1)?.rsplit(':').next()?, 16).ok()?;
        (bound == port && *words.get(3)? == listens).then(|| words.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// A free port that everybody may have, for one that only root may: 80 -> 8080, 443 -> 8443, 22 -> 2222.
pub fn free_port(wanted: u16, is_udp: bool) -> u16 {
    let is_free = |port: &u16| {
        let address = (Ipv4Addr::UNSPECIFIED, *port);
        if is_udp { UdpSocket::bind(address).is_ok() } else { TcpListener::bind(address).is_ok() }
    };
    let first = match wanted {
        22 => 2222,
        port if port < 1000 => 8000 + port,
        port => 10_000 + port,
    };
    (first..first.saturating_add(200)).find(is_free).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = process_of(port, false).unwrap();
        assert!(found.ends_with(&format!("(pid {})", std::process::id())), "{found}");
        drop(listener);
        assert_eq!(process_of(port, false), None);
    }

    #[test]
    fn tables_are_read_and_nonsense_is_left() {
        let line = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0";
        assert_eq!(inodes(&format!("head\n{line}\n"), 8080, false), ["77"]);
        assert!(inodes(&format!("head\n{line}\n"), 8081, false).is_empty());
        for length in 0..line.len() {
            inodes(&format!("head\n{}", &line[..length]), 8080, false);
        }
    }

    #[test]
    fn a_free_port_looks_like_the_one_wanted() {
        assert!((8080..8280).contains(&free_port(80, false)));
        assert!((2222..2422).contains(&free_port(22, false)));
    }
}
