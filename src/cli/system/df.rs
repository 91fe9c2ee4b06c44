//! system df: docker's tables.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::cli::flags::{switch, value};
use crate::cli::format::{self, headers, human, quote};
use crate::cli::image::claims;
use crate::cli::run_flags::one;
use crate::cli::{Session, events, out, ps_row};
use crate::engine::list::{self, Listed};
use crate::engine::volume;
use crate::image::usage::{self, ImageUsage, Usage};

pub(in crate::cli) fn df_args(command: Command) -> Command {
    command.arg(switch("verbose", Some('v'), "Show every image, container and volume")).arg(value(
        "format",
        None,
        "TEMPLATE",
        "json, table TEMPLATE or a Go template",
    ))
}

pub(in crate::cli) fn df_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let format = one(matches, "format");
    let is_verbose = matches.get_flag("verbose");
    if is_verbose && format.is_some() {
        return Err(anyhow!("cannot show it verbosely in a format: give one of both"));
    }
    let engine = session.engine_as_root()?;
    let volumes = volume::list(&engine)?;
    let usage = usage::usage(&engine.store, &claims(&engine)?, &mut events)?;
    let containers = list::list(&engine)?;
    if is_verbose {
        out::out(&verbose(&usage, &containers, &volumes)?)?;
        return Ok(0);
    }
    let rows = rows(&usage, &containers, &volumes);
    out::out(&format::render_rows(format, headers::DISK_USAGE_TABLE, headers::DISK_USAGE, &rows)?)?;
    Ok(0)
}

fn runs(container: &Listed) -> bool {
    container.status.is_alive()
}

fn rows(usage: &Usage, containers: &[Listed], volumes: &[volume::Listed]) -> Vec<Value> {
    let row = |what: &str, total: usize, active: usize, size: u64, reclaimable: u64| {
        let mut shown = human::size_exact(reclaimable);
        if size > 0 {
            shown.push_str(&format!(" ({}%)", u128::from(reclaimable) * 100 / u128::from(size)));
        }
        json!({
            "Type": what,
            "TotalCount": total.to_string(),
            "Active": active.to_string(),
            "Size": human::size_exact(size),
            "Reclaimable": shown,
        })
    };
    let active = usage.images.iter().filter(|i| i.n_containers > 0).count();
    let running: BTreeMap<&str, bool> = containers.iter().map(|c| (c.record.id.as_str(), runs(c))).collect();
    let is_running = |id: &str| running.get(id).copied().unwrap_or(false);
    let stopped = usage.containers.iter().filter(|(id, _)| !is_running(id)).map(|(_, bytes)| bytes).sum();
    let of_containers = usage.containers.values().sum();
    let of_volumes = usage.volumes.values().sum();
    let is_used = |name: &str| volumes.iter().any(|v| v.volume.name == name && !v.users.is_empty());
    let unused = usage.volumes.iter().filter(|(name, _)| !is_used(name)).map(|(_, bytes)| bytes).sum();
    let n_used = usage.volumes.keys().filter(|name| is_used(name)).count();
    vec![
        row("Images", usage.images.len(), active, usage.images_bytes, usage.images_reclaimable),
        row(
            "Containers",
            usage.containers.len(),
            running.values().filter(|runs| **runs).count(),
            of_containers,
            stopped,
        ),
        row("Local Volumes", usage.volumes.len(), n_used, of_volumes, unused),
        row("Build Cache", 0, 0, usage.build_cache, usage.build_cache),
    ]
}

fn verbose(usage: &Usage, containers: &[Listed], volumes: &[volume::Listed]) -> Result<String> {
    let mut text = "Images space usage:\n\n".to_owned();
    let rows: Vec<Value> = usage.images.iter().flat_map(image_rows).collect();
    text.push_str(&format::render_rows(
        None,
        "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}\t{{.ReadOnly}}",
        headers::IMAGES,
        &rows,
    )?);
    text.push_str("\nContainers space usage:\n\n");
    let rows: Vec<Value> = containers
        .iter()
        .map(|c| {
            let mut row = ps_row::row(c, None, &TimeZone::UTC, false);
            let bytes = usage.containers.get(&c.record.id).copied().unwrap_or(0);
            row["Size"] = Value::from(human::size_exact(bytes));
            row
        })
        .collect();
    text.push_str(&format::render_rows(
        None,
        "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
        headers::CONTAINERS,
        &rows,
    )?);
    text.push_str("\nLocal Volumes space usage:\n\n");
    let rows: Vec<Value> = usage
        .volumes
        .iter()
        .map(|(name, bytes)| {
            let links = volumes.iter().find(|v| v.volume.name == *name).map_or(0, |v| v.users.len());
            json!({"Name": name, "Links": links.to_string(), "Size": human::size_exact(*bytes)})
        })
        .collect();
    let columns = "table {{.Name}}\t{{.Links}}\t{{.Size}}";
    text.push_str(&format::render_rows(None, columns, headers::VOLUMES, &rows)?);
    text.push_str(&format!("\nBuild cache usage: {}\n", human::size_exact(usage.build_cache)));
    Ok(text)
}

fn image_rows(usage: &ImageUsage) -> Vec<Value> {
    let image = &usage.image;
    let created = image.summary.as_ref().and_then(|summary| summary.created);
    let none = || "<none>".to_owned();
    let row = |repository: String, tag: String| {
        json!({
            "Repository": repository,
            "Tag": tag,
            "ID": quote::short_id(image.id().hex()),
            "CreatedSince": created.map_or("N/A".to_owned(), |c| human::ago(c, Timestamp::now())),
            "Size": human::size_exact(usage.unique + usage.shared),
            "SharedSize": human::size_exact(usage.shared),
            "UniqueSize": human::size_exact(usage.unique),
            "Containers": usage.n_containers.to_string(),
            "ReadOnly": image.is_read_only,
        })
    };
    let tagged = image.names().filter(|n| n.tag.is_some());
    let rows: Vec<Value> =
        tagged.map(|n| row(n.familiar_repository(), n.tag.clone().unwrap_or_else(none))).collect();
    if rows.is_empty() { vec![row(none(), none())] } else { rows }
}
