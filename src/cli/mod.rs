//! argv <-> text. One file per verb: flags -> options, one call, render. Nothing else in the program prints.

mod ask;
mod attach;
mod boot;
mod choose;
mod commit;
mod complete;
mod connect;
mod cp;
mod defaults;
mod env_flags;
mod events;
mod exec;
mod fd_flags;
mod flags;
pub mod format;
mod health_flags;
mod healthcheck;
mod held;
mod host_flags;
mod id_files;
mod image;
mod image_copy;
mod image_inspect;
mod images;
mod inspect;
mod job_flags;
mod life_flags;
mod log_flags;
mod login;
mod logs;
mod man;
mod manifest;
mod mount_fields;
mod mount_flags;
mod namespace_flags;
mod network;
mod network_alias;
mod network_flags;
mod network_values;
mod out;
mod parse;
mod pause;
mod port;
mod port_column;
mod port_flags;
mod progress;
mod prompt;
mod ps;
mod ps_filter;
mod ps_row;
mod pull;
mod push;
mod registry_flags;
mod rename;
mod restart;
mod retry;
mod rm;
mod run;
mod run_flags;
mod search;
mod secret;
mod security_flags;
mod shell;
mod start;
mod stats;
mod stop;
mod system;
mod top;
mod update;
mod user_flags;
mod verbs;
mod volume;
mod wait;
mod zone;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};

use defaults::Typed;

use crate::config::Config;
use crate::endpoint::Network;
use crate::engine::{Engine, shares};
use crate::error::{self, ExitWith};
use crate::event::Event;
use crate::host::{self, Host};
use crate::network::forward::hold::{self, Given, Hold};
use crate::network::place;
use crate::spec::options::Options;
use crate::store::{Store, additional};
use crate::supervisor::ports::Ports;
use crate::userns::{self, Entering};

/// A verb: its name, its place in the help, its flags, what it does.
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Other spellings: `ls`, `container ls`.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) flags: fn(Command) -> Command,
    pub(crate) run: fn(&ArgMatches, &mut Session) -> Result<u8>,
}

/// What a verb gets.
pub(crate) struct Session {
    pub(crate) host: Host,
    /// What config.toml says.
    pub(crate) config: Config,
    /// Stores that are only read.
    additional_stores: Vec<PathBuf>,
    /// The store, once it is open.
    store: Option<Store>,
    /// A user's forwarder, as long as we need it.
    forward: Option<(Hold, Given)>,
    /// It was looked for.
    is_forward_seen: bool,
}

impl Session {
    /// The engine, for verbs that only read.
    pub(crate) fn engine(&mut self) -> Result<Engine> {
        self.heal_forward();
        self.open()
    }

    /// A user's forwarder that was killed is started again by whatever is done next. Once, and before we are root of a name
    /// space.
    fn heal_forward(&mut self) {
        if std::mem::replace(&mut self.is_forward_seen, true) || !place::is_shared(&self.host) {
            return;
        }
        match hold::heal(&self.host.data, &mut out::warn) {
            Ok(healed) => self.forward = healed,
            // What was asked for may well be done without.
            Err(error) => out::warn(&error::chain(&error)),
        }
    }

    fn open(&mut self) -> Result<Engine> {
        let host = self.host.clone();
        if let Some(store) = &self.store {
            return Ok(Engine { store: store.with_ids(host.ids.clone()), host });
        }
        let mut engine = Engine::open(host)?;
        engine.store.additional.clone_from(&self.additional_stores);
        self.store = Some(engine.store.clone());
        Ok(engine)
    }

    /// The engine, root of a user name space if we are not root: for verbs that make, start or remove.
    pub(crate) fn engine_as_root(&mut self) -> Result<Engine> {
        let (engine, entering) = self.engine_entering()?;
        entering.finish()?;
        Ok(engine)
    }

    /// The same for a container that is to be made from these options: a user joins the user name space of a container whose
    /// other name spaces it is to be in.
    pub(crate) fn engine_entering_for(&mut self, options: &Options) -> Result<(Engine, Entering)> {
        if options.network == Network::Own {
            self.reach_outside()?;
        }
        if !self.host.is_rootless() || !shares::is_any(options) {
            return self.engine_entering();
        }
        match shares::host_of(&self.engine()?, options) {
            Some(supervisor) => {
                userns::join(&self.host, &supervisor)?;
                self.host.ids = host::current_ids()?;
                Ok((self.open()?, Entering::done()))
            }
            None => self.engine_entering(),
        }
    }

    /// Fails if a port that a user wants to publish is taken: who has it can only be seen before we are root of a name space.
    pub(crate) fn check_ports(&mut self, options: &Options) -> Result<()> {
        if !self.host.is_rootless() || options.network != Network::Own || options.publish.is_empty() {
            return Ok(());
        }
        Ports::check(&self.engine()?.store, &options.publish)
    }

    /// Sees to it that a user's containers have a way to the outside. Before we are root of a name space.
    pub(crate) fn reach_outside(&mut self) -> Result<()> {
        if place::is_shared(&self.host) && self.forward.is_none() {
            self.is_forward_seen = true;
            self.forward = Some(hold::ensure(&self.host.data, &mut out::warn)?);
        }
        Ok(())
    }

    /// The same for containers that exist, where one of them is joined to networks.
    pub(crate) fn reach_outside_for(&mut self, names: &[&str]) -> Result<()> {
        let engine = self.engine()?;
        let is_joined = |name: &&str| {
            let record = engine.find(name).and_then(|dir| dir.record());
            record.is_ok_and(|record| record.wiring.network == Network::Own)
        };
        if names.iter().any(is_joined) { self.reach_outside() } else { Ok(()) }
    }

    /// The same for a verb that has something to read while the ids are being mapped.
    pub(crate) fn engine_entering(&mut self) -> Result<(Engine, Entering)> {
        self.heal_forward();
        if place::is_shared(&self.host) && self.forward.is_none() {
            self.forward = hold::look(&self.host.data)?;
        }
        let entering = match &self.forward {
            // What its containers share can only be reached from its user name space.
            Some((_, given)) => {
                userns::join(&self.host, &given.process)?;
                self.host.ids = host::current_ids()?;
                Entering::done()
            }
            None => userns::begin(&mut self.host)?,
        };
        Ok((self.open()?, entering))
    }
}

/// Prints what long work tells.
pub(crate) fn events(event: Event) {
    if let Event::Warning(text) = event {
        out::warn(&text);
    }
}

/// The program: one command, its exit code.
pub fn main(mut args: Vec<OsString>) -> u8 {
    if args.get(1).is_some_and(|word| word == "__complete") {
        args.remove(1);
        let found = prepare(&mut args.clone());
        return complete::answer(&args[1..], found);
    }
    let found = prepare(&mut args);
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    match dispatch(&matches, found) {
        Ok(code) => code,
        Err(error) => {
            out::err(&error::report(&error));
            // Docker's codes: 125 where it is `run` that fails, 1 elsewhere; what is more exact rides along.
            match error.downcast_ref::<ExitWith>() {
                Some(code) => code.0,
                None if is_run(&matches) => 125,
                None => 1,
            }
        }
    }
}

fn is_run(matches: &ArgMatches) -> bool {
    let run = |m: &ArgMatches| matches!(m.subcommand_name(), Some("run" | "shell"));
    run(matches) || matches.subcommand().is_some_and(|(_, m)| run(m))
}

/// Help and version go to stdout; a mistake is one line and what to type instead.
fn usage(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = flags::without_switch_words(&error.render().to_string());
            u8::from(out::out(&text).is_err())
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            out::err(&error.render().to_string());
            1
        }
        _ => {
            let text = flags::without_switch_words(&error.render().to_string());
            // The cause may go on over lines, up to the empty one: which arguments are missing.
            let lines: Vec<&str> = text.lines().take_while(|l| !l.is_empty()).map(str::trim).collect();
            let joined = lines.join(" ");
            let cause = joined.strip_prefix("error: ").unwrap_or(&joined);
            let tip = text.lines().find_map(|l| l.trim().strip_prefix("tip: ")).map(str::to_owned);
            let usage = text.lines().find_map(|l| l.trim().strip_prefix("Usage: "));
            let hint = tip.or_else(|| usage.map(|u| format!("usage: {u}")));
            let hint = hint.unwrap_or_else(|| "dhow --help lists the commands".into());
            out::err(&format!("dhow: cannot read the command line: {cause}\nhint: {hint}\n"));
            // As docker: 125 for a flag that is wrong, 1 for what is missing or too much.
            let is_flag = || cause.contains("'-");
            match error.kind() {
                ErrorKind::InvalidSubcommand
                | ErrorKind::MissingRequiredArgument
                | ErrorKind::WrongNumberOfValues
                | ErrorKind::TooManyValues => 1,
                ErrorKind::UnknownArgument if !is_flag() => 1,
                _ => 125,
            }
        }
    }
}

fn command() -> Command {
    let top = Command::new("dhow")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Builds, ships and runs containers, with no daemon and no helper programs")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .infer_subcommands(false)
        .arg(
            Arg::new("root")
                .long("root")
                .value_name("DIR")
                .global(false)
                .value_parser(clap::value_parser!(PathBuf))
                .help("Keep all state in DIR [env: DHOW_ROOT]"),
        )
        .arg(
            Arg::new("storage-opt")
                .long("storage-opt")
                .value_name("KEY=VALUE")
                .action(clap::ArgAction::Append)
                .help("additionalimagestore=DIR: use the images of another store, which is only read"),
        );
    // Each verb's flags are only built when it is the one that was typed: building all costs milliseconds.
    let sub = |verb: &Verb, name: &'static str| {
        Command::new(name).about(verb.about).visible_aliases(verb.aliases.iter().copied()).defer(verb.flags)
    };
    let top = top.subcommands(verbs::TOP.iter().map(|v| sub(v, v.name)));
    let group = |name: &'static str, about: &'static str, all: &'static [Verb]| {
        Command::new(name)
            .about(about)
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommands(all.iter().map(|v| sub(v, v.name)))
    };
    top.subcommands(verbs::GROUPS.iter().map(|(name, about, all)| group(name, about, all)))
}

/// Machine, caller and settings; the settings are put into the command line. What is wrong with them is told when there is
/// a command that needs them: `--help` does not.
fn prepare(args: &mut Vec<OsString>) -> Result<(Host, Config)> {
    let typed = Typed::read(args);
    let mut host = Host::probe(typed.root.as_deref().map(Path::new))?;
    let config = Config::load(&host)?;
    typed.add_defaults(args, &config);
    if let Some(root) = &config.storage.root
        && typed.root.is_none()
        && host.env("DHOW_ROOT").is_none()
    {
        host.data.clone_from(root);
    }
    Ok((host, config))
}

fn dispatch(matches: &ArgMatches, found: Result<(Host, Config)>) -> Result<u8> {
    let (host, config) = found?;
    let options: Vec<String> = matches.get_many("storage-opt").into_iter().flatten().cloned().collect();
    let additional_stores =
        additional::stores(&host, &options, config.storage.additional_stores.as_deref().unwrap_or_default())?;
    let mut session =
        Session { host, config, additional_stores, store: None, forward: None, is_forward_seen: false };
    let (name, sub) = matches.subcommand().unwrap_or(("", matches));
    let (table, name, sub) = match verbs::GROUPS.iter().find(|(group, ..)| *group == name) {
        Some((_, _, table)) => grouped(table, sub),
        None => (verbs::TOP, name, sub),
    };
    let verb = table.iter().find(|v| v.name == name || v.aliases.contains(&name));
    let verb = verb.ok_or_else(|| anyhow::anyhow!("cannot run {name}: there is no such command"))?;
    (verb.run)(sub, &mut session)
}

fn grouped<'a>(table: &'static [Verb], sub: &'a ArgMatches) -> (&'static [Verb], &'a str, &'a ArgMatches) {
    let (name, sub) = sub.subcommand().unwrap_or(("", sub));
    (table, name, sub)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        let mut top = command();
        top.build();
        for verb in verbs::TOP.iter().chain(verbs::GROUPS.iter().flat_map(|(_, _, table)| *table)) {
            (verb.flags)(Command::new(verb.name)).debug_assert();
        }
    }
}
