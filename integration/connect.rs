//! Networks of containers that run: joined, left and mended meanwhile; what listings tell of them.
//!
//! Each test has a machine of its own: a network name space that nobody else is in. A user's containers have one anyway.

use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::command::Cmd;
use crate::sandbox::Sandbox;
use crate::wait;

for_root!(mended, published_ports_are_shown);
for_each_user!(
    joined_and_left_while_it_runs,
    the_way_out_moves,
    what_cannot_be_is_taken_back,
    traffic_is_counted,
    coming_and_going_is_told,
    several_networks,
    links_of_another_container,
);

const SLEEP: [&str; 2] = ["sleep", "10000"];

/// A network name space, with nothing but a loopback device at first.
struct Machine<'a> {
    s: &'a Sandbox,
    /// Of root's machine: who holds it, and how it is entered.
    holder: Option<(Child, String)>,
}

impl Machine<'_> {
    fn new(s: &Sandbox) -> Machine<'_> {
        if s.is_rootless() {
            return Machine { s, holder: None };
        }
        let holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "ip link set lo up; exec sleep 10000"])
            .spawn()
            .unwrap();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let path = format!("/proc/{}/ns/net", holder.id());
        wait::until("it is in a name space of its own", || {
            let is_up =
                || std::fs::read_to_string(format!("/proc/{}/comm", holder.id())).unwrap() == "sleep\n";
            (std::fs::read_link(&path).unwrap() != own && is_up()).then_some(())
        });
        Machine { s, holder: Some((holder, format!("--net={path}"))) }
    }

    fn here(&self, cmd: Cmd) -> Cmd {
        match &self.holder {
            Some((_, enter)) => cmd.under(&["nsenter", enter]),
            None => cmd,
        }
    }

    fn dhow<'b>(&self, args: impl IntoIterator<Item = &'b str>) -> Cmd {
        self.here(self.s.dhow(args))
    }

    fn program(&self, args: &[&str]) -> Cmd {
        self.here(self.s.program(args[0]).args(&args[1..]))
    }

    #[track_caller]
    fn run(&self, name: &str, flags: &[&str]) -> String {
        self.dhow(["run", "-d", "--name", name]).args(flags).arg("busybox").args(SLEEP).ok()
    }

    #[track_caller]
    fn exec(&self, name: &str, script: &str) -> String {
        self.dhow(["exec", name, "sh", "-c", script]).ok()
    }

    fn address(&self, name: &str, network: &str) -> String {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        self.dhow(["inspect", name, "-f", &format]).ok()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // The containers are in it: they go first.
        let all = self.s.dhow(["ps", "-aq"]).ok();
        let _ = self.dhow(["rm", "-f"]).args(all.lines()).output();
        if let Some((holder, _)) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

fn joined_and_left_while_it_runs(s: &Sandbox) {
    let m = Machine::new(s);
    for name in ["front", "back"] {
        m.dhow(["network", "create", name]).ok();
    }
    m.run("web", &["--network", "front"]);
    m.run("db", &["--network", "back"]);
    let db = m.address("db", "back");
    m.dhow(["exec", "web", "ping", "-c", "1", "-W", "1", &db])
        .output()
        .expect("they are apart", |o| o.code != 0);
    m.dhow(["network", "connect", "--alias", "shop", "back", "web"]).ok();
    m.exec("web", &format!("ping -c 1 -W 5 {db}"));
    assert!(m.exec("web", "ip addr show eth1").contains(&m.address("web", "back")));
    let shown: Vec<Value> = serde_json::from_str(&m.dhow(["network", "inspect", "back"]).ok()).unwrap();
    assert_eq!(shown[0]["Containers"].as_object().unwrap().len(), 2, "{shown:?}");
    assert_eq!(m.dhow(["ps", "--filter", "name=web", "--format", "{{.Networks}}"]).ok(), "front,back");
    m.dhow(["network", "rm", "back"]).output().exits(1).complains("in use by container");
    m.dhow(["network", "disconnect", "back", "web"]).ok();
    m.dhow(["exec", "web", "ip", "addr", "show", "eth1"]).output().expect("it is gone", |o| o.code != 0);
    m.dhow(["exec", "web", "ping", "-c", "1", "-W", "1", &db])
        .output()
        .expect("they are apart", |o| o.code != 0);
    // What was left can be joined again, and a name that was given back is given again.
    m.dhow(["network", "connect", "back", "web"]).ok();
    m.exec("web", &format!("ping -c 1 -W 5 {db}"));
    m.dhow(["restart", "-t", "0", "web"]).ok();
    m.exec("web", &format!("ping -c 1 -W 5 {db}"));
    m.dhow(["rm", "-f", "web", "db"]).ok();
    m.dhow(["network", "rm", "front", "back"]).ok();
    if !s.is_rootless() {
        assert_eq!(m.program(&["ip", "-br", "link"]).ok().lines().count(), 1, "nothing of it is left");
    }
}

fn the_way_out_moves(s: &Sandbox) {
    let m = Machine::new(s);
    m.dhow(["network", "create", "--subnet", "10.91.1.0/24", "front"]).ok();
    m.dhow(["network", "create", "--subnet", "10.91.2.0/24", "back"]).ok();
    m.run("web", &["--network", "front"]);
    let way = || m.exec("web", "ip route show default");
    assert!(way().contains("10.91.1.1"), "{}", way());
    m.dhow(["network", "connect", "back", "web"]).ok();
    assert!(way().contains("10.91.1.1"), "{}", way());
    m.dhow(["network", "disconnect", "front", "web"]).ok();
    assert!(way().contains("10.91.2.1"), "{}", way());
    m.dhow(["network", "disconnect", "back", "web"]).ok();
    assert_eq!(way(), "");
    assert_eq!(m.exec("web", "ls /sys/class/net"), "lo");
}

fn what_cannot_be_is_taken_back(s: &Sandbox) {
    let m = Machine::new(s);
    m.dhow(["network", "create", "--subnet", "10.91.3.0/24", "front"]).ok();
    m.dhow(["network", "create", "--subnet", "10.91.4.0/24", "back"]).ok();
    m.run("web", &["--network", "front"]);
    m.run("db", &["--network", "back", "--ip", "10.91.4.77"]);
    let refused = |ip: &str, why: &str| {
        m.dhow(["network", "connect", "--ip", ip, "back", "web"]).output().exits(1).complains(why);
        assert_eq!(m.dhow(["ps", "--filter", "name=web", "--format", "{{.Networks}}"]).ok(), "front");
        assert!(m.exec("web", "ls /sys/class/net").split_whitespace().eq(["eth0", "lo"]));
    };
    refused("10.91.4.77", "container db has it");
    refused("10.99.0.1", "its subnet is 10.91.4.0/24");
    refused("10.91.4.1", "it is the gateway's");
    m.dhow(["network", "connect", "--ip", "10.91.4.78", "--mac-address", "02:00:00:00:00:07", "back", "web"])
        .ok();
    assert_eq!(m.address("web", "back"), "10.91.4.78");
    assert!(m.exec("web", "ip link show eth1").contains("02:00:00:00:00:07"));
    m.dhow(["run", "--rm", "--network", "back", "--ip", "10.91.4.78", "busybox", "true"])
        .output()
        .exits(125)
        .complains("container web has it");
}

fn mended(s: &Sandbox) {
    let m = Machine::new(s);
    m.dhow(["network", "create", "front"]).ok();
    let id = m.run("web", &["--network", "front"]);
    m.run("db", &["--network", "front"]);
    let web = m.address("web", "front");
    let bridge = m.program(&["sh", "-c", "ip -br link show type bridge | cut -d' ' -f1"]).ok();
    m.program(&["ip", "link", "del", &bridge]).ok();
    m.dhow(["exec", "db", "ping", "-c", "1", "-W", "1", &web])
        .output()
        .expect("it is cut off", |o| o.code != 0);
    let told = m.dhow(["network", "reload", "--all"]).ok();
    assert!(told.lines().any(|line| line == id) && told.lines().count() == 2, "{told}");
    m.exec("db", &format!("ping -c 1 -W 5 {web}"));
    let gateway = m.dhow(["network", "inspect", "front", "-f", "{{(index .IPAM.Config 0).Gateway}}"]).ok();
    m.exec("db", &format!("ping -c 1 -W 5 {gateway}"));
}

fn published_ports_are_shown(s: &Sandbox) {
    let m = Machine::new(s);
    m.dhow(["network", "create", "front"]).ok();
    m.run(
        "web",
        &["--network", "front", "-p", "8080:80", "-p", "127.0.0.1:9000-9001:90-91/udp", "--expose", "443"],
    );
    let ports = m.dhow(["ps", "--format", "{{.Ports}}"]).ok();
    assert_eq!(
        ports,
        "443/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:9000->90/udp, 127.0.0.1:9001->91/udp"
    );
    let told = m.dhow(["port", "web"]).ok();
    let want = [
        "80/tcp -> 0.0.0.0:8080",
        "80/tcp -> [::]:8080",
        "90/udp -> 127.0.0.1:9000",
        "91/udp -> 127.0.0.1:9001",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), want);
    assert_eq!(m.dhow(["port", "web", "80"]).ok(), "0.0.0.0:8080\n[::]:8080");
    let shown: Value =
        serde_json::from_str(&m.dhow(["inspect", "web", "-f", "{{json .NetworkSettings.Ports}}"]).ok())
            .unwrap();
    assert_eq!(shown["443/tcp"], Value::Null);
    let all = json!([{ "HostIp": "0.0.0.0", "HostPort": "8080" }, { "HostIp": "::", "HostPort": "8080" }]);
    assert_eq!(shown["80/tcp"], all);
    let names = |filter: &str| m.dhow(["ps", "--filter", filter, "--format", "{{.Names}}"]).ok();
    assert_eq!(names("publish=8080"), "web");
    assert_eq!(names("publish=8000-8090/tcp"), "web");
    assert_eq!(names("publish=80"), "");
    assert_eq!(names("publish=8080/udp"), "");
    assert_eq!(names("expose=443"), "web");
    m.dhow(["stop", "-t", "0", "web"]).ok();
    assert_eq!(m.dhow(["ps", "-a", "--format", "{{.Ports}}"]).ok(), "");
    assert_eq!(m.dhow(["port", "web"]).ok(), "");
    let asked = m
        .dhow(["inspect", "web", "-f", "{{json .HostConfig.PortBindings}} {{json .NetworkSettings.Ports}}"])
        .ok();
    assert!(
        asked.contains("\"80/tcp\":[{\"HostIp\":\"\",\"HostPort\":\"8080\"}]") && asked.ends_with(" {}"),
        "{asked}"
    );
}

fn traffic_is_counted(s: &Sandbox) {
    let m = Machine::new(s);
    m.dhow(["network", "create", "front"]).ok();
    m.run("web", &["--network", "front"]);
    let gateway = m.dhow(["network", "inspect", "front", "-f", "{{(index .IPAM.Config 0).Gateway}}"]).ok();
    m.exec("web", &format!("ping -c 3 -i 0.1 -s 1400 -W 5 {gateway}"));
    let counted = m.dhow(["stats", "--no-stream", "--format", "{{.NetIO}}", "web"]).ok();
    let (received, sent) = counted.split_once(" / ").unwrap();
    assert!(received.ends_with("kB") && sent.ends_with("kB"), "{counted}");
}

fn coming_and_going_is_told(s: &Sandbox) {
    let m = Machine::new(s);
    let network = m.dhow(["network", "create", "front"]).ok();
    let id = m.run("web", &["--network", "front"]);
    m.dhow(["rm", "-f", "web"]).ok();
    let flags = ["--since", "1h", "--until", "0s", "--filter", "type=network"];
    let told = m
        .dhow(["events", "--format", "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.container}}"])
        .args(flags)
        .ok();
    let want = [
        format!("create {network} <no value>"),
        format!("connect {network} {id}"),
        format!("disconnect {network} {id}"),
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), want);
}

fn several_networks(s: &Sandbox) {
    let m = Machine::new(s);
    m.dhow(["network", "create", "--subnet", "10.91.5.0/24", "front"]).ok();
    m.dhow(["network", "create", "--subnet", "10.91.6.0/24", "--subnet", "fd00:91::/64", "back"]).ok();
    m.run(
        "web",
        &[
            "--network",
            "front:ip=10.91.5.50,interface_name=lan",
            "--network",
            "name=back,ip6=fd00:91::50,gw-priority=1",
        ],
    );
    assert_eq!(m.address("web", "front"), "10.91.5.50");
    let format = "{{.NetworkSettings.Networks.back.GlobalIPv6Address}}/{{.NetworkSettings.Networks.back.GlobalIPv6PrefixLen}}";
    assert_eq!(m.dhow(["inspect", "web", "-f", format]).ok(), "fd00:91::50/64");
    assert!(m.exec("web", "ip addr show lan").contains("10.91.5.50/24"));
    assert!(
        m.exec("web", "ip route show default").contains("10.91.6.1"),
        "the one with the highest priority"
    );
    let format = "{{.HostConfig.NetworkMode}} {{.NetworkSettings.Networks.back.GwPriority}}";
    assert_eq!(m.dhow(["inspect", "web", "-f", format]).ok(), "back 1");
}

fn links_of_another_container(s: &Sandbox) {
    let m = Machine::new(s);
    m.dhow(["network", "create", "front"]).ok();
    m.run("web", &["--network", "front"]);
    m.run("side", &["--network", "container:web"]);
    assert_eq!(m.exec("side", "ip -o addr show eth0"), m.exec("web", "ip -o addr show eth0"));
    m.dhow(["network", "connect", "front", "side"]).output().exits(1).complains("sharing network namespace");
    let counted = m.dhow(["stats", "--no-stream", "--format", "{{.NetIO}}", "side"]).ok();
    assert_eq!(counted, "0B / 0B", "docker's answer: it is somebody else's");
}
