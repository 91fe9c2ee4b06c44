//! Secrets: what has them, and what never does.

use std::path::Path;

use crate::sandbox::{NONE, Sandbox};
use crate::{leftovers, wait};

for_each_user!(
    given_as_files,
    given_as_variables,
    given_from_the_caller,
    written_nowhere,
    verbs,
    wrong_input,
    they_go_with_the_container,
);

const VALUE: &str = "hunter2-Zq9x7w-value";

#[track_caller]
fn store(s: &Sandbox, name: &str) {
    s.dhow(["secret", "create", name, "-"]).stdin(VALUE).ok();
}

fn given_as_files(s: &Sandbox) {
    store(s, "one");
    let flags = ["--secret", "one"];
    assert_eq!(
        s.sh(flags, "cat /run/secrets/one; echo; stat -c '%a %u:%g' /run/secrets/one").ok(),
        format!("{VALUE}\n444 0:0")
    );
    let seen = s
        .sh(
            flags,
            "grep ' /run/secrets ' /proc/mounts; echo x >/run/secrets/one || echo no; ls -A /run/secrets",
        )
        .ok();
    assert!(seen.starts_with("tmpfs /run/secrets tmpfs ro,"), "{seen}");
    assert!(seen.ends_with("no\none"), "{seen}");
    // Anywhere, with an owner; for a user that is not root, on a read-only root.
    let deep =
        ["--secret", "one,target=/etc/deep/key,mode=400", "--secret", "id=one,target=two", "--read-only"];
    let seen = s.sh(deep, "cat /etc/deep/key; stat -c ' %a' /etc/deep/key; ls -A /run/secrets; touch /etc/deep/key || echo ro").ok();
    assert_eq!(seen, format!("{VALUE} 400\ntwo\nro"));
    assert_eq!(s.sh(["--secret", "one", "-u", "33"], "cat /run/secrets/one").ok(), VALUE);
    if s.user != crate::user::User::Single {
        let own = ["--secret", "one,uid=33,gid=34,mode=0440", "-u", "33"];
        assert_eq!(
            s.sh(own, "stat -c '%a %u:%g' /run/secrets/one; cat /run/secrets/one").ok(),
            format!("440 33:34\n{VALUE}")
        );
    }
    // A secret that is replaced or gone stays what it was where it was given.
    s.dhow(["create", "--name", "c1", "--secret", "one", "busybox", "cat", "/run/secrets/one"]).ok();
    s.dhow(["secret", "create", "--replace", "one", "-"]).stdin("another").ok();
    s.dhow(["secret", "rm", "one"]).ok();
    for _ in 0..2 {
        assert_eq!(s.dhow(["start", "-a", "c1"]).ok(), VALUE);
    }
}

fn given_as_variables(s: &Sandbox) {
    store(s, "one");
    let flags = ["--secret", "one,type=env,target=KEY", "--secret", "one,type=env", "-e", "KEY=before"];
    assert_eq!(
        s.sh(flags, "echo $KEY; echo $one; ls /run/secrets 2>&1 | wc -l").ok(),
        format!("{VALUE}\n{VALUE}\n1")
    );
    s.detached(["--name", "c1", "--secret", "one,type=env"], ["sleep", "1000"]);
    assert_eq!(s.dhow(["exec", "c1", "sh", "-c", "echo $one"]).ok(), VALUE);
}

fn given_from_the_caller(s: &Sandbox) {
    let path = s.file("key", VALUE);
    let from_file = format!("id=k,src={}", path.display());
    assert_eq!(s.sh(["--secret", &from_file], "cat /run/secrets/k").ok(), VALUE);
    assert_eq!(
        s.sh(["--secret", "id=k,env=MINE"], "cat /run/secrets/k; env | grep -c MINE")
            .env("MINE", VALUE)
            .output()
            .text(),
        format!("{VALUE}0")
    );
    assert_eq!(s.sh(["--secret", "id=k,env=MINE,type=env"], "echo $k").env("MINE", VALUE).ok(), VALUE);
    s.assert_nothing_left();
}

/// Files beneath `dir` with the value in them, those in `secrets` left out.
fn with_value(dir: &Path, found: &mut Vec<String>) {
    for name in leftovers::names(dir) {
        let path = dir.join(&name);
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() && name != "secrets" {
            with_value(&path, found);
        } else if meta.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(VALUE.len()).any(|w| w == VALUE.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
}

fn written_nowhere(s: &Sandbox) {
    store(s, "one");
    let flags = ["--secret", "one", "--secret", "one,type=env,target=E", "--secret", "one,target=/etc/k"];
    let run =
        s.dhow(["run", "-d", "--name", "c1", "--secret", "id=v,env=MINE"]).args(flags).env("MINE", VALUE);
    let run = run.args(["busybox", "sh", "-c", "echo started; sleep 1000"]).output().exits(0);
    s.note(run.text(), &run);
    wait::until("its log", || s.dhow(["logs", "c1"]).ok().contains("started").then_some(()));
    s.dhow(["commit", "c1", "committed"]).ok();
    let mut shown = s.dhow(["inspect", "c1"]).ok();
    for args in [
        &["history", "--no-trunc", "committed"][..],
        &["logs", "c1"],
        &["image", "inspect", "committed"],
        &["events", "--since", "1h", "--until", "0s"],
        &["ps", "-a", "--no-trunc"],
    ] {
        shown += &s.dhow(args).ok();
    }
    assert!(!shown.contains(VALUE), "{shown}");
    let export = s.dhow(["export", "c1"]).output().exits(0);
    assert!(!export.stdout.windows(VALUE.len()).any(|w| w == VALUE.as_bytes()), "in the export");
    let mut found = Vec::new();
    with_value(&s.store, &mut found);
    assert!(found.is_empty(), "{found:?}");
    for pid in leftovers::names(Path::new("/proc")) {
        let line = std::fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
        assert!(!line.windows(VALUE.len()).any(|w| w == VALUE.as_bytes()), "on a command line");
    }
    // What is kept is the caller's alone.
    use std::os::unix::fs::MetadataExt;
    let mode = |path: &str| std::fs::metadata(s.store.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("secrets"), mode("secrets/stored/one"), mode("secrets/stored/one/value")),
        (0o700, 0o700, 0o600)
    );
}

fn verbs(s: &Sandbox) {
    let id = s.dhow(["secret", "create", "--label", "a=b", "one", "-"]).stdin(VALUE).ok();
    assert!(id.len() == 25 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    s.file("key", "file");
    s.dhow(["secret", "create", "two", "key"]).ok();
    s.dhow(["secret", "create", "--env", "three", "MINE"]).env("MINE", "env").ok();
    assert_eq!(
        s.dhow(["secret", "ls", "--format", "{{.Name}} {{.Driver}}"]).ok(),
        "one file\nthree file\ntwo file"
    );
    assert!(s.dhow(["secret", "ls"]).ok().starts_with("ID "));
    assert_eq!(s.dhow(["secret", "ls", "-q", "--filter", "name=one"]).ok(), id);
    let told = s.dhow(["secret", "inspect", "one"]).ok();
    assert!(told.contains("\"Name\": \"one\"") && !told.contains(VALUE), "{told}");
    assert_eq!(
        s.dhow(["secret", "inspect", "--showsecret", "--format", "{{.SecretData}}", "two"]).ok(),
        "file"
    );
    let taken = s.dhow(["secret", "create", "one", "-"]).stdin("x").fails(1);
    assert!(taken.contains("the name is in use"), "{taken}");
    s.dhow(["secret", "exists", "one"]).ok();
    s.dhow(["secret", "exists", "none"]).fails(1);
    assert_eq!(s.dhow(["secret", "rm", &id[..8]]).ok(), id);
    s.dhow(["secret", "rm", "one"]).fails(1);
    s.dhow(["secret", "rm", "--ignore", "one"]).ok();
    s.dhow(["secret", "rm", "--all"]).ok();
    assert_eq!(s.dhow(["secret", "ls", "-q"]).ok(), "");
    // Two at once: one wins.
    let mut both: Vec<_> =
        (0..2).map(|_| s.dhow(["secret", "create", "key", "key"]).spawn_with(|_| ())).collect();
    let mut codes: Vec<i32> = both.iter_mut().map(|one| one.code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 1]);
}

fn wrong_input(s: &Sandbox) {
    for (flag, word) in [
        ("none", "no such secret"),
        ("id=a,src=/no/such", "/no/such"),
        ("id=a,env=NOT_SET", "NOT_SET is not set"),
        ("id=a,src=/etc/passwd,env=HOME", "both src and env"),
        ("a,what=1", "no such field"),
        ("a,mode=rw", "not octal"),
    ] {
        let out = s.sh(["--secret", flag], "true").fails(125);
        assert!(out.contains(word), "{flag}: {out}");
    }
    store(s, "one");
    let out = s.sh(["--secret", "one", "--secret", "one"], "true").fails(125);
    assert!(out.contains("two secrets"), "{out}");
    s.dhow(["secret", "create", "empty", "-"]).stdin("").fails(1);
    s.dhow(["secret", "create", "big", "-"]).stdin(vec![b'x'; 512_001]).fails(1);
    s.dhow(["secret", "create", "../up", "-"]).stdin("x").fails(1);
    s.file("bytes", b"a\0b");
    s.sh(["--secret", "id=b,src=bytes,type=env"], "true").fails(125);
    assert_eq!(s.sh(["--secret", "id=b,src=bytes"], "wc -c </run/secrets/b").ok(), "3");
    assert_eq!(s.dhow(["ps", "-aq"]).args(NONE).ok(), "");
    assert!(leftovers::names(&s.store.join("secrets/of")).is_empty());
}

fn they_go_with_the_container(s: &Sandbox) {
    store(s, "one");
    let copies = || leftovers::names(&s.store.join("secrets/of")).len();
    s.dhow(["create", "--name", "c1", "--secret", "one", "busybox", "true"]).ok();
    assert_eq!(copies(), 1);
    // The name is taken: nothing stays.
    s.dhow(["create", "--name", "c1", "--secret", "one", "busybox", "true"]).fails(1);
    assert_eq!(copies(), 1);
    s.dhow(["rm", "c1"]).ok();
    assert_eq!(copies(), 0);
    s.sh(["--secret", "one"], "true").ok();
    assert_eq!(copies(), 0);
    // What a death left is swept.
    std::fs::create_dir(s.store.join("secrets/of").join("a".repeat(64))).unwrap();
    s.dhow(["secret", "create", "two", "-"]).stdin("x").ok();
    assert_eq!(copies(), 0);
}
