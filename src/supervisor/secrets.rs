//! Secrets that a container has as variables: they are known to its supervisor and its processes, and written nowhere.

use anyhow::{Context, Result};

use crate::oci::runtime::Spec;
use crate::spec::options::Secret;
use crate::store::Store;
use crate::store::container::Record;
use crate::store::secret;

/// `NAME=VALUE` of each secret that is to be a variable.
pub fn variables(store: &Store, record: &Record) -> Result<Vec<String>> {
    let Some(secrets) = record.options.get("secrets") else { return Ok(Vec::new()) };
    let secrets: Vec<Secret> = serde_json::from_value(secrets.clone()).context("cannot read the record")?;
    let as_variables = secrets.iter().enumerate().filter(|(_, secret)| secret.is_env);
    as_variables
        .map(|(n, given)| {
            let value = secret::copy_of(store, &record.id, n)?;
            Ok(format!("{}={}", given.target, String::from_utf8_lossy(&value.0)))
        })
        .collect()
}

/// Adds them to what the container's program gets.
pub(super) fn add(spec: &mut Spec, store: &Store, record: &Record) -> Result<()> {
    let variables = variables(store, record)?;
    if let Some(env) = spec.process_mut().as_mut().and_then(|process| process.env_mut().as_mut()) {
        for new in variables {
            let key = format!("{}=", new.split('=').next().unwrap_or_default());
            env.retain(|old| !old.starts_with(&key));
            env.push(new);
        }
    }
    Ok(())
}
