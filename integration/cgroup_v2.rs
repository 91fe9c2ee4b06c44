//! cgroup v2, which the machine of the tests need not have: limits hold and pauses last there for root, and for a user whom a part of the
//! tree was handed to; who has none is told so. In a virtual machine, with an old kernel at that.

use crate::guest::{Console, Guest};

/// What everybody does. Everything is asked from outside the containers, at the kernel's own files.
const LIMITS: &str = r#"
    dhow import --change 'CMD ["sh"]' /busybox.tar busybox >/dev/null
    of() { echo /sys/fs/cgroup$(sed -n s/^0:://p /proc/$(dhow inspect --format '{{.State.Pid}}' $1)/cgroup); }
    until_true() { n=0; until "$@"; do n=$((n + 1)); [ $n -lt 200 ] || { echo "not true: $*"; break; }; sleep 0.1; done; }

    echo "== $1 memory"
    dhow run --name hungry -m 64m busybox /probe fill 90; echo $?
    dhow inspect --format '{{.State.OOMKilled}}' hungry

    echo "== $1 fork bomb"
    dhow run -d --name bomb --pids-limit 30 busybox sh -c 'b() { b | b & }; b; wait; sleep 1000' >/dev/null
    over() { read event n < $cgroup/pids.events; [ $n -gt 0 ]; }
    cgroup=$(of bomb)
    until_true over; [ $(cat $cgroup/pids.current) -le 30 ] && echo tame
    dhow rm -f bomb

    echo "== $1 cpus"
    dhow run -d --name busy --cpus 0.5 busybox sh -c 'while :; do :; done' >/dev/null
    cgroup=$(of busy)
    used() { sed -n 's/^usage_usec //p' $cgroup/cpu.stat; }
    now() { sed 's/[.]\(..\).*/\10000/' /proc/uptime; }
    from=$(now) used=$(used)
    slept() { [ $(($(now) - from)) -gt 1000000 ]; }
    until_true slept
    # A machine that was held up charges the time to who was running: that is made up for later.
    is_half() { [ $((($(used) - used) * 100 / ($(now) - from))) -le 60 ]; }
    until_true is_half; echo half
    dhow rm -f busy

    echo "== $1 exec"
    dhow run -d --name calm -m 64m busybox sleep 1000 >/dev/null
    dhow exec -d calm sleep 1000
    cgroup=$(of calm)
    until_two() { [ $(wc -l < $cgroup/cgroup.procs) = 2 ]; }
    until_true until_two
    dhow exec calm /probe fill 90; echo $?
    dhow exec calm cat /proc/self/cgroup /sys/fs/cgroup/memory.max
    dhow inspect --format '{{.State.Status}}' calm

    echo "== $1 pause"
    frozen() { grep -qx "frozen $1" $cgroup/cgroup.events; }
    dhow pause calm; until_true frozen 1
    dhow ps --filter name=calm --format '{{.Status}}' | grep -c '(Paused)'
    dhow unpause calm; until_true frozen 0

    echo "== $1 update"
    dhow update -m 80m --pids-limit 7 --cpus 0.25 calm; cat $cgroup/memory.max $cgroup/pids.max $cgroup/cpu.max
    dhow stats --no-stream --format '{{.PIDs}} {{.MemUsage}}' calm | sed 's, .* / , of ,'

    echo "== $1 stop of a paused one"
    dhow pause calm; dhow stop -t 0 calm; dhow inspect --format '{{.State.Status}}' calm

    echo "== $1 nested"
    dhow run --rm --privileged -v /usr/bin/dhow:/bin/dhow -v /busybox.tar:/busybox.tar busybox sh -c '
        dhow --root /inner import /busybox.tar busybox >/dev/null
        dhow --root /inner run --rm -m 64m busybox /probe fill 90; echo $?
        dhow --root /inner run --rm -m 64m busybox cat /sys/fs/cgroup/memory.max'

    echo "== $1 left"
    dhow rm -f calm hungry
    find /sys/fs/cgroup -path '*/dhow/*' -type d
    cat /proc/self/cgroup
    echo "== $1 end"
"#;

/// What they should see; `own` is where they are in the end.
#[track_caller]
fn holds(console: &Console, who: &str, own: &str) {
    let says = |part: &str, expected: &str| console.says(&format!("{who} {part}"), expected);
    says("memory", "137\ntrue");
    says("fork bomb", "tame\nbomb");
    says("cpus", "half\nbusy");
    says("exec", "137\n0::/\n67108864\nrunning");
    says("pause", "calm\n1\ncalm");
    says("update", "calm\n83886080\n7\n25000 100000\n2 of 80MiB");
    says("stop of a paused one", "calm\ncalm\nexited");
    says("nested", "137\n67108864");
    says("left", &format!("calm\nhungry\n0::{own}"));
}

#[test]
fn limits_hold() {
    let Some(mut guest) = Guest::new("cgroup-v2") else { return };
    guest.add("/limits", LIMITS.as_bytes());
    let console = guest.run(
        r#"
        C=/sys/fs/cgroup
        DHOW_ROOT=/disk/root sh /limits root
        mkdir -p /disk/user $C/session/scope $C/crowded
        chown user /disk/user
        export DHOW_ROOT=/disk/user/store
        # As systemd hands over: the directory and what takes processes and controllers.
        for d in $C/session $C/session/scope $C/crowded; do
            chown user $d $d/cgroup.procs $d/cgroup.subtree_control
        done
        sh -c "echo \$\$ > $C/session/scope/cgroup.procs; exec su user -c 'sh /limits user'"
        # Nothing but the one cgroup that we are in ourselves: it has to be vacated.
        sh -c "echo \$\$ > $C/crowded/cgroup.procs; exec su user -c 'sh /limits crowded'"

        cd /tmp
        echo "== undelegated"
        su user -c "dhow run --rm -m 64m --pids-limit 10 --cpus 0.5 busybox echo ran"
        echo "== strict"
        su user -c "dhow run --rm --strict-limits -m 64m busybox echo ran"; echo $?
        echo "== nothing asked"
        su user -c "dhow run --rm busybox echo ran"
        echo "== end"
        "#,
    );
    holds(&console, "root", "/");
    holds(&console, "user", "/session/scope");
    holds(&console, "crowded", "/crowded/dhow-own");
    let why = "neither /sys/fs/cgroup nor a cgroup above it is ours to write to";
    console.says(
        "undelegated",
        &format!("dhow: warning: cannot enforce memory limit, cpu quota, pids limit: {why}\nran"),
    );
    let strict = console.part("strict");
    assert!(strict.starts_with("dhow: cannot start ") && strict.contains("memory limit"), "{strict}");
    assert!(strict.ends_with("\n125"), "{strict}");
    console.says("nothing asked", "ran");
}
