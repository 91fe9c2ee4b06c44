//! `dhow inspect`: the fields that scripts rely on, under docker's names.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

for_each_user!(
    of_a_container,
    of_an_image,
    formats,
    of_several,
    times,
    all_of_dockers_keys,
    what_it_was_attached_to,
    what_was_asked_for,
    sizes,
    other_types,
    what_is_executed,
    restarts_are_counted_in_order,
);

fn inspect(s: &Sandbox, args: &[&str]) -> Value {
    serde_json::from_str(&s.dhow(["inspect"]).args(args).ok()).unwrap()
}

fn of_a_container(s: &Sandbox) {
    let dir = s.subdir("share");
    let volume = format!("{}:/share:ro", dir.display());
    let flags =
        ["--name", "c1", "-e", "A=1", "-w", "/etc", "--hostname", "h", "-v", &volume, "--label", "l=1"];
    let id = s.detached(flags, ["sleep", "1000"]);
    let all = inspect(s, &["c1"]);
    let c = &all[0];
    assert_eq!(all.as_array().unwrap().len(), 1);
    assert_eq!([&c["Id"], &c["Name"], &c["Path"]], [id.as_str(), "/c1", "sleep"]);
    assert_eq!(c["Args"], json!(["1000"]));
    assert_eq!(c["Image"].as_str().unwrap().len(), "sha256:".len() + 64);
    assert_eq!([&c["State"]["Status"], &c["Config"]["Image"]], ["running", "busybox"]);
    assert_eq!(
        [&c["State"]["Running"], &c["State"]["OOMKilled"], &c["State"]["Paused"]],
        [true, false, false]
    );
    assert!(c["State"]["Pid"].as_u64().unwrap() > 1);
    assert_eq!([&c["Config"]["WorkingDir"], &c["Config"]["Hostname"]], ["/etc", "h"]);
    assert!(c["Config"]["Env"].as_array().unwrap().contains(&json!("A=1")));
    assert_eq!(c["Config"]["Cmd"], json!(["sleep", "1000"]));
    assert_eq!(c["Config"]["Labels"], json!({ "l": "1" }));
    let mount = &c["Mounts"][0];
    assert_eq!([&mount["Type"], &mount["Destination"], &mount["Mode"]], ["bind", "/share", "ro"]);
    assert_eq!(
        [mount["RW"].as_bool(), mount["Source"].as_str().map(|p| p == dir.to_str().unwrap())],
        [Some(false), Some(true)]
    );
    for field in ["LogPath", "HostsPath", "ResolvConfPath", "HostnamePath"] {
        assert!(std::path::Path::new(c[field].as_str().unwrap()).is_absolute(), "{field}: {}", c[field]);
    }
    for field in
        ["HostConfig", "NetworkSettings", "GraphDriver", "Platform", "Driver", "Created", "RestartCount"]
    {
        assert!(!c[field].is_null(), "{field}");
    }
    assert_eq!(c["HostConfig"]["Privileged"], false);
}

fn of_an_image(s: &Sandbox) {
    let all = inspect(s, &["busybox"]);
    let i = &all[0];
    assert!(i["Id"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(i["RepoTags"], json!(["busybox:latest"]));
    assert_eq!(i["Config"]["Cmd"], json!(["sh"]));
    assert_eq!(i["Os"], "linux");
    assert_eq!(i["RootFS"]["Type"], "layers");
    assert_eq!(i["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    assert!(i["Size"].as_u64().unwrap() > 100_000);
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    assert_eq!(i["Architecture"], arch);
    assert_eq!(
        s.dhow(["image", "inspect", "busybox", "--format", "{{.Id}}"]).ok(),
        i["Id"].as_str().unwrap()
    );
    s.dhow(["image", "inspect", "no-such-image"]).output().exits(1).complains("no-such-image");
}

fn formats(s: &Sandbox) {
    s.detached(["--name", "c1"], ["sleep", "1000"]);
    assert_eq!(s.inspect("c1", "{{.State.Status}}"), "running");
    assert_eq!(s.inspect("c1", "{{json .Config.Cmd}}"), r#"["sleep","1000"]"#);
    assert_eq!(s.inspect("c1", "{{range .Args}}<{{.}}>{{end}}"), "<1000>");
    assert_eq!(s.inspect("c1", "{{if .State.Running}}yes{{else}}no{{end}}"), "yes");
    assert_eq!(s.inspect("c1", "{{len .Config.Cmd}} {{index .Config.Cmd 0}}"), "2 sleep");
    let whole: Value = serde_json::from_str(&s.inspect("c1", "json")).unwrap();
    assert_eq!(whole["Name"].as_str().or(whole[0]["Name"].as_str()), Some("/c1"));
    s.dhow(["inspect", "--format", "{{.NoSuch}}", "c1"]).output().expect("an error", |o| o.code != 0);
    s.dhow(["inspect", "--type", "image", "c1"]).output().exits(1);
}

fn of_several(s: &Sandbox) {
    s.detached(["--name", "c1"], ["true"]);
    s.detached(["--name", "c2"], ["true"]);
    let out = s.dhow(["inspect", "c1", "nobody", "c2"]).output().exits(1).complains("nobody");
    let found: Value = serde_json::from_str(&out.text()).unwrap();
    assert_eq!([&found[0]["Name"], &found[1]["Name"]], ["/c1", "/c2"]);
}

fn times(s: &Sandbox) {
    s.detached(["--name", "c1"], ["sleep", "0.2"]);
    let time =
        |field: &str| -> jiff::Timestamp { s.inspect("c1", &format!("{{{{{field}}}}}")).parse().unwrap() };
    s.dhow(["wait", "c1"]).ok();
    let (created, started, finished) =
        (time(".Created"), time(".State.StartedAt"), time(".State.FinishedAt"));
    assert!(created <= started && started < finished, "{created} {started} {finished}");
}

/// What a real docker prints for a container of which nothing was asked. (Those of memory and swap of the kernel alone, and
/// of Windows, are there too.)
const KEYS: &[(&str, &str)] = &[
    (
        "",
        "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform \
         MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config NetworkSettings",
    ),
    ("/State", "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt"),
    (
        "/HostConfig",
        "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom \
         ConsoleSize CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links \
         OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt UTSMode UsernsMode ShmSize Runtime \
         Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps \
         BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod \
         CpuRealtimeRuntime CpusetCpus CpusetMems Devices DeviceCgroupRules DeviceRequests MemoryReservation MemorySwap \
         MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth \
         MaskedPaths ReadonlyPaths",
    ),
    ("/HostConfig/LogConfig", "Type Config"),
    ("/HostConfig/RestartPolicy", "Name MaximumRetryCount"),
    ("/GraphDriver", "Data Name"),
    ("/GraphDriver/Data", "LowerDir MergedDir UpperDir WorkDir"),
    (
        "/Config",
        "Hostname Domainname User AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce Env Cmd Image Volumes \
         WorkingDir Entrypoint OnBuild Labels",
    ),
    (
        "/NetworkSettings",
        "Bridge SandboxID SandboxKey Ports HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen SecondaryIPAddresses \
         SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress IPPrefixLen \
         IPv6Gateway MacAddress Networks",
    ),
    (
        "/NetworkSettings/Networks/none",
        "IPAMConfig Links Aliases MacAddress DriverOpts NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway \
         GlobalIPv6Address GlobalIPv6PrefixLen DNSNames",
    ),
];

fn what_it_was_attached_to(s: &Sandbox) {
    let shown = |name: &str| {
        s.inspect(
            name,
            "{{with .Config}}{{.AttachStdin}} {{.AttachStdout}} {{.AttachStderr}} {{.StdinOnce}}{{end}}",
        )
    };
    let run = |name: &str, flags: &[&str]| {
        s.dhow(["run", "--name", name]).args(flags).args(["busybox", "true"]).ok();
        shown(name)
    };
    assert_eq!(run("one", &[]), "false true true false");
    assert_eq!(run("two", &["-i"]), "true true true true");
    assert_eq!(run("three", &["-d"]), "false false false false");
    assert_eq!(run("four", &["-di"]), "false false false false");
    assert_eq!(run("five", &["-a", "stderr"]), "false false true false");
    assert_eq!(run("six", &["-i", "-a", "stdout"]), "false true false false");
    let create = |name: &str, flags: &[&str]| {
        s.dhow(["create", "--name", name]).args(flags).args(["busybox", "true"]).ok();
        shown(name)
    };
    assert_eq!(create("seven", &[]), "false true true false");
    assert_eq!(create("eight", &["-i"]), "true true true true");
    assert_eq!(create("nine", &["-i", "-a", "stdin"]), "true false false true");
    assert_eq!(s.inspect("four", "{{.Config.OpenStdin}}"), "true");
    s.dhow(["create", "-a", "nosuch", "busybox", "true"]).output().exits(125).complains("nosuch");
}

fn all_of_dockers_keys(s: &Sandbox) {
    s.dhow(["create", "--name", "c1", "--network", "none", "busybox", "true"]).ok();
    let all = inspect(s, &["c1"]);
    for (place, keys) in KEYS {
        let object = all[0].pointer(place).unwrap_or_else(|| panic!("{place}"));
        for key in keys.split_whitespace() {
            assert!(object.get(key).is_some(), "{place}/{key} is missing: {object}");
        }
    }
    for absent in ["Binds", "VolumesFrom", "CapAdd", "CapDrop", "ExtraHosts", "GroupAdd", "SecurityOpt"] {
        assert_eq!(all[0]["HostConfig"][absent], Value::Null, "{absent}");
    }
    for absent in ["Mounts", "Tmpfs", "Init", "Sysctls"] {
        assert_eq!(all[0]["HostConfig"].get(absent), None, "{absent}");
    }
    // Those that docker leaves out where there is none.
    for absent in ["ExposedPorts", "StopTimeout", "Healthcheck"] {
        assert_eq!(all[0]["Config"].get(absent), None, "{absent}");
    }
    assert_eq!(all[0].get("SizeRw"), None);
}

fn what_was_asked_for(s: &Sandbox) {
    let change =
        ["--change", "EXPOSE 80", "--change", "ENTRYPOINT [\"sh\"]", "--change", "CMD [\"-c\", \"true\"]"];
    s.dhow(["import", "-q"])
        .args(change)
        .args(["--change", "STOPSIGNAL INT", "-", "asked"])
        .stdin_file(crate::images::busybox())
        .ok();
    let flags = [
        "--name",
        "c1",
        "--cap-add",
        "net_admin",
        "--cap-drop",
        "CAP_CHOWN",
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "seccomp=unconfined",
        "--tmpfs",
        "/t:size=1m",
        "--mount",
        "type=tmpfs,dst=/u,tmpfs-size=4096",
        "--add-host",
        "a:1.2.3.4",
        "--dns",
        "9.9.9.9",
        "--ulimit",
        "nofile=100:200",
        "--init",
        "--stop-timeout",
        "3",
        "-m",
        "64m",
        "--restart",
        "on-failure:3",
        "--network",
        "none",
        "--read-only",
        "--cidfile",
        "id-of-c1",
        "--shm-size",
        "1m",
    ];
    s.dhow(["create"]).args(flags).arg("asked").ok();
    let c = inspect(s, &["c1"])[0].clone();
    assert_eq!([&c["Path"], &c["Args"]], [&json!("sh"), &json!(["-c", "true"])]);
    assert_eq!([&c["Config"]["Entrypoint"], &c["Config"]["Cmd"]], [&json!(["sh"]), &json!(["-c", "true"])]);
    assert_eq!(c["Config"]["ExposedPorts"], json!({ "80/tcp": {} }));
    assert_eq!([&c["Config"]["StopSignal"], &c["Config"]["StopTimeout"]], [&json!("INT"), &json!(3)]);
    for (key, want) in [
        ("CapAdd", json!(["CAP_NET_ADMIN"])),
        ("CapDrop", json!(["CAP_CHOWN"])),
        ("SecurityOpt", json!(["no-new-privileges", "seccomp=unconfined"])),
        ("Tmpfs", json!({ "/t": "size=1m" })),
        ("Mounts", json!([{ "Type": "tmpfs", "Target": "/u", "TmpfsOptions": { "SizeBytes": 4096 } }])),
        ("ExtraHosts", json!(["a:1.2.3.4"])),
        ("Dns", json!(["9.9.9.9"])),
        ("Ulimits", json!([{ "Name": "nofile", "Hard": 200, "Soft": 100 }])),
        ("Init", json!(true)),
        ("Memory", json!(64 << 20)),
        ("RestartPolicy", json!({ "Name": "on-failure", "MaximumRetryCount": 3 })),
        ("NetworkMode", json!("none")),
        ("ReadonlyRootfs", json!(true)),
        ("ShmSize", json!(1 << 20)),
        ("IpcMode", json!("private")),
        ("ContainerIDFile", json!("id-of-c1")),
    ] {
        assert_eq!(c["HostConfig"][key], want, "{key}");
    }
    let shown: Vec<&Value> = c["Mounts"].as_array().unwrap().iter().map(|m| &m["Destination"]).collect();
    assert_eq!(shown, ["/u"], "--tmpfs is in HostConfig alone");
    // Each object of the graph is there.
    for dir in ["UpperDir", "WorkDir", "MergedDir", "LowerDir"] {
        let path = c["GraphDriver"]["Data"][dir].as_str().unwrap();
        assert!(std::fs::symlink_metadata(path).is_ok(), "{dir}: {path}");
    }
    s.dhow(["rm", "c1"]).ok();
    s.dhow(["rmi", "asked"]).ok();
}

fn sizes(s: &Sandbox) {
    let write = "head -c 100000 /dev/zero > /x; mkdir /d; chmod 000 /d";
    s.dhow(["run", "--name", "c1", "busybox", "sh", "-c", write]).ok();
    let image: u64 = s.inspect("busybox", "{{.Size}}").parse().unwrap();
    let c = inspect(s, &["-s", "c1"])[0].clone();
    assert_eq!([&c["SizeRw"], &c["SizeRootFs"]], [&json!(100_000), &json!(100_000 + image)]);
    assert_eq!(s.dhow(["container", "inspect", "--size", "-f", "{{.SizeRw}}", "c1"]).ok(), "100000");
    s.dhow(["rm", "c1"]).ok();
}

fn other_types(s: &Sandbox) {
    s.dhow(["volume", "create", "both"]).ok();
    s.detached(["--name", "both"], ["sleep", "1000"]);
    assert_eq!(s.inspect("both", "{{.Path}}"), "sleep", "a container goes before a volume");
    let typed = |kind: &str, name: &str| s.dhow(["inspect", "--type", kind, name]).output();
    assert!(typed("volume", "both").exits(0).text().contains("\"Mountpoint\""));
    let network: Value = serde_json::from_str(&typed("network", "host").exits(0).text()).unwrap();
    assert_eq!([&network[0]["Name"], &network[0]["Driver"]], ["host", "host"]);
    assert_eq!(network[0]["Containers"].as_object().unwrap().len(), 1);
    for (kind, name) in [("container", "busybox"), ("image", "both"), ("volume", "none"), ("network", "both")]
    {
        let out = typed(kind, name).exits(1).complains(&format!("no such {kind}: {name}"));
        assert_eq!(out.text(), "[]");
    }
    typed("teapot", "both").exits(1).complains("teapot");
    let out = s.dhow(["inspect", "No/Name", "none"]).output().exits(1).complains("no such object");
    assert!(out.text().contains("\"none\""), "{}", out.report());
}

/// What is said of a container at one moment is of one run.
fn restarts_are_counted_in_order(s: &Sandbox) {
    s.detached(["--name", "c1", "--restart", "always"], ["false"]);
    let mut last = (0, false);
    crate::wait::until("five runs", || {
        let seen = s.inspect("c1", "{{.RestartCount}} {{.State.Status}}");
        let (count, status) = seen.split_once(' ').unwrap();
        // The one that is waited for counts, before it runs.
        let now = (count.parse::<u32>().unwrap(), status == "running");
        assert!(now >= last, "{now:?} after {last:?}");
        last = now;
        (now.0 > 5).then_some(())
    });
}

fn what_is_executed(s: &Sandbox) {
    s.detached(["--name", "c1"], ["sh", "-c", "sleep 1000 & sleep 1000"]);
    let ids = || -> Value { serde_json::from_str(&s.inspect("c1", "{{json .ExecIDs}}")).unwrap() };
    assert_eq!(ids(), Value::Null, "its own processes are none");
    s.dhow(["exec", "-d", "c1", "sh", "-c", "sleep 1001 & sleep 1001"]).ok();
    let one = crate::wait::until("the exec to be seen", || Some(ids()).filter(|ids| ids.is_array()));
    assert_eq!(one.as_array().unwrap().len(), 1, "{one}");
    assert_eq!(one[0].as_str().unwrap().len(), 64);
    assert_eq!(ids(), one, "the same whoever asks");
    s.dhow(["exec", "c1", "killall", "sleep"]).output();
    crate::wait::until("the exec to end", || ids().is_null().then_some(()));
}
