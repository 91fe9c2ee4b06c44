//! boot.

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::flags::{exclude, switch};
use super::{Session, out};
use crate::engine::boot::{self, Outcome};
use crate::engine::boot_hooks;

pub(super) fn boot_args(command: Command) -> Command {
    command
        .arg(switch("once", None, "Do nothing if it was done since the machine started"))
        .arg(switch("quiet", Some('q'), "Print nothing but errors"))
        .arg(switch("print", None, "Show an entry for cron and a unit for systemd that run it"))
        .arg(switch("install", None, "Put both in place"))
        .arg(switch("uninstall", None, "Take both away"))
}

pub(super) fn boot_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    exclude(matches, "print", &["install", "uninstall"])?;
    exclude(matches, "install", &["uninstall"])?;
    let engine = session.engine()?;
    if matches.get_flag("print") {
        let hooks = boot_hooks::hooks(&engine)?;
        let path = hooks.unit_path.display();
        out::out(&format!(
            "# For cron: crontab -e\n{}\n\n# For systemd: {path}\n{}",
            hooks.cron, hooks.unit
        ))?;
        return Ok(0);
    }
    if matches.get_flag("install") || matches.get_flag("uninstall") {
        let hooks = boot_hooks::hooks(&engine)?;
        for line in boot_hooks::install(&engine.host, &hooks, matches.get_flag("install"))? {
            out::err(&format!("{line}\n"));
        }
        return Ok(0);
    }
    let once = if matches.get_flag("once") {
        let Some(once) = boot::once(&engine.store)? else { return Ok(0) };
        Some(once)
    } else {
        None
    };
    let quiet = matches.get_flag("quiet");
    let (mut n_started, mut n_failed) = (0, 0);
    boot::start(&engine, &boot::wanted(&engine)?, &mut |name, outcome| match outcome {
        Outcome::Started => {
            n_started += 1;
            if !quiet {
                let _ = out::out(&format!("{name}\n"));
            }
        }
        Outcome::Failed(said) => {
            n_failed += 1;
            out::err(&said);
        }
    })?;
    if let Some(once) = once {
        once.done()?;
    }
    if !quiet || n_failed > 0 {
        out::err(&format!("dhow: {n_started} started, {n_failed} failed\n"));
    }
    Ok(u8::from(n_failed > 0))
}
