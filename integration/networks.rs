//! The verbs for networks, as far as they are about what is noted of them.

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, dhow};

for_each_user!(
    networks_come_and_go,
    listings,
    inspected,
    made_as_asked,
    refused,
    pruned,
    in_use,
    connected_before_it_runs,
    told_of,
    completed,
);

fn names(s: &Sandbox, filters: &[&str]) -> String {
    let flags = filters.iter().flat_map(|f| ["-f", f]);
    s.dhow(["network", "ls", "--format", "{{.Name}}"]).args(flags).ok().replace('\n', " ")
}

fn one(s: &Sandbox, name: &str) -> Value {
    let shown = s.dhow(["network", "inspect", name]).ok();
    serde_json::from_str::<Vec<Value>>(&shown).unwrap().remove(0)
}

fn networks_come_and_go(s: &Sandbox) {
    let id = s.dhow(["network", "create", "front"]).ok();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    s.dhow(["network", "exists", "front"]).ok();
    s.dhow(["network", "exists", &id[..12]]).ok();
    s.dhow(["network", "exists", "back"])
        .output()
        .exits(1)
        .expect("nothing is said", |o| o.stderr.is_empty());
    for builtin in ["bridge", "host", "none"] {
        s.dhow(["network", "exists", builtin]).ok();
        s.dhow(["network", "rm", builtin]).output().exits(1).complains("pre-defined network");
    }
    s.dhow(["network", "create", "front"]).output().exits(1).complains("there is one of that name");
    assert_eq!(s.dhow(["network", "create", "--ignore", "front"]).ok(), id);
    assert_eq!(s.dhow(["network", "rm", "front"]).ok(), "front");
    s.dhow(["network", "rm", "front"]).output().exits(1).complains("no such network: front");
    s.dhow(["network", "rm", "-f", "front"]).ok();
    let id = s.dhow(["network", "create", "--label", "a=b", "front"]).ok();
    s.dhow(["network", "rm", &id[..12]]).ok();
    assert_eq!(names(s, &["type=custom"]), "");
}

fn listings(s: &Sandbox) {
    for (name, flags) in [("n10", &[][..]), ("n2", &["--label", "tier=back"]), ("n1", &["--internal"])] {
        s.dhow(["network", "create"]).args(flags).arg(name).ok();
    }
    assert_eq!(names(s, &[]), "bridge host n1 n2 n10 none", "as docker sorts them");
    assert_eq!(names(s, &["type=builtin"]), "bridge host none");
    assert_eq!(names(s, &["type=custom"]), "n1 n2 n10");
    assert_eq!(names(s, &["driver=null"]), "none");
    assert_eq!(names(s, &["name=n1"]), "n1 n10");
    assert_eq!(names(s, &["label=tier=back"]), "n2");
    assert_eq!(names(s, &["dangling=true"]), "n1 n2 n10");
    s.dhow(["create", "--name", "zz", "--network", "n2", "busybox"]).ok();
    assert_eq!(names(s, &["dangling=true"]), "n1 n10");
    s.dhow(["network", "ls", "-f", "x=y"]).output().exits(1).complains("invalid filter 'x'");
    s.dhow(["network", "ls", "-f", "type=x"]).output().exits(1).complains("invalid filter 'type=x'");
    let table = s.dhow(["network", "ls"]).ok();
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    let row: Vec<&str> = table.lines().find(|l| l.contains("n10")).unwrap().split_whitespace().collect();
    assert_eq!(row[1..], ["n10", "bridge", "local"]);
    let json = s.dhow(["network", "ls", "--format", "json", "-f", "name=n1$"]).ok();
    let row: Value = serde_json::from_str(&json).unwrap();
    for (key, want) in [("Internal", "true"), ("IPv4", "true"), ("IPv6", "false"), ("Scope", "local")] {
        assert_eq!(row[key], want, "{json}");
    }
    assert_eq!(s.dhow(["network", "ls", "-q", "--no-trunc"]).ok().lines().count(), 6);
}

fn inspected(s: &Sandbox) {
    s.dhow(["network", "create", "--subnet", "10.97.3.0/24", "--label", "a=b", "-o", "mtu=1400", "front"])
        .ok();
    let shown = one(s, "front");
    assert_eq!(shown["Name"], "front");
    assert_eq!(shown["Driver"], "bridge");
    assert_eq!(shown["IPAM"]["Config"], json!([{ "Subnet": "10.97.3.0/24", "Gateway": "10.97.3.1" }]));
    assert_eq!(shown["Labels"], json!({ "a": "b" }));
    assert_eq!(shown["Options"], json!({ "mtu": "1400" }));
    assert_eq!(shown["Containers"], json!({}));
    assert_eq!(one(s, "host")["Driver"], "host");
    assert_eq!(one(s, "none")["Driver"], "null");
    assert_eq!(one(s, "bridge")["Options"]["com.docker.network.bridge.default_bridge"], "true");
    let format = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
    assert_eq!(s.dhow(["network", "inspect", "-f", format, "front"]).ok(), "10.97.3.0/24");
    assert_eq!(s.dhow(["inspect", "--type", "network", "-f", "{{.Name}}", "front"]).ok(), "front");
    s.dhow(["network", "inspect", "nosuch"]).output().exits(1).expect("an empty list", |o| o.text() == "[]");
}

fn made_as_asked(s: &Sandbox) {
    s.dhow([
        "network",
        "create",
        "--subnet",
        "10.97.4.0/24",
        "--gateway",
        "10.97.4.9",
        "--ip-range",
        "10.97.4.128/25",
    ])
    .args(["--aux-address", "h=10.97.4.200", "--subnet", "fd00:97::/64", "--ipv6", "front"])
    .ok();
    let shown = one(s, "front");
    let want = json!([
        {
            "Subnet": "10.97.4.0/24", "IPRange": "10.97.4.128/25", "Gateway": "10.97.4.9",
            "AuxiliaryAddresses": { "h": "10.97.4.200" },
        },
        { "Subnet": "fd00:97::/64", "Gateway": "fd00:97::1" },
    ]);
    assert_eq!(shown["IPAM"]["Config"], want);
    assert_eq!(shown["EnableIPv6"], true);
    // Without a word of it, one that overlaps nothing.
    s.dhow(["network", "create", "--ipv6", "other"]).ok();
    let config = one(s, "other")["IPAM"]["Config"].clone();
    assert_eq!(config.as_array().unwrap().len(), 2, "{config}");
}

fn refused(s: &Sandbox) {
    let check = |flags: &[&str], why: &str| {
        s.dhow(["network", "create"]).args(flags).output().exits(1).complains(why);
    };
    s.dhow(["network", "create", "--subnet", "10.97.5.0/24", "there"]).ok();
    check(&["--subnet", "x", "front"], "invalid subnet x");
    check(
        &["--subnet", "10.97.6.0/24", "--gateway", "10.98.0.1", "front"],
        "no matching subnet for gateway 10.98.0.1",
    );
    check(
        &["--subnet", "10.97.6.0/24", "--ip-range", "10.98.0.0/25", "front"],
        "no matching subnet for range",
    );
    check(&["--gateway", "10.97.6.1", "front"], "every ip-range or gateway must have a corresponding subnet");
    check(
        &["--subnet", "10.97.6.0/24", "--subnet", "10.97.7.0/24", "front"],
        "doesn't support multiple subnets",
    );
    check(&["--subnet", "10.97.6.0/24", "--subnet", "10.97.6.0/25", "front"], "multiple overlapping subnet");
    check(&["--subnet", "10.97.0.0/16", "front"], "overlaps 10.97.5.0/24 of network there");
    check(&["--subnet", "10.97.6.0/32", "front"], "has no room");
    check(&["--driver", "nosuch", "front"], "plugin \"nosuch\" not found");
    check(&["--driver", "host", "front"], "only one instance of \"host\" network is allowed");
    check(&["-o", "nosuch=1", "front"], "there is no option \"nosuch\"");
    check(&["-o", "mtu=1", "front"], "the option mtu cannot be \"1\"");
    for name in ["host", "none", "bridge", "default"] {
        check(&[name], &format!("operation is not permitted on predefined {name} network"));
    }
    for name in ["a b", "container:x", ".a", "../x", "a/b", ""] {
        check(&[name], "cannot");
    }
    assert_eq!(names(s, &["type=custom"]), "there");
    s.sh(["--network", "nosuch"], "true").output().exits(125).complains("no such network: nosuch");
}

fn pruned(s: &Sandbox) {
    for name in ["used", "kept", "gone"] {
        let label = format!("is={name}");
        s.dhow(["network", "create", "--label", &label, name]).ok();
    }
    s.dhow(["create", "--name", "zz", "--network", "used", "busybox"]).ok();
    let said = s.dhow(["network", "prune", "-f", "--filter", "label!=is=kept"]).ok();
    assert_eq!(said, "Deleted Networks:\ngone\n");
    assert_eq!(names(s, &["type=custom"]), "kept used");
    s.dhow(["network", "prune", "--filter", "x=y", "-f"]).output().exits(1).complains("invalid filter 'x'");
    s.dhow(["network", "prune"]).stdin("n\n").ok();
    let said = s.dhow(["system", "prune", "-f", "--filter", "label=is=none"]).ok();
    assert!(!said.contains("Deleted Networks"), "{said}");
    s.dhow(["network", "create", "--label", "is=gone", "gone"]).ok();
    let said = s.dhow(["system", "prune", "-f", "--filter", "label=is=gone"]).ok();
    assert!(said.contains("Deleted Networks:\ngone\n"), "{said}");
    assert_eq!(names(s, &["type=custom"]), "kept used");
}

fn in_use(s: &Sandbox) {
    s.dhow(["network", "create", "front"]).ok();
    s.dhow(["create", "--name", "zz", "--network", "front", "busybox"]).ok();
    s.dhow(["network", "rm", "front"])
        .output()
        .exits(1)
        .complains("in use by container zz")
        .complains("dhow rm -f zz");
    assert_eq!(
        s.dhow(["ps", "-a", "--filter", "network=front", "--format", "{{.Names}} {{.Networks}}"]).ok(),
        "zz front"
    );
    s.dhow(["rm", "zz"]).ok();
    s.dhow(["network", "rm", "front"]).ok();
}

fn connected_before_it_runs(s: &Sandbox) {
    for name in ["front", "back"] {
        s.dhow(["network", "create", name]).ok();
    }
    s.dhow(["create", "--name", "zz", "--network", "front:alias=web", "busybox"]).ok();
    s.dhow(["create", "--name", "hh", "--network", "host", "busybox"]).ok();
    s.dhow(["network", "connect", "--alias", "db", "back", "zz"]).ok();
    let shown = |path: &str| s.dhow(["inspect", "zz", "-f", path]).ok();
    assert_eq!(shown("{{json .NetworkSettings.Networks.front.Aliases}}"), "[\"web\"]");
    assert_eq!(shown("{{json .NetworkSettings.Networks.back.Aliases}}"), "[\"db\"]");
    assert_eq!(shown("{{.HostConfig.NetworkMode}}"), "front");
    s.dhow(["network", "connect", "back", "zz"])
        .output()
        .exits(1)
        .complains("already exists in network back");
    s.dhow(["network", "connect", "host", "zz"]).output().exits(1).complains("connected to host network");
    s.dhow(["network", "connect", "back", "hh"]).output().exits(1).complains("connected to host network");
    s.dhow(["network", "connect", "nosuch", "zz"]).output().exits(1).complains("no such network: nosuch");
    s.dhow(["network", "connect", "back", "nosuch"]).output().exits(1).complains("no such container: nosuch");
    s.dhow(["network", "connect", "--ip", "x", "back", "zz"])
        .output()
        .exits(1)
        .complains("invalid IPv4 address: x");
    s.dhow(["network", "disconnect", "front", "zz"]).ok();
    s.dhow(["network", "disconnect", "front", "zz"])
        .output()
        .exits(1)
        .complains("is not connected to network front");
    assert_eq!(s.dhow(["ps", "-a", "--filter", "name=zz", "--format", "{{.Networks}}"]).ok(), "back");
}

fn told_of(s: &Sandbox) {
    let id = s.dhow(["network", "create", "front"]).ok();
    let container = s.dhow(["create", "--name", "zz", "--network", "none", "busybox"]).ok();
    s.dhow(["network", "connect", "front", "zz"]).output().exits(1).complains("private (none) mode");
    s.dhow(["create", "--name", "yy", "--network", "bridge", "busybox"]).ok();
    s.dhow(["network", "connect", "front", "yy"]).ok();
    s.dhow(["network", "disconnect", "front", "yy"]).ok();
    s.dhow(["network", "rm", "front"]).ok();
    let flags = ["--since", "1h", "--until", "0s", "--filter", "type=network"];
    let told = s.dhow(["events", "--format", "{{.Action}} {{.Actor.ID}}"]).args(flags).ok();
    let want: Vec<String> = ["create", "connect", "disconnect", "destroy"]
        .iter()
        .map(|action| format!("{action} {id}"))
        .collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), want, "{container}");
}

fn completed(s: &Sandbox) {
    s.dhow(["network", "create", "front"]).ok();
    for line in [&["run", "--network", "fr"][..], &["network", "rm", "fr"], &["network", "connect", "fr"]] {
        let root = s.store.to_str().unwrap();
        let told = s.program(dhow()).args(["__complete", "--root", root]).args(line).ok();
        assert!(told.lines().any(|line| line.starts_with("front")), "{line:?}: {told}");
    }
}
