//! `dhow shell`: a box of one's own, here and now.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use crate::sandbox::{NONE, Sandbox};
use crate::terminal::Terminal;
use crate::user::User;
use crate::wait;

for_each_user!(
    one_is_oneself,
    what_is_made_here_is_mine,
    a_box_is_kept_and_entered_again,
    a_box_that_goes,
    a_box_follows_its_caller,
    who_comes_second_joins,
    root_of_the_box,
    a_terminal_and_a_shell,
    the_agent_comes_along,
    the_end_is_the_commands,
    a_copy_of_this_machine,
    what_the_words_mean,
    what_is_refused,
    its_ids_in_files,
    made_anew,
    a_runtime_directory,
    a_shell_that_is_killed,
);

/// `dhow shell FLAGS -- sh -c SCRIPT` without a terminal.
fn sh(s: &Sandbox, flags: &[&str], script: &str) -> String {
    s.dhow(["shell"]).args(flags).args(["--", "sh", "-c", script]).ok()
}

fn name(s: &Sandbox) -> &str {
    if s.is_rootless() { &s.account.name } else { "root" }
}

fn one_is_oneself(s: &Sandbox) {
    let (uid, gid) = (s.account.uid, s.account.gid);
    let text =
        sh(s, &["--rm", "busybox"], "id -u; id -g; id -un; id -gn; echo $USER $LOGNAME $HOME; pwd; hostname");
    let lines: Vec<&str> = text.lines().collect();
    let (home, group) = (if s.is_rootless() { s.home.clone() } else { PathBuf::from("/root") }, name(s));
    assert_eq!(lines[..4], [&*uid.to_string(), &*gid.to_string(), name(s), group], "{text}");
    assert_eq!(lines[4], format!("{0} {0} {1}", name(s), home.display()));
    assert_eq!(lines[5], s.work.display().to_string(), "the same directory at the same path");
    assert_eq!(lines[6], "busybox");
    let line = format!("^{}:x:{uid}:", name(s));
    sh(s, &["--rm", "busybox"], &format!("grep -q '{line}' /etc/passwd && grep -q ':{gid}:' /etc/group"));
    let kept = |n: &str, v: &str| {
        let script = format!("echo \"${n}\"");
        let cmd = s.dhow(["shell", "--rm", "busybox", "--", "sh", "-c", &script]).env(n, v).ok();
        assert_eq!(cmd, v, "{n}");
    };
    kept("TERM", "vt102");
    kept("LC_ALL", "C");
    kept("TZ", "Asia/Tokyo");
    let own = s.dhow(["shell", "--rm", "-e", "TERM=x", "busybox", "--", "sh", "-c", "echo $TERM $SHELL"]);
    assert_eq!(
        own.env("TERM", "y").env("SHELL", "/bin/nosuch").ok(),
        "x /bin/sh",
        "flags win over what is here"
    );
    // No image, and with it no other box, has learnt of it.
    assert_eq!(
        s.sh(NONE, &format!("grep -c '^{}:' /etc/passwd || true", name(s))).ok(),
        if s.is_rootless() { "0" } else { "1" }
    );
}

fn what_is_made_here_is_mine(s: &Sandbox) {
    s.file("mine", "1\n");
    let shown =
        sh(s, &["--rm", "busybox"], "echo 2 >>mine; touch made; stat -c '%u %g' mine made; touch ~/x /etc/y");
    let own = format!("{} {}", s.account.uid, s.account.gid);
    assert_eq!(shown, format!("{own}\n{own}"), "inside");
    for file in ["mine", "made"] {
        let meta = std::fs::metadata(s.work.join(file)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (s.account.uid, s.account.gid), "outside: {file}");
    }
    assert_eq!(std::fs::read_to_string(s.work.join("mine")).unwrap(), "1\n2\n");
    assert!(!s.home.join("x").exists(), "a box has a home of its own");
    // In one's home, the home is the current directory.
    sh_in(s, &s.home, "touch ~/y");
    assert_eq!(s.home.join("y").exists(), s.is_rootless());
}

fn sh_in(s: &Sandbox, dir: &std::path::Path, script: &str) -> String {
    s.dhow(["shell", "--rm", "busybox", "--", "sh", "-c", script]).dir(dir).ok()
}

fn a_box_is_kept_and_entered_again(s: &Sandbox) {
    sh(s, &["busybox"], "echo home >~/kept; echo layer >/etc/kept");
    assert_eq!(
        s.inspect("busybox", "{{.State.Status}} {{index .Config.Labels \"dhow.shell\"}}"),
        "exited busybox"
    );
    assert_eq!(sh(s, &["busybox"], "cat ~/kept /etc/kept"), "home\nlayer");
    // By another name it is another box.
    assert_eq!(
        sh(s, &["--name", "dev", "busybox"], "cat ~/kept 2>&1 || true; touch ~/dev"),
        "cat: can't open '/root/kept': No such file or directory".replace("/root", &home(s))
    );
    assert_eq!(sh(s, &["dev"], "ls ~"), "dev");
    assert_eq!(sh(s, &["--name", "dev"], "ls ~"), "dev");
    let ids = s.dhow(["ps", "-aq"]).ok();
    assert_eq!(ids.lines().count(), 2, "{ids}");
    s.dhow(["rm", "busybox", "dev"]).ok();
    s.assert_nothing_left();
}

fn home(s: &Sandbox) -> String {
    if s.is_rootless() { s.home.display().to_string() } else { "/root".into() }
}

fn a_box_that_goes(s: &Sandbox) {
    sh(s, &["--rm", "busybox"], "touch ~/x");
    s.assert_nothing_left();
    sh(s, &["busybox"], "touch ~/x");
    assert_eq!(sh(s, &["--rm", "busybox"], "ls ~"), "", "not the box of that name");
}

fn a_box_follows_its_caller(s: &Sandbox) {
    let (one, two) = (s.subdir("one"), s.subdir("two"));
    let at = |dir: &PathBuf, script: &str| {
        s.dhow(["shell", "busybox", "--", "sh", "-c", script])
            .dir(dir)
            .env("COLORTERM", dir.file_name().unwrap())
            .ok()
    };
    assert_eq!(at(&one, "touch a; pwd; echo $COLORTERM"), format!("{}\none", one.display()));
    assert_eq!(at(&two, "touch b; pwd; echo $COLORTERM"), format!("{}\ntwo", two.display()));
    assert_eq!(at(&two, &format!("ls {}", one.display())), "", "left behind");
    assert!(one.join("a").exists() && two.join("b").exists());
    assert_eq!(at(&one, "ls"), "a");
    // Asked for when it was made, and still there.
    let flags = ["--name", "more", "-v", &format!("{}:/two", two.display()), "busybox"];
    s.dhow(["shell"]).args(flags).args(["--", "true"]).dir(&one).ok();
    assert_eq!(s.dhow(["shell", "more", "--", "ls", "/two"]).ok(), "b");
    assert_eq!(s.inspect("more", "{{len .Mounts}}"), "2");
}

fn who_comes_second_joins(s: &Sandbox) {
    let script = "touch up; while ! test -e done; do sleep 0.02; done; exit 4";
    let mut first = s.dhow(["shell", "busybox", "--", "sh", "-c", script]).spawn_with(|_| ());
    wait::until("the box runs", || s.work.join("up").exists().then_some(()));
    let second = "id -u; pwd; ps | grep -c 'test -e'; echo $HOME; echo joined >~/joined; exit 5";
    let output = s.dhow(["shell", "busybox", "--", "sh", "-c", second]).output().exits(5);
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], s.account.uid.to_string(), "{text}");
    assert_eq!(lines[1], s.work.display().to_string());
    assert_eq!(lines[3], home(s));
    let root = s.dhow(["shell", "--root", "busybox", "--", "sh", "-c", "id -u; touch by-root"]).ok();
    assert_eq!(root, "0");
    assert_eq!(std::fs::metadata(s.work.join("by-root")).unwrap().uid(), s.account.uid);
    // So does anybody who does not know that it is a box.
    assert_eq!(s.dhow(["exec", "busybox", "id", "-u"]).ok(), s.account.uid.to_string());
    let elsewhere = s.dhow(["shell", "busybox", "--", "pwd"]).dir("/tmp").output().exits(0);
    elsewhere.complains("/tmp");
    std::fs::write(s.work.join("done"), "").unwrap();
    assert_eq!(first.code(), 4);
    assert_eq!(sh(s, &["busybox"], "cat ~/joined"), "joined");
}

fn root_of_the_box(s: &Sandbox) {
    let text = sh(
        s,
        &["--rm", "--root", "busybox"],
        "id -u; echo $HOME; touch made; touch /x; chown 5:6 /x && echo 1",
    );
    assert_eq!(text, "0\n/root\n1");
    let meta = std::fs::metadata(s.work.join("made")).unwrap();
    assert_eq!(meta.uid(), s.account.uid);
    // The same box by turns.
    sh(s, &["busybox"], "true");
    sh(s, &["--root", "busybox"], "echo x >/etc/by-root; test $(id -u) = 0");
    assert_eq!(sh(s, &["busybox"], "id -u; cat /etc/by-root"), format!("{}\nx", s.account.uid));
}

fn a_terminal_and_a_shell(s: &Sandbox) {
    let mut t = Terminal::start(s.dhow(["shell", "busybox"]).env("PS1", "").env("SHELL", "/bin/ash"), 31, 97);
    t.write("echo $((1+1)):$SHELL:$TERM; tty; stty size\n");
    t.expect("2:/bin/ash:");
    t.expect("/dev/pts/0");
    t.expect("31 97");
    // No keys detach: these are for the shell to make of what it will.
    t.write("\x10\x11");
    t.write("\x15echo still $((3+4))\n");
    t.expect("still 7");
    t.write("exit 6\n");
    assert_eq!(t.code(), 6);
    // Again, now on a box that exists.
    let mut t = Terminal::start(s.dhow(["shell", "busybox"]), 31, 97);
    t.write("echo again $((1+1)); exit 3\n");
    t.expect("again 2");
    assert_eq!(t.code(), 3);
    assert_eq!(s.dhow(["shell", "busybox"]).stdin("echo piped; exit 2\n").output().exits(2).text(), "piped");
}

fn the_agent_comes_along(s: &Sandbox) {
    let path = s.runtime.join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(s.account.uid), Some(s.account.gid)).unwrap();
    let script = "test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK";
    for from in [&["busybox"][..], &[]] {
        let run =
            || s.dhow(["shell"]).args(from).args(["--", "sh", "-c", script]).env("SSH_AUTH_SOCK", &path);
        assert!(run().ok().starts_with('/'));
        assert!(run().ok().starts_with('/'), "again");
    }
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    let gone = s.dhow(["shell", "busybox", "--", "sh", "-c", "echo ${SSH_AUTH_SOCK-none}"]);
    assert_eq!(gone.env("SSH_AUTH_SOCK", &path).ok(), "none");
}

fn the_end_is_the_commands(s: &Sandbox) {
    for code in [0, 1, 42] {
        let script = format!("exit {code}");
        s.dhow(["shell", "busybox", "--", "sh", "-c", &script]).output().exits(code);
    }
    s.dhow(["shell", "busybox", "--", "nosuch"]).output().exits(127);
    s.dhow(["shell", "busybox", "--", "/etc"]).output().exits(126);
    // Nothing at all around it, as under cron.
    let bare = s.dhow(["shell", "--rm", "busybox", "--", "pwd"]).env_remove("HOME").env_remove("PATH");
    bare.env_remove("XDG_RUNTIME_DIR").env_remove("LANG").ok();
    s.dhow(["shell", "busybox", "--", "sh", "-c", "kill -9 $$"]).output().exits(137);
}

fn a_copy_of_this_machine(s: &Sandbox) {
    if s.user == User::Root && !std::path::Path::new("/etc/os-release").exists() {
        return;
    }
    let text = sh(
        s,
        &["--rm"],
        "id -un; cat /etc/hostname >/dev/null; echo >>~/.new; head -c 4 /etc/os-release; pwd",
    );
    assert!(text.starts_with(name(s)), "{text}");
    assert!(!s.home.join(".new").exists());
    s.assert_nothing_left();
    let mark = format!("/var/tmp/dhow-mark-{}", s.dir.file_name().unwrap().to_string_lossy());
    sh(s, &[], &format!("echo 1 >{mark}"));
    assert!(!std::path::Path::new(&mark).exists(), "of this machine only a copy is changed");
    assert_eq!(sh(s, &[], &format!("cat {mark}; touch here")), "1", "and the changes are kept");
    assert!(s.work.join("here").exists());
    assert_eq!(s.inspect("shell", "{{index .Config.Labels \"dhow.shell\"}}"), "/");
}

fn what_the_words_mean(s: &Sandbox) {
    s.dhow(["shell", "nosuch", "--", "true"]).output().exits(125).complains("nosuch");
    s.detached(["--name", "web"], ["sleep", "1000"]);
    s.dhow(["tag", "busybox", "web"]).ok();
    let text = s.dhow(["shell", "web", "--", "true"]).fails(125);
    assert!(text.contains("--name"), "{text}");
    sh(s, &["--name", "mine", "web"], "true");
    let text = s.dhow(["shell", "--name", "mine", "busybox", "--", "true"]).fails(125);
    assert!(text.contains("made from web"), "{text}");
    s.dhow(["tag", "busybox", "a/b:3"]).ok();
    sh(s, &["a/b:3"], "true");
    assert_eq!(s.inspect("b-3", "{{.Name}}"), "/b-3");
}

fn what_is_refused(s: &Sandbox) {
    for (flags, about) in [
        (&["-u", "0", "busybox"][..], "--root"),
        (&["--entrypoint", "x", "busybox"], "--entrypoint"),
        (&["-it", "busybox"], "--interactive"),
        (&["busybox", "ls"], "ls"),
    ] {
        let text = s.dhow(["shell"]).args(flags).output();
        assert!(text.code != 0 && text.error_text().contains(about), "{}", text.report());
    }
    sh(s, &["busybox"], "true");
    let text = s.dhow(["shell", "-m", "64m", "busybox", "--", "true"]).fails(125);
    assert!(text.contains("--memory") && text.contains("dhow rm busybox"), "{text}");
    // What belongs to the system stays outside, and the box starts all the same.
    let output = s.dhow(["shell", "--rm", "busybox", "--", "pwd"]).dir("/usr").output().exits(0);
    assert_eq!(output.text(), home(s));
    output.complains("/usr");
}

fn a_runtime_directory(s: &Sandbox) {
    let text = s
        .dhow([
            "shell",
            "--rm",
            "busybox",
            "--",
            "sh",
            "-c",
            "ls -ld /run/user/$(id -u); echo $XDG_RUNTIME_DIR",
        ])
        .ok();
    assert!(
        text.starts_with("drwx------") && text.ends_with(&format!("/run/user/{}", s.account.uid)),
        "{text}"
    );
}

fn a_shell_that_is_killed(s: &Sandbox) {
    let script = "touch up; sleep 1000";
    let mut run = s.dhow(["shell", "busybox", "--", "sh", "-c", script]).spawn_with(|_| ());
    wait::until("the box runs", || s.work.join("up").exists().then_some(()));
    run.signal(rustix::process::Signal::KILL);
    assert_ne!(run.code(), 0);
    wait::until("the box has ended", || {
        (s.inspect("busybox", "{{.State.Status}}") == "exited").then_some(())
    });
    assert_eq!(sh(s, &["busybox"], "echo again"), "again");
}

fn its_ids_in_files(s: &Sandbox) {
    let files = |n: u32| [s.work.join(format!("cid{n}")), s.work.join(format!("pid{n}"))];
    let shell = |n: u32, script: &str| {
        let [cid, pid] = files(n);
        let cmd = s.dhow(["shell", "--cidfile"]).arg(&cid).arg("--pidfile").arg(&pid);
        let mut run = cmd.args(["busybox", "--", "sh", "-c", script]).spawn_with(|_| ());
        wait::until("its pid is told", || {
            std::fs::read_to_string(&pid).is_ok_and(|text| !text.is_empty()).then_some(())
        });
        let seen = s.inspect("busybox", "{{.Id}} {{.State.Pid}}");
        let told = [cid, pid].map(|file| std::fs::read_to_string(file).unwrap());
        assert_eq!(told.join(" "), seen);
        if n == 0 {
            // To be joined, again with files.
            return run;
        }
        std::fs::write(s.work.join("end"), "").unwrap();
        assert_eq!(run.code(), 0);
        run
    };
    let waiting = "while ! test -e end; do sleep 0.02; done";
    let mut first = shell(0, waiting);
    shell(1, waiting);
    assert_eq!(first.code(), 0);
    std::fs::remove_file(s.work.join("end")).unwrap();
    shell(2, waiting);
    let text = s.dhow(["shell", "--cidfile"]).arg(&files(0)[0]).args(["busybox", "--", "true"]).fails(125);
    assert!(text.contains("cid0"), "{text}");
}

fn made_anew(s: &Sandbox) {
    sh(s, &["--name", "dev", "busybox"], "touch ~/old");
    assert_eq!(sh(s, &["--replace", "--name", "dev", "busybox"], "ls ~; touch ~/new"), "");
    assert_eq!(sh(s, &["dev"], "ls ~"), "new");
    assert!(s.dhow(["shell", "--replace", "busybox", "--", "true"]).fails(125).contains("--name"));
}
