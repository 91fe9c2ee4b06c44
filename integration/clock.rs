//! A clock that is set while containers run, forward and back by decades: in a virtual machine, whose clock is its own.

use crate::guest::Guest;

const SCRIPT: &str = r#"
    export DHOW_ROOT=/disk/root
    dhow import --change 'CMD ["sh"]' /busybox.tar busybox >/dev/null
    until_true() { n=0; until "$@"; do n=$((n + 1)); [ $n -lt 300 ] || { echo "not true: $*"; break; }; sleep 0.1; done; }

    echo "== before"
    # Neither its time limit nor what waits for it has anything to do with the clock on the wall.
    dhow run -d --name calm --timeout 100000 --health-cmd 'date +%Y' --health-interval 200ms busybox sh -c '
        trap "echo asked; exit 5" TERM; while :; do date +%Y; sleep 0.2; done' >/dev/null
    dhow wait --condition healthy calm
    dhow wait --timeout 100000 calm >/waited 2>&1 &
    dhow wait --condition next-exit calm >/next 2>&1 &
    checked() { dhow inspect --format '{{range .State.Health.Log}}{{.Output}}{{end}}' calm | grep -q $1; }
    logged() { dhow logs -n 5 calm | grep -q $1; }
    runs() { dhow inspect --format '{{.RestartCount}}' again; }
    again() { [ $(runs) -ge $1 ]; }
    gone() { ! dhow container exists late; }

    for year in 2037 2001; do
        echo "== $year"
        dhow run -d --rm --name late --timeout 3 busybox sleep 1000 >/dev/null
        dhow run -d --name again --restart always busybox false >/dev/null
        until_true again 1
        date -s "$year-06-01 00:00:00" >/dev/null
        # However often it ran before: the next run begins after.
        before=$(runs)
        until_true checked $year
        until_true logged $year
        until_true again $((before + 2))
        until_true gone
        dhow logs --since 1h -n 1 calm
        dhow exec calm echo in
        dhow events --since 1h --until 0s --filter container=again --filter event=start --format '{{.Action}}' | head -n 1
        dhow ps -a --filter name=calm --format '{{.State}} {{.HealthStatus}}'
        dhow rm -f again
        [ -s /waited ] || [ -s /next ] || echo they wait
    done

    echo "== stop"
    dhow stop -t 1000 calm
    wait
    cat /waited /next
    dhow logs -n 1 calm
    dhow ps -a --format '{{.Names}} {{.State}}'
    echo "== end"
"#;

#[test]
fn set_while_containers_run() {
    let Some(guest) = Guest::new("clock") else { return };
    let console = guest.run(SCRIPT);
    console.says("before", "0");
    for year in ["2037", "2001"] {
        console.says(year, &format!("{year}\nin\nstart\nrunning healthy\nagain\nthey wait"));
    }
    console.says("stop", "calm\n5\n5\nasked\ncalm exited");
}
