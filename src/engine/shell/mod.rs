//! shell: a box for a person of this machine, here and now: with their name and ids, in the directory they are in.
//!
//! A box is a container with the label [`LABEL`]. What it takes over from the caller is taken over anew at each start: the
//! working directory, the ssh agent, terminal and locale.

mod choice;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use choice::{Asked, Choice, box_name, settle, stay};

use super::create::CreateOptions;
use crate::fs;
use crate::host::Host;
use crate::oci::runtime::{MountBuilder, Spec};
use crate::spec::options::{Mount, Network, Options};
use crate::store::container::{ContainerDir, Record};
use crate::store::person::Person;
use crate::supervisor::runtime_dir;

/// Marks a box; its value is the image as typed, or [`MACHINE`].
pub const LABEL: &str = "dhow.shell";
/// What a box is made from that has no image: this machine.
pub const MACHINE: &str = "/";
/// Where the caller's ssh agent is inside: in a copy of the machine not everybody may make something in /run.
fn agent(person: &Person, is_machine: bool) -> PathBuf {
    if is_machine { person.home.join(".dhow-ssh-agent") } else { "/run/dhow/ssh-agent".into() }
}

/// The caller's surroundings, as a box is to have them.
#[derive(Debug)]
pub struct Here {
    /// The caller.
    pub person: Person,
    /// Their environment, as far as it means something inside.
    pub env: Vec<String>,
    /// Where they are.
    pub workdir: PathBuf,
    /// What comes along: the working directory, the ssh agent.
    mounts: Vec<Mount>,
    /// Why the working directory does not come along.
    pub warning: Option<String>,
}

/// Looks around. `from` is what the box is made from; `as_root`: as root of the box, where the caller is not.
pub fn here(host: &Host, from: &str, as_root: bool, command: &[String]) -> Result<Here> {
    let person = person(host, as_root || !host.is_rootless(), command.is_empty())?;
    let cwd = working_directory(host);
    let mut here =
        Here { env: Vec::new(), workdir: person.home.clone(), mounts: Vec::new(), warning: None, person };
    match cwd {
        Some(cwd) if !is_system(&cwd) => {
            here.mounts.push(Mount::bind(&cwd, &cwd));
            here.workdir = cwd;
        }
        // Its copy of the machine has that directory too.
        Some(cwd) if from == MACHINE => here.workdir = cwd,
        Some(cwd) => {
            here.warning = Some(format!("{} is part of the system and stays outside", cwd.display()));
        }
        None => here.warning = Some("the current directory is gone and stays outside".into()),
    }
    let socket = host.env("SSH_AUTH_SOCK").map(PathBuf::from).filter(|path| path.is_absolute());
    let socket =
        socket.filter(|path| fs::metadata(path).ok().flatten().is_some_and(|m| m.file_type().is_socket()));
    here.env = environment(host, &here.person, from == MACHINE);
    if let Some(socket) = socket {
        let inside = agent(&here.person, from == MACHINE);
        here.env.push(format!("SSH_AUTH_SOCK={}", inside.display()));
        here.mounts.push(Mount::bind(&socket, &inside));
    }
    here.person.follows = here.mounts.iter().map(|m| m.target().to_owned()).collect();
    Ok(here)
}

fn person(host: &Host, as_root: bool, runs_shell: bool) -> Result<Person> {
    let read = |path: &str| fs::read_to_string_if_exists(Path::new(path)).map(Option::unwrap_or_default);
    let passwd = read("/etc/passwd")?;
    let entry = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>());
    let entry = entry.into_iter().find(|f| f.len() >= 7 && f[2].parse() == Ok(host.uid));
    let shell = host.env("SHELL").and_then(|s| s.to_str()).map(str::to_owned);
    let shell = shell.or_else(|| entry.as_ref().map(|f| f[6].to_owned())).filter(|s| is_field(s));
    let shell = shell.unwrap_or_default();
    if as_root {
        return Ok(Person {
            name: "root".into(),
            group: "root".into(),
            home: "/root".into(),
            shell,
            runs_shell,
            ..Person::default()
        });
    }
    let name = host.user.clone().unwrap_or_else(|| format!("u{}", host.uid));
    let groups = read("/etc/group")?;
    let group = groups.lines().map(|l| l.split(':').collect::<Vec<_>>());
    let group = group.into_iter().find(|f| f.len() >= 3 && f[2].parse() == Ok(host.gid));
    let home = host.home.clone().filter(|h| h != Path::new("/") && h.to_str().is_some_and(is_field));
    Ok(Person {
        uid: host.uid,
        gid: host.gid,
        group: group.map_or_else(|| name.clone(), |f| f[0].to_owned()),
        home: home.unwrap_or_else(|| Path::new("/home").join(&name)),
        name,
        shell,
        is_inner: true,
        runs_shell,
        follows: Vec::new(),
    })
}

/// Whether a text can stand in a line of /etc/passwd.
fn is_field(text: &str) -> bool {
    text.starts_with('/') && !text.contains(|c: char| c == ':' || c.is_control())
}

/// The current directory by the name the caller knows it by, if that is where they are.
fn working_directory(host: &Host) -> Option<PathBuf> {
    let inode = |path: &Path| fs::metadata(path).ok().flatten().map(|m| (m.dev(), m.ino()));
    let physical = std::env::current_dir().ok().filter(|dir| inode(dir).is_some())?;
    let logical = host.env("PWD").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let is_normal = |dir: &PathBuf| dir.components().all(|c| !matches!(c, std::path::Component::ParentDir));
    let logical = logical.filter(|dir| is_normal(dir) && inode(dir) == inode(&physical));
    Some(logical.unwrap_or(physical))
}

/// Whether a directory is, or holds, what a box needs its own of.
fn is_system(dir: &Path) -> bool {
    let own = [
        "/bin",
        "/sbin",
        "/lib",
        "/lib64",
        "/usr/bin",
        "/usr/sbin",
        "/usr/lib",
        "/usr/lib64",
        "/etc",
        "/run",
        "/var/lib",
    ];
    let kernel = ["/dev", "/proc", "/sys"];
    own.iter().chain(&kernel).any(|path| Path::new(path).starts_with(dir))
        || kernel.iter().any(|path| dir.starts_with(path))
}

/// What of the caller's environment means something inside.
const KEPT: &[&str] = &[
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "LANG",
    "LANGUAGE",
    "TZ",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESS",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

fn environment(host: &Host, person: &Person, is_machine: bool) -> Vec<String> {
    let mut env = vec![
        "container=dhow".to_owned(),
        format!("HOME={}", person.home.display()),
        format!("USER={}", person.name),
        format!("LOGNAME={}", person.name),
        format!("XDG_RUNTIME_DIR={}", runtime_dir(person.uid).display()),
    ];
    let keep = |name: &str| KEPT.contains(&name) || name.starts_with("LC_") || (is_machine && name == "PATH");
    let text = host.env.iter().filter_map(|(key, value)| Some((key.to_str()?, value.to_str()?)));
    env.extend(text.filter(|(key, _)| keep(key)).map(|(key, value)| format!("{key}={value}")));
    env
}

/// Makes a box out of what was typed. Flags win over what is here.
pub fn furnish(wanted: &mut CreateOptions, here: &Here, from: &str) {
    let options = &mut wanted.options;
    options.labels.insert(LABEL.into(), from.to_owned());
    options.init = true;
    options.interactive = true;
    // The image's entrypoint is for its service; a shell is put in the place of an empty command when it starts.
    options.entrypoint = Some(Vec::new());
    if options.command.is_empty() {
        options.command = vec!["/bin/sh".into()];
    }
    options.env.splice(0..0, here.env.iter().cloned());
    options.workdir.get_or_insert_with(|| here.workdir.to_string_lossy().into_owned());
    let follow = following(here, options);
    let follows = follow.iter().map(|m| m.target().to_owned()).collect();
    options.mounts.extend(follow);
    // It is the person's own surroundings, and so is the network.
    if crate::engine::wiring::is_by_default(options) {
        options.network = Network::Host;
    }
    // A shell ignores SIGTERM; what it obeys is that its terminal is gone.
    options.stop_signal.get_or_insert_with(|| "SIGHUP".into());
    if options.hostname.is_none() {
        let name = wanted.name.clone().unwrap_or_else(|| box_name(from));
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
        if options.network == Network::Host {
            options.add_hosts.push((name.clone(), "127.0.1.1".into()));
        }
        options.hostname = Some(name);
    }
    wanted.person = Some(Person { follows, ..here.person.clone() });
}

/// What a start of a box that exists is given besides: what was typed now.
#[derive(Debug, Default)]
pub struct Now {
    /// Program and arguments; none for the shell.
    pub command: Vec<String>,
    /// `KEY=VALUE` of this time.
    pub env: Vec<String>,
    /// The working directory of this time.
    pub workdir: Option<String>,
    /// A pty.
    pub terminal: bool,
}

/// Brings a box that does not run up to date: who calls, from where, with what.
pub fn refresh(
    dir: &ContainerDir,
    record: &mut Record,
    spec: &mut Spec,
    here: &Here,
    now: &Now,
) -> Result<()> {
    let mut options: Options =
        serde_json::from_value(record.options.clone()).context("cannot read the record")?;
    let left = record.person.take().map(|person| person.follows).unwrap_or_default();
    options.mounts.retain(|m| !left.iter().any(|t| t == m.target()));
    let follow = following(here, &options);
    let home = dir.file("home");
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.retain(|m| !left.contains(m.destination()) && m.source().as_ref() != Some(&home));
    for mount in &follow {
        let Mount::Bind { source, target, .. } = mount else { continue };
        mounts.push(bound(source, target)?);
    }
    if mounts.iter().all(|m| *m.destination() != here.person.home) {
        mounts.push(bound(&home, &here.person.home)?);
    }
    // Shorter paths first, so that a mount below another is not hidden by it.
    mounts.sort_by_key(|m| m.destination().components().count());
    spec.set_mounts(Some(mounts));
    let follows = follow.iter().map(|m| m.target().to_owned()).collect();
    record.person = Some(Person { follows, ..here.person.clone() });
    options.mounts.extend(follow);
    options.terminal = now.terminal;
    record.options = serde_json::to_value(&options).context("cannot encode the options")?;
    record.terminal = now.terminal;
    let process = spec.process_mut().as_mut().context("config.json has no process")?;
    let mut env = process.env().clone().unwrap_or_default();
    env.retain(|e| !e.starts_with("SSH_AUTH_SOCK="));
    for new in here.env.iter().chain(&now.env) {
        let key = format!("{}=", new.split('=').next().unwrap_or_default());
        env.retain(|e| !e.starts_with(&key));
        env.push(new.clone());
    }
    process.set_env(Some(env));
    process.set_terminal(Some(now.terminal));
    process.set_cwd(now.workdir.as_ref().map_or_else(|| here.workdir.clone(), PathBuf::from));
    if !now.command.is_empty() {
        process.set_args(Some(now.command.clone()));
    }
    Ok(())
}

/// The mounts that come along, but for those in whose place something else was asked for.
fn following(here: &Here, options: &Options) -> Vec<Mount> {
    let is_taken = |mount: &Mount| options.mounts.iter().any(|m| m.target() == mount.target());
    here.mounts.iter().filter(|m| !is_taken(m)).cloned().collect()
}

fn bound(source: &Path, target: &Path) -> Result<crate::oci::runtime::Mount> {
    let words = ["rbind", "rw", "rprivate"].map(str::to_owned).to_vec();
    let built = MountBuilder::default().destination(target).source(source).typ("bind").options(words);
    built.build().context("cannot build a mount")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_box_needs_its_own_of_stays_outside() {
        for dir in ["/", "/usr", "/usr/bin", "/etc", "/dev/shm/x", "/proc/1", "/var", "/lib", "/run"] {
            assert!(is_system(Path::new(dir)), "{dir}");
        }
        for dir in
            ["/home/al", "/root", "/tmp", "/usr/src/x", "/srv", "/etc/x", "/var/www", "/usr/local", "/devel"]
        {
            assert!(!is_system(Path::new(dir)), "{dir}");
        }
    }
}
