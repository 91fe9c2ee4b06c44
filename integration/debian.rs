//! A real distribution in a container: Debian's own root file system, its package manager, python, su and ps.

use std::path::Path;

use crate::capability::needs;
use crate::images;
use crate::sandbox::Sandbox;
use crate::user::User;

/// One sandbox per user, since the import is what takes the time.
fn each(user: User, test: &str, body: impl FnOnce(&Sandbox)) {
    needs!("apt");
    let Some(sandbox) = Sandbox::empty(user, test) else { return };
    sandbox.import_debian();
    body(&sandbox);
}

#[test]
fn as_root() {
    each(User::Root, "as_root", everything);
}

#[test]
fn as_user_with_ranges() {
    each(User::Ranges, "as_user_with_ranges", everything);
}

#[test]
fn as_user_with_one_id() {
    each(User::Single, "as_user_with_one_id", everything);
}

fn everything(s: &Sandbox) {
    python_and_ps(s);
    owners(s);
    su_to_another_user(s);
    init_system_files(s);
    apt_get_install(s);
}

#[track_caller]
fn bash(s: &Sandbox, flags: &[&str], script: &str) -> crate::command::Output {
    s.dhow(["run", "--rm"]).args(flags).args(["debian", "bash", "-ec", script]).output()
}

fn python_and_ps(s: &Sandbox) {
    let script =
        "import os, sys, socket\nprint(sum(range(10)), os.getuid(), socket.gethostname())\nsys.exit(3)";
    s.file("script.py", script);
    let mount = format!("{}:/script.py:ro", s.work.join("script.py").display());
    let out = s
        .dhow(["run", "--rm", "-h", "deb", "-v", &mount, "debian", "python3", "/script.py"])
        .output()
        .exits(3);
    assert_eq!(out.text(), "45 0 deb");
    let out = bash(s, &[], "ps -eo pid,args --no-headers").exits(0).text();
    assert!(out.trim_start().starts_with("1 bash") || out.trim_start().starts_with("1 ps"), "{out}");
}

fn owners(s: &Sandbox) {
    // What the archive says of owners and modes is what a container sees; with one id, all is that one's.
    let out = bash(s, &[], "stat -c '%U:%G %a' /etc/shadow /usr/bin/passwd /var/mail /tmp").exits(0).text();
    let owners = if s.user == User::Single { ["root", "root"] } else { ["shadow", "mail"] };
    let expected = format!("root:{} 640\nroot:root 4755\nroot:{} 2775\nroot:root 1777", owners[0], owners[1]);
    assert_eq!(out, expected);
}

fn su_to_another_user(s: &Sandbox) {
    let out = bash(s, &[], "useradd -m guest; su guest -c 'id -un; touch ~/x; stat -c %U ~/x'").exits(0);
    // With one id, whose file it is stays that one's.
    assert_eq!(out.text(), if s.user == User::Single { "guest\nroot" } else { "guest\nguest" });
}

fn init_system_files(s: &Sandbox) {
    let out = bash(s, &[], "getent passwd root; hostname; cat /proc/1/comm; id").exits(0).text();
    assert!(out.contains("uid=0(root) gid=0(root)"), "{out}");
}

fn apt_get_install(s: &Sandbox) {
    // From the registry that this machine uses, over the host's network. `file` brings libraries and a data base along;
    // `uuid-runtime` makes a system user, changes owners and sets modes in its postinst.
    let sources = Path::new("/etc/apt");
    let mount = format!("{}:/host-apt:ro", sources.display());
    let script = "export DEBIAN_FRONTEND=noninteractive
        cp -f /host-apt/apt.conf.d/*proxy* /etc/apt/apt.conf.d/ 2>/dev/null || true
        echo 'Acquire::Retries \"5\";' > /etc/apt/apt.conf.d/99retries
        apt-get update -qq >&2
        apt-get install -y -qq --no-install-recommends file uuid-runtime >&2
        file -b /bin/bash | cut -d, -f1
        dpkg -V file uuid-runtime
        getent passwd uuidd | cut -d: -f1
        test -z \"$(dpkg --audit)\" && echo clean";
    let out = s
        .dhow(["run", "--name", "apt", "--network", "host", "-v", &mount, "debian", "bash", "-ec", script])
        .patiently()
        .output()
        .exits(0);
    let text = out.text();
    assert!(text.starts_with("ELF 64-bit LSB") && text.ends_with("uuidd\nclean"), "{}", out.report());
    s.dhow(["rm", "apt"]).ok();
    assert!(images::debian().exists());
}
