//! update.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{each, many, names};
use super::run_flags::one;
use super::{Session, life_flags, out, run_flags};
use crate::engine::update;
use crate::engine::update::Change;
use crate::error::ResultExt;
use crate::spec::options::Limits;

pub(super) fn update_args(command: Command) -> Command {
    run_flags::add_limits(command).arg(life_flags::restart_arg()).arg(names(true, "CONTAINER"))
}

pub(super) fn update_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let restart = one(matches, "restart").map(str::parse).transpose()?;
    let change = Change { limits: run_flags::limits(matches)?, restart };
    if change.limits == Limits::default() && change.restart.is_none() {
        return Err(anyhow!("cannot update: nothing is to be changed"))
            .hint("give a limit, such as --memory, or --restart");
    }
    let engine = session.engine()?;
    each(&many(matches, "names"), |name| {
        update::update(&engine, name, &change)?;
        out::out(&format!("{name}\n"))?;
        Ok(())
    })
}
