//! boot after a machine really went down, twice, the second time in the middle of `dhow boot`: in a virtual machine, whose
//! disk is all that is left of it.

use crate::guest::Guest;

/// What is there before; called with who it is for.
const MAKE: &str = r#"
    dhow import --change 'CMD ["sh"]' /busybox.tar busybox >/dev/null
    begin() { name=$1; shift; dhow run -d --name $name "$@" >/dev/null; }
    begin always --restart always busybox sh -c 'echo began; sleep 10000'
    begin unless --restart unless-stopped busybox sleep 10000
    begin failing --restart on-failure busybox sleep 10000
    begin no busybox sleep 10000
    begin passing --rm busybox sleep 10000
    begin paused --restart always busybox sleep 10000
    begin always-stopped --restart always busybox sleep 10000
    begin unless-stopped --restart unless-stopped busybox sleep 10000
    begin failing-stopped --restart on-failure busybox sleep 10000
    begin done --restart on-failure busybox true
    begin failed busybox false
    dhow create --name made --restart always busybox sleep 10000 >/dev/null
    dhow pause paused >/dev/null
    dhow wait done failed >/dev/null
    dhow stop -t 0 always-stopped unless-stopped failing-stopped >/dev/null
    # Between two runs when the power goes.
    begin restarting --restart always busybox false
    rests() { dhow inspect --format '{{.State.Status}} {{.RestartCount}}' restarting | grep -q 'restarting [5-9]'; }
    until rests; do sleep 0.1; done
"#;

/// What is found after; called with who it is for.
const LOOK: &str = r#"
    states() { dhow ps -a --format '{{.Names}} {{.State}}' | grep -v restarting | sort; }
    echo "== $1 before"; states
    dhow inspect --format '{{.State.ExitCode}} {{.State.Pid}} {{.State.Error}}' no
    echo "== $1 others"; dhow exec always true 2>&1; echo $?
    echo "== $1 boot"; dhow boot; echo $?
    echo "== $1 after"; states
    echo "== $1 again"; dhow boot; echo $?; dhow logs always; dhow exec always echo in
"#;

/// What comes first after the second time.
const ONCE: &str = r#"
    echo "== $1 once"; dhow boot --once; echo $?
    echo "== $1 once more"; dhow boot --once; echo $?
"#;

/// As an ordinary user and as root; `$1` is the script.
const BOTH: &str = r#"
    both() {
        DHOW_ROOT=/disk/root sh $1 root
        mkdir -p /disk/user; chown user /disk/user
        DHOW_ROOT=/disk/user/store su user -c "cd /tmp; sh $1 user"
    }
"#;

/// In the order in which they were made.
const STARTED: &str = "always\nunless\nfailing\npaused\nalways-stopped\nrestarting\n";

#[test]
fn the_right_ones_are_started() {
    let Some(mut guest) = Guest::new("boot") else { return };
    guest.add("/make", MAKE.as_bytes());
    guest.add("/look", LOOK.as_bytes());
    guest.run_until("CUT", &format!("{BOTH} both /make; sync; echo; echo CUT; sleep 1000"));
    let console = guest.run(&format!("{BOTH} both /look; echo '== end'"));
    for who in ["root", "user"] {
        let says = |part: &str, expected: &str| console.says(&format!("{who} {part}"), expected);
        says("before", &format!("{}\n137 0 its supervisor was killed", states("exited")));
        says("others", "dhow: cannot exec in always: container always is not running\n1");
        says("boot", &format!("{STARTED}dhow: 6 started, 0 failed\n0"));
        says("after", &states("running"));
        says("again", "dhow: 0 started, 0 failed\n0\nbegan\nbegan\nin");
    }
    // Once more, and the power goes while they are started.
    let cut = "DHOW_ROOT=/disk/root dhow boot --once & \
               DHOW_ROOT=/disk/user/store su user -c 'dhow boot --once' & \
               sleep 0.5; sync; echo; echo CUT; sleep 1000";
    guest.run_until("CUT", cut);
    guest.add("/once", format!("{ONCE}{LOOK}").as_bytes());
    let console = guest.run(&format!("{BOTH} both /once; echo '== end'"));
    for who in ["root", "user"] {
        let says = |part: &str, expected: &str| console.says(&format!("{who} {part}"), expected);
        says("once", &format!("{STARTED}dhow: 6 started, 0 failed\n0"));
        says("once more", "0");
        says("after", &states("running"));
    }
}

/// What `ps -a` says where those that are to run are so. The one that restarts is now this, now that.
fn states(run: &str) -> String {
    let done = "done exited\nfailed exited";
    format!(
        "always {run}\nalways-stopped {run}\n{done}\nfailing {run}\nfailing-stopped exited\nmade created\n\
         no exited\npaused {run}\nunless {run}\nunless-stopped exited"
    )
}
