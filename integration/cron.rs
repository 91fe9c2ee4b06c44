//! Jobs under Debian's cron: the daemon itself runs them, with the little environment that it gives, as root's and as a
//! user's, and mails what they print. Its spool, its crontab, its /run and its mailer are the sandbox's, in a mount name
//! space of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::capability::needs;
use crate::command::Running;
use crate::sandbox::{self, Sandbox};
use crate::{leftovers, wait};

for_each_user!(
    output_is_mailed_only_where_it_matters,
    an_overlapping_run_is_skipped,
    an_overlapping_run_waits,
    a_run_after_one_that_was_killed,
);
for_root!(each_minute, the_crontab_of_the_system);

/// A cron daemon and what it was given.
pub struct Cron {
    dir: PathBuf,
    daemon: Running,
}

/// Starts a daemon with this crontab of the sandbox's user, and this one of the system.
pub fn cron(s: &Sandbox, user: &str, system: &str) -> Cron {
    let dir = s.dir.join("cron");
    let make = |name: &str, mode| {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    make("", 0o755);
    let (spool, _, bin, mails) =
        (make("spool", 0o755), make("cron.d", 0o755), make("bin", 0o755), make("mails", 0o1777));
    let write = |path: PathBuf, text: String, mode, uid| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&path, Some(uid), None).unwrap();
    };
    let user = format!("HOME={}\n{user}\n", s.home.display());
    write(spool.join(&s.account.name), user, 0o600, s.account.uid);
    write(dir.join("crontab"), system.to_owned(), 0o644, 0);
    let mailer = format!("#!/bin/sh\ncat > {0}/.$$; mv {0}/.$$ {0}/$$\n", mails.display());
    write(bin.join("sendmail"), mailer, 0o755, 0);
    let script = "set -e; cd \"$1\"; mount -t tmpfs none /run; mount --bind spool /var/spool/cron/crontabs; \
                  mount --bind cron.d /etc/cron.d; mount --bind crontab /etc/crontab; \
                  mount -t overlay -o lowerdir=$1/bin:/usr/sbin none /usr/sbin; exec cron -f";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&dir).current_dir("/").env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    leftovers::is_awaited(&child);
    Cron { dir, daemon: Running { child, line: "cron".into() } }
}

impl Cron {
    /// Returns when all jobs that were started are over, mails and all, and at least this many ended.
    pub fn await_jobs(&self, ended: &[PathBuf]) {
        for path in ended {
            wait::within(Duration::from_secs(300), || path.exists().then_some(()))
                .unwrap_or_else(|| panic!("{} never came; mails: {:?}", path.display(), self.mails()));
        }
        let pid = self.daemon.child.id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        wait::until("the jobs to end", || {
            std::fs::read_to_string(&children).unwrap().is_empty().then_some(())
        });
    }

    /// What was mailed, without the headers.
    pub fn mails(&self) -> Vec<String> {
        let names = leftovers::names(&self.dir.join("mails"));
        let body = |name| {
            let text = std::fs::read_to_string(self.dir.join("mails").join(name)).unwrap();
            text.split_once("\n\n").map_or(text.clone(), |(_, body)| body.to_owned())
        };
        names.into_iter().map(body).collect()
    }
}

/// A line of a crontab: runs at the start of the daemon, and writes its code to the file that is returned too.
fn job(s: &Sandbox, n: u32, flags: &str, script: &str) -> (String, PathBuf) {
    let code = s.work.join(format!("code{n}"));
    let _ = std::fs::remove_file(&code);
    let (dhow, store, work) = (sandbox::dhow().display(), s.store.display(), s.work.display());
    let run = format!("{dhow} --root {store} run --name job {flags} -v {work}:/w busybox sh -c '{script}'");
    (format!("@reboot {run}; echo $? >{}\n", code.display()), code)
}

fn code(path: &PathBuf) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

fn output_is_mailed_only_where_it_matters(s: &Sandbox) {
    needs!("root", "cron");
    let (well, a) = job(s, 1, "--rm --quiet-ok --if-running wait", "echo fine; echo fine >&2");
    let (badly, b) =
        job(s, 2, "--rm --quiet-ok --if-running wait", "echo one; echo two >&2; echo three; exit 3");
    let cron = cron(s, &format!("{well}{badly}"), "");
    cron.await_jobs(&[a.clone(), b.clone()]);
    assert_eq!((code(&a), code(&b)), ("0".into(), "3".into()));
    assert_eq!(cron.mails(), ["one\ntwo\nthree\n"]);
    drop(cron);
    s.assert_nothing_left();
}

fn an_overlapping_run_is_skipped(s: &Sandbox) {
    needs!("root", "cron");
    let script = "echo >>/w/runs; while ! [ -e /w/go ]; do sleep 0.05; done";
    let jobs: Vec<_> = (0..3).map(|n| job(s, n, "--if-running skip", script)).collect();
    let cron = cron(s, &jobs.iter().map(|(line, _)| line.as_str()).collect::<String>(), "");
    wait::until("two to be skipped", || {
        (jobs.iter().filter(|(_, code)| code.exists()).count() == 2).then_some(())
    });
    s.file("go", "");
    cron.await_jobs(&jobs.iter().map(|(_, code)| code.clone()).collect::<Vec<_>>());
    assert!(jobs.iter().all(|(_, path)| code(path) == "0"));
    assert_eq!(std::fs::read_to_string(s.work.join("runs")).unwrap(), "\n");
    assert_eq!(cron.mails(), ["dhow: skipped: container job is running\n"; 2]);
    // It is still there to be looked at, and to be taken over.
    assert_eq!(s.inspect("job", "{{.State.ExitCode}}"), "0");
}

fn an_overlapping_run_waits(s: &Sandbox) {
    needs!("root", "cron");
    let script = "mkdir /w/alone && echo >>/w/runs && rmdir /w/alone";
    let jobs: Vec<_> = (0..3).map(|n| job(s, n, "--if-running wait --jitter 20ms", script)).collect();
    let cron = cron(s, &jobs.iter().map(|(line, _)| line.as_str()).collect::<String>(), "");
    cron.await_jobs(&jobs.iter().map(|(_, code)| code.clone()).collect::<Vec<_>>());
    assert!(jobs.iter().all(|(_, path)| code(path) == "0"), "{:?}", cron.mails());
    assert_eq!(std::fs::read_to_string(s.work.join("runs")).unwrap(), "\n\n\n");
    assert!(cron.mails().is_empty(), "{:?}", cron.mails());
    assert_eq!(s.dhow(["ps", "-aq"]).ok().lines().count(), 1);
}

fn a_run_after_one_that_was_killed(s: &Sandbox) {
    needs!("root", "cron");
    let (line, path) = job(s, 1, "--quiet-ok --if-running skip", "touch /w/ready; sleep 1000");
    let first = cron(s, &line, "");
    wait::until("it to run", || s.work.join("ready").exists().then_some(()));
    // The next above init; above that are the command, and cron itself.
    let supervisor = crate::bad_days::supervisors(s, &s.inspect("job", "{{.Id}}"))[0];
    rustix::process::kill_process(supervisor, Signal::KILL).unwrap();
    first.await_jobs(std::slice::from_ref(&path));
    assert_eq!(code(&path), "125");
    assert!(
        matches!(&first.mails()[..], [one] if one.contains("its supervisor was killed")),
        "{:?}",
        first.mails()
    );
    drop(first);
    // Again, with a daemon of its own, as after a reboot.
    let (line, path) = job(s, 1, "--quiet-ok --if-running skip", "echo well >/w/again");
    let second = cron(s, &line, "");
    second.await_jobs(std::slice::from_ref(&path));
    assert_eq!(code(&path), "0", "{:?}", second.mails());
    assert_eq!(std::fs::read_to_string(s.work.join("again")).unwrap(), "well\n");
}

fn each_minute(s: &Sandbox) {
    needs!("root", "cron");
    let (line, path) = job(s, 1, "--rm --quiet-ok --if-running skip", "echo tick >/w/tick");
    let cron = cron(s, &line.replace("@reboot", "* * * * *"), "");
    cron.await_jobs(std::slice::from_ref(&path));
    assert_eq!(code(&path), "0");
    assert_eq!(std::fs::read_to_string(s.work.join("tick")).unwrap(), "tick\n");
    assert!(cron.mails().is_empty(), "{:?}", cron.mails());
}

fn the_crontab_of_the_system(s: &Sandbox) {
    needs!("root", "cron");
    let (line, path) = job(s, 1, "--rm --if-running fail", "id -u; env | grep -c .");
    let cron = cron(s, "", &line.replace("@reboot ", "@reboot root "));
    cron.await_jobs(std::slice::from_ref(&path));
    assert_eq!(code(&path), "0");
    assert!(matches!(&cron.mails()[..], [one] if one.starts_with("0\n")), "{:?}", cron.mails());
}
