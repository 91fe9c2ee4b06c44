//! `dhow info` and `dhow setup`: what this machine is, which ways were found by trying, and what is missing.

use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::user::User;

for_each_user!(
    ways_are_what_containers_get,
    dockers_fields,
    the_doctor_names_what_is_missing,
    nothing_is_left_of_trying,
    no_user_name_space,
);

fn info(s: &Sandbox) -> Value {
    serde_json::from_str(&s.dhow(["info", "--format", "json"]).ok()).unwrap()
}

fn way<'a>(info: &'a Value, of: &str) -> &'a str {
    let ways = info["Ways"].as_array().unwrap();
    ways.iter().find(|w| w["Of"] == of).unwrap_or_else(|| panic!("{ways:?}"))["Is"].as_str().unwrap()
}

fn ways_are_what_containers_get(s: &Sandbox) {
    let info = info(s);
    let ids = [(User::Root, "root"), (User::Ranges, "ranges"), (User::Single, "one")];
    assert_eq!(way(&info, "ids"), ids.iter().find(|(user, _)| *user == s.user).unwrap().1);
    assert_eq!(way(&info, "isolation"), "full");
    s.detached(["--name", "one"], ["sleep", "1000"]);
    let driver = s.inspect("one", "{{.Driver}}");
    assert_eq!((way(&info, "root file system"), info["Driver"].as_str().unwrap()), (&*driver, &*driver));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(
        (way(&info, "kernel"), info["KernelVersion"].as_str().unwrap()),
        (kernel.trim(), kernel.trim())
    );
    // A limit can be had of just what is listed.
    let limited =
        s.dhow(["run", "--rm", "--strict-limits", "--pids-limit", "100", "busybox", "true"]).output();
    assert_eq!(info["PidsLimit"], limited.code == 0, "{}\n{info}", limited.report());
}

fn dockers_fields(s: &Sandbox) {
    s.detached(["--name", "one"], ["sleep", "1000"]);
    let format = "{{.Containers}} {{.ContainersRunning}} {{.Images}} {{.DockerRootDir}} {{.CgroupVersion}} {{.OSType}}";
    let text = s.dhow(["info", "-f", format]).ok();
    assert!(text.starts_with(&format!("1 1 1 {} ", s.store.display())) && text.ends_with(" linux"), "{text}");
    let info = info(s);
    for field in ["MemoryLimit", "CpuCfsQuota", "IPv4Forwarding", "Rootless"] {
        assert!(info[field].is_boolean(), "{field}: {info}");
    }
    assert!(info["SecurityOptions"].as_array().unwrap().iter().any(|o| o == "name=seccomp,profile=builtin"));
    assert_eq!(info["Plugins"]["Volume"][0], "local");
    let proxied = s.dhow(["info", "-f", "{{.HttpProxy}}"]).env("http_proxy", "http://al:secret@proxy:1");
    assert_eq!(proxied.ok(), "http://xxxxx:xxxxx@proxy:1");
    let text = s.dhow(["system", "info"]).ok();
    for line in
        ["Containers: 1", " Running: 1", "Storage Driver: ", "Cgroup Version: ", " ids: ", " isolation: full"]
    {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

fn findings(s: &Sandbox) -> (i32, Value) {
    let output = s.dhow(["setup", "--format", "json"]).output();
    (
        output.code,
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", output.report())),
    )
}

fn the_doctor_names_what_is_missing(s: &Sandbox) {
    let (code, found) = findings(s);
    assert_eq!(code, i32::from(found["OK"] == false), "{found}");
    let named = |name: &str| {
        let all = found["Findings"].as_array().unwrap();
        all.iter().find(|f| f["Name"] == name).cloned()
    };
    let subordinate = named("subordinate ids");
    match s.user {
        User::Root => assert_eq!(subordinate, None),
        User::Ranges => assert_eq!(subordinate.unwrap()["OK"], true),
        User::Single => {
            let finding = subordinate.unwrap();
            assert_eq!((code, &finding["OK"]), (1, &Value::Bool(false)));
            let fix = finding["Fix"][0].as_str().unwrap();
            assert!(fix.starts_with("usermod --add-subuids ") && fix.ends_with(&s.account.name), "{fix}");
        }
    }
    let text = s.dhow(["setup"]).output();
    assert_eq!(text.code, code);
    let shown = text.text();
    assert!(shown.contains("isolation: "), "{shown}");
    assert_eq!(shown.lines().any(|l| l.starts_with("missing ")), code == 1, "{shown}");
    s.dhow(["setup", "-f", "{{range .Findings}}{{.Name}}{{end}}"]).output().exits(code);
}

fn nothing_is_left_of_trying(s: &Sandbox) {
    s.dhow(["info"]).ok();
    s.dhow(["setup"]).output();
    s.assert_nothing_left();
}

/// Where it is forbidden that is said, with the switch that forbids it, and nothing else fails over it.
fn no_user_name_space(s: &Sandbox) {
    if s.user == User::Root {
        return;
    }
    // The limit is that of a user name space of its own, so that nobody else is met by it.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let wrapper = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", script, "sh"];
    let text = s.dhow(["setup"]).under(&wrapper).output().exits(1).text();
    assert!(text.contains("missing user name space") && text.contains("user.max_user_namespaces="), "{text}");
    let text = s.dhow(["info"]).under(&wrapper).ok();
    assert!(text.contains(" ids: none ("), "{text}");
    let output = s.dhow(["run", "--rm", "busybox", "true"]).under(&wrapper).output().exits(125);
    output.complains("user.max_user_namespaces");
}
