//! What runs `dhow boot` after a reboot: an entry for cron and a unit for systemd. Their text, and putting them in place.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};

use super::Engine;
use super::boot::program;
use crate::error::ResultExt;
use crate::fs;
use crate::host::Host;

const UNIT: &str = "dhow-boot.service";
/// How the line of ours ends in a crontab; a comment to the shell.
const MARK: &str = "# dhow-boot";

/// The texts, for this program, this store and this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// A line of a crontab.
    pub cron: String,
    /// A unit of systemd.
    pub unit: String,
    /// Where the unit lies.
    pub unit_path: PathBuf,
    /// The directory whose links systemd follows when it starts.
    wants: PathBuf,
}

/// Makes the texts. Changes nothing.
pub fn hooks(engine: &Engine) -> Result<Hooks> {
    let (program, host) = (program()?, &engine.host);
    let (units, target) = match host.is_rootless() {
        false => (PathBuf::from("/etc/systemd/system"), "multi-user.target"),
        true => {
            let config =
                host.config_dir().ok_or_else(|| anyhow!("cannot find a home of uid {}", host.uid))?;
            (config.join("systemd/user"), "default.target")
        }
    };
    Ok(texts(&program, &host.data, &units, target))
}

fn texts(program: &Path, data: &Path, units: &Path, target: &str) -> Hooks {
    let (program, data) = (program.to_string_lossy(), data.to_string_lossy());
    // The store is named: neither cron nor systemd has the caller's environment.
    let sh = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let cron = format!("@reboot {} --root {} boot --once --quiet {MARK}", sh(&program), sh(&data));
    let quoted = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
        format!("\"{text}\"")
    };
    // Delegate: a container gets its cgroup beneath the unit's. KillMode and RemainAfterExit: the containers are the unit's
    // processes, and are to live on when its command has ended.
    let unit = format!(
        "[Unit]\n\
         Description=Containers of dhow that run again after a reboot\n\
         Wants=network-online.target\n\
         After=network-online.target local-fs.target\n\n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         KillMode=process\n\
         Delegate=yes\n\
         ExecStart={} --root {} boot --once\n\n\
         [Install]\n\
         WantedBy={target}\n",
        quoted(&program),
        quoted(&data),
    );
    Hooks {
        // A percent sign ends a command of cron's (crontab(5)).
        cron: cron.replace('%', "\\%"),
        unit,
        unit_path: units.join(UNIT),
        wants: units.join(format!("{target}.wants")),
    }
}

/// Puts both in place, or takes both away; returns a line for each that says what was done. One that this machine has no
/// use for is passed over; an error if that is both. Doing it twice changes nothing.
pub fn install(host: &Host, hooks: &Hooks, wanted: bool) -> Result<Vec<String>> {
    let mut told = Vec::new();
    let has_systemd = ["/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"]
        .iter()
        .any(|dir| Path::new(dir).is_dir());
    if has_systemd || !wanted {
        told.extend(unit(host, hooks, wanted)?);
    }
    match crontab(&hooks.cron, wanted) {
        Ok(line) => told.extend(line),
        Err(error) if told.is_empty() && wanted => {
            return Err(error)
                .hint("there is neither systemd nor cron here: let whatever starts first run dhow boot");
        }
        Err(error) if wanted => told.push(format!("no entry for cron: {error:#}")),
        Err(_) => {}
    }
    Ok(told)
}

fn unit(host: &Host, hooks: &Hooks, wanted: bool) -> Result<Vec<String>> {
    let path = &hooks.unit_path;
    let link = hooks.wants.join(UNIT);
    if !wanted {
        let was_there = fs::symlink_metadata(path)?.is_some();
        fs::remove_file(&link)?;
        fs::remove_file(path)?;
        return Ok(was_there.then(|| format!("removed {}", path.display())).into_iter().collect());
    }
    fs::create_dir_all(&hooks.wants, 0o755)?;
    fs::write_atomic(path, hooks.unit.as_bytes())?;
    // What `systemctl enable` does.
    match fs::symlink(&Path::new("..").join(UNIT), &link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot make {}", link.display()));
        }
        _ => {}
    }
    let mut told = vec![format!("made and enabled {}", path.display())];
    if host.is_rootless() {
        told.push(format!(
            "for it to run before you log in: loginctl enable-linger {}",
            host.user.as_deref().unwrap_or("")
        ));
    }
    Ok(told)
}

/// The caller's crontab, through crontab(1): its spool is not the user's to write.
fn crontab(line: &str, wanted: bool) -> Result<Option<String>> {
    let run = |args: &[&str]| {
        let mut command = Command::new("crontab");
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let listed = run(&["-l"]).stdout(Stdio::piped()).output().context("cannot run crontab")?;
    // It fails where there is no crontab yet, which is an empty one.
    let old = if listed.status.success() { listed.stdout } else { Vec::new() };
    let old = String::from_utf8(old).context("cannot change the crontab")?;
    let is_ours = |l: &&str| l.trim_end().ends_with(MARK) && l.starts_with("@reboot ");
    let mut lines: Vec<&str> = old.lines().filter(|l| !is_ours(l)).collect();
    if wanted {
        lines.push(line);
    }
    let new: String = lines.iter().flat_map(|l| [l, "\n"]).collect();
    if new != old {
        let mut child = run(&["-"]).stdin(Stdio::piped()).spawn().context("cannot run crontab")?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(new.as_bytes()).context("cannot change the crontab")?;
        }
        let status = child.wait().context("cannot change the crontab")?;
        anyhow::ensure!(status.success(), "cannot change the crontab: crontab refuses");
    }
    Ok(match (wanted, new == old) {
        (true, _) => Some("made an entry in the crontab".into()),
        (false, false) => Some("removed the entry in the crontab".into()),
        (false, true) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_odd_letters_stay_what_they_are() {
        let hooks = texts(Path::new("/o'p/100%/dhow"), Path::new("/d $x\"y"), Path::new("/u"), "t.target");
        assert_eq!(
            hooks.cron,
            r#"@reboot '/o'\''p/100\%/dhow' --root '/d $x"y' boot --once --quiet # dhow-boot"#
        );
        assert!(
            hooks.unit.contains(r#"ExecStart="/o'p/100%%/dhow" --root "/d $$x\"y" boot --once"#),
            "{}",
            hooks.unit
        );
        assert!(hooks.unit.ends_with("WantedBy=t.target\n"));
    }
}
