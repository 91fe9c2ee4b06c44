//! events.

use std::os::fd::AsFd;

use anyhow::Result;
use clap::{ArgMatches, Command};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::flags::{list, many, switch, value};
use super::format::filter::Filters;
use super::format::{Template, json};
use super::run_flags::one;
use super::{Session, out, zone};
use crate::engine::events::{EventOptions, events};
use crate::error::ResultExt;
use crate::quantity;
use crate::store::journal::{Event, Kind};

const FILTERS: &[&str] =
    &["type", "event", "container", "image", "label", "volume", "network", "scope", "daemon"];

pub(super) fn events_args(command: Command) -> Command {
    command
        .arg(value("since", None, "TIME", "From this moment on: 2024-01-02T03:04:05Z, 10m"))
        .arg(value("until", None, "TIME", "Up to this moment, and end then"))
        .arg(list("filter", Some('f'), "KEY=VALUE", "Only those that fit"))
        .arg(value("format", None, "TEMPLATE", "json or a Go template"))
        .arg(value("stream", None, "BOOL", "false: end after what has happened so far (true)"))
        .arg(switch("no-trunc", None, "Accepted for podman's sake: nothing is shortened").hide(true))
}

pub(super) fn events_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let zone = zone::local(&session.host);
    let moment =
        |name: &str| one(matches, name).map(|t| quantity::moment(t, Timestamp::now(), &zone)).transpose();
    let filters = Filters::parse(&many(matches, "filter"), FILTERS)?;
    let shape = Shape::of(one(matches, "format"))?;
    let past_only = match one(matches, "stream") {
        None | Some("true") => false,
        Some("false") => true,
        Some(other) => {
            return Err(anyhow::anyhow!("cannot use --stream {other:?}")).hint("it is true or false");
        }
    };
    let stdout = std::io::stdout();
    let options = EventOptions {
        since: moment("since")?,
        until: moment("until")?,
        past_only,
        reader: Some(stdout.as_fd()),
    };
    let engine = session.engine()?;
    let shown = events(&engine, options, &mut |event| {
        if fits(&filters, &event) { out::to_reader(shape.line(&event)?.as_bytes()) } else { Ok(()) }
    });
    out::until_reader_leaves(shown)?;
    Ok(0)
}

/// How an event is written.
enum Shape {
    Plain,
    Json,
    Template(Template),
}

impl Shape {
    fn of(format: Option<&str>) -> Result<Shape> {
        Ok(match format {
            None | Some("") => Shape::Plain,
            // Docker's names in JSON are not those that its templates have.
            Some("json" | "{{json .}}") => Shape::Json,
            Some(template) => Shape::Template(Template::parse(template)?),
        })
    }

    fn line(&self, event: &Event) -> Result<String> {
        Ok(match self {
            Shape::Plain => plain(event),
            Shape::Json => json::compact(&as_json(event)) + "\n",
            Shape::Template(template) => template.render(&as_fields(event))? + "\n",
        })
    }
}

/// Docker's line: `TIME TYPE ACTION ID (KEY=VALUE, ...)`.
fn plain(event: &Event) -> String {
    let mut line = format!("{:.9} {} {} {}", event.time, event.kind.word(), event.action, event.id);
    if !event.attributes.is_empty() {
        let pairs: Vec<String> = event.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        line.push_str(&format!(" ({})", pairs.join(", ")));
    }
    // What people put into labels must not drive the terminal, nor begin a line of its own.
    let escaped =
        line.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() });
    escaped.collect::<String>() + "\n"
}

fn as_json(event: &Event) -> Value {
    let mut all = serde_json::Map::new();
    if matches!(event.kind, Kind::Container | Kind::Image) {
        all.insert("status".into(), event.action.as_str().into());
        all.insert("id".into(), event.id.as_str().into());
    }
    if let (Kind::Container, Some(image)) = (event.kind, event.attributes.get("image")) {
        all.insert("from".into(), image.as_str().into());
    }
    all.insert("Type".into(), event.kind.word().into());
    all.insert("Action".into(), event.action.as_str().into());
    all.insert("Actor".into(), json!({ "ID": event.id, "Attributes": event.attributes }));
    all.insert("scope".into(), "local".into());
    all.insert("time".into(), event.time.as_second().into());
    all.insert("timeNano".into(), nanoseconds(event).into());
    Value::Object(all)
}

/// Docker's fields, and podman's `Name` and `Image`.
fn as_fields(event: &Event) -> Value {
    let attribute = |key: &str| event.attributes.get(key).cloned().unwrap_or_default();
    json!({
        "Status": event.action,
        "ID": event.id,
        "From": if event.kind == Kind::Container { attribute("image") } else { String::new() },
        "Type": event.kind.word(),
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "Scope": "local",
        "Time": event.time.as_second(),
        "TimeNano": nanoseconds(event),
        "Name": attribute("name"),
        "Image": attribute("image"),
    })
}

fn nanoseconds(event: &Event) -> i64 {
    i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// Docker's rules: values of one key are alternatives, keys must all fit; names and ids may be beginnings.
fn fits(filters: &Filters, event: &Event) -> bool {
    let name = event.attributes.get("name").map_or("", String::as_str);
    let begins_so = |key: &str| {
        let values = filters.values(key);
        values.is_empty()
            || event.kind.word() == key
                && values.iter().any(|v| event.id.starts_with(v.as_str()) || name.starts_with(v.as_str()))
    };
    is_action(filters.values("event"), &event.action)
        && filters.is_one_of("type", event.kind.word())
        && filters.is_one_of("scope", "local")
        && begins_so("container")
        && begins_so("volume")
        && begins_so("network")
        && is_image(filters.values("image"), event)
        && filters.match_labels(|key| event.attributes.get(key).map(String::as_str))
}

fn is_action(wanted: &[String], action: &str) -> bool {
    // These actions go on with what was run, or found: `exec_start: sh`, `health_status: healthy`.
    let (word, _) = action.split_once(':').unwrap_or((action, ""));
    wanted.is_empty() || wanted.iter().any(|w| w == action || w == word)
}

fn is_image(wanted: &[String], event: &Event) -> bool {
    let key = if event.kind == Kind::Image { "name" } else { "image" };
    let name = event.attributes.get(key).map_or("", String::as_str);
    let bare = |text: &str| match text.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository.to_owned(),
        _ => text.to_owned(),
    };
    let own_id = if event.kind == Kind::Image { event.id.as_str() } else { "" };
    wanted.is_empty()
        || wanted
            .iter()
            .any(|w| !w.is_empty() && (w == name || *w == bare(name) || w == own_id || *w == bare(own_id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, action: &str, id: &str) -> Event {
        let mut event = Event::now(kind, action, id);
        event.time = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        event
    }

    fn start() -> Event {
        event(Kind::Container, "start", "abc")
            .with("image", "busybox:1")
            .with("name", "web")
            .with("tier", "a\nb")
    }

    #[test]
    fn shapes() {
        let line = |format: Option<&str>| Shape::of(format).unwrap().line(&start()).unwrap();
        let plain =
            "2026-01-02T03:04:05.000000006Z container start abc (image=busybox:1, name=web, tier=a\\nb)\n";
        assert_eq!(line(None), plain);
        let json = r#"{"status":"start","id":"abc","from":"busybox:1","Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"busybox:1","name":"web","tier":"a\nb"}},"scope":"local","time":1767323045,"timeNano":1767323045000000006}"#;
        assert_eq!(line(Some("json")), format!("{json}\n"));
        assert_eq!(line(Some("{{json .}}")), format!("{json}\n"));
        let template =
            "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.none}} {{.Time}}";
        assert_eq!(line(Some(template)), "container start web <no value> 1767323045\n");
        assert!(Shape::of(Some("{{")).is_err());
    }

    #[test]
    fn filters() {
        let check = |words: &[&str], event: &Event| fits(&Filters::parse(words, FILTERS).unwrap(), event);
        let image = event(Kind::Image, "tag", "sha256:12").with("name", "localhost:5000/app:1");
        for (words, of_container, of_image) in [
            (&[][..], true, true),
            (&["type=container"], true, false),
            (&["type=image", "type=volume"], false, true),
            (&["event=start", "event=stop"], true, false),
            (&["event=sta"], false, false),
            (&["container=web"], true, false),
            (&["container=we"], true, false),
            (&["container=ab"], true, false),
            (&["container=x"], false, false),
            (&["container=web", "event=die"], false, false),
            (&["image=busybox"], true, false),
            (&["image=busybox:1"], true, false),
            (&["image=busybox:2"], false, false),
            (&["image=localhost:5000/app"], false, true),
            (&["image=sha256:12"], false, true),
            (&["label=tier"], true, false),
            (&["label=tier=a\nb"], true, false),
            (&["label=tier=c"], false, false),
            (&["volume=web"], false, false),
            (&["scope=local"], true, true),
        ] {
            assert_eq!(check(words, &start()), of_container, "{words:?}");
            assert_eq!(check(words, &image), of_image, "{words:?}");
        }
        let health = event(Kind::Container, "health_status: healthy", "abc");
        assert!(
            check(&["event=health_status"], &health) && check(&["event=health_status: healthy"], &health)
        );
        assert!(!check(&["event=health_status: unhealthy"], &health));
    }
}
