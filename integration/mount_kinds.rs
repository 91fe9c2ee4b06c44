//! The kinds of mounts: --mount and its fields, parts of volumes and images, the volume driver's options, inspect.

use std::fs;

use serde_json::Value;

use rustix::process::Signal;

use crate::leftovers::{kill_own, parent};
use crate::sandbox::Sandbox;
use crate::volumes::{data_image, names, run};
use crate::wait;

for_each_user!(
    the_long_form,
    a_subpath_stays_inside,
    an_image_is_mounted,
    options_of_the_driver,
    one_file_system_for_all_who_use_it,
    many_use_it_first_at_once,
    one_that_hangs_keeps_nobody_from_it,
    inspect_shows_mounts,
    mistakes_are_told,
    layers_are_seen_as_one,
    in_a_sandbox_without_mounts,
);

fn the_long_form(s: &Sandbox) {
    let made =
        "type=volume,src=made,dst=/m,volume-label=a=b,\"volume-opt=type=tmpfs\",volume-opt=device=tmpfs";
    let seen = s.sh(["--mount", made], "grep ' /m ' /proc/mounts | cut -d' ' -f3").ok();
    assert_eq!(seen, "tmpfs");
    assert_eq!(
        s.dhow(["volume", "inspect", "-f", "{{.Labels.a}} {{.Options.type}}", "made"]).ok(),
        "b tmpfs"
    );
    assert_eq!(s.sh(["--mount", "dst=/anon"], "grep -c ' /anon ' /proc/mounts").ok(), "1");
    let dir = s.work.join("new/dir");
    let create = format!("type=bind,src={},dst=/d,bind-create-src", dir.display());
    s.sh(["--mount", &create], "touch /d/x").ok();
    assert!(dir.join("x").exists());
    let read_only = format!("type=bind,src={},dst=/d,ro,bind-recursive=writable", dir.display());
    s.sh(["--mount", &read_only], "touch /d/y").fails(1);
}

fn a_subpath_stays_inside(s: &Sandbox) {
    s.sh(["-v", "v:/v"], "mkdir -p /v/a/b && echo deep > /v/a/b/f && ln -s /etc /v/abs && ln -s ../../../../etc /v/up && ln -s a/b /v/in").ok();
    let sub =
        |path: &str, script: &str| s.sh(["--mount", &format!("src=v,dst=/s,volume-subpath={path}")], script);
    assert_eq!(sub("a/b", "cat /s/f").ok(), "deep");
    assert_eq!(sub("a/b/f", "cat /s").ok(), "deep", "a file");
    assert_eq!(sub("in", "cat /s/f").ok(), "deep", "a link inside");
    for outside in ["abs", "up", "none"] {
        sub(outside, "true").output().exits(125).complains("subpath");
    }
    sub("../x", "true").output().exits(125).complains("subpath");
}

fn an_image_is_mounted(s: &Sandbox) {
    data_image(s);
    let mount = |fields: &str, script: &str| {
        s.sh(["--mount", &format!("type=image,source=data,target=/i{fields}")], script)
    };
    assert_eq!(mount("", "cat /i/data/file; touch /i/x || echo ro").ok(), "image\nro");
    assert_eq!(mount(",image-subpath=data/sub", "cat /i/link 2>/dev/null; ls /i").ok(), "link");
    s.dhow([
        "create",
        "--name",
        "user",
        "--mount",
        "type=image,source=data,target=/i",
        "busybox",
        "cat",
        "/i/data/file",
    ])
    .ok();
    s.dhow(["rmi", "-f", "data"]).output();
    assert_eq!(s.dhow(["start", "-a", "user"]).ok(), "image", "its layers stay as long as it needs them");
    s.sh(["--mount", "type=image,source=nosuch,target=/i"], "true").output().exits(125).complains("nosuch");
}

fn options_of_the_driver(s: &Sandbox) {
    let dir = s.subdir("real");
    s.file("real/f", "real");
    let device = format!("device={}", dir.display());
    s.dhow(["volume", "create", "b", "-o", "type=none", "-o", "o=bind", "-o", &device]).ok();
    assert_eq!(s.sh(["-v", "b:/b"], "cat /b/f; echo w > /b/w").ok(), "real");
    assert_eq!(fs::read_to_string(dir.join("w")).unwrap(), "w\n");
    s.dhow(["volume", "rm", "b"]).ok();
    assert!(dir.join("f").exists(), "what it names is not its own");
    s.dhow(["volume", "create", "t", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=700"])
        .ok();
    assert_eq!(
        s.sh(["-v", "t:/t"], "stat -c %a /t; df -k /t | tail -n 1 | tr -s ' ' | cut -d' ' -f2").ok(),
        "700\n1024"
    );
    s.dhow(["volume", "create", "x", "-o", "nosuch=1"]).output().exits(1).complains("nosuch");
    s.dhow(["volume", "create", "x", "-d", "nosuch"]).output().exits(1).complains("nosuch");
}

fn one_file_system_for_all_who_use_it(s: &Sandbox) {
    let memory = |name: &str| {
        s.dhow(["volume", "create", name, "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m"]).ok();
    };
    memory("t");
    memory("u");
    s.detached(["--name", "a", "--stop-timeout", "0", "-v", "t:/t", "-v", "u:/u"], ["sleep", "1000"]);
    s.dhow(["exec", "a", "sh", "-c", "echo a >/t/a; mkdir /t/d; echo d >/t/d/f"]).ok();
    // In the other order, elsewhere, not to be written to, and only a part of it.
    let dir = "type=volume,source=t,target=/part,volume-subpath=d";
    s.detached(
        ["--name", "b", "--stop-timeout", "0", "-v", "u:/u", "-v", "t:/b:ro", "--mount", dir],
        ["sleep", "1000"],
    );
    assert_eq!(s.dhow(["exec", "b", "cat", "/b/a", "/part/f"]).ok(), "a\nd");
    s.dhow(["exec", "b", "touch", "/b/x"]).output().exits(1).complains("Read-only");
    s.dhow(["exec", "b", "sh", "-c", "echo u >/u/b"]).ok();
    assert_eq!(s.dhow(["exec", "a", "cat", "/u/b"]).ok(), "u");
    // It goes on with whoever is left, and from there to the next; killed is as good as stopped.
    s.dhow(["stop", "a"]).ok();
    assert_eq!(s.sh(["-v", "t:/t"], "cat /t/a; echo c >/t/c").ok(), "a");
    s.dhow(["start", "a"]).ok();
    assert_eq!(s.dhow(["exec", "a", "cat", "/t/c", "/u/b"]).ok(), "c\nu");
    s.dhow(["kill", "b"]).ok();
    s.dhow(["wait", "b"]).ok();
    assert_eq!(s.dhow(["exec", "a", "cat", "/t/c"]).ok(), "c");
    s.dhow(["restart", "a"]).ok();
    // With the last it is gone.
    s.dhow(["stop", "a"]).ok();
    assert_eq!(s.sh(["-v", "t:/t"], "ls /t").ok(), "");
    let data = s.dhow(["volume", "inspect", "--format", "{{.Mountpoint}}", "t"]).ok();
    if !s.is_rootless() {
        assert!(
            fs::read_dir(data).unwrap().next().is_none(),
            "nothing of it is on the disk, nor mounted there"
        );
    }
    s.dhow(["rm", "a", "b"]).ok();
    s.dhow(["volume", "rm", "t", "u"]).ok();
    // One without a name, removed by its own supervisor.
    let own = "type=volume,target=/t,volume-opt=type=tmpfs,volume-opt=device=tmpfs";
    s.sh(["--mount", own], "echo 1 >/t/x").ok();
    assert_eq!(s.dhow(["volume", "ls", "-q"]).ok(), "");
}

fn many_use_it_first_at_once(s: &Sandbox) {
    s.dhow(["volume", "create", "t", "-o", "type=tmpfs", "-o", "device=tmpfs"]).ok();
    s.dhow(["volume", "create", "u", "-o", "type=tmpfs", "-o", "device=tmpfs"]).ok();
    let script =
        "touch /t/$0 /u/$0; while test $(ls /t | wc -l) -lt 8 -o $(ls /u | wc -l) -lt 8; do sleep 0.02; done";
    let mut all: Vec<_> = (0..8)
        .map(|n| {
            let volumes =
                if n % 2 == 0 { ["-v", "t:/t", "-v", "u:/u"] } else { ["-v", "u:/u", "-v", "t:/t"] };
            let run = s.dhow(["run", "--rm", "--timeout", "100"]).args(volumes);
            run.args(["busybox", "sh", "-c", script, &n.to_string()]).spawn_with(|_| ())
        })
        .collect();
    assert!(all.iter_mut().all(|run| run.code() == 0), "each sees what all others wrote");
    s.dhow(["volume", "rm", "t", "u"]).ok();
}

fn one_that_hangs_keeps_nobody_from_it(s: &Sandbox) {
    s.dhow(["volume", "create", "t", "-o", "type=tmpfs", "-o", "device=tmpfs"]).ok();
    let supervisor = |name: &str| parent(s.inspect(name, "{{.State.Pid}}").parse().unwrap()).unwrap();
    let volume = ["-v", "t:/t", "--stop-timeout", "0"];
    s.detached([&volume[..], &["--name", "xx"]].concat(), ["sleep", "1000"]);
    s.detached([&volume[..], &["--name", "yy"]].concat(), ["sleep", "1000"]);
    s.dhow(["exec", "xx", "sh", "-c", "echo x >/t/x"]).ok();
    // Whoever of the two is asked first, the other one answers.
    for name in ["xx", "yy"] {
        let pid = supervisor(name);
        kill_own(pid, Signal::STOP);
        assert_eq!(s.sh(volume, "cat /t/x").ok(), "x");
        kill_own(pid, Signal::CONT);
    }
    // Where all hang they are waited for, also by several at once: each has it once they go on.
    let pids = ["xx", "yy"].map(supervisor);
    pids.iter().for_each(|pid| kill_own(*pid, Signal::STOP));
    let mut all = ["1", "2"].map(|n| {
        let run = s.dhow(["run", "--rm"]).args(volume);
        run.args(["busybox", "sh", "-c", "cat /t/x && touch /t/$0", n]).spawn_with(|_| ())
    });
    wait::until("both are made", || {
        (fs::read_dir(s.store.join("containers")).unwrap().count() >= 4).then_some(())
    });
    pids.iter().for_each(|pid| kill_own(*pid, Signal::CONT));
    assert!(all.iter_mut().all(|run| run.code() == 0));
    assert_eq!(s.dhow(["exec", "yy", "ls", "/t"]).ok(), "1\n2\nx");
    // One that is killed meanwhile is nobody to wait for.
    s.dhow(["kill", "yy"]).ok();
    s.dhow(["wait", "yy"]).ok();
    kill_own(pids[0], Signal::STOP);
    let mut last = s.dhow(["run", "--rm"]).args(volume).args(["busybox", "ls", "/t"]).spawn_with(|_| ());
    kill_own(pids[0], Signal::KILL);
    assert_eq!(last.code(), 0);
}

fn inspect_shows_mounts(s: &Sandbox) {
    data_image(s);
    let dir = s.subdir("share");
    let bind = format!("{}:/b:ro", dir.display());
    let flags = ["-v", &bind, "-v", "v:/v", "--mount", "type=tmpfs,dst=/t,tmpfs-size=64k", "--tmpfs", "/u"];
    s.dhow(["create", "--name", "one"]).args(flags).arg("data").ok();
    let all: Value = serde_json::from_str(&s.dhow(["inspect", "one"]).ok()).unwrap();
    let mount = |at: &str| {
        all[0]["Mounts"].as_array().unwrap().iter().find(|m| m["Destination"] == at).cloned().unwrap()
    };
    assert_eq!([&mount("/b")["Type"], &mount("/b")["Source"]], ["bind", dir.to_str().unwrap()]);
    assert_eq!([mount("/b")["RW"].clone(), mount("/v")["RW"].clone()], [false, true]);
    assert_eq!(
        [&mount("/v")["Type"], &mount("/v")["Name"], &mount("/v")["Driver"]],
        ["volume", "v", "local"]
    );
    assert_eq!(mount("/data")["Name"].as_str().unwrap().len(), 64);
    assert_eq!(all[0]["HostConfig"]["Binds"], serde_json::json!([bind, "v:/v"]));
    assert_eq!(all[0]["HostConfig"]["Mounts"][0]["TmpfsOptions"]["SizeBytes"], 65536);
    assert_eq!(all[0]["HostConfig"]["Tmpfs"]["/u"], "");
    assert_eq!(all[0]["Config"]["Volumes"], serde_json::json!({ "/data": {}, "/empty": {} }));
}

fn mistakes_are_told(s: &Sandbox) {
    for (flags, cause) in [
        (&["-v", "a/b:/x"][..], "a/b"),
        (&["-v", "v:/x", "--tmpfs", "/x"], "twice on /x"),
        (&["--mount", "type=volume,src=v,dst=/x,nosuch=1"], "unexpected key 'nosuch'"),
        (&["--mount", "type=bind,src=/nonexistent,dst=/x"], "/nonexistent"),
        (&["-v", "v:/x:own"], "own"),
        (&["--volumes-from", "x:odd"], "odd"),
    ] {
        s.sh(flags, "true").output().exits(125).complains(cause);
    }
    assert!(names(s).is_empty());
}

fn layers_are_seen_as_one(s: &Sandbox) {
    let script = "mkdir -p /data/old /data/keep && echo 1 > /data/old/f && echo low > /data/keep/low && ln -s /data /via";
    s.dhow(["run", "--name", "one", "busybox", "sh", "-c", script]).ok();
    s.dhow(["commit", "one", "one"]).ok();
    let script = "rm -r /data/old; mkdir /data/old; echo new > /data/old/n; echo top > /data/keep/top; rm /data/keep/low";
    s.dhow(["run", "--name", "two", "one", "sh", "-c", script]).ok();
    s.dhow(["commit", "-c", "VOLUME /data", "two", "two"]).ok();
    let find = "find /data | sort | tr '\\n' ' '; cat /data/*/*";
    let want = "/data /data/keep /data/keep/top /data/old /data/old/n top\nnew";
    assert_eq!(run(s, &["--image-volume", "ignore"], "two", find), want);
    assert_eq!(run(s, &[], "two", find), want);
    assert_eq!(run(s, &["--userns", "keep-id", "-v", "v:/data"], "two", find), want);
    let mount = |fields: &str, script: &str| {
        s.sh(["--mount", &format!("type=image,source=two,target=/i{fields}")], script).ok()
    };
    assert_eq!(mount("", "cat /i/data/*/*; touch /i/x || echo ro"), "top\nnew\nro");
    assert_eq!(mount(",image-subpath=via/keep", "ls /i; touch /i/x || echo ro"), "top\nro");
    assert_eq!(mount(",image-subpath=data/keep/top", "cat /i; grep -c ' /i ' /proc/mounts"), "top\n1");
    s.dhow(["rm", "one", "two"]).ok();
}

fn in_a_sandbox_without_mounts(s: &Sandbox) {
    let tar = s.file("busybox.tar", fs::read(crate::images::busybox()).unwrap());
    let mount = |from: &std::path::Path, to: &str| format!("{}:{to}:ro", from.display());
    let (program, tar) = (mount(crate::sandbox::dhow(), "/usr/bin/dhow"), mount(&tar, "/busybox.tar"));
    let script = "set -e; dhow import --change 'VOLUME /etc' /busybox.tar inner >/dev/null
                  dhow run --rm inner cat /etc/motd; dhow volume ls -q; dhow run --rm -v /asked inner true || echo refused";
    let out = s.sh(["-v", &program, "-v", &tar], script).output().exits(0);
    assert_eq!(out.text(), "hello\nrefused", "{}", out.report());
}
