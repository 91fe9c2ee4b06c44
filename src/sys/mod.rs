//! Kernel calls: owned descriptors in and out, `io::Result`, no policy, no retries but EINTR.
//!
//! What rustix or nix wrap safely is used from there directly; here is what they lack. This is the only room where
//! unsafe code is allowed, and each block says which rule of the call is met and by what.
#![expect(unsafe_code, reason = "the one room for it")]

pub mod bpf;
pub mod datagram;
pub mod inet;
pub mod lock;
pub mod memory;
pub mod mount;
pub mod net;
pub mod notify;
pub mod process;
pub mod seccomp;
pub mod spawn;
pub mod zstd;
