//! Health checks: which one a container gets, and running it now.

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::sockopt::{self, Timeout};

use super::Engine;
use crate::error::ResultExt;
use crate::store::container::Status;
use crate::store::health::Healthcheck;
use crate::supervisor::{self, Control};
use std::os::fd::AsFd;

/// The check of a container: what was asked for, and the image's (from its config) for what was not. `None` if there is
/// nothing to run. An error where a startup check would have none to go before.
pub(super) fn healthcheck(asked: Healthcheck, image_config: Option<&[u8]>) -> Result<Option<Healthcheck>> {
    let is_alone = asked.startup.is_some();
    let check = merged(asked, image_config);
    if is_alone && check.as_ref().and_then(Healthcheck::command).is_none() {
        return Err(anyhow!("cannot use --health-startup-cmd: there is no health check for it to go before"))
            .hint("give one: --health-cmd COMMAND");
    }
    Ok(check)
}

fn merged(asked: Healthcheck, image_config: Option<&[u8]>) -> Option<Healthcheck> {
    let of_image = image_config.map(of_image).unwrap_or_default();
    let either = |asked: i64, other: i64| if asked == 0 { other } else { asked };
    let check = Healthcheck {
        test: if asked.test.is_empty() { of_image.test } else { asked.test },
        interval: either(asked.interval, of_image.interval),
        timeout: either(asked.timeout, of_image.timeout),
        start_period: either(asked.start_period, of_image.start_period),
        start_interval: either(asked.start_interval, of_image.start_interval),
        retries: either(asked.retries, of_image.retries),
        shell: of_image.shell,
        on_failure: asked.on_failure,
        startup: asked.startup,
    };
    // One that says NONE is kept, for inspect.
    (!check.test.is_empty()).then_some(check)
}

/// The specification's type does not know the field. Most images have none, and are not parsed once more for it.
fn of_image(config: &[u8]) -> Healthcheck {
    if memchr::memmem::find(config, b"\"Healthcheck\"").is_none()
        && memchr::memmem::find(config, b"\"Shell\"").is_none()
    {
        return Healthcheck::default();
    }
    let document: serde_json::Value = serde_json::from_slice(config).unwrap_or_default();
    let field = |name: &str| document.get("config").and_then(|config| config.get(name)).cloned();
    let check = field("Healthcheck").and_then(|value| serde_json::from_value::<Healthcheck>(value).ok());
    let shell = field("Shell").and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    // What else an image may put there is not for it to say.
    Healthcheck { shell, on_failure: Default::default(), startup: None, ..check.unwrap_or_default() }
}

/// What a check that was run by hand came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The check succeeded.
    pub is_healthy: bool,
    /// What the container is now: starting, healthy, unhealthy.
    pub status: String,
}

/// Runs the check of a container, or waits for the one that is under way.
pub fn run(engine: &Engine, wanted: &str) -> Result<Ran> {
    let about = || format!("cannot check {wanted}");
    let dir = engine.find(wanted)?;
    if dir.record()?.healthcheck.as_ref().and_then(Healthcheck::command).is_none() {
        return Err(anyhow!("it has no health check"))
            .with_context(about)
            .hint("dhow run --health-cmd COMMAND");
    }
    if !matches!(super::reap::settled(&engine.store, &dir)?, Status::Running(_) | Status::Paused(_)) {
        return Err(anyhow!("it is not running")).with_context(about);
    }
    let socket =
        supervisor::connect(&dir).with_context(about)?.context("it has just ended").with_context(about)?;
    // A check takes as long as it takes; its supervisor ends it.
    sockopt::set_socket_timeout(socket.as_fd(), Timeout::Recv, None).with_context(about)?;
    socket.send(&Control::Check, None).with_context(about)?;
    match socket.receive::<Control>().with_context(about)? {
        Some((Control::Checked { is_healthy, status }, _)) => Ok(Ran { is_healthy, status }),
        Some((Control::Failed(failure), _)) => Err(failure.into_error()).with_context(about),
        Some((other, _)) => bail!("{}: unexpected {other:?} from its supervisor", about()),
        None => bail!("{}: it has just ended", about()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_goes_before_the_image() {
        let image = br#"{"config": {"Shell": ["/bin/bash", "-c"], "Healthcheck":
            {"Test": ["CMD-SHELL", "curl x"], "Interval": 5000000000, "Retries": 7, "on_failure": "kill"}}}"#;
        let asked = |test: &[&str], retries| Healthcheck {
            test: test.iter().map(|w| (*w).to_owned()).collect(),
            retries,
            ..Healthcheck::default()
        };
        let of = merged(asked(&[], 0), Some(image)).unwrap();
        assert_eq!((of.interval, of.retries), (5_000_000_000, 7));
        assert_eq!(of.command().unwrap(), ["/bin/bash", "-c", "curl x"]);
        assert_eq!(of.on_failure, Default::default(), "not for an image to say");
        assert_eq!(merged(asked(&["CMD", "x"], 1), Some(image)).unwrap().command().unwrap(), ["x"]);
        assert!(merged(asked(&["NONE"], 0), Some(image)).unwrap().command().is_none());
        assert_eq!(merged(asked(&[], 4), Some(b"{}")), None);
        assert_eq!(merged(asked(&[], 0), None), None);
        let startup = |test: &[&str]| Healthcheck { startup: Some(Default::default()), ..asked(test, 0) };
        assert!(
            healthcheck(startup(&[]), None).is_err() && healthcheck(startup(&["NONE"]), Some(image)).is_err()
        );
        assert!(healthcheck(startup(&[]), Some(image)).unwrap().unwrap().startup.is_some());
        for odd in [
            &b"{\"Healthcheck\""[..],
            b"{\"config\":{\"Healthcheck\":3}}",
            b"{\"config\":{\"Healthcheck\":{\"Test\":\"x\"}}}",
        ] {
            assert_eq!(merged(asked(&[], 0), Some(odd)), None);
        }
    }
}
