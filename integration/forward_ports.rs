//! Ports that a user publishes: ranges, those that the kernel chooses, those that somebody has; and that who uses one does
//! not notice what others do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::process::Signal;

use crate::capability::needs;
use crate::own_host::{self, OTHER, V4};
use crate::sandbox::Sandbox;
use crate::{leftovers, wait};

for_rootless!(
    ranges_and_chosen_ones,
    a_process_that_has_it_is_named,
    nothing_is_dropped_when_others_come_and_go,
    open_while_it_restarts,
    healed_by_whatever_is_next,
    in_a_poor_environment,
);

fn serve(s: &Sandbox, name: &str, flags: &[&str]) {
    let flags = ["--name", name, "--network", "bridge"].into_iter().chain(flags.iter().copied());
    s.detached(flags, ["/probe", "serve", "7000"]);
    wait::until("the server", || s.dhow(["logs", name]).ok().contains("ready").then_some(()));
}

/// What a server says to five bytes.
fn ask(address: &str, port: u16) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect((address, port))?;
    stream.set_read_timeout(Some(wait::SOON))?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ranges_and_chosen_ones(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    let port = |name: &str, port: &str| -> u16 {
        let text = s.dhow(["port", name, port]).ok();
        text.lines().next().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
    };
    serve(s, "range", &["-p", "8000-8002:6999-7001"]);
    assert_eq!(port("range", "7000/tcp"), 8001);
    assert_eq!(ask(V4, 8001).unwrap(), format!("{V4} 5"));
    // One of these is free.
    serve(s, "next", &["-p", "8000-8003:7000"]);
    assert_eq!(port("next", "7000/tcp"), 8003);
    assert!(ask(OTHER, 8003).unwrap().ends_with(" 5"));
    serve(s, "all", &["-P", "--expose", "7000"]);
    serve(s, "one", &["-p", &format!("{OTHER}::7000")]);
    assert_eq!(ask(V4, port("all", "7000/tcp")).unwrap(), format!("{V4} 5"));
    let one = port("one", "7000/tcp");
    assert!(ask(OTHER, one).is_ok());
    assert_eq!(ask(V4, one).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

fn a_process_that_has_it_is_named(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    // One of this user's own: whose a process of another user is cannot be seen.
    let at = format!("{V4}:8088");
    let _listening = s.program("busybox").args(["httpd", "-f", "-p", &at]).spawn_with(|_| ());
    wait::until("the listener", || TcpStream::connect((V4, 8088)).is_ok().then_some(()));
    let run = s.dhow(["run", "--rm", "-p", "8088:80", "busybox", "touch", "/ran"]).output();
    run.exits(125).complains("(busybox) has it");
    assert_eq!(s.dhow(["ps", "-aq"]).ok(), "");
}

fn nothing_is_dropped_when_others_come_and_go(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    serve(s, "web", &["-p", "8080:7000"]);
    let to = format!("{V4}:{}", own_host::serve(V4));
    let mut in_use = TcpStream::connect((V4, 8080)).unwrap();
    in_use.write_all(b"begin").unwrap();
    for n in 0..4 {
        let name = format!("other-{n}");
        serve(s, &name, &["-p", &format!("{}:7000", 8090 + n)]);
        let said =
            s.dhow(["run", "--rm", "--network", "bridge", "busybox", "/probe", "tcp", &to, "70000"]).ok();
        assert_eq!(said, "outside 70000");
        assert_eq!(ask(V4, 8090 + n).unwrap(), format!("{V4} 5"));
        in_use.write_all(&[b'x'; 100_000]).unwrap();
        s.dhow(["rm", "-f", &name]).ok();
    }
    in_use.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    in_use.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("{V4} 400005"));
}

fn open_while_it_restarts(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    serve(s, "web", &["-p", "8080:7000"]);
    for _ in 0..3 {
        let restart = std::thread::scope(|scope| {
            let restart = scope.spawn(|| s.dhow(["restart", "-t", "0", "web"]).output());
            while !restart.is_finished() {
                // It may be too early for an answer, but the port is there.
                if let Err(error) = ask(V4, 8080) {
                    assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused);
                }
            }
            restart.join().unwrap()
        });
        restart.exits(0);
        wait::until("the server", || ask(V4, 8080).is_ok().then_some(()));
    }
}

fn forwarder(s: &Sandbox) -> Option<i32> {
    let line = format!("dhow\0forward\0{}\0", s.store.display()).into_bytes();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default() == line)
}

fn healed_by_whatever_is_next(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    serve(s, "web", &["-p", "8080:7000"]);
    let to = format!("{V4}:{}", own_host::serve(V4));
    let next: [&[&str]; 4] =
        [&["exec", "web", "true"], &["ps"], &["network", "reload", "web"], &["restart", "-t", "0", "web"]];
    for words in next {
        let killed = forwarder(s).unwrap();
        leftovers::kill_own(killed, Signal::KILL);
        leftovers::wait_for_end(killed);
        s.dhow(words).output().exits(0).complains("was ended; it is started again");
        wait::until("the port", || ask(OTHER, 8080).is_ok().then_some(()));
        assert_eq!(s.dhow(["exec", "web", "/probe", "tcp", &to, "5"]).ok(), "outside 5", "{words:?}");
        let out = s.dhow(["ps"]).output().exits(0);
        assert_eq!(out.error_text(), "");
    }
    s.dhow(["rm", "-f", "web"]).ok();
    wait::until("its end", || forwarder(s).is_none().then_some(()));
}

fn in_a_poor_environment(s: &Sandbox) {
    needs!("root");
    own_host::enter();
    let to = format!("{V4}:{}", own_host::serve(V4));
    // No home, no directory for what runs, no path, and no device for tunnels.
    let script = "mount -t tmpfs none /dev/net 2>/dev/null || mount -t tmpfs none /mnt; \
         exec setpriv --reuid \"$1\" --regid \"$2\" --init-groups env -i PATH=/nowhere \"$3\" --root \"$4\" run --rm \
         --network bridge -p 8081:80 busybox /probe tcp \"$5\" 12345";
    let (uid, gid) = (s.account.uid.to_string(), s.account.gid.to_string());
    let program = crate::sandbox::dhow();
    let out = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", &uid, &gid])
        .arg(program)
        .arg(&s.store)
        .arg(&to)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(said.0.trim(), "outside 12345", "{}", said.1);
}
