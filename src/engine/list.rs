//! ps: one entry a container, whatever state it is in.

use anyhow::Result;

use super::{Engine, reap};
use crate::store::container::{self, ContainerDir, Record, Source, Status};

/// A container as `ps` sees it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// What was asked for.
    pub record: Record,
    /// What it does.
    pub status: Status,
    /// The command line, program first.
    pub command: Vec<String>,
}

impl Listed {
    /// The image as typed, or the directory.
    pub fn image(&self) -> String {
        match &self.record.source {
            Source::Image { name, .. } => name.clone(),
            Source::Dir { path, .. } => path.display().to_string(),
        }
    }

    /// Docker's word for its state.
    pub fn state(&self) -> &'static str {
        self.status.word()
    }
}

/// All containers, newest first. One that vanishes while we look is left out.
pub fn list(engine: &Engine) -> Result<Vec<Listed>> {
    let mut all = Vec::new();
    for id in container::ids(&engine.store)? {
        let dir = ContainerDir::of(&engine.store, &id);
        let Ok(record) = dir.record() else { continue };
        let status = match reap::settled(&engine.store, &dir) {
            Ok(status) => status,
            // Not ours to settle (a user without its name space) or gone: what the files say must do.
            Err(_) => match dir.status() {
                Ok(status) => status,
                Err(_) => continue,
            },
        };
        if dir.record().is_err() {
            continue;
        }
        let command = command_of(&dir);
        all.push(Listed { record, status, command });
    }
    all.sort_by_key(|c| std::cmp::Reverse(c.record.created));
    Ok(all)
}

/// The command line from the bundle.
pub(super) fn command_of(dir: &ContainerDir) -> Vec<String> {
    let text = crate::fs::read_to_string(&dir.file("config.json")).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let args = value.get("process").and_then(|p| p.get("args")).cloned().unwrap_or_default();
    serde_json::from_value(args).unwrap_or_default()
}
