//! shell.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::flags::{many, switch};
use super::id_files::{IdFile, PidFile};
use super::job_flags::Taken;
use super::run::{Ready, ask_helpers, code_of, with_image};
use super::run_flags::one;
use super::{Session, defaults, events, job_flags, out, run_flags};
use crate::engine::attach::{Ended, Signals, Stay, follow};
use crate::engine::create::From;
use crate::engine::detach_keys::DetachKeys;
use crate::engine::exec::{ExecOptions, exec};
use crate::engine::reap;
use crate::engine::shell::{self as boxes, Asked, Choice, Here, MACHINE, Now};
use crate::engine::start;
use crate::engine::start::StartOptions;
use crate::error::ResultExt;
use crate::store::container::Status;
use crate::store::turn::Turn;

/// A box that is ending has ended by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Flags of `run` that a shell decides for itself.
const DECIDED: &[&str] = &["user", "interactive", "tty", "rootfs", "entrypoint", "init"];

pub(super) fn shell_args(command: Command) -> Command {
    let command = run_flags::flags(command)
        .arg(switch("root", None, "Be root in the box, not yourself"))
        .arg(Arg::new("target").value_name("IMAGE|NAME").help(
            "A box that exists, or an image to make one from; without it, the configured image, or this machine, of which only a copy is changed",
        ))
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .action(ArgAction::Append)
                .num_args(0..)
                .last(true)
                .help("What to run in place of a shell"),
        )
        .mut_arg("name", |a| a.help("Name the box (the image's name)"))
        .mut_arg("rm", |a| a.help("Remove the box when it ends, in place of keeping it for the next time"));
    DECIDED.iter().fold(command, |command, name| command.mut_arg(name, |a| a.hide(true)))
}

pub(super) fn shell(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    refuse(matches)?;
    let (name, auto_remove) = (one(matches, "name"), matches.get_flag("rm"));
    let engine = session.engine()?;
    let default_image = session.config.shell.image.clone();
    let default_image = default_image.as_deref();
    let asked = Asked { target: one(matches, "target"), default_image, name, auto_remove };
    // With --replace it is as if there were none of that name.
    let replacing = job_flags::read(matches)?.await_turn(|| session.engine())?;
    let is_terminal =
        [rustix::stdio::stdin(), rustix::stdio::stdout()].into_iter().all(rustix::termios::isatty);
    if let Taken::Go(turn @ Some(_)) = replacing {
        let from = asked.target.or(default_image).unwrap_or(MACHINE);
        return make(matches, session, (from, name.map(str::to_owned)), turn, is_terminal);
    }
    let mut is_leaving_since: Option<Instant> = None;
    loop {
        let (choice, turn) = boxes::settle(&engine, asked)?;
        let name = match choice {
            Choice::New { from, name } => return make(matches, session, (&from, name), turn, is_terminal),
            Choice::Box(name) => name,
        };
        if let Some(code) = enter(matches, session, &name, turn, is_terminal)? {
            return Ok(code);
        }
        // It ended just before we were in it, and is to be started. A supervisor that an older dhow started lets nobody
        // stay, and its box would never have ended.
        if is_leaving_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Err(anyhow!("cannot join the box {name}: it neither ends nor lets anybody stay"))
                .hint(format!("one that an older dhow started does not: enter it by dhow exec -it {name} sh, or end it by dhow stop {name}"));
        }
    }
}

fn given<'a>(matches: &'a ArgMatches, names: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let is_given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    names.iter().copied().filter(move |name| is_given(name))
}

fn refuse(matches: &ArgMatches) -> Result<()> {
    match given(matches, DECIDED).next() {
        Some("user") => {
            Err(anyhow!("cannot use --user: in a box you are yourself")).hint("use --root to be root there")
        }
        Some(name) => Err(anyhow!("cannot use --{name}: dhow shell decides that")).hint("use dhow run"),
        None => Ok(()),
    }
}

fn command(matches: &ArgMatches) -> Vec<String> {
    many(matches, "command").into_iter().map(str::to_owned).collect()
}

fn look_around(matches: &ArgMatches, session: &Session, from: &str) -> Result<Here> {
    boxes::here(&session.host, from, matches.get_flag("root"), &command(matches))
}

/// Once it is settled that we go in: who tries again is not told again.
fn warn(here: &Here) {
    if let Some(text) = &here.warning {
        out::warn(text);
    }
}

fn make(
    matches: &ArgMatches,
    session: &mut Session,
    (from, name): (&str, Option<String>),
    turn: Option<Turn>,
    is_terminal: bool,
) -> Result<u8> {
    let here = look_around(matches, session, from)?;
    warn(&here);
    let mut wanted = run_flags::read_for(matches, &session.host, from, command(matches))?;
    if from == MACHINE {
        wanted.from = From::Rootfs { path: MACHINE.into(), throw_away: true };
    }
    // What a person types and sees is not written down, unless they ask for it.
    wanted.log &= one(matches, "log-driver").is_some();
    wanted.name = name;
    wanted.options.terminal = is_terminal;
    boxes::furnish(&mut wanted, &here, from);
    let registry = ask_helpers(matches, session, &wanted)?;
    let (engine, entering) = session.engine_entering_for(&wanted.options)?;
    let ready = Ready { engine: &engine, entering, registry };
    let (wanted, entering) = with_image(matches, session, ready, wanted)?;
    let (cidfile, pidfile) = (IdFile::claim(matches)?, PidFile::claim(matches)?);
    let signals = Signals::catch()?;
    let options = StartOptions::foreground(true);
    let (created, supervisor) = start::make(&engine, entering, wanted, options, &mut events)?;
    cidfile.map_or(Ok(()), |file| file.write(&created.record.id))?;
    let client = start::start_created(created, supervisor, options, &mut events)?;
    drop(turn);
    pidfile.map_or(Ok(()), |file| file.write(client.pid))?;
    Ok(code_of(follow(client, &signals, stay())?))
}

/// A box that exists: joined if it runs, started otherwise. `None`: neither, it was ending.
fn enter(
    matches: &ArgMatches,
    session: &mut Session,
    name: &str,
    turn: Option<Turn>,
    is_terminal: bool,
) -> Result<Option<u8>> {
    let engine = session.engine()?;
    let dir = engine.find(name)?;
    let record = dir.record()?;
    let from = record.labels.get(boxes::LABEL).map_or(MACHINE, String::as_str);
    let by_default = defaults::flags(&session.config);
    refuse_changes(matches, name, &by_default)?;
    let here = look_around(matches, session, from)?;
    let env = run_flags::environment(matches, &session.host)?;
    let workdir = one(matches, "workdir").filter(|d| !d.is_empty()).map(str::to_owned);
    let now = Now { command: command(matches), env, workdir, terminal: is_terminal };
    if let Status::Running(state) = reap::decided(&engine.store, &dir)? {
        drop(turn);
        let Some(_stay) = boxes::stay(&dir)? else { return Ok(None) };
        warn(&here);
        let follows = record.person.map(|p| p.follows).unwrap_or_default();
        if from != MACHINE && now.workdir.is_none() && !follows.iter().any(|f| here.workdir.starts_with(f)) {
            let shown = here.workdir.display();
            out::warn(&format!("{name} runs without {shown}, which comes along when it is started there"));
        }
        IdFile::claim(matches)?.map_or(Ok(()), |file| file.write(&record.id))?;
        PidFile::claim(matches)?.map_or(Ok(()), |file| file.write(state.init.pid))?;
        return join(&engine, name, here, now).map(Some);
    }
    session.reach_outside_for(&[name])?;
    warn(&here);
    let engine = session.engine_as_root()?;
    let (cidfile, pidfile) = (IdFile::claim(matches)?, PidFile::claim(matches)?);
    let signals = Signals::catch()?;
    let options = StartOptions::foreground(true);
    let mut change = |dir: &_, record: &mut _, spec: &mut _| boxes::refresh(dir, record, spec, &here, &now);
    match start::start_changed(&engine, name, options, Some(&mut change), &mut events)? {
        Some(client) => {
            drop(turn);
            cidfile.map_or(Ok(()), |file| file.write(&record.id))?;
            pidfile.map_or(Ok(()), |file| file.write(client.pid))?;
            Ok(Some(code_of(follow(client, &signals, stay())?)))
        }
        // By dhow start, which takes no turn.
        None => Err(anyhow!("cannot start {name}: somebody else did so just now"))
            .hint("do it once more, to join them"),
    }
}

fn join(engine: &crate::engine::Engine, name: &str, here: Here, now: Now) -> Result<u8> {
    let env = here.env.into_iter().chain(now.env).collect();
    let options = ExecOptions {
        command: now.command,
        env,
        workdir: Some(now.workdir.unwrap_or_else(|| here.workdir.to_string_lossy().into_owned())),
        terminal: now.terminal,
        interactive: true,
        person: Some(here.person),
        detach_keys: DetachKeys::none(),
        ..ExecOptions::default()
    };
    let ended: Ended = exec(engine, name, options)?;
    Ok(code_of(ended))
}

/// All keys are the shell's.
fn stay() -> Stay {
    Stay { input: true, keys: DetachKeys::none(), sig_proxy: true }
}

/// What a box is made with stays as it is.
const OF_THIS_TIME: &[&str] = &[
    "target", "command", "name", "root", "env", "env-file", "workdir", "quiet", "pull", "cidfile", "pidfile",
];

fn refuse_changes(matches: &ArgMatches, name: &str, by_default: &[(&str, String)]) -> Result<()> {
    let is_free = |id: &&str| OF_THIS_TIME.contains(id) || by_default.iter().any(|(flag, _)| flag == id);
    let ids: Vec<&str> = matches.ids().map(clap::Id::as_str).filter(|id| !is_free(id)).collect();
    match given(matches, &ids).next() {
        Some(flag) => Err(anyhow!("cannot use --{flag} with the box {name}: it is there already"))
            .hint(format!("make another with --name, or remove this one: dhow rm {name}")),
        None => Ok(()),
    }
}
