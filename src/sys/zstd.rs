//! libzstd's streaming decoder, with its large buffer where the caller wants it: zstd.h, "Custom memory allocation".
//!
//! The buffer is the window, as large as the frame asks for. In a file it is memory that the kernel can take back at any
//! time: the pages are the page cache's.

use std::ffi::{CStr, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zstd_sys as lib;

/// What is larger has a place found for it; everything else a decoder needs is smaller.
const LARGE: usize = 1 << 20;
/// So many bytes come out before the pages of a file are given back.
const TRIM: usize = 1 << 20;

/// Where a large buffer is.
pub struct Place {
    /// A file that has as many bytes as were asked for, all of them on disk: writing to a hole would be a signal where the
    /// disk is full. `None`: in memory.
    pub file: Option<File>,
    /// Dropped when the buffer is no more.
    pub claim: Box<dyn Send>,
}

/// Finds a place for so many bytes.
pub type Find = Box<dyn FnMut(usize) -> io::Result<Place> + Send>;

/// A decoder of frames that follow each other.
pub struct Decoder {
    context: NonNull<lib::ZSTD_DCtx>,
    /// The context has its address, and so it outlives that.
    memory: Arc<Memory>,
    untrimmed: usize,
}

// SAFETY: a context belongs to no thread (zstd.h: one context per thread at a time), `memory` is behind a lock, and all
// that uses the context takes `&mut self`.
unsafe impl Send for Decoder {}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with.
    pub read: usize,
    /// Bytes that came out.
    pub written: usize,
    /// Whether a frame is over and all of it came out.
    pub is_end: bool,
}

impl Decoder {
    /// A decoder that refuses windows of more than two to the `window_log`.
    pub fn new(window_log: i32, find: Find) -> io::Result<Decoder> {
        let state = State { find, mappings: Vec::new(), error: None };
        let memory = Arc::new(Memory(Mutex::new(state)));
        let opaque = Arc::as_ptr(&memory).cast_mut().cast::<c_void>();
        let custom = lib::ZSTD_customMem { customAlloc: Some(allocate), customFree: Some(release), opaque };
        // SAFETY: both functions are there, and `opaque` is what they expect: `memory` lives as long as the context.
        let context = unsafe { lib::ZSTD_createDCtx_advanced(custom) };
        let context = NonNull::new(context).ok_or(io::ErrorKind::OutOfMemory)?;
        let decoder = Decoder { context, memory, untrimmed: 0 };
        let parameter = lib::ZSTD_dParameter::ZSTD_d_windowLogMax;
        // SAFETY: the context is valid, and no frame was begun.
        let set = unsafe { lib::ZSTD_DCtx_setParameter(context.as_ptr(), parameter, window_log as c_int) };
        decoder.check(set)?;
        Ok(decoder)
    }

    /// Decodes some of the input; what it does not read is to be given again. No input gives what is left inside.
    pub fn run(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Step> {
        let mut from = lib::ZSTD_inBuffer { src: input.as_ptr().cast(), size: input.len(), pos: 0 };
        let mut to = lib::ZSTD_outBuffer { dst: output.as_mut_ptr().cast(), size: output.len(), pos: 0 };
        // SAFETY: the context is valid, the buffers are these slices, and nobody else has them meanwhile.
        let hint = unsafe { lib::ZSTD_decompressStream(self.context.as_ptr(), &mut to, &mut from) };
        let hint = self.check(hint)?;
        self.untrimmed += to.pos;
        if self.untrimmed >= TRIM {
            self.untrimmed = 0;
            self.memory.state().trim();
        }
        Ok(Step { read: from.pos, written: to.pos, is_end: hint == 0 })
    }

    fn check(&self, result: usize) -> io::Result<usize> {
        // SAFETY: any number may be asked about.
        if unsafe { lib::ZSTD_isError(result) } == 0 {
            return Ok(result);
        }
        if let Some(error) = self.memory.state().error.take() {
            return Err(error);
        }
        // SAFETY: any number may be asked about; there is a name for each.
        let name = unsafe { lib::ZSTD_getErrorName(result) };
        // SAFETY: a string constant of the library.
        let name = unsafe { CStr::from_ptr(name) };
        Err(io::Error::new(io::ErrorKind::InvalidData, name.to_string_lossy().into_owned()))
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the context is valid and nobody's any more; `memory`, which it frees by, is dropped after this.
        unsafe { lib::ZSTD_freeDCtx(self.context.as_ptr()) };
    }
}

struct Memory(Mutex<State>);

struct State {
    find: Find,
    mappings: Vec<Mapping>,
    /// Why there was no place: the library says only that there was none.
    error: Option<io::Error>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn map(&mut self, size: usize) -> io::Result<usize> {
        let place = (self.find)(size)?;
        let (flags, fd) = match &place.file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, where the kernel wants it: nothing that is there is touched.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let is_file = place.file.is_some();
        self.mappings.push(Mapping { start: start as usize, size, is_file, _claim: place.claim });
        Ok(start as usize)
    }

    /// Takes the pages of files out of our memory; their content stays, and they come back as they are used.
    fn trim(&self) {
        for mapping in self.mappings.iter().filter(|m| m.is_file) {
            // SAFETY: the range is a mapping of ours, shared with a file: nothing in it is lost (madvise(2)).
            unsafe { libc::madvise(mapping.start as *mut c_void, mapping.size, libc::MADV_DONTNEED) };
        }
    }
}

struct Mapping {
    start: usize,
    size: usize,
    is_file: bool,
    _claim: Box<dyn Send>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is a mapping of ours, which the library has just given back.
        unsafe { libc::munmap(self.start as *mut c_void, self.size) };
    }
}

/// `ZSTD_allocFunction`.
unsafe extern "C" fn allocate(opaque: *mut c_void, size: usize) -> *mut c_void {
    if size < LARGE {
        // SAFETY: any size may be asked for.
        return unsafe { libc::malloc(size) };
    }
    // SAFETY: what `Decoder::new` gave, which lives as long as the context.
    let memory = unsafe { &*opaque.cast::<Memory>() };
    let mut state = memory.state();
    match state.map(size) {
        Ok(start) => start as *mut c_void,
        Err(error) => {
            state.error = Some(error);
            std::ptr::null_mut()
        }
    }
}

/// `ZSTD_freeFunction`.
unsafe extern "C" fn release(opaque: *mut c_void, address: *mut c_void) {
    // SAFETY: what `Decoder::new` gave, which lives as long as the context.
    let memory = unsafe { &*opaque.cast::<Memory>() };
    let mut state = memory.state();
    if let Some(at) = state.mappings.iter().position(|m| m.start == address as usize) {
        drop(state.mappings.swap_remove(at));
        return;
    }
    // SAFETY: what is no mapping came from malloc in `allocate`, or is null.
    unsafe { libc::free(address) };
}
