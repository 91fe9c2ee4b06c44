//! What long work reports upward, so that only `cli` prints.

/// One thing worth telling while work goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Something works less well than asked for; printed as `dhow: warning: ...` once.
    Warning(String),
    /// A layer is being unpacked: `what` names it, `done` of `total` bytes (0 where unknown).
    Unpacking {
        /// Short id of the layer.
        what: String,
        /// Bytes read so far.
        done: u64,
        /// Bytes in all, 0 where unknown.
        total: u64,
    },
    /// An image was asked for that is not here, by this name.
    Missing(String),
    /// A tag, or a digest, of this repository is being pulled.
    PullingFrom {
        /// The tag or digest.
        tag: String,
        /// The repository, without its registry.
        repository: String,
    },
    /// A layer is on its way from a registry.
    Pulling {
        /// Short digest of the layer.
        what: String,
        /// How far it is.
        state: Pulling,
    },
    /// A layer is on its way to a registry.
    Pushing {
        /// Short id of the layer.
        what: String,
        /// How far it is.
        state: Pushing,
    },
}

/// How far a layer is on its way from a registry. Bytes are those of the layer as it is shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulling {
    /// The store has it.
    Exists,
    /// Its turn has not come.
    Queued,
    /// Another process is fetching it.
    Waiting,
    /// It is being fetched.
    Downloading {
        /// Bytes that are here.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// It is here, and it is what it should be.
    Downloaded,
    /// It is being unpacked, perhaps while it is fetched.
    Extracting {
        /// Bytes that were read.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Nothing is left to do for it.
    Done,
}

/// How far a layer is on its way to a registry; the last four are ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushing {
    /// Its turn has not come.
    Preparing,
    /// `done` of `total` bytes of its tar are compressed.
    Compressing {
        /// Bytes of the tar that were read.
        done: u64,
        /// The size of the tar.
        total: u64,
    },
    /// The registry has `done` of `total` bytes.
    Uploading {
        /// Bytes that were sent.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// It was sent.
    Pushed,
    /// The registry had it.
    Exists,
    /// The registry had it in another repository.
    Mounted(String),
    /// It is one of those that are not shipped, but fetched from where their manifests say.
    Foreign,
}

/// Where events go.
pub type Sink<'a> = &'a mut dyn FnMut(Event);
