//! Volumes: named and anonymous ones, what images put there, who may use and remove them.

use std::fs;

use serde_json::Value;

use crate::sandbox::{NONE, Sandbox};
use crate::wait;

for_each_user!(
    the_verbs,
    a_named_volume_outlives_its_containers,
    anonymous_volumes_go_with_rm,
    anonymous_volumes_go_when_the_supervisor_is_killed,
    what_the_image_has_is_copied,
    nothing_is_copied_where_that_is_not_wanted,
    two_use_a_volume_first_at_once,
    hostile_links_at_the_volume,
    volumes_from_others,
    what_is_in_use_stays,
    prune_takes_what_nobody_uses,
    made_and_removed_at_once,
    killed_while_copying,
    events_of_volumes,
);
for_root!(a_full_disk_while_copying);

/// Imports an image made of busybox by a script, which runs in its root.
pub fn image(s: &Sandbox, name: &str, script: &str, changes: &[&str]) {
    let script = format!(
        "set -e; mkdir r && cd r && tar x && {script}
         tar cf ../t --exclude=./data . && tar rf ../t --owner=1000 --group=1000 ./data; cd .. && cat t && rm -rf t r"
    );
    let tar =
        s.program("sh").args(["-c", &script]).stdin_file(crate::images::busybox()).output().exits(0).stdout;
    let changes = changes.iter().flat_map(|c| ["--change", c]);
    s.dhow(["import"]).args(changes).args(["-", name]).stdin(tar).ok();
}

/// An image with content in its volume.
pub fn data_image(s: &Sandbox) {
    let script = "mkdir -p data/sub && echo image > data/file && ln data/file data/hard && ln -s ../file data/sub/link \
                  && chmod 1750 data/sub && chmod 2775 data;";
    image(s, "data", script, &["VOLUME [\"/data\", \"/empty\"]", "CMD [\"sh\"]"]);
}

pub fn names(s: &Sandbox) -> Vec<String> {
    s.dhow(["volume", "ls", "-q"]).ok().lines().map(str::to_owned).collect()
}

pub fn run(s: &Sandbox, flags: &[&str], image: &str, script: &str) -> String {
    s.dhow(["run", "--rm"]).args(flags).args([image, "sh", "-c", script]).ok()
}

fn the_verbs(s: &Sandbox) {
    assert_eq!(s.dhow(["volume", "create", "one", "--label", "tier=back"]).ok(), "one");
    assert_eq!(s.dhow(["volume", "create", "one"]).ok(), "one", "it is there, which is fine");
    let anonymous = s.dhow(["volume", "create"]).ok();
    assert_eq!(anonymous.len(), 64);
    assert_eq!(
        s.dhow(["volume", "ls", "--format", "{{.Name}} {{.Driver}}", "-f", "name=one"]).ok(),
        "one local"
    );
    assert_eq!(s.dhow(["volume", "ls", "-q", "-f", "label=tier=back"]).ok(), "one");
    assert_eq!(s.dhow(["volume", "ls", "-q", "-f", "driver=nfs"]).ok(), "");
    s.sh(["--name", "user", "-v", "one:/x"], "true").ok();
    let all: Value = serde_json::from_str(&s.dhow(["volume", "inspect", "one"]).ok()).unwrap();
    assert_eq!(all[0]["Labels"]["tier"], "back");
    assert!(all[0]["Mountpoint"].as_str().unwrap().ends_with("/volumes/one/_data"), "{all}");
    assert_eq!(s.dhow(["volume", "inspect", "-f", "{{.Name}} {{.Scope}}", "one"]).ok(), "one local");
    assert_eq!(s.dhow(["volume", "exists", "one"]).output().code, 0);
    assert_eq!(s.dhow(["volume", "exists", "two"]).output().code, 1);
    assert_eq!(s.dhow(["volume", "rm", "one", &anonymous[..12]]).ok(), format!("one\n{}", &anonymous[..12]));
    s.dhow(["volume", "rm", "one"]).output().exits(1).complains("no such volume: one");
    s.dhow(["volume", "rm", "-f", "one"]).ok();
    assert_eq!(s.dhow(["volume", "inspect", "one"]).output().exits(1).text(), "[]");
    assert!(names(s).is_empty());
}

fn a_named_volume_outlives_its_containers(s: &Sandbox) {
    s.sh(["-v", "kept:/k"], "echo one > /k/file").ok();
    assert_eq!(s.sh(["-v", "kept:/other:ro"], "cat /other/file; touch /other/no || echo ro").ok(), "one\nro");
    assert_eq!(names(s), ["kept"]);
}

fn anonymous_volumes_go_with_rm(s: &Sandbox) {
    data_image(s);
    run(s, &["-v", "/typed", "-v", "named:/n"], "data", "touch /typed/x /data/x /empty/x");
    assert_eq!(names(s), ["named"], "with --rm");
    s.dhow(["run", "--name", "stays", "data", "true"]).ok();
    assert_eq!(names(s).len(), 3);
    s.dhow(["rm", "stays"]).ok();
    assert_eq!(names(s).len(), 3, "without -v they stay");
    s.dhow(["volume", "prune", "-f"]).ok();
    s.dhow(["create", "--name", "goes", "-v", "named:/n", "data"]).ok();
    s.dhow(["rm", "-v", "goes"]).ok();
    assert_eq!(names(s), ["named"]);
    assert!(s.dhow(["run", "--rm", "data", "/nonexistent"]).output().code == 127);
    assert_eq!(names(s), ["named"], "also when it cannot start");
}

fn anonymous_volumes_go_when_the_supervisor_is_killed(s: &Sandbox) {
    s.detached(["--rm", "--name", "victim", "-v", "/anon", "-v", "named:/n"], ["sleep", "1000"]);
    assert_eq!(names(s).len(), 2);
    let pid = s.inspect("victim", "{{.State.Pid}}").parse::<i32>().unwrap();
    let parent = crate::leftovers::parent(pid);
    crate::leftovers::kill_own(parent.unwrap(), rustix::process::Signal::KILL);
    wait::until("its end", || (s.dhow(["ps", "-q"]).ok().is_empty()).then_some(()));
    s.sh(NONE, "true").ok();
    assert_eq!(names(s), ["named"]);
}

fn what_the_image_has_is_copied(s: &Sandbox) {
    data_image(s);
    let script =
        "stat -c '%n %u %g %a %h' /data /data/file /data/sub; readlink /data/sub/link; cat /data/sub/link";
    let id = if s.user == crate::user::User::Single { 0 } else { 1000 };
    let want = format!(
        "/data {id} {id} 2775 3\n/data/file {id} {id} 644 2\n/data/sub {id} {id} 1750 2\n../file\nimage"
    );
    assert_eq!(run(s, &["--image-volume", "ignore"], "data", script), want, "in the image");
    assert_eq!(run(s, &[], "data", script), want, "anonymous");
    assert_eq!(run(s, &["-v", "named:/data"], "data", script), want, "named");
    run(s, &["-v", "named:/data"], "data", "rm /data/hard; echo changed > /data/file");
    assert_eq!(run(s, &["-v", "named:/data"], "data", "ls /data; cat /data/file"), "file\nsub\nchanged");
    s.dhow(["create", "--name", "made", "-v", "early:/data", "data"]).ok();
    assert_eq!(s.sh(["-v", "early:/x"], "ls /x").ok(), "file\nhard\nsub", "create alone copies");
}

fn nothing_is_copied_where_that_is_not_wanted(s: &Sandbox) {
    data_image(s);
    assert_eq!(run(s, &["-v", "v1:/data:nocopy"], "data", "ls /data"), "");
    assert_eq!(run(s, &["--mount", "src=v2,dst=/data,volume-nocopy"], "data", "ls /data"), "");
    let dir = s.subdir("empty");
    assert_eq!(run(s, &["-v", &format!("{}:/data", dir.display())], "data", "ls /data"), "", "a bind hides");
    assert_eq!(run(s, &["--tmpfs", "/data"], "data", "ls /data"), "", "a tmpfs hides");
    assert_eq!(names(s), ["v1", "v2"]);
    assert_eq!(
        run(s, &["--image-volume", "ignore"], "data", "grep -c ' /data ' /proc/mounts; cat /data/file"),
        "0\nimage"
    );
    assert_eq!(
        run(s, &["--image-volume", "tmpfs"], "data", "grep ' /data ' /proc/mounts | cut -d' ' -f1"),
        "tmpfs"
    );
}

fn two_use_a_volume_first_at_once(s: &Sandbox) {
    data_image(s);
    let outputs: Vec<String> = std::thread::scope(|scope| {
        let one = || scope.spawn(|| run(s, &["-v", "shared:/data"], "data", "ls /data; cat /data/file"));
        let all: Vec<_> = (0..4).map(|_| one()).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(outputs.iter().all(|o| o == "file\nhard\nsub\nimage"), "{outputs:?}");
}

fn hostile_links_at_the_volume(s: &Sandbox) {
    let secret = s.file("secret/key", "secret");
    let script = format!(
        "mkdir data && ln -s {0} abs && ln -s ../../../../../../..{0} up && ln -s loop loop && mkdir etc/real && echo in > etc/real/f \
         && ln -s /etc/real inside && ln -s /proc/self/root{0} proc1 && echo x > file;",
        secret.parent().unwrap().display()
    );
    let volumes = "VOLUME [\"/abs\", \"/up\", \"/inside\", \"/proc1\"]";
    image(s, "hostile", &script, &[volumes, "CMD [\"sh\"]"]);
    let seen = s
        .dhow(["run", "--rm", "hostile", "sh", "-c", "cat /inside/f; find / -xdev -name key; ls /abs/ /up/"])
        .output();
    assert!(!seen.text().contains("secret") && !seen.text().contains("key"), "{}", seen.report());
    image(
        s,
        "looped",
        "mkdir data && ln -s loop loop && echo x > file;",
        &["VOLUME [\"/loop\"]", "CMD [\"sh\"]"],
    );
    s.dhow(["run", "--rm", "looped", "true"]).output().complains("/loop").exits(125);
    assert!(names(s).is_empty(), "what cannot start leaves nothing");
}

fn volumes_from_others(s: &Sandbox) {
    data_image(s);
    let dir = s.subdir("share");
    let bind = format!("{}:/bound", dir.display());
    s.dhow(["create", "--name", "store", "-v", "/typed", "-v", "named:/n", "-v", &bind, "data"]).ok();
    let from = |flag: &str, script: &str| s.sh(["--volumes-from", flag], script).ok();
    assert_eq!(from("store", "ls /data; touch /typed/a /n/b /bound/c"), "file\nhard\nsub", "merely created");
    assert_eq!(
        from("store:ro", "ls /typed /n /bound; touch /typed/no || touch /bound/no || echo ro"),
        "/bound:\nc\n\n/n:\nb\n\n/typed:\na\nro"
    );
    assert!(dir.join("c").exists());
    s.dhow(["start", "store"]).ok();
    s.dhow(["wait", "store"]).ok();
    assert_eq!(from("store", "ls /typed"), "a", "stopped");
    s.detached(["--name", "live", "-v", "/anon"], ["sh", "-c", "echo live > /anon/f; sleep 1000"]);
    wait::until("the file", || (from("live", "cat /anon/f 2>/dev/null || true") == "live").then_some(()));
    assert_eq!(
        s.sh(["--volumes-from", "store", "-v", "own:/n"], "ls /n; ls /typed").ok(),
        "a",
        "ours goes before theirs"
    );
    // The volumes of one that goes stay as long as another has them.
    s.dhow(["create", "--name", "heir", "--volumes-from", "store", "busybox", "ls", "/typed"]).ok();
    s.dhow(["rm", "-v", "store"]).ok();
    assert_eq!(s.dhow(["start", "-a", "heir"]).ok(), "a");
    s.dhow(["rm", "-v", "heir"]).ok();
    s.dhow(["rm", "-f", "-v", "live"]).ok();
    assert_eq!(names(s), ["named", "own"]);
    s.sh(["--volumes-from", "nobody"], "true").output().exits(125).complains("nobody");
}

fn what_is_in_use_stays(s: &Sandbox) {
    s.dhow(["create", "--name", "holder", "-v", "held:/h", "busybox"]).ok();
    for force in [&["volume", "rm", "held"][..], &["volume", "rm", "-f", "held"]] {
        s.dhow(force).output().exits(1).complains("in use by container holder");
    }
    assert_eq!(s.dhow(["volume", "ls", "-q", "-f", "dangling=true"]).ok(), "");
    s.dhow(["volume", "prune", "-af"]).ok();
    assert_eq!(names(s), ["held"]);
    assert!(
        s.dhow(["system", "df", "-v"]).ok().lines().any(|l| l.split_whitespace().take(2).eq(["held", "1"]))
    );
    s.dhow(["rm", "holder"]).ok();
    assert_eq!(s.dhow(["volume", "ls", "-q", "-f", "dangling=true"]).ok(), "held");
    s.dhow(["volume", "rm", "held"]).ok();
}

fn prune_takes_what_nobody_uses(s: &Sandbox) {
    s.dhow(["volume", "create", "a", "--label", "keep=yes"]).ok();
    s.dhow(["volume", "create", "b"]).ok();
    let anonymous = s.dhow(["volume", "create"]).ok();
    let out = s.dhow(["volume", "prune", "-f"]).ok();
    assert!(out.starts_with(&format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: ")), "{out}");
    s.dhow(["volume", "prune", "-af", "--filter", "label!=keep"]).ok();
    assert_eq!(names(s), ["a"]);
    s.dhow(["volume", "create"]).ok();
    s.dhow(["system", "prune", "-f"]).ok();
    assert_eq!(names(s).len(), 2);
    s.dhow(["system", "prune", "-f", "--volumes"]).ok();
    assert_eq!(names(s), ["a"]);
    s.dhow(["volume", "prune"]).stdin("n\n").ok();
    s.dhow(["volume", "prune", "-a", "--filter", "label=keep=yes"]).stdin("y\n").ok();
    assert!(names(s).is_empty());
}

fn made_and_removed_at_once(s: &Sandbox) {
    data_image(s);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..6 {
                    assert_eq!(run(s, &["-v", "v:/data"], "data", "cat /data/file"), "image");
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                let out = s.dhow(["volume", "rm", "-f", "v"]).output();
                assert!(out.code == 0 || out.error_text().contains("in use"), "{}", out.report());
            }
        });
    });
}

fn a_full_disk_while_copying(s: &Sandbox) {
    // A store on a small file system of its own.
    let script = format!(
        "set -e; mkdir small && mount -t tmpfs -o size=9m tmpfs small
         D='{} --root small/store'
         $D import - full >/dev/null; rm -f t
         if $D run --rm -v v:/bin full true 2>err; then echo copied; fi
         grep -c 'No space left' err; ls small/store/volumes/v/_data | wc -l; ls small/store/tmp small/store/containers; umount small",
        crate::sandbox::dhow().display()
    );
    let out =
        s.program("unshare").args(["-m", "sh", "-c", &script]).stdin_file(crate::images::busybox()).output();
    assert!(out.text().contains("1\n0\n"), "{}", out.report());
}

fn killed_while_copying(s: &Sandbox) {
    let script = "mkdir -p data/d && for n in $(seq 400); do head -c 20000 /dev/zero > data/d/$n; done && echo image > data/file;";
    image(s, "big", script, &["CMD [\"sh\"]"]);
    for n in 0..4 {
        let create =
            s.dhow(["create", "--name", &format!("c{n}"), "-v", "v:/data", "big", "true"]).spawn_with(|_| ());
        // At another moment each time: the copy is made in a draft.
        let begun = || {
            let drafts = fs::read_dir(s.store.join("tmp")).unwrap().flatten();
            let n_files =
                |d: fs::DirEntry| fs::read_dir(d.path().join("merged/d")).map_or(0, Iterator::count);
            (drafts.map(n_files).sum::<usize>() >= n * 100).then_some(())
        };
        let _ = wait::within(std::time::Duration::from_secs(5), begun);
        create.signal(rustix::process::Signal::KILL);
        let there = fs::read_dir(s.store.join("volumes/v/_data")).map_or(0, Iterator::count);
        assert!(there == 0 || there == 2, "by half: {there}");
    }
    assert_eq!(run(s, &["-v", "v:/data"], "big", "cat /data/file; ls /data/d | wc -l"), "image\n400");
    // One whose making was cut short starts with the volume filled all the same.
    if s.dhow(["container", "exists", "c0"]).output().code == 0 {
        s.dhow(["start", "-a", "c0"]).ok();
    }
}

fn events_of_volumes(s: &Sandbox) {
    s.dhow(["run", "--rm", "-v", "v:/x", "-v", "/anon", "busybox", "true"]).ok();
    s.dhow(["volume", "rm", "v"]).ok();
    let format = "{{.Type}} {{.Action}} {{.Actor.ID}}";
    let all = s
        .dhow(["events", "--since", "1h", "--until", "0s", "--filter", "type=volume", "--format", format])
        .ok();
    let of_v: Vec<&str> = all.lines().filter(|l| l.ends_with(" v")).collect();
    assert_eq!(of_v, ["volume create v", "volume mount v", "volume unmount v", "volume destroy v"]);
    assert_eq!(all.lines().filter(|l| !l.ends_with(" v")).count(), 4, "{all}");
}
