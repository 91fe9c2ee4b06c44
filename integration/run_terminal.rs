//! `dhow run -t`, `exec -t`, `start -ai`: the terminal inside and the person's own outside.

use rustix::process::Signal;
use rustix::termios::LocalModes;

use crate::sandbox::Sandbox;
use crate::terminal::Terminal;

for_each_user!(
    size_is_set_before_exec_and_followed,
    a_shell_for_a_person,
    control_c_reaches_the_program,
    settings_come_back,
    settings_come_back_after_a_kill,
    t_without_a_terminal,
    a_detached_terminal,
    exec_has_a_terminal,
    term_is_handed_on,
);

fn start(s: &Sandbox, flags: &[&str], args: &[&str]) -> Terminal {
    Terminal::start(s.dhow(["run", "--rm", "-it"]).args(flags).arg("busybox").args(args), 31, 97)
}

fn size_is_set_before_exec_and_followed(s: &Sandbox) {
    // The first program that runs asks for the size; the trap is there before, so that no later change is missed.
    let script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done";
    let mut t = start(s, &[], &["sh", "-c", script]);
    t.expect("31 97");
    t.resize(44, 55);
    t.expect("44 55");
    t.resize(10, 20);
    t.expect("10 20");
}

fn a_shell_for_a_person(s: &Sandbox) {
    let mut t = start(s, &[], &["sh"]);
    t.expect("# ");
    t.write("tty; test -t 0 && test -t 1 && test -t 2 && echo all three; ps\n");
    t.expect("/dev/pts/0");
    t.expect("all three\r\n");
    t.write("exit 6\n");
    assert_eq!(t.code(), 6);
}

fn control_c_reaches_the_program(s: &Sandbox) {
    let mut t = start(
        s,
        &[],
        &["sh", "-c", "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.05; done"],
    );
    t.expect("ready");
    t.write("\x03");
    t.expect("interrupted");
    assert_eq!(t.code(), 3);
}

fn is_cooked(t: &Terminal) -> bool {
    t.settings().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
}

fn settings_come_back(s: &Sandbox) {
    for script in ["exit 0", "exit 9", "stty raw -echo"] {
        let mut t = start(s, &[], &["sh", "-c", script]);
        t.code();
        assert!(is_cooked(&t), "after {script:?}");
    }
    let mut t = start(s, &[], &["no-such-program"]);
    assert_eq!(t.code(), 127);
    assert!(is_cooked(&t), "after a failure to start");
}

fn settings_come_back_after_a_kill(s: &Sandbox) {
    for signal in [Signal::TERM, Signal::HUP] {
        let mut t = start(s, &["--init"], &["sh", "-c", "echo ready; sleep 1000"]);
        t.expect("ready");
        assert!(!is_cooked(&t), "keys go to the program inside, one by one");
        rustix::process::kill_process(rustix::process::Pid::from_child(&t.child), signal).unwrap();
        t.code();
        assert!(is_cooked(&t), "after {signal:?}");
    }
}

fn t_without_a_terminal(s: &Sandbox) {
    // -t works with output to a pipe; where the input of -it is no terminal, that is said (docker refuses).
    let out = s.dhow(["run", "--rm", "-t", "busybox", "sh", "-c", "tty; echo x"]).output().exits(0);
    assert_eq!(out.text().trim_end(), "/dev/pts/0\r\nx");
    s.dhow(["run", "--rm", "-it", "busybox", "true"]).output().complains("terminal");
}

fn a_detached_terminal(s: &Sandbox) {
    s.detached(["-t", "--name", "c1"], ["sh", "-c", "tty; stty size; sleep 1000"]);
    let log = crate::wait::until("the log", || {
        Some(s.dhow(["logs", "c1"]).ok()).filter(|l| l.lines().count() == 2)
    });
    assert!(log.starts_with("/dev/pts/0\r\n"), "{log:?}");
}

fn exec_has_a_terminal(s: &Sandbox) {
    s.detached(["--name", "c1"], ["sleep", "1000"]);
    let mut t =
        Terminal::start(s.dhow(["exec", "-it", "c1", "sh", "-c", "stty size; tty; read x; exit $x"]), 21, 43);
    t.expect("21 43");
    t.expect("/dev/pts/");
    t.write("8\n");
    assert_eq!(t.code(), 8);
    assert!(is_cooked(&t));
}

fn term_is_handed_on(s: &Sandbox) {
    let mut t = start(s, &[], &["sh", "-c", "echo TERM=$TERM."]);
    t.expect("TERM=xterm.");
    t.code();
    assert!(s.probe(crate::sandbox::NONE)["env"]["TERM"].is_null(), "only with a terminal");
}
