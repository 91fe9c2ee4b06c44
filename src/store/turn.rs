//! A turn: the right to decide what becomes of a container's name, held from looking whether one of that name runs until
//! the next one is there. Commands that were asked what to do `--if-running` take turns, and so never end up as two.
//!
//! Invariant: nobody waits for a container to end of its own accord while it is its turn.

use std::fs::File;

use anyhow::{Context, Result};
use sha2::Digest as _;

use super::Store;
use crate::fs;
use crate::sys::lock;

/// See the module. Given back when dropped, and by the kernel when we die.
#[derive(Debug)]
pub struct Turn {
    file: File,
    at: i64,
}

impl Turn {
    /// Waits for the turn.
    pub fn take(store: &Store, name: &str) -> Result<Turn> {
        let turn = Turn::open(store, name)?;
        lock::acquire_byte(&turn.file, turn.at).context("cannot wait for a container's turn")?;
        Ok(turn)
    }

    /// Takes the turn unless somebody has it.
    pub fn try_take(store: &Store, name: &str) -> Result<Option<Turn>> {
        let turn = Turn::open(store, name)?;
        let taken = lock::try_acquire_byte(&turn.file, turn.at).context("cannot take a container's turn")?;
        Ok(taken.then_some(turn))
    }

    /// One file for all names, a byte for each: two names that fall on the same byte wait for each other, and no more.
    fn open(store: &Store, name: &str) -> Result<Turn> {
        let file = fs::open_or_create(&store.data.join("turns.lock"), 0o600)?;
        let hash: [u8; 32] = sha2::Sha256::digest(name.as_bytes()).into();
        let number = hash[..8].iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte));
        // fcntl(2) wants the end of the byte to be an offset too.
        Ok(Turn { file, at: (number >> 2) as i64 })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Not by closing it: a child that is about to become another program may have a copy.
        let _ = lock::release_byte(&self.file, self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    #[test]
    fn one_turn_for_each_name() {
        let scratch = Scratch::new(Ids::Root);
        let a = Turn::take(&scratch.store, "a").unwrap();
        assert!(Turn::try_take(&scratch.store, "a").unwrap().is_none());
        assert!(Turn::try_take(&scratch.store, "b").unwrap().is_some());
        drop(a);
        assert!(Turn::try_take(&scratch.store, "a").unwrap().is_some());
    }
}
