//! The keys that a person types to leave a container to itself: parsed as docker writes them, found in what is typed.

use anyhow::{Result, anyhow};

use crate::error::ResultExt;

/// A sequence of keys, and how much of it was typed so far.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl Default for DetachKeys {
    /// Ctrl-P Ctrl-Q.
    fn default() -> DetachKeys {
        DetachKeys { keys: vec![0x10, 0x11], matched: 0 }
    }
}

impl DetachKeys {
    /// None: all that is typed is the program's.
    pub fn none() -> DetachKeys {
        DetachKeys { keys: Vec::new(), matched: 0 }
    }

    /// Keys with commas in between, each a character or `ctrl-` and one of `a-z @ [ \ ] ^ _`; an empty text for none.
    pub fn parse(text: &str) -> Result<DetachKeys> {
        if text.is_empty() {
            return Ok(DetachKeys::none());
        }
        let key = |word: &str| match (word.strip_prefix("ctrl-").map(str::as_bytes), word.as_bytes()) {
            (Some([c @ (b'a'..=b'z')]), _) => Some(c - b'a' + 1),
            (Some([c @ (b'@' | b'['..=b'_')]), _) => Some(c - b'@'),
            (None, [c]) if c.is_ascii() => Some(*c),
            _ => None,
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        let keys = keys.ok_or_else(|| anyhow!("cannot use the detach keys {text:?}"));
        Ok(DetachKeys { keys: keys.hint("write them as ctrl-p,ctrl-q")?, matched: 0 })
    }

    /// What of `typed` goes to the program; `None` once the keys are complete.
    pub fn filter(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        if self.keys.is_empty() {
            return Some(typed.to_owned());
        }
        let mut pass = Vec::with_capacity(typed.len() + self.keys.len());
        for byte in typed {
            // What was held back and is not the beginning after all goes first; a shorter beginning may be left of it.
            while self.matched > 0 && self.keys[self.matched] != *byte {
                let shorter = (0..self.matched)
                    .rev()
                    .find(|n| self.keys[..*n] == self.keys[self.matched - n..self.matched])
                    .unwrap_or(0);
                pass.extend_from_slice(&self.keys[..self.matched - shorter]);
                self.matched = shorter;
            }
            if self.keys[self.matched] != *byte {
                pass.push(*byte);
                continue;
            }
            self.matched += 1;
            if self.matched == self.keys.len() {
                self.matched = 0;
                return None;
            }
        }
        Some(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_across_reads_and_nothing_else_is_lost() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"ab\x10").unwrap(), b"ab");
        assert_eq!(keys.filter(b"c\x10\x10").unwrap(), b"\x10c\x10");
        assert_eq!(keys.filter(b"\x11"), None);
        let mut keys = DetachKeys::parse("a,a,b").unwrap();
        assert_eq!(keys.filter(b"xaac").unwrap(), b"xaac");
        assert_eq!(keys.filter(b"aaa").unwrap(), b"a");
        assert_eq!(keys.filter(b"b"), None);
        assert_eq!(DetachKeys::none().filter(b"\x10\x11").unwrap(), b"\x10\x11");
    }

    #[test]
    fn keys_are_written_as_docker_has_them() {
        let keys = |text: &str| DetachKeys::parse(text).ok().map(|k| k.keys);
        for (text, want) in [
            ("ctrl-p,ctrl-q", Some(vec![16, 17])),
            ("a", Some(vec![b'a'])),
            ("ctrl-@,ctrl-[,ctrl-_", Some(vec![0, 27, 31])),
            ("", Some(vec![])),
            ("ctrl-", None),
            ("ctrl-A", None),
            ("ab", None),
            ("a,", None),
            ("\u{e4}", None),
        ] {
            assert_eq!(keys(text), want, "{text:?}");
        }
    }
}
