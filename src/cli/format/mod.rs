//! What turns data into text as docker does: templates, tables, amounts, quoting; and filters, which read text.
//!
//! Invariant: no I/O. Everything here takes values and returns text; the verbs print.

pub mod filter;
pub mod headers;
pub mod human;
pub mod json;
mod number;
pub mod quote;
pub mod table;
pub mod template;

pub use table::render_rows;
pub use template::Template;
