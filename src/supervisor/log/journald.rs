//! Logs to the journal of systemd: one datagram an entry, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), with
//! docker's fields.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use super::Stream;
use super::ship::{self, Peer, Ship};
use crate::error::ResultExt;
use crate::fs;
use crate::store::container::{Record, Source};

const SOCKET: &str = "/run/systemd/journal/socket";

/// Whether this machine has a journal.
pub fn check() -> Result<()> {
    let is_there = fs::metadata(Path::new(SOCKET)).is_ok_and(|found| found.is_some());
    if is_there {
        return Ok(());
    }
    Err(anyhow!("this machine has no systemd journal: there is no {SOCKET}"))
        .hint("keep the log here with --log-driver json-file, or use --log-driver syslog")
}

/// Connects to the journal.
pub fn open(record: &Record, tag: &str, attributes: BTreeMap<String, String>) -> Result<Ship> {
    check()?;
    let form = Form { head: head(record, tag, &attributes) };
    Ship::open(Peer::UnixDatagram(SOCKET.into()), ship::Form::Journald(form)).context(SOCKET)
}

fn head(record: &Record, tag: &str, attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let image = match &record.source {
        Source::Image { name, .. } => name.clone(),
        Source::Dir { path, .. } => path.display().to_string(),
    };
    let mut head = Vec::new();
    // What a person chose first, so that it cannot stand for what is ours.
    for (key, value) in attributes {
        let key: String = key
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        // The journal takes no name that begins otherwise.
        let is_name = key.starts_with(|c: char| c.is_ascii_uppercase()) && key.len() <= 64;
        let is_ours = key.starts_with("CONTAINER_")
            || ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "IMAGE_NAME"].contains(&key.as_str());
        if is_name && !is_ours {
            field(&mut head, &key, value.as_bytes());
        }
    }
    for (key, value) in [
        ("CONTAINER_ID", record.id.get(..12).unwrap_or(&record.id)),
        ("CONTAINER_ID_FULL", &record.id),
        ("CONTAINER_NAME", &record.name),
        ("CONTAINER_TAG", tag),
        ("IMAGE_NAME", &image),
        ("SYSLOG_IDENTIFIER", tag),
    ] {
        field(&mut head, key, value.as_bytes());
    }
    head
}

/// `KEY=VALUE`, or, where the value could not be told from what follows, its length before it.
fn field(to: &mut Vec<u8>, key: &str, value: &[u8]) {
    to.extend_from_slice(key.as_bytes());
    if value.contains(&b'\n') {
        to.push(b'\n');
        to.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        to.push(b'=');
    }
    to.extend_from_slice(value);
    to.push(b'\n');
}

/// What all entries of a container have in common.
#[derive(Debug)]
pub struct Form {
    head: Vec<u8>,
}

impl Form {
    /// One datagram.
    pub fn message(&self, stream: Stream, is_whole: bool, line: &[u8]) -> Vec<u8> {
        let mut message = self.head.clone();
        field(&mut message, "PRIORITY", if stream == Stream::Out { b"6" } else { b"3" });
        if !is_whole {
            field(&mut message, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        field(&mut message, "MESSAGE", line);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let mut bytes = Vec::new();
        field(&mut bytes, "A", b"b=c");
        field(&mut bytes, "D", b"e\nf");
        assert_eq!(bytes, b"A=b=c\nD\n\x03\0\0\0\0\0\0\0e\nf\n");
        let form = Form { head: b"X=y\n".to_vec() };
        let message = form.message(Stream::Err, false, b"half");
        assert_eq!(message, b"X=y\nPRIORITY=3\nCONTAINER_PARTIAL_MESSAGE=true\nMESSAGE=half\n");
    }
}
