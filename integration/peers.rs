//! docker and podman for the tests: each with its state in the test's own sandbox, ended by process id.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::capability;
use crate::sandbox::Sandbox;
use crate::wait;

/// podman on a store of its own.
pub struct Podman {
    dir: PathBuf,
}

impl Podman {
    pub fn new(s: &Sandbox) -> Podman {
        // podman refuses a run root of more than 50 characters: the sandbox's directory, by its number alone.
        let name = s.dir.file_name().unwrap().to_string_lossy().into_owned();
        let number: String = name.splitn(3, '-').take(2).collect::<Vec<_>>().join("-");
        let dir = crate::sandbox::base().join(format!("p{number}"));
        std::fs::create_dir_all(&dir).unwrap();
        Podman { dir }
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        let at = |name: &str| self.dir.join(name);
        let mut command = Command::new("podman");
        command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run")).arg("--tmpdir").arg(at("tmp"));
        // vfs: overlay would hold mounts that outlive a test.
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        succeed(command.args(args))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A dockerd on directories and a socket of its own, without networks.
pub struct Docker {
    daemon: Child,
    dir: PathBuf,
}

impl Docker {
    /// Starts it; nothing, after saying so, where this machine cannot run one.
    pub fn start(s: &Sandbox) -> Option<Docker> {
        let dir = s.dir.join("docker");
        std::fs::create_dir_all(&dir).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let daemon = Command::new("dockerd")
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("-H")
            .arg(format!("unix://{}", dir.join("sock").display()))
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        crate::leftovers::is_awaited(&daemon);
        let docker = Docker { daemon, dir };
        let up = wait::within(Duration::from_secs(60), || {
            docker.client().arg("version").output().ok()?.status.success().then_some(())
        });
        if up.is_none() {
            let log = std::fs::read_to_string(docker.dir.join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            capability::skip("dockerd", &format!("dockerd does not come up here: {tail:?}"));
            return None;
        }
        Some(docker)
    }

    fn client(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.dir.join("sock").display()));
        command.stdin(Stdio::null()).env("DOCKER_CONFIG", self.dir.join("config"));
        command
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        succeed(self.client().args(args))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let ended = wait::within(Duration::from_secs(20), || self.daemon.try_wait().ok()?.map(|_| ()));
        if ended.is_none() {
            let _ = self.daemon.kill();
            let _ = self.daemon.wait();
        }
    }
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
