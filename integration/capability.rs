//! What this machine can do, probed once. A test that needs what is not there skips aloud; `DHOW_MUST`, a list of
//! these names or `all`, turns such a skip into a failure.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Whether the named tool or ability is there; says so, once for each caller, where it is not.
pub fn has(name: &str) -> bool {
    static KNOWN: OnceLock<Mutex<BTreeMap<String, bool>>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    let answer = *known.lock().unwrap().entry(name.to_owned()).or_insert_with(|| probe(name));
    if !answer {
        skip(name, &format!("this machine has no {name}"));
    }
    answer
}

/// Says aloud that a test is skipped, or fails it where `DHOW_MUST` names what is missing.
pub fn skip(name: &str, reason: &str) {
    let must = std::env::var("DHOW_MUST").unwrap_or_default();
    let musts: Vec<&str> = must.split(',').collect();
    assert!(!musts.contains(&"all") && !musts.contains(&name), "DHOW_MUST={must}, but {reason}");
    // Past the capture of a passing test's output: a skip that nobody sees is a test that nobody runs.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// Leaves the test where the machine lacks what it needs.
macro_rules! needs {
    ($($name:expr),+ $(,)?) => {
        $(if !$crate::capability::has($name) { return; })+
    };
}
pub(crate) use needs;

fn probe(name: &str) -> bool {
    match name {
        "root" => rustix::process::geteuid().is_root(),
        "userns" => succeeds("setpriv --reuid=65534 --regid=65534 --clear-groups unshare -Ur true"),
        "cgroup" => cgroup_dir("pids").is_some() || Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        "mknod" => {
            let node = std::env::temp_dir().join(format!("dhow-mknod-{}", std::process::id()));
            let made = succeeds(&format!("mknod {} c 1 3", node.display()));
            let _ = std::fs::remove_file(node);
            made
        }
        "apt" => succeeds("apt-get --version") && succeeds("mmdebstrap --version"),
        tool => on_path(tool),
    }
}

/// The directory of a cgroup v1 controller.
pub fn cgroup_dir(controller: &str) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts
        .lines()
        .filter(|l| l.contains(" - cgroup "))
        .find(|l| l.rsplit(' ').next().is_some_and(|options| options.split(',').any(|o| o == controller)))
        .and_then(|l| l.split(' ').nth(4))
        .map(str::to_owned)
}

fn on_path(tool: &str) -> bool {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    path.split(':').any(|dir| Path::new(dir).join(tool).is_file())
}

fn succeeds(line: &str) -> bool {
    let mut words = line.split_whitespace();
    Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
