//! Health checks: what was asked for (part of a container's record), and what came of it (DIR/health.json, written by the
//! supervisor). The words and fields are docker's.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::container::ContainerDir;
use crate::fs;

/// A container's health check. Spans of time are in nanoseconds, as in images; what is 0 was not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `CMD` and a command line, or `CMD-SHELL` and a script, or `NONE`; empty: the image's.
    #[serde(deserialize_with = "null_is_empty")]
    pub test: Vec<String>,
    /// From the end of one check to the next.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long a check may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// As long after the start as failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// The interval in that time.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row until it is unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// The image's shell for `CMD-SHELL`; empty: /bin/sh -c.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// What becomes of a container that is unhealthy.
    #[serde(skip_serializing_if = "OnFailure::is_none")]
    pub on_failure: OnFailure,
    /// Another check, that must succeed before this one begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Box<Startup>>,
}

/// A startup check, as podman has it: as long as it goes on, the container is starting, whatever comes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Startup {
    /// What is run, with its interval and its timeout; `retries` failures in all make the container start again, none ever
    /// does where that is 0.
    #[serde(flatten)]
    pub check: Healthcheck,
    /// So many successes end it; 0 is as 1.
    pub successes: i64,
}

impl Startup {
    /// What so many successes and failures come to.
    pub fn outcome(&self, n_successes: u64, n_failures: u64) -> StartupOutcome {
        let asked = |n: i64| u64::try_from(n).unwrap_or_default();
        if n_successes >= asked(self.successes).max(1) {
            StartupOutcome::Started
        } else if self.check.retries > 0 && n_failures >= asked(self.check.retries) {
            StartupOutcome::Hopeless
        } else {
            StartupOutcome::GoesOn
        }
    }
}

/// How far a container got by its startup check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartupOutcome {
    /// Neither.
    GoesOn,
    /// The check proper begins.
    Started,
    /// The container is started again.
    Hopeless,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

/// `--health-on-failure`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is said, and that is all.
    #[default]
    None,
    /// It is killed; its restart policy says what then.
    Kill,
    /// It is stopped and started again.
    Restart,
    /// It is stopped.
    Stop,
}

impl OnFailure {
    fn is_none(&self) -> bool {
        *self == OnFailure::None
    }
}

impl Healthcheck {
    /// The command line; `None` if there is nothing to run.
    pub fn command(&self) -> Option<Vec<String>> {
        let (kind, rest) = self.test.split_first()?;
        match kind.as_str() {
            "CMD" if !rest.is_empty() => Some(rest.to_vec()),
            "CMD-SHELL" if !rest.is_empty() => {
                let mut words = self.shell.clone();
                if words.is_empty() {
                    words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
                }
                words.push(rest[0].clone());
                Some(words)
            }
            _ => None,
        }
    }

    /// From the end of a check to the next one; `starting`: it has not been healthy yet, and its start period goes on.
    pub fn interval(&self, starting: bool) -> Duration {
        let (asked, default) = if starting { (self.start_interval, 5) } else { (self.interval, 30) };
        span(asked).unwrap_or(Duration::from_secs(default))
    }

    /// How long a check may take.
    pub fn timeout(&self) -> Duration {
        span(self.timeout).unwrap_or(Duration::from_secs(30))
    }

    /// See the field.
    pub fn start_period(&self) -> Duration {
        span(self.start_period).unwrap_or_default()
    }

    /// Failures in a row until it is unhealthy.
    pub fn retries(&self) -> u64 {
        u64::try_from(self.retries).ok().filter(|n| *n > 0).unwrap_or(3)
    }
}

/// An image may say anything: what is no span of time was not asked for.
fn span(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().filter(|n| *n > 0).map(Duration::from_nanos)
}

/// What checks came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// starting, healthy or unhealthy.
    pub status: String,
    /// Failures since the last success.
    pub failing_streak: u64,
    /// The last checks, oldest first.
    pub log: VecDeque<Checked>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Checked {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0: healthy; -1: it could not be run, or took too long.
    pub exit_code: i32,
    /// The first 4096 bytes of what it wrote.
    pub output: String,
}

/// As many checks are remembered.
const MOST: usize = 5;

impl Default for Health {
    fn default() -> Health {
        Health { status: "starting".into(), failing_streak: 0, log: VecDeque::new() }
    }
}

impl Health {
    /// Takes the result of a check; whether the status changed. `forgiven`: the start period goes on.
    pub fn add(&mut self, checked: Checked, retries: u64, forgiven: bool) -> bool {
        let before = self.status.clone();
        if checked.exit_code == 0 {
            self.failing_streak = 0;
            self.status = "healthy".into();
        } else if !(forgiven && self.status == "starting") {
            self.failing_streak += 1;
            if self.failing_streak >= retries {
                self.status = "unhealthy".into();
            }
        }
        self.note(checked);
        self.status != before
    }

    /// Takes the result of a startup check, which says nothing of the status.
    pub fn note(&mut self, checked: Checked) {
        self.log.push_back(checked);
        while self.log.len() > MOST {
            self.log.pop_front();
        }
    }
}

/// The name of the file in the container's directory.
const FILE: &str = "health.json";

/// What the checks of a container came to; `None` where it has none, or has not been started.
pub fn read(dir: &ContainerDir) -> Option<Health> {
    serde_json::from_slice(&fs::read(&dir.file(FILE)).ok()?).ok()
}

/// Forgets what the last run's checks came to: the next one's are not to be taken for healthy by it.
pub fn forget(dir: &ContainerDir) {
    let _ = fs::remove_file(&dir.file(FILE));
}

/// Writes it down. Best effort: a full disk makes nobody ill.
pub fn write(dir: &ContainerDir, health: &Health) {
    if let Ok(bytes) = serde_json::to_vec(health) {
        let _ = fs::write_atomic(&dir.file(FILE), &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(exit_code: i32) -> Checked {
        let now = Timestamp::now();
        Checked { start: now, end: now, exit_code, output: String::new() }
    }

    #[test]
    fn failures_in_a_row_make_unhealthy_and_one_success_healthy() {
        let mut health = Health::default();
        let mut check = |code, forgiven, changes: bool, status: &str, streak| {
            assert_eq!(health.add(checked(code), 2, forgiven), changes);
            assert_eq!((health.status.as_str(), health.failing_streak), (status, streak));
        };
        check(1, true, false, "starting", 0);
        check(1, false, false, "starting", 1);
        check(0, false, true, "healthy", 0);
        check(1, true, false, "healthy", 1);
        check(-1, false, true, "unhealthy", 2);
        check(1, false, false, "unhealthy", 3);
        check(0, false, true, "healthy", 0);
        assert_eq!(health.log.len(), MOST);
    }

    #[test]
    fn startup_ends_with_enough_of_either() {
        use StartupOutcome::{GoesOn, Hopeless, Started};
        let check = |successes, retries, n_successes, n_failures, wanted| {
            let startup = Startup { successes, check: Healthcheck { retries, ..Healthcheck::default() } };
            assert_eq!(startup.outcome(n_successes, n_failures), wanted, "{successes} {retries}");
        };
        check(0, 0, 0, 1000, GoesOn);
        check(0, 0, 1, 1000, Started);
        check(2, 3, 1, 2, GoesOn);
        check(2, 3, 2, 2, Started);
        check(2, 3, 1, 3, Hopeless);
    }

    #[test]
    fn commands_and_spans() {
        let of = |test: &[&str]| Healthcheck {
            test: test.iter().map(|w| (*w).to_owned()).collect(),
            ..Healthcheck::default()
        };
        assert_eq!(of(&["CMD", "a", "b"]).command().unwrap(), ["a", "b"]);
        assert_eq!(of(&["CMD-SHELL", "a b"]).command().unwrap(), ["/bin/sh", "-c", "a b"]);
        let shell = Healthcheck { shell: vec!["bash".into(), "-ec".into()], ..of(&["CMD-SHELL", "x"]) };
        assert_eq!(shell.command().unwrap(), ["bash", "-ec", "x"]);
        for none in [&["NONE"][..], &[], &["CMD"], &["WHAT", "x"]] {
            assert!(of(none).command().is_none(), "{none:?}");
        }
        let odd: Healthcheck = serde_json::from_str(
            r#"{"Test": null, "Interval": -5, "Timeout": 9223372036854775807, "Retries": -1}"#,
        )
        .unwrap();
        assert_eq!(odd.interval(false).as_secs(), 30);
        assert_eq!(odd.retries(), 3);
        assert!(odd.timeout().as_secs() > 1_000_000);
    }
}
