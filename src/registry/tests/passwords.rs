//! Passwords and tokens: who gets them, and that asking for them ends.

use super::*;

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
fn an_identity_token_that_is_rotated_is_good_once() {
    let n = Arc::new(AtomicUsize::new(0));
    let used = n.clone();
    let server = guarded(move |r| {
        let n = used.fetch_add(1, Ordering::SeqCst);
        let form = String::from_utf8(r.body.clone()).unwrap();
        match form.contains(&format!("refresh_token=identity{n}&")) {
            true => {
                let next = format!(r#"{{"access_token":"good","refresh_token":"identity{}"}}"#, n + 1);
                Reply::new(200).body(next)
            }
            false => Reply::new(401),
        }
    });
    let credentials = Some(Credentials::IdentityToken("identity0".into()));
    let client = Client::new(&host(), Options { credentials, ..Options::default() }).unwrap();
    // Each repository wants a token of its own.
    for name in ["a/b", "a/c", "a/d"] {
        let reference: Reference = format!("{}/{name}", server.authority).parse().unwrap();
        client.repository(&reference, Action::Pull).unwrap().manifest("latest").unwrap();
    }
    assert_eq!(n.load(Ordering::SeqCst), 3);
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

/// Logs in to a registry whose token service answers a refresh token by `works`; what is to be kept.
fn log_in(works: bool) -> Credentials {
    let server = guarded(move |r| match (r.method.as_str(), r.path.contains("offline_token=true")) {
        ("POST", _) if works => Reply::new(200).body(r#"{"access_token":"good"}"#),
        ("POST", _) => Reply::new(404),
        (_, true) => Reply::new(200).body(r#"{"token":"good","refresh_token":"identity"}"#),
        (_, false) => Reply::new(200).body(r#"{"token":"good"}"#),
    });
    let login = Credentials::Basic { user: "me".into(), password: "secret".into() };
    client().login(&server.authority, &login).unwrap()
}

#[test]
fn login_keeps_an_identity_token_only_if_it_works() {
    assert!(log_in(true) == Credentials::IdentityToken("identity".into()));
    assert!(log_in(false) == Credentials::Basic { user: "me".into(), password: "secret".into() });
}
