//! Asking a person at the terminal: a line, or a secret that is not shown.

use anyhow::{Context, Result, anyhow};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};

use super::out;
use crate::error::ResultExt;

/// More than a person types, and than any token has.
const LIMIT: usize = 64 << 10;

/// Whether there is somebody to ask.
pub(super) fn is_possible() -> bool {
    rustix::termios::isatty(rustix::stdio::stdin())
}

/// A line, without the spaces around it.
pub(super) fn line(prompt: &str) -> Result<String> {
    out::err(prompt);
    let mut typed = Vec::new();
    loop {
        match byte()? {
            None if typed.is_empty() => return Err(anyhow!("cannot read {prompt:?}: the input ended")),
            None | Some(b'\n') => break,
            Some(byte) if typed.len() < LIMIT => typed.push(byte),
            Some(_) => return Err(anyhow!("cannot read {prompt:?}: it is too long")),
        }
    }
    let text = String::from_utf8(typed).map_err(|_| anyhow!("cannot read {prompt:?}: it is not UTF-8"))?;
    Ok(text.trim().to_owned())
}

/// A line that is not shown. Ctrl-C ends the command, with the terminal as it was.
pub(super) fn secret(prompt: &str) -> Result<String> {
    let silent = Silent::enter()?;
    out::err(prompt);
    let typed = edit(&mut byte);
    drop(silent);
    out::err("\n");
    match typed? {
        Some(bytes) => {
            // The error of from_utf8 holds the bytes.
            String::from_utf8(bytes).map_err(|_| anyhow!("cannot read the password: it is not UTF-8"))
        }
        None => Err(anyhow!("cannot read the password: interrupted")).exit_with(130),
    }
}

/// The line that keys make, `None` where it was given up.
fn edit(key: &mut dyn FnMut() -> Result<Option<u8>>) -> Result<Option<Vec<u8>>> {
    const INTERRUPT: u8 = 0x03;
    const END: u8 = 0x04;
    const BACKSPACE: u8 = 0x08;
    const KILL: u8 = 0x15;
    const QUIT: u8 = 0x1c;
    const DELETE: u8 = 0x7f;
    let mut typed: Vec<u8> = Vec::new();
    loop {
        match key()? {
            Some(INTERRUPT | QUIT) => return Ok(None),
            None | Some(END) if typed.is_empty() => return Ok(None),
            None | Some(END | b'\n' | b'\r') => return Ok(Some(typed)),
            Some(KILL) => typed.clear(),
            Some(BACKSPACE | DELETE) => {
                // A character goes as a whole: the bytes that continue one, then the one that begins it.
                while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            Some(byte) if typed.len() < LIMIT => typed.push(byte),
            Some(_) => return Err(anyhow!("cannot read the password: it is too long")),
        }
    }
}

/// The next byte of the terminal. Unbuffered: what is typed ahead stays for whoever reads next.
fn byte() -> Result<Option<u8>> {
    let mut buffer = [0];
    loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(buffer[0])),
            Err(rustix::io::Errno::INTR) => (),
            Err(e) => return Err(e).context("cannot read from the terminal"),
        }
    }
}

/// A terminal that shows nothing of what is typed; as it was when this is dropped. Ctrl-C comes as a byte: a signal would
/// end us with the terminal left silent.
struct Silent(Termios);

impl Silent {
    fn enter() -> Result<Silent> {
        let stdin = rustix::stdio::stdin();
        let saved = rustix::termios::tcgetattr(stdin).context("cannot read the terminal's mode")?;
        let mut silent = saved.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        // What was typed ahead of the question is no answer to it.
        rustix::termios::tcsetattr(stdin, OptionalActions::Flush, &silent)
            .context("cannot silence the terminal")?;
        Ok(Silent(saved))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_line() {
        let check = |keys: &str, expected: Option<&str>| {
            let mut keys_left = keys.bytes();
            let typed = edit(&mut || Ok(keys_left.next())).unwrap();
            assert_eq!(typed.as_deref(), expected.map(str::as_bytes), "{keys:?}");
        };
        check("abc\nd", Some("abc"));
        check("abc\r", Some("abc"));
        check("aö\u{7f}c\n", Some("ac"));
        check("\u{7f}\u{8}a\n", Some("a"));
        check("abc\u{15}d\n", Some("d"));
        check("abc\u{3}", None);
        check("\u{4}", None);
        check("ab\u{4}", Some("ab"));
        check("ab", Some("ab"));
        check("\n", Some(""));
    }
}
