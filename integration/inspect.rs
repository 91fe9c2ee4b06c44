//! `dhow inspect`: the fields that scripts rely on, under docker's names.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

for_each_user!(of_a_container, of_an_image, formats, of_several, times);

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
