//! The allocator's memory.

/// Gives the kernel back the pages that nothing allocated lies in any more (malloc_trim(3)); the next use of them takes a
/// page fault each.
pub fn give_back() {
    // SAFETY: takes a number, and locks the allocator for itself.
    unsafe { libc::malloc_trim(0) };
}
