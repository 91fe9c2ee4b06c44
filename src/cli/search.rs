//! search.

use anyhow::{Result, anyhow};
use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use super::flags::{list, many, of_flag, switch, value};
use super::format::{self, filter::Filters, headers, quote};
use super::run_flags::one;
use super::{Session, out, registry_flags};
use crate::error::ResultExt;
use crate::oci::Reference;
use crate::registry::catalog::{self, Found};
use crate::registry::{Action, Client};

/// As docker.
const LIMIT: usize = 25;

/// As docker, and Docker Hub.
const MOST: usize = 100;

/// As docker.
const DESCRIPTION: usize = 45;

pub(super) fn search_args(command: Command) -> Command {
    registry_flags::add(command)
        .arg(list("filter", Some('f'), "KEY=VALUE", "Only these: is-official, is-automated, stars"))
        .arg(value("format", None, "TEMPLATE", "json, table TEMPLATE or a Go template"))
        .arg(value("limit", None, "N", "At most so many, 1 to 100 (25)"))
        .arg(switch("no-trunc", None, "Do not shorten descriptions"))
        .arg(switch("list-tags", None, "List the tags of the repository TERM"))
        .arg(
            Arg::new("term")
                .value_name("[REGISTRY/]TERM")
                .required(true)
                .help("A part of the name; REGISTRY/ alone lists all (Docker Hub)"),
        )
}

pub(super) fn search(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let limit = limit(one(matches, "limit"), matches.get_flag("list-tags"))?;
    let filters = Filters::parse(&many(matches, "filter"), &["is-official", "is-automated", "stars"])?;
    let wanted = catalog::Filters {
        is_official: filters.flag("is-official")?,
        is_automated: filters.flag("is-automated")?,
        stars: stars(filters.values("stars"))?,
    };
    let term = one(matches, "term").unwrap_or_default();
    let client = Client::new(&session.host, registry_flags::options(matches)?)?;
    let format = one(matches, "format");
    if matches.get_flag("list-tags") {
        let rows = tags(&client, term, limit)?;
        out::out(&format::render_rows(format, headers::TAGS_TABLE, headers::TAGS, &rows)?)?;
        return Ok(0);
    }
    let (registry, term) = split(term)?;
    let found = catalog::search(&client, registry, term, limit, &wanted)?;
    let is_json = format.is_some_and(|f| f.trim() == "json" || f.contains("json ."));
    let rows: Vec<Value> = found.iter().map(|f| row(f, matches.get_flag("no-trunc"), is_json)).collect();
    out::out(&format::render_rows(format, headers::SEARCH_TABLE, headers::SEARCH, &rows)?)?;
    Ok(0)
}

/// As docker, for which 0 says nothing; tags are podman's, which takes any number of them.
fn limit(text: Option<&str>, of_tags: bool) -> Result<usize> {
    match text.map(str::parse) {
        None | Some(Ok(0)) => Ok(LIMIT),
        Some(Ok(n)) if n <= MOST || of_tags => Ok(n),
        Some(Ok(n)) => Err(anyhow!("cannot read --limit: {n} is outside the range of [1, {MOST}]")),
        Some(Err(_)) => of_flag(Err(anyhow!(
            "cannot read --limit {:?}: it is a number from 1 to {MOST}",
            text.unwrap_or_default()
        ))),
    }
}

fn stars(values: &[String]) -> Result<u64> {
    // The highest: what has fewer is asked for by nobody.
    let number = |v: &String| v.parse().map_err(|_| anyhow!("invalid filter 'stars={v}': it is a number"));
    Ok(values.iter().map(number).collect::<Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0))
}

/// The registry, and what is looked for in it. The first component is a registry as it is in a reference.
fn split(text: &str) -> Result<(&str, &str)> {
    if text.contains("://") {
        return Err(anyhow!("cannot search for {text:?}: it has a scheme")).hint("type REGISTRY/TERM");
    }
    let (registry, term) = match text.split_once('/') {
        Some((host, term)) if host == "localhost" || host.contains(['.', ':']) => (host, term),
        None if text.contains(':') => (text, ""),
        _ => ("docker.io", text),
    };
    if !matches!(registry, "docker.io" | "index.docker.io") {
        return Ok((registry, term));
    }
    // What Docker Hub calls official is found without `library/`.
    let term = term.strip_prefix("library/").unwrap_or(term);
    if term.is_empty() {
        return Err(anyhow!("cannot search docker.io for nothing: it does not list everything"))
            .hint("type a part of a name");
    }
    Ok(("docker.io", term))
}

fn tags(client: &Client, name: &str, limit: usize) -> Result<Vec<Value>> {
    let reference: Reference = name.parse()?;
    let tags = client.repository(&reference, Action::Pull)?.tags()?;
    let repository = reference.familiar_repository();
    Ok(tags.into_iter().take(limit).map(|tag| json!({ "Name": repository, "Tag": tag })).collect())
}

fn row(found: &Found, no_trunc: bool, is_json: bool) -> Value {
    let mark = |is: bool| match (is, is_json) {
        (true, false) => "[OK]",
        (false, false) => "",
        (true, true) => "true",
        (false, true) => "false",
    };
    // What a stranger wrote: one line, and nothing that drives the terminal.
    let plain = |text: &str| text.replace(|c: char| c.is_control(), " ");
    let description = plain(&found.description);
    let description = if no_trunc { description } else { quote::ellipsis(&description, DESCRIPTION) };
    json!({
        "Name": plain(&found.name),
        "Description": description,
        "StarCount": found.stars.to_string(),
        "IsOfficial": mark(found.is_official),
        "IsAutomated": mark(found.is_automated),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_name_a_registry_or_docker_hub() {
        let check = |text: &str, expected: (&str, &str)| assert_eq!(split(text).unwrap(), expected, "{text}");
        check("busybox", ("docker.io", "busybox"));
        check("library/busybox", ("docker.io", "busybox"));
        check("node.js", ("docker.io", "node.js"));
        check("al/tool", ("docker.io", "al/tool"));
        check("docker.io/al", ("docker.io", "al"));
        check("localhost:5000/a/b", ("localhost:5000", "a/b"));
        check("localhost:5000/", ("localhost:5000", ""));
        check("localhost:5000", ("localhost:5000", ""));
        check("reg.example/", ("reg.example", ""));
        for bad in ["", "docker.io/", "https://reg.example/x"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_and_stars() {
        let check = |text, want| assert_eq!(limit(text, false).ok(), want, "{text:?}");
        check(None, Some(25));
        check(Some("0"), Some(25));
        check(Some("3"), Some(3));
        check(Some("100"), Some(100));
        check(Some("101"), None);
        check(Some("-1"), None);
        check(Some("x"), None);
        assert_eq!(limit(Some("1000"), true).unwrap(), 1000);
        assert_eq!(stars(&["3".into(), "10".into()]).unwrap(), 10);
        assert!(stars(&["x".into()]).is_err());
    }

    #[test]
    fn rows_are_docker_s() {
        let found = Found {
            name: "a".into(),
            description: "b\u{1b}[2J\nc".into(),
            stars: 3,
            is_official: true,
            ..Found::default()
        };
        let text =
            format::render_rows(None, headers::SEARCH_TABLE, headers::SEARCH, &[row(&found, false, false)])
                .unwrap();
        assert_eq!(
            text,
            "NAME      DESCRIPTION   STARS     OFFICIAL\na         b [2J c       3         [OK]\n"
        );
        let json =
            format::render_rows(Some("json"), "", headers::SEARCH, &[row(&found, false, true)]).unwrap();
        assert_eq!(
            json,
            "{\"Description\":\"b [2J c\",\"IsAutomated\":\"false\",\"IsOfficial\":\"true\",\"Name\":\"a\",\"StarCount\":\"3\"}\n"
        );
    }
}
