//! The format of a log on the disk: lines `TIME STREAM TAG CONTENT`, as the Kubernetes CRI has them. TAG is `F` for a line
//! that ended with a newline, `P` for a part of one. CONTENT is what the program wrote, byte for byte; it never holds a
//! newline, so a log is safe for any bytes and readable with any tool.

use anyhow::Result;
use jiff::Timestamp;

/// Which of the program's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// stdout, or the terminal.
    Out,
    /// stderr.
    Err,
}

impl Stream {
    fn word(self) -> &'static str {
        match self {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        }
    }
}

/// A moment as a log has it: RFC 3339, UTC, nanoseconds. As texts they are in the order of time.
pub fn stamp(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// Length of a [`stamp`].
const STAMP: usize = "2026-01-02T03:04:05.000000006Z".len();

/// Adds an entry: `content`, whose line ended with it if `is_whole`.
pub fn push(to: &mut Vec<u8>, stamp: &str, stream: Stream, is_whole: bool, content: &[u8]) {
    to.extend_from_slice(stamp.as_bytes());
    to.push(b' ');
    to.extend_from_slice(stream.word().as_bytes());
    to.extend_from_slice(if is_whole { b" F " } else { b" P " });
    to.extend_from_slice(content);
    to.push(b'\n');
}

/// One entry of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was written, as [`stamp`] does.
    pub stamp: &'a str,
    /// On which stream.
    pub stream: Stream,
    /// Whether its line ends with it; its newline is not part of `content`.
    pub is_whole: bool,
    /// The program's bytes.
    pub content: &'a [u8],
}

/// Parses one line of a log without its newline; `None` for one that is not ours (a half line after a crash).
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let (stamp, rest) = line.split_at_checked(STAMP)?;
    let is_stamp = stamp[4] == b'-' && stamp[10] == b'T' && stamp[19] == b'.' && stamp[STAMP - 1] == b'Z';
    let (word, rest) = rest.split_at_checked(" stdout F ".len())?;
    let stream = match &word[..8] {
        b" stdout " => Stream::Out,
        b" stderr " => Stream::Err,
        _ => return None,
    };
    let is_whole = match &word[8..] {
        b"F " => true,
        b"P " => false,
        _ => return None,
    };
    let stamp = std::str::from_utf8(stamp).ok().filter(|_| is_stamp)?;
    Some(Entry { stamp, stream, is_whole, content: rest })
}

/// Splits what a program writes into entries, and keeps the lines that have not ended yet.
#[derive(Debug, Default)]
pub struct Splitter {
    /// What came of a line so far, for each stream.
    partial: [Vec<u8>; 2],
}

/// A longer line is kept in parts.
const MAX_LINE: usize = 16 << 10;

impl Splitter {
    /// Gives each line, without its newline, and each part of a long one, to `each`: whether it is whole, and its bytes.
    pub fn split(&mut self, stream: Stream, bytes: &[u8], each: &mut dyn FnMut(bool, &[u8])) {
        let partial = &mut self.partial[stream as usize];
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            let line = &rest[..end.unwrap_or(rest.len())];
            let room = MAX_LINE - partial.len();
            let fits = line.len() < room || (line.len() == room && end.is_some());
            let taken = if fits { line.len() } else { room };
            let is_whole = fits && end.is_some();
            if partial.is_empty() && (is_whole || !fits) {
                each(is_whole, &line[..taken]);
            } else {
                partial.extend_from_slice(&line[..taken]);
                if is_whole || !fits {
                    each(is_whole, partial);
                    partial.clear();
                }
            }
            rest = &rest[taken + usize::from(is_whole)..];
        }
    }

    /// Gives what never got its newline.
    pub fn finish(&mut self, each: &mut dyn FnMut(Stream, &[u8])) {
        for stream in [Stream::Out, Stream::Err] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                each(stream, &partial);
            }
        }
    }
}

/// Gives the entries of `lines` to `each`, and passes over what is none.
pub fn each_entry<'a>(
    each: &'a mut dyn FnMut(Entry<'_>) -> Result<()>,
) -> impl FnMut(&[u8]) -> Result<()> + 'a {
    move |line| parse(line).map_or(Ok(()), &mut *each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_parse_or_are_none() {
        let line = b"2026-01-02T03:04:05.000000006Z stderr P a b \xff";
        let entry = parse(line).unwrap();
        assert_eq!(entry.stamp, "2026-01-02T03:04:05.000000006Z");
        assert_eq!(
            (entry.stream, entry.is_whole, entry.content),
            (Stream::Err, false, b"a b \xff".as_slice())
        );
        assert!(parse(b"2026-01-02T03:04:05.000000006Z stdout F ").unwrap().content.is_empty());
        for end in 0..line.len() - 5 {
            assert!(parse(&line[..end]).is_none(), "{end}");
        }
        assert!(parse(b"2026-01-02T03:04:05.000000006Z stdxxx F x").is_none());
        assert!(parse(b"2026-01-02T03:04:05.000000006Z stdout X x").is_none());
        assert_eq!(stamp("2026-01-02T03:04:05Z".parse().unwrap()).len(), STAMP);
    }

    #[test]
    fn lines_are_split_and_long_ones_kept_in_parts() {
        let long = vec![b'x'; MAX_LINE];
        type Case<'a> = (&'a [&'a [u8]], &'a [(bool, usize)]);
        let cases: &[Case<'_>] = &[
            (&[b"a\n", b"b\n"], &[(true, 1), (true, 1)]),
            (&[b"a", b"b\nc", b"\n\n"], &[(true, 2), (true, 1), (true, 0)]),
            (&[&long, b"\n"], &[(false, MAX_LINE), (true, 0)]),
            (&[&long[1..], b"\n"], &[(true, MAX_LINE - 1)]),
            (&[&long[1..], b"xy\n"], &[(false, MAX_LINE), (true, 1)]),
            (&[&[&long[..], b"\n"].concat()], &[(true, MAX_LINE)]),
            (
                &[&[&long[..], &long, b"z"].concat(), b"\n"],
                &[(false, MAX_LINE), (false, MAX_LINE), (true, 1)],
            ),
        ];
        for (writes, expected) in cases {
            let mut splitter = Splitter::default();
            let mut found = Vec::new();
            for bytes in *writes {
                splitter.split(Stream::Out, bytes, &mut |is_whole, line| found.push((is_whole, line.len())));
            }
            assert_eq!(found, *expected);
            splitter.finish(&mut |_, _| panic!("nothing is left"));
        }
    }
}
