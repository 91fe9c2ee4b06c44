//! One logical line -> one typed instruction. Here are the instructions that only change an image's config, which are
//! the ones that `--change` takes; the others are refused by name.

use std::time::Duration;

use super::duration;
use super::words::json_strings;
use super::words::pairs;

/// One instruction. Words are as written, quotes and variables and all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// The default arguments, or the default command where there is no entry point.
    Cmd(Command),
    /// The command that `Cmd` and the user's arguments are appended to.
    Entrypoint(Command),
    /// Environment variables.
    Env(Vec<(String, String)>),
    /// Ports, each `PORT[-PORT][/PROTOCOL]`.
    Expose(Vec<String>),
    /// How to tell whether the container works.
    Healthcheck(Healthcheck),
    /// Labels.
    Label(Vec<(String, String)>),
    /// An instruction for the builds that start from this image, as it was written.
    Onbuild(String),
    /// The signal that asks the process to end.
    Stopsignal(String),
    /// `USER[:GROUP]`, names or numbers.
    User(String),
    /// Directories that get a volume.
    Volume(Vec<String>),
    /// The working directory, perhaps relative to the one before.
    Workdir(String),
}

/// A command line in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `["program", "argument"]`.
    Exec(Vec<String>),
    /// Text for the image's shell. `None` where the instruction had no argument.
    Shell(Option<String>),
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// Switches off what the base image had.
    None,
    /// Runs a command. Options that were not given are inherited.
    Command {
        /// What to run; its success is health.
        command: Command,
        /// `--interval`
        interval: Option<Duration>,
        /// `--timeout`
        timeout: Option<Duration>,
        /// `--start-period`
        start_period: Option<Duration>,
        /// `--start-interval`
        start_interval: Option<Duration>,
        /// `--retries`
        retries: Option<u32>,
    },
}

/// Why a line is not an instruction: `CMD needs ...`. Whoever knows file and line puts them in front.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InvalidInstruction(pub String);

/// Reads one logical line.
pub fn parse(line: &str, escape: char) -> Result<Instruction, InvalidInstruction> {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (name, rest) = (name.to_ascii_uppercase(), rest.trim());
    arguments(&name, rest, escape).map_err(|why| InvalidInstruction(format!("{name} {why}")))
}

fn arguments(name: &str, rest: &str, escape: char) -> Result<Instruction, String> {
    Ok(match name {
        "CMD" => Instruction::Cmd(command(rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)),
        "ENV" => Instruction::Env(pairs(rest, escape)?),
        "EXPOSE" => {
            Instruction::Expose(some(rest.split_whitespace().map(str::to_owned).collect(), "a port")?)
        }
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(rest)?),
        "LABEL" => Instruction::Label(pairs(rest, escape)?),
        "ONBUILD" => Instruction::Onbuild(trigger(rest)?),
        "STOPSIGNAL" => Instruction::Stopsignal(one(rest, "a signal")?),
        "USER" => Instruction::User(one(rest, "a user")?),
        "VOLUME" => Instruction::Volume(volumes(rest)?),
        "WORKDIR" => Instruction::Workdir(one(rest, "a directory")?),
        "" => return Err("is missing".to_owned()),
        "ADD" | "ARG" | "COPY" | "FROM" | "MAINTAINER" | "RUN" | "SHELL" => {
            return Err("does not change only the config of an image".to_owned());
        }
        _ => return Err("is not an instruction".to_owned()),
    })
}

fn command(rest: &str) -> Command {
    match json_strings(rest) {
        Some(words) => Command::Exec(words),
        None => Command::Shell((!rest.is_empty()).then(|| rest.to_owned())),
    }
}

fn one(rest: &str, what: &str) -> Result<String, String> {
    if rest.is_empty() { Err(format!("needs {what}")) } else { Ok(rest.to_owned()) }
}

fn some(words: Vec<String>, what: &str) -> Result<Vec<String>, String> {
    if words.is_empty() { Err(format!("needs {what}")) } else { Ok(words) }
}

fn volumes(rest: &str) -> Result<Vec<String>, String> {
    let volumes = json_strings(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
    if volumes.iter().any(|v| v.trim().is_empty()) {
        return Err("needs directories that are not empty".to_owned());
    }
    some(volumes, "a directory")
}

fn trigger(rest: &str) -> Result<String, String> {
    let name =
        one(rest, "an instruction")?.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match name.as_str() {
        "ONBUILD" | "FROM" | "MAINTAINER" => Err(format!("cannot hold {name}")),
        _ => Ok(rest.to_owned()),
    }
}

fn healthcheck(rest: &str) -> Result<Healthcheck, String> {
    let (options, rest) = options(rest);
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match kind.to_ascii_uppercase().as_str() {
        // Options mean nothing here, but docker lets them stand.
        "NONE" if rest.trim().is_empty() => return Ok(Healthcheck::None),
        "NONE" => return Err("NONE takes no arguments".to_owned()),
        "CMD" if rest.trim().is_empty() => return Err("CMD needs a command".to_owned()),
        "CMD" => {}
        "" => return Err("needs CMD or NONE".to_owned()),
        _ => return Err(format!("needs CMD or NONE, not {kind}")),
    }
    let (mut interval, mut timeout, mut start_period, mut start_interval) = (None, None, None, None);
    let mut retries = None;
    for option in options {
        let (name, value) = option.split_once('=').ok_or_else(|| format!("option {option} needs a value"))?;
        match name {
            "--interval" => interval = Some(period(name, value)?),
            "--timeout" => timeout = Some(period(name, value)?),
            "--start-period" => start_period = Some(period(name, value)?),
            "--start-interval" => start_interval = Some(period(name, value)?),
            "--retries" => {
                let count =
                    value.parse().map_err(|_| format!("--retries={value} is not a number of times"))?;
                retries = Some(count);
            }
            _ => return Err(format!("has no option {name}")),
        }
    }
    let command = command(rest.trim());
    Ok(Healthcheck::Command { command, interval, timeout, start_period, start_interval, retries })
}

fn period(name: &str, value: &str) -> Result<Duration, String> {
    let period = duration::parse(value).map_err(|why| format!("{name}: {why}"))?;
    if period < Duration::from_millis(1) && !period.is_zero() {
        return Err(format!("{name} must be 0 or at least 1ms, not {value}"));
    }
    Ok(period)
}

/// The leading words that start with `--`, and what follows them.
fn options(mut rest: &str) -> (Vec<&str>, &str) {
    let mut options = Vec::new();
    while rest.starts_with("--") {
        let (option, tail) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        rest = tail.trim_start();
        if option == "--" {
            break;
        }
        options.push(option);
    }
    (options, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    fn shell(text: &str) -> Command {
        Command::Shell(Some(text.to_owned()))
    }

    #[test]
    fn lines_become_instructions() {
        let check = |line: &str, want: Instruction| assert_eq!(parse(line, '\\'), Ok(want), "{line}");
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        check(
            r#"CMD ["/bin/sh", "-c", "a b"]"#,
            Instruction::Cmd(Command::Exec(strings(&["/bin/sh", "-c", "a b"]))),
        );
        check("cmd echo  'a b' $X", Instruction::Cmd(shell("echo  'a b' $X")));
        check("CMD [ -f x ]", Instruction::Cmd(shell("[ -f x ]")));
        check("CMD", Instruction::Cmd(Command::Shell(None)));
        check("ENTRYPOINT []", Instruction::Entrypoint(Command::Exec(vec![])));
        check("ENV a=1 b='2 3'", Instruction::Env(vec![pair("a", "1"), pair("b", "'2 3'")]));
        check("ENV a 1 2", Instruction::Env(vec![pair("a", "1 2")]));
        check("LABEL a.b=c", Instruction::Label(vec![pair("a.b", "c")]));
        check("EXPOSE 80 53/udp", Instruction::Expose(strings(&["80", "53/udp"])));
        check("ONBUILD run make", Instruction::Onbuild("run make".to_owned()));
        check("STOPSIGNAL SIGINT", Instruction::Stopsignal("SIGINT".to_owned()));
        check("\tUSER  a:b ", Instruction::User("a:b".to_owned()));
        check("VOLUME /a /b", Instruction::Volume(strings(&["/a", "/b"])));
        check(r#"VOLUME ["/a b"]"#, Instruction::Volume(strings(&["/a b"])));
        check("WORKDIR /a b", Instruction::Workdir("/a b".to_owned()));
        check("HEALTHCHECK none", Instruction::Healthcheck(Healthcheck::None));
    }

    #[test]
    fn healthchecks_have_options() {
        let got =
            parse("HEALTHCHECK --interval=1m --retries=3 \t--start-interval=0 CMD curl -f x || exit 1", '\\');
        let want = Healthcheck::Command {
            command: shell("curl -f x || exit 1"),
            interval: Some(Duration::from_secs(60)),
            timeout: None,
            start_period: None,
            start_interval: Some(Duration::ZERO),
            retries: Some(3),
        };
        assert_eq!(got, Ok(Instruction::Healthcheck(want)));
    }

    #[test]
    fn bad_lines_say_why() {
        let check = |line: &str, want: &str| {
            assert_eq!(parse(line, '\\').unwrap_err().to_string(), want, "{line}");
        };
        check("", " is missing");
        check("RUN x", "RUN does not change only the config of an image");
        check("CMDD x", "CMDD is not an instruction");
        check("ENV", "ENV needs at least one NAME=VALUE");
        check("ENV a=b c", "ENV needs NAME=VALUE: c has no =");
        check("USER", "USER needs a user");
        check("VOLUME []", "VOLUME needs a directory");
        check("VOLUME [\" \"]", "VOLUME needs directories that are not empty");
        check("ONBUILD onbuild RUN x", "ONBUILD cannot hold ONBUILD");
        check("HEALTHCHECK", "HEALTHCHECK needs CMD or NONE");
        check("HEALTHCHECK curl", "HEALTHCHECK needs CMD or NONE, not curl");
        check("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments");
        check("HEALTHCHECK CMD", "HEALTHCHECK CMD needs a command");
        check("HEALTHCHECK --x=1 CMD a", "HEALTHCHECK has no option --x");
        check("HEALTHCHECK --timeout=1us CMD a", "HEALTHCHECK --timeout must be 0 or at least 1ms, not 1us");
    }

    #[test]
    fn every_prefix_returns() {
        for line in ["HEALTHCHECK --interval=1m30s CMD [\"a\"]", "ENV a=\"b\\\"\" c='d'", "ONBUILD RUN é"] {
            for (at, _) in line.char_indices() {
                let _ = parse(&line[..at], '\\');
            }
        }
    }
}
