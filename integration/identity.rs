//! Who the caller is inside, and whose the files are: --userns, own, users that the image does not know.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::sandbox::{NONE, Sandbox};
use crate::user::User;

for_each_user!(
    what_is_written_belongs_to_the_caller,
    own_in_the_long_form,
    a_number_has_a_name_and_a_home,
    mistakes_are_told,
);
for_rootless!(
    keep_id,
    keep_id_in_exec,
    keep_id_as_another,
    keep_id_and_files,
    a_keep_id_container_starts_again
);
for_users_with_many_ids!(a_volume_of_a_user);
for_root!(root_is_who_they_are, own_leaves_others_alone, own_where_it_cannot_be);

fn bind(s: &Sandbox, options: &str) -> String {
    format!("{}:/src{options}", s.subdir("src").display())
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = std::fs::metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

fn what_is_written_belongs_to_the_caller(s: &Sandbox) {
    s.file("src/there", "x");
    let flag = bind(s, ":own");
    for user in ["0", "1000", "app", "1234:4321"] {
        let script = "echo y >> /src/there && mkdir /src/dir && touch /src/dir/file";
        s.sh(["-v", &flag, "-u", user], script).ok();
        for name in ["there", "dir", "dir/file"] {
            let path = s.work.join("src").join(name);
            assert_eq!(owner(&path), (s.account.uid, s.account.gid), "{name} written as {user}");
        }
        std::fs::remove_dir_all(s.work.join("src/dir")).unwrap();
    }
    // And inside it is the user's own.
    if s.user != User::Single {
        assert_eq!(s.sh(["-v", &flag, "-u", "1000:1000"], "stat -c %u:%g /src/there").ok(), "1000:1000");
        assert_eq!(s.sh(["-v", &flag, "-u", "1000:1000"], "stat -c %u:%g /etc/motd").ok(), "0:0");
    }
}

fn own_in_the_long_form(s: &Sandbox) {
    let mount = format!("type=bind,src={},dst=/src,own", s.subdir("src").display());
    s.sh(["--mount", &mount, "-u", "app"], "touch /src/x").ok();
    assert_eq!(owner(&s.work.join("src/x")), (s.account.uid, s.account.gid));
}

fn keep_id(s: &Sandbox) {
    s.file("src/mine", "x");
    let (uid, gid) = (s.account.uid, s.account.gid);
    let run = |script: &str| s.sh(["--userns", "keep-id", "-v", &bind(s, "")], script).ok();
    assert_eq!(run("id -u; id -g; id -un"), format!("{uid}\n{gid}\n{}", s.account.name));
    let home = format!("/home/{}", s.account.name);
    assert_eq!(
        run("stat -c %u:%g /src/mine; touch /src/new ~/f && echo $HOME"),
        format!("{uid}:{gid}\n{home}")
    );
    assert_eq!(owner(&s.work.join("src/new")), (uid, gid));
    if s.user == User::Single {
        assert_eq!(run("stat -c %u /etc/motd"), uid.to_string(), "the kernel gives one id one owner");
    } else {
        assert_eq!(
            run("stat -c %u:%g /etc/motd /bin/su; touch /etc/motd || echo refused"),
            "0:0\n0:0\nrefused"
        );
        // Though they were added to it.
        assert_eq!(run("stat -c %u:%g /etc/passwd; test -w /etc/passwd || echo refused"), "0:0\nrefused");
        assert_eq!(run("stat -c %a /bin/su"), "4755", "set-id bits outlive the change of owner");
    }
    let root = s.sh(["--userns", "keep-id", "-u", "0"], "id -u; touch /etc/new && stat -c %u /etc/new").ok();
    assert_eq!(root, "0\n0");
}

fn keep_id_as_another(s: &Sandbox) {
    let mount = bind(s, "");
    let flags = ["--userns", "keep-id:uid=1000,gid=1000", "-v", &mount];
    assert_eq!(s.sh(flags, "id -un; touch /src/x; stat -c %u /src/x").ok(), "app\n1000");
    assert_eq!(owner(&s.work.join("src/x")), (s.account.uid, s.account.gid));
    let nomap = s.sh(
        ["--userns", "nomap", "-v", &mount],
        "id -u; stat -c %u /src /etc/motd; touch /src/y || echo refused",
    );
    if s.user == User::Ranges {
        assert_eq!(nomap.ok(), "0\n65534\n0\nrefused");
    } else {
        nomap.output().exits(125).complains("one id");
    }
}

fn keep_id_in_exec(s: &Sandbox) {
    s.detached(["--name", "box", "--userns", "keep-id"], ["sleep", "1000"]);
    let exec =
        |flags: &[&str], script: &str| s.dhow(["exec"]).args(flags).args(["box", "sh", "-c", script]).ok();
    assert_eq!(exec(&[], "id -u; echo $HOME"), format!("{}\n/home/{}", s.account.uid, s.account.name));
    assert_eq!(exec(&["-u", "0"], "id -u; touch /etc/x && echo done"), "0\ndone");
}

fn keep_id_and_files(s: &Sandbox) {
    let roots = if s.user == User::Single {
        format!("{}:{}", s.account.uid, s.account.gid)
    } else {
        "0:0".to_owned()
    };
    s.file("f", "f");
    s.detached(["--name", "box", "--userns", "keep-id"], ["sleep", "1000"]);
    s.dhow(["create", "--name", "later", "--userns", "keep-id", "busybox", "stat", "-c", "%u:%g", "/tmp/f"])
        .ok();
    for name in ["box", "later"] {
        s.dhow(["cp", "f", &format!("{name}:/tmp/f")]).ok();
        s.dhow(["cp", &format!("{name}:/tmp/f"), "out"]).ok();
        assert_eq!(owner(&s.work.join("out")), (s.account.uid, s.account.gid));
    }
    assert_eq!(s.dhow(["exec", "box", "stat", "-c", "%u:%g", "/tmp/f"]).ok(), roots);
    assert_eq!(s.dhow(["start", "-a", "later"]).ok(), roots);
    s.dhow(["exec", "box", "sh", "-c", "echo mine > /tmp/mine"]).ok();
    s.dhow(["exec", "-u", "0", "box", "sh", "-c", "echo y >> /etc/motd"]).ok();
    let diff = s.dhow(["diff", "box"]).ok();
    assert!(diff.contains("C /etc/motd") && diff.contains("A /tmp/mine"), "{diff}");
    assert!(!diff.contains("/bin"), "other owners are no change: {diff}");
    s.dhow(["commit", "box", "made"]).ok();
    let stat =
        s.dhow(["run", "--rm", "made", "stat", "-c", "%u:%g", "/etc/motd", "/tmp/mine", "/tmp/f"]).ok();
    if s.user == User::Ranges {
        let own = format!("{}:{}", s.account.uid, s.account.gid);
        assert_eq!(stat, format!("0:0\n{own}\n0:0"), "in the image files are whose they were inside");
    }
}

fn a_keep_id_container_starts_again(s: &Sandbox) {
    let script = "touch ~/$(ls ~ | wc -l); ls ~ | wc -l; grep -c container.user /etc/passwd";
    s.dhow(["run", "--name", "again", "--userns", "keep-id", "busybox", "sh", "-c", script]).ok();
    assert_eq!(s.dhow(["start", "-a", "again"]).ok(), "2\n1");
    // What was copied for it goes with the image.
    s.dhow(["rm", "again"]).ok();
    s.dhow(["rmi", "busybox"]).ok();
    let left = std::fs::read_dir(s.store.join("mapped")).map(|d| d.count()).unwrap_or(0);
    assert_eq!(left, 0);
}

fn a_volume_of_a_user(s: &Sandbox) {
    let flags = ["-v", "v:/home/app", "-v", &bind(s, ":own"), "-u", "app"];
    s.sh(flags, "id -u > /src/id").ok();
    assert_eq!(std::fs::read_to_string(s.work.join("src/id")).unwrap(), "1000\n");
}

fn a_number_has_a_name_and_a_home(s: &Sandbox) {
    let run = |flags: &[&str], script: &str| s.sh(flags, script).ok();
    assert_eq!(run(&["-u", "1234"], "id -un; echo $HOME; touch ~/x && echo ok"), "1234\n/home/1234\nok");
    assert_eq!(run(&["-u", "1234:55"], "id -g; grep -c :55: /etc/group"), "55\n1");
    assert_eq!(run(&["-u", "1234", "--read-only"], "touch ~/x && echo ok; touch /y || echo ro"), "ok\nro");
    let home = run(&["-u", "1234", "-e", "HOME=/tmp"], "echo $HOME; grep 1234 /etc/passwd | cut -d: -f6");
    assert_eq!(home, "/tmp\n/tmp");
    assert_eq!(
        run(&["-u", "1234", "--passwd=false"], "echo $HOME; grep -c 1234 /etc/passwd || true"),
        "/\n0"
    );
    assert_eq!(run(&["-u", "app"], "echo $HOME"), "/home/app");
    assert_eq!(run(&[], "grep -c 1234 /etc/passwd || true"), "0", "an image is never changed by it");
}

fn mistakes_are_told(s: &Sandbox) {
    for (mode, cause) in
        [("odd", "odd"), ("keep-id:uid=x", "uid=x"), ("keep-id:pid=1", "pid=1"), ("keep-id:", "keep-id:")]
    {
        s.sh(["--userns", mode], "true").output().exits(125).complains(cause);
    }
}

fn root_is_who_they_are(s: &Sandbox) {
    assert_eq!(s.sh(["--userns", "keep-id"], "id -u").ok(), "0");
    assert_eq!(s.sh(["--userns", "host"], "id -u").ok(), "0");
    s.sh(["--userns", "keep-id:uid=1000"], "id -u").output().exits(125).complains("own");
    s.sh(["--userns", "nomap"], "id -u").output().exits(125);
    let mount = bind(s, ":own");
    std::os::unix::fs::chown(s.work.join("src"), Some(4321), Some(4322)).unwrap();
    let sudo = s
        .sh(["-v", &mount], "touch /src/x; stat -c %u /src/x")
        .env("SUDO_UID", "4321")
        .env("SUDO_GID", "4322");
    sudo.output().exits(0);
    assert_eq!(owner(&s.work.join("src/x")), (4321, 4322), "behind sudo it is who called it");
}

fn own_leaves_others_alone(s: &Sandbox) {
    let other = s.file("src/other", "x");
    std::os::unix::fs::chown(&other, Some(77), Some(78)).unwrap();
    assert_eq!(s.sh(["-v", &bind(s, ":own"), "-u", "1000:1000"], "stat -c %u:%g /src/other").ok(), "77:78");
    assert_eq!(owner(&other), (77, 78));
}

fn own_where_it_cannot_be(s: &Sandbox) {
    let out =
        s.sh(["-v", "/proc/sys:/src:own", "-u", "1000"], "true").output().exits(125).complains("owners");
    assert!(out.error_text().contains("hint: "), "{}", out.report());
    s.sh(NONE, "true").ok();
}
