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
}

/// Where events go.
pub type Sink<'a> = &'a mut dyn FnMut(Event);
