//! dhow: a container engine in one static binary. This page is the map of the house.
//!
//! ```text
//! 9 lib.rs       start-up: hidden roles, Host::probe, cli::main, the one error printer, the exit code
//! 8 cli/         argv <-> text. One file per verb: flags -> Options, one call, render. Alone prints
//! 6 engine/      the container verbs: create start run stop exec rm wait logs cp commit... Takes Options, returns data
//! 5 supervisor/  the process that outlives the command: stdio, log, exit code, teardown
//! 4 image/       archives <-> store: import, load, save, inspect, history
//! 4 network/     plan (pure) and apply/undo: bridge, veth, addresses, firewall, through netlink
//! 3 spec/        image config + options + host -> oci::runtime::Spec; pure; golden-tested
//! 3 runtime/     bundle -> process: create start exec (runc's job); init is the child. Knows no images, no names
//! 3 registry/    the distribution protocol: auth, manifests, blobs as streams; keeps nothing
//! 3 store/       all state on disk: blob, layer, image names, container, lock, gc
//! 3 config.rs    config.toml: defaults of the machine and of the user
//! 3 userns.rs    entering the user name space
//! 2 host.rs      facts read once at start
//! 2 dns/         resolv.conf and hosts: what a resolver knows before it asks
//! 1 fs.rs        file operations whose errors name the path
//! 0 sys/ oci/ dockerfile/ event.rs error.rs quantity.rs subnet.rs endpoint.rs
//! ```
//!
//! A module names only modules on lower floors; `imports_point_down` below keeps it so.
//!
//! # Files on disk
//!
//! | path under DATA | owner | what |
//! | --- | --- | --- |
//! | `format` | `store::format` | which shape these files have: a number |
//! | `blobs/ALGORITHM/HEX` | `store::blob` | manifests, configs, compressed layers: immutable, verified when written; sha256, but where something from outside is named by another digest |
//! | `partial/HEX` | `store::partial` | a blob that is being fetched, locked by its fetcher; kept to be resumed |
//! | `partial/HEX.tree/` `HEX.old/` | `store::layer::remnant` | a layer that comes uncompressed, unpacked as far as it came; what an interrupted pull left of it |
//! | `layers/HEX/` | `store::layer` | one unpacked layer, named by its diff id |
//! | `layers/CHAIN.dirs/` | `store::layer` | directories that a layer only implies, with what the layers beneath say of them |
//! | `images/` | `store::image` | one small file a name: reference -> manifest digest, and what a listing shows of it |
//! | `shipped/HEX` | `store::shipped` | a layer as it was pulled and pushed, and where that lies: a hint |
//! | `manifests/` | `image::manifest_list` | one small file a manifest list: an index in the making; what it names is not freed |
//! | `containers/ID/` | `store::container` | an OCI bundle: config.json, the record, upper, log, exit code |
//! | `names/NAME` | `store::container` | symlink to the id: symlink(2) is the claim |
//! | `ephemeral/ID` | `store::container` | marks a container that is to go when it ends |
//! | `events/log`, `log.1`... | `store::journal` | what happened, for `events`: appended to by all, bounded by rotation |
//! | `volumes/NAME/` | `store::volume` | a volume: its content in `_data/`, what was asked for in volume.json |
//! | `networks/NAME.json` | `store::network` | a network: its addresses, what was asked for |
//! | `networks/claims/ID/ADDRESS` | `store::network::claim` | symlink to the container that has the address |
//! | `forward/` | `network::forward` | lock and socket of the process that leads a user's containers to the outside |
//! | `mapped/HEX/` | `store::mapped` | an image's layers as one tree with other owners, for keep-id; made when first needed |
//! | `secrets/` | `store::secret` | values, for the caller alone: stored ones, and the copies that containers have |
//! | `ids.lock` | `engine::id_range` | held while ids are found for a container that has its own |
//! | `turns.lock` | `store::turn` | a byte for each name: whose turn it is to decide what becomes of it |
//! | `booted` | `engine::boot` | the boot id of the last `boot --once` |
//! | `tmp/` | `store::draft` | what is being made; swept by whoever finds its lock free |
//!
//! DATA is /var/lib/dhow, or ~/.local/share/dhow for a user. There is no run directory: what is true only for this boot
//! is true only while a lock is held, and locks do not survive a boot. So cron, su, ssh and a desktop session, whatever
//! their XDG_RUNTIME_DIR, see the same containers.
//!
//! What was damaged there is found by `system check` (`image::check`), and made again or fetched again by its `--repair`.
//! Until then it is in nobody's way: what can be listed is listed, what can be removed is removed, and nothing is freed that
//! a damaged image might need. Other stores (`store::additional`) may be used beside this one; they are only read.
//!
//! # Processes
//!
//! `dhow run` -> supervisor -> init. The supervisor is pid 1 of a pid name space of its own, in which the container's pid
//! name space is nested: however the supervisor ends, the kernel then ends everything in the container. A parent-death
//! signal would not do, because a set-uid program, or one that calls setuid(2), loses it.
//!
//! A supervisor runs its container again where the restart policy says so, or `restart` does: a run is init and all that is
//! cleared away after it, and one supervisor may see many. Later commands visit it through a socket in the container's
//! directory (`supervisor`, guests): they attach, pause, set limits. What a person ended is marked there by the file
//! `stopped`, before it is ended, and stays ended under every policy.
//!
//! A user's containers that are joined to networks share one network name space, which a process of its own leads to the
//! outside: `network::forward`. It is there as long as one of them is.
//!
//! # Ladders
//!
//! What a machine, or the container around us, refuses is replaced by the next best, found by trying.
//!
//! - The root (`store::rootfs`): overlay; overlay with its changes in memory, for a container that is thrown away; a copy of
//!   the layers. A host directory that has mounts beneath it is, for a user, put together piece by piece.
//! - Isolation (`supervisor::spawn`): name spaces and mounts; chroot(2) into a copy, with one line that says so, or an
//!   error under `--isolation full`. In between, /proc and /sys are bound where fresh ones are refused, devices where
//!   mknod(2) is, and the root is moved where pivot_root(2) is.

pub mod cli;
pub mod config;
pub mod dns;
pub mod dockerfile;
pub mod endpoint;
pub mod engine;
pub mod error;
pub mod event;
pub mod fs;
pub mod host;
pub mod image;
pub mod network;
pub mod oci;
pub mod quantity;
pub mod registry;
pub mod runtime;
pub mod spec;
pub mod store;
pub mod subnet;
pub mod supervisor;
pub mod sys;
pub mod userns;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// The program: a hidden role that dhow started itself in, or one command of the user. Returns the exit code.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // A file that grows over the caller's limit (ulimit -f) is an error of ours to tell, not a death.
    sys::process::ignore_signal(libc::SIGXFSZ);
    let word = |n: usize| args.get(n).and_then(|w| w.to_str());
    // Each role is started with its end of a socket: at 3, and for `reap` at the number that it is told.
    let has_socket = match word(1) {
        Some("reap") => args
            .get(2)
            .and_then(|word| runtime::reaper::descriptors(word))
            .is_some_and(|(sync_fd, _)| sys::process::is_socket(sync_fd)),
        _ => sys::process::is_socket(3),
    };
    let role = match (word(0), word(1)) {
        (Some("dhow"), Some("supervise")) if has_socket => {
            args.get(2).map(|dir| supervisor::serve::run(Path::new(dir)).map(|()| 0))
        }
        (Some("dhow"), Some("forward")) if has_socket => Some(network::forward::role::main(&args[2..])),
        (Some("dhow"), Some("enter")) if has_socket => Some(runtime::exec::enter()),
        (Some("dhow"), Some("check")) if has_socket => Some(supervisor::check::run()),
        (Some("dhow"), Some("reap")) if has_socket => Some(runtime::reaper::main(&args[2..])),
        _ => None,
    };
    match role {
        // A role has told whoever waits for it what went wrong; nobody reads its stderr.
        Some(result) => ExitCode::from(result.unwrap_or(125)),
        None => ExitCode::from(cli::main(args)),
    }
}

#[cfg(test)]
mod tests {
    use crate::fs;
    use std::path::Path;

    /// The floor of each room; a file not named here is a mistake.
    const FLOORS: &[(&str, u32)] = &[
        ("error", 0),
        ("event", 0),
        ("sys", 0),
        ("oci", 0),
        ("quantity", 0),
        ("dockerfile", 0),
        ("endpoint", 0),
        ("subnet", 0),
        ("fs", 1),
        ("dns", 2),
        ("host", 2),
        ("config", 3),
        ("userns", 3),
        ("runtime", 3),
        ("network", 4),
        ("registry", 3),
        ("store", 3),
        ("image", 4),
        ("spec", 3),
        ("supervisor", 5),
        ("engine", 6),
        ("cli", 8),
        ("lib", 9),
        ("main", 10),
    ];

    fn floor(room: &str) -> u32 {
        FLOORS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("no floor for {room}")).1
    }

    fn check_file(path: &Path, room: &str, wrong: &mut Vec<String>) {
        // Floors 0-2 hold several small rooms that may lean on `error`, `event` and, for host and userns, each other.
        let text = fs::read_to_string(path).unwrap();
        let code = text.lines().take_while(|l| !l.starts_with("#[cfg(test)]"));
        for (n, line) in code.enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            for named in line.split("crate::").skip(1) {
                let other: String = named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let known = FLOORS.iter().any(|(name, _)| *name == other);
                let allowed = other == room || other == "error" || !known || floor(&other) < floor(room);
                if !allowed {
                    wrong.push(format!("{}:{}: {room} names {other}", path.display(), n + 1));
                }
            }
        }
    }

    fn check_dir(dir: &Path, room: Option<&str>, wrong: &mut Vec<String>) {
        for name in fs::read_dir(dir).unwrap() {
            let path = dir.join(&name);
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let room = room.unwrap_or(&stem);
            if path.is_dir() && stem != "tests" {
                check_dir(&path, Some(room), wrong);
            } else if stem == "tests" {
                // Tests may look down from anywhere: they are no part of the house.
            } else if path.extension().is_some_and(|e| e == "rs") {
                floor(room);
                check_file(&path, room, wrong);
            }
        }
    }

    #[test]
    fn imports_point_down() {
        let mut wrong = Vec::new();
        check_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None, &mut wrong);
        assert!(wrong.is_empty(), "imports that point up or sideways:\n{}", wrong.join("\n"));
    }
}
