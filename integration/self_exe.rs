//! The program itself is out of a container's reach (CVE-2019-5736): an entrypoint or an exec that is `/proc/self/exe`, and
//! a container that opens whatever `/proc/*/exe` it can see.

use std::fs;

use sha2::Digest as _;

use crate::images;
use crate::sandbox::{self, Sandbox};
use crate::wait;

for_each_user!(
    entrypoint_is_proc_self_exe,
    exec_of_proc_self_exe,
    a_hostile_watcher,
    the_executable_is_no_way_out
);

fn digest() -> Vec<u8> {
    sha2::Sha256::digest(fs::read(sandbox::dhow()).unwrap()).to_vec()
}

/// A shell function that tries to write to a process's executable, by name and by a descriptor held over the exec.
const ATTACK: &str = "attack() { for p in /proc/[0-9]*/exe; do case $(readlink $p) in /bin/*|/probe) ;; *) \
                      ( exec 9<$p && echo overwritten > /proc/self/fd/9 ) 2>/dev/null && echo written $p; \
                      ( echo overwritten > $p ) 2>/dev/null && echo written $p; ;; esac; done; }; ";

fn entrypoint_is_proc_self_exe(s: &Sandbox) {
    let before = digest();
    s.dhow(["import", "--change", "ENTRYPOINT [\"/proc/self/exe\"]", "-", "evil"])
        .stdin_file(images::busybox())
        .ok();
    // Whatever it runs, it must not become a dhow that acts as dhow, and the file must stay as it is.
    let out = s.dhow(["run", "--rm", "evil", "--version"]).output();
    assert!(digest() == before, "{}", out.report());
    s.dhow(["run", "--rm", "--entrypoint", "/proc/self/exe", "busybox"]).output();
    s.dhow(["run", "--rm", "--entrypoint", "/proc/self/fd/3", "busybox"]).output();
    assert!(digest() == before);
}

fn exec_of_proc_self_exe(s: &Sandbox) {
    let before = digest();
    s.detached(["--name", "evil"], ["sh", "-c", &format!("{ATTACK} while :; do attack; sleep 0.01; done")]);
    for _ in 0..5 {
        s.dhow(["exec", "evil", "/proc/self/exe", "--version"]).output();
    }
    assert!(digest() == before);
    let log = s.dhow(["logs", "evil"]).ok();
    assert!(!log.contains("written"), "{log}");
}

fn a_hostile_watcher(s: &Sandbox) {
    // The container looks for foreign executables all the time, while the host keeps exec-ing into it.
    let before = digest();
    let watch = format!("{ATTACK} touch /ready; while :; do attack; done");
    s.detached(["--name", "evil"], ["sh", "-c", &watch]);
    wait::until("it to watch", || {
        (s.dhow(["exec", "evil", "test", "-e", "/ready"]).output().code == 0).then_some(())
    });
    for _ in 0..20 {
        s.dhow(["exec", "evil", "true"]).output();
    }
    let log = s.dhow(["logs", "evil"]).ok();
    assert!(!log.contains("written"), "{log}");
    assert!(digest() == before, "the program was changed");
    s.dhow(["--version"]).ok();
}

fn the_executable_is_no_way_out(s: &Sandbox) {
    // Opened for writing from inside by every process that can be seen.
    let before = digest();
    s.detached(
        ["--name", "evil", "--init", "--privileged"],
        ["sh", "-c", &format!("{ATTACK} attack; sleep 1000")],
    );
    s.dhow(["exec", "--privileged", "evil", "sh", "-c", &format!("{ATTACK} attack")]).output();
    s.dhow(["rm", "-f", "evil"]).ok();
    assert!(digest() == before, "--init's executable is a copy or cannot be written");
}
