//! The verbs for the store as a whole.

pub(super) mod check;
pub(super) mod df;
pub(super) mod info;
pub(super) mod prune;
pub(super) mod setup;
