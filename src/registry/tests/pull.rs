//! Manifests, blobs, lists: what a registry can do wrong when it is read.

use super::*;

#[test]
fn a_manifest_comes_as_it_is() {
    let server = Server::start(|_| Reply::new(200).with("content-type", "application/json").body(MANIFEST));
    let manifest = manifest_of(&server, &client()).unwrap();
    assert_eq!((manifest.bytes.as_slice(), &manifest.digest), (MANIFEST, &Digest::of(MANIFEST)));
    let seen = server.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("GET", "/v2/a/b/manifests/latest"));
    assert!(seen[0].header("accept").unwrap().contains("oci.image.index"));
    assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
}

#[test]
fn lies_about_a_manifest_are_errors() {
    let check = |reply: Reply, want: &str| {
        let server = Server::start(move |_| reply.clone());
        let client = client();
        let repository = client.repository(&reference(&server), Action::Pull).unwrap();
        let wanted = Digest::of(b"something else").to_string();
        let error = text(&repository.manifest(&wanted).unwrap_err());
        assert!(error.contains(want) && error.contains(&server.authority), "{error}");
        error
    };
    check(Reply::new(200).body(MANIFEST), "sent sha256:");
    check(Reply::new(404), "no such manifest");
    check(Reply::new(200).with("content-length", "100000000000"), "more than 8388608 bytes");
    let flood = Reply::new(200).with("transfer-encoding", "chunked");
    let chunk = [b"900000\r\n".to_vec(), vec![b' '; 0x900000], b"\r\n0\r\n\r\n".to_vec()].concat();
    check(flood.body(chunk), "more than 8388608 bytes");
    check(Reply::new(418).body("I am a teapot"), "I am a teapot (HTTP 418)");
    let evil = check(Reply::new(403).body("\u{1b}[2J"), "refuses access");
    assert!(!evil.contains('\u{1b}'));
}

#[test]
fn absence_is_told_from_failure() {
    let server = Server::start(|r| match r.path.contains("/tags/") {
        true => Reply::new(200).body(r#"{"tags":null}"#),
        false => Reply::new(404),
    });
    let client = client();
    let repository = client.repository(&reference(&server), Action::Pull).unwrap();
    assert_eq!(repository.head_manifest("x").unwrap(), None);
    assert_eq!(repository.has_blob(&Digest::of(b"")).unwrap(), None);
    assert!(repository.blob(&Digest::of(b""), 0).err().unwrap().downcast_ref::<NotFound>().is_some());
    assert!(repository.tags().unwrap().is_empty());
}

#[test]
fn busy_registries_are_asked_again() {
    let n = AtomicUsize::new(0);
    let server = Server::start(move |_| match n.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(429).with("retry-after", "0"),
        1 => Reply::new(503).body(vec![b'x'; 100]),
        2 => Reply::new(200).body(MANIFEST).cut(0),
        _ => Reply::new(200).body(MANIFEST),
    });
    // The third answer breaks off in its body, which is not the request's business.
    assert!(Cut::is_in(&manifest_of(&server, &client()).unwrap_err()));
    manifest_of(&server, &client()).unwrap();
    let patient = Server::start(|_| Reply::new(429).with("retry-after", "100000"));
    let error = manifest_of(&patient, &client()).unwrap_err();
    assert!(text(&error).contains("100000 seconds"), "{}", text(&error));
    assert_eq!(patient.seen().len(), 1);
}

#[test]
fn a_blob_is_fetched_and_goes_on_where_it_was_cut() {
    let blob: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(&blob);
    let whole = blob.clone();
    let server = Server::start(move |r| match r.header("range") {
        None => Reply::new(200).body(whole.clone()).cut(500_000),
        Some(range) => {
            let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
            if from >= whole.len() {
                return Reply::new(416);
            }
            let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
            Reply::new(206).with("content-range", range).body(&whole[from..])
        }
    });
    let client = client();
    let repository = client.repository(&reference(&server), Action::Pull).unwrap();
    let mut stream = repository.blob(&digest, 0).unwrap();
    assert_eq!((stream.from, stream.total), (0, Some(1_200_000)));
    let mut got = Vec::new();
    let error = stream.read_to_end(&mut got).unwrap_err();
    assert!(Cut::is_io(&error), "{error}");
    assert_eq!(
        stream.read(&mut [0; 9]).map_err(|e| Cut::is_io(&e)),
        Err(true),
        "an error does not turn into an end"
    );
    assert_eq!(got.len(), 500_000);
    let rest = repository.blob(&digest, 500_000).unwrap();
    assert_eq!((rest.from, rest.total), (500_000, Some(1_200_000)));
    got.extend(read_all(rest).unwrap());
    assert_eq!(Digest::of(&got), digest);
    // Nothing beyond the end: all of it again.
    assert_eq!(repository.blob(&digest, 1_200_000).unwrap().from, 0);
}

#[test]
fn parts_that_were_not_asked_for_are_told() {
    let server = Server::start(|r| match r.path.contains(Digest::of(b"1").hex()) {
        true => Reply::new(200).body("whole"),
        false => Reply::new(206).with("content-range", "bytes 7-8/9").body("ab"),
    });
    let client = client();
    let repository = client.repository(&reference(&server), Action::Pull).unwrap();
    // Range ignored.
    assert_eq!(repository.blob(&Digest::of(b"1"), 3).unwrap().from, 0);
    let error = text(&repository.blob(&Digest::of(b"2"), 3).err().unwrap());
    assert!(error.contains("another part"), "{error}");
}

#[test]
fn tags_are_read_page_by_page() {
    let server = Server::start(|r| match r.path.as_str() {
        "/v2/a/b/tags/list?n=1000" => Reply::new(200)
            .with("link", "</v2/a/b/tags/list?last=y>; rel=\"next\"")
            .body(r#"{"tags":["x","y"]}"#),
        "/v2/a/b/tags/list?last=y" => Reply::new(200).body(r#"{"name":"a/b","tags":["z"]}"#),
        "/v2/loop/tags/list?n=1000" => {
            Reply::new(200).with("link", "<?n=1000>; rel=next").body(r#"{"tags":["x"]}"#)
        }
        "/v2/away/tags/list?n=1000" => {
            Reply::new(200).with("link", "<http://127.0.0.1:1/>; rel=next").body(r#"{"tags":["x"]}"#)
        }
        _ => Reply::new(404),
    });
    let client = client();
    let tags = |name: &str| {
        let reference = format!("{}/{name}", server.authority).parse().unwrap();
        client.repository(&reference, Action::Pull).unwrap().tags()
    };
    assert_eq!(tags("a/b").unwrap(), ["x", "y", "z"]);
    assert!(text(&tags("loop").unwrap_err()).contains("pages"));
    assert!(text(&tags("away").unwrap_err()).contains("goes on elsewhere"));
    assert!(tags("none").unwrap_err().downcast_ref::<NotFound>().is_some());
}

#[test]
fn the_catalogue_is_searched() {
    let server = Server::start(|_| Reply::new(200).body(r#"{"repositories":["a/web","b","web2"]}"#));
    let find = |term: &str, limit, filters: &catalog::Filters| {
        let found = catalog::search(&client(), &server.authority, term, limit, filters).unwrap();
        found
            .into_iter()
            .map(|f| f.name.rsplit_once(":").unwrap().1.split_once('/').unwrap().1.to_owned())
            .collect()
    };
    let all: Vec<String> = find("WEB", 9, &Default::default());
    assert_eq!(all, ["a/web", "web2"]);
    let one: Vec<String> = find("web", 1, &Default::default());
    assert_eq!(one, ["a/web"]);
    let none: Vec<String> =
        find("web", 9, &catalog::Filters { is_official: Some(true), ..Default::default() });
    assert!(none.is_empty());
}

#[test]
fn docker_hub_is_searched_page_by_page() {
    let result = |name: &str, stars: u64, is_official: bool| {
        format!(r#"{{"name":"{name}","description":null,"star_count":{stars},"is_official":{is_official}}}"#)
    };
    let server = Server::start(move |r| {
        let page = |all: &[String]| {
            Reply::new(200).body(format!(r#"{{"num_pages":2,"results":[{}]}}"#, all.join(",")).into_bytes())
        };
        match r.path.as_str() {
            "http://index.docker.io/v1/search?q=a%20b&n=100&page=1" => {
                page(&[result("a", 9, true), result("x/a", 1, false)])
            }
            "http://index.docker.io/v1/search?q=a%20b&n=100&page=2" => page(&[result("y/a", 5, false)]),
            _ => Reply::new(404),
        }
    });
    // Hub itself is out of reach for a test: a proxy leads to the server in its place.
    let mut host = host();
    for name in ["HTTP_PROXY", "HTTPS_PROXY"] {
        host.env.insert(name.into(), server.authority.clone().into());
    }
    let client = Client::new(&host, Options { tls_verify: Some(false), ..Options::default() }).unwrap();
    let find = |limit, filters: &catalog::Filters| -> Vec<String> {
        let found = catalog::search(&client, "docker.io", "a b", limit, filters).unwrap();
        found.into_iter().map(|f| f.name).collect()
    };
    assert_eq!(find(100, &Default::default()), ["a", "x/a", "y/a"]);
    assert_eq!(find(100, &catalog::Filters { stars: 5, ..Default::default() }), ["a", "y/a"]);
    assert_eq!(find(100, &catalog::Filters { is_official: Some(true), ..Default::default() }), ["a"]);
}

#[test]
fn nobody_there_is_said_at_once() {
    let error = client().ping("127.0.0.1:1", None).unwrap_err();
    assert!(text(&error).contains("cannot reach 127.0.0.1:1: Connection refused"), "{}", text(&error));
}

#[test]
fn a_proxy_is_told_the_whole_address() {
    let server = Server::start(|_| Reply::new(200).body(MANIFEST));
    let mut host = host();
    host.env.insert("HTTP_PROXY".into(), format!("http://me:se%40cret@{}", server.authority).into());
    host.env.insert("no_proxy".into(), "not.example".into());
    let options = || Options { tls_verify: Some(false), ..Options::default() };
    let client = Client::new(&host, options()).unwrap();
    // No such host but for the proxy; twice, over one connection.
    let digest = Digest::of(MANIFEST).to_string();
    client.transport.assume_plain("reg.invalid:5000");
    let repository = client.repository(&"reg.invalid:5000/a".parse().unwrap(), Action::Push).unwrap();
    repository.manifest(&digest).unwrap();
    repository.put_manifest("v1", "x/y", MANIFEST).unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].path, format!("http://reg.invalid:5000/v2/a/manifests/{digest}"));
    assert_eq!(
        (seen[1].path.as_str(), seen[1].body.as_slice()),
        ("http://reg.invalid:5000/v2/a/manifests/v1", MANIFEST)
    );
    for request in seen {
        assert_eq!(request.header("proxy-authorization"), Some("Basic bWU6c2VAY3JldA=="));
        assert_eq!(request.header("host"), Some("reg.invalid:5000"));
    }
    // A proxy that is not there is named, its password is not.
    host.env.insert("HTTP_PROXY".into(), "http://me:secret@127.0.0.1:1".into());
    let client = Client::new(&host, options()).unwrap();
    client.transport.assume_plain("reg.invalid:5000");
    let repository = client.repository(&"reg.invalid:5000/a".parse().unwrap(), Action::Pull).unwrap();
    let error = text(&repository.manifest("v1").unwrap_err());
    assert!(error.contains("cannot use the proxy 127.0.0.1:1") && !error.contains("secret"), "{error}");
}
