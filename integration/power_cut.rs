//! The power goes: what dhow said was made is there whole afterwards, what it was at is there whole or not at all, and
//! nothing is in the way of the next command. In a virtual machine, whose disk has just what was written out to it.

use crate::guest::Guest;

const FILES: &str = "bin/busybox bin/su probe etc/passwd etc/group etc/motd";

#[test]
fn what_was_made_is_whole_and_the_rest_is_gone() {
    let Some(guest) = Guest::new("power-cut") else { return };
    let first = guest.run_until(
        "CUT",
        r#"
        export DHOW_ROOT=/disk/root
        dhow import --change 'CMD ["sh"]' /busybox.tar busybox
        dhow tag busybox other
        dhow run -d --name web busybox sh -c 'echo said; sleep 1000'
        dhow run -d --rm --name passing busybox sleep 1000
        dhow create --name made busybox echo kept
        # Long enough for the journal to have the names of files (every 5 s), and too short for their bytes (30 s).
        sleep 7
        dhow run -d --rm --name late busybox sleep 1000
        (dhow import --change 'CMD ["other"]' /busybox.tar half; echo imported) &
        sleep 0.2; echo; echo CUT; sleep 1000
        "#,
    );
    let console = guest.run(&format!(
        r#"
        export DHOW_ROOT=/disk/root
        mkdir /tmp/x; cd /tmp/x; tar xf /busybox.tar
        part() {{ echo "== $1"; shift; "$@"; echo $?; }}
        part true md5sum {FILES}
        part images sh -c 'dhow images --format "{{{{.Repository}}}}" | grep -v half | sort'
        part whole dhow run --rm -w / busybox md5sum {FILES}
        if dhow inspect half >/dev/null 2>&1; then
            part half dhow run --rm -w / half md5sum {FILES}
        fi
        part ps sh -c 'dhow ps -a --format "{{{{.Names}}}}" | sort'
        part start sh -c 'dhow start web >/dev/null && dhow exec web echo in && dhow stop -t 0 web'
        part made dhow start -a made
        part passing dhow run --rm --name passing busybox echo again
        part late dhow run --rm --name late busybox echo again
        part rm dhow rm web made
        part again dhow import /busybox.tar half >/dev/null
        part left sh -c 'ls -A $DHOW_ROOT/containers $DHOW_ROOT/ephemeral $DHOW_ROOT/names $DHOW_ROOT/tmp | grep -v : | grep .'
        echo "== end"
        "#
    ));
    let says = |part: &str, expected: &str| console.says(part, expected);
    says("images", "busybox\nother\n0");
    says("whole", console.part("true"));
    if console.0.contains("== half\n") {
        says("half", console.part("true"));
    } else {
        assert!(!first.0.contains("imported"), "{}", first.0);
    }
    says("ps", "made\nweb\n0");
    says("start", "in\nweb\n0");
    says("made", "kept\n0");
    says("passing", "again\n0");
    says("late", "again\n0");
    says("rm", "web\nmade\n0");
    says("left", "1");
}
