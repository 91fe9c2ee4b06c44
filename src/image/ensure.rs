//! `ensure`: the image that a container or a build wants, pulled if need be. What is here and need not be looked for is
//! had without a look at the network, or at the configuration of registries.

use anyhow::{Context, Result, bail};

use crate::error::NotFound;
use crate::event::{Event, Sink};
use crate::oci::{Digest, Reference};
use crate::registry::Client;
use crate::store::Store;
use crate::store::image;
use crate::store::image::Image;
use crate::store::image::find::{By, find_alone};

use super::Platform;
use super::choice;
use super::pull;

/// When to ask a registry for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Always: the registry has the say.
    Always,
    /// Where the store has none.
    #[default]
    Missing,
    /// Never.
    Never,
    /// Always, but what is here is good enough where the registry cannot be asked.
    Newer,
}

/// Why a word is no policy.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not always, missing, never or newer")]
pub struct InvalidPolicy(String);

impl std::str::FromStr for Policy {
    type Err = InvalidPolicy;
    fn from_str(text: &str) -> Result<Policy, InvalidPolicy> {
        match text {
            "always" | "true" => Ok(Policy::Always),
            "missing" | "ifnotpresent" | "false" => Ok(Policy::Missing),
            "never" => Ok(Policy::Never),
            "newer" => Ok(Policy::Newer),
            _ => Err(InvalidPolicy(text.to_owned())),
        }
    }
}

/// What is wanted of an image.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// When to ask the registry.
    pub policy: Policy,
    /// For which platform; `None` for whatever is here, and else the machine's own.
    pub platform: Option<Platform>,
}

/// The image by this name or id, which need not tell its other names. `client` is called where a registry is to be asked, at most once.
pub fn ensure(
    store: &Store,
    name_or_id: &str,
    options: &Options,
    client: impl FnOnce() -> Result<Client>,
    events: Sink<'_>,
) -> Result<Image> {
    let here = here(store, name_or_id, options.platform.as_ref())?;
    let reference: Reference = match (here, options.policy) {
        // Nothing in a registry is called by an id.
        (Here::Fits(image, By::Id), _) => return Ok(*image),
        (Here::Fits(image, _), Policy::Missing | Policy::Never) => return Ok(*image),
        (Here::IsFor(other), Policy::Never) => {
            bail!("cannot use {name_or_id}: it is for {other}, and may not be pulled")
        }
        (Here::None, Policy::Never) => {
            return Err(NotFound { kind: "image", name: name_or_id.to_owned() }.into());
        }
        (Here::Fits(image, by), Policy::Newer) => {
            let reference = name(name_or_id)?;
            let pulled =
                client().and_then(|client| refresh(store, &client, &reference, options, &by, events));
            return match pulled {
                Ok(()) => image::find(store, name_or_id),
                Err(error) => {
                    let why = crate::error::chain(&error);
                    events(Event::Warning(format!("using {name_or_id} as it is here: {why}")));
                    Ok(*image)
                }
            };
        }
        (Here::None, _) => {
            let reference = name(name_or_id)?;
            events(Event::Missing(reference.clone().with_default_tag().familiar()));
            reference
        }
        (Here::Fits(..) | Here::IsFor(_), _) => name(name_or_id)?,
    };
    let pulled = pull::pull(store, &client()?, &reference, &pull_options(options), events)?;
    image::find(store, &pulled.reference.to_string())
}

/// What the store has by a name.
enum Here {
    Fits(Box<Image>, By),
    IsFor(Platform),
    None,
}

fn here(store: &Store, name_or_id: &str, platform: Option<&Platform>) -> Result<Here> {
    match find_alone(store, name_or_id) {
        Ok((image, by)) => match platform {
            Some(wanted) if !choice::is_for(&image.config, wanted) => {
                let own = choice::platform_of(&image.config);
                let own = own.with_context(|| {
                    format!("cannot use {name_or_id}: it does not say for which platform it is")
                });
                own.map(Here::IsFor)
            }
            _ => Ok(Here::Fits(Box::new(image), by)),
        },
        Err(error) if error.is::<NotFound>() => Ok(Here::None),
        Err(error) => Err(error),
    }
}

/// Pulls it if the registry has another one.
fn refresh(
    store: &Store,
    client: &Client,
    reference: &Reference,
    options: &Options,
    by: &By,
    events: Sink<'_>,
) -> Result<()> {
    // A digest is what it is.
    if matches!(by, By::Digest(_)) {
        return Ok(());
    }
    pull::pull(store, client, reference, &pull_options(options), events).map(drop)
}

fn pull_options(options: &Options) -> pull::Options {
    pull::Options { platform: options.platform.clone() }
}

/// The name; what can only be an id is an image that is not there.
fn name(name_or_id: &str) -> Result<Reference> {
    let is_id = |t: &str| t.len() == 64 && t.bytes().all(|b| b.is_ascii_hexdigit());
    if is_id(name_or_id) || name_or_id.parse::<Digest>().is_ok() {
        return Err(NotFound { kind: "image", name: name_or_id.to_owned() }.into());
    }
    Ok(name_or_id.parse()?)
}
