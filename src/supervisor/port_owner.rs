//! Who has a port of this machine: a container of ours, or a process. For an error that is told once, so all is looked at.

use std::net::IpAddr;

use crate::fs;
use crate::store::Store;
use crate::store::container::{self, ContainerDir};
use crate::store::network::wired;

/// `container web`, or `process 123 (nginx)`.
pub fn of(store: &Store, protocol: &str, address: IpAddr, port: u16) -> Option<String> {
    of_container(store, protocol, address, port).or_else(|| of_process(protocol, port))
}

fn of_container(store: &Store, protocol: &str, address: IpAddr, port: u16) -> Option<String> {
    for id in container::ids(store).ok()? {
        let dir = ContainerDir::of(store, &id);
        let Ok(Some(wired)) = wired::read(&dir) else { continue };
        let is_it = |p: &crate::endpoint::Published| {
            let overlaps = p.address().is_none_or(|own| address.is_unspecified() || own == address);
            p.protocol == protocol && p.host_port == port && overlaps
        };
        if wired.ports.iter().any(is_it) && dir.status().is_ok_and(|status| status.is_alive()) {
            return Some(format!("container {}", wired.name));
        }
    }
    None
}

/// By the socket's inode: /proc/net says which one it is, and /proc/PID/fd who has it open.
fn of_process(protocol: &str, port: u16) -> Option<String> {
    let inodes: Vec<String> = [protocol.to_owned(), format!("{protocol}6")]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/net/{table}").as_ref()).ok())
        .flat_map(|text| {
            let inodes = text.lines().filter_map(|line| inode_of(line, protocol, port));
            inodes.map(|inode| format!("socket:[{inode}]")).collect::<Vec<_>>()
        })
        .collect();
    if inodes.is_empty() {
        return None;
    }
    for pid in fs::read_dir("/proc".as_ref()).ok()? {
        let Some(pid) = pid.to_str().filter(|pid| pid.bytes().all(|b| b.is_ascii_digit())) else { continue };
        let dir = std::path::Path::new("/proc").join(pid).join("fd");
        for fd in fs::read_dir(&dir).unwrap_or_default() {
            let Ok(Some(target)) = fs::read_link(&dir.join(fd)) else { continue };
            if inodes.iter().any(|inode| target.as_os_str() == inode.as_str()) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm").as_ref()).unwrap_or_default();
                return Some(format!("process {pid} ({})", name.trim()));
            }
        }
    }
    None
}

/// The inode in a line of /proc/net/tcp or udp, if it is a socket that is bound to the port, and no connection.
fn inode_of<'l>(line: &'l str, protocol: &str, port: u16) -> Option<&'l str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let local = words.get(1)?.rsplit_once(':')?.1;
    let is_open = if protocol == "tcp" { *words.get(3)? == "0A" } else { true };
    (is_open && u16::from_str_radix(local, 16).ok()? == port).then(|| words.get(9).copied()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let check = |line: &str, protocol: &str, want: Option<&str>| {
            assert_eq!(inode_of(line, protocol, 8080), want, "{line}");
        };
        let tcp = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1 0 100 0 0 10 0";
        check(tcp, "tcp", Some("31337"));
        check(&tcp.replace(" 0A ", " 01 "), "tcp", None);
        check(&tcp.replace("1F90", "1F91"), "tcp", None);
        check(&tcp.replace(" 0A ", " 07 "), "udp", Some("31337"));
        check("  sl  local_address rem_address   st", "tcp", None);
        check("", "tcp", None);
    }
}
