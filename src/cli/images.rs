//! images.

use anyhow::Result;
use clap::{Arg, ArgMatches, Command};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::flags::{list, many, switch, value};
use super::format::{self, filter::Filters, headers, human};
use super::run_flags::one;
use super::{Session, out, zone};
use crate::engine::Engine;
use crate::error;
use crate::oci::Reference;
use crate::store::image::find::{entries_of, entry_by};
use crate::store::image::names::{self, Names};
use crate::store::image::summary::Summary;
use crate::store::image::{Entry, Named};

pub(super) fn images_args(command: Command) -> Command {
    command
        .arg(switch("all", Some('a'), "Show all images"))
        .arg(switch("quiet", Some('q'), "Only ids"))
        .arg(switch("no-trunc", None, "Do not shorten"))
        .arg(switch("digests", None, "Show digests"))
        .arg(list("filter", Some('f'), "KEY=VALUE", "Only those that fit"))
        .arg(value("format", None, "TEMPLATE", "json, table TEMPLATE or a Go template"))
        .arg(Arg::new("reference").value_name("REPOSITORY[:TAG]").help("Only these"))
}

const IMAGE_FILTERS: &[&str] =
    &["dangling", "label", "label!", "before", "since", "until", "reference", "id"];

pub(super) fn images(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), IMAGE_FILTERS)?;
    let engine = session.engine()?;
    let all = Names::visible(&engine.store)?;
    for (file, why) in &all.damaged {
        let name = names::name_of_file(file).map_or_else(|| file.clone(), |name| name.familiar());
        out::warn(&format!("the name {name} is damaged: {why}"));
    }
    let mut images = entries_of(&engine.store, all)?;
    for image in images.iter().filter(|i| i.summary.is_none()) {
        let name = image.names().next().map_or_else(|| image.manifest.to_string(), Reference::familiar);
        let why = Summary::of(&engine.store, &image.manifest).err();
        let why = why.map_or_else(|| "dhow system check tells more".to_owned(), |error| error::chain(&error));
        out::warn(&format!("the image {name} is damaged: {why}"));
    }
    // Docker's order.
    images.sort_by_key(|image| std::cmp::Reverse(created(image)));
    let chosen = Chosen::new(&engine, &filters, one(matches, "reference"))?;
    let no_trunc = matches.get_flag("no-trunc");
    if matches.get_flag("quiet") {
        let mut text = String::new();
        for image in images.iter().filter(|image| chosen.names(image).is_some()) {
            text.push_str(&shown_id(image, no_trunc));
            text.push('\n');
        }
        out::out(&text)?;
        return Ok(0);
    }
    let zone = zone::local(&engine.host);
    let mut rows = Vec::new();
    for image in &images {
        match chosen.names(image).as_deref() {
            None => {}
            Some([]) => rows.push(row(image, None, &zone, no_trunc)),
            Some(names) => {
                rows.extend(
                    names.iter().filter(|n| is_told(image, n)).map(|n| row(image, Some(n), &zone, no_trunc)),
                );
            }
        }
    }
    let default =
        if matches.get_flag("digests") { headers::IMAGES_DIGESTS_TABLE } else { headers::IMAGES_TABLE };
    out::out(&format::render_rows(one(matches, "format"), default, headers::IMAGES, &rows)?)?;
    Ok(0)
}

/// Which images were asked for.
struct Chosen<'a> {
    filters: &'a Filters,
    pattern: Option<&'a str>,
    dangling: Option<bool>,
    /// Made before all of these, and after all of those.
    before: Vec<Timestamp>,
    since: Vec<Timestamp>,
}

impl<'a> Chosen<'a> {
    fn new(engine: &Engine, filters: &'a Filters, pattern: Option<&'a str>) -> Result<Chosen<'a>> {
        let moments = |key: &str| -> Result<Vec<Timestamp>> {
            let created = |name: &String| {
                let (image, _) = entry_by(&engine.store, name)?;
                Ok(created(&image).unwrap_or(Timestamp::UNIX_EPOCH))
            };
            filters.values(key).iter().map(created).collect()
        };
        let (mut before, since) = (moments("before")?, moments("since")?);
        before.extend(filters.until(Timestamp::now(), &zone::local(&engine.host))?);
        Ok(Chosen { filters, pattern, dangling: filters.flag("dangling")?, before, since })
    }

    /// The names to show of an image; `None` where it is not to be shown.
    fn names<'i>(&self, image: &'i Entry) -> Option<Vec<&'i Named>> {
        let at = created(image).unwrap_or(Timestamp::UNIX_EPOCH);
        let labels = image.summary.as_ref().map(|s| &s.labels);
        let ids = self.filters.values("id");
        let has_id = |id: &String| {
            image.id().to_string().starts_with(id.as_str()) || image.id().hex().starts_with(id.as_str())
        };
        let fits = self.filters.match_labels(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
            && self.dangling.is_none_or(|dangling| dangling == image.named.is_empty())
            && self.before.iter().all(|moment| at < *moment)
            && self.since.iter().all(|moment| at > *moment)
            && (ids.is_empty() || ids.iter().any(has_id));
        if !fits {
            return None;
        }
        let patterns = self.filters.values("reference");
        if patterns.is_empty() && self.pattern.is_none() {
            return Some(image.named.iter().collect());
        }
        let fits = |named: &&Named| {
            let name = &named.reference;
            (patterns.is_empty() || patterns.iter().any(|p| matches_reference(p, name)))
                && self.pattern.is_none_or(|p| matches_reference(p, name))
        };
        let names: Vec<&Named> = image.named.iter().filter(fits).collect();
        (!names.is_empty()).then_some(names)
    }
}

/// Docker has a row without a tag only where the repository has no tag at all for it.
fn is_told(image: &Entry, named: &Named) -> bool {
    let repository = |r: &Reference| (r.registry.clone(), r.repository.clone());
    let own = &named.reference;
    own.tag.is_some() || !image.names().any(|r| r.tag.is_some() && repository(r) == repository(own))
}

/// Docker's rule: the pattern names a repository, with or without a tag, `*` and the like allowed.
fn matches_reference(pattern: &str, reference: &Reference) -> bool {
    let (repository, whole) = (reference.familiar_repository(), reference.familiar());
    format::filter::glob(pattern, &repository)
        || format::filter::glob(pattern, &whole)
        || pattern.parse::<Reference>().is_ok_and(|p| {
            p.registry == reference.registry
                && p.repository == reference.repository
                && (p.tag.is_none() || p.tag == reference.tag)
        })
}

fn created(image: &Entry) -> Option<Timestamp> {
    image.summary.as_ref().and_then(|summary| summary.created)
}

fn shown_id(image: &Entry, no_trunc: bool) -> String {
    if no_trunc { image.id().to_string() } else { image.id().short().to_owned() }
}

fn row(image: &Entry, named: Option<&Named>, zone: &TimeZone, no_trunc: bool) -> Value {
    let none = || "<none>".to_owned();
    let repository = named.map_or_else(none, |n| n.reference.familiar_repository());
    let tag = named.and_then(|n| n.reference.tag.clone()).unwrap_or_else(none);
    let digest = named.map_or(&image.manifest, Named::digest);
    let now = Timestamp::now();
    let created = created(image);
    let size = human::size(image.summary.as_ref().map_or(0, |summary| summary.size));
    json!({
        "ID": shown_id(image, no_trunc),
        "Repository": repository,
        "Tag": tag,
        "Digest": digest.to_string(),
        "CreatedSince": created.map_or("N/A".to_owned(), |c| human::ago(c, now)),
        "CreatedAt": created.map_or("N/A".to_owned(), |c| human::created_at(c, zone)),
        "Size": size,
        "VirtualSize": size,
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "ReadOnly": image.is_read_only,
    })
}
