//! registries.conf, docker's certs.d, proxies: where a pull really goes.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::command::Cmd;
use crate::hostile_registry::{Deed, Hostile};
use crate::image_made::Image;
use crate::registry_server::{Options, Registry};
use crate::sandbox::Sandbox;

for_each_user!(mirrors, locations, blocked, insecure, files_in_their_order, proxies);

/// A pull with this text as the only configuration of registries.
fn pull(s: &Sandbox, conf: &str, reference: &str) -> Cmd {
    let conf = s.file("registries.conf", conf);
    s.dhow(["pull", "-q", reference]).env("CONTAINERS_REGISTRIES_CONF", conf)
}

/// The image as it is known here, pulled from `reference` and removed again.
#[track_caller]
fn pulls(s: &Sandbox, conf: &str, reference: &str) {
    pull(s, conf, reference).ok();
    s.dhow(["rmi", reference]).ok();
}

fn mirrors(s: &Sandbox) {
    let (first, second, origin) = (Hostile::start(), Hostile::start(), Hostile::start());
    let image = Image::small(1, 2, 1000);
    second.put("copy/of/app", "v1", &image);
    origin.put("app", "v1", &image);
    let reference = origin.name("app:v1");
    let conf = |first: &str, more: &str| {
        format!(
            "[[registry]]\nlocation = \"{}\"\n{more}\n[[registry.mirror]]\nlocation = \"{first}\"\n\
             [[registry.mirror]]\nlocation = \"{}/copy/of\"\n",
            origin.addr(),
            second.addr()
        )
    };
    // The first that has it serves it all, under the name that was typed.
    pulls(s, &conf(&first.addr(), ""), &reference);
    assert!(first.count(|_| true) > 0 && origin.count(|_| true) == 0, "{:?}", origin.seen());
    assert!(second.count(|r| r.is_blob()) > 0);
    // One that nobody answers from, one that fails, one that refuses: the origin serves.
    second.behave(|_| Deed::status(403));
    for dead in ["127.0.0.1:1", "no-such-host.invalid", &first.addr()] {
        origin.forget();
        pulls(s, &conf(dead, ""), &reference);
        assert!(origin.count(|r| r.is_blob()) > 0, "{dead}");
    }
    second.behave(|_| Deed::serve());
    // One that lies is not believed: the error names the blob.
    second.behave(|r| if r.is_blob() { Deed { flip: Some(3), ..Deed::serve() } } else { Deed::serve() });
    let lied = pull(s, &conf("127.0.0.1:1", ""), &reference).output();
    assert!(lied.code != 0 && lied.error_text().contains("cannot use blob sha256:"), "{}", lied.report());
    second.behave(|_| Deed::serve());
    // By digest alone: a tag goes to the origin.
    let by_digest = "mirror-by-digest-only = true";
    second.forget();
    pulls(s, &conf("127.0.0.1:1", by_digest), &reference);
    assert_eq!(second.count(|_| true), 0);
    let reference = origin.name(&format!("app@{}", image.manifest.digest));
    pull(s, &conf("127.0.0.1:1", by_digest), &reference).ok();
    assert!(second.count(|_| true) > 0);
}

fn locations(s: &Sandbox) {
    let registry = Registry::start(Options::default());
    s.dhow(["tag", "busybox", &registry.name("inside/app:v1")]).ok();
    s.dhow(["push", &registry.name("inside/app:v1")]).ok();
    // A name that leads to no host of its own.
    let conf =
        format!("[[registry]]\nprefix = \"app.example/team\"\nlocation = \"{}\"\n", registry.name("inside"));
    assert_eq!(pull(s, &conf, "app.example/team/app:v1").ok(), "app.example/team/app:v1");
    s.dhow(["image", "inspect", "app.example/team/app:v1"]).ok();
    // Docker Hub, whole; and no alias is followed.
    let conf = format!(
        "unqualified-search-registries = [\"quay.example\"]\n[aliases]\napp = \"quay.example/app\"\n\
         [[registry]]\nprefix = \"docker.io/library\"\nlocation = \"{}\"\n",
        registry.name("inside")
    );
    pull(s, &conf, "app:v1").ok();
    s.dhow(["run", "--rm", "app:v1", "true"]).ok();
}

fn blocked(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("app", "v1", &Image::small(1, 1, 1000));
    let name = registry.name("app:v1");
    let conf = format!("[[registry]]\nlocation = \"{}\"\nblocked = true\n", registry.addr());
    let refused = pull(s, &conf, &name).output().complains("is blocked in").complains("registries.conf");
    assert!(refused.code != 0);
    let conf = s.work.join("registries.conf");
    s.dhow(["tag", "busybox", &name]).ok();
    for args in [
        vec!["push", &name],
        vec!["login", "-u", "al", "-p", "x", name.split('/').next().unwrap()],
        vec!["search", &name],
    ] {
        let refused =
            s.dhow(args).env("CONTAINERS_REGISTRIES_CONF", &conf).output().complains("is blocked in");
        assert!(refused.code != 0);
    }
    assert_eq!(registry.count(|_| true), 0, "{:?}", registry.seen());
}

fn insecure(s: &Sandbox) {
    let registry = Registry::start(Options { tls: true, htpasswd: None });
    let name = registry.name("app:v1");
    s.dhow(["tag", "busybox", &name]).ok();
    let push = |conf: &str| {
        let conf = s.file("registries.conf", conf);
        s.dhow(["push", &name]).env("CONTAINERS_REGISTRIES_CONF", conf).output()
    };
    let refused = push("");
    assert!(refused.code != 0, "{}", refused.report());
    push(&format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.addr())).exits(0);
    // The command line counts more.
    let conf = s.work.join("registries.conf");
    let refused = s.dhow(["pull", "--tls-verify", &name]).env("CONTAINERS_REGISTRIES_CONF", conf).output();
    assert!(refused.code != 0, "{}", refused.report());
}

fn files_in_their_order(s: &Sandbox) {
    let dir = s.home.join(".config");
    let blocks = |name: &str| format!("[[registry]]\nlocation = \"127.0.0.1:1\"\nblocked = true\n# {name}\n");
    let allows = "[[registry]]\nlocation = \"127.0.0.1:1\"\n";
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    #[track_caller]
    fn said(s: &Sandbox, expected: &str) {
        let out = s.dhow(["pull", "127.0.0.1:1/x"]).output().complains(expected);
        assert!(out.code != 0);
    }
    said(s, "Connection refused");
    write("containers/registries.conf", &blocks("one"));
    said(s, "is blocked in");
    write("containers/registries.conf.d/50.conf", allows);
    said(s, "Connection refused");
    write("containers/registries.conf.d/60.conf", &blocks("two"));
    said(s, "60.conf");
    write("dhow/registries.conf", allows);
    said(s, "Connection refused");
    write("dhow/registries.conf.d/1.conf", &blocks("three"));
    said(s, "1.conf");
    // What cannot be understood may be what blocks: nothing is pulled.
    write("dhow/registries.conf.d/2.conf", "[[registry]\n");
    said(s, "2.conf: line 1");
    let named = s.dhow(["pull", "127.0.0.1:1/x"]).env("CONTAINERS_REGISTRIES_CONF", "/nonexistent/r.conf");
    named.output().complains("/nonexistent/r.conf").expect("an error", |o| o.code != 0);
}

/// A proxy that leads everywhere to one address, whatever name is asked for. Returns its own, and the first line and the
/// headers of each connection.
fn proxy_to(target: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (target, record) = (target.clone(), record.clone());
            thread::spawn(move || tunnel(client, &target, &record));
        }
    });
    (address, seen)
}

fn tunnel(mut client: TcpStream, target: &str, record: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let mut server = TcpStream::connect(target).ok()?;
    let text = String::from_utf8_lossy(&head).into_owned();
    let is_tunnel = text.starts_with("CONNECT ");
    record.lock().unwrap().push(text);
    if is_tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    } else {
        server.write_all(&head).ok()?;
    }
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let up = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Write);
    up.join().ok()
}

fn proxies(s: &Sandbox) {
    let registry = Registry::start(Options { tls: true, htpasswd: Some(("al", "hunter2-of-the-test")) });
    let (proxy, seen) = proxy_to(registry.addr());
    // A name that only the proxy knows; its certificate is for another.
    let server = "reg.example:5000";
    let proxied = |cmd: Cmd| cmd.env("HTTPS_PROXY", format!("http://me:proxy-secret@{proxy}"));
    let insecure = "--tls-verify=false";
    let login = ["login", insecure, "-u", "al", "--password-stdin", server];
    proxied(s.dhow(login)).stdin("hunter2-of-the-test").ok();
    let name = format!("{server}/app:v1");
    s.dhow(["tag", "busybox", &name]).ok();
    proxied(s.dhow(["push", insecure, &name])).ok();
    proxied(s.dhow(["pull", insecure, &name])).ok();
    {
        let seen = seen.lock().unwrap();
        assert!(!seen.is_empty());
        for head in seen.iter() {
            assert!(head.starts_with(&format!("CONNECT {server} ")), "{head}");
            // me:proxy-secret for the proxy, and none of what is the registry's.
            let lower = head.to_lowercase();
            assert!(lower.contains("proxy-authorization: basic bwu6chjvehktc2vjcmv0"), "{head}");
            assert!(!lower.contains("\r\nauthorization:"), "{head}");
        }
    }
    // Without it, or past it, there is no such host.
    let direct = proxied(s.dhow(["pull", insecure, &name])).env("NO_PROXY", "example").output();
    assert!(direct.code != 0 && direct.error_text().contains("reg.example"), "{}", direct.report());
    // A proxy that is down is named, its password is not.
    let down =
        s.dhow(["pull", insecure, &name]).env("HTTPS_PROXY", "http://me:proxy-secret@127.0.0.1:1").output();
    let text = down.error_text();
    assert!(down.code != 0 && !text.contains("proxy-secret"), "{}", down.report());
    // Plain HTTP by HTTP_PROXY.
    let plain = Registry::start(Options::default());
    s.dhow(["tag", "busybox", &plain.name("app:v1")]).ok();
    s.dhow(["push", &plain.name("app:v1")]).ok();
    let (proxy, seen) = proxy_to(plain.addr());
    s.dhow(["pull", insecure, "plain.example:80/app:v1"])
        .env("HTTP_PROXY", format!("http://{proxy}"))
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .ok();
    assert!(!seen.lock().unwrap().is_empty());
}
