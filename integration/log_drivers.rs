//! Where a container's log goes: `--log-driver`, `--log-opt`, and how `logs` reads what is kept.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use crate::sandbox::{NONE, Sandbox};
use crate::wait;

for_each_user!(
    files_are_rotated,
    rotated_while_followed,
    several_containers,
    a_line_that_is_not_ended,
    details,
    following_goes_on_over_restarts,
    following_ends_with_its_reader,
    tail_and_follow,
    files_are_compressed,
    none_says_so,
    syslog_by_udp,
    syslog_by_tcp,
    a_syslog_that_is_not_there,
    wrong_options,
);
for_root!(journald, a_real_journald, full_disk);

fn files_are_rotated(s: &Sandbox) {
    let flags = ["--name", "c1", "--log-opt", "max-size=10k", "--log-opt", "max-file=2"];
    let id = s.detached(flags, ["seq", "1", "5000"]);
    s.dhow(["wait", "c1"]).ok();
    let dir = s.store.join("containers").join(&id);
    let size = |name: &str| std::fs::metadata(dir.join(name)).map(|m| m.len());
    assert!(size("log").unwrap() <= 10 << 10 && size("log.1").unwrap() <= 10 << 10);
    assert!(size("log.2").is_err());
    let text = s.dhow(["logs", "c1"]).ok();
    let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers.last(), Some(&5000));
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "none is missing in between");
    assert!(numbers.len() > 100 && numbers.len() < 1000, "{}", numbers.len());
    assert_eq!(s.dhow(["logs", "-n", "200", "c1"]).ok().lines().next(), Some("4801"), "over two files");
    assert_eq!(
        s.inspect("c1", "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-file\"}}"),
        "json-file 2"
    );
}

fn files_are_compressed(s: &Sandbox) {
    let compress = ["--log-opt", "max-size=20k", "--log-opt", "max-file=50", "--log-opt", "compress=true"];
    let script = "seq 1 5000; read go </go; seq 5001 10000";
    let fifo = s.work.join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    let mount = format!("{}:/go", fifo.display());
    let id = s.detached([&compress[..], &["--name", "c1", "-v", &mount]].concat(), ["sh", "-c", script]);
    let follow = std::thread::scope(|scope| {
        // From the first line on, over files that are plain, compressed, or become so meanwhile.
        let follow = scope.spawn(|| s.dhow(["logs", "-f", "c1"]).ok());
        std::fs::write(&fifo, "go\n").unwrap();
        follow.join().unwrap()
    });
    let all: Vec<String> = (1..=10_000).map(|n| n.to_string()).collect();
    assert!(follow.lines().eq(all.iter()), "{} lines", follow.lines().count());
    s.dhow(["wait", "c1"]).ok();
    let dir = s.store.join("containers").join(&id);
    let names: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("log"))
        .collect();
    let (packed, plain): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| name.ends_with(".gz"));
    assert!(packed.len() > 10 && plain.len() <= 2, "{names:?}");
    let unpacked = std::process::Command::new("gzip").arg("-dc").arg(dir.join(packed[0])).output().unwrap();
    assert!(unpacked.status.success() && unpacked.stdout.len() <= 20 << 10, "what others read, too");
    assert!(s.dhow(["logs", "c1"]).ok().lines().eq(all.iter()));
    assert_eq!(s.dhow(["logs", "-n", "9000", "c1"]).ok().lines().next(), Some("1001"));
    s.sh(["--log-opt", "compress=true", "--log-opt", "max-file=1"], "true")
        .output()
        .exits(125)
        .complains("compress");
}

fn rotated_while_followed(s: &Sandbox) {
    let flags = ["--name", "c1", "--log-opt", "max-size=20k", "--log-opt", "max-file=50"];
    // Few enough that no file is gone before it is read, however slow the reader is.
    s.detached(flags, ["seq", "1", "10000"]);
    let followed = s.dhow(["logs", "-f", "c1"]).ok();
    let all: Vec<String> = (1..=10_000).map(|n| n.to_string()).collect();
    assert!(followed.lines().eq(all.iter()), "{} lines", followed.lines().count());
}

fn several_containers(s: &Sandbox) {
    let one = s.detached(["--name", "one"], ["sh", "-c", "echo a; echo b >&2"]);
    let two = s.detached(["--name", "two"], ["echo", "c"]);
    s.dhow(["wait", "one", "two"]).ok();
    let out = s.dhow(["logs", "one", "two"]).output().exits(0);
    assert_eq!(out.text(), format!("{} a\n{} c", &one[..12], &two[..12]));
    assert_eq!(out.error_text(), format!("{} b\n", &one[..12]), "each stream to its own");
    assert_eq!(s.dhow(["logs", "--names", "two", "one"]).output().text(), "two c\none a");
    let mut follow = s.dhow(["logs", "-f", "--names", "one", "two"]).spawn_with(|_| ());
    assert_eq!(follow.code(), 0, "all have ended");
    s.dhow(["logs", "one", "nobody"]).output().complains("nobody").expect("an error", |o| o.code == 1);
}

fn a_line_that_is_not_ended(s: &Sandbox) {
    s.detached(["--name", "one"], ["printf", "a"]);
    s.detached(["--name", "two"], ["printf", "b"]);
    s.dhow(["wait", "one", "two"]).ok();
    let out = s.dhow(["logs", "--names", "one", "two"]).output().exits(0);
    assert_eq!(out.stdout, b"one a\ntwo b", "the next one's begins a line of its own");
    assert_eq!(s.dhow(["logs", "one"]).output().stdout, b"a", "of one alone, it is what was written");
}

fn details(s: &Sandbox) {
    let flags = [
        "--name",
        "c1",
        "--label",
        "tier=a b",
        "--label",
        "x=1",
        "-e",
        "A=2",
        "--log-opt",
        "labels=tier,none",
        "--log-opt",
        "env=A",
    ];
    s.detached(flags, ["echo", "text"]);
    s.dhow(["wait", "c1"]).ok();
    assert_eq!(s.dhow(["logs", "--details", "c1"]).ok(), "A=2,tier=a+b text");
    let text = s.dhow(["logs", "--details", "-t", "c1"]).ok();
    assert!(text.ends_with("Z A=2,tier=a+b text"), "{text}");
}

fn following_goes_on_over_restarts(s: &Sandbox) {
    s.detached(["--name", "c1", "--restart", "on-failure:2"], ["sh", "-c", "echo run; exit 1"]);
    assert_eq!(s.dhow(["logs", "-f", "c1"]).ok(), "run\nrun\nrun");
}

fn following_ends_with_its_reader(s: &Sandbox) {
    s.detached(["--name", "c1"], ["sh", "-c", "echo one; echo two; sleep 1000"]);
    let program = crate::sandbox::dhow().display();
    let script = format!("{program} --root {} logs -f c1 | head -n 1", s.store.display());
    assert_eq!(s.program("/bin/sh").args(["-c", &script]).ok(), "one");
}

fn tail_and_follow(s: &Sandbox) {
    s.detached(
        ["--name", "c1"],
        ["sh", "-c", "seq 1 5; touch /ready; until [ -e /go ]; do sleep 0.05; done; echo end"],
    );
    wait::until("five lines", || s.dhow(["logs", "c1"]).ok().ends_with('5').then_some(()));
    let mut follow = s.dhow(["logs", "-f", "-n", "2", "c1"]).spawn_with(|c| {
        c.stdout(Stdio::piped());
    });
    let mut lines = BufReader::new(follow.child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!([lines.next().unwrap(), lines.next().unwrap()], ["4", "5"]);
    s.let_go("c1", "/go");
    assert_eq!(lines.collect::<Vec<_>>(), ["end"]);
    assert_eq!(follow.code(), 0);
}

fn none_says_so(s: &Sandbox) {
    s.detached(["--name", "c1", "--log-driver", "none"], ["echo", "x"]);
    s.dhow(["wait", "c1"]).ok();
    let out = s.dhow(["logs", "c1"]).output();
    out.complains("configured logging driver does not support reading").expect("an error", |o| o.code == 1);
    assert_eq!(s.inspect("c1", "{{.HostConfig.LogConfig.Type}}|{{.LogPath}}"), "none|");
    s.detached(["--name", "c2", "--log-driver", "local"], ["echo", "x"]);
    s.dhow(["wait", "c2"]).ok();
    assert_eq!(s.dhow(["logs", "c2"]).ok(), "x");
}

fn syslog_by_udp(s: &Sandbox) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(wait::SOON)).unwrap();
    let address = format!("syslog-address=udp://{}", server.local_addr().unwrap());
    let flags = ["--log-driver", "syslog", "--log-opt", &address, "--log-opt", "syslog-format=rfc5424"];
    let id = s.detached(flags, ["sh", "-c", "echo out; echo err >&2"]);
    let mut buffer = [0; 1000];
    let mut messages: Vec<String> = (0..2)
        .map(|_| {
            let n = server.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        })
        .collect();
    messages.sort();
    assert!(messages[0].starts_with("<27>1 ") && messages[0].ends_with(" - err"), "{messages:?}");
    assert!(messages[1].starts_with("<30>1 ") && messages[1].ends_with(" - out"), "{messages:?}");
    assert!(messages[0].contains(&id[..12]), "{messages:?}");
    s.dhow(["wait", &id]).ok();
    assert_eq!(s.dhow(["logs", &id]).ok(), "out", "a copy is kept");
}

fn syslog_by_tcp(s: &Sandbox) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("syslog-address=tcp://{}", server.local_addr().unwrap());
    let flags = [
        "--name",
        "c1",
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "tag={{.Name}}",
        "--log-opt",
        "cache-disabled=true",
    ];
    // More than sockets hold, for a server that reads nothing yet: the container ends all the same.
    s.detached(flags, ["sh", "-c", "seq 1 100000; head -c 20000000 /dev/zero; echo; echo end"]);
    let (mut stream, _) = server.accept().unwrap();
    s.dhow(["wait", "c1"]).ok();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    assert!(lines.all(|line| line.starts_with("<30>")
        || line.starts_with("<27>")
        || line.is_empty()
        || !line.contains(" c1[")));
    for (n, line) in text.lines().take(1000).enumerate() {
        assert!(line.ends_with(&format!("]: {}", n + 1)) && line.contains(" c1["), "{line}");
    }
    s.dhow(["logs", "c1"]).output().complains("does not support reading").expect("an error", |o| o.code == 1);
}

fn a_syslog_that_is_not_there(s: &Sandbox) {
    // A port that the kernel gives to nobody who asks for any.
    let address = "syslog-address=tcp://127.0.0.1:1";
    let out =
        s.dhow(["run", "--rm", "--log-driver", "syslog", "--log-opt", address, "busybox", "true"]).output();
    out.complains("cannot log to syslog").expect("an error", |o| o.code == 125);
    s.assert_nothing_left();
}

fn wrong_options(s: &Sandbox) {
    for (flags, about) in [
        (["--log-opt", "nosuch=1"], "unknown log opt 'nosuch'"),
        (["--log-opt", "max-size"], "max-size"),
        (["--log-opt", "max-size=huge"], "max-size"),
        (["--log-opt", "max-file=0"], "max-file"),
        (["--log-driver", "fluentd"], "fluentd"),
    ] {
        let out = s.dhow(["run", "-d"]).args(flags).args(["busybox", "true"]).output();
        out.complains(about).expect("an error", |o| o.code == 125);
        s.dhow(["create"]).args(flags).args(["busybox", "true"]).output().expect("an error", |o| o.code != 0);
    }
    assert_eq!(s.dhow(["ps", "-aq"]).args(NONE).ok(), "", "nothing was made");
}

fn journald(s: &Sandbox) {
    // A journal of our own at the one place where programs look for it, for this command alone.
    let run = s.subdir("run");
    let journal = s.subdir("run/systemd/journal").join("socket");
    let server = UnixDatagram::bind(&journal).unwrap();
    std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o666)).unwrap();
    server.set_read_timeout(Some(wait::SOON)).unwrap();
    let script = format!("mount --bind {} /run && exec \"$@\"", run.display());
    let flags =
        ["--rm", "--name", "c1", "--label", "tier=a", "--log-opt", "labels=tier", "--log-driver", "journald"];
    let command = |flags: &[&str]| s.dhow(["run"]).args(flags).args(["busybox", "echo", "text"]);
    let out = command(&flags).under(&["unshare", "-m", "sh", "-c", &script, "sh"]).ok();
    assert_eq!(out, "text");
    let mut buffer = [0; 4000];
    let n = server.recv(&mut buffer).unwrap();
    let message = String::from_utf8_lossy(&buffer[..n]).into_owned();
    for field in [
        "CONTAINER_NAME=c1\n",
        "TIER=a\n",
        "PRIORITY=6\n",
        "MESSAGE=text\n",
        "IMAGE_NAME=busybox\n",
        "CONTAINER_ID=",
    ] {
        assert!(message.contains(field), "{message}");
    }
    if !std::path::Path::new("/run/systemd/journal/socket").exists() {
        command(&flags).output().complains("no systemd journal").expect("an error", |o| o.code == 125);
        s.assert_nothing_left();
    }
}

fn a_real_journald(s: &Sandbox) {
    const JOURNALD: &str = "/lib/systemd/systemd-journald";
    if !std::path::Path::new(JOURNALD).exists() || !std::path::Path::new("/etc/machine-id").exists() {
        return crate::capability::skip("journald", &format!("there is no {JOURNALD}, or no machine id"));
    }
    // systemd's own, that reads nothing but what is sent to it, in a mount name space of its own.
    let script = format!(
        "set -e; mount -t tmpfs tmpfs /run; mkdir -p /run/log/journal /run/systemd/journald.conf.d
         printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nForwardToSyslog=no\\nForwardToWall=no\\n' \
             > /run/systemd/journald.conf.d/test.conf
         {JOURNALD} 2>/dev/null & journald=$!
         until [ -S /run/systemd/journal/io.systemd.journal ]; do :; done
         {} --root {} run --name c1 --log-driver journald --log-opt tag={{{{.Name}}}}-x busybox sh -c \
             'echo out; echo err >&2; printf \"\\\\377\\\\n\"; printf part' >/dev/null 2>&1
         journalctl --sync
         journalctl -D /run/log/journal -o json CONTAINER_NAME=c1
         kill $journald",
        crate::sandbox::dhow().display(),
        s.store.display()
    );
    let text = s.program("unshare").args(["-m", "sh", "-c", &script]).ok();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let seen =
        |n: usize| (&lines[n]["MESSAGE"], &lines[n]["PRIORITY"], &lines[n]["CONTAINER_PARTIAL_MESSAGE"]);
    let none = serde_json::Value::Null;
    let mut texts: Vec<String> =
        lines.iter().map(|l| format!("{} {}", l["MESSAGE"], l["PRIORITY"])).collect();
    texts.sort();
    assert_eq!(texts, ["\"err\" \"3\"", "\"out\" \"6\"", "\"part\" \"6\"", "[255] \"6\""], "{text}");
    assert!(lines.iter().all(|l| l["SYSLOG_IDENTIFIER"] == "c1-x" && l["IMAGE_NAME"] == "busybox"), "{text}");
    let partial = (0..4).filter(|n| *seen(*n).2 != none).collect::<Vec<_>>();
    assert!(partial.len() == 1 && seen(partial[0]).0 == "part", "only the line that was not ended: {text}");
}

fn full_disk(s: &Sandbox) {
    let dhow = crate::sandbox::dhow().display();
    let tar = crate::images::busybox().display();
    // A disk of its own, in a mount name space of its own. What the container says apart from its log goes to another.
    let script = format!(
        "set -e; mkdir -p at said; mount -t tmpfs -o size=30M tmpfs at
         d='{dhow} --root at/store'
         $d import {tar} small >/dev/null
         $d run -d --name c1 -v $PWD/said:/said small sh -c '
             trap a=1 USR1; trap b=1 USR2; echo begin; until [ $a ]; do sleep 0.05; done
             seq 1 100000; : > /said/done; until [ $b ]; do sleep 0.05; done; echo end; exit 7' >/dev/null
         until $d logs c1 | grep -q begin; do :; done
         head -c 40000000 /dev/zero > at/fill 2>/dev/null || true
         $d kill -s USR1 c1 >/dev/null
         until [ -e said/done ]; do :; done
         rm at/fill
         $d kill -s USR2 c1 >/dev/null
         $d wait c1
         $d logs c1 2>&1
         $d rm c1 >/dev/null; umount at"
    );
    let text = s.program("unshare").args(["-m", "sh", "-c", &script]).output().exits(0).text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["7", "begin"]);
    assert_eq!(lines.last(), Some(&"end"), "the container went on, and so did its log");
    let lost =
        lines.iter().filter(|line| line.starts_with("[dhow: output is missing here: cannot write")).count();
    assert_eq!(lost, 1, "the loss is told, once, where it is");
    let is_number = |line: &&&str| line.parse::<u32>().is_ok();
    assert!(lines[1..].iter().filter(is_number).count() < 100_000, "nothing was lost: the disk was not full");
}
