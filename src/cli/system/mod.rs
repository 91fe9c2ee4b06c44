//! The verbs for the store as a whole.

pub(super) mod check;
