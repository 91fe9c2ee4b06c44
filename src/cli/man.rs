//! man: the manual pages, one for each verb, from the same tables that the command line is read with.

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command};
use clap_mangen::Man;

use super::run_flags::one;
use super::{Session, Verb, flags, verbs};
use crate::fs;

pub(super) fn man_args(command: Command) -> Command {
    command.arg(Arg::new("dir").value_name("DIR").required(true).help("Where they go; made if it is missing"))
}

pub(super) fn man_verb(matches: &ArgMatches, _: &mut Session) -> Result<u8> {
    let dir = Path::new(one(matches, "dir").unwrap_or("."));
    fs::create_dir_all(dir, 0o755)?;
    let write = |name: &str, page: Vec<u8>| fs::write_atomic(&dir.join(format!("{name}.1")), &page);
    write("dhow", top()?)?;
    for verb in verbs::TOP {
        let name = format!("dhow-{}", verb.name);
        write(&name, page(&name, &format!("dhow {}", verb.name), verb)?)?;
    }
    for (group, about, all) in verbs::GROUPS {
        write(&format!("dhow-{group}"), group_page(group, about, all)?)?;
        for verb in *all {
            let name = format!("dhow-{group}-{}", verb.name);
            let is_same = |top: &&Verb| top.name == verb.name && std::ptr::fn_addr_eq(top.run, verb.run);
            let text = match verbs::TOP.iter().find(is_same) {
                Some(top) => format!(".so man1/dhow-{}.1\n", top.name).into_bytes(),
                None => page(&name, &format!("dhow {group} {}", verb.name), verb)?,
            };
            write(&name, text)?;
        }
    }
    Ok(0)
}

fn page(name: &str, typed: &str, verb: &Verb) -> Result<Vec<u8>> {
    let command = Command::new(verb.name).about(verb.about).bin_name(typed).visible_aliases(verb.aliases);
    let mut command = (verb.flags)(command).display_name(name.to_owned());
    command.build();
    let man = man(command);
    let mut page = Vec::new();
    let about = || format!("cannot write the page {name}");
    man.render_title(&mut page).with_context(about)?;
    man.render_name_section(&mut page).with_context(about)?;
    man.render_synopsis_section(&mut page).with_context(about)?;
    man.render_options_section(&mut page).with_context(about)?;
    man.render_extra_section(&mut page).with_context(about)?;
    page.extend_from_slice(b".SH \"SEE ALSO\"\n.BR dhow (1)\n");
    Ok(flags::without_switch_words(&String::from_utf8_lossy(&page)).into_bytes())
}

fn man(command: Command) -> Man {
    Man::new(command)
        .section("1")
        .source(format!("dhow {}", env!("CARGO_PKG_VERSION")))
        .manual("dhow")
        .date("")
}

/// A list of pages.
fn list(page: &mut Vec<u8>, entries: impl Iterator<Item = (String, &'static str)>) {
    for (name, about) in entries {
        let about = about.replace('-', "\\-");
        page.extend_from_slice(format!(".TP\n.BR {} (1)\n{about}\n", name.replace('-', "\\-")).as_bytes());
    }
}

fn group_page(group: &'static str, about: &'static str, all: &'static [Verb]) -> Result<Vec<u8>> {
    let name = format!("dhow-{group}");
    let man = man(Command::new(group).about(about).display_name(name.clone()));
    let mut page = Vec::new();
    man.render_title(&mut page).context("cannot write a page")?;
    man.render_name_section(&mut page).context("cannot write a page")?;
    page.extend_from_slice(b".SH COMMANDS\n");
    list(&mut page, all.iter().map(|verb| (format!("dhow-{group}-{}", verb.name), verb.about)));
    page.extend_from_slice(b".SH \"SEE ALSO\"\n.BR dhow (1)\n");
    Ok(page)
}

fn top() -> Result<Vec<u8>> {
    let man = man(super::command());
    let mut page = Vec::new();
    let about = "cannot write the page dhow";
    man.render_title(&mut page).context(about)?;
    man.render_name_section(&mut page).context(about)?;
    man.render_synopsis_section(&mut page).context(about)?;
    man.render_options_section(&mut page).context(about)?;
    page.extend_from_slice(b".SH COMMANDS\n");
    list(&mut page, verbs::TOP.iter().map(|verb| (format!("dhow-{}", verb.name), verb.about)));
    list(&mut page, verbs::GROUPS.iter().map(|(group, about, _)| (format!("dhow-{group}"), *about)));
    page.extend_from_slice(FILES.as_bytes());
    Ok(page)
}

const FILES: &str = r#".SH FILES
.TP
.I /etc/dhow/config.toml, ~/.config/dhow/config.toml
Defaults of the machine and of the user; the second wins, flags win over both. What is not known there is an error.
.nf

[run]
network = "none"                 # \-\-network
log\-driver = "json\-file"         # \-\-log\-driver
log\-opts = { max\-size = "1m" }   # \-\-log\-opt
detach\-keys = "ctrl\-x,ctrl\-x"    # \-\-detach\-keys
init = true                      # \-\-init
pull = "newer"                   # \-\-pull
tz = "local"                     # \-\-tz
stop\-timeout = 3                 # \-\-stop\-timeout
ulimits = ["nofile=1024:4096"]   # \-\-ulimit
[storage]
root = "/srv/dhow"               # \-\-root; in /etc it is root's
additional\-stores = ["/shared"]
[shell]
image = "debian:12"              # what dhow shell makes a box from
.fi
.TP
.I /var/lib/dhow, ~/.local/share/dhow
All state, of root and of a user.
.SH ENVIRONMENT
.TP
.B DHOW_ROOT
As \-\-root.
.SH "EXIT STATUS"
125 where dhow itself fails to run a container, 126 where a program cannot be executed, 127 where there is none, 128+n after
signal n, else the program's own; other commands end with 1 where they fail.
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        for verb in verbs::TOP {
            let text = String::from_utf8(page("dhow-x", "dhow x", verb).unwrap()).unwrap();
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{}: {text}", verb.name);
            assert!(!text.contains("<ON>"), "{}: {text}", verb.name);
        }
        let text = String::from_utf8(top().unwrap()).unwrap();
        assert!(text.contains("dhow\\-run") && text.contains("config.toml"), "{text}");
    }
}
