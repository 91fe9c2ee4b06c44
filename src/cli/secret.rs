//! The verbs for secrets, and --secret of run and create.

use std::io::Read;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use super::flags::{each, list, many, names, of_flag, switch, value};
use super::format::filter::Filters;
use super::format::{self, human};
use super::run_flags::one;
use super::{Session, inspect, out, parse};
use crate::engine::secret::{self, Source, Wanted};
use crate::error::ResultExt;
use crate::fs;
use crate::spec::options;
use crate::store::secret::{Secret, Value as Hidden};

/// Adds --secret to run and create.
pub(super) fn add(command: Command) -> Command {
    command.arg(list(
        "secret",
        None,
        "NAME[,FIELDS]",
        "Give it a secret: [id=]NAME[,src=FILE|env=VARIABLE][,type=mount|env][,target=][,uid=,gid=,mode=]",
    ))
}

/// What --secret says.
pub(super) fn wanted(matches: &ArgMatches) -> Result<Vec<Wanted>> {
    let all = many(matches, "secret").into_iter().map(wanted_one).collect::<Result<Vec<_>>>()?;
    for (n, one) in all.iter().enumerate() {
        let is_same = |other: &Wanted| {
            (other.secret.is_env, &other.secret.target) == (one.secret.is_env, &one.secret.target)
        };
        anyhow::ensure!(!all[..n].iter().any(is_same), "cannot put two secrets at {}", one.secret.target);
    }
    Ok(all)
}

fn wanted_one(text: &str) -> Result<Wanted> {
    // Not the text: a value may have been typed by mistake.
    let about = || "cannot use --secret".to_owned();
    let (mut id, mut target, mut source, mut is_env) = (None, None, None, false);
    let (mut uid, mut gid, mut mode) = (0, 0, 0o444);
    let mut from = None;
    for (n, field) in text.split(',').enumerate() {
        let number = |value: &str| {
            value.parse::<u32>().map_err(|_| anyhow!("{value:?} is not a number")).with_context(about)
        };
        match field.split_once('=') {
            None if n == 0 && !field.is_empty() => id = Some(field.to_owned()),
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source" | "file", value)) => source = Some(value.to_owned()),
            Some(("env", value)) => from = Some(Source::Env(value.to_owned())),
            Some(("type", "mount" | "file")) => is_env = false,
            Some(("type", "env")) => is_env = true,
            Some(("target" | "dst" | "destination", value)) => target = Some(value.to_owned()),
            Some(("uid", value)) => uid = number(value)?,
            Some(("gid", value)) => gid = number(value)?,
            Some(("mode", value)) => {
                mode = u32::from_str_radix(value, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777)
                    .ok_or_else(|| anyhow!("mode {value:?} is not octal"))
                    .with_context(about)?;
            }
            _ => {
                return Err(anyhow!("there is no such field")).with_context(about).hint(
                    "it is [id=]NAME[,src=FILE|env=VARIABLE][,type=mount|env][,target=][,uid=,gid=,mode=]",
                );
            }
        }
    }
    // swarm says `source` for the name.
    let id = match (id, &source) {
        (None, Some(name)) if !name.contains('/') => {
            let name = name.clone();
            source = None;
            name
        }
        (id, _) => id.unwrap_or_default(),
    };
    if id.is_empty() || id.contains('/') {
        return Err(anyhow!("it has no name")).with_context(about);
    }
    let source = match (from, source) {
        (Some(_), Some(_)) => bail!("cannot use --secret {id}: it has both src and env"),
        (Some(from), None) => from,
        (None, Some(path)) => Source::File(path.into()),
        (None, None) => Source::Stored(id.clone()),
    };
    let target = target.unwrap_or_else(|| id.clone());
    let target = if is_env {
        anyhow::ensure!(
            !target.is_empty() && !target.contains(['=', '\0']),
            "cannot use --secret {id}: {target:?} is not a variable's name"
        );
        target
    } else {
        let path =
            crate::spec::mount::normal(&std::path::Path::new("/run/secrets").join(&target).to_string_lossy());
        anyhow::ensure!(
            path.parent().is_some() && path != std::path::Path::new("/run/secrets"),
            "cannot use --secret {id}: its target is a directory"
        );
        path.to_string_lossy().into_owned()
    };
    Ok(Wanted { secret: options::Secret { name: id, target, is_env, uid, gid, mode }, source })
}

pub(super) fn create_args(command: Command) -> Command {
    command
        .arg(switch("env", None, "Take the value of the variable that is named in place of a file"))
        .arg(switch("replace", None, "Replace one that has the name"))
        .arg(list("label", Some('l'), "KEY=VALUE", "Set a label"))
        .arg(value("driver", Some('d'), "DRIVER", "file, the only one (file)"))
        .arg(Arg::new("name").value_name("NAME").required(true))
        .arg(Arg::new("source").value_name("FILE|-").required(true).allow_hyphen_values(true))
}

pub(super) fn create_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let (name, source) =
        (one(matches, "name").unwrap_or_default(), one(matches, "source").unwrap_or_default());
    if let Some(driver) = one(matches, "driver").filter(|driver| *driver != "file") {
        return Err(anyhow!("cannot use --driver {driver}")).hint("secrets are kept in files: file");
    }
    let labels = of_flag(many(matches, "label").into_iter().map(parse::label).collect())?;
    let engine = session.engine()?;
    let value = match source {
        variable if matches.get_flag("env") => secret::from_env(&engine, variable),
        "-" => Hidden::read(std::io::stdin().lock().by_ref()),
        path => fs::open(path.as_ref()).and_then(Hidden::read),
    };
    let value = value.with_context(|| format!("cannot create secret {name}"))?;
    let made = secret::create(&engine, name, labels, &value, matches.get_flag("replace"))?;
    out::out(&format!("{}\n", made.id))?;
    Ok(0)
}

pub(super) fn ls_args(command: Command) -> Command {
    command
        .arg(switch("quiet", Some('q'), "Only ids"))
        .arg(list("filter", Some('f'), "KEY=VALUE", "Only those that fit: id, label, name"))
        .arg(value("format", None, "TEMPLATE", "json, table TEMPLATE or a Go template"))
}

const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}";
const HEADERS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("CreatedAt", "CREATED"),
    ("UpdatedAt", "UPDATED"),
    ("Labels", "LABELS"),
];

pub(super) fn ls_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), &["id", "label", "name"])?;
    let (ids, patterns) = (filters.patterns("id")?, filters.patterns("name")?);
    let fits = |secret: &Secret| {
        ids.match_name(&secret.id)
            && patterns.match_name(&secret.name)
            && filters.match_labels(|key| secret.labels.get(key).map(String::as_str))
    };
    let all: Vec<Secret> = secret::list(&session.engine()?)?.into_iter().filter(fits).collect();
    if matches.get_flag("quiet") {
        out::out(&all.iter().map(|secret| format!("{}\n", secret.id)).collect::<String>())?;
        return Ok(0);
    }
    let now = jiff::Timestamp::now();
    let ago = |time: jiff::Timestamp| format!("{} ago", human::duration(now.duration_since(time)));
    let row = |secret: &Secret| {
        json!({
            "ID": secret.id,
            "Name": secret.name,
            "Driver": "file",
            "CreatedAt": ago(secret.created),
            "UpdatedAt": ago(secret.updated),
            "Labels": secret.labels,
        })
    };
    let rows: Vec<Value> = all.iter().map(row).collect();
    out::out(&format::render_rows(one(matches, "format"), TABLE, HEADERS, &rows)?)?;
    Ok(0)
}

pub(super) fn inspect_args(command: Command) -> Command {
    command
        .arg(value("format", Some('f'), "TEMPLATE", "json or a Go template"))
        .arg(switch("showsecret", None, "Show its value too"))
        .arg(names(true, "SECRET"))
}

pub(super) fn inspect_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let with_value = matches.get_flag("showsecret");
    inspect::show(matches, |name| secret::inspect(&engine, name, with_value))
}

pub(super) fn rm_args(command: Command) -> Command {
    command
        .arg(switch("all", Some('a'), "Remove all"))
        .arg(switch("ignore", Some('i'), "One that is not there is fine"))
        .arg(names(false, "SECRET"))
}

pub(super) fn rm_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let all: Vec<String> = match matches.get_flag("all") {
        true => secret::list(&engine)?.into_iter().map(|secret| secret.name).collect(),
        false => many(matches, "names").into_iter().map(str::to_owned).collect(),
    };
    if all.is_empty() && !matches.get_flag("all") {
        return Err(anyhow!("cannot remove secrets: none was named")).hint("name some, or use --all");
    }
    each(&all.iter().map(String::as_str).collect::<Vec<_>>(), |name| match secret::remove(&engine, name) {
        Err(error) if matches.get_flag("ignore") && crate::engine::is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
        Ok(id) => out::out(&format!("{id}\n")),
    })
}

pub(super) fn exists_args(command: Command) -> Command {
    command.arg(Arg::new("name").value_name("SECRET").required(true))
}

pub(super) fn exists_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    match secret::inspect(&engine, one(matches, "name").unwrap_or_default(), false) {
        Ok(_) => Ok(0),
        Err(error) if crate::engine::is_not_found(&error) => Ok(1),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_parse() {
        let check = |text: &str, want: &str| {
            let got = match wanted_one(text) {
                Ok(Wanted { secret: s, source }) => {
                    format!(
                        "{} {} {} {}:{} {:o} {source:?}",
                        s.name, s.target, s.is_env, s.uid, s.gid, s.mode
                    )
                }
                Err(error) => error.root_cause().to_string(),
            };
            assert_eq!(got, want, "{text}");
        };
        check("a", "a /run/secrets/a false 0:0 444 Stored(\"a\")");
        check("id=a,src=/f,uid=1,gid=2,mode=400", "a /run/secrets/a false 1:2 400 File(\"/f\")");
        check("a,type=env", "a a true 0:0 444 Stored(\"a\")");
        check("id=a,env=V,type=env,target=T", "a T true 0:0 444 Env(\"V\")");
        check("source=a,target=/etc/../x", "a /x false 0:0 444 Stored(\"a\")");
        check("a,target=b/c", "a /run/secrets/b/c false 0:0 444 Stored(\"a\")");
        check("", "there is no such field");
        check("a,mode=9", "mode \"9\" is not octal");
        check("a,b", "there is no such field");
        check("src=/f", "it has no name");
        check("a,target=/", "cannot use --secret a: its target is a directory");
        check("a,target=.", "cannot use --secret a: its target is a directory");
    }
}
