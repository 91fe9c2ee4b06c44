//! config.toml: defaults of one's own.

use std::fs;

use crate::sandbox::{NONE, Sandbox, dhow};
use crate::user::User;

for_each_user!(
    defaults_are_what_flags_are,
    flags_win,
    mistakes_are_told_before_anything_is_done,
    a_store_elsewhere,
    a_shells_image,
);
for_root!(the_users_file_wins);

fn settings(s: &Sandbox, text: &str) {
    let path = s.home.join(".config/dhow/config.toml");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn defaults_are_what_flags_are(s: &Sandbox) {
    settings(
        s,
        "[run]\nnetwork = \"none\"\ninit = true\nstop-timeout = 3\nulimits = [\"nofile=77:88\"]\nlog-driver = \"none\"\n",
    );
    assert_eq!(s.sh(NONE, "ls /sys/class/net; ulimit -n; ulimit -Hn").ok(), "lo\n77\n88");
    s.detached(["--name", "one"], ["sleep", "1000"]);
    let shown = "{{.HostConfig.NetworkMode}} {{.HostConfig.Init}} {{.Config.StopTimeout}} {{.HostConfig.LogConfig.Type}}";
    assert_eq!(s.inspect("one", shown), "none true 3 none");
    s.dhow(["container", "create", "--name", "two", "busybox"]).ok();
    assert_eq!(s.inspect("two", shown), "none true 3 none");
    assert_eq!(s.dhow(["shell", "busybox", "--", "ls", "/sys/class/net"]).ok(), "lo");
    // What a box has by default is no change to it.
    assert_eq!(s.dhow(["shell", "busybox", "--", "ls", "/sys/class/net"]).ok(), "lo");
}

fn flags_win(s: &Sandbox) {
    settings(
        s,
        "[run]\nnetwork = \"nosuch\"\ninit = true\npull = \"always\"\nulimits = [\"nofile=77:88\"]\n",
    );
    let flags = ["--network", "none", "--init=false", "--pull", "never", "--ulimit", "nofile=55:66"];
    assert_eq!(s.sh(flags, "ls /sys/class/net; ulimit -Hn; echo $$").ok(), "lo\n66\n1");
    s.sh(["--pull", "never"], "true").output().exits(125).complains("nosuch");
}

fn mistakes_are_told_before_anything_is_done(s: &Sandbox) {
    for (text, about) in [
        ("[run]\n\nnetwrok = \"none\"\n", "config.toml:3: run.netwrok: "),
        ("[run]\ninit = 1\n", "config.toml:2: run.init: "),
        ("[run]\npull = \"often\"\n", "config.toml:2: run.pull: "),
        ("[storage]\nroot = \"here\"\n", "config.toml:2: storage.root: "),
        ("nonsense", "config.toml:1: "),
    ] {
        settings(s, text);
        for args in [&["ps"][..], &["run", "--rm", "busybox", "true"], &["shell", "busybox", "--", "true"]] {
            let output = s.dhow(args).output().complains(about);
            output.expect("it is refused", |o| o.code != 0 && o.error_text().lines().count() == 2);
        }
        s.dhow(["--help"]).ok();
        s.dhow(["run", "--help"]).ok();
    }
    settings(s, "");
    s.assert_nothing_left();
}

fn a_store_elsewhere(s: &Sandbox) {
    let other = s.home.join("other");
    settings(s, "[storage]\nroot = \"~/other\"\n");
    assert_eq!(s.program(dhow()).args(["images", "-q"]).ok(), "");
    assert!(other.join("containers").exists());
    assert_ne!(s.dhow(["images", "-q"]).ok(), "", "--root wins");
    let by_env = s.program(dhow()).args(["images", "-q"]).env("DHOW_ROOT", &s.store);
    assert_ne!(by_env.ok(), "", "DHOW_ROOT wins");
}

fn a_shells_image(s: &Sandbox) {
    settings(s, "[shell]\nimage = \"busybox\"\n");
    s.dhow(["shell", "--", "true"]).ok();
    assert_eq!(s.inspect("busybox", "{{.Config.Image}}"), "busybox");
    assert_eq!(s.dhow(["shell", "--rm", "--", "hostname"]).ok(), "busybox");
}

fn the_users_file_wins(s: &Sandbox) {
    // The machine's own /etc is left alone: the command sees another.
    let etc = s.subdir("etc/dhow");
    let system = "[run]\nnetwork = \"none\"\nstop-timeout = 3\n[storage]\nroot = \"/nonexistent/store\"\n";
    fs::write(etc.join("config.toml"), system).unwrap();
    settings(s, "[run]\nstop-timeout = 4\n");
    let script = format!(
        "mount -t overlay overlay -o lowerdir={}:/etc /etc && exec \"$@\"",
        etc.parent().unwrap().display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    s.dhow(["create", "--name", "one", "busybox"]).under(&wrapper).ok();
    assert_eq!(s.inspect("one", "{{.HostConfig.NetworkMode}} {{.Config.StopTimeout}}"), "none 4");
    if let Some(one) = User::Single.account() {
        let list = format!(
            "su {} -s /bin/sh -c '{} --root {}/of-one ps -q'",
            one.name,
            dhow().display(),
            s.dir.display()
        );
        fs::create_dir(s.dir.join("of-one")).unwrap();
        std::os::unix::fs::chown(s.dir.join("of-one"), Some(one.uid), Some(one.gid)).unwrap();
        s.program("sh").args(["-c", &list]).under(&wrapper).ok();
    }
}
