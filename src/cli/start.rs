//! start.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{detach_keys, each, many, names, read_detach_keys, switch};
use super::run::code_of;
use super::{Session, events, out};
use crate::engine::attach::{Signals, follow};
use crate::engine::start;
use crate::engine::start::StartOptions;
use crate::error::ResultExt;

pub(super) fn start_args(command: Command) -> Command {
    command
        .arg(switch("attach", Some('a'), "Stay, with the container's output"))
        .arg(switch("interactive", Some('i'), "Pass stdin on"))
        .arg(detach_keys())
        .arg(names(true, "CONTAINER"))
}

pub(super) fn start_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let names = many(matches, "names");
    let input = matches.get_flag("interactive");
    let attach = matches.get_flag("attach") || input;
    let keys = read_detach_keys(matches)?;
    if attach && names.len() > 1 {
        return Err(anyhow!("cannot attach to {} containers at once", names.len()))
            .hint("start them without -a");
    }
    let signals = if attach { Some(Signals::catch()?) } else { None };
    let engine = session.engine_as_root()?;
    let options = StartOptions { foreground: attach, stdin: input };
    if let (Some(signals), [name]) = (signals, &names[..]) {
        let client = start::start(&engine, name, options, &mut events)?;
        let client = client.ok_or_else(|| anyhow!("cannot start {name}: it is running"))?;
        return Ok(code_of(follow(client, &signals, input, keys)?));
    }
    each(&names, |name| {
        start::start(&engine, name, options, &mut events)?;
        out::out(&format!("{name}\n"))?;
        Ok(())
    })
}
