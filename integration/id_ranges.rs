//! Containers with ids of their own: --userns auto, --uidmap and its like.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use crate::sandbox::Sandbox;
use crate::user::User;

for_users_with_many_ids!(
    nobody_shares_them,
    all_of_a_container_is_its_roots,
    size_and_mappings,
    files_keep_their_owners,
    they_are_free_again,
    volumes_and_secrets,
    a_terminal_is_the_users,
    two_at_once,
    one_whose_ids_cannot_be_told,
    own_maps,
    what_is_refused,
);
for_each_user!(one_id_is_told, shells_have_none);
for_root!(binds_that_are_own);

const AUTO: [&str; 2] = ["--userns", "auto:size=2048"];

/// The lines `inside outside count` of a map in the container.
fn map(s: &Sandbox, name: &str, file: &str) -> Vec<[u32; 3]> {
    let text = s.dhow(["exec", name, "cat", &format!("/proc/self/{file}")]).ok();
    text.lines()
        .map(|line| {
            let n: Vec<u32> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
            [n[0], n[1], n[2]]
        })
        .collect()
}

fn nobody_shares_them(s: &Sandbox) {
    for name in ["one", "two", "three"] {
        s.detached([&AUTO[..], &["--name", name]].concat(), ["sleep", "1000"]);
    }
    let mut seen = BTreeSet::new();
    for name in ["one", "two", "three"] {
        for file in ["uid_map", "gid_map"] {
            let map = map(s, name, file);
            assert_eq!((map.len(), map[0][0], map[0][2]), (1, 0, 2048), "{map:?}");
            // Where the caller is, is nobody of theirs.
            assert!(map[0][1] > 0 && seen.insert((file, map[0][1] / 2048)), "{map:?} {seen:?}");
        }
        let shown = s.inspect(name, "{{.HostConfig.UsernsMode}} {{index .HostConfig.IDMappings.UidMap 0}}");
        let map = map(s, name, "uid_map")[0];
        assert_eq!(shown, format!("auto:size=2048 0:{}:2048", map[1]));
    }
    let pid = s.inspect("one", "{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid =
        status.lines().find(|line| line.starts_with("Uid:")).unwrap().split_whitespace().nth(1).unwrap();
    assert!(uid != "0" && uid != s.account.uid.to_string(), "{uid}");
}

fn all_of_a_container_is_its_roots(s: &Sandbox) {
    let files = s.sh([&AUTO[..], &["-u", "1234"]].concat(), "id -un; stat -c %u:%g /etc/passwd /etc/group");
    assert_eq!(files.ok(), "1234\n0:0\n0:0", "also what was made anew");
    let script = "stat -c %u:%g / /etc/motd /dev /dev/shm /tmp/t /work /etc/hosts; touch /work/x /etc/x /tmp/t/x /dev/shm/x; \
                  chown 5:6 /etc/x && stat -c %u:%g /etc/x; echo y >>/etc/hosts; su app -c 'id -u'";
    let flags = [&AUTO[..], &["--tmpfs", "/tmp/t:mode=755", "-w", "/work"]].concat();
    let shown = s.sh(flags, script).ok();
    assert_eq!(shown, ["0:0"; 7].join("\n") + "\n5:6\n1000", "{shown}");
    let flags = [&AUTO[..], &["-u", "app", "--tmpfs", "/t:uid=1000,gid=7"]].concat();
    let script = "id -u; stat -c %u:%g /t; touch /t/x; echo z >/dev/stderr; touch /etc/x || echo refused; \
                  readlink /proc/self/fd/1 | cut -c1-4; : >/proc/self/fd/1 && echo mine";
    let shown = s.sh(flags, script).ok();
    assert_eq!(shown, "1000\n1000:7\nrefused\npipe\nmine");
    // Nothing outside is its: neither the caller's files nor root's.
    s.file("src/f", "x");
    let mount = format!("{}:/src", s.subdir("src").display());
    let flags = [&AUTO[..], &["-v", &mount]].concat();
    assert_eq!(s.sh(flags, "stat -c %u /src/f; touch /src/y || echo refused").ok(), "65534\nrefused");
}

fn size_and_mappings(s: &Sandbox) {
    let run = |mode: &str, script: &str| s.sh(["--userns", mode], script).ok();
    assert_eq!(run("auto:size=2000", "cat /proc/self/uid_map | tr -s ' ' | cut -d' ' -f2,4"), "0 2000");
    // The caller is somebody if that is asked for.
    s.file("src/f", "x");
    let mount = format!("{}:/src", s.subdir("src").display());
    let own = if s.is_rootless() { 0 } else { s.account.uid };
    let mode = format!("auto:size=2100,uidmapping=1000:{own}:1,gidmapping=1000:{own}:1");
    let script = "stat -c %u:%g /src/f; touch /src/new; wc -l </proc/self/uid_map";
    let shown = s.sh(["--userns", &mode, "-u", "app", "-v", &mount], script).ok();
    assert_eq!(shown, "1000:1000\n3");
    assert_eq!(std::fs::metadata(s.work.join("src/new")).unwrap().uid(), s.account.uid);
    // Without a size: what the image and the flags need, at least.
    assert_eq!(run("auto", "su app -c 'id -u'"), "1000");
    s.sh(["--userns", "auto", "-u", "3000"], "id -u").ok();
}

fn files_keep_their_owners(s: &Sandbox) {
    let flags = [&AUTO[..], &["--name", "c"]].concat();
    s.detached(
        &flags,
        ["sh", "-c", "touch /made; chown 7:8 /made; cp /bin/busybox /bb; chmod 4755 /bb; sleep 1000"],
    );
    s.dhow(["exec", "c", "sh", "-c", "while [ ! -u /bb ]; do sleep 0.05; done"]).ok();
    s.file("f", "f");
    s.dhow(["cp", "f", "c:/f"]).ok();
    assert_eq!(s.dhow(["exec", "c", "stat", "-c", "%u:%g", "/f", "/made"]).ok(), "0:0\n7:8");
    s.dhow(["kill", "c"]).ok();
    s.dhow(["wait", "c"]).ok();
    s.dhow(["cp", "f", "c:/g"]).ok();
    let changes = s.dhow(["diff", "c"]).ok();
    let mut changes: Vec<&str> = changes.lines().collect();
    changes.sort_unstable();
    assert_eq!(changes, ["A /bb", "A /f", "A /g", "A /made"]);
    s.dhow(["commit", "c", "made"]).ok();
    // In another container, with and without ids of its own.
    for flags in [&[][..], &["--userns", "auto:size=3500"]] {
        let shown =
            s.dhow(["run", "--rm"]).args(flags).args(["made", "stat", "-c", "%u:%g %a", "/made", "/bb"]).ok();
        assert_eq!(shown, "7:8 644\n0:0 4755", "{flags:?}");
    }
    s.dhow(["start", "c"]).ok();
    assert_eq!(
        s.dhow(["exec", "c", "stat", "-c", "%u:%g", "/g", "/etc/motd"]).ok(),
        "0:0\n0:0",
        "it starts again"
    );
    let exported = s.dhow(["export", "c"]).output().exits(0);
    let listed = std::process::Command::new("tar")
        .args(["-tvf", "-", "--numeric-owner"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut tar| {
            std::io::Write::write_all(&mut tar.stdin.take().unwrap(), &exported.stdout)?;
            tar.wait_with_output()
        })
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.lines().any(|line| line.contains(" 7/8 ") && line.ends_with(" made")), "{listed}");
}

fn they_are_free_again(s: &Sandbox) {
    let start = |name: &str| {
        s.detached([&AUTO[..], &["--name", name]].concat(), ["sleep", "1000"]);
        map(s, name, "uid_map")[0][1]
    };
    let (first, second) = (start("a"), start("b"));
    assert_ne!(first, second);
    s.dhow(["kill", "a"]).ok();
    s.dhow(["wait", "a"]).ok();
    assert!(
        ![first, second].contains(&start("c")),
        "those of a container that does not run are still its own"
    );
    s.dhow(["rm", "a"]).ok();
    assert_eq!(start("d"), first);
}

fn volumes_and_secrets(s: &Sandbox) {
    s.dhow(["secret", "create", "key", "-"]).stdin("s3cret").ok();
    let flags =
        [&AUTO[..], &["-v", "empty:/empty", "-v", "filled:/home", "--secret", "key,uid=1000,mode=0400"]]
            .concat();
    let script = "stat -c %u:%g /empty /home; touch /empty/x /home/x && su app -c 'cat /run/secrets/key'";
    assert_eq!(s.sh(flags, script).ok(), "0:0\n0:0\ns3cret");
    s.dhow(["volume", "rm", "empty", "filled"]).ok();
}

fn a_terminal_is_the_users(s: &Sandbox) {
    let script = "stat -c %u $(tty); : >$(tty) && echo mine";
    for flags in [&[][..], &["-u", "app"]] {
        let uid = if flags.is_empty() { 0 } else { 1000 };
        let words = [&["run", "--rm", "-it"], &AUTO[..], flags, &["busybox", "sh", "-c", script]].concat();
        let mut terminal = crate::terminal::Terminal::start(s.dhow(words), 24, 80);
        terminal.expect(&format!("{uid}\r\nmine"));
    }
}

fn two_at_once(s: &Sandbox) {
    let names: Vec<String> = (0..6).map(|n| format!("n{n}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(move || s.detached([&AUTO[..], &["--name", name]].concat(), ["sleep", "1000"]));
        }
    });
    let starts: BTreeSet<u32> = names.iter().map(|name| map(s, name, "uid_map")[0][1]).collect();
    assert_eq!(starts.len(), names.len());
}

fn one_whose_ids_cannot_be_told(s: &Sandbox) {
    s.dhow([&["create", "--name", "one"], &AUTO[..], &["busybox", "true"]].concat()).ok();
    let id = s.inspect("one", "{{.Id}}");
    std::fs::write(s.store.join("containers").join(&id).join("record.json"), "{\"id\": tru").unwrap();
    s.sh(AUTO, "true").output().exits(125).complains(&id).complains("dhow rm");
    // Whoever shares the caller's ids takes none.
    s.sh([""; 0], "true").ok();
    s.dhow(["rm", &id]).ok();
    s.sh(AUTO, "true").ok();
}

fn own_maps(s: &Sandbox) {
    let flags = ["--uidmap", "0:2000:1000", "--uidmap", "1000:5000:1100"];
    let lines = "cat /proc/self/uid_map /proc/self/gid_map | awk '{print $1\":\"$2\":\"$3}'";
    let want = "0:2000:1000\n1000:5000:1100";
    assert_eq!(s.sh(flags, lines).ok(), format!("{want}\n{want}"));
    assert_eq!(s.sh(flags, "stat -c %u /etc/motd; su app -c 'id -u'").ok(), "0\n1000");
    let gids = [&flags[..], &["--gidmap", "0:3000:2500"]].concat();
    assert_eq!(s.sh(gids, lines).ok(), format!("{want}\n0:3000:2500"));
    if s.user == User::Root && crate::user::User::Ranges.account().is_some() {
        let shown = s.sh(["--subuidname", "dhowsub", "--subgidname", "dhowsub"], lines).ok();
        assert!(shown.lines().count() >= 2 && shown.starts_with("0:"), "{shown}");
    }
    if s.user == User::Ranges {
        // Their own, which a user can have anyway, and those that follow them.
        let shown = s.sh(["--subuidname", &s.account.name, "--subgidname", &s.account.name], lines).ok();
        assert!(shown.lines().count() >= 2 && shown.starts_with("0:1:"), "{shown}");
        let beyond = s.sh(["--uidmap", "0:4000000:10"], "true").output().exits(125);
        beyond.complains("0:4000000:10").complains("does not have");
    }
    s.sh(["--subuidname", "nosuchname"], "true").output().exits(125).complains("/etc/subuid");
}

fn what_is_refused(s: &Sandbox) {
    for (flags, about) in [
        (&["--userns", "auto:size=0"][..], "size"),
        (&["--userns", "auto:size=x"], "size"),
        (&["--userns", "auto:nosuch=1"], "nosuch"),
        (&["--userns", "auto:uidmapping=1"], "CONTAINER:HOST"),
        (&["--userns", "auto:uidmapping=0:5:2,uidmapping=1:9:1"], "the same id"),
        (&["--userns", "auto:size=4000000000"], "free"),
        (&["--userns", "keep-id", "--uidmap", "0:1:1"], "--uidmap"),
        (&["--uidmap", "a:b"], "CONTAINER:HOST"),
        (&["--uidmap", "0:5:0"], "no ids"),
        (&["--userns", "automatic"], "automatic"),
    ] {
        s.sh(flags, "true").output().exits(125).complains(about);
    }
    let dir = s.subdir("rootfs").display().to_string();
    s.dhow(["run", "--rm", "--rootfs", "--userns", "auto", &dir, "true"])
        .output()
        .exits(125)
        .complains("directory");
    s.assert_nothing_left();
}

fn one_id_is_told(s: &Sandbox) {
    if s.user == User::Single {
        let refused = s.sh(["--userns", "auto"], "true").output().exits(125);
        refused.complains("one id").complains("/etc/subuid");
        s.sh(["--uidmap", "0:0:1"], "true").output().exits(125).complains("one id");
    }
}

fn shells_have_none(s: &Sandbox) {
    s.dhow(["shell", "--rm", "--userns", "auto", "busybox", "--", "true"])
        .output()
        .expect("refused", |o| o.code != 0);
}

fn binds_that_are_own(s: &Sandbox) {
    s.file("src/f", "x");
    let mount = format!("{}:/src:own", s.subdir("src").display());
    for user in ["0", "1000"] {
        let flags = [&AUTO[..], &["-u", user, "-v", &mount]].concat();
        assert_eq!(s.sh(flags, "stat -c %u /src/f; touch /src/made").ok(), user);
        assert_eq!(std::fs::metadata(s.work.join("src/made")).unwrap().uid(), s.account.uid);
        std::fs::remove_file(s.work.join("src/made")).unwrap();
    }
}
