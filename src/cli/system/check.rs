//! system check: one line a finding on stdout, then one line for all.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use crate::cli::flags::switch;
use crate::cli::format::human;
use crate::cli::{Session, events, out, registry_flags};
use crate::error::ResultExt;
use crate::image::check::{self, Finding, Kind, Object, Options, Outcome, Report};
use crate::image::pull;
use crate::oci::Reference;
use crate::registry::Client;
use crate::store::layer::Depth;

pub(in crate::cli) fn check_args(command: Command) -> Command {
    registry_flags::add(command)
        .arg(switch("quick", None, "Look only at what is there and how large it is, not at every byte"))
        .arg(switch("repair", None, "Remove leftovers, and make again or fetch again what is broken"))
        .arg(switch("force", Some('f'), "Accepted for podman's sake").hide(true))
}

pub(in crate::cli) fn check_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let depth = if matches.get_flag("quick") { Depth::Quick } else { Depth::Full };
    let options = Options { depth, repair: matches.get_flag("repair") };
    let registry = registry_flags::options(matches)?;
    let engine = session.engine_as_root()?;
    let mut refetch = |origin: &Reference| {
        let client = Client::new(&session.host, registry.clone())?;
        pull::refetch(&engine.store, &client, origin, &mut events)
    };
    let report = check::check(&engine.store, &options, &mut refetch, &mut events)?;
    let mut text: String = report.findings.iter().map(|finding| line(finding) + "\n").collect();
    text.push_str(&summary(&report, depth));
    text.push('\n');
    out::out(&text)?;
    if !report.is_broken() {
        return Ok(0);
    }
    if !options.repair {
        return Err(anyhow!("the store is damaged")).hint("dhow system check --repair").exit_with(1);
    }
    Err(anyhow!("the store is damaged, and not all of it could be repaired"))
        .hint("remove the images and containers that are named above, and pull or load them again")
        .exit_with(1)
}

/// `broken layer 1234...: it is missing (needed by busybox:latest)`, and what was done about it.
fn line(finding: &Finding) -> String {
    let word = match (&finding.outcome, finding.kind) {
        (Outcome::Repaired(_), Kind::Broken) => "repaired",
        (Outcome::Repaired(_), Kind::Leftover) => "removed",
        (_, Kind::Broken) => "broken",
        (_, Kind::Leftover) => "leftover",
    };
    let mut line = format!("{word} {}: {}", name(&finding.object), finding.problem);
    if !finding.needed_by.is_empty() {
        line.push_str(&format!(" (needed by {})", finding.needed_by.join(", ")));
    }
    match &finding.outcome {
        Outcome::Repaired(how) if finding.kind == Kind::Broken => line.push_str(&format!("; {how}")),
        Outcome::Failed(why) => line.push_str(&format!("; not repaired: {why}")),
        _ => {}
    }
    escaped(&line)
}

fn name(object: &Object) -> String {
    match object {
        Object::Name(file) => match crate::store::image::names::name_of_file(file) {
            Some(reference) => format!("name {}", reference.familiar()),
            None => format!("name in the file images/{file}"),
        },
        Object::Manifest(digest) => format!("manifest {digest}"),
        Object::Config(digest) => format!("config {digest}"),
        Object::Blob(digest) => format!("blob {digest}"),
        Object::Layer(diff_id) => format!("layer {}", diff_id.0),
        Object::Partial(digest) => format!("partial {digest}"),
        Object::Extra(name) => format!("directories layers/{name}"),
        Object::Container(id) => format!("container {id}"),
        Object::ContainerName(name) => format!("container name {name}"),
        Object::Draft(name) => format!("draft tmp/{name}"),
    }
}

fn summary(report: &Report, depth: Depth) -> String {
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let mut text = format!(
        "{}, {}, {}",
        count(report.n_images, "image"),
        count(report.n_blobs, "blob"),
        count(report.n_layers, "layer")
    );
    if depth == Depth::Full {
        text.push_str(&format!(", {} read", human::size(report.bytes)));
    }
    let of = |kind: Kind, repaired: bool| {
        let fits = |f: &&Finding| f.kind == kind && matches!(f.outcome, Outcome::Repaired(_)) == repaired;
        report.findings.iter().filter(fits).count()
    };
    let mut found = Vec::new();
    for (kind, repaired, word) in [
        (Kind::Broken, false, "broken"),
        (Kind::Broken, true, "repaired"),
        (Kind::Leftover, false, "left over"),
        (Kind::Leftover, true, "removed"),
    ] {
        let n = of(kind, repaired);
        if n > 0 {
            found.push(format!("{n} {word}"));
        }
    }
    let found = if found.is_empty() { "all well".to_owned() } else { found.join(", ") };
    format!("{text}: {found}")
}

/// File names and what registries say must not drive the terminal.
fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}
