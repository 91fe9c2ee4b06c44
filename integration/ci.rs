//! What a CI system's step needs: all of the output and in its order, flags about what surrounds the program, and listings
//! that hold while many jobs come and go.

use std::io::Read;
use std::process::Stdio;

use crate::sandbox::{NONE, Sandbox};
use crate::wait;

for_each_user!(
    five_hundred_thousand_lines,
    fifty_jobs_and_those_who_look_at_them,
    variables_of_the_caller,
    variables_taken_away,
    proxies,
    umask,
    labels_annotations_and_ports,
    files_for_ids,
    the_image_goes_too,
);
for_root!(a_gibibyte_to_a_slow_reader);

fn five_hundred_thousand_lines(s: &Sandbox) {
    let want: String = (1..=500_000).map(|n| format!("{n}\n")).collect();
    for flags in [&["--rm"][..], &["--name", "kept"]] {
        let run = s.dhow(["run"]).args(flags).args(["busybox", "sh", "-c", "seq 500000; exit 3"]);
        let out = run.patiently().output().exits(3);
        assert!(out.stdout == want.as_bytes(), "{flags:?}: {} bytes of {}", out.stdout.len(), want.len());
    }
    let logged = s.dhow(["logs", "--tail", "2", "kept"]).ok();
    assert_eq!(logged, "499999\n500000");
}

fn a_gibibyte_to_a_slow_reader(s: &Sandbox) {
    const LINE: &[u8] = b"0123456789abcde\n";
    let mut run = s.sh(NONE, "yes 0123456789abcde | head -c 1073741824").spawn_with(|c| {
        c.stdout(Stdio::piped());
    });
    let mut pipe = run.child.stdout.take().unwrap();
    let (mut buffer, mut n) = (vec![0; 1 << 20], 0_usize);
    let want = LINE.repeat(buffer.len() / LINE.len() + 1);
    loop {
        // Slow at first: what the pipe does not take has to wait.
        if n < 1 << 20 {
            wait::within(std::time::Duration::from_millis(2), || None::<()>);
        }
        let got = pipe.read(&mut buffer).unwrap();
        if got == 0 {
            break;
        }
        let from = n % LINE.len();
        assert!(buffer[..got] == want[from..from + got], "not what was written, after {n} bytes");
        n += got;
    }
    assert_eq!((n, run.code()), (1 << 30, 0));
}

fn fifty_jobs_and_those_who_look_at_them(s: &Sandbox) {
    let mut jobs: Vec<_> = (0..50)
        .map(|n| {
            let flags: &[&str] = if n % 2 == 0 { &["--rm"] } else { &[] };
            let run = s.dhow(["run", "--name", &format!("job{n}")]).args(flags);
            run.args(["busybox", "sh", "-c", &format!("echo {n}; exit {}", n % 3)]).spawn_with(|_| ())
        })
        .collect();
    let mut codes = vec![None; jobs.len()];
    let mut looks = 0;
    while looks < 3 || codes.iter().any(Option::is_none) {
        for args in [
            &["ps", "-a"][..],
            &["ps", "-aq", "--no-trunc", "--filter", "status=exited"],
            &["images"],
            &["container", "prune", "-f"],
        ] {
            let out = s.dhow(args).output();
            assert!(out.code == 0 && out.stderr.is_empty(), "{}", out.report());
        }
        let id = s.dhow(["ps", "-alq"]).ok();
        if !id.is_empty() {
            // It may be gone by now, and that is all that may be said.
            for verb in ["inspect", "logs"] {
                let out = s.dhow([verb, &id]).output();
                let told = out.error_text().to_lowercase();
                assert!(
                    out.code == 0 || told.contains("no such") || told.contains("keeps none"),
                    "{}",
                    out.report()
                );
            }
        }
        looks += 1;
        for (job, code) in jobs.iter_mut().zip(&mut codes) {
            if code.is_none() {
                *code = job.child.try_wait().unwrap().map(|status| status.code().unwrap());
            }
        }
    }
    let want: Vec<Option<i32>> = (0..50).map(|n| Some(n % 3)).collect();
    assert_eq!(codes, want);
    s.dhow(["container", "prune", "-f"]).ok();
    s.assert_nothing_left();
}

fn variables_of_the_caller(s: &Sandbox) {
    let run = |flags: &[&str], script: &str| {
        s.sh(flags.iter().copied(), script).env("MINE", "caller").env("PATH", "/usr/bin:/bin:/caller").ok()
    };
    assert_eq!(run(&[], "echo $MINE"), "");
    assert_eq!(run(&["--env-host"], "echo $MINE"), "caller");
    assert_eq!(run(&["--env-host", "-e", "MINE=flag"], "echo $MINE"), "flag");
    s.file("vars", "# comment\nMINE=file\n\nOTHER=a=b \nUNSET_ONE\n");
    assert_eq!(
        run(&["--env-host", "--env-file", "vars"], "echo \"$MINE $OTHER|${UNSET_ONE-none}\""),
        "file a=b |none"
    );
    assert_eq!(run(&["--env-file", "vars", "-e", "MINE"], "echo $MINE"), "caller");
}

fn variables_taken_away(s: &Sandbox) {
    assert_eq!(s.sh(["--unsetenv", "HOSTNAME"], "env | grep -c ^HOSTNAME=").output().text(), "0");
    let all = s.dhow(["run", "--rm", "--unsetenv-all", "-e", "KEPT=1", "busybox", "/bin/env"]).ok();
    assert!(all.contains("KEPT=1") && !all.contains("HOSTNAME=") && !all.contains("PATH="), "{all}");
}

fn proxies(s: &Sandbox) {
    let run = |flags: &[&str]| {
        let script = "echo \"$http_proxy $HTTPS_PROXY $no_proxy\"";
        s.sh(flags.iter().copied(), script)
            .env("http_proxy", "http://p:1")
            .env("HTTPS_PROXY", "http://p:2")
            .ok()
    };
    assert_eq!(run(&[]), "http://p:1 http://p:2 ");
    assert_eq!(run(&["--http-proxy=false"]), "  ");
    assert_eq!(run(&["-e", "http_proxy=mine"]), "mine http://p:2 ");
    let docker = s.home.join(".docker");
    std::fs::create_dir_all(&docker).unwrap();
    let config = r#"{"proxies": {"default": {"httpProxy": "http://d:1", "noProxy": "local"}}}"#;
    std::fs::write(docker.join("config.json"), config).unwrap();
    assert_eq!(run(&[]), "http://d:1 http://p:2 local");
}

fn umask(s: &Sandbox) {
    assert_eq!(s.sh(NONE, "umask").ok(), "0022");
    assert_eq!(s.sh(["--umask", "0077"], "umask; touch /f; stat -c %a /f").ok(), "0077\n600");
    let out = s.sh(["--umask", "9"], "true").fails(125);
    assert!(out.contains("octal"), "{out}");
}

fn labels_annotations_and_ports(s: &Sandbox) {
    s.file("labels", "# one a line\na=1\nb\n");
    s.dhow([
        "create",
        "--name",
        "c1",
        "--label-file",
        "labels",
        "-l",
        "a=2",
        "--annotation",
        "k=v",
        "--network",
        "none",
    ])
    .args(["--expose", "90-91", "-p", "8080:80", "busybox", "true"])
    .ok();
    assert_eq!(s.inspect("c1", "{{.Config.Labels.a}}{{.Config.Labels.b}}"), "2");
    assert_eq!(s.inspect("c1", "{{json .Config.ExposedPorts}}"), r#"{"80/tcp":{},"90/tcp":{},"91/tcp":{}}"#);
    let out =
        s.dhow(["run", "--rm", "-p", "8080:80", "--network", "host", "busybox", "true"]).output().exits(0);
    assert!(out.error_text().contains("published ports are discarded"), "{}", out.report());
    for wrong in
        [["-p", "80:x"], ["--expose", "0"], ["--annotation", "novalue"], ["--label-file", "/no/such"]]
    {
        s.dhow(["run", "--rm"]).args(wrong).args(["busybox", "true"]).fails(125);
    }
}

fn files_for_ids(s: &Sandbox) {
    s.dhow(["run", "--rm", "--pidfile", "pid", "--cidfile", "cid", "busybox", "/no/such"]).fails(127);
    assert!(!s.work.join("pid").exists(), "a pidfile of nothing");
    s.file("pid", "12345 of another run");
    let id =
        s.dhow(["run", "-d", "--pidfile", "pid", "--cidfile", "cid2", "busybox", "sleep", "1000"]).output();
    let id = s.note(id.text(), &id);
    assert_eq!(std::fs::read_to_string(s.work.join("cid2")).unwrap(), id);
    assert_eq!(std::fs::read_to_string(s.work.join("pid")).unwrap(), s.inspect(&id, "{{.State.Pid}}"));
    let out = s.dhow(["run", "--rm", "--cidfile", "cid2", "busybox", "true"]).fails(125);
    assert!(out.contains("cid2") && out.contains("may belong to a container"), "{out}");
    let out = s.dhow(["run", "--rm", "--cidfile", "no/such/dir", "busybox", "true"]).fails(125);
    assert!(!out.contains("may belong"), "{out}");
    // As with docker, no name is no file.
    s.dhow(["run", "--rm", "--cidfile", "", "--pidfile", "", "busybox", "true"]).ok();
}

fn the_image_goes_too(s: &Sandbox) {
    s.dhow(["tag", "busybox", "other"]).ok();
    assert_eq!(
        s.dhow(["run", "--rmi", "other", "sh", "-c", "echo ran; exit 3"]).output().exits(3).text(),
        "ran"
    );
    assert_eq!(s.dhow(["images", "-q", "other"]).ok(), "");
    s.assert_nothing_left();
    // Not one that others use.
    s.dhow(["create", "--name", "c1", "busybox", "true"]).ok();
    s.dhow(["run", "--rmi", "busybox", "true"]).ok();
    s.dhow(["start", "c1"]).ok();
    s.dhow(["run", "-d", "--rmi", "busybox", "true"]).fails(125);
    let out = s.dhow([
        "run",
        "--retry",
        "1",
        "--retry-delay",
        "1ms",
        "--tls-verify=false",
        "127.0.0.1:1/none",
        "true",
    ]);
    let out = out.patiently().fails(125);
    assert_eq!(out.matches("trying again").count(), 1, "{out}");
}
