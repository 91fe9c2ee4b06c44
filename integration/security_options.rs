//! `--security-opt` and `--group-add keep-groups`: what each word does inside, and what inspect says of it.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::command::Cmd;
use crate::sandbox::{self, Sandbox};
use crate::user::{Account, User};

for_each_user!(
    paths_are_unmasked,
    paths_are_masked,
    options_of_proc,
    labels_mean_nothing_here,
    profiles_are_refused_where_there_are_none,
    groups_of_the_caller,
    added_groups_hold_for_exec,
    words_that_are_none,
);

fn masks(s: &Sandbox, option: &str) -> (String, String) {
    s.dhow(["create", "--name", "c", "--security-opt", option, "busybox", "true"]).ok();
    let shown = |key: &str| s.inspect("c", &format!("{{{{json .HostConfig.{key}}}}}"));
    let both = (shown("MaskedPaths"), shown("ReadonlyPaths"));
    s.dhow(["rm", "c"]).ok();
    both
}

fn paths_are_unmasked(s: &Sandbox) {
    // /proc/timer_list is there for everybody to see as a file; masked it is /dev/null, a device.
    let kind = |flags: &[&str]| s.sh(flags, "stat -c %F /proc/keys").ok();
    if Path::new("/proc/keys").exists() {
        assert_eq!(kind(&[]), "character special file");
        for option in ["unmask=/proc/keys", "unmask=/proc/k*", "unmask=/x:/proc/keys", "unmask=ALL"] {
            assert_ne!(kind(&["--security-opt", option]), "character special file", "{option}");
        }
        assert_eq!(kind(&["--security-opt", "unmask=/proc/key"]), "character special file");
    }
    let (masked, read_only) = masks(s, "unmask=/proc/kcore:/proc/sys");
    assert!(!masked.contains("\"/proc/kcore\"") && masked.contains("\"/proc/keys\""), "{masked}");
    assert!(!read_only.contains("\"/proc/sys\"") && read_only.contains("\"/proc/irq\""), "{read_only}");
    for option in ["unmask=ALL", "systempaths=unconfined"] {
        assert_eq!(masks(s, option), ("[]".to_owned(), "[]".to_owned()), "{option}");
    }
}

fn paths_are_masked(s: &Sandbox) {
    let flags = ["--security-opt", "mask=/bin/busybox:/home", "--security-opt", "mask=/nosuch"];
    s.dhow(["run", "--rm", "--tmpfs", "/t"]).args(flags).args(["busybox", "true"]).output().exits(126);
    let flags = ["--tmpfs", "/t", "--security-opt", "mask=/t:/etc/passwd"];
    assert_eq!(s.sh(flags, "touch /t/x 2>/dev/null || echo no; wc -c </etc/passwd").ok(), "no\n0");
    let (masked, _) = masks(s, "mask=/a:/b");
    assert!(masked.contains("\"/a\",\"/b\""), "{masked}");
}

fn options_of_proc(s: &Sandbox) {
    let mounted = |flags: &[&str]| s.sh(flags, "grep ' /proc proc ' /proc/mounts | cut -d' ' -f4").ok();
    assert!(!mounted(&[]).contains("hidepid"));
    let shown = mounted(&["--security-opt", "proc-opts=hidepid=2"]);
    assert!(shown.contains("hidepid=invisible") || shown.contains("hidepid=2"), "{shown}");
    assert!(shown.contains("nosuid") && shown.contains("nodev") && shown.contains("noexec"), "{shown}");
    let script = "ls -d /proc/1 2>/dev/null || echo hidden";
    assert_eq!(
        s.sh(["-u", "1000", "--security-opt", "proc-opts=hidepid=2"], "ls -d /proc/self/").ok(),
        "/proc/self/"
    );
    if s.user == User::Root {
        // Another user's processes, of which pid 1 is one.
        let flags = ["--name", "p", "--security-opt", "proc-opts=hidepid=2"];
        s.detached(flags, ["sleep", "1000"]);
        assert_eq!(s.dhow(["exec", "-u", "1000", "p", "sh", "-c", script]).ok(), "hidden");
    }
    let wrong = s.sh(["--security-opt", "proc-opts=dev"], "true").output().exits(125);
    wrong.complains("dev").complains("hidepid");
}

fn labels_mean_nothing_here(s: &Sandbox) {
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return;
    }
    let words = ["disable", "user:u", "role:r", "type:spc_t", "level:s0:c1,c2", "filetype:t", "nested"];
    let flags: Vec<String> =
        words.iter().flat_map(|word| ["--security-opt".to_owned(), format!("label={word}")]).collect();
    s.dhow(["create", "--name", "l"]).args(&flags).args(["busybox", "true"]).ok();
    let shown = s.inspect("l", "{{join .HostConfig.SecurityOpt \" \"}}");
    let want: Vec<String> = words.iter().map(|word| format!("label={word}")).collect();
    assert_eq!(shown, want.join(" "));
    s.dhow(["start", "-a", "l"]).ok();
}

fn profiles_are_refused_where_there_are_none(s: &Sandbox) {
    s.sh(["--security-opt", "apparmor=unconfined"], "true").ok();
    if !Path::new("/proc/self/attr/apparmor").exists() {
        let refused = s.sh(["--security-opt", "apparmor=docker-default"], "true").output().exits(125);
        refused.complains("docker-default").complains("AppArmor");
    }
}

/// dhow as this sandbox's user, who has one more group.
fn with_group(s: &Sandbox, group: u32, args: &[&str]) -> Cmd {
    let root = Account { name: "root".into(), uid: 0, gid: 0 };
    let (uid, gid, group) = (s.account.uid.to_string(), s.account.gid.to_string(), group.to_string());
    let become_user = ["setpriv", "--reuid", &uid, "--regid", &gid, "--groups", &group];
    Cmd::new(sandbox::dhow(), &root, &s.work)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", &s.home)
        .arg("--root")
        .arg(&s.store)
        .args(args)
        .under(&become_user)
}

fn groups_of_the_caller(s: &Sandbox) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let shared = s.file("shared", "seen");
    chown(&shared, Some(65_534), Some(44_044)).unwrap();
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o040)).unwrap();
    let mount = format!("{}:/shared", shared.display());
    let run = |flags: &[&str]| {
        let mut args = vec!["run", "--rm", "-v", &mount, "--cap-drop", "ALL"];
        args.extend(flags);
        args.extend(["busybox", "cat", "/shared"]);
        with_group(s, 44_044, &args).output()
    };
    // Root of the machine is in group 0 and may read all with its capabilities; without them it is one of many.
    if s.user != User::Single {
        // With one id nobody can give up a group, either.
        run(&[]).expect("not a member", |o| o.code != 0);
    }
    let kept = run(&["--group-add", "keep-groups"]).exits(0);
    assert_eq!(kept.text(), "seen");
    if s.user == User::Root {
        assert_eq!(run(&["--group-add", "keep-groups", "-u", "1000:1000"]).exits(0).text(), "seen");
    }
    let args = [
        "run",
        "-d",
        "--name",
        "g",
        "-v",
        &mount,
        "--cap-drop",
        "ALL",
        "--group-add",
        "keep-groups",
        "busybox",
    ];
    with_group(s, 44_044, &[&args[..], &["sleep", "1000"]].concat()).ok();
    assert_eq!(with_group(s, 44_044, &["exec", "g", "cat", "/shared"]).ok(), "seen", "who comes later too");
    assert_eq!(s.inspect("g", "{{.HostConfig.GroupAdd}}"), "[keep-groups]");
    let both = s.sh(["--group-add", "keep-groups", "--group-add", "7"], "true").output().exits(125);
    both.complains("keep-groups alone");
}

fn added_groups_hold_for_exec(s: &Sandbox) {
    s.detached(["--name", "a", "--group-add", "77", "--group-add", "daemon"], ["sleep", "1000"]);
    let groups = "id -G";
    for flags in [&["exec"][..], &["exec", "-u", "5:5"]] {
        let shown = s.dhow(flags.iter().chain(&["a", "sh", "-c", groups])).ok();
        let has = |group: &str| shown.split_whitespace().any(|word| word == group);
        assert!(has("77") && has("1"), "{flags:?}: {shown}");
    }
}

fn words_that_are_none(s: &Sandbox) {
    for option in ["unmask", "unmask=x", "mask=/a:", "label=x", "label=level:", "apparmor=", "proc-opts=x=y"]
    {
        s.sh(["--security-opt", option], "true").output().exits(125).complains("security-opt");
    }
}
