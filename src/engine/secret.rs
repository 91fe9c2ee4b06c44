//! Secrets: the verbs, and what a container gets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use super::Engine;
use crate::error::ResultExt;
use crate::fs;
use crate::spec::options;
use crate::store::secret::{self, Secret, Value};

/// A secret that a container is to have, and where its value comes from.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// How it is given.
    pub secret: options::Secret,
    /// Where its value comes from.
    pub source: Source,
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The store, by name or id.
    Stored(String),
    /// A file of the caller.
    File(PathBuf),
    /// A variable of the caller.
    Env(String),
}

/// The values, in order.
pub(super) fn values(engine: &Engine, wanted: &[Wanted]) -> Result<Vec<Value>> {
    let value = |one: &Wanted| {
        let value = match &one.source {
            Source::Stored(name) => secret::find(&engine.store, name)
                .hint(format!("make it first: dhow secret create {name} FILE"))
                .and_then(|found| secret::value(&engine.store, &found)),
            Source::File(path) => fs::open(path).and_then(Value::read),
            Source::Env(name) => from_env(engine, name),
        };
        let value = value.with_context(|| format!("cannot use the secret {}", one.secret.name))?;
        anyhow::ensure!(
            !one.secret.is_env || (!value.0.contains(&0) && std::str::from_utf8(&value.0).is_ok()),
            "cannot use the secret {}: it cannot be the value of a variable",
            one.secret.name
        );
        Ok(value)
    };
    wanted.iter().map(value).collect()
}

/// The value of a variable of the caller.
pub fn from_env(engine: &Engine, name: &str) -> Result<Value> {
    use std::os::unix::ffi::OsStrExt;
    let value = engine.host.env(name).with_context(|| format!("the variable {name} is not set"))?;
    Value(value.as_bytes().to_vec()).checked()
}

/// Makes a secret.
pub fn create(
    engine: &Engine,
    name: &str,
    labels: BTreeMap<String, String>,
    value: &Value,
    replace: bool,
) -> Result<Secret> {
    secret::create(&engine.store, name, labels, value, replace)
}

/// All secrets.
pub fn list(engine: &Engine) -> Result<Vec<Secret>> {
    secret::list(&engine.store)
}

/// Removes one; its id.
pub fn remove(engine: &Engine, wanted: &str) -> Result<String> {
    let found = secret::find(&engine.store, wanted)?;
    secret::remove(&engine.store, &found).with_context(|| format!("cannot remove secret {wanted}"))?;
    Ok(found.id)
}

/// What may be told of one, in podman's fields; its value too, if that was asked for.
pub fn inspect(engine: &Engine, wanted: &str, show: bool) -> Result<Json> {
    let found = secret::find(&engine.store, wanted)?;
    let mut told = json!({
        "ID": found.id,
        "CreatedAt": found.created.to_string(),
        "UpdatedAt": found.updated.to_string(),
        "Spec": {
            "Name": found.name,
            "Driver": {"Name": "file", "Options": {}},
            "Labels": found.labels,
        },
    });
    if show {
        let value = secret::value(&engine.store, &found)?;
        told["SecretData"] = Json::String(String::from_utf8_lossy(&value.0).into_owned());
    }
    Ok(told)
}
