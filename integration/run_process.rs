//! `dhow run`: what the process is: its command, environment, directory, user, host name, and how it ends.

use serde_json::json;

use crate::sandbox::{NONE, Sandbox};

for_each_user!(
    exit_codes,
    ends_by_signal,
    command_and_entrypoint,
    environment,
    environment_from_file,
    working_directory,
    host_name,
    root_inside,
    numeric_user_and_group,
    unknown_user,
    stop_signal_is_recorded,
    init_reaps,
    without_init_the_command_is_pid_1,
    session_of_its_own,
    no_descriptor_leaks,
    rlimits,
    oom_score_and_umask,
);
for_users_with_many_ids!(named_user_gets_its_groups, home_of_the_user, set_uid_programs_work);

fn exit_codes(s: &Sandbox) {
    for code in [0, 1, 3, 42, 124, 125, 126, 127, 128, 200, 255] {
        s.sh(NONE, &format!("exit {code}")).output().exits(code);
    }
}

fn ends_by_signal(s: &Sandbox) {
    // Pid 1 ignores signals whose action is the default: the shell forks a child and reports its end.
    s.sh(NONE, "sh -c 'kill -9 $$'; exit $?").output().exits(137);
    s.sh(["--init"], "kill -TERM $$").output().exits(143);
    s.dhow(["run", "--rm", "--init", "busybox", "/probe", "kill", "9"]).output().exits(137);
    s.dhow(["run", "--rm", "--init", "busybox", "/probe", "kill", "2"]).output().exits(130);
}

fn command_and_entrypoint(s: &Sandbox) {
    let change = |name: &str, changes: &[&str]| {
        let flags = changes.iter().flat_map(|c| ["--change", c]);
        s.dhow(["import"]).args(flags).args(["-", name]).stdin_file(crate::images::busybox()).ok();
    };
    let run = |flags: &[&str], image: &str, args: &[&str]| {
        s.dhow(["run", "--rm"]).args(flags).arg(image).args(args).ok()
    };
    change("cmd", &["CMD [\"echo\", \"from\", \"cmd\"]"]);
    assert_eq!(run(&[], "cmd", &[]), "from cmd");
    assert_eq!(run(&[], "cmd", &["echo", "mine"]), "mine");
    change("both", &["ENTRYPOINT [\"echo\", \"entry\"]", "CMD [\"cmd\"]"]);
    assert_eq!(run(&[], "both", &[]), "entry cmd");
    assert_eq!(run(&[], "both", &["mine"]), "entry mine");
    // --entrypoint also drops the image's CMD, as docker's does.
    assert_eq!(run(&["--entrypoint", "echo"], "both", &[]), "");
    assert_eq!(run(&["--entrypoint", "echo"], "both", &["x"]), "x");
    assert_eq!(run(&["--entrypoint", ""], "both", &["echo", "none"]), "none");
    change("shell", &["CMD echo $((1+2))"]);
    assert_eq!(run(&[], "shell", &[]), "3");
    change("more", &["ENV A=1 B=two", "WORKDIR /etc", "USER 1000", "CMD [\"/probe\"]", "LABEL x=y"]);
    if s.user != crate::user::User::Single {
        let seen: serde_json::Value = serde_json::from_str(&run(&[], "more", &[])).unwrap();
        assert_eq!([&seen["env"]["A"], &seen["env"]["B"], &seen["cwd"]], ["1", "two", "/etc"]);
        assert_eq!(seen["uids"][0], 1000);
    }
    // An image without any command, and none given.
    change("empty", &[]);
    s.dhow(["run", "--rm", "empty"]).output().exits(125).complains("command");
}

fn environment(s: &Sandbox) {
    let run = s.dhow([
        "run",
        "--rm",
        "-e",
        "A=1",
        "--env",
        "B=x=y z",
        "-e",
        "FROM_CALLER",
        "-e",
        "UNSET_ONE",
        "-e",
        "EMPTY=",
    ]);
    let seen = run.env("FROM_CALLER", "handed on").args(["--hostname", "h", "busybox", "/probe"]).ok();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(
        seen["env"],
        json!({ "A": "1", "B": "x=y z", "FROM_CALLER": "handed on", "EMPTY": "", "HOSTNAME": "h", "HOME": "/root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }),
        "nothing else of the caller's environment is seen inside"
    );
    let seen = s.probe(["-e", "PATH=/bin:/x", "-e", "HOME=/tmp"]);
    assert_eq!([&seen["env"]["PATH"], &seen["env"]["HOME"]], ["/bin:/x", "/tmp"]);
    assert_eq!(s.probe(["-e", "A=1", "-e", "A=2"])["env"]["A"], "2", "the last one wins");
    s.sh(["-e", "=x"], "true").output().exits(125).complains("=x");
}

fn environment_from_file(s: &Sandbox) {
    s.file("env", "# a comment\nA=1\n\n  B=two words \nQUOTED=\"as is\"\nCALLER\nNOT_SET\n");
    let run =
        s.dhow(["run", "--rm", "--env-file", "env", "-e", "A=flag", "busybox", "/probe"]).env("CALLER", "c1");
    let seen: serde_json::Value = serde_json::from_str(&run.ok()).unwrap();
    let env = &seen["env"];
    // As docker: white space before a name goes, white space at the end of a value stays, quotes are part of the value.
    assert_eq!(
        [&env["A"], &env["B"], &env["QUOTED"], &env["CALLER"]],
        ["flag", "two words ", "\"as is\"", "c1"]
    );
    assert!(env["NOT_SET"].is_null());
    s.sh(["--env-file", "no-such-file"], "true").output().exits(125).complains("no-such-file");
    s.file("bad", "two words=x\n");
    s.sh(["--env-file", "bad"], "true").output().exits(125).complains("two words");
}

fn working_directory(s: &Sandbox) {
    assert_eq!(s.probe(NONE)["cwd"], "/");
    assert_eq!(s.probe(["-w", "/etc"])["cwd"], "/etc");
    assert_eq!(s.probe(["-w", ""])["cwd"], "/");
    assert_eq!(s.probe(["--workdir", "/made/for/this"])["cwd"], "/made/for/this", "a missing one is made");
    s.sh(["-w", "relative"], "true").output().exits(125).complains("relative");
    s.sh(["-w", "/etc/motd"], "true").output().exits(125).complains("/etc/motd");
}

fn host_name(s: &Sandbox) {
    assert_eq!(s.probe(["--hostname", "afloat"])["hostname"], "afloat");
    assert_eq!(s.probe(["-h", "x.example"])["hostname"], "x.example");
    let id = s.detached(["--network", "none"], ["sleep", "1000"]);
    let name = s.dhow(["exec", &id, "hostname"]).ok();
    assert_eq!(name, id[..12], "without --hostname it is the short id");
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(s.probe(["--network", "host"])["hostname"], own.trim(), "with the host's network, the host's");
}

fn root_inside(s: &Sandbox) {
    let seen = s.probe(NONE);
    assert_eq!(seen["uids"], json!([0, 0, 0, 0]));
    assert_eq!(seen["gids"], json!([0, 0, 0, 0]));
    if s.is_rootless() {
        assert_ne!(seen["uid_map"][1], "0", "root inside is not root outside");
    }
    s.file("share/.keep", "");
    let share = s.subdir("share");
    s.sh(["-v", &format!("{}:/share", share.display())], "touch /share/made").ok();
    let made = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(share.join("made")).unwrap());
    assert_eq!(made, s.account.uid, "files made in a bind mount belong to the caller");
}

fn numeric_user_and_group(s: &Sandbox) {
    let seen = s.probe(["-u", "1000:1000"]);
    // With one id the kernel, which the probe asks through /proc, has no other; the program itself is told 1000.
    let id = if s.user == crate::user::User::Single { 0 } else { 1000 };
    assert_eq!(seen["uids"], json!([id, id, id, id]));
    assert_eq!(seen["gids"], json!([id, id, id, id]));
    assert_eq!(s.sh(["-u", "1000:1000"], "id -u; id -g").ok(), "1000\n1000");
    assert_eq!(seen["caps"]["effective"], "0000000000000000", "capabilities are root's");
    if s.user == crate::user::User::Single {
        return;
    }
    let seen = s.probe(["-u", "4321"]);
    assert_eq!(
        [&seen["uids"][0], &seen["gids"][0]],
        [4321, 0],
        "a uid that the image does not know has group 0"
    );
    let seen = s.probe(["--user", "0:1000"]);
    assert_eq!([&seen["uids"][0], &seen["gids"][0]], [0, 1000]);
    let seen = s.probe(["-u", "1000", "--group-add", "more", "--group-add", "77"]);
    let groups: Vec<u64> = seen["groups"].as_array().unwrap().iter().map(|g| g.as_u64().unwrap()).collect();
    assert!([2000, 2001, 77].iter().all(|g| groups.contains(g)), "{groups:?}");
}

fn unknown_user(s: &Sandbox) {
    s.sh(["-u", "nobody-here"], "true").output().exits(125).complains("nobody-here");
    s.sh(["-u", "app:no-group"], "true").output().exits(125).complains("no-group");
    s.sh(["-u", "-1"], "true").output().exits(125);
    s.sh(["-u", "4294967296"], "true").output().exits(125);
}

fn named_user_gets_its_groups(s: &Sandbox) {
    let seen = s.probe(["-u", "app"]);
    assert_eq!([&seen["uids"][0], &seen["gids"][0]], [1000, 1000]);
    let mut groups: Vec<u64> =
        seen["groups"].as_array().unwrap().iter().map(|g| g.as_u64().unwrap()).collect();
    groups.sort_unstable();
    assert_eq!(groups, [1000, 2000, 2001], "from the image's own /etc/group");
    let seen = s.probe(["-u", "app:extra"]);
    assert_eq!(seen["gids"][0], 2000);
    let seen = s.probe(["-u", "daemon"]);
    assert_eq!(seen["groups"].as_array().unwrap().last(), Some(&json!(2001)));
}

fn home_of_the_user(s: &Sandbox) {
    assert_eq!(s.probe(["-u", "app"])["env"]["HOME"], "/home/app");
    assert_eq!(s.probe(["-u", "1000"])["env"]["HOME"], "/home/app");
    assert_eq!(s.probe(["-u", "4321"])["env"]["HOME"], "/home/4321", "one that is made for it");
    assert_eq!(s.probe(["-u", "4321", "--passwd=false"])["env"]["HOME"], "/");
}

fn set_uid_programs_work(s: &Sandbox) {
    // su is set-uid in the image; it finds the caller in /etc/passwd and needs no password for root's own use.
    assert_eq!(s.sh(NONE, "su app -c 'id -u'").ok(), "1000");
    s.file("setuid/.keep", "");
    let seen = s.sh(["-u", "app"], "ls -l /bin/su | cut -c1-10").ok();
    assert_eq!(seen, "-rwsr-xr-x");
}

fn stop_signal_is_recorded(s: &Sandbox) {
    let script = "trap 'echo usr1; exit 7' USR1; echo ready; while :; do sleep 0.05; done";
    s.detached(["--name", "c1", "--stop-signal", "USR1"], ["sh", "-c", script]);
    crate::wait::until("the trap", || s.dhow(["logs", "c1"]).ok().contains("ready").then_some(()));
    s.dhow(["stop", "c1"]).ok();
    assert_eq!(s.inspect("c1", "{{.State.ExitCode}}"), "7");
    s.sh(["--stop-signal", "NOSUCH"], "true").output().exits(125).complains("NOSUCH");
}

fn init_reaps(s: &Sandbox) {
    // An orphan is adopted by pid 1, which must be dhow's init and must reap it.
    let script = "sh -c 'sleep 0.01 & exec true'; n=0; while ps -o comm | grep -q '^sleep' && [ $n -lt 100 ]; do \
                  sleep 0.05; n=$((n+1)); done; ps -o pid,stat,args; echo me $$";
    let seen = s.sh(["--init"], script).ok();
    assert!(!seen.contains(" Z "), "{seen}");
    assert!(!seen.ends_with("me 1"), "{seen}");
}

fn without_init_the_command_is_pid_1(s: &Sandbox) {
    assert_eq!(s.probe(NONE)["pid"], 1);
    assert_eq!(s.sh(NONE, "set -- /proc/[0-9]*; echo $*").ok(), "/proc/1", "the shell is all there is");
}

fn session_of_its_own(s: &Sandbox) {
    assert_eq!(s.probe(NONE)["session"], 1);
}

fn no_descriptor_leaks(s: &Sandbox) {
    // Descriptors that dhow's caller left open, and dhow's own (CVE-2024-21626), are not there inside.
    let seen = s
        .dhow(["run", "--rm", "busybox", "/probe"])
        .under(&["sh", "-c", "exec 5</etc/passwd 9</; exec \"$@\"", "sh"])
        .ok();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    let fds: Vec<&String> = seen["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "{:#}", seen["fds"]);
    s.detached(["--name", "c1"], ["sleep", "1000"]);
    let seen: serde_json::Value = serde_json::from_str(&s.dhow(["exec", "c1", "/probe"]).ok()).unwrap();
    let fds: Vec<&String> = seen["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "{:#}", seen["fds"]);
}

fn rlimits(s: &Sandbox) {
    let seen = s.probe(["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "fsize=1048576"]);
    assert_eq!(seen["limits"]["Max open files"], json!(["100", "200"]));
    assert_eq!(seen["limits"]["Max core file size"], json!(["0", "0"]));
    assert_eq!(seen["limits"]["Max file size"], json!(["1048576", "1048576"]));
    for bad in ["nofile", "nofile=x", "nosuch=1", "nofile=5:4"] {
        s.sh(["--ulimit", bad], "true").output().exits(125);
    }
    if s.is_rootless() {
        // More than the caller's hard limit cannot be given: inherited politely or refused, never silently dropped.
        s.sh(["--ulimit", "nofile=999999999"], "true").output().exits(125);
    }
}

fn oom_score_and_umask(s: &Sandbox) {
    let seen = s
        .dhow(["run", "--rm", "busybox", "/probe"])
        .under(&["sh", "-c", "umask 077; exec \"$@\"", "sh"])
        .ok();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["umask"], "0022", "not the caller's");
    assert_eq!(seen["oom_score_adj"], "0");
}
