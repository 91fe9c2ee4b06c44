//! Descriptors of the caller's that a program in a container gets (`--preserve-fds`): at the numbers that they have there.
//!
//! Invariant: only what the caller had open is ever handed on. All that dhow opens is close-on-exec; what came to us by
//! execve(2) is not, and so tells itself apart (CVE-2024-21626 was a descriptor of the engine's that leaked).
//!
//! Until its program begins, a process has use for other descriptors: those are kept at numbers above, out of the way.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use rustix::io::Errno;

use crate::error::ResultExt;
use crate::sys::process;

/// Descriptors, with the numbers that they are to have.
#[derive(Debug, Default)]
pub struct Preserved(Vec<(i32, OwnedFd)>);

impl Preserved {
    /// Those that the caller has at these numbers.
    pub fn of_caller(numbers: &[i32]) -> Result<Preserved> {
        let above = above(numbers.iter().copied());
        let copy = |number: &i32| {
            let copied = process::copy_of_inherited(*number, above);
            let about = || format!("cannot preserve the descriptor {number}");
            match copied {
                Err(error) if error.raw_os_error() == Some(Errno::BADF.raw_os_error()) => {
                    Err(anyhow!("it is not open"))
                        .with_context(about)
                        .hint("open it in the shell: dhow run --preserve-fds 1 IMAGE COMMAND 3<FILE")
                }
                // F_DUPFD(2): what they are copied to lies above the limit of open files.
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    Err(anyhow!("there is no room above it for a copy"))
                        .with_context(about)
                        .hint("raise the limit of open files: ulimit -n")
                }
                copied => Ok((*number, copied.with_context(about)?)),
            }
        };
        numbers.iter().map(copy).collect::<Result<_>>().map(Preserved)
    }

    /// Adds one that another process sent us, for the number that it said.
    pub fn push(&mut self, number: i32, fd: OwnedFd) {
        self.0.push((number, fd));
    }

    /// Them, with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (i32, BorrowedFd<'_>)> {
        self.0.iter().map(|(number, fd)| (*number, fd.as_fd()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy of them.
    pub fn try_clone(&self) -> Result<Preserved> {
        let copy = |(number, fd): &(i32, OwnedFd)| Ok((*number, fd.try_clone()?));
        self.0.iter().map(copy).collect::<Result<_>>().context("cannot copy a descriptor").map(Preserved)
    }

    /// The same descriptor out of their way.
    pub fn clear(&self, fd: OwnedFd) -> Result<OwnedFd> {
        let above = above(self.0.iter().map(|(number, _)| *number));
        if fd.as_raw_fd() >= above {
            return Ok(fd);
        }
        rustix::io::fcntl_dupfd_cloexec(&fd, above).context("cannot copy a descriptor")
    }

    /// Puts them where they are to be, open across execve(2). In a child that is about to exec: what else has these
    /// numbers is gone with it.
    pub(super) fn place(&self) -> Result<()> {
        let moved = self
            .0
            .iter()
            .map(|(number, fd)| Ok((*number, self.clear(fd.try_clone()?)?)))
            .collect::<Result<Vec<_>>>()
            .context("cannot copy a descriptor")?;
        for (number, fd) in &moved {
            process::dup_to(fd.as_raw_fd(), *number)
                .with_context(|| format!("cannot hand on the descriptor {number}"))
                .hint("its number has to be below the limit of open files (--ulimit nofile)")?;
        }
        Ok(())
    }
}

fn above(numbers: impl Iterator<Item = i32>) -> i32 {
    numbers.max().map_or(3, |most| most.saturating_add(1))
}
