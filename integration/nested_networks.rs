//! Networks of dhow in dhow: of root and of a user in a container, and what is said where there can be none.

use crate::capability::needs;
use crate::images;
use crate::own_host::{self, V4};
use crate::sandbox::{self, Sandbox};

for_each_user!(of_root_in_a_container, none_without_rights);
for_users_with_many_ids!(of_a_user_in_a_container);

/// Runs a script in a container that has the program and an image.
#[track_caller]
fn nested(s: &Sandbox, flags: &[&str], script: &str) -> crate::command::Output {
    let tar = s.file("busybox.tar", std::fs::read(images::busybox()).unwrap());
    let mount = |from: &std::path::Path, to: &str| format!("{}:{to}:ro", from.display());
    let (program, tar) = (mount(sandbox::dhow(), "/usr/bin/dhow"), mount(&tar, "/busybox.tar"));
    let flags = ["-v", &program, "-v", &tar].into_iter().chain(flags.iter().copied());
    s.sh(flags, &format!("set -e; dhow import -q /busybox.tar inner >/dev/null; {script}")).output()
}

/// Two containers on a network; each is found by its name, and one by a port of the machine, which the outer container is.
const TWO: &str = "dhow network create --ipv6 inmost >/dev/null; \
    dhow run -d --name web --network inmost -p 8080:7000 inner /probe serve 7000 >/dev/null; \
    until dhow logs web | grep -q ready; do usleep 10000; done; \
    dhow run --rm --network inmost inner sh -c '/probe tcp $(nslookup web | sed -n \"/Name:/,\\$ s/Address: *\\([0-9.]*\\)$/\\1/p\" | head -n 1):7000 5' | sed 's/.* /by name /'; \
    /probe tcp 127.0.0.1:8080 6 | sed 's/.* /by port /'; \
    dhow network reload web >/dev/null; \
    dhow exec web /probe tcp 127.0.0.1:7000 7; dhow rm -f web; dhow network rm inmost; dhow ps -aq";
const SEEN: &str = "by name 5\nby port 6\n127.0.0.1 7\nweb\ninmost";

fn of_root_in_a_container(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    // In a network of the outer container's own, and in one that the outer container has nothing to say about.
    for flags in [&["--privileged", "--network", "bridge"][..], &["--privileged"]] {
        let out = nested(s, flags, TWO).exits(0);
        assert_eq!(out.text(), SEEN, "{flags:?}: {}", out.report());
    }
}

fn of_a_user_in_a_container(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    let flags = [
        "--security-opt",
        "seccomp=unconfined",
        "--user",
        "app",
        "--tmpfs",
        "/home/app:mode=777",
        "-e",
        "HOME=/home/app",
    ];
    let out = nested(s, &flags, TWO).exits(0);
    assert_eq!(out.text(), SEEN, "{}", out.report());
    let to = format!("{V4}:{}", own_host::serve(V4));
    let script = format!("dhow run --rm --network bridge inner /probe tcp {to} 1000");
    assert_eq!(nested(s, &flags, &script).exits(0).text(), "outside 1000");
}

fn none_without_rights(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    // Where the sandbox allows no name spaces; and where it does, but gives no right over the network.
    let some = ["--security-opt", "seccomp=unconfined", "--cap-add", "SYS_ADMIN"];
    for outer in [&[][..], &some] {
        for inner in ["--network bridge", "-p 8080:80"] {
            let script = format!("dhow run --rm {inner} inner true");
            nested(s, outer, &script).exits(125).complains("--network host");
            let out = nested(s, outer, "dhow run --rm inner echo inside; dhow ps -aq").exits(0);
            assert_eq!(out.text(), "inside", "{}", out.report());
        }
    }
    s.assert_nothing_left();
}
