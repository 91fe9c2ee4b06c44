//! The protocol against a server that misbehaves on purpose.

use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::Result;

use super::*;
use crate::error::NotFound;
use crate::host::Ids;
use crate::oci::Digest;
use server::Reply;
use server::Request;
use server::Server;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn host() -> Host {
    Host {
        uid: 0,
        gid: 0,
        user: None,
        home: Some("/nonexistent".into()),
        data: "/nonexistent".into(),
        env: Default::default(),
        ids: Ids::Root,
    }
}

fn client() -> Client {
    Client::new(&host(), Options::default()).unwrap()
}

fn client_as(user: &str, password: &str) -> Client {
    let credentials = Some(Credentials::Basic { user: user.into(), password: password.into() });
    Client::new(&host(), Options { credentials, ..Options::default() }).unwrap()
}

fn reference(server: &Server) -> Reference {
    format!("{}/a/b", server.authority).parse().unwrap()
}

fn text(error: &anyhow::Error) -> String {
    crate::error::report(error)
}

fn read_all(mut stream: BlobStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

fn manifest_of(server: &Server, client: &Client) -> Result<Manifest> {
    client.repository(&reference(server), Action::Pull).unwrap().manifest("latest")
}

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
fn credentials_stay_with_their_host() {
    let elsewhere = Server::start(|r| match r.path.as_str() {
        "/401" => Reply::new(401).with("www-authenticate", "Basic realm=x"),
        _ => Reply::new(200).body("blob"),
    });
    let to = elsewhere.authority.clone();
    let server =
        Server::start(move |r| match (r.header("authorization"), r.path.contains(Digest::of(b"1").hex())) {
            (None, _) => Reply::new(401).with("www-authenticate", "Basic realm=\"x\""),
            (Some("Basic bWU6c2VjcmV0"), true) => {
                Reply::new(307).with("location", format!("http://{to}/x?y=1"))
            }
            (Some("Basic bWU6c2VjcmV0"), false) => {
                Reply::new(307).with("location", format!("http://{to}/401"))
            }
            _ => Reply::new(500),
        });
    let client = client_as("me", "secret");
    let repository = client.repository(&reference(&server), Action::Pull).unwrap();
    assert_eq!(read_all(repository.blob(&Digest::of(b"1"), 0).unwrap()).unwrap(), b"blob");
    assert!(repository.blob(&Digest::of(b"2"), 0).is_err());
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|r| r.header("authorization").is_none()), "{seen:?}");
}

#[test]
fn redirects_end() {
    let server = Server::start(|r| Reply::new(302).with("location", r.path.clone()));
    let error = text(&manifest_of(&server, &client()).unwrap_err());
    assert!(error.contains("redirects more than"), "{error}");
    assert!(server.seen().len() <= 12);
}

/// A registry that wants a token, and its token service.
fn guarded(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |r| {
        if r.path.starts_with("/token") {
            return answer(r);
        }
        match r.header("authorization") {
            Some("Bearer good") => Reply::new(200).body(MANIFEST),
            _ => Reply::new(401).with(
                "www-authenticate",
                r#"Bearer realm="/token?x=1",service="s, t",scope="repository:a/b:pull""#,
            ),
        }
    })
}

#[test]
fn a_token_is_fetched_once() {
    let server = guarded(|r| match r.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => Reply::new(200).body(r#"{"token":"good","expires_in":300}"#),
        _ => Reply::new(401),
    });
    let client = client_as("me", "secret");
    manifest_of(&server, &client).unwrap();
    manifest_of(&server, &client).unwrap();
    let paths: Vec<String> = server.seen().into_iter().map(|r| r.path).collect();
    let manifest = "/v2/a/b/manifests/latest";
    let token = "/token?x=1&service=s%2C%20t&scope=repository:a/b:pull&account=me";
    assert_eq!(paths, [manifest, &token.replace("%2C", ","), manifest, manifest]);
}

#[test]
fn an_identity_token_fetches_others() {
    let server = guarded(|r| {
        let form = String::from_utf8(r.body.clone()).unwrap();
        match form.contains("grant_type=refresh_token") && form.contains("refresh_token=id%2F1") {
            true => Reply::new(200).body(r#"{"access_token":"good"}"#),
            false => Reply::new(400),
        }
    });
    let credentials = Some(Credentials::IdentityToken("id/1".into()));
    let client = Client::new(&host(), Options { credentials, ..Options::default() }).unwrap();
    manifest_of(&server, &client).unwrap();
}

#[test]
fn a_challenge_without_end_is_an_error() {
    let server = guarded(|_| Reply::new(200).body(r#"{"token":"secret"}"#));
    let error = manifest_of(&server, &client()).unwrap_err();
    assert!(error.downcast_ref::<Unauthorized>().is_some());
    assert!(text(&error).contains(&format!("hint: if it is private: dhow login {}", server.authority)));
    assert!(!text(&error).contains("secret"));
    assert_eq!(server.seen().len(), 3);
    // A token service that refuses, one that is no such thing.
    for reply in
        [Reply::new(401), Reply::new(403), Reply::new(400), Reply::new(200).body("[["), Reply::new(404)]
    {
        let server = guarded(move |_| reply.clone());
        assert!(manifest_of(&server, &client()).is_err());
        assert_eq!(server.seen().len(), 2);
    }
}

#[test]
fn login_tells_a_bad_password() {
    let server = Server::start(|r| match r.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => Reply::new(200),
        _ => Reply::new(401).with("www-authenticate", "Basic realm=x"),
    });
    let login = |password: &str| {
        client().ping(
            &server.authority,
            Some(&Credentials::Basic { user: "me".into(), password: password.into() }),
        )
    };
    login("secret").unwrap();
    let error = login("wrong").unwrap_err();
    assert!(error.downcast_ref::<Unauthorized>().is_some());
    assert!(!text(&error).contains("wrong"));
    assert!(client().ping(&server.authority, None).unwrap_err().downcast_ref::<Unauthorized>().is_some());
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

/// What a registry keeps of uploads.
#[derive(Default)]
struct Uploads {
    bytes: Vec<u8>,
    done: Vec<String>,
}

fn uploading(cut_at: usize, piece: usize) -> (Server, Arc<Mutex<Uploads>>) {
    let uploads: Arc<Mutex<Uploads>> = Arc::default();
    let kept = uploads.clone();
    let server = Server::start_reading(cut_at, move |r| {
        let mut kept = kept.lock().unwrap();
        let at = "/v2/a/b/blobs/uploads/1?state=x";
        match r.method.as_str() {
            "POST" if r.path.contains("mount=") && r.path.ends_with("from=has/it") => Reply::new(201),
            "POST" if r.path.contains("from=secret") => {
                Reply::new(401).with("www-authenticate", "Basic realm=x")
            }
            "POST" => Reply::new(202).with("location", at),
            "PATCH" if r.length > piece => Reply::new(413),
            "PATCH" => {
                kept.bytes.extend(&r.body);
                Reply::new(202)
                    .with("location", "1?state=y")
                    .with("range", format!("0-{}", kept.bytes.len() - 1))
            }
            "GET" => {
                let range = format!("0-{}", kept.bytes.len().saturating_sub(1));
                Reply::new(204).with("location", at).with("range", range)
            }
            "PUT" => {
                kept.bytes.extend(&r.body);
                let digest = Digest::of(&kept.bytes).to_string();
                if !r.path.ends_with(&digest) {
                    return Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#);
                }
                kept.done.push(digest);
                kept.bytes.clear();
                Reply::new(201)
            }
            _ => Reply::new(404),
        }
    });
    (server, uploads)
}

fn upload(server: &Server, digest: &Digest, bytes: &[u8], size: u64) -> Result<Vec<u64>> {
    let client = client();
    let repository = client.repository(&reference(server), Action::Push)?;
    let mut opened = Vec::new();
    let mut last = 0;
    repository.upload(
        digest,
        size,
        &mut |from| {
            opened.push(from);
            Ok(Box::new(std::io::Cursor::new(bytes[from as usize..].to_vec())))
        },
        &mut |n| last = n,
    )?;
    assert_eq!(last, size);
    Ok(opened)
}

#[test]
fn uploads_arrive_and_go_on_where_they_were_cut() {
    let large: Vec<u8> = (0..400_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(&large);
    let whole = |server: &Server, bytes: &[u8]| upload(server, &Digest::of(bytes), bytes, bytes.len() as u64);
    let (server, kept) = uploading(usize::MAX, usize::MAX);
    assert_eq!(whole(&server, &large).unwrap(), [0]);
    assert_eq!(whole(&server, b"small").unwrap(), [0]);
    assert_eq!(whole(&server, b"").unwrap(), [0]);
    assert_eq!(kept.lock().unwrap().done.len(), 3);
    let methods: Vec<String> = server.seen().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["POST", "PATCH", "PUT", "POST", "PUT", "POST", "PUT"]);
    // Cut after 1,000,000 bytes.
    let (server, kept) = uploading(1_000_000, usize::MAX);
    assert_eq!(whole(&server, &large).unwrap(), [0, 1_000_000]);
    assert_eq!(kept.lock().unwrap().done, [digest.to_string()]);
    let resumed = server.seen().into_iter().filter(|r| r.method == "PATCH").nth(1).unwrap();
    assert_eq!(resumed.header("content-range"), Some("1000000-1599999"));
    // Too large for the registry.
    let (server, kept) = uploading(usize::MAX, 1 << 20);
    assert_eq!(whole(&server, &large).unwrap(), [0, 0, 1 << 20]);
    assert_eq!(kept.lock().unwrap().done, [digest.to_string()]);
}

#[test]
fn uploads_that_cannot_succeed_end() {
    let (server, _) = uploading(usize::MAX, usize::MAX);
    let wrong = Digest::of(b"wrong");
    let error = text(&upload(&server, &wrong, b"small", 5).unwrap_err());
    assert!(error.contains("digest_invalid: no") && error.contains(&wrong.to_string()), "{error}");
    // Our own end is at fault: nothing is tried again.
    let error = text(&upload(&server, &wrong, &[0; 500_000], 600_000).unwrap_err());
    assert!(error.contains("cannot read it: it ends 100000 bytes too early"), "{error}");
    assert!(upload(&server, &wrong, b"12345", 6).is_err());
}

#[test]
fn a_blob_is_mounted_or_not() {
    let (server, _) = uploading(usize::MAX, usize::MAX);
    let client = client();
    let repository = client.repository(&reference(&server), Action::Push).unwrap();
    let digest = Digest::of(b"x");
    assert!(repository.mount(&digest, "has/it").unwrap());
    assert!(!repository.mount(&digest, "secret").unwrap());
    assert!(!repository.mount(&digest, "has/not").unwrap());
    // The upload that the last one began is used.
    repository.upload(&digest, 1, &mut |_| Ok(Box::new(&b"x"[..])), &mut |_| {}).unwrap();
    let posts = server.seen().into_iter().filter(|r| r.method == "POST").count();
    assert_eq!(posts, 3);
}

#[test]
fn an_upload_location_elsewhere_gets_no_credentials() {
    let elsewhere = Server::start(|_| Reply::new(201));
    let to = elsewhere.authority.clone();
    let server = Server::start(move |r| match r.header("authorization") {
        Some(_) => Reply::new(202).with("location", format!("http://{to}/u")),
        None => Reply::new(401).with("www-authenticate", "Basic realm=x"),
    });
    let client = client_as("me", "secret");
    let repository = client.repository(&reference(&server), Action::Push).unwrap();
    repository.upload(&Digest::of(b"x"), 1, &mut |_| Ok(Box::new(&b"x"[..])), &mut |_| {}).unwrap();
    assert_eq!(elsewhere.seen()[0].header("authorization"), None);
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
fn nobody_there_is_said_at_once() {
    let error = client().ping("127.0.0.1:1", None).unwrap_err();
    assert!(text(&error).contains("cannot reach 127.0.0.1:1: Connection refused"), "{}", text(&error));
}
