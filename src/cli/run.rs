//! run and create.

use anyhow::{Context, Result};
use clap::{ArgMatches, Command};

use super::flags::{of_flag, switch};
use super::held::Held;
use super::id_files::{IdFile, PidFile};
use super::image::claims;
use super::job_flags::{self, Taken};
use super::progress::{Display, Headline};
use super::retry;
use super::run_flags::one;
use super::{Session, events, fd_flags, life_flags, out, pull, registry_flags, run_flags};
use crate::engine::Engine;
use crate::engine::attach::{Ended, Signals, follow};
use crate::engine::create::{CreateOptions, From, create, random_id};
use crate::engine::start;
use crate::error;
use crate::image;
use crate::image::ensure;
use crate::image::ensure::Policy;
use crate::oci::Reference;
use crate::registry::credentials::has_helper;
use crate::registry::{Client, Options};
use crate::store::image::find;
use crate::userns::Entering;

pub(super) fn run_args(command: Command) -> Command {
    fd_flags::add(life_flags::add_stay(job_flags::add(run_flags::add(command)))).arg(switch(
        "detach",
        Some('d'),
        "Run in the background and print the id",
    ))
}

pub(super) fn run(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    if !job_flags::read(matches)?.quiet_ok {
        return run_now(matches, session, None);
    }
    let mut held = Held::begin(&session.engine()?.store.data.join("tmp"))?;
    let ended = run_now(matches, session, Some(&mut held));
    held.end(!matches!(ended, Ok(0)))?;
    ended
}

fn run_now(matches: &ArgMatches, session: &mut Session, mut held: Option<&mut Held>) -> Result<u8> {
    let mut wanted = run_flags::read(matches, &session.host)?;
    let detached = matches.get_flag("detach");
    if wanted.options.terminal && !detached && !rustix::termios::isatty(rustix::stdio::stdin()) {
        // In a script or from cron there is none to give; the program still gets one of its own.
        out::warn("stdin is not a terminal; the container has one that nobody types on");
    }
    IdFile::check(matches)?;
    let terminal = wanted.options.terminal;
    let options = life_flags::start_options(matches, wanted.options.interactive)?;
    wanted.options.attached = Some(options.streams());
    let stay = life_flags::stay(matches, options.stdin)?;
    let image_name = match &wanted.from {
        From::Image(name, _) => Some(name.clone()),
        From::Rootfs { .. } => None,
    };
    let turn = match job_flags::read(matches)?.await_turn(|| session.engine())? {
        Taken::Go(turn) => turn,
        Taken::Skip(line) => {
            out::err(&line);
            return Ok(0);
        }
    };
    let registry = ask_helpers(matches, session, &wanted)?;
    session.check_ports(&wanted.options)?;
    let (engine, entering) = session.engine_entering_for(&wanted.options)?;
    let ready = Ready { engine: &engine, entering, registry };
    let (wanted, entering) = with_image(matches, session, ready, wanted)?;
    // From here on there is something to undo; until here a signal simply ends us.
    let cidfile = IdFile::claim(matches)?;
    let pidfile = PidFile::claim(matches)?;
    let signals = if detached { None } else { Some(Signals::catch()?) };
    // A terminal's bytes come to us, and go where ours go.
    let mut lent = held.as_mut().filter(|_| !terminal);
    lent.as_mut().map_or(Ok(()), |held| held.lend())?;
    let (created, supervisor) = start::make(&engine, entering, wanted, options, &mut events)?;
    let id = created.record.id.clone();
    if let Some(cidfile) = cidfile {
        cidfile.write(&id)?;
    }
    drop(turn);
    let client = start::start_created(created, supervisor, options, &mut events)?;
    lent.map_or(Ok(()), |held| held.collect())?;
    pidfile.map_or(Ok(()), |pidfile| pidfile.write(client.pid))?;
    let Some(signals) = signals else {
        out::out(&format!("{id}\n"))?;
        return Ok(0);
    };
    if !options.stdout && !options.stderr {
        // As docker: whoever sees none of its output may want to know which one it is.
        out::out(&format!("{id}\n"))?;
    }
    let code = code_of(follow(client, &signals, stay)?);
    if matches.get_flag("rmi")
        && let Some(name) = image_name
    {
        // Another container may use it: then it stays.
        let options = image::remove::Options { force: false, in_use: claims(&engine)? };
        for error in image::remove::remove(&engine.store, &[name], &options)?.errors {
            out::warn(&error::chain(&error));
        }
    }
    Ok(code)
}

pub(super) fn code_of(ended: Ended) -> u8 {
    match ended {
        Ended::Exited(code) => u8::try_from(code & 0xff).unwrap_or(255),
        Ended::Detached => 0,
        Ended::Left(signal) => u8::try_from(128 + signal).unwrap_or(255),
    }
}

pub(super) fn create_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let mut wanted = of_flag(run_flags::read(matches, &session.host))?;
    let attached = of_flag(life_flags::start_options(matches, wanted.options.interactive))?;
    wanted.options.attached = Some(attached.streams());
    IdFile::check(matches)?;
    let _turn = job_flags::read(matches)?.await_turn(|| session.engine())?;
    let registry = ask_helpers(matches, session, &wanted)?;
    let (engine, entering) = session.engine_entering_for(&wanted.options)?;
    let ready = Ready { engine: &engine, entering, registry };
    let (wanted, entering) = with_image(matches, session, ready, wanted)?;
    if let Some(entering) = entering {
        entering.finish()?;
    }
    let cidfile = IdFile::claim(matches)?;
    let created = create(&engine, random_id()?, wanted)?;
    if let Some(cidfile) = cidfile {
        cidfile.write(&created.record.id)?;
    }
    out::out(&format!("{}\n", created.record.id))?;
    Ok(0)
}

/// The flags about registries, with what helpers say where the image may have to be pulled: they are asked before the user
/// name space is entered.
pub(super) fn ask_helpers(
    matches: &ArgMatches,
    session: &mut Session,
    wanted: &CreateOptions,
) -> Result<Options> {
    let mut registry = registry_flags::options(matches)?;
    let From::Image(name, _) = &wanted.from else { return Ok(registry) };
    let Ok(reference) = name.parse::<Reference>() else { return Ok(registry) };
    let policy = one(matches, "pull").map(pull::policy).transpose()?.unwrap_or_default();
    let is_pulled = match policy {
        _ if !session.host.is_rootless() => false,
        Policy::Never => false,
        Policy::Always | Policy::Newer => true,
        // Most have no helper: the image need not be looked up twice for them.
        Policy::Missing => {
            let authfile = registry.authfile.as_deref();
            has_helper(&session.host, authfile, &reference.registry, &reference.repository)
                .is_ok_and(|has| has)
                && find(&session.engine()?.store, name).is_err()
        }
    };
    if is_pulled {
        registry.ask_helpers(&session.host, [&reference])?;
    }
    Ok(registry)
}

/// What looking an image up needs.
pub(super) struct Ready<'a> {
    pub(super) engine: &'a Engine,
    pub(super) entering: Entering,
    pub(super) registry: Options,
}

/// Looks the image up, and pulls it where that is wanted; before that, the ids are awaited.
pub(super) fn with_image(
    matches: &ArgMatches,
    session: &Session,
    Ready { engine, entering, registry }: Ready<'_>,
    mut wanted: CreateOptions,
) -> Result<(CreateOptions, Option<Entering>)> {
    let From::Image(name, found) = &mut wanted.from else { return Ok((wanted, Some(entering))) };
    let policy = one(matches, "pull").map(pull::policy).transpose()?.unwrap_or_default();
    let options = ensure::Options { policy, platform: pull::platform(matches, &session.host)? };
    let mut entering = Some(entering);
    let mut display = None;
    let mut tell = |event| {
        let quiet = matches.get_flag("quiet");
        display.get_or_insert_with(|| Display::new(Headline::Stderr, quiet)).tell(event);
    };
    let image = retry::patiently(matches, || {
        let client = || {
            entering.take().map(Entering::finish).transpose()?;
            Client::new(&session.host, registry.clone())
        };
        ensure::ensure(&engine.store, name, &options, client, &mut tell)
            .with_context(|| format!("cannot run {name}"))
    })?;
    *found = Some(Box::new(image));
    Ok((wanted, entering))
}
