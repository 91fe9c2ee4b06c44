//! exec.

use anyhow::{Result, anyhow};
use clap::{Arg, ArgMatches, Command};

use super::flags::{detach_keys, list, many, of_flag, read_detach_keys, switch, value};
use super::run::code_of;
use super::run_flags::one;
use super::{Session, fd_flags, parse};
use crate::engine::create::env_of_host;
use crate::engine::exec::ExecOptions;
use crate::error::ResultExt;

pub(super) fn exec_args(command: Command) -> Command {
    fd_flags::add(command)
        .arg(switch("interactive", Some('i'), "Pass stdin on"))
        .arg(switch("tty", Some('t'), "Give it a terminal"))
        .arg(switch("detach", Some('d'), "Do not wait for it"))
        .arg(detach_keys())
        .arg(switch("privileged", None, "Give it all rights of the caller"))
        .arg(list("env", Some('e'), "KEY[=VALUE]", "Set an environment variable"))
        .arg(list("env-file", None, "FILE", "Set the variables of FILE"))
        .arg(value("user", Some('u'), "USER[:GROUP]", "Run as this user"))
        .arg(value("workdir", Some('w'), "DIR", "Work in DIR"))
        .arg(
            Arg::new("words")
                .value_name("CONTAINER COMMAND")
                .required(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .help("Where, and what to run"),
        )
}

pub(super) fn exec_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let words = many(matches, "words");
    let (name, command) =
        words.split_first().ok_or_else(|| anyhow!("cannot exec: no container was named"))?;
    if command.is_empty() {
        return Err(anyhow!("cannot exec in {name}: no command was given"))
            .hint("dhow exec CONTAINER COMMAND");
    }
    let of_host = |name: &str| env_of_host(&session.host, name);
    let mut env = Vec::new();
    for file in many(matches, "env-file") {
        env.extend(parse::env_file(file.as_ref(), &of_host)?);
    }
    for word in many(matches, "env") {
        env.extend(of_flag(parse::env(word, &of_host))?);
    }
    let options = ExecOptions {
        command: command.iter().map(|w| (*w).to_owned()).collect(),
        env,
        workdir: one(matches, "workdir").filter(|d| !d.is_empty()).map(str::to_owned),
        user: one(matches, "user").map(str::to_owned),
        terminal: matches.get_flag("tty"),
        interactive: matches.get_flag("interactive"),
        detach: matches.get_flag("detach"),
        privileged: matches.get_flag("privileged"),
        person: None,
        detach_keys: read_detach_keys(matches)?,
        preserve: of_flag(fd_flags::read(matches))?,
    };
    let engine = session.engine()?;
    Ok(code_of(crate::engine::exec::exec(&engine, name, options)?))
}
