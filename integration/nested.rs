//! dhow in dhow: the program and its images within a container, on each rung of the ladder: overlay on overlay, which the
//! kernel refuses; a store on a volume; a sandbox that allows no name spaces.

use crate::archive::Tar;
use crate::capability::needs;
use crate::images;
use crate::sandbox::{self, Sandbox};

for_each_user!(
    in_a_privileged_container,
    on_a_volume,
    what_is_kept,
    whiteouts,
    two_deep,
    changes_of_a_copied_root,
    changes_in_memory,
    in_a_default_container,
    in_a_default_container_some_things_cannot_be_had,
    health_checks_in_a_chroot,
);
for_root!(with_docker_profile_and_a_capability, limits);
for_rootless!(in_an_ordinary_container);

/// Flags that bring the program and the busybox archive into a container.
fn flags(s: &Sandbox) -> Vec<String> {
    let tar = s.file("busybox.tar", std::fs::read(images::busybox()).unwrap());
    let mount = |from: &std::path::Path, to: &str| format!("{}:{to}:ro", from.display());
    vec!["-v".into(), mount(sandbox::dhow(), "/usr/bin/dhow"), "-v".into(), mount(&tar, "/busybox.tar")]
}

/// What a script says that is run in such a container.
#[track_caller]
fn nested(s: &Sandbox, more: &[&str], script: &str) -> crate::command::Output {
    let flags = flags(s);
    let script = format!("set -e; dhow import /busybox.tar inner >/dev/null; {script}");
    s.sh(flags.iter().map(String::as_str).chain(more.iter().copied()), &script).output()
}

const INNER: &str = "dhow run --rm inner sh -c 'touch /x; id -u; echo inside'; \
                     dhow run -d --name c1 inner sleep 1000 >/dev/null; dhow exec c1 echo again; \
                     dhow ps --format '{{.Names}}'; dhow stop -t 0 c1; dhow start c1; dhow rm -f c1; \
                     dhow run --rm inner sh -c 'exit 7' || echo code $?; dhow ps -aq";
const SEEN: &str = "0\ninside\nagain\nc1\nc1\nc1\nc1\ncode 7";

fn in_a_privileged_container(s: &Sandbox) {
    let out = nested(s, &["--privileged"], INNER).exits(0);
    assert_eq!(out.text(), SEEN, "{}", out.report());
    s.assert_nothing_left();
}

fn on_a_volume(s: &Sandbox) {
    let script =
        format!("{INNER}; dhow run --name c2 inner true; dhow inspect c2 --format '{{{{.Driver}}}}'");
    let want = format!("{SEEN}\noverlay");
    let out = nested(s, &["--privileged", "--tmpfs", "/var/lib/dhow:exec"], &script).exits(0);
    assert_eq!(out.text(), want, "{}", out.report());
    let volume = format!("{}:/var/lib/dhow", s.subdir("volume").display());
    let out =
        nested(s, &["--privileged", "-v", &volume], &format!("{script}; dhow rm c2 >/dev/null")).exits(0);
    assert_eq!(out.text(), want, "{}", out.report());
}

fn what_is_kept(s: &Sandbox) {
    // The files of a container that removed itself go after its exit code was told.
    let script = "dhow run --name c1 inner sh -c 'test -e /kept && cat /kept; echo changed > /kept; rm -f /etc/motd'; \
                  dhow start -a c1; dhow inspect c1 --format '{{.Driver}}'; dhow rm c1; \
                  dhow run --rm inner cat /etc/motd; \
                  while find /var/lib/dhow/containers /var/lib/dhow/tmp -mindepth 1 | grep -q .; do usleep 10000; done";
    let out = nested(s, &["--privileged"], script).exits(0);
    assert_eq!(out.text(), "changed\ncopy\nc1\nhello", "{}", out.report());
}

fn whiteouts(s: &Sandbox) {
    let lower = std::fs::read(images::busybox()).unwrap();
    let upper = Tar::default()
        .file("etc/.wh.motd", "")
        .dir("home")
        .file("home/.wh..wh..opq", "")
        .file("home/new", "")
        .end();
    let digest = |bytes: &[u8]| {
        use sha2::Digest as _;
        let text = sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
        format!("sha256:{text}")
    };
    let diff_ids = format!("[\"{}\",\"{}\"]", digest(&lower), digest(&upper));
    let config = format!(
        "{{\"architecture\":\"{}\",\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":{diff_ids}}}}}",
        if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
    );
    let manifest =
        "[{\"Config\":\"c.json\",\"RepoTags\":[\"two:latest\"],\"Layers\":[\"lower.tar\",\"upper.tar\"]}]";
    let image = Tar::default()
        .file("lower.tar", lower)
        .file("upper.tar", upper)
        .file("c.json", config)
        .file("manifest.json", manifest)
        .end();
    let archive = format!("{}:/two.tar:ro", s.file("two.tar", image).display());
    let look = "sh -c 'ls /etc/motd 2>/dev/null; ls /home; touch /etc/motd /home/more'";
    // In memory above the layers, then copied, then again.
    let script = format!(
        "dhow load -q -i /two.tar >/dev/null; dhow run --rm two {look}; dhow run --name c1 two {look}; dhow start -a c1"
    );
    for store in ["/elsewhere", "/var/lib/dhow"] {
        let tmpfs = format!("{store}:exec");
        let out = nested(s, &["--privileged", "-v", &archive, "--tmpfs", &tmpfs], &script).exits(0);
        assert_eq!(out.text(), "new\nnew\n/etc/motd\nmore\nnew", "{}", out.report());
    }
}

fn in_an_ordinary_container(s: &Sandbox) {
    // A rootless container needs no flag to hold another: what it may do, it may do in its own user name space.
    let unconfined = ["--security-opt", "seccomp=unconfined", "--cap-add", "SYS_ADMIN"];
    let out = nested(s, &unconfined, INNER).exits(0);
    assert_eq!(out.text(), SEEN, "{}", out.report());
}

fn with_docker_profile_and_a_capability(s: &Sandbox) {
    // Docker's profile lets CAP_SYS_ADMIN mount, but nobody pivot.
    let out = nested(s, &["--cap-add", "SYS_ADMIN"], INNER).exits(0);
    assert_eq!(out.text(), SEEN, "{}", out.report());
}

fn limits(s: &Sandbox) {
    needs!("cgroup");
    let script = "dhow run --rm --strict-limits --pids-limit 20 inner sh -c \
                  'cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null || true'";
    let out = nested(s, &["--privileged"], script).exits(0);
    assert_eq!((out.text(), out.error_text()), ("20".into(), String::new()), "{}", out.report());
    s.assert_nothing_left();
}

fn in_a_default_container(s: &Sandbox) {
    let script = format!(
        "{INNER}; dhow run -d inner sh -c 'sleep 1234 & sleep 1000' >/dev/null; dhow rm -f $(dhow ps -q) >/dev/null; \
         pidof sleep | wc -w; \
         dhow run --name c1 inner sh -c 'cat /kept; echo kept > /kept; echo nothing > /dev/null' 2>/dev/null; \
         dhow start -a c1 2>/dev/null; dhow rm c1"
    );
    let out = nested(s, &[], &script).exits(0);
    assert_eq!(out.text(), format!("{SEEN}\n0\nkept\nc1"), "{}", out.report());
    let warnings =
        out.error_text().lines().filter(|l| l.contains("warning")).map(str::to_owned).collect::<Vec<_>>();
    assert!(warnings.len() == 5 && warnings.iter().all(|w| w.contains("is a chroot")), "{}", out.report());
    s.assert_nothing_left();
}

fn in_a_default_container_some_things_cannot_be_had(s: &Sandbox) {
    for (flags, why) in [
        ("--isolation full", "--privileged"),
        ("-v /etc:/mnt", "cannot bind /etc"),
        ("--network none", "network name space"),
        ("--read-only", "read-only"),
        ("--sysctl kernel.shmmni=1", "sysctls"),
    ] {
        nested(s, &[], &format!("dhow run --rm {flags} inner true")).exits(125).complains(why);
    }
}

fn health_checks_in_a_chroot(s: &Sandbox) {
    // Its files, its user and its secrets are the container's; a check that hangs is ended with all that it started.
    let script = "printf hunter2 | dhow secret create key - >/dev/null; \
        check='pwd; cat /etc/motd; id -u; test -e /well && test $KEY = hunter2'; \
        dhow run -d --name c --secret key,type=env,target=KEY -w /tmp --health-interval 100ms --health-retries 2 \
            --health-cmd \"$check\" inner sleep 1000 >/dev/null 2>&1; \
        dhow wait --condition unhealthy c; dhow exec c touch /well; dhow wait --condition healthy c; \
        dhow inspect c --format '{{(index .State.Health.Log 0).Output}}'; dhow healthcheck run c && echo well; dhow rm -f c; \
        dhow run -d --name d --health-interval 100ms --health-timeout 200ms --health-retries 1 --health-on-failure kill \
            --health-cmd '(sleep 7654 &); setsid sleep 7655' inner sleep 1000 >/dev/null 2>&1; \
        dhow wait d; cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c -x '765[45]' || true; dhow rm d";
    let out = nested(s, &[], script).exits(0);
    assert_eq!(out.text(), "0\n0\n/tmp\nhello\n0\n\nwell\nc\n137\n0\nd", "{}", out.report());
    s.assert_nothing_left();
}

fn two_deep(s: &Sandbox) {
    let script = "dhow run --rm --privileged -v /usr/bin/dhow:/usr/bin/dhow -v /busybox.tar:/busybox.tar inner sh -c \
                  'dhow import /busybox.tar inmost >/dev/null; dhow run --rm inmost echo three deep'";
    let out = nested(s, &["--privileged"], script).exits(0);
    assert_eq!(out.text(), "three deep", "{}", out.report());
}

const CHANGES: &str =
    "mkdir -p /new/deep; echo x > /new/deep/file; echo y >> /etc/passwd; rm /etc/group; touch /tmp/here";
const CHANGED: &str =
    "C /etc\nD /etc/group\nC /etc/passwd\nA /new\nA /new/deep\nA /new/deep/file\nC /tmp\nA /tmp/here";
/// What is done with a container named c that has changed so, and what that says.
const USES: &str = "dhow diff c; dhow commit c made >/dev/null; dhow run --rm made sh -c 'cat /new/deep/file; ls /etc/group 2>/dev/null || echo none'; \
                    dhow export c | tar t | grep -c -e '^new/deep/file$' -e '^etc/group$' -e '^proc/1/'; \
                    dhow cp -q c:/new/deep/file /tmp/out; cat /tmp/out; dhow cp -q /tmp/out c:/tmp/in; dhow cp -q c:/tmp/in /tmp/back; cat /tmp/back";
const USED: &str = "x\nnone\n1\nx\nx";

fn changes_of_a_copied_root(s: &Sandbox) {
    let script = format!(
        "dhow run --name c inner sh -c '{CHANGES}'; dhow inspect c --format '{{{{.Driver}}}}'; {USES}; \
         dhow create --name d inner cat /tmp/in >/dev/null; dhow cp -q /tmp/out d:/tmp/in; dhow start -a d; dhow rm c d >/dev/null"
    );
    let out = nested(s, &["--privileged"], &script).exits(0);
    assert_eq!(out.text(), format!("copy\n{CHANGED}\n{USED}\nx"), "{}", out.report());
    s.assert_nothing_left();
}

fn changes_in_memory(s: &Sandbox) {
    let script = format!(
        "dhow run -d --rm --name c inner sh -c '{CHANGES}; touch /dev/shm/ready; sleep 1000' >/dev/null; \
         while ! dhow exec c test -e /dev/shm/ready; do :; done; dhow inspect c --format '{{{{.Driver}}}}'; {USES}; \
         dhow create --rm --name d inner cat /tmp/in >/dev/null; dhow cp -q /tmp/out d:/tmp/in; dhow start -a d; dhow rm -f c >/dev/null"
    );
    let out = nested(s, &["--privileged"], &script).exits(0);
    assert_eq!(out.text(), format!("overlay-memory\n{CHANGED}\n{USED}\nx"), "{}", out.report());
    s.assert_nothing_left();
}
