//! `dhow shell`: several in one box. It is begun by one of them, and ends with the last.

use std::time::Instant;

use crate::sandbox::Sandbox;
use crate::terminal::Terminal;
use crate::wait;

for_each_user!(
    the_first_ones_at_once_are_in_one_box,
    those_who_come_and_go_at_once,
    the_last_one_ends_it,
    a_terminal_that_goes_first,
    one_who_leaves_a_talker,
    the_first_is_killed,
    stop_means_everybody,
    an_interrupt_is_for_one,
);

/// A shell that says `up-NAME` and waits for the file `end-NAME`.
fn lodger(s: &Sandbox, name: &str, code: i32) -> crate::command::Running {
    let script =
        format!("echo {name}; touch up-{name}; while ! test -e end-{name}; do sleep 0.02; done; exit {code}");
    let running = s.dhow(["shell", "busybox", "--", "sh", "-c", &script]).spawn_with(|_| ());
    wait::until("the shell runs", || s.work.join(format!("up-{name}")).exists().then_some(()));
    running
}

fn end(s: &Sandbox, name: &str) {
    std::fs::write(s.work.join(format!("end-{name}")), "").unwrap();
}

fn status(s: &Sandbox) -> String {
    s.inspect("busybox", "{{.State.Status}} {{.State.ExitCode}}")
}

fn the_first_ones_at_once_are_in_one_box(s: &Sandbox) {
    let script = |n: usize| {
        format!(
            "touch here-{n}; while ! test -e all; do sleep 0.02; done; hostname; echo $$ >>~/pids; exit {n}"
        )
    };
    let mut shells: Vec<_> = (0..5)
        .map(|n| s.dhow(["shell", "busybox", "--", "sh", "-c", &script(n)]).spawn_with(|_| ()))
        .collect();
    wait::until("all are in", || (0..5).all(|n| s.work.join(format!("here-{n}")).exists()).then_some(()));
    assert_eq!(s.dhow(["ps", "-q"]).ok().lines().count(), 1);
    std::fs::write(s.work.join("all"), "").unwrap();
    for (n, shell) in shells.iter_mut().enumerate() {
        assert_eq!(shell.code(), n as i32);
    }
    assert_eq!(s.dhow(["shell", "busybox", "--", "sh", "-c", "sort -u ~/pids | wc -l"]).ok(), "5");
}

fn those_who_come_and_go_at_once(s: &Sandbox) {
    let mut shells: Vec<_> = (0..12)
        .map(|n| {
            let script = format!("echo x >>~/seen; exit {n}");
            s.dhow(["shell", "busybox", "--", "sh", "-c", &script]).spawn_with(|_| ())
        })
        .collect();
    for (n, shell) in shells.iter_mut().enumerate() {
        assert_eq!(shell.code(), n as i32);
    }
    assert_eq!(s.dhow(["shell", "busybox", "--", "sh", "-c", "wc -l <~/seen"]).ok(), "12");
    assert_eq!(s.dhow(["ps", "-aq"]).ok().lines().count(), 1);
}

fn the_last_one_ends_it(s: &Sandbox) {
    let mut first = lodger(s, "a", 4);
    let mut second = lodger(s, "b", 5);
    s.dhow(["shell", "busybox", "--", "sh", "-c", "echo half; (sleep 1000 &) >/dev/null 2>&1"]).ok();
    end(s, "a");
    assert_eq!(first.code(), 4);
    assert_eq!(status(s), "running 0");
    // Those who come now are as welcome, and what was left in the background goes on.
    let mut third = lodger(s, "c", 6);
    let count = "ps | grep -c '[s]leep 1000'";
    assert_eq!(s.dhow(["shell", "busybox", "--", "sh", "-c", count]).ok(), "1");
    end(s, "b");
    assert_eq!(second.code(), 5);
    assert_eq!(status(s), "running 0");
    assert_eq!(s.dhow(["exec", "busybox", "id", "-u"]).ok(), s.account.uid.to_string());
    end(s, "c");
    assert_eq!(third.code(), 6);
    wait::until("the box has ended", || (status(s) == "exited 4").then_some(()));
    assert_eq!(s.dhow(["shell", "busybox", "--", "sh", "-c", &format!("{count} || true")]).ok(), "0");
    s.dhow(["rm", "busybox"]).ok();
    s.assert_nothing_left();
}

fn a_terminal_that_goes_first(s: &Sandbox) {
    let mut first =
        Terminal::start(s.dhow(["shell", "busybox"]).env("PS1", "").env("SHELL", "/bin/ash"), 31, 97);
    first.write("echo $((1+1))up\n");
    first.expect("2up");
    let mut second = lodger(s, "b", 5);
    // All that it says is heard, though something of it stays.
    first.write("sleep 1000 & seq 1 5000; echo la''st; exit 3\n");
    first.expect("5000");
    first.expect("last");
    assert_eq!(first.code(), 3);
    assert_eq!(status(s), "running 0");
    let mut again = Terminal::start(s.dhow(["shell", "busybox"]).env("SHELL", "/bin/ash"), 31, 97);
    again.write("tty; exit 7\n");
    again.expect("/dev/pts/");
    assert_eq!(again.code(), 7);
    end(s, "b");
    assert_eq!(second.code(), 5);
    wait::until("the box has ended", || (status(s) == "exited 3").then_some(()));
}

/// What goes on writing to the terminal of the first shell keeps nobody.
fn one_who_leaves_a_talker(s: &Sandbox) {
    let mut first =
        Terminal::start(s.dhow(["shell", "busybox"]).env("PS1", "").env("SHELL", "/bin/ash"), 31, 97);
    first.write("echo $((1+1))up\n");
    first.expect("2up");
    let mut second = lodger(s, "b", 5);
    first.write("yes & exit 3\n");
    assert_eq!(first.code(), 3);
    assert_eq!(status(s), "running 0");
    end(s, "b");
    assert_eq!(second.code(), 5);
    wait::until("the box has ended", || (status(s) == "exited 3").then_some(()));
}

fn the_first_is_killed(s: &Sandbox) {
    let mut first = lodger(s, "a", 4);
    let mut second = lodger(s, "b", 5);
    first.signal(rustix::process::Signal::KILL);
    assert_ne!(first.code(), 0);
    let count = "ps | grep -v reap | grep -c '[e]nd-a'";
    wait::until("its program is gone", || {
        let seen = s.dhow(["exec", "busybox", "sh", "-c", count]).output();
        (seen.text() == "0").then_some(())
    });
    end(s, "b");
    assert_eq!(second.code(), 5);
    wait::until("the box has ended", || status(s).starts_with("exited").then_some(()));
}

fn stop_means_everybody(s: &Sandbox) {
    let mut first = lodger(s, "a", 4);
    let mut second = lodger(s, "b", 5);
    s.dhow(["stop", "-t", "1000", "busybox"]).ok();
    assert_ne!(first.code(), 4);
    assert_eq!(second.code(), 137);
    // The same when the one that began it has gone.
    let mut first = lodger(s, "c", 4);
    let mut second = lodger(s, "d", 5);
    end(s, "c");
    assert_eq!(first.code(), 4);
    let began = Instant::now();
    s.dhow(["stop", "-t", "1000", "busybox"]).ok();
    assert!(began.elapsed().as_secs() < 500, "it was asked, and not killed when its time was over");
    assert_eq!(second.code(), 137);
    assert_eq!(status(s), "exited 4");
}

fn an_interrupt_is_for_one(s: &Sandbox) {
    let mut first = lodger(s, "a", 4);
    let mut second = lodger(s, "b", 5);
    first.signal(rustix::process::Signal::INT);
    assert_eq!(first.code(), 130);
    assert_eq!(status(s), "running 0");
    end(s, "b");
    assert_eq!(second.code(), 5);
}
