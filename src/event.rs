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
    /// A layer is on its way to a registry.
    Pushing {
        /// Short id of the layer.
        what: String,
        /// How far it is.
        state: Pushing,
    },
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
