//! Whom a pull trusts: credentials stay with the host that they are for, and nobody leads it in circles.

use crate::hostile_registry::{Body, Deed, Hostile, Request};
use crate::image_made::Image;
use crate::registry_bad_days::{is_whole, measured, pull, recovers, refused};
use crate::sandbox::Sandbox;

for_each_user!(redirects, challenges_without_end);

fn redirects(s: &Sandbox) {
    let registry = Hostile::start();
    let elsewhere = Hostile::start_on("127.0.0.2");
    let image = Image::small(1, 2, 10_000);
    registry.put("there", "v1", &image);
    elsewhere.put("there", "v1", &image);
    let reference = registry.name("there:v1");
    // me:secret, for the first host alone.
    let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"bWU6c2VjcmV0\"}}}}}}", registry.addr());
    let authfile = s.file("auth.json", config);
    let to = elsewhere.addr();
    registry.behave(move |r| match r.header("authorization") {
        Some("Basic bWU6c2VjcmV0") if r.is_blob() => {
            Deed::redirect(&format!("http://{to}{}?signed=1", r.path))
        }
        Some("Basic bWU6c2VjcmV0") => Deed::serve(),
        _ => Deed::challenge("Basic realm=\"tests\""),
    });
    measured(s, s.dhow(["pull", "-q", &reference]).env("REGISTRY_AUTH_FILE", &authfile)).exits(0);
    let asked = elsewhere.seen();
    assert_eq!(asked.len(), 3, "two layers and a configuration: {asked:?}");
    for seen in asked {
        assert_eq!(seen.request.header("authorization"), None, "credentials went to another host");
        assert_eq!(seen.request.query, "signed=1");
    }
    s.dhow(["rmi", &reference]).ok();
    // In a circle, without end, to nowhere, and to what is no web address.
    for to in [
        "",
        "http://127.0.0.1:1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "http://",
        "\u{7f}",
        "//",
        "http://[::",
    ] {
        registry.behave(move |r| match r.is_blob() {
            true if to.is_empty() => Deed::redirect(&format!("{}?again", r.path)),
            true => Deed::redirect(to),
            false => Deed::serve(),
        });
        registry.forget();
        refused(s, &reference, &["there"]);
        assert!(registry.count(Request::is_blob) < 200, "{to}: {}", registry.count(Request::is_blob));
    }
    recovers(s, &registry, &reference);
}

fn challenges_without_end(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("who", "v1", &Image::small(1, 1, 1000));
    let reference = registry.name("who:v1");
    let realm = format!("http://{}/token", registry.addr());
    let bearer = format!("Bearer realm=\"{realm}\",service=\"tests\",scope=\"repository:who:pull\"");
    for challenge in
        [&bearer, "Basic realm=\"x\"", "Bearer", "Bearer realm=\"file:///etc/passwd\"", "Nonsense \"", ""]
    {
        let said = challenge.to_owned();
        registry.behave(move |r| if r.path == "/token" { Deed::serve() } else { Deed::challenge(&said) });
        registry.forget();
        refused(s, &reference, &["who:v1"]);
        assert!(registry.count(|_| true) <= 12, "{challenge}: {:?}", registry.seen());
    }
    // The token's server asks for a token itself, redirects to itself, sends nonsense, floods.
    let floods = Deed { body: Some(Body::Padded("{\"token\":\"", 100 << 20)), ..Deed::serve() };
    for deed in
        [Deed::challenge(&bearer), Deed::redirect(&realm), Deed::body(*b"{}"), Deed::body(*b"[["), floods]
    {
        let said = bearer.clone();
        registry.behave(move |r| if r.path == "/token" { deed.clone() } else { Deed::challenge(&said) });
        registry.forget();
        refused(s, &reference, &["who:v1"]);
        assert!(registry.count(|_| true) <= 60, "{:?}", registry.seen());
    }
    // And at last it is as it should be.
    registry.behave(move |r| match r.header("authorization") {
        Some("Bearer token-of-the-test") => Deed::serve(),
        _ if r.path == "/token" => Deed::serve(),
        _ => Deed::challenge(&bearer),
    });
    pull(s, &reference).exits(0);
    is_whole(s);
}
