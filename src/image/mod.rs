//! Images without a registry: archives <-> store, and what there is to say about an image. Prints nothing.
//!
//! ```text
//! load    archive::Archive (a tar, seekable or a stream, or a directory: members by name)
//!         -> docker_archive | oci_layout: what images are in it, as Candidates
//!         -> load: layers unpacked side by side, blobs verified -> store::image::publish
//! import  one tar -> a layer, and a config made from --change -> store::image::publish
//! pull    a registry: index | manifest -> pull -> layers: fetched and unpacked side by side -> store::image::publish
//! save    store -> docker archive | OCI archive | OCI directory
//! push    store -> a registry: layers packed where they were made here, sent where they are missing, then the manifest
//! copy    transfer: registry | archive | directory -> registry | archive | directory, without the store
//! list    manifest_list: images -> an index, pushed with all that it names
//! remote  a registry: what there is to say about an image, without pulling it
//! ```
//! A layer whose compressed form did not come with it is kept unpacked only; the manifest then names the uncompressed
//! tar, and [`content`] gives its bytes as if it were a blob.

pub mod archive;
pub mod candidate;
pub mod change;
pub mod check;
pub mod choice;
pub mod commit;
pub mod compression;
pub mod content;
pub mod docker_archive;
pub mod download;
pub mod ensure;
pub mod fetch;
pub mod history;
pub mod import;
pub mod inspect;
pub mod layers;
mod lenders;
pub mod load;
pub mod manifest;
pub mod manifest_list;
pub mod oci_layout;
mod one_layer;
pub mod packing;
pub mod parallel;
mod places;
pub mod platform;
pub mod pull;
pub mod push;
pub mod remote;
pub mod remove;
pub mod rewrite;
pub mod save;
pub mod section;
pub mod select;
pub mod tag;
pub mod tar_members;
mod telling;
#[cfg(test)]
mod tests;
pub mod transfer;
pub mod upload;
pub mod usage;

use std::fs::File;
use std::path::PathBuf;

pub use content::blob_or_layer;
pub use platform::Platform;

/// Where an archive comes from.
#[derive(Debug)]
pub enum Input {
    /// A file, or, where the format has one, a directory.
    Path(PathBuf),
    /// An open file, such as standard input; read from where it stands.
    Stream(File),
}

impl Input {
    /// What errors call it.
    pub fn name(&self) -> String {
        match self {
            Input::Path(path) => path.display().to_string(),
            Input::Stream(_) => "standard input".to_owned(),
        }
    }
}
