//! `dhow cp`: what lands where, what comes along, in any state of a container.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::sandbox::{NONE, Sandbox};

for_each_user!(
    both_ways_in_any_state,
    what_lands_where_in_a_container,
    what_lands_where_on_the_host,
    what_is_refused,
    what_comes_along,
    archives_both_ways,
    a_compressed_archive,
    an_archive_goes_through_links_inside,
    mounts_are_seen,
    read_only_is_refused,
    what_is_told,
    a_file_that_is_mounted_gets_the_content,
);
for_users_with_many_ids!(owners);

/// A container in each of its states, by name.
fn containers(s: &Sandbox, flags: &[&str]) -> [&'static str; 3] {
    let sleep = ["sleep", "1000"];
    s.dhow(["create", "--name", "created"]).args(flags).arg("busybox").args(sleep).ok();
    s.detached(["--name", "running"].iter().chain(flags), sleep);
    s.detached(["--name", "ended"].iter().chain(flags), ["true"]);
    s.dhow(["wait", "ended"]).ok();
    ["created", "running", "ended"]
}

fn cp(s: &Sandbox, from: &str, to: &str) {
    s.dhow(["cp", "-q", from, to]).ok();
}

/// What a command in the container prints, running or not: it is started for it if need be.
fn names_below(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, prefix: &str, names: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), names);
            }
            names.push(name);
        }
    }
    let mut names = Vec::new();
    walk(dir, "", &mut names);
    names.sort();
    names
}

fn both_ways_in_any_state(s: &Sandbox) {
    s.file("in/a", "one\n");
    s.file("in/deep/er/b", vec![7; 300_000]);
    s.file("in/empty", "");
    symlink("deep/er", s.work.join("in/link")).unwrap();
    for name in containers(s, &[]) {
        cp(s, "in", &format!("{name}:/tmp/there"));
        cp(s, &format!("{name}:/tmp/there"), &format!("out-{name}"));
        let out = s.work.join(format!("out-{name}"));
        assert_eq!(names_below(&out), names_below(&s.work.join("in")), "{name}");
        assert_eq!(fs::read(out.join("deep/er/b")).unwrap(), vec![7; 300_000]);
        assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("deep/er"));
        let meta = fs::metadata(out.join("a")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (s.account.uid, s.account.gid), "the caller's");
    }
    assert_eq!(s.dhow(["exec", "running", "cat", "/tmp/there/a"]).ok(), "one");
    // What was put into one that did not run is there when it does.
    for name in ["created", "ended"] {
        s.dhow(["start", name]).ok();
        cp(s, &format!("{name}:/tmp/there/a"), &format!("after-{name}"));
        assert_eq!(fs::read_to_string(s.work.join(format!("after-{name}"))).unwrap(), "one\n");
    }
}

fn what_lands_where_in_a_container(s: &Sandbox) {
    s.file("f", "file");
    s.file("d/x", "x");
    symlink("f", s.work.join("l")).unwrap();
    symlink("d", s.work.join("ld")).unwrap();
    s.detached(
        ["--name", "c"],
        ["sh", "-c", "ln -s nowhere /dangling; ln -s /tmp /t; touch /ok; sleep 1000"],
    );
    crate::wait::until("the links", || {
        (s.dhow(["exec", "c", "test", "-e", "/ok"]).output().code == 0).then_some(())
    });
    let check = |from: &str, to: &str, script: &str| {
        cp(s, from, &format!("c:{to}"));
        s.dhow(["exec", "c", "sh", "-c", script]).ok();
    };
    check("f", "/new", "[ $(cat /new) = file ]");
    check("f", "/new", "[ $(cat /new) = file ]");
    check("f", "/tmp", "[ $(cat /tmp/f) = file ]");
    check("f", "/t/", "[ $(cat /tmp/f) = file ]");
    check("f", "relative", "[ $(cat /relative) = file ]");
    check("f", "/dangling", "[ $(cat /nowhere) = file ] && [ -L /dangling ]");
    check("d", "/newdir", "[ $(cat /newdir/x) = x ]");
    check("d", "/newdir", "[ $(cat /newdir/d/x) = x ]");
    check("d/", "/newdir2/", "[ $(cat /newdir2/x) = x ]");
    check("d/.", "/tmp", "[ $(cat /tmp/x) = x ]");
    check("d/.", "/newdir3", "[ $(cat /newdir3/x) = x ]");
    check("l", "/tmp/l1", "[ -L /tmp/l1 ] && [ $(readlink /tmp/l1) = f ]");
    check("ld", "/tmp", "[ $(readlink /tmp/ld) = d ]");
    check("ld/", "/tmp/ld1", "[ $(cat /tmp/ld1/x) = x ]");
    s.dhow(["cp", "-qL", "l", "c:/tmp/l2"]).ok();
    s.dhow(["exec", "c", "sh", "-c", "[ ! -L /tmp/l2 ] && [ $(cat /tmp/l2) = file ]"]).ok();
    // A link in the tree is replaced, not followed.
    s.file("f2/l1", "other");
    check("f2/.", "/tmp", "[ ! -L /tmp/l1 ] && [ $(cat /tmp/l1) = other ]");
}

fn what_lands_where_on_the_host(s: &Sandbox) {
    s.detached(
        ["--name", "c"],
        ["sh", "-c", "mkdir /d; echo x > /d/x; echo f > /f; ln -s /d /l; ln -s f /lf; touch /ok; sleep 1000"],
    );
    crate::wait::until("the files", || {
        (s.dhow(["exec", "c", "test", "-e", "/ok"]).output().code == 0).then_some(())
    });
    s.subdir("there");
    let check = |from: &str, to: &str, path: &str, text: &str| {
        cp(s, &format!("c:{from}"), to);
        assert_eq!(fs::read_to_string(s.work.join(path)).unwrap(), text, "{from} {to}");
    };
    check("/f", "a", "a", "f\n");
    check("/f", "there", "there/f", "f\n");
    check("f", "there/", "there/f", "f\n");
    check("/d", "b", "b/x", "x\n");
    check("/d", "b", "b/d/x", "x\n");
    check("/d/.", "there", "there/x", "x\n");
    check("/d/.", "e", "e/x", "x\n");
    check("/l/", "g", "g/x", "x\n");
    check("/l/", "there", "there/l/x", "x\n");
    check("/../../d/x", "h", "h", "x\n");
    cp(s, "c:/l", "i");
    assert_eq!(fs::read_link(s.work.join("i")).unwrap(), Path::new("/d"));
    s.dhow(["cp", "-L", "c:/lf", "j"]).ok();
    assert_eq!(fs::read_to_string(s.work.join("j")).unwrap(), "f\n");
    symlink("k", s.work.join("to-k")).unwrap();
    check("/f", "to-k", "k", "f\n");
    check("/proc/self/../version", "v", "v", &fs::read_to_string("/proc/version").unwrap());
}

fn what_is_refused(s: &Sandbox) {
    s.file("f", "f");
    s.file("d/f/x", "x");
    for name in containers(s, &[]) {
        let check = |args: &[&str], why: &str| {
            let args: Vec<String> = args.iter().map(|a| a.replace('@', name)).collect();
            s.dhow(["cp"]).args(&args).output().exits(1).complains(why);
        };
        check(&["@:/none", "x"], "no /none in the container");
        check(&["none", "@:/tmp"], "none");
        check(&["f", "@:/none/x"], "no directory /none");
        check(&["f", "@:/none/"], "no directory /none");
        check(&["f", "@:/etc/none/../x/y"], "no directory");
        check(&["f/", "@:/tmp"], "not a directory");
        check(&["f", "@:/etc/passwd/"], "not a directory");
        check(&["f", "@:/etc/passwd/x"], "no directory");
        check(&["d", "@:/etc/passwd"], "over a file");
        check(&["@:/etc/passwd", "none/x"], "no directory");
        check(&["@:/etc", "f"], "over a file");
        cp(s, "f", &format!("{name}:/tmp/f"));
        // A directory where a file is, and the other way round, deeper down.
        check(&["d/.", "@:/tmp"], "cannot take the place");
        cp(s, "d", &format!("{name}:/tmp/"));
        s.file("d2/d", "a file");
        check(&["d2/.", "@:/tmp"], "cannot be overwritten");
        s.dhow(["cp", "-", &format!("{name}:/etc/passwd")])
            .stdin(vec![0; 1024])
            .output()
            .exits(1)
            .complains("directory");
        s.dhow(["cp", "-", &format!("{name}:/tmp")])
            .stdin(vec![1; 1024])
            .output()
            .exits(1)
            .complains("archive");
    }
    s.dhow(["cp", "f", "g"]).output().exits(1).complains("neither");
    s.dhow(["cp", "running:/etc"]).output().exits(1).complains("<SOURCE> <DESTINATION>");
    s.dhow(["cp", "running:/dev/null", "null"]).output().exits(1).complains("it is a device");
    s.dhow(["cp", "created:/etc", "ended:/etc"]).output().exits(1).complains("between containers");
    s.dhow(["cp", "nobody:/x", "y"]).output().exits(1).complains("no such container: nobody");
}

fn what_comes_along(s: &Sandbox) {
    let file = s.file("t/f", "text");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o741)).unwrap();
    fs::hard_link(&file, s.work.join("t/second")).unwrap();
    let time = |path: &Path| {
        let meta = fs::symlink_metadata(path).unwrap();
        (meta.mtime(), meta.mtime_nsec())
    };
    let sparse = s.file("t/sparse", "");
    fs::File::options().write(true).open(&sparse).unwrap().set_len(1 << 30).unwrap();
    s.subdir("t/sub");
    fs::set_permissions(s.work.join("t/sub"), fs::Permissions::from_mode(0o1770)).unwrap();
    rustix::fs::setxattr(&file, "user.colour", b"blue", rustix::fs::XattrFlags::empty()).unwrap();
    for name in containers(s, &[]) {
        cp(s, "t", &format!("{name}:/tmp/t"));
        cp(s, &format!("{name}:/tmp/t"), &format!("out-{name}"));
        let out = s.work.join(format!("out-{name}"));
        let meta = fs::metadata(out.join("f")).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o741);
        assert_eq!(fs::metadata(out.join("sub")).unwrap().mode() & 0o7777, 0o1770);
        assert_eq!(meta.ino(), fs::metadata(out.join("second")).unwrap().ino(), "one file of two names");
        for path in ["f", "sub", ".", "sparse"] {
            assert_eq!(time(&out.join(path)), time(&s.work.join("t").join(path)), "{path}");
        }
        let sparse = fs::metadata(out.join("sparse")).unwrap();
        assert_eq!(sparse.len(), 1 << 30);
        assert!(sparse.blocks() < 1000, "its holes are holes: {}", sparse.blocks());
        let mut value = [0; 8];
        let n = rustix::fs::getxattr(out.join("f"), "user.colour", &mut value[..]).unwrap();
        assert_eq!(&value[..n], b"blue");
    }
    // What a container says of rights is worth nothing outside.
    s.dhow(["exec", "running", "sh", "-c", "cp /bin/busybox /tmp/suid; chmod 6755 /tmp/suid"]).ok();
    cp(s, "running:/tmp/suid", "suid");
    assert_eq!(fs::metadata(s.work.join("suid")).unwrap().mode() & 0o7777, 0o755);
}

fn owners(s: &Sandbox) {
    s.file("f", "f");
    let stat = |name: &str, path: &str| s.dhow(["exec", name, "stat", "-c", "%u:%g", path]).ok();
    for name in containers(s, &[]) {
        cp(s, "f", &format!("{name}:/tmp/f"));
        s.dhow(["cp", "-", &format!("{name}:/tmp")]).stdin(archive(33, 44)).ok();
    }
    for name in ["created", "running", "ended"] {
        s.dhow(["start", name]).ok();
        if name != "ended" {
            assert_eq!(stat(name, "/tmp/f"), "0:0", "{name}: root's, whoever's it was");
            assert_eq!(stat(name, "/tmp/t/file"), "33:44", "{name}: an archive says whose its files are");
        }
    }
    s.dhow(["exec", "running", "chown", "55:66", "/tmp/f"]).ok();
    s.dhow(["cp", "-a", "running:/tmp/f", "kept"]).ok();
    let meta = fs::metadata(s.work.join("kept")).unwrap();
    let want = if s.is_rootless() { (s.account.uid, s.account.gid) } else { (55, 66) };
    assert_eq!((meta.uid(), meta.gid()), want);
    if !s.is_rootless() {
        s.dhow(["cp", "-a", "kept", "running:/tmp/kept"]).ok();
        assert_eq!(stat("running", "/tmp/kept"), "55:66");
    }
}

/// `t/` and `t/file`, of this owner.
fn archive(uid: u64, gid: u64) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, text: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(1_600_000_000);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, name, text).unwrap();
    };
    add("t/", tar::EntryType::Directory, b"");
    add("t/file", tar::EntryType::Regular, b"text");
    add("t/.wh.file", tar::EntryType::Regular, b"a name like any other");
    builder.into_inner().unwrap()
}

fn archives_both_ways(s: &Sandbox) {
    for name in containers(s, &[]) {
        s.dhow(["cp", "-", &format!("{name}:/tmp")]).stdin(archive(0, 0)).ok();
        let check = |path: &str, want: &[&str]| {
            let out = s.dhow(["cp", &format!("{name}:{path}"), "-"]).output().exits(0);
            let mut archive = tar::Archive::new(&out.stdout[..]);
            let names: Vec<String> = archive
                .entries()
                .unwrap()
                .map(|e| e.unwrap().path().unwrap().display().to_string())
                .collect();
            assert_eq!(names, want, "{name}:{path}");
        };
        check("/tmp/t", &["t/", "t/.wh.file", "t/file"]);
        check("/tmp/t/.", &["./", ".wh.file", "file"]);
        check("/tmp/t/file", &["file"]);
        let out = s.dhow(["cp", &format!("{name}:/tmp/t/file"), "-"]).output().exits(0);
        s.dhow(["cp", "-", &format!("{name}:/")]).stdin(out.stdout).ok();
        cp(s, &format!("{name}:/file"), "back");
        assert_eq!(fs::read_to_string(s.work.join("back")).unwrap(), "text");
        assert_eq!(fs::metadata(s.work.join("back")).unwrap().mtime(), 1_600_000_000);
    }
}

fn a_compressed_archive(s: &Sandbox) {
    s.detached(["--name", "c"], ["sleep", "1000"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, &archive(0, 0)).unwrap();
    for (n, packed) in
        [gzip.finish().unwrap(), zstd::encode_all(&archive(0, 0)[..], 0).unwrap()].iter().enumerate()
    {
        s.dhow(["exec", "c", "mkdir", &format!("/{n}")]).ok();
        s.dhow(["cp", "-", &format!("c:/{n}")]).stdin(packed.clone()).ok();
        assert_eq!(s.dhow(["exec", "c", "cat", &format!("/{n}/t/file")]).ok(), "text");
        s.dhow(["cp", "-", "c:/tmp"])
            .stdin(&packed[..packed.len() / 2])
            .output()
            .exits(1)
            .complains("archive");
    }
    s.dhow(["cp", "-", "c:/tmp"]).stdin("BZh91AY").output().exits(1).complains("bzip2");
}

fn an_archive_goes_through_links_inside(s: &Sandbox) {
    s.detached(["--name", "c"], ["sh", "-c", "mkdir /real; ln -s /real /tmp/t; touch /ok; sleep 1000"]);
    crate::wait::until("the link", || {
        (s.dhow(["exec", "c", "test", "-e", "/ok"]).output().code == 0).then_some(())
    });
    s.dhow(["cp", "-", "c:/tmp"]).stdin(archive(0, 0)).ok();
    assert_eq!(s.dhow(["exec", "c", "cat", "/real/file"]).ok(), "text");
}

fn mounts_are_seen(s: &Sandbox) {
    let share = s.subdir("share");
    s.file("f", "f");
    let flag = format!("{}:/mnt/share", share.display());
    for name in containers(s, &["-v", &flag]) {
        cp(s, "f", &format!("{name}:/mnt/share/{name}"));
        assert_eq!(fs::read_to_string(share.join(name)).unwrap(), "f");
        fs::write(share.join("back"), name).unwrap();
        cp(s, &format!("{name}:/mnt/share/back"), "back");
        assert_eq!(fs::read_to_string(s.work.join("back")).unwrap(), name);
    }
    s.detached(["--name", "t", "--tmpfs", "/scratch"], ["sleep", "1000"]);
    cp(s, "f", "t:/scratch/f");
    assert_eq!(s.dhow(["exec", "t", "cat", "/scratch/f"]).ok(), "f");
}

fn read_only_is_refused(s: &Sandbox) {
    let share = s.subdir("share");
    s.file("f", "f");
    let (ro, rw) = (format!("{}:/ro:ro", share.display()), format!("{}:/rw", share.display()));
    for name in containers(s, &["--read-only", "-v", &ro, "-v", &rw]) {
        for path in ["/tmp/f", "/ro/f", "/new"] {
            let out = s.dhow(["cp", "f", &format!("{name}:{path}")]).output().exits(1);
            out.complains("Read-only file system");
        }
        s.dhow(["cp", "-", &format!("{name}:/ro")]).stdin(archive(0, 0)).output().exits(1);
        assert_eq!(fs::read_dir(&share).unwrap().count(), 0);
        cp(s, "f", &format!("{name}:/rw/f"));
        fs::remove_file(share.join("f")).unwrap();
    }
}

fn what_is_told(s: &Sandbox) {
    s.file("f", "12345");
    s.dhow(["create", "--name", "c", "busybox"]).ok();
    let out = s.dhow(["cp", "f", "c:/tmp"]).output().exits(0);
    assert_eq!(
        (out.text(), out.error_text()),
        (String::new(), "Successfully copied 2.05kB to c:/tmp\n".into())
    );
    let out = s.dhow(["container", "cp", "-q", "c:/tmp/f", "g"]).output().exits(0);
    assert_eq!((out.text(), out.error_text()), (String::new(), String::new()));
    assert_eq!(s.dhow(["ps", "-a", "--format", "{{.State}}"]).args(NONE).ok(), "created");
}

fn a_file_that_is_mounted_gets_the_content(s: &Sandbox) {
    let bound = s.file("bound", "old");
    s.file("f", "new");
    let flag = format!("{}:/some/file", bound.display());
    for name in containers(s, &["-v", &flag]) {
        fs::write(&bound, "something that is longer").unwrap();
        cp(s, "f", &format!("{name}:/some/file"));
        assert_eq!(fs::read_to_string(&bound).unwrap(), "new");
        cp(s, "f", &format!("{name}:/etc/hosts"));
    }
    assert_eq!(s.dhow(["exec", "running", "cat", "/etc/hosts"]).ok(), "new");
    assert_eq!(s.dhow(["exec", "running", "ls", "-a", "/some"]).ok(), ".\n..\nfile", "no draft is left");
}
