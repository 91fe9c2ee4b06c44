//! The flags of run and create about name spaces: whose processes, IPC objects and host name a container sees.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::value;
use super::run_flags::one;
use crate::error::ResultExt;
use crate::spec::options::{Options, Share};

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command
        .arg(value("pid", None, "MODE", "host, container:NAME or private: whose processes it sees (private)"))
        .arg(value(
            "ipc",
            None,
            "MODE",
            "host, container:NAME, private, shareable or none: whose IPC objects and /dev/shm it sees (private)",
        ))
        .arg(value("uts", None, "MODE", "host or private: whose host name it has (private)"))
}

/// Reads them into `options`, whose host name is read already.
pub(super) fn read(matches: &ArgMatches, options: &mut Options) -> Result<()> {
    let share = |flag: &'static str, words: &[(&str, Share)]| -> Result<Share> {
        let Some(text) = one(matches, flag) else { return Ok(Share::Private) };
        let other = text.strip_prefix("container:").filter(|name| !name.is_empty() && flag != "uts");
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, share)| share.clone());
        let found = found.or_else(|| other.map(|name| Share::Container(name.to_owned())));
        // Docker's words.
        found
            .ok_or_else(|| anyhow!("cannot use --{flag} {text:?}: invalid {} mode", flag.to_uppercase()))
            .with_hint(|| {
                let words: Vec<&str> =
                    words.iter().map(|(word, _)| *word).filter(|word| !word.is_empty()).collect();
                format!("it is {}{}", words.join(", "), if flag == "uts" { "" } else { " or container:NAME" })
            })
    };
    let common = [("", Share::Private), ("private", Share::Private), ("host", Share::Host)];
    options.pid = share("pid", &common)?;
    options.uts = share("uts", &common)?;
    let of_ipc = [("shareable", Share::Shareable), ("none", Share::Nothing)];
    options.ipc =
        share("ipc", &[common, [of_ipc[0].clone(), of_ipc[1].clone(), ("", Share::Private)]].concat())?;
    if !options.uts.is_own() && (options.hostname.is_some() || options.domainname.is_some()) {
        return Err(anyhow!("cannot use --uts host: conflicting options: hostname and the UTS mode"))
            .hint("the host's name is the host's to set");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_docker() {
        let check = |line: &str, want: &str| {
            let words = std::iter::once("run").chain(line.split(' '));
            let matches = add(Command::new("run")).get_matches_from(words);
            let mut options = Options::default();
            let got = match read(&matches, &mut options) {
                Ok(()) => format!("{:?} {:?} {:?}", options.pid, options.ipc, options.uts),
                Err(error) => error.root_cause().to_string(),
            };
            assert_eq!(got.replace('"', ""), want, "{line}");
        };
        check("--pid host --ipc shareable --uts host", "Host Shareable Host");
        check("--pid container:x --ipc container:y", "Container(x) Container(y) Private");
        check("--pid= --ipc= --uts=", "Private Private Private");
        check("--ipc none", "Private Nothing Private");
        check("--pid x", "cannot use --pid x: invalid PID mode");
        check("--pid container:", "cannot use --pid container:: invalid PID mode");
        check("--pid shareable", "cannot use --pid shareable: invalid PID mode");
        check("--ipc x", "cannot use --ipc x: invalid IPC mode");
        check("--uts container:x", "cannot use --uts container:x: invalid UTS mode");
    }
}
