//! `dhow ps`: what its filters, its placeholders and its flags show. The shape of the table is in `lifecycle`.

use serde_json::Value;

use crate::sandbox::Sandbox;

for_each_user!(filters, refused_filters, sizes, placeholders, paused, between_runs, a_hundred);

fn names(s: &Sandbox, filters: &[&str]) -> String {
    let filters = filters.iter().flat_map(|f| ["--filter", f]);
    let text = s.dhow(["ps", "-a", "--format", "{{.Names}}"]).args(filters).ok();
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    names.join(" ")
}

fn filters(s: &Sandbox) {
    let dir = s.subdir("share");
    let bind = format!("{}:/in/side", dir.display());
    let image =
        ["import", "-q", "--change", "EXPOSE 80 8000-8002/udp", "--change", "CMD [\"sh\"]", "-", "ports"];
    s.dhow(image).stdin_file(crate::images::busybox()).ok();
    s.dhow(["tag", "ports", "other:name"]).ok();
    s.dhow(["create", "--name", "one", "-v", &bind, "ports", "sleep", "5"]).ok();
    s.dhow(["create", "--name", "two", "--network", "none", "busybox", "/bin/cat"]).ok();
    let path = dir.display().to_string();
    for (filter, want) in [
        ("volume=/in/side", "one"),
        (&*format!("volume={path}"), "one"),
        ("volume=nothing", ""),
        ("network=none", "two"),
        ("network=host", "one"),
        ("expose=80", "one"),
        ("expose=79-81/tcp", "one"),
        ("expose=8001/udp", "one"),
        ("expose=80/udp", ""),
        ("publish=80", ""),
        ("health=none", "one two"),
        ("health=healthy", ""),
        ("command=sleep", "one"),
        ("command=cat$", "two"),
        ("command=5", ""),
        ("ancestor=ports", "one"),
        ("ancestor=other:name", "one"),
        ("ancestor=busybox", "two"),
        ("ancestor=nothing", ""),
        ("until=1h", ""),
        ("until=2100-01-01", "one two"),
        ("since=one", "two"),
        ("before=two", "one"),
        ("status=created", "one two"),
        ("status=paused", ""),
        ("is-task=true", ""),
        ("is-task=false", "one two"),
    ] {
        assert_eq!(names(s, &[filter]), want, "{filter}");
    }
    assert_eq!(names(s, &["expose=80", "expose=99", "network=host", "volume=/in/side"]), "one");
    assert_eq!(names(s, &["expose=80", "network=none"]), "");
    // What they were made from may be gone.
    s.dhow(["rmi", "-f", "ports", "other:name"]).ok();
    assert_eq!(names(s, &["ancestor=ports"]), "one");
    assert_eq!(names(s, &["expose=80"]), "one");
    s.dhow(["rm", "one", "two"]).ok();
}

fn refused_filters(s: &Sandbox) {
    for filter in [
        "health=well",
        "status=asleep",
        "exited=x",
        "before=nobody",
        "since=nobody",
        "publish=x",
        "expose=80/ip",
        "expose=9-8",
        "name=(",
        "until=never",
        "is-task=maybe",
    ] {
        let out = s.dhow(["ps", "-f", filter]).output();
        assert!(out.code == 1 && out.text().is_empty(), "{filter}: {}", out.report());
    }
    s.dhow(["ps", "-f", "volume"]).output().exits(125).complains("volume");
    s.dhow(["ps", "-n", "many"]).output().exits(125).complains("not a number");
    for few in ["0", "-1"] {
        s.dhow(["ps", "-n", few]).ok();
    }
}

fn sizes(s: &Sandbox) {
    let write = "head -c 200000 /dev/zero > /x; ln /x /y; mkdir /d; chmod 000 /d";
    s.dhow(["run", "--name", "wrote", "busybox", "sh", "-c", write]).ok();
    s.dhow(["create", "--name", "new", "busybox", "true"]).ok();
    let shown = s.dhow(["ps", "-a", "-s", "--format", "{{.Names}} {{.Size}}"]).ok();
    let of = |name: &str| shown.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    assert!(of("wrote").starts_with("200kB (virtual ") && of("new").starts_with("0B (virtual "), "{shown}");
    // A format that shows it asks for it, and nothing else does.
    assert_eq!(s.dhow(["ps", "-a", "--format", "{{.Names}} {{.Size}}"]).ok(), shown);
    let table = s.dhow(["ps", "-as"]).ok();
    assert!(table.lines().next().unwrap().ends_with("SIZE") && table.contains("200kB (virtual "), "{table}");
    let line: Value =
        serde_json::from_str(s.dhow(["ps", "-l", "--format", "json"]).ok().lines().next().unwrap()).unwrap();
    assert_eq!(line["Size"], "0B");
    s.dhow(["rm", "wrote", "new"]).ok();
}

fn placeholders(s: &Sandbox) {
    let dir = s.subdir("a-name-that-is-long");
    let bind = format!("{}:/in", dir.display());
    let labels = ["--label", "a=1", "--label", "b.c=2"];
    s.dhow(["create", "--name", "one", "-v", &bind]).args(labels).args(["busybox", "echo", "a b"]).ok();
    let format = |format: &str| s.dhow(["ps", "-a", "--format", format]).ok();
    assert_eq!(format("{{.Names}}|{{.State}}|{{.Status}}|{{.Networks}}"), "one|created|Created|host");
    assert_eq!(format("{{.Command}}"), "\"echo 'a b'\"");
    assert_eq!(format("{{.Labels}}|{{.Label \"b.c\"}}|{{.LocalVolumes}}|{{.Ports}}"), "a=1,b.c=2|2|0|");
    let mounts = format("{{.Mounts}}");
    assert!(mounts.chars().count() == 15 && mounts.ends_with('…'), "{mounts}");
    assert_eq!(s.dhow(["ps", "-a", "--no-trunc", "--format", "{{.Mounts}}"]).ok(), dir.to_str().unwrap());
    assert!(format("{{.CreatedAt}}").ends_with(" UTC") && format("{{.RunningFor}}").ends_with(" ago"));
    // As docker: times are shown and read in the caller's zone.
    let shown = s.dhow(["ps", "-a", "--format", "{{.CreatedAt}}"]).env("TZ", "XXX-5").ok();
    assert!(shown.ends_with(" +0500 XXX"), "{shown}");
    let local = shown[.."2026-01-02 03:04:05".len()].replace(' ', "T");
    let until = |zone: &str| {
        s.dhow(["ps", "-aq", "-f", &format!("until={local}")]).env("TZ", zone).ok().lines().count()
    };
    assert_eq!((until("XXX-5"), until("XXX-4")), (0, 1));
    let fields = "ID Image Command CreatedAt RunningFor Ports State Status HealthStatus Size Names Labels Mounts Networks";
    let line: Value = serde_json::from_str(&format("json")).unwrap();
    for field in fields.split(' ') {
        assert!(line[field].is_string(), "{field}: {line}");
        format(&format!("table {{{{.{field}}}}}"));
    }
    s.dhow(["rm", "one"]).ok();
}

/// Many, and one whose files are damaged: the others are shown.
fn a_hundred(s: &Sandbox) {
    let ids: Vec<String> =
        (0..100).map(|n| s.dhow(["create", "--name", &format!("c{n}"), "busybox", "true"]).ok()).collect();
    assert_eq!(s.dhow(["ps", "-aq"]).ok().lines().count(), 100);
    let newest: Vec<String> =
        s.dhow(["ps", "-n", "3", "-q", "--no-trunc"]).ok().lines().map(str::to_owned).collect();
    assert_eq!(newest, [&ids[99], &ids[98], &ids[97]].map(String::clone));
    std::fs::write(s.store.join("containers").join(&ids[0]).join("record.json"), b"{").unwrap();
    assert_eq!(s.dhow(["ps", "-aq"]).ok().lines().count(), 99);
    s.dhow(["rm", "-f"]).args(&ids).ok();
}

fn paused(s: &Sandbox) {
    s.detached(["--name", "sleeper"], ["sleep", "1000"]);
    s.dhow(["pause", "sleeper"]).ok();
    assert!(s.dhow(["ps", "--format", "{{.State}} {{.Status}}"]).ok().ends_with(" (Paused)"));
    assert_eq!(names(s, &["status=paused"]), "sleeper");
    assert_eq!(names(s, &["status=running"]), "");
    let state: Value = serde_json::from_str(&s.inspect("sleeper", "{{json .State}}")).unwrap();
    assert!(state["Status"] == "paused" && state["Paused"] == true && state["Running"] == true, "{state}");
    assert!(state["Pid"].as_u64().unwrap() > 1);
    s.dhow(["unpause", "sleeper"]).ok();
    assert_eq!(names(s, &["status=running"]), "sleeper");
}

fn between_runs(s: &Sandbox) {
    s.detached(["--name", "again", "--restart", "always"], ["sh", "-c", "exit 3"]);
    let format = |format: &str| s.dhow(["ps", "-a", "--format", format]).ok();
    let text = crate::wait::until("a time between two runs", || {
        let text = format("{{.State}} {{.Status}}");
        text.starts_with("restarting Restarting (3) ").then_some(text)
    });
    assert!(text.ends_with(" ago"), "{text}");
    crate::wait::until("the filter to see it", || {
        (names(s, &["status=restarting"]) == "again").then_some(())
    });
    crate::wait::until("inspect to see it", || {
        let state: Value = serde_json::from_str(&s.inspect("again", "{{json .State}}")).unwrap();
        let is_between = state["Restarting"] == true;
        assert!(
            !is_between || (state["Status"] == "restarting" && state["ExitCode"] == 3 && state["Pid"] == 0),
            "{state}"
        );
        is_between.then_some(())
    });
    let count: u64 = s.inspect("again", "{{.RestartCount}}").parse().unwrap();
    assert!(count > 0);
    // It is shown unasked: it is about to run again.
    assert_eq!(s.dhow(["ps", "--format", "{{.Names}}"]).ok(), "again");
    s.dhow(["rm", "-f", "again"]).ok();
}
