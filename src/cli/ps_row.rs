//! A container as one line of `ps`: docker's placeholders.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::format::{human, quote};
use super::port_column;
use crate::engine::list::Listed;
use crate::engine::size::Size;
use crate::store::container::Status;

/// How long a mount's name may be.
const NAME_LENGTH: usize = 15;

/// `zone` is the caller's; the size is shown where it is known.
pub(in crate::cli) fn row(c: &Listed, size: Option<Size>, zone: &TimeZone, no_trunc: bool) -> Value {
    let now = Timestamp::now();
    let record = &c.record;
    let program = c.command.first().map_or("", String::as_str);
    let line = quote::command_line(program, c.command.get(1..).unwrap_or_default());
    let id = if no_trunc { &record.id } else { quote::short_id(&record.id) };
    let mounts = c.mounts();
    let shown = |name: &String| if no_trunc { name.clone() } else { shortened(name) };
    json!({
        "ID": id,
        "Names": record.name,
        "Image": c.image(),
        "Command": quote::command_column(&line, no_trunc),
        "CreatedAt": human::created_at(record.created, zone),
        "RunningFor": human::ago(record.created, now),
        "Ports": port_column::column(c.ports()),
        "State": c.state(),
        "Status": status(&c.status, c.health(), now),
        "HealthStatus": c.health().unwrap_or_default(),
        "Size": size.map_or_else(|| "0B".to_owned(), size_text),
        "Labels": record.labels,
        "Mounts": mounts.iter().map(|m| shown(&m.name)).collect::<Vec<_>>(),
        "LocalVolumes": mounts.iter().filter(|m| m.is_volume).count().to_string(),
        "Networks": c.networks(),
        "Platform": "linux",
    })
}

fn size_text(size: Size) -> String {
    let rw = human::size(size.rw);
    if size.root > 0 { format!("{rw} (virtual {})", human::size(size.root)) } else { rw }
}

/// Docker's ellipsis: the last of the characters that are left is one.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME_LENGTH - 1) {
        Some((at, _)) if name.chars().count() > NAME_LENGTH => format!("{}…", &name[..at]),
        _ => name.to_owned(),
    }
}

/// What docker says of a state, in words.
fn status(status: &Status, health: Option<&str>, now: Timestamp) -> String {
    let up = |started| format!("Up {}", human::duration(now.duration_since(started)));
    match status {
        Status::Running(state) => match health {
            None | Some("none") => up(state.started_at),
            Some("starting") => format!("{} (health: starting)", up(state.started_at)),
            Some(health) => format!("{} ({health})", up(state.started_at)),
        },
        Status::Paused(state) => format!("{} (Paused)", up(state.started_at)),
        Status::Restarting(_, exit) => {
            format!("Restarting ({}) {}", exit.code, human::ago(exit.finished_at, now))
        }
        Status::Exited(exit) | Status::Starting(Some(exit)) => {
            format!("Exited ({}) {}", exit.code, human::ago(exit.finished_at, now))
        }
        Status::Dead(_) => "Exited (137)".to_owned(),
        Status::Created | Status::Starting(None) => "Created".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::container::{Exit, State};

    #[test]
    fn states_in_words() {
        let state: State = serde_json::from_value(json!({
            "supervisor": {"pid": 1, "start_time": 1}, "init": {"pid": 2, "start_time": 1},
            "started_at": "2026-01-31T15:00:00Z", "driver": "overlay", "cgroup": null,
        }))
        .unwrap();
        let exit = Exit {
            code: 1,
            finished_at: "2026-01-31T15:04:02Z".parse().unwrap(),
            oom_killed: false,
            error: String::new(),
        };
        let now: Timestamp = "2026-01-31T15:04:05Z".parse().unwrap();
        let check = |s: Status, health: Option<&str>, want: &str| assert_eq!(status(&s, health, now), want);
        check(Status::Running(state.clone()), None, "Up 4 minutes");
        check(Status::Running(state.clone()), Some("none"), "Up 4 minutes");
        check(Status::Running(state.clone()), Some("starting"), "Up 4 minutes (health: starting)");
        check(Status::Running(state.clone()), Some("unhealthy"), "Up 4 minutes (unhealthy)");
        check(Status::Paused(state.clone()), Some("healthy"), "Up 4 minutes (Paused)");
        check(Status::Restarting(state, exit.clone()), Some("healthy"), "Restarting (1) 3 seconds ago");
        check(Status::Exited(exit), None, "Exited (1) 3 seconds ago");
        check(Status::Created, None, "Created");
    }

    #[test]
    fn sizes_and_names() {
        assert_eq!(size_text(Size { rw: 5, root: 5_664_198 }), "5B (virtual 5.66MB)");
        assert_eq!(size_text(Size::default()), "0B");
        assert_eq!(shortened(&"a".repeat(64)), format!("{}…", "a".repeat(14)));
        assert_eq!(shortened("/a/directory/15"), "/a/directory/15");
    }
}
