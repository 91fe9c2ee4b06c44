//! Restart policies: whether a container runs again when it ended.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::error::ResultExt;

/// A restart policy, by docker's words. What a person stopped stays stopped under each of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// `no`.
    #[default]
    No,
    /// `on-failure[:MOST]`: if its exit code was not 0, at most so often; 0 is for ever.
    OnFailure(u32),
    /// `always`; `boot` starts it even if it was stopped.
    Always,
    /// `unless-stopped`: `boot` leaves alone what was stopped.
    UnlessStopped,
}

impl Restart {
    /// Whether a run that ended with `code`, after `count` restarts, is followed by another.
    pub fn wants(self, code: i32, count: u32) -> bool {
        match self {
            Restart::No => false,
            Restart::OnFailure(most) => code != 0 && (most == 0 || count < most),
            Restart::Always | Restart::UnlessStopped => true,
        }
    }

    /// Whether it is `no`.
    pub fn is_no(&self) -> bool {
        *self == Restart::No
    }

    /// Docker's name of it, without the number.
    pub fn name(self) -> &'static str {
        match self {
            Restart::No => "no",
            Restart::OnFailure(_) => "on-failure",
            Restart::Always => "always",
            Restart::UnlessStopped => "unless-stopped",
        }
    }

    /// The number of `on-failure:MOST`, 0 for all others.
    pub fn most(self) -> u32 {
        if let Restart::OnFailure(most) = self { most } else { 0 }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.most() {
            0 => f.write_str(self.name()),
            most => write!(f, "{}:{most}", self.name()),
        }
    }
}

impl FromStr for Restart {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Restart> {
        let (name, most) = match text.split_once(':') {
            Some((name, most)) => (name, Some(most)),
            None => (text, None),
        };
        let policy = match name {
            "" | "no" => Restart::No,
            "on-failure" => {
                let most = most.unwrap_or("0").parse();
                return most.map(Restart::OnFailure).map_err(|_| {
                    anyhow!("cannot use the restart policy {text:?}: the maximum retry count is not a number")
                });
            }
            "always" => Restart::Always,
            "unless-stopped" => Restart::UnlessStopped,
            _ => {
                return Err(anyhow!("cannot use the restart policy {text:?}: there is no such policy"))
                    .hint("it is no, on-failure[:MAX], always or unless-stopped");
            }
        };
        if most.is_some() {
            bail!("cannot use the restart policy {text:?}: a maximum retry count goes with on-failure only");
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_shown() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(text.parse::<Restart>().unwrap().to_string(), text);
        }
        assert_eq!("".parse::<Restart>().unwrap(), Restart::No);
        for text in
            ["never", "always:3", "no:1", "on-failure:x", "on-failure:-1", "on-failure:", ":", "ALWAYS"]
        {
            assert!(text.parse::<Restart>().is_err(), "{text}");
        }
    }

    #[test]
    fn policies_decide() {
        let check = |text: &str, code, count, wanted| {
            assert_eq!(text.parse::<Restart>().unwrap().wants(code, count), wanted, "{text} {code} {count}");
        };
        check("no", 1, 0, false);
        check("always", 0, 1000, true);
        check("unless-stopped", 0, 0, true);
        check("on-failure", 0, 0, false);
        check("on-failure", 1, 1_000_000, true);
        check("on-failure:2", 137, 1, true);
        check("on-failure:2", 137, 2, false);
    }
}
