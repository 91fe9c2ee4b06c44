//! An archive -> a target: names are names here, also those that mean something in a layer (`.wh.`).

use std::io::{self, Read};

use anyhow::{Context, Result};
use tar_core::parse::Parser;

use crate::oci::Algorithm;

use super::super::entry::{Defaults, Kind};
use super::super::input::{self, Input};
use super::super::unpack::{Found, limits, next};
use super::target::{Content, Target};

/// Extracts an uncompressed tar stream, to its very end.
pub fn extract(tar: impl Read + Send, target: &mut Target) -> Result<()> {
    input::with_input(tar, Algorithm::default(), |input| all(input, target))?;
    target.finish()
}

fn all(input: &mut Input, target: &mut Target) -> Result<()> {
    let mut parser = Parser::new(limits());
    parser.set_ignore_pax_errors(true);
    let mut defaults = Defaults::default();
    loop {
        let (header_size, found) = next(&mut parser, input, &mut defaults)?;
        input.consume(header_size);
        let mut entry = match found {
            Found::Nothing => continue,
            Found::End => return Ok(()),
            Found::Entry(entry) => entry,
        };
        let marked = match entry.kind {
            Kind::Whiteout => Some(&b".wh."[..]),
            Kind::Opaque => Some(&b"/.wh..wh..opq"[..]),
            _ => None,
        };
        match marked {
            Some(suffix @ b"/.wh..wh..opq") => entry.path.extend_from_slice(suffix),
            Some(prefix) => {
                let base = entry.path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
                entry.path.splice(base..base, prefix.iter().copied());
            }
            None => {}
        }
        if marked.is_some() {
            entry.kind = Kind::File;
        }
        let mut body = Body { input, left: entry.payload };
        target.put(&entry, Content::Stream(&mut body))?;
        let rest = body.left;
        let padding = entry.payload.next_multiple_of(512) - entry.payload;
        input.skip(rest).context("cannot read the archive")?;
        let there = (input.fill(padding as usize)? as u64).min(padding);
        input.skip(there)?;
    }
}

/// What follows a header.
struct Body<'a> {
    input: &'a mut Input,
    left: u64,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = (buffer.len() as u64).min(self.left) as usize;
        if most == 0 {
            return Ok(0);
        }
        let n = self.input.fill(1).map_err(|e| io::Error::other(crate::error::chain(&e)))?.min(most);
        buffer[..n].copy_from_slice(&self.input.available()[..n]);
        self.input.consume(n);
        self.left -= n as u64;
        Ok(n)
    }
}
