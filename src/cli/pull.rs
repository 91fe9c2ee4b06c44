//! pull: an image, or all tags of a repository, from a registry; and whether an image is here.

use anyhow::{Result, anyhow, bail};
use clap::{Arg, ArgMatches, Command};

use super::flags::{many, names, switch, value};
use super::progress::{Display, Headline};
use super::run_flags::one;
use super::{Session, out, registry_flags};
use crate::engine::Engine;
use crate::error::{NotFound, ResultExt};
use crate::host::Host;
use crate::image::Platform;
use crate::image::ensure::{self, Policy};
use crate::image::pull;
use crate::oci::{Digest, Reference};
use crate::registry::Client;
use crate::store::image::{Named, find};

pub(super) fn pull_args(command: Command) -> Command {
    let command = command
        .arg(switch("all-tags", Some('a'), "Pull all tags of the repository NAME"))
        .arg(switch("quiet", Some('q'), "Print only what was pulled"))
        .arg(value("platform", None, "OS/ARCH", "Which image of several platforms (this machine's)"))
        .arg(value("policy", None, "WHEN", "always, missing, newer or never (always)"))
        .arg(switch("disable-content-trust", None, "Accepted for docker's sake").hide(true))
        .arg(names(true, "NAME[:TAG|@DIGEST]"));
    super::retry::add(registry_flags::add(command))
}

pub(super) fn pull_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let policy = one(matches, "policy").map(policy).transpose()?.unwrap_or(Policy::Always);
    let platform = platform(matches, &session.host)?;
    let references = many(matches, "names").into_iter().map(reference).collect::<Result<Vec<_>>>()?;
    let all_tags = matches.get_flag("all-tags");
    if all_tags && policy != Policy::Always {
        bail!("cannot pull all tags with --policy: what all are, the registry knows");
    }
    let mut registry = registry_flags::options(matches)?;
    registry.ask_helpers(&session.host, &references)?;
    let engine = session.engine_as_root()?;
    let quiet = matches.get_flag("quiet");
    for reference in references {
        let mut display = Display::new(Headline::Stdout, quiet);
        let client = || Client::new(&session.host, registry.clone());
        if all_tags {
            let options = pull::Options { platform: platform.clone() };
            let tell = &mut |event| display.tell(event);
            let pulled = pull::pull_all(&engine.store, &client()?, &reference, &options, tell)?;
            drop(display);
            for one in pulled.iter().filter(|_| !quiet) {
                report(&one.reference, &one.digest, one.is_new)?;
            }
            out::out(&format!("{}/{}\n", reference.registry, reference.repository))?;
            continue;
        }
        if reference.tag.is_none() && reference.digest.is_none() && !quiet {
            out::out("Using default tag: latest\n")?;
        }
        let options = ensure::Options { policy, platform: platform.clone() };
        let (reference, digest, is_new) = super::retry::patiently(matches, || {
            pull_one(&engine, client, &reference, options.clone(), &mut display)
        })?;
        drop(display);
        if !quiet {
            report(&reference, &digest, is_new)?;
        }
        out::out(&format!("{reference}\n"))?;
    }
    Ok(0)
}

fn pull_one(
    engine: &Engine,
    client: impl FnOnce() -> Result<Client>,
    reference: &Reference,
    options: ensure::Options,
    display: &mut Display,
) -> Result<(Reference, Digest, bool)> {
    let tell = &mut |event| display.tell(event);
    if options.policy == Policy::Always {
        let options = pull::Options { platform: options.platform };
        let pulled = pull::pull(&engine.store, &client()?, reference, &options, tell)?;
        return Ok((pulled.reference, pulled.digest, pulled.is_new));
    }
    let name = reference.clone().with_default_tag();
    let before = find(&engine.store, &name.to_string()).map(|image| image.manifest).ok();
    let image = ensure::ensure(&engine.store, &name.to_string(), &options, client, tell)?;
    let digest = image.named.iter().find(|n| n.reference == name).map_or(&image.manifest, Named::digest);
    Ok((name, digest.clone(), before.as_ref() != Some(&image.manifest)))
}

/// Docker's words.
fn report(reference: &Reference, digest: &Digest, is_new: bool) -> Result<()> {
    let status = if is_new { "Downloaded newer image" } else { "Image is up to date" };
    out::out(&format!("Digest: {digest}\nStatus: {status} for {}\n", reference.familiar()))
}

/// `docker://` is how podman and skopeo spell that a registry is meant.
fn reference(text: &str) -> Result<Reference> {
    Ok(text.strip_prefix("docker://").unwrap_or(text).parse::<Reference>()?)
}

/// A word for when to pull.
pub(super) fn policy(text: &str) -> Result<Policy> {
    text.parse().map_err(|e| anyhow::Error::new(e).context("cannot tell when to pull"))
}

/// `--platform`, or what docker's users set for all commands.
pub(super) fn platform(matches: &ArgMatches, host: &Host) -> Result<Option<Platform>> {
    let of_env = || host.env("DOCKER_DEFAULT_PLATFORM").and_then(|v| v.to_str()).filter(|v| !v.is_empty());
    let typed = |name: &str| matches.try_get_one::<String>(name).ok().flatten().map(String::as_str);
    let parts = (typed("os"), typed("arch"), typed("variant"));
    if let (None, None, None) = parts {
    } else if one(matches, "platform").is_some() {
        return Err(anyhow!("cannot use --platform together with --os, --arch or --variant"));
    } else {
        let own = Platform::host();
        let arch = parts.1.unwrap_or(&own.architecture);
        let variant = parts.2.map(|variant| format!("/{variant}")).unwrap_or_default();
        let text = format!("{}/{arch}{variant}", parts.0.unwrap_or("linux"));
        return Ok(Some(text.parse::<Platform>()?));
    }
    let text = one(matches, "platform").or_else(of_env);
    text.map(|text| text.parse::<Platform>()).transpose().hint("such as linux/amd64 or linux/arm/v7")
}

pub(super) fn exists_args(command: Command) -> Command {
    command.arg(Arg::new("image").value_name("IMAGE").required(true))
}

/// 0 or 1, and not a word.
pub(super) fn exists(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    match find(&engine.store, one(matches, "image").unwrap_or_default()) {
        Ok(_) => Ok(0),
        Err(error) if error.is::<NotFound>() => Ok(1),
        Err(error) => Err(error),
    }
}
