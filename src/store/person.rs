//! A person: somebody of this machine as whom a container's programs run (`dhow shell`), with name, home and shell inside.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who it is, and what of them the container is given.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Person {
    /// The name, for /etc/passwd.
    pub name: String,
    /// The user id inside.
    pub uid: u32,
    /// The group id inside.
    pub gid: u32,
    /// The group's name.
    pub group: String,
    /// The home inside; a directory of the container's own is bound there, unless something else is.
    pub home: PathBuf,
    /// The shell that is looked for first.
    pub shell: String,
    /// Whether the ids are those of an inner user name space (`runtime::inner`), because the one around is root's.
    pub is_inner: bool,
    /// Whether the shell is what runs: no command was given.
    pub runs_shell: bool,
    /// Where the mounts are that follow the caller from start to start, such as the working directory.
    pub follows: Vec<PathBuf>,
}
