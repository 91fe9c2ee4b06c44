//! Wrong input: docker's exit code and one line that says what to do, before anything is changed.

use crate::sandbox::{NONE, Sandbox};

for_each_user!(
    malformed_image_names,
    unknown_flags_and_verbs,
    values_that_no_flag_takes,
    what_is_for_the_engine_to_judge,
    unknown_images_and_containers,
    programs_that_cannot_run,
    odd_stores,
    control_characters_do_not_reach_the_terminal,
    help_and_version,
    stdout_that_is_full,
);

/// One error line, perhaps one hint, nothing on stdout, no panic.
#[track_caller]
fn refused(cmd: crate::command::Cmd, code: i32, about: &str) {
    let out = cmd.output().exits(code);
    let text = out.error_text();
    let errors = text.lines().filter(|l| l.starts_with("dhow: ") || l.starts_with("error: ")).count();
    assert_eq!(errors, 1, "one error line: {}", out.report());
    assert!(text.contains(about), "it names {about:?}: {}", out.report());
    assert!(out.stdout.is_empty(), "{}", out.report());
    assert!(!text.contains("panicked"), "{}", out.report());
}

fn malformed_image_names(s: &Sandbox) {
    for name in
        ["UPPER", "a//b", "a:b:c", ":tag", "name:", "-name", "a@sha256:xyz", "../up", "a b", "http://x/y"]
    {
        refused(s.dhow(["run", "--rm", "--", name, "true"]), 125, name);
    }
    refused(s.dhow(["run", "--rm", "", "true"]), 125, "");
    refused(s.dhow(["run", "--rm", &"n".repeat(10_000), "true"]), 125, "nnn");
    s.assert_nothing_left();
}

fn unknown_flags_and_verbs(s: &Sandbox) {
    refused(s.dhow(["run", "--no-such-flag", "busybox", "true"]), 125, "--no-such-flag");
    refused(s.dhow(["run", "--name"]), 125, "--name");
    refused(s.dhow(["run"]), 1, "IMAGE");
    let out = s.dhow(["frobnicate"]).output();
    assert!(out.code != 0 && out.error_text().contains("frobnicate"), "{}", out.report());
    let out = s.dhow(["ps", "--no-such-flag"]).output();
    assert!(out.code != 0 && out.error_text().contains("--no-such-flag"), "{}", out.report());
    // A flag after the image is the program's own.
    assert_eq!(s.dhow(["run", "--rm", "busybox", "echo", "--rm", "-e", "--", "x"]).ok(), "--rm -e -- x");
}

fn values_that_no_flag_takes(s: &Sandbox) {
    for line in [
        "stop -t xyz c",
        "restart -t xyz c",
        "rm -f -t xyz c",
        "rm -f=xyz c",
        "ps -n xyz",
        "ps --filter xyz",
        "ps --xyz",
        "update --cpus xyz c",
        "update -m xyz c",
        "update --memory-swap xyz c",
        "update --cpu-shares xyz c",
        "update --pids-limit xyz c",
        "exec -e =xyz c true",
        "exec --preserve-fds xyz c true",
        "wait --timeout xyz c",
        "wait --condition xyz c",
        "attach --sig-proxy=xyz c",
        "commit --pause=xyz c",
        "volume create --label =xyz v",
        "volume ls --filter xyz",
        "volume create --uid xyz v",
        "network create --label =xyz n",
        "network ls --filter xyz",
        "network prune --filter xyz",
        "images --filter xyz",
        "image prune --filter xyz",
        "container prune --filter xyz",
        "system prune --filter xyz",
        "search --limit xyz busybox",
        "search --filter xyz busybox",
        "events --filter xyz",
        "create --cpus xyz busybox",
        "create --stop-timeout xyz busybox",
        "run --cpus xyz busybox",
        "run --restart xyz busybox",
        "pull --retry xyz busybox:1",
    ] {
        refused(s.dhow(line.split(' ')), 125, "xyz");
    }
    s.assert_nothing_left();
}

/// Docker's command line knows nothing of these, and its daemon's refusals are 1.
fn what_is_for_the_engine_to_judge(s: &Sandbox) {
    s.dhow(["create", "--name", "one", "busybox", "true"]).ok();
    for line in [
        "stop -s xyz one",
        "kill -s xyz one",
        "logs -n xyz one",
        "logs --since xyz one",
        "ps --filter xyz=1",
        "update --restart xyz one",
        "exec --env-file xyz one true",
        "start --detach-keys xyz one",
        "volume create -o xyz v",
        "network create --subnet xyz n",
        "events --since xyz",
        "inspect --type xyz one",
    ] {
        refused(s.dhow(line.split(' ')), 1, "xyz");
    }
}

fn unknown_images_and_containers(s: &Sandbox) {
    refused(s.dhow(["run", "--rm", "--pull", "never", "no-such-image:v9", "true"]), 125, "no-such-image:v9");
    refused(s.dhow(["exec", "no-such-container", "true"]), 1, "no-such-container");
    refused(s.dhow(["start", "no-such-container"]), 1, "no-such-container");
    refused(s.dhow(["rm", "../../etc"]), 1, "../../etc");
    refused(s.dhow(["logs", "/etc/passwd"]), 1, "/etc/passwd");
}

fn programs_that_cannot_run(s: &Sandbox) {
    let run = |program: &str| s.dhow(["run", "--rm", "busybox", program]);
    refused(run("no-such-program"), 127, "no-such-program");
    refused(run("/no/such/program"), 127, "/no/such/program");
    refused(run("/etc/not-executable"), 126, "/etc/not-executable");
    refused(run("/etc"), 126, "/etc");
    refused(run("/etc/motd/x"), 127, "/etc/motd/x");
    refused(run(""), 125 + 2, "");
    // A script without #!, and one whose interpreter is missing.
    s.file("bin/text", "just text\n");
    s.file("bin/script", "#!/no/such/interpreter\n");
    for name in ["text", "script"] {
        std::fs::set_permissions(
            s.work.join("bin").join(name),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
    }
    let mount = format!("{}:/b:ro", s.work.join("bin").display());
    refused(s.dhow(["run", "--rm", "-v", &mount, "busybox", "/b/text"]), 126, "/b/text");
    refused(s.dhow(["run", "--rm", "-v", &mount, "busybox", "/b/script"]), 127, "/b/script");
    if s.user != crate::user::User::Single {
        refused(s.dhow(["run", "--rm", "-u", "app", "busybox", "/root/x"]), 126, "/root/x");
    }
    s.assert_nothing_left();
}

fn odd_stores(s: &Sandbox) {
    let with = |root: &str| s.program(crate::sandbox::dhow()).args(["--root", root, "images"]);
    refused(with("/proc/no-such"), 1, "/proc/no-such");
    refused(with("/etc/passwd"), 1, "/etc/passwd");
    if s.is_rootless() {
        refused(with("/root/store"), 1, "/root/store");
    }
    // A store whose path has blanks, colons, commas and is no UTF-8: overlay options must not trip over them.
    let odd = std::ffi::OsStr::new("odd dir:with,all\\of it\u{e9}");
    let odd = s.work.join(odd);
    let dhow = || s.program(crate::sandbox::dhow()).arg("--root").arg(&odd);
    dhow().args(["import", "-", "busybox"]).stdin_file(crate::images::busybox()).ok();
    assert_eq!(dhow().args(["run", "--rm", "busybox", "cat", "/etc/motd"]).ok(), "hello");
}

fn control_characters_do_not_reach_the_terminal(s: &Sandbox) {
    for args in
        [["run", "--rm", "evil\x1b[2Jname"], ["rm", "evil\x1b]0;x\x07", "x"], ["run", "--no-\x1b[31m", "x"]]
    {
        let out = s.dhow(args).output();
        assert!(out.code != 0 && !out.stderr.contains(&0x1b), "{:?}", out.error_text());
    }
}

fn help_and_version(s: &Sandbox) {
    let version = s.dhow(["--version"]).ok();
    assert_eq!(version, format!("dhow {}", env!("CARGO_PKG_VERSION")));
    for verb in ["", "run", "ps", "exec", "import", "load", "save", "images", "logs", "stop"] {
        let help = s.dhow(NONE).args(verb.split_whitespace()).arg("--help").ok();
        assert!(help.contains("Usage"), "{help}");
    }
    let empty = s.subdir("empty");
    let out = s.program(crate::sandbox::dhow()).env("HOME", &empty).arg("--version").output().exits(0);
    assert!(
        crate::leftovers::names(&empty).is_empty(),
        "asking for the version makes no store: {}",
        out.report()
    );
}

fn stdout_that_is_full(s: &Sandbox) {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut images = s.dhow(["images"]).spawn_with(|c| {
        c.stdout(full());
    });
    let code = images.code();
    assert!(code != 0 && code != 101, "an output that could not be written is an error, not a panic: {code}");
}
