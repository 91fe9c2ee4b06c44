//! The specifications' words: digests, references, and the image and runtime types of the `oci-spec` crate. Pure.
//!
//! Invariant: bytes that came with a digest (manifests, configs) are kept as they came; these types are for reading
//! them, and re-serialising one is a new object with a new digest.

pub mod digest;
pub mod reference;
pub mod words;

pub use digest::{Algorithm, ChainId, DiffId, Digest};
pub use oci_spec::{image, runtime};
pub use reference::Reference;
