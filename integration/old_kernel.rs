//! Linux 6.1 (Debian 12): no `lowerdir+`, and what is mounted nowhere is no part of an overlay. In a virtual machine.

use std::fmt::Write as _;

use serde_json::json;
use sha2::Digest as _;

use crate::archive::Tar;
use crate::guest::{Console, Guest};
use crate::images;
use crate::sandbox::Sandbox;

for_each_user!(many_layers);

/// An archive as docker makes it, of busybox with so many layers less one on top: each has a file of its own and one
/// that all have.
fn many(n_layers: usize) -> Vec<u8> {
    let mut layers = vec![std::fs::read(images::busybox()).unwrap()];
    layers.extend((1..n_layers).map(|n| {
        let text = format!("{n}\n");
        Tar::default().file(format!("of/{n}"), &text).file("top", &text).end()
    }));
    let digest = |bytes: &Vec<u8>| {
        sha2::Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, b| {
            let _ = write!(text, "{b:02x}");
            text
        })
    };
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(digest).collect::<Vec<_>>() },
    });
    let names: Vec<String> = (0..n_layers).map(|n| format!("{n}/layer.tar")).collect();
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [format!("many:{n_layers}")], "Layers": names }]);
    let mut tar = Tar::default().file("config.json", config.to_string());
    for (name, layer) in names.iter().zip(&layers) {
        tar = tar.file(name, layer);
    }
    tar.file("manifest.json", manifest.to_string()).end()
}

/// What is to be seen of them: the top-most, and all of them.
const SEE: &str = "cat /top; ls /of | wc -l; touch /new";

fn many_layers(s: &Sandbox) {
    for n in [40, 130] {
        let file = s.work.join("many.tar");
        std::fs::write(&file, many(n)).unwrap();
        s.dhow(["load", "-q", "-i"]).arg(&file).ok();
        let image = format!("many:{n}");
        let seen = s.dhow(["run", "--rm", &image, "sh", "-c", SEE]).ok();
        assert_eq!(seen, format!("{}\n{}", n - 1, n - 1));
    }
}

/// What everybody does; each part says one thing.
const SMOKE: &str = r#"
    part() { echo "== $who $1"; shift; "$@"; echo "$?"; }
    who=$1
    dhow import --change 'CMD ["sh"]' /busybox.tar busybox >/dev/null
    for n in 40 130; do
        dhow load -qi /many$n.tar >/dev/null
        part $n-layers dhow run --rm many:$n sh -c "$SEE"
        dhow rmi many:$n >/dev/null
    done
    part streams sh -c 'echo in | dhow run --rm -i busybox sh -c "cat; exit 7"'
    part missing dhow run --rm busybox /nope 2>/dev/null
    part init dhow run --rm --init busybox sh -c 'tr "\0" " " < /proc/1/cmdline | cut -c1-9'
    part terminal sh -c 'dhow run --rm -t busybox tty 2>/dev/null'
    part user dhow run --rm -u app busybox id -u
    part read-only dhow run --rm --read-only --tmpfs /t busybox sh -c 'touch /t/x && ! touch /x 2>/dev/null'
    part none dhow run --rm --network none busybox sh -c 'ip a | grep -c "^[0-9]"'
    part rootfs dhow run --rm --rootfs /:O sh -c 'echo changed > /tmp/new; cat /tmp/new'
    part outside test -e /tmp/new
    part changes dhow run --name changed busybox sh -c 'rm -r /etc/motd /home; mkdir /home; echo kept > /home/new'
    part kept dhow start -a changed
    part executable dhow run --rm busybox sh -c 'echo x 2>/dev/null > /proc/self/exe || echo refused' 2>/dev/null
    part detached dhow run -d --name web busybox \
        sh -c 'echo out; trap "exit 3" TERM; echo ready > /ready; while :; do sleep 0.1; done' >/dev/null
    until dhow exec web test -e /ready; do :; done
    part exec dhow exec web sh -c 'id -u; cat /ready'
    part stop dhow stop web
    part wait dhow wait web
    part logs dhow logs web
    part rm dhow rm web changed
    dhow run -d --name forced busybox sleep 1000 >/dev/null
    part rm-f dhow rm -f forced
    part left sh -c 'ls -A $DHOW_ROOT/containers $DHOW_ROOT/tmp | grep -v : | grep .'
    echo "== $who end"
"#;

#[track_caller]
fn works(console: &Console, who: &str) {
    let says = |part: &str, expected: &str| console.says(&format!("{who} {part}"), expected);
    says("40-layers", "39\n39\n0");
    says("130-layers", "129\n129\n0");
    says("streams", "in\n7");
    says("missing", "127");
    says("init", "dhow reap\n0");
    says("terminal", "/dev/pts/0\n0");
    says("user", "1000\n0");
    says("read-only", "0");
    says("none", "1\n0");
    says("rootfs", "changed\n0");
    says("outside", "1");
    says("changes", "0");
    says("executable", "refused\n0");
    says("exec", "0\nready\n0");
    says("stop", "web\n0");
    says("wait", "3\n0");
    says("logs", "out\n0");
    says("rm", "web\nchanged\n0");
    says("rm-f", "forced\n0");
    says("left", "1");
}

#[test]
fn everything_works_there() {
    let Some(mut guest) = Guest::new("old-kernel") else { return };
    guest.add("/smoke", SMOKE.as_bytes());
    for n in [40, 130] {
        guest.add(&format!("/many{n}.tar"), &many(n));
    }
    let console = guest.run(&format!(
        r#"
        export SEE='{SEE}'
        DHOW_ROOT=/disk/root sh /smoke root
        mkdir /disk/user; chown user /disk/user
        DHOW_ROOT=/disk/user/store su user -c 'sh /smoke user'
        echo "== shared"
        DHOW_ROOT=/disk/root; export DHOW_ROOT
        mkdir /tmp/v; mount -t tmpfs v /tmp/v; mount --make-shared /tmp/v; mkdir /tmp/v/in
        dhow load -qi /many40.tar >/dev/null
        dhow run --rm --privileged -v /tmp/v:/v:rshared many:40 sh -c 'mount -t tmpfs in /v/in; touch /v/in/x'
        ls /tmp/v/in
        echo "== end"
        "#
    ));
    works(&console, "root");
    works(&console, "user");
    console.says("shared", "x");
}
