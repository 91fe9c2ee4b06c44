//! Asking before much is removed.

use std::io::BufRead;

use anyhow::{Result, anyhow};

use super::out;
use crate::error::ResultExt;

/// Asks in docker's words; true if the answer is yes. Standard input that has nothing to say is an error: a script has to
/// decide for itself.
pub(super) fn confirm(warning: &str) -> Result<bool> {
    out::out(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    let n =
        std::io::stdin().lock().read_line(&mut answer).map_err(|e| anyhow!("cannot read the answer: {e}"))?;
    if n == 0 {
        out::out("\n")?;
        return Err(anyhow!("nothing was removed: nobody answered")).hint("-f does not ask").exit_with(1);
    }
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
