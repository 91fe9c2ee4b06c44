//! `dhow boot`: after a reboot, which is played by killing all that runs at once, exactly the right containers run again.

use rustix::process::Signal;

use crate::capability::needs;
use crate::sandbox::{NONE, Sandbox};
use crate::{cron, leftovers, wait};

for_each_user!(
    the_right_ones_run_again,
    once_for_each_boot,
    what_cannot_be_started_is_told,
    pids_of_an_earlier_boot_are_not_believed,
    by_cron,
    installed_and_uninstalled,
);

/// Kills all that belongs to the sandbox, as the end of the machine does.
fn power_off(s: &Sandbox) {
    let mut n = 0;
    wait::until("all to be dead", || {
        let mut is_clear = true;
        n += 1;
        if n % 50 == 0 {
            // What is frozen (cgroup v1) dies when somebody meets it; the end of the machine would not ask.
            s.dhow(["ps", "-aq"]).ok();
        }
        for found in leftovers::find(&s.dir, &Default::default()) {
            if let leftovers::Leftover::Process(pid, _) = found {
                is_clear = false;
                let _ =
                    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
        is_clear.then_some(())
    });
}

fn running(s: &Sandbox) -> Vec<String> {
    let mut names: Vec<String> =
        s.dhow(["ps", "--format", "{{.Names}}"]).ok().lines().map(str::to_owned).collect();
    names.sort();
    names
}

fn run(s: &Sandbox, name: &str, policy: &str) {
    s.detached(["--name", name, "--stop-timeout", "0", "--restart", policy], ["sleep", "1000"]);
}

fn the_right_ones_run_again(s: &Sandbox) {
    run(s, "c-always", "always");
    run(s, "b-unless", "unless-stopped");
    run(s, "a-failed", "on-failure");
    run(s, "no", "no");
    s.detached(["--name", "passing", "--rm"], ["sleep", "1000"]);
    for policy in ["always", "unless-stopped", "on-failure"] {
        let name = format!("stopped-{policy}");
        run(s, &name, policy);
        s.dhow(["stop", &name]).ok();
    }
    run(s, "killed-unless", "unless-stopped");
    s.dhow(["kill", "killed-unless"]).ok();
    s.dhow(["wait", "killed-unless"]).ok();
    run(s, "paused", "always");
    s.dhow(["pause", "paused"]).ok();
    s.dhow(["create", "--name", "never-started", "--restart", "always", "busybox", "sleep", "1000"]).ok();
    s.detached(["--name", "done", "--restart", "on-failure"], ["true"]);
    s.detached(["--name", "tired", "--restart", "on-failure:1"], ["false"]);
    s.dhow(["wait", "done", "tired"]).ok();
    power_off(s);
    assert!(running(s).is_empty());
    let booted = s.dhow(["boot"]).output().exits(0);
    // In the order in which they were made; `always` is docker's: also what a person stopped.
    assert_eq!(booted.text(), "c-always\nb-unless\na-failed\nstopped-always\npaused");
    assert_eq!(booted.error_text(), "dhow: 5 started, 0 failed\n");
    assert_eq!(running(s), ["a-failed", "b-unless", "c-always", "paused", "stopped-always"]);
    let again = s.dhow(["boot", "-q"]).output().exits(0);
    assert!(again.stdout.is_empty() && again.stderr.is_empty(), "{}", again.report());
    // A second time, after somebody has looked, and written down how they ended.
    s.dhow(["stop", "b-unless"]).ok();
    power_off(s);
    s.dhow(["ps", "-a"]).ok();
    assert_eq!(s.dhow(["boot"]).ok(), "c-always\na-failed\nstopped-always\npaused");
}

fn once_for_each_boot(s: &Sandbox) {
    run(s, "c1", "always");
    power_off(s);
    assert_eq!(s.dhow(["boot", "--once"]).ok(), "c1");
    s.dhow(["stop", "c1"]).ok();
    assert_eq!(s.dhow(["boot", "--once"]).ok(), "", "a person stopped it since");
    std::fs::write(s.store.join("booted"), "another boot").unwrap();
    // systemd and cron at the same time.
    let mut both: Vec<_> = (0..2).map(|_| s.dhow(["boot", "--once"]).spawn_with(|_| ())).collect();
    assert!(both.iter_mut().all(|boot| boot.code() == 0));
    assert_eq!(running(s), ["c1"]);
}

fn what_cannot_be_started_is_told(s: &Sandbox) {
    let dir = s.subdir("w");
    let mount = format!("type=bind,source={},target=/w", dir.display());
    s.detached(["--name", "c1", "--restart", "always", "--mount", &mount], ["sleep", "1000"]);
    run(s, "c2", "always");
    power_off(s);
    std::fs::remove_dir(&dir).unwrap();
    let booted = s.dhow(["boot", "--quiet"]).output().exits(1);
    assert!(booted.error_text().contains("cannot start c1"), "{}", booted.report());
    assert!(booted.error_text().ends_with("dhow: 1 started, 1 failed\n"), "{}", booted.report());
    assert_eq!(running(s), ["c2"]);
}

fn pids_of_an_earlier_boot_are_not_believed(s: &Sandbox) {
    let id = s.detached(["--name", "c1", "--restart", "always"], ["sleep", "1000"]);
    power_off(s);
    // Another process has the very pid, and started as long after the boot as that one had: this one.
    let path = s.store.join("containers").join(&id).join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    let me = serde_json::json!({"pid": std::process::id(), "start_time": start});
    state["supervisor"] = me.clone();
    state["init"] = me;
    std::fs::write(&path, state.to_string()).unwrap();
    assert!(running(s).is_empty());
    s.dhow(["kill", "c1"]).fails(1);
    s.dhow(["exec", "c1", "true"]).fails(1);
    assert_eq!(s.dhow(["boot"]).ok(), "c1");
    assert_eq!(running(s), ["c1"]);
}

fn by_cron(s: &Sandbox) {
    needs!("root", "cron");
    run(s, "c1", "unless-stopped");
    power_off(s);
    let printed = s.dhow(["boot", "--print"]).ok();
    let line = printed.lines().find(|l| l.starts_with("@reboot ")).unwrap();
    let cron = cron::cron(s, line, "");
    wait::until("it to run", || (running(s) == ["c1"]).then_some(()));
    cron.await_jobs(&[]);
    assert!(cron.mails().is_empty(), "{:?}", cron.mails());
    // It lives on without its daemon.
    drop(cron);
    assert_eq!(running(s), ["c1"]);
}

fn installed_and_uninstalled(s: &Sandbox) {
    needs!("root", "crontab", "setpriv");
    let (units, spool) = (s.subdir("units"), s.dir.join("spool"));
    std::fs::create_dir(&spool).unwrap();
    let script = "set -e; mount --bind \"$1\" /var/spool/cron/crontabs; chgrp crontab \"$1\"; chmod 1730 \"$1\"; \
                  mount --bind \"$2\" /etc/systemd/system; shift 2; u=$1 g=$2; shift 2; \
                  exec setpriv --reuid $u --regid $g --clear-groups \"$@\"";
    let ids = (s.account.uid.to_string(), s.account.gid.to_string());
    let dirs = (spool.display().to_string(), units.display().to_string());
    let wrapper = ["unshare", "--mount", "sh", "-c", script, "sh", &dirs.0, &dirs.1, &ids.0, &ids.1];
    let root = crate::user::Account { name: "root".into(), uid: 0, gid: 0 };
    let boot = |flag: &str| {
        let cmd = crate::command::Cmd::new(crate::sandbox::dhow(), &root, &s.work);
        let cmd = cmd.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", &s.home);
        cmd.arg("--root").arg(&s.store).args(["boot", flag]).under(&wrapper).output().exits(0)
    };
    let unit = match s.is_rootless() {
        false => units.join("dhow-boot.service"),
        true => s.home.join(".config/systemd/user/dhow-boot.service"),
    };
    let tab = spool.join(&s.account.name);
    for _ in 0..2 {
        let out = boot("--install");
        assert!(out.error_text().contains("made an entry in the crontab"), "{}", out.report());
        let lines = std::fs::read_to_string(&tab).unwrap();
        assert_eq!(lines.matches("boot --once").count(), 1, "{lines}");
        if out.error_text().contains("made and enabled") {
            let text = std::fs::read_to_string(&unit).unwrap();
            assert!(text.contains(&format!("--root \"{}\" boot --once", s.store.display())), "{text}");
            let target = if s.is_rootless() { "default.target.wants" } else { "multi-user.target.wants" };
            let link = unit.parent().unwrap().join(target).join("dhow-boot.service");
            assert_eq!(std::fs::read_to_string(link).unwrap(), text);
        }
    }
    boot("--uninstall");
    boot("--uninstall");
    assert!(!unit.exists());
    assert!(!std::fs::read_to_string(&tab).unwrap_or_default().contains("dhow"));
    s.dhow(["boot", "--install", "--print"]).args(NONE).fails(125);
}
