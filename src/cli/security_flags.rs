//! `--security-opt`: one word each, `KEY=VALUE` or, as docker once had it, `KEY:VALUE`.

use anyhow::{Context, Result, anyhow};

use crate::error::ResultExt;
use crate::fs;
use crate::spec::options::{Options, Seccomp};

/// The flag's help.
pub(super) const HELP: &str = "seccomp=unconfined|FILE, no-new-privileges, mask=PATH[:PATH], unmask=PATH[:PATH]|ALL, systempaths=unconfined, proc-opts=OPTIONS, apparmor=PROFILE, label=WORD";

/// Reads one of them into `options`.
pub(super) fn read(options: &mut Options, word: &str) -> Result<()> {
    let (key, value) = match word.split_once(['=', ':']) {
        Some((key, value)) => (key, value),
        None => (word, ""),
    };
    match (key, value) {
        ("no-new-privileges", "" | "true" | "1") => options.no_new_privileges = true,
        ("no-new-privileges", "false" | "0") => options.no_new_privileges = false,
        ("seccomp", "unconfined") => options.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => options.seccomp = Seccomp::Default,
        ("seccomp", file) => {
            options.seccomp =
                Seccomp::Profile { path: file.to_owned(), text: fs::read_to_string(file.as_ref())? };
        }
        ("systempaths", "unconfined") | ("unmask", "ALL" | "all") => options.unmask = true,
        ("unmask", paths) => options.unmasked.extend(absolute(word, paths)?),
        ("mask", paths) => options.mask.extend(absolute(word, paths)?),
        ("proc-opts", words) => options.proc_options.extend(proc_options(words)?),
        ("apparmor", profile) if !profile.is_empty() => options.apparmor = Some(profile.to_owned()),
        ("label", label) => options.selinux.push(selinux(word, label)?),
        _ => {
            return Err(anyhow!("cannot use --security-opt {word:?}")).hint(format!("it is one of {HELP}"));
        }
    }
    Ok(())
}

fn absolute(word: &str, paths: &str) -> Result<Vec<String>> {
    let path = |path: &str| {
        if path.starts_with('/') && !path.split('/').any(|name| name == "..") {
            return Ok(path.to_owned());
        }
        Err(anyhow!("cannot use --security-opt {word:?}: {path:?} is not an absolute path"))
    };
    paths.split(':').map(path).collect()
}

/// Of the options of procfs (proc(5)), those that take nothing away from what protects the host.
fn proc_options(words: &str) -> Result<Vec<String>> {
    let about = || format!("cannot use --security-opt proc-opts={words}");
    let check = |word: &str| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let is_known = match key {
            "hidepid" => ["0", "1", "2", "4", "off", "noaccess", "invisible", "ptraceable"].contains(&value),
            "gid" => value.parse::<u32>().is_ok(),
            "subset" => value == "pid",
            _ => ["ro", "rw", "nosuid", "nodev", "noexec", "noatime", "relatime"].contains(&word),
        };
        if is_known { Ok(word.to_owned()) } else { Err(anyhow!("there is no option {word:?} of /proc")) }
    };
    words
        .split(',')
        .map(|word| check(word.trim()))
        .collect::<Result<_>>()
        .with_context(about)
        .hint("they are hidepid=0|1|2|4, gid=N, subset=pid, ro")
}

/// A word about SELinux's labels.
fn selinux(word: &str, label: &str) -> Result<String> {
    let is_known = match label.split_once(':') {
        Some((key, value)) => {
            ["user", "role", "type", "level", "filetype"].contains(&key) && !value.is_empty()
        }
        None => ["disable", "nested"].contains(&label),
    };
    if is_known {
        return Ok(label.to_owned());
    }
    Err(anyhow!("cannot use --security-opt {word:?}"))
        .hint("it is label=disable, nested, user:USER, role:ROLE, type:TYPE, level:LEVEL or filetype:TYPE")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(words: &[&str]) -> Result<Options> {
        let mut options = Options::default();
        words.iter().try_for_each(|word| read(&mut options, word))?;
        Ok(options)
    }

    #[test]
    fn words_are_read() {
        let options = read_all(&[
            "unmask=/proc/kcore:/sys/*",
            "mask=/a:/b",
            "mask=/c",
            "label=type:x_t",
            "label:disable",
            "apparmor:unconfined",
            "proc-opts=hidepid=2,ro",
            "no-new-privileges:true",
        ])
        .unwrap();
        assert_eq!(options.unmasked, ["/proc/kcore", "/sys/*"]);
        assert_eq!(options.mask, ["/a", "/b", "/c"]);
        assert_eq!(options.selinux, ["type:x_t", "disable"]);
        assert_eq!(options.apparmor.as_deref(), Some("unconfined"));
        assert_eq!(options.proc_options, ["hidepid=2", "ro"]);
        assert!(options.no_new_privileges && !options.unmask);
        assert!(read_all(&["unmask=ALL"]).unwrap().unmask);
        for wrong in [
            "",
            "x",
            "unmask",
            "unmask=proc",
            "mask=/a:",
            "mask=/a/../b",
            "label",
            "label=level",
            "label=x:y",
            "apparmor",
            "proc-opts=dev",
            "proc-opts=hidepid=9",
            "proc-opts=",
            "no-new-privileges=maybe",
            "systempaths=x",
        ] {
            assert!(read_all(&[wrong]).is_err(), "{wrong}");
        }
    }
}
