//! --preserve-fds and --preserve-fd: descriptors of the caller's in a container.

use crate::sandbox::Sandbox;

for_each_user!(
    run_gets_them,
    exec_gets_them,
    more_than_a_socket_holds,
    with_an_init,
    their_ends_are_seen,
    what_is_refused
);

/// What a shell of this sandbox's user says that ran the script; `$D` is dhow on its store.
fn shell(s: &Sandbox, script: &str) -> crate::command::Output {
    let dhow = format!("{} --root {}", crate::sandbox::dhow().display(), s.store.display());
    // bash knows descriptors of two digits.
    s.program("/bin/bash").args(["-c", script]).env("D", dhow).output()
}

fn run_gets_them(s: &Sandbox) {
    for flags in ["", "-d --name bg"] {
        let out = shell(
            s,
            &format!(
                "exec 3<<<three 4>four 5<<<five; $D run {flags} --preserve-fds 2 busybox \
                 sh -c 'cat <&3; echo written >&4; ls /proc/self/fd | tr \"\\n\" \" \"; : <&5' ; true"
            ),
        );
        let text = if flags.is_empty() {
            out.exits(0)
        } else {
            let out = out.exits(0);
            s.note(out.text(), &out);
            s.dhow(["wait", "bg"]).ok();
            s.dhow(["logs", "bg"]).output()
        };
        // `ls` has one of its own for the directory.
        assert_eq!(text.text().trim_end(), "three\n0 1 2 3 4 5", "{flags}");
        assert_eq!(std::fs::read_to_string(s.work.join("four")).unwrap(), "written\n", "{flags}");
    }
    let out = shell(
        s,
        "exec 7<<<seven 12<<<twelve 3</dev/null; $D run --rm --preserve-fd 7,12 busybox sh -c 'cat <&7; cat /proc/self/fd/12; test ! -e /proc/self/fd/3'",
    );
    assert_eq!(out.exits(0).text(), "seven\ntwelve");
}

fn exec_gets_them(s: &Sandbox) {
    s.detached(["--name", "c"], ["sleep", "1000"]);
    let script = "exec 3<<<three 9>nine; $D exec --preserve-fds 1 --preserve-fd 9 c sh -c 'cat <&3; echo w >&9; ls /proc/self/fd | tr \"\\n\" \" \"'";
    assert_eq!(shell(s, script).exits(0).text().trim_end(), "three\n0 1 2 3 4 9");
    assert_eq!(std::fs::read_to_string(s.work.join("nine")).unwrap(), "w\n");
    let without = shell(s, "exec 3<<<three; $D exec c sh -c 'ls /proc/self/fd | tr \"\\n\" \" \"'");
    assert_eq!(without.exits(0).text().trim_end(), "0 1 2 3");
}

fn more_than_a_socket_holds(s: &Sandbox) {
    s.detached(["--name", "c"], ["sleep", "1000"]);
    for verb in ["exec --preserve-fds 400 c", "run --rm --preserve-fds 400 busybox"] {
        let script = format!(
            "for n in $(seq 3 402); do eval \"exec $n</dev/null\"; done; $D {verb} sh -c 'ls /proc/self/fd | wc -l'"
        );
        // And what `ls` has for the directory.
        assert_eq!(shell(s, &script).exits(0).text(), "404", "{verb}");
    }
}

fn with_an_init(s: &Sandbox) {
    let script = "exec 3<<<three 4<<<four; $D run --rm --init --preserve-fds 2 busybox sh -c 'cat <&3; cat <&4; ls /proc/1/fd | tr \"\\n\" \" \"'";
    let text = shell(s, script).exits(0).text();
    let mut lines = text.lines();
    assert_eq!((lines.next(), lines.next()), (Some("three"), Some("four")));
}

/// Who waits for the end of a pipe must not wait for us, nor for the built-in init.
fn their_ends_are_seen(s: &Sandbox) {
    for flags in ["", "--init"] {
        let script = format!(
            "exec 3> >(cat >seen; echo end >>seen); $D run -d --name pipe {flags} --preserve-fds 1 busybox \
             sh -c 'echo x >&3; exec 3>&-; sleep 1000' >/dev/null; exec 3>&-; \
             until grep -q end seen; do sleep 0.05; done; cat seen; $D rm -f pipe >/dev/null"
        );
        assert_eq!(shell(s, &script).exits(0).text(), "x\nend", "{flags}");
    }
}

fn what_is_refused(s: &Sandbox) {
    for (flags, about) in [
        ("--preserve-fds 1", "3: it is not open"),
        ("--preserve-fd 17", "17: it is not open"),
        ("--preserve-fd 2", "--preserve-fd"),
        ("--preserve-fds -1", "--preserve-fds"),
        ("--preserve-fds x", "--preserve-fds"),
        ("--preserve-fd 3,,4", "--preserve-fd"),
    ] {
        let out = shell(s, &format!("exec 4</dev/null; $D run --rm {flags} busybox true")).exits(125);
        out.complains(about);
    }
    // One that is open, and cannot be copied.
    let script = "exec 63</dev/null; ulimit -n 64; $D run --rm --preserve-fd 63 busybox true";
    shell(s, script).exits(125).complains("63: there is no room").complains("ulimit -n");
    s.assert_nothing_left();
}
