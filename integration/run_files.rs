//! `dhow run`: the files around a container (cidfile, pidfile, name, labels) and those dhow puts inside.

use std::collections::BTreeSet;

use crate::sandbox::{NONE, Sandbox};
use crate::{leftovers, wait};

for_each_user!(
    hosts_hostname_and_resolv_conf,
    etc_files_can_be_written_inside,
    network_none,
    network_host,
    networks_by_name,
    cidfile,
    pidfile,
    names,
    labels,
    detached_prints_the_id,
    rm_leaves_nothing,
    pull_never,
);

fn hosts_hostname_and_resolv_conf(s: &Sandbox) {
    let flags = ["--hostname", "afloat", "--network", "none", "--add-host", "other:10.1.2.3"];
    let hosts = s.sh(flags, "cat /etc/hosts").ok();
    assert!(hosts.lines().any(|l| l.split_whitespace().eq(["127.0.0.1", "localhost"])), "{hosts}");
    assert!(hosts.lines().any(|l| l.split_whitespace().eq(["10.1.2.3", "other"])), "{hosts}");
    assert!(hosts.contains("::1"), "{hosts}");
    assert_eq!(s.sh(flags, "cat /etc/hostname; hostname").ok(), "afloat\nafloat");
    let dns = ["--dns", "192.0.2.1", "--dns-search", "example.org"];
    let resolv = s.sh(dns, "cat /etc/resolv.conf").ok();
    assert!(resolv.contains("nameserver 192.0.2.1") && resolv.contains("search example.org"), "{resolv}");
    // With the host's network, the host's resolver and the host's own names.
    let outside = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let inside = s.sh(["--network", "host"], "cat /etc/resolv.conf").ok();
    for server in outside.lines().filter(|l| l.starts_with("nameserver")) {
        assert!(inside.contains(server), "{server} is missing in {inside}");
    }
}

fn etc_files_can_be_written_inside(s: &Sandbox) {
    let script = "echo 192.0.2.9 mine >> /etc/hosts && tail -n 1 /etc/hosts && echo x > /etc/resolv.conf";
    assert_eq!(s.sh(NONE, script).ok(), "192.0.2.9 mine");
    assert!(!s.sh(NONE, "cat /etc/hosts").ok().contains("mine"), "each container has its own");
}

fn network_none(s: &Sandbox) {
    let seen = s.probe(["--network", "none"]);
    assert_eq!(seen["interfaces"], serde_json::json!(["lo"]));
    let up = s.sh(["--network=none"], "ip addr show lo").ok();
    assert!(up.contains("127.0.0.1") && up.contains("UP"), "{up}");
    s.probe(["--net", "none"]);
}

fn network_host(s: &Sandbox) {
    let outside = || -> BTreeSet<String> {
        let names = leftovers::names(std::path::Path::new("/sys/class/net"));
        names.iter().map(|n| n.to_string_lossy().into()).collect()
    };
    let before = outside();
    // The host's interfaces, asked in a way that needs no /sys of that network name space.
    let script = "ip -o link | cut -d: -f2 | sed 's/@.*//; s/ //g' | sort";
    let inside = s.sh(["--network", "host"], script).ok();
    // Those of other tests come and go.
    for name in before.intersection(&outside()).filter(|n| *n != "bonding_masters") {
        assert!(inside.lines().any(|l| l == name), "{name} is missing in {inside}");
    }
}

fn networks_by_name(s: &Sandbox) {
    let address = s.sh(["--network", "bridge"], "busybox ip -4 -o addr show eth0").ok();
    assert!(address.contains(" inet 10."), "{address}");
    s.sh(["--network", "no-such-net"], "true").output().exits(125).complains("no-such-net");
}

fn cidfile(s: &Sandbox) {
    let id = s.detached(["--cidfile", "cid"], ["sleep", "1000"]);
    assert_eq!(std::fs::read_to_string(s.work.join("cid")).unwrap(), id);
    s.sh(["--cidfile", "cid"], "true").output().exits(125).complains("cid");
    assert_eq!(s.dhow(["ps", "-aq"]).ok().lines().count(), 1, "refused before anything was made");
}

fn pidfile(s: &Sandbox) {
    let id = s.detached(["--pidfile", "pid"], ["sleep", "1000"]);
    let text = std::fs::read_to_string(s.work.join("pid")).unwrap();
    assert_eq!(text.trim(), s.inspect(&id, "{{.State.Pid}}"));
    let command = std::fs::read(format!("/proc/{}/cmdline", text.trim())).unwrap();
    assert_eq!(command, b"sleep\x001000\0");
    // One that is gone before the command looks had a pid as well.
    for n in 0..10 {
        let name = format!("pid{n}");
        s.dhow(["run", "--rm", "--pidfile", &name, "busybox", "true"]).ok();
        let text = std::fs::read_to_string(s.work.join(name)).unwrap();
        assert!(text.parse::<i32>().is_ok_and(|pid| pid > 0), "{text:?}");
    }
}

fn names(s: &Sandbox) {
    s.detached(["--name", "web"], ["sleep", "1000"]);
    let said = s.dhow(["run", "-d", "--name", "web", "busybox", "true"]).output().exits(125).error_text();
    assert!(said.contains("web") && said.contains("in use"), "{said}");
    assert_eq!(s.inspect("web", "{{.Name}}"), "/web");
    for bad in ["", "-x", "a b", "a/b", "../x", ".x", "ä", "x:y"] {
        s.dhow(["run", "--rm", "--name", bad, "busybox", "true"]).output().exits(125);
    }
    s.dhow(["rm", "-f", "web"]).ok();
    s.sh(["--name", "web"], "true").ok();
    s.sh(["--name", "web"], "true").ok();
    // Without --name one is made up; it works like any other.
    let id = s.detached(NONE, ["sleep", "1000"]);
    let name = s.inspect(&id, "{{.Name}}");
    assert_eq!(s.inspect(name.trim_start_matches('/'), "{{.Id}}"), id);
}

fn labels(s: &Sandbox) {
    s.detached(["--name", "c1", "--label", "a=b=c", "-l", "bare"], ["true"]);
    let labels = s.inspect("c1", "{{json .Config.Labels}}");
    let labels: serde_json::Value = serde_json::from_str(&labels).unwrap();
    assert_eq!(labels, serde_json::json!({ "a": "b=c", "bare": "" }));
}

fn detached_prints_the_id(s: &Sandbox) {
    let out = s.dhow(["run", "-d", "busybox", "sleep", "1000"]).output().exits(0);
    assert!(out.stderr.is_empty(), "{}", out.report());
    let id = s.note(out.text(), &out);
    assert!(s.dhow(["ps", "-q"]).ok().contains(&id[..12]));
    // What cannot start is an error of the command, not only of the log.
    s.dhow(["run", "-d", "--rm", "busybox", "no-such-program"]).output().exits(127);
}

fn rm_leaves_nothing(s: &Sandbox) {
    s.sh(["--cidfile", "cid"], "touch /x; mkdir /tmp/y").ok();
    let id = std::fs::read_to_string(s.work.join("cid")).unwrap();
    s.sh(NONE, "exit 1").fails(1);
    s.dhow(["run", "--rm", "busybox", "no-such-program"]).fails(127);
    s.assert_nothing_left();
    s.dhow(["inspect", &id]).output().exits(1);
    s.dhow(["run", "-d", "--rm", "busybox", "true"]).ok();
    wait::until("the container to go by itself", || s.dhow(["ps", "-aq"]).ok().is_empty().then_some(()));
    s.assert_nothing_left();
}

fn pull_never(s: &Sandbox) {
    s.dhow(["run", "--rm", "--pull", "never", "busybox", "true"]).ok();
    s.dhow(["run", "--rm", "--pull", "missing", "busybox", "true"]).ok();
    s.dhow(["run", "--rm", "--pull", "never", "no-such-image", "true"])
        .output()
        .exits(125)
        .complains("no-such-image");
    s.dhow(["run", "--rm", "--pull", "maybe", "busybox", "true"]).output().exits(125).complains("maybe");
}
