//! Pipes for what is on its way: kept for the next one, counted, and refused where there is no room for more.

use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};

/// Both ends.
#[derive(Debug)]
pub struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

/// All pipes that there are.
#[derive(Debug, Default)]
pub struct Pipes {
    empty: Vec<Pipe>,
    n: usize,
    has_room: bool,
}

/// So many are kept.
const KEPT: usize = 16;
/// What a pipe is to hold. A user's pipes hold no more than 64 MiB together (fs.pipe-user-pages-soft): the kernel makes
/// smaller ones then.
pub const ROOM: usize = 512 << 10;

impl Pipes {
    /// How many there are, of two descriptors each.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there are descriptors for one more.
    pub fn allow(&mut self, has_room: bool) {
        self.has_room = has_room;
    }

    /// An empty one, if there is one or room for it.
    pub fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.empty.pop() {
            return Some(pipe);
        }
        if !self.has_room {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        self.n += 1;
        let _ = rustix::pipe::fcntl_setpipe_size(&write, ROOM);
        Some(Pipe { read, write })
    }

    /// It is done with; one that still holds something cannot be used again.
    pub fn give_back(&mut self, pipe: Pipe, is_empty: bool) {
        if is_empty && self.empty.len() < KEPT {
            self.empty.push(pipe);
        } else {
            self.n -= 1;
        }
    }

    /// Nobody says anything any more: what was kept for speed goes.
    pub fn clear(&mut self) {
        self.n -= self.empty.len();
        self.empty = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_counted_and_come_to_an_end() {
        let mut pipes = Pipes::default();
        assert!(pipes.take().is_none());
        pipes.allow(true);
        let all: Vec<Pipe> = (0..20).filter_map(|_| pipes.take()).collect();
        assert_eq!((all.len(), pipes.len()), (20, 20));
        pipes.allow(false);
        assert!(pipes.take().is_none());
        for (n, pipe) in all.into_iter().enumerate() {
            pipes.give_back(pipe, n != 0);
        }
        assert_eq!(pipes.len(), KEPT);
        assert!(pipes.take().is_some(), "one that was kept");
        pipes.clear();
        assert_eq!(pipes.len(), 1);
    }
}
