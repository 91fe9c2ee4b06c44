//! The Dockerfile language: text -> typed instructions. Pure: names no file, reads no environment.
//!
//! [`lines`] folds text into logical lines, [`words`] knows quoting and the JSON form, [`instruction`] gives one logical
//! line its type, [`expand`] replaces `$NAME` and takes quotes off. An instruction holds its words as they were written:
//! what they expand to depends on the state of the stage, and is asked for by whoever applies the instruction.
//! Source: the Dockerfile reference, and the behaviour of `docker build` where that says nothing.

pub mod duration;
pub mod expand;
pub mod instruction;
pub mod lines;
pub mod words;

pub use instruction::{Command, Healthcheck, Instruction, InvalidInstruction};

/// Where an escape is not set by `# escape=`.
pub const ESCAPE: char = '\\';
