//! `make install`, and what it installs: completion scripts that real shells run, and manual pages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::{Sandbox, dhow};

for_each_user!(names_are_completed, quick_and_silent_without_a_store);
for_root!(installed_files, bash_completes, other_shells_take_their_scripts, pages_can_be_read);

/// What `dhow __complete` says of a line; the last word is being typed.
fn complete(s: &Sandbox, line: &[&str]) -> Vec<String> {
    let args = [&["__complete", "--root", s.store.to_str().unwrap()], line].concat();
    let text = s.program(dhow()).args(args).ok();
    text.lines().map(|l| l.split('\t').next().unwrap().to_owned()).collect()
}

fn names_are_completed(s: &Sandbox) {
    s.detached(["--name", "runs-one"], ["sleep", "1000"]);
    s.dhow(["create", "--name", "rests-one", "busybox"]).ok();
    s.dhow(["tag", "busybox", "reg.example:5000/a/b:3"]).ok();
    s.dhow(["volume", "create", "vol-one"]).ok();
    s.dhow(["shell", "--name", "box-one", "busybox", "--", "true"]).ok();
    for (line, want) in [
        (&["rm", "r"][..], &["words", "rests-one", "runs-one"][..]),
        (&["exec", "-it", "r"], &["words", "runs-one"]),
        (&["start", "r"], &["words", "rests-one"]),
        (&["container", "inspect", "b"], &["words", "box-one"]),
        (&["shell", "b"], &["words", "box-one", "busybox"]),
        (&["run", "--rm", "-e", "A=b", "b"], &["words", "busybox"]),
        (&["run", "reg"], &["words", "reg.example:5000/a/b:3"]),
        (&["run", "busybox", "r"], &["files"]),
        (&["rmi", "busybox", "reg"], &["words", "reg.example:5000/a/b:3"]),
        (&["volume", "rm", "v"], &["words", "vol-one"]),
        (&["run", "-v", "v"], &["both", "vol-one"]),
        (&["run", "--volume=v"], &["both", "--volume=vol-one"]),
        (&["cp", "r"], &["both", "rests-one:", "runs-one:"]),
        (&["rm", "nosuch"], &["words"]),
    ] {
        let mut answer = complete(s, line);
        answer[1..].sort();
        assert_eq!(answer, want, "{line:?}");
    }
}

fn quick_and_silent_without_a_store(s: &Sandbox) {
    let root = s.work.join("none");
    let output = s.program(dhow()).args(["__complete", "--root", root.to_str().unwrap(), "rm", ""]).output();
    assert_eq!((output.code, output.text(), output.error_text()), (0, "words".into(), String::new()));
    assert!(!root.exists(), "what is only typed makes nothing");
    let path = s.home.join(".config/dhow/config.toml");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "nonsense").unwrap();
    let output = s.program(dhow()).args(["__complete", "unta"]).output();
    assert_eq!(output.error_text(), "", "{}", output.report());
    assert!(output.text().contains("untag"));
    fs::remove_file(path).unwrap();
}

/// The checkout installed beneath a directory of the sandbox.
fn installed(s: &Sandbox) -> PathBuf {
    let to = s.dir.join("installed");
    let made = Command::new("make")
        .args(["--silent", "install", "PREFIX=/usr"])
        .arg(format!("DESTDIR={}", to.display()))
        .arg(format!("RELEASE={}", dhow().display()))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    to.join("usr")
}

fn installed_files(s: &Sandbox) {
    let usr = installed(s);
    assert!(s.program(usr.join("bin/dhow")).arg("--version").ok().starts_with("dhow "));
    for file in [
        "share/bash-completion/completions/dhow",
        "share/zsh/site-functions/_dhow",
        "share/fish/vendor_completions.d/dhow.fish",
        "share/man/man1/dhow.1",
        "share/man/man1/dhow-run.1",
        "share/man/man1/dhow-container-ls.1",
        "share/man/man1/dhow-volume.1",
    ] {
        let text = fs::read_to_string(usr.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(!text.is_empty(), "{file}");
    }
    let left: Vec<_> = fs::read_dir(s.dir.join("installed")).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing outside of the prefix");
    // Once more, over itself.
    installed(s);
}

/// What bash makes of a line, with the cursor at its end.
fn bash(s: &Sandbox, usr: &Path, line: &str) -> Vec<String> {
    let script = format!(
        "source {}/share/bash-completion/completions/dhow\n\
         complete -p dhow >/dev/null || exit 9\n\
         COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=($COMP_LINE); COMP_CWORD=1\n\
         _dhow && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        usr.display()
    );
    let path = format!("{}/bin:/usr/bin:/bin", usr.display());
    let cmd = s.program("bash").args(["--norc", "-c", &script]).env("PATH", path).env("DHOW_ROOT", &s.store);
    let mut words: Vec<String> = cmd.ok().lines().map(str::to_owned).collect();
    words.sort();
    words
}

fn bash_completes(s: &Sandbox) {
    let usr = installed(s);
    s.detached(["--name", "web"], ["sleep", "1000"]);
    s.dhow(["tag", "busybox", "reg.example:5000/a/b:3"]).ok();
    s.file("some file", "");
    for (line, want) in [
        ("dhow unta", &["untag"][..]),
        ("dhow container unpa", &["unpause"]),
        ("dhow stop w", &["web"]),
        ("dhow stop ", &["web"]),
        ("dhow run --network=n", &["none"]),
        ("dhow run --network n", &["none"]),
        ("dhow run reg.example:5000/a/b", &["5000/a/b:3"]),
        ("dhow run reg", &["reg.example:5000/a/b:3"]),
        ("dhow load -i so", &["some file"]),
        ("dhow cp w", &["web:"]),
        ("dhow rm nosuch", &[]),
    ] {
        assert_eq!(bash(s, &usr, line), want, "{line}");
    }
}

fn other_shells_take_their_scripts(s: &Sandbox) {
    let usr = installed(s);
    for (shell, args, file) in [
        ("zsh", "-n", "share/zsh/site-functions/_dhow"),
        ("fish", "--no-execute", "share/fish/vendor_completions.d/dhow.fish"),
        ("bash", "-n", "share/bash-completion/completions/dhow"),
    ] {
        let output = Command::new(shell).arg(args).arg(usr.join(file)).output();
        let output = output.unwrap_or_else(|e| panic!("{shell} (make prepare installs it): {e}"));
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {output:?}");
    }
    s.detached(["--name", "web"], ["sleep", "1000"]);
    let script = format!(
        "source {}/share/fish/vendor_completions.d/dhow.fish; complete -C 'dhow stop w'",
        usr.display()
    );
    let path = format!("{}/bin:/usr/bin:/bin", usr.display());
    let fish =
        s.program("fish").args(["--no-config", "-c", &script]).env("PATH", path).env("DHOW_ROOT", &s.store);
    assert_eq!(fish.ok(), "web\tbusybox");
}

fn pages_can_be_read(s: &Sandbox) {
    let usr = installed(s);
    let man = usr.join("share/man");
    let pages: Vec<String> = fs::read_dir(man.join("man1"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    let help = s.dhow(["--help"]).ok();
    let verbs = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    for verb in verbs.map(|l| l.split_whitespace().next().unwrap()).filter(|v| *v != "help") {
        assert!(pages.contains(&format!("dhow-{verb}.1")), "no page for {verb}: {pages:?}");
    }
    for page in ["dhow", "dhow-run", "dhow-container-run", "dhow-shell"] {
        let read = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-M"])
            .arg(&man)
            .arg(page)
            .env("MANPAGER", "cat")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&read.stdout);
        assert!(read.status.success() && text.contains("NAME"), "{page}: {read:?}");
    }
}
