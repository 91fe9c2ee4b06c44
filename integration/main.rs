//! The tests of dhow from the outside: the built program is run as a person runs it, and what it prints, returns and
//! leaves behind is looked at. One test binary; this is its index.
//!
//! | harness module | what it owns |
//! | --- | --- |
//! | `sandbox` | a test's own store, environment and directory; at its end nothing of it may be left |
//! | `command` | one run of the program and the report of it where it failed |
//! | `user` | whom a test runs as: root, a user with subordinate ids, a user with one id |
//! | `images` | the images that tests run, and the probe inside them |
//! | `leftovers` | what a test forgot: processes, mounts, cgroups |
//! | `capability` | what this machine can do; skips are said aloud, `DHOW_MUST` makes them failures |
//! | `wait` | waiting for a condition with a deadline; nothing sleeps |
//! | `terminal` | a pseudo-terminal with the program on it |
//! | `archive` | tar archives made by hand, also such as no tar program writes |
//! | `vm` `guest` | a virtual machine with an older kernel and cgroup v2, and what it is given |
//! | `peers` | docker and podman, each with its state in the sandbox |
//! | `registry_server` | Debian's docker-registry, plain, with TLS, with passwords |
//! | `hostile_registry` `honest_registry` `hostile_wire` | a registry that misbehaves by a script |
//! | `name_server` | a name server of the machine |
//! | `own_host` | a network name space that is a test's host, with addresses that are the outside |
//! | `image_made` | images made in memory, byte for byte as a test wants them |
//!
//! | tests | what they show |
//! | --- | --- |
//! | `run_process` `run_streams` `run_terminal` `run_mounts` `run_security` `run_files` `limits` `rootfs` | `dhow run` |
//! | `cp` `cp_hostile` | files between containers and the host |
//! | `lifecycle` `ps` `exec` `logs` `inspect` | the verbs for containers |
//! | `log_drivers` | where logs go, and what of them is kept |
//! | `names` `links` | names on networks, /etc/hosts and /etc/resolv.conf, --link |
//! | `waiting` | `dhow wait` |
//! | `health` | health checks |
//! | `events` | the journal of what happened |
//! | `top` | top, stats, port, rm, exists |
//! | `commit` | diff, export, commit |
//! | `cp` `cp_hostile` | files between containers and the host |
//! | `lifecycle` `exec` `logs` `inspect` | the verbs for containers |
//! | `lifecycle` `exec` `logs` `inspect` | the verbs for containers |
//! | `lifecycle` `ps` `exec` `logs` `inspect` | the verbs for containers |
//! | `events` | the journal of what happened |
//! | `bridges` | networks of root: ports, isolation, the firewall of others, healing |
//! | `job` `cron` `boot` | jobs that are run again and again, also by cron itself; what runs again after a reboot |
//! | `import` `image_verbs` `interop` `hostile_archives` | images |
//! | `cgroup_v2` `old_kernel` `power_cut` `clock` | other machines than this one |
//! | `cgroup_v2` `old_kernel` `power_cut` | other machines than this one |
//! | `forward` | a user's way to the outside |
//! | `crowd` | many on one network, addresses that run out, names with strange characters |
//! | `study` `study_changes` | an architecture of 21 containers in three environments, and how it is changed while it is used |
//! | `rootless` `nested` `debian` | users, dhow in dhow, a real distribution |
//! | `forward` `forward_streams` `forward_ports` | a user's way to the outside, and the outside's to a user's containers |
//! | `rootless` `nested` `nested_networks` `debian` | users, dhow in dhow, a real distribution |
//! | `ci` | what a step of a CI system needs |
//! | `secrets` | what has them, and what never does |
//! | `store_care` | `system check` |
//! | `identity` | `--userns`, `own`, users without a name |
//! | `mount_kinds` | `--mount` and its fields |
//! | `volumes` | volumes, -v, --mount, --volumes-from |
//! | `prune` | the prunes, `system df`, `system reset` |
//! | `additional_store` | stores that are only read |
//! | `login_helpers` | credential helpers |
//! | `bad_days` `kill` `refusals` `self_exe` `hostile_images` | deaths, wrong input, attacks |
//! | `pull` | pulling, by itself and by run |
//! | `registry_bad_days` `registry_trust` `registry_deaths` | registries that fail and lie, pulls that die |
//! | `digests` `digests_shipped` | images by sha384 and sha512 |
//! | `push` `image_copy` `manifest` | push, copies without the store, lists for several platforms, remote inspect |
//! | `registry_interop` | push and pull between dhow, docker, podman, skopeo and docker-registry |
//! | `registry_conformance` | the duties of a registry's client, and which test shows which |
//! | `login` `registry_config` | credentials; mirrors, certificates, proxies |
//! | `harness_works` `licences` `static_binary` | this harness, what is linked in, and how |
//!
//! Environment: `DHOW_MUST=all` (or `docker,podman,...`) turns skips into failures; `DHOW_TEST_DIR` says where
//! sandboxes lie (default /var/tmp); `DHOW_TEST_PROGRAM` is a program to test in place of the one just built, such as
//! the release, or a peer behind a wrapper, which shows what a test takes for granted.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    reason = "a test panics, prints and touches files as it likes; the bans guard the program"
)]

#[macro_use]
mod user;
mod capability;
mod command;
mod images;
mod leftovers;
mod sandbox;
mod terminal;
mod wait;

mod additional_store;
mod archive;
mod fifty;
mod guest;
mod honest_registry;
mod hostile_registry;
mod hostile_wire;
mod image_made;
mod name_server;
mod own_host;
mod peers;
mod registry_server;
mod vm;

mod attach;
mod bad_days;
mod boot;
mod boot_vm;
mod bridges;
mod cgroup_v2;
mod ci;
mod clock;
mod commit;
mod completions;
mod connect;
mod cp;
mod cp_hostile;
mod cron;
mod crowd;
mod debian;
mod digests;
mod digests_shipped;
mod events;
mod exec;
mod forward;
mod forward_ports;
mod forward_streams;
mod harness_works;
mod health;
mod host_flags;
mod hostile_archives;
mod hostile_images;
mod id_ranges;
mod identity;
mod image_copy;
mod image_verbs;
mod import;
mod inspect;
mod interop;
mod job;
mod kill;
mod licences;
mod lifecycle;
mod limits;
mod links;
mod log_drivers;
mod login;
mod login_helpers;
mod logs;
mod manifest;
mod mount_kinds;
mod names;
mod nested;
mod nested_networks;
mod networks;
mod old_kernel;
mod pause;
mod power_cut;
mod preserve_fds;
mod prune;
mod ps;
mod pull;
mod push;
mod refusals;
mod registry_bad_days;
mod registry_config;
mod registry_conformance;
mod registry_deaths;
mod registry_interop;
mod registry_lies;
mod registry_trust;
mod registry_windows;

mod restart;
mod rootfs;
mod rootless;
mod run_files;
mod run_mounts;
mod run_process;
mod run_security;
mod run_streams;
mod run_terminal;
mod secrets;
mod security_options;
mod self_exe;
mod settings;
mod setup;
mod shared;
mod shell;
mod shell_together;
mod static_binary;
mod store_care;
mod study;
mod study_changes;
mod top;
mod update;
mod volumes;
mod waiting;
