//! The table of verbs.

use super::Verb;
use super::{
    boot, events, exec, healthcheck, image as i, image_copy, image_inspect, images, inspect, login, logs,
    manifest, ps, pull, push, run, run_flags, search, shell, start, stop, system,
};
// A line of their own for those that came later: lists are where branches meet.
use super::attach;
use super::commit;
use super::complete;
use super::connect;
use super::cp;
use super::man;
use super::network;
use super::network_alias;
use super::pause;
use super::rename;
use super::restart;
use super::secret;
use super::update;
use super::volume;
use super::wait;
use super::{port, rm, stats, top};

macro_rules! verb {
    ($name:literal, $about:literal, $args:path, $run:path $(, $alias:literal)*) => {
        Verb { name: $name, about: $about, aliases: &[$($alias),*], flags: $args, run: $run }
    };
}

// The verbs that have two places, `dhow VERB` and `dhow container VERB` or `dhow image VERB`.
const RUN: Verb = verb!("run", "Make and start a container", run::run_args, run::run);
const CREATE: Verb = verb!("create", "Make a container", run_flags::add, run::create_verb);
const START: Verb = verb!("start", "Start containers", start::start_args, start::start_verb);
const STOP: Verb = verb!("stop", "Ask containers to end, then end them", stop::stop_args, stop::stop_verb);
const RESTART: Verb =
    verb!("restart", "End containers and start them again", restart::restart_args, restart::restart_verb);
const UPDATE: Verb = verb!(
    "update",
    "Change limits and restart policy of containers",
    update::update_args,
    update::update_verb
);
const ATTACH: Verb =
    verb!("attach", "Stay at the streams of containers that run", attach::attach_args, attach::attach_verb);
const PAUSE: Verb =
    verb!("pause", "Stop all processes of containers for a while", pause::pause_args, pause::pause_verb);
const UNPAUSE: Verb = verb!(
    "unpause",
    "Let the processes of paused containers go on",
    pause::unpause_args,
    pause::unpause_verb
);
const RENAME: Verb =
    verb!("rename", "Give a container another name", rename::rename_args, rename::rename_verb);
const KILL: Verb = verb!("kill", "Send a signal to containers", stop::kill_args, stop::kill_verb);
const RM: Verb = verb!("rm", "Remove containers", rm::rm_args, rm::rm_verb);
const WAIT: Verb =
    verb!("wait", "Wait for containers to end and print their exit codes", wait::wait_args, wait::wait_verb);
const DIFF: Verb =
    verb!("diff", "Show what a container changed of its image", commit::diff_args, commit::diff_verb);
const EXPORT: Verb =
    verb!("export", "Write all files of a container as a tar", commit::export_args, commit::export_verb);
const COMMIT: Verb =
    verb!("commit", "Make an image of a container", commit::commit_args, commit::commit_verb);
const TOP_VERB: Verb = verb!("top", "List the processes of a container", top::top_args, top::top_verb);
const STATS: Verb = verb!("stats", "Show what containers use", stats::stats_args, stats::stats_verb);
const PORT: Verb =
    verb!("port", "Show what ports of a container are published", port::port_args, port::port_verb);
const CP: Verb = verb!("cp", "Copy files between a container and the host", cp::cp_args, cp::cp_verb);
const EXEC: Verb = verb!("exec", "Run a command in a container that runs", exec::exec_args, exec::exec_verb);
const LOGS: Verb = verb!("logs", "Show what a container wrote", logs::logs_args, logs::logs_verb);
const SHELL: Verb =
    verb!("shell", "Be yourself, where you are, in a box of another system", shell::shell_args, shell::shell);
const IMPORT: Verb = verb!("import", "Make an image from a root file system", i::import_args, i::import);
const LOAD: Verb = verb!("load", "Load images from an archive", i::load_args, i::load);
const SAVE: Verb = verb!("save", "Save images to an archive", i::save_args, i::save);
const TAG: Verb = verb!("tag", "Give an image one more name", i::tag_args, i::tag);
const UNTAG: Verb = verb!("untag", "Take names from an image", i::untag_args, i::untag);
const HISTORY: Verb = verb!("history", "Show how an image was made", i::history_args, i::history);
const PULL: Verb = verb!("pull", "Get an image from a registry", pull::pull_args, pull::pull_verb);
const PUSH: Verb = verb!("push", "Send an image to a registry", push::push_args, push::push_verb);

const INFO: Verb =
    verb!("info", "Show what this machine and its store are", system::info::args, system::info::info);

const EVENTS: Verb =
    verb!("events", "Show what happens, and what happened", events::events_args, events::events_verb);

const SETUP: Verb = verb!(
    "setup",
    "Say what this machine lacks, and what would bring it",
    system::setup::args,
    system::setup::setup
);
const BOOT: Verb =
    verb!("boot", "Start what is to run again after a reboot", boot::boot_args, boot::boot_verb);

pub(super) static TOP: &[Verb] = &[
    BOOT,
    RUN,
    CREATE,
    START,
    STOP,
    RESTART,
    ATTACH,
    UPDATE,
    PAUSE,
    UNPAUSE,
    RENAME,
    KILL,
    RM,
    WAIT,
    EXEC,
    LOGS,
    CP,
    SHELL,
    DIFF,
    EXPORT,
    COMMIT,
    TOP_VERB,
    STATS,
    PORT,
    verb!("ps", "List containers", ps::ps_args, ps::ps_verb),
    verb!(
        "inspect",
        "Show everything about containers and images",
        inspect::inspect_args,
        inspect::inspect_verb
    ),
    IMPORT,
    LOAD,
    SAVE,
    PULL,
    PUSH,
    verb!("images", "List images", images::images_args, images::images),
    verb!("rmi", "Remove images", i::rmi_args, i::rmi),
    verb!("login", "Log in to a registry", login::login_args, login::login),
    verb!("logout", "Log out of a registry", login::logout_args, login::logout),
    verb!("search", "Search a registry for images", search::search_args, search::search),
    TAG,
    UNTAG,
    HISTORY,
    EVENTS,
    INFO,
    SETUP,
    verb!(
        "completion",
        "Print the script that completes what is typed in a shell",
        complete::completion_args,
        complete::completion
    ),
    verb!("man", "Write the manual pages", man::man_args, man::man_verb),
    verb!("version", "Show the version", system::info::args, system::info::version),
];

pub(super) static CONTAINER: &[Verb] = &[
    RUN,
    CREATE,
    START,
    STOP,
    RESTART,
    ATTACH,
    UPDATE,
    PAUSE,
    UNPAUSE,
    RENAME,
    KILL,
    RM,
    WAIT,
    EXEC,
    LOGS,
    CP,
    SHELL,
    DIFF,
    EXPORT,
    COMMIT,
    TOP_VERB,
    STATS,
    PORT,
    verb!("ls", "List containers", ps::ps_args, ps::ps_verb, "ps", "list"),
    verb!(
        "inspect",
        "Show everything about containers",
        inspect::container_inspect_args,
        inspect::container_inspect
    ),
    verb!(
        "exists",
        "Tell by the exit code whether there is such a container",
        rm::exists_args,
        rm::exists_verb
    ),
    verb!(
        "prune",
        "Remove all containers that do not run",
        system::prune::container_args,
        system::prune::container_prune
    ),
];

pub(super) static IMAGE: &[Verb] = &[
    verb!(
        "copy",
        "Copy an image between registries, archives and directories, without the store",
        image_copy::copy_args,
        image_copy::copy_verb,
        "cp"
    ),
    IMPORT,
    LOAD,
    SAVE,
    PULL,
    PUSH,
    verb!("ls", "List images", images::images_args, images::images, "list"),
    verb!("rm", "Remove images", i::rmi_args, i::rmi, "remove"),
    TAG,
    UNTAG,
    HISTORY,
    verb!("exists", "Tell by the exit code whether an image is here", pull::exists_args, pull::exists),
    verb!(
        "inspect",
        "Show everything about images, here or in a registry",
        image_inspect::inspect_args,
        image_inspect::inspect_verb
    ),
    verb!(
        "prune",
        "Remove images that are not in use",
        system::prune::image_args,
        system::prune::image_prune
    ),
];

pub(super) static SYSTEM: &[Verb] = &[
    INFO,
    SETUP,
    EVENTS,
    verb!("df", "Show what takes room on the disk", system::df::df_args, system::df::df_verb),
    verb!(
        "check",
        "Look whether everything in the store is whole, and repair it",
        system::check::check_args,
        system::check::check_verb
    ),
    verb!("prune", "Remove what is not in use", system::prune::system_args, system::prune::system_prune),
    verb!("reset", "Remove everything", system::prune::reset_args, system::prune::reset_verb),
];

pub(super) static MANIFEST: &[Verb] = &[
    verb!(
        "create",
        "Make a list of images for several platforms",
        manifest::create_args,
        manifest::create_verb
    ),
    verb!("add", "Add images to a list", manifest::add_args, manifest::add_verb),
    verb!(
        "annotate",
        "Say otherwise what an image of a list is for",
        manifest::annotate_args,
        manifest::annotate_verb
    ),
    verb!("remove", "Take images out of a list", manifest::take_out_args, manifest::take_out_verb),
    verb!(
        "inspect",
        "Show a list, or a registry's manifest or index",
        manifest::inspect_args,
        manifest::inspect_verb
    ),
    verb!("push", "Send a list and its images to a registry", manifest::push_args, manifest::push_verb),
    verb!("rm", "Remove lists", manifest::rm_args, manifest::rm_verb),
    verb!(
        "exists",
        "Tell by the exit code whether there is such a list",
        manifest::exists_args,
        manifest::exists_verb
    ),
];

pub(super) static VOLUME: &[Verb] = &[
    verb!("create", "Make a volume", volume::create_args, volume::create_verb),
    verb!("ls", "List volumes", volume::ls_args, volume::ls_verb, "list"),
    verb!("inspect", "Show everything about volumes", volume::inspect_args, volume::inspect_verb),
    verb!("rm", "Remove volumes", volume::rm_args, volume::rm_verb, "remove"),
    verb!("prune", "Remove volumes that no container uses", volume::prune_args, volume::prune_verb),
    verb!(
        "exists",
        "Tell by the exit code whether there is such a volume",
        volume::exists_args,
        volume::exists_verb
    ),
];

pub(super) static NETWORK: &[Verb] = &[
    verb!("create", "Make a network", network::create_args, network::create_verb),
    verb!("ls", "List networks", network::ls_args, network::ls_verb, "list"),
    verb!("inspect", "Show everything about networks", network::inspect_args, network::inspect_verb),
    verb!("rm", "Remove networks", network::rm_args, network::rm_verb, "remove"),
    verb!("prune", "Remove networks that no container uses", network::prune_args, network::prune_verb),
    verb!("connect", "Join a container to a network", connect::connect_args, connect::connect_verb),
    verb!(
        "disconnect",
        "Take a container out of a network",
        connect::disconnect_args,
        connect::disconnect_verb
    ),
    verb!(
        "alias",
        "Say which container names on a network mean, from now on",
        network_alias::args,
        network_alias::verb
    ),
    verb!(
        "exists",
        "Tell by the exit code whether there is such a network",
        network::exists_args,
        network::exists_verb
    ),
    verb!(
        "reload",
        "Make again what somebody else took away of containers' networks",
        connect::reload_args,
        connect::reload_verb
    ),
];

pub(super) static SECRET: &[Verb] = &[
    verb!("create", "Keep a secret", secret::create_args, secret::create_verb),
    verb!("ls", "List secrets", secret::ls_args, secret::ls_verb, "list"),
    verb!("inspect", "Show what may be told of secrets", secret::inspect_args, secret::inspect_verb),
    verb!("rm", "Remove secrets", secret::rm_args, secret::rm_verb, "remove"),
    verb!(
        "exists",
        "Tell by the exit code whether there is such a secret",
        secret::exists_args,
        secret::exists_verb
    ),
];

pub(super) static HEALTHCHECK: &[Verb] =
    &[verb!("run", "Run the health check of a container now", healthcheck::run_args, healthcheck::run_verb)];

/// The groups: name, place in the help, verbs.
pub(super) static GROUPS: &[(&str, &str, &[Verb])] = &[
    ("container", "Work with containers", CONTAINER),
    ("healthcheck", "Work with the health checks of containers", HEALTHCHECK),
    ("image", "Work with images", IMAGE),
    ("manifest", "Work with lists of images for several platforms", MANIFEST),
    ("network", "Work with networks", NETWORK),
    ("secret", "Work with secrets", SECRET),
    ("volume", "Work with volumes", VOLUME),
    ("system", "Work with the store as a whole", SYSTEM),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_has_in_two_places_is_in_both() {
        let of = |table: &'static [Verb], name: &str| {
            table.iter().find(|v| v.name == name || v.aliases.contains(&name))
        };
        for name in [
            "attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "pause",
            "port", "ps", "rename", "restart", "rm", "run", "start", "stats", "stop", "top", "unpause",
            "update", "wait",
        ] {
            let (top, grouped) = (of(TOP, name).unwrap(), of(CONTAINER, name).unwrap());
            // `inspect` alone is of everything.
            let is_same = std::ptr::fn_addr_eq(top.run, grouped.run);
            assert!(is_same || name == "inspect", "{name}");
        }
        for name in ["ls", "list", "prune", "exists"] {
            assert!(of(CONTAINER, name).is_some(), "{name}");
        }
        for name in ["history", "import", "load", "pull", "push", "save", "tag"] {
            let (top, grouped) = (of(TOP, name).unwrap(), of(IMAGE, name).unwrap());
            assert!(std::ptr::fn_addr_eq(top.run, grouped.run), "{name}");
        }
    }
}
