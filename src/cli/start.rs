//! start.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{each, many, names, switch};
use super::run::code_of;
use super::{Session, events, life_flags, out};
use crate::engine::attach::{Signals, follow};
use crate::engine::guest;
use crate::engine::start;
use crate::engine::start::StartOptions;
use crate::error::ResultExt;
use crate::spec::options::Options;

pub(super) fn start_args(command: Command) -> Command {
    life_flags::add_stay(command)
        .arg(switch("attach", Some('a'), "Stay, with the container's output"))
        .arg(switch("interactive", Some('i'), "Pass stdin on"))
        .arg(names(true, "CONTAINER"))
}

pub(super) fn start_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let names = many(matches, "names");
    let input = matches.get_flag("interactive");
    let attach = matches.get_flag("attach") || input;
    let stay = life_flags::stay(matches, input)?;
    if attach && names.len() > 1 {
        return Err(anyhow!("cannot attach to {} containers at once", names.len()))
            .hint("start them without -a");
    }
    let signals = if attach { Some(Signals::catch()?) } else { None };
    let options = match attach {
        true => StartOptions { may_leave: !stay.sig_proxy, ..StartOptions::foreground(input) },
        false => StartOptions::default(),
    };
    if let (Some(signals), [name]) = (&signals, &names[..]) {
        // One that runs already is attached to. Before we are root of a name space of our own, from which those of the
        // containers cannot be reached.
        let engine = session.engine()?;
        if engine.alive(name).is_ok() {
            return Ok(code_of(guest::attach(&engine, name, signals, stay, &mut events)?));
        }
    }
    session.reach_outside_for(&names)?;
    let first = options_of(session, &names);
    let (engine, entering) = session.engine_entering_for(&first)?;
    entering.finish()?;
    if let (Some(signals), [name]) = (signals, &names[..]) {
        let client = start::start(&engine, name, options, &mut events)?;
        let client = client.ok_or_else(|| anyhow!("cannot start {name}: it is running"))?;
        return Ok(code_of(follow(client, &signals, stay)?));
    }
    each(&names, |name| {
        start::start(&engine, name, options, &mut events)?;
        out::out(&format!("{name}\n"))?;
        Ok(())
    })
}

/// What the first of them was made with; what is wrong with it is told by who starts it.
fn options_of(session: &mut Session, names: &[&str]) -> Options {
    let mut read = |name: &str| {
        let record = session.engine()?.find(name)?.record()?;
        Ok::<_, anyhow::Error>(serde_json::from_value(record.options)?)
    };
    names.first().and_then(|name| read(name).ok()).unwrap_or_default()
}
