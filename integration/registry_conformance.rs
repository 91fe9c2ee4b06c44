//! What the OCI distribution specification 1.1 asks of a client, and the test that shows it. Sections are those of its
//! `spec.md`; `auth` is the token specification of distribution/distribution that registries follow.
//!
//! | section | duty of the client | test |
//! | --- | --- | --- |
//! | Pulling manifests | asks with Accept for every type that it can read | `registry_conformance::every_type_is_accepted` |
//! | | takes a manifest by tag and by digest | `registry_interop::own_pushes_and_pulls` |
//! | | verifies the digest of what was asked by digest | `registry_bad_days::wrong_bytes` |
//! | | by any registered algorithm (image-spec "Digests"), another one is refused | `digests::pulled_by_any_digest`, `digests::every_byte_is_compared`, `digests::an_algorithm_that_nobody_knows`, `digests_shipped::pushed_as_it_came` |
//! | | Docker-Content-Digest, where given, agrees with the bytes | `registry_bad_days::answers_that_make_no_sense` |
//! | | Content-Type agrees with the document's own mediaType, or says nothing | `registry_bad_days::answers_that_make_no_sense`, `registry_lies::media_types_of_manifests`, `registry_lies::media_types_in_manifests` |
//! | | at least 4 MiB of manifest, and not without limit | `registry_conformance::a_manifest_of_four_mebibytes`, `registry_bad_days::floods` |
//! | | an index leads to this platform's manifest, or to the one asked for | `registry_conformance::an_index_leads_to_a_platform` |
//! | Pulling blobs | verifies digest and size before use | `registry_bad_days::wrong_bytes`, `registry_bad_days::descriptors_that_lie`, `registry_lies::sizes_are_told_at_once` |
//! | | follows redirects, and takes no credentials along | `registry_trust::redirects` |
//! | | goes on by Range (RFC 9110), and does without where there is none | `registry_bad_days::cut_at_random_bytes`, `registry_bad_days::ranges_ignored_or_wrong`, `registry_deaths::resumed_by_another_process` |
//! | | a layer with `urls` is fetched from there, and not pushed | `pull::foreign_layers`, `push::foreign_layers_stay_where_they_are` |
//! | | 404 is an absent object, told by its name | `registry_conformance::errors_are_told` |
//! | Pushing | blobs first, then the manifest, then what points to it | `registry_conformance::the_order_of_a_push` |
//! | Pushing blobs | asks by HEAD whether the blob is there | `registry_interop::only_what_is_missing_moves` |
//! | | uses Location as given: absolute, relative, with a query | `registry_conformance::locations_are_used_as_given` |
//! | | chunks in order, none below OCI-Chunk-Min-Length but the last | `registry_conformance::chunks_are_in_order` |
//! | | after a cut asks where the upload stands, and goes on there | `registry_conformance::a_cut_upload_goes_on` |
//! | | mounts from another repository; 202 means it has to upload | `registry_interop::only_what_is_missing_moves`, `registry_conformance::a_refused_mount_is_an_upload` |
//! | Pushing manifests | Content-Type is the manifest's mediaType, bytes are those that were signed for | `registry_conformance::the_order_of_a_push`, `registry_interop::skopeo_and_dhow` |
//! | Content discovery | follows Link through the pages of a tag list, and not in a circle | `registry_conformance::pages_of_tags` |
//! | Error codes | shows code and message, and obeys the status alone | `registry_conformance::errors_are_told` |
//! | | 429 and Retry-After, 5xx | `registry_bad_days::busy_and_broken_for_a_while`, `registry_bad_days::never_well_again` |
//! | auth | Bearer: realm, service, scope; the token is used again | `registry_conformance::one_token_for_one_scope` |
//! | | Basic | `registry_trust::redirects`, `registry_interop::own_pushes_and_pulls` |
//! | | a challenge that leads nowhere ends | `registry_trust::challenges_without_end` |

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::hostile_registry::{Body, Deed, Hostile, Request};
use crate::image_made::{Blob, DOCKER_LIST, DOCKER_MANIFEST, Image, Layer, OCI_INDEX, OCI_MANIFEST, Packing};
use crate::registry_bad_days::{is_whole, measured, pull};
use crate::sandbox::Sandbox;

for_each_user!(
    every_type_is_accepted,
    a_manifest_of_four_mebibytes,
    an_index_leads_to_a_platform,
    errors_are_told,
    the_order_of_a_push,
    a_cut_upload_goes_on,
    one_token_for_one_scope,
);
for_root!(locations_are_used_as_given, chunks_are_in_order, a_refused_mount_is_an_upload, pages_of_tags);

/// Every test that the table names is there.
#[test]
fn the_table_names_tests() {
    let own = include_str!("registry_conformance.rs");
    let mut n = 0;
    for line in own.lines().filter(|l| l.starts_with("//! |")) {
        let tests = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for test in tests.split('`').filter(|t| t.contains("::")) {
            let (module, name) = test.split_once("::").unwrap();
            let path =
                std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("integration/{module}.rs"));
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            // As a function, and in a list of those that are run.
            let listed = text.split("\nfor_").skip(1).any(|list| {
                let list = list.split(';').next().unwrap_or_default();
                list.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
            });
            assert!(text.contains(&format!("fn {name}(s: &Sandbox)")) && listed, "{test} is no test");
            n += 1;
        }
    }
    assert!(n > 25, "the table has {n} tests");
}

fn every_type_is_accepted(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("a", "v1", &Image::small(1, 1, 1000));
    pull(s, &registry.name("a:v1")).exits(0);
    let asked = registry.seen().into_iter().find(|seen| seen.request.path.contains("/manifests/")).unwrap();
    let accepts: Vec<_> =
        asked.request.headers.iter().filter(|(n, _)| n == "accept").map(|(_, v)| v.clone()).collect();
    for media_type in [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST] {
        assert!(accepts.iter().any(|a| a.contains(media_type)), "{media_type} is not in {accepts:?}");
    }
}

fn a_manifest_of_four_mebibytes(s: &Sandbox) {
    // Section "Pushing manifests": a registry should take as much; so should who pulls it.
    let registry = Hostile::start();
    let large = "x".repeat((4 << 20) - 1000);
    let image = Image::small(1, 1, 1000).with_manifest(|m| m["annotations"] = json!({ "large": large }));
    registry.put("large", "v1", &image);
    pull(s, &registry.name("large:v1")).exits(0);
    is_whole(s);
}

fn an_index_leads_to_a_platform(s: &Sandbox) {
    let registry = Hostile::start();
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let architectures = ["arm64", "amd64", "riscv64"];
    let image = |n: u64| {
        let layer = Layer::random(Packing::Gzip, "file", n, 1000);
        Image::for_platform(&[layer], architectures[n as usize])
    };
    let images = [image(0), image(1), image(2)];
    let listed: Vec<(&str, &Image)> = architectures.into_iter().zip(&images).collect();
    listed.iter().for_each(|(architecture, image)| registry.put("many", architecture, image));
    let index = Image::index(&listed);
    registry.content().put_manifest("many", "v1", index.clone());
    let reference = registry.name("many:v1");
    pull(s, &reference).exits(0);
    for (architecture, image) in &listed {
        let expected = if *architecture == own { image.layers[0].len() } else { 0 };
        assert_eq!(registry.sent(&image.layers[0]), expected, "{architecture}");
    }
    s.dhow(["pull", "-q", "--platform", "linux/riscv64", &reference]).ok();
    assert_eq!(s.inspect(&reference, "{{.Architecture}}"), "riscv64");
    let none = s.dhow(["pull", "-q", "--platform", "linux/s390x", &reference]).output();
    none.complains("linux/s390x").complains("riscv64").expect("an error", |o| o.code != 0);
    // By digest of the index, by digest of one of its manifests.
    for digest in [&index.digest, &images[2].manifest.digest] {
        pull(s, &registry.name(&format!("many@{digest}"))).exits(0);
    }
    is_whole(s);
    // An index that names itself, and one in another.
    let mut deep = index;
    for n in 0..20 {
        let text = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [deep.descriptor()] });
        deep = Blob::new(text.to_string().into_bytes(), OCI_INDEX);
        registry.content().put_manifest("many", &format!("deep{n}"), deep.clone());
    }
    let out = pull(s, &registry.name("many:deep19"));
    assert!(out.code == 0 || out.error_text().contains("many"), "{}", out.report());
    is_whole(s);
}

fn errors_are_told(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 1, 1000);
    registry.put("there", "v1", &image);
    let fails = |name: &str, words: &[&str]| {
        let out = pull(s, &registry.name(name));
        let said = out.error_text();
        assert!(out.code != 0 && words.iter().all(|w| said.contains(w)), "{words:?}: {}", out.report());
    };
    fails("there:v2", &["there:v2", "no such manifest"]);
    fails("nowhere:v1", &["nowhere"]);
    let error = json!({ "errors": [{ "code": "DENIED", "message": "not \u{1b}[2J for you" }] }).to_string();
    registry.behave(move |r| match r.is_manifest() {
        true => Deed { status: Some(403), ..Deed::body(error.clone().into_bytes()) },
        false => Deed::serve(),
    });
    fails("there:v1", &["not \\u{1b}[2J for you"]);
    registry.behave(|r| if r.is_blob() { Deed::status(404) } else { Deed::serve() });
    fails("there:v1", &[&image.config.digest[..12]]);
    is_whole(s);
}

/// Makes an image and pushes it there.
#[track_caller]
fn push(s: &Sandbox, to: &str) {
    s.dhow(["tag", "busybox", to]).ok();
    measured(s, s.dhow(["push", "-q", to])).exits(0);
}

/// What came is the image that was pushed.
#[track_caller]
fn has_come(s: &Sandbox, registry: &Hostile, repository: &str) {
    let content = registry.content();
    let manifest = content.manifests[&(repository.to_owned(), "v1".to_owned())].clone();
    let text: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
    let named = text["layers"].as_array().unwrap().iter().chain([&text["config"]]);
    for descriptor in named {
        let digest = descriptor["digest"].as_str().unwrap().to_owned();
        let bytes = &content.blobs[&(repository.to_owned(), digest)];
        assert_eq!(bytes.len() as u64, descriptor["size"].as_u64().unwrap());
    }
    assert_eq!(text["config"]["digest"], s.inspect("busybox", "{{.Id}}"));
    assert_eq!(text["mediaType"], manifest.media_type.as_str());
}

fn the_order_of_a_push(s: &Sandbox) {
    let registry = Hostile::start();
    push(s, &registry.name("mine:v1"));
    has_come(s, &registry, "mine");
    let seen = registry.seen();
    let manifest = seen
        .iter()
        .position(|x| x.request.method == "PUT" && x.request.path.contains("/manifests/"))
        .unwrap();
    assert!(seen[manifest + 1..].iter().all(|x| !x.request.path.contains("/blobs/uploads")), "{seen:?}");
    let media_type = seen[manifest].request.header("content-type").unwrap();
    assert!([OCI_MANIFEST, DOCKER_MANIFEST].contains(&media_type), "{media_type}");
}

fn locations_are_used_as_given(s: &Sandbox) {
    let registry = Hostile::start();
    for (n, start) in [String::new(), format!("http://{}", registry.addr())].into_iter().enumerate() {
        registry.behave(move |r| {
            let location = |number: &str| {
                let base = r.path.rsplit_once("/blobs/uploads/").unwrap().0;
                format!("{start}{base}/blobs/uploads/{number}?state=a%2Fb%3D&n={number}")
            };
            match r.method.as_str() {
                // A repository's uploads are numbered from one, in this registry's own way.
                "PATCH" => Deed::serve().header("Location", &location(r.path.rsplit_once('/').unwrap().1)),
                _ => Deed::serve(),
            }
        });
        let name = format!("located{n}");
        push(s, &registry.name(&format!("{name}:v1")));
        has_come(s, &registry, &name);
    }
    let after_patch = |r: &Request| r.method == "PUT" && r.query.contains("digest=");
    for seen in registry.seen().iter().filter(|x| after_patch(&x.request)) {
        let patched = registry.count(|r| r.method == "PATCH" && r.path == seen.request.path);
        assert!(patched == 0 || seen.request.query.contains("state=a%2Fb%3D&n="), "{seen:?}");
    }
}

/// A layer large enough to be sent in pieces where pieces are the client's choice.
fn import_large(s: &Sandbox, name: &str, size: usize) {
    let bytes = crate::image_made::Random(3).bytes(size);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(size as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "large", &bytes[..]).unwrap();
    s.dhow(["import", "-", name]).stdin(tar.into_inner().unwrap()).ok();
}

/// The PATCH requests with what they say of their place.
fn chunks(registry: &Hostile) -> Vec<(u64, u64)> {
    let range = |r: &Request| {
        let (from, to) = r.header("content-range")?.split_once('-')?;
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    registry.seen().iter().filter(|x| x.request.method == "PATCH").filter_map(|x| range(&x.request)).collect()
}

fn chunks_are_in_order(s: &Sandbox) {
    let registry = Hostile::start();
    let least = 7_000_000;
    registry.behave(move |r| match r.method.as_str() {
        "POST" => Deed::serve().header("OCI-Chunk-Min-Length", &least.to_string()),
        _ => Deed::serve(),
    });
    let to = registry.name("chunks:v1");
    import_large(s, &to, 30_000_000);
    measured(s, s.dhow(["push", "-q", &to])).exits(0);
    // By path, since two blobs may be under way at once.
    let mut paths: Vec<String> = registry
        .seen()
        .iter()
        .filter(|x| x.request.method == "PATCH")
        .map(|x| x.request.path.clone())
        .collect();
    paths.dedup();
    let of_large: Vec<(u64, u64)> = chunks(&registry);
    for (at, next) in of_large.iter().zip(of_large.iter().skip(1)).filter(|(_, next)| next.0 != 0) {
        assert_eq!(at.1 + 1, next.0, "chunks follow each other: {of_large:?}");
        assert!(at.1 + 1 - at.0 >= least, "none but the last is smaller: {of_large:?}");
    }
}

fn a_cut_upload_goes_on(s: &Sandbox) {
    let registry = Hostile::start();
    registry.behave(|r| match r.nth {
        0 | 1 if r.method == "PATCH" => Deed { cut_request: Some(300_000), ..Deed::serve() },
        _ => Deed::serve(),
    });
    let to = registry.name("cut:v1");
    import_large(s, &to, 2_000_000);
    measured(s, s.dhow(["push", "-q", &to])).exits(0);
    let asked = registry.count(|r| r.method == "GET" && r.path.contains("/blobs/uploads/"));
    assert!(asked >= 1, "it asked where the upload stands: {:?}", registry.seen());
    let again = registry.count(|r| r.method == "POST");
    assert!(again <= 2, "no upload was begun anew: {:?}", registry.seen());
    // A registry that has forgotten the upload: from the start.
    let is_first = AtomicBool::new(true);
    registry.behave(move |r| match (r.method.as_str(), r.path.contains("/blobs/uploads/")) {
        ("PATCH", _) if is_first.swap(false, Ordering::SeqCst) => {
            Deed { cut_request: Some(300_000), ..Deed::serve() }
        }
        ("GET", true) => Deed::status(404),
        _ => Deed::serve(),
    });
    registry.forget();
    let to = registry.name("forgotten:v1");
    import_large(s, &to, 1_500_000);
    measured(s, s.dhow(["push", "-q", &to])).exits(0);
    let pushed = |name: &str| registry.content().manifests.contains_key(&(name.to_owned(), "v1".to_owned()));
    assert!(pushed("cut") && pushed("forgotten"));
}

fn a_refused_mount_is_an_upload(s: &Sandbox) {
    let registry = Hostile::start();
    push(s, &registry.name("first:v1"));
    // This registry knows no mounts: to it, all repositories are strangers.
    let mounts = |r: &Request| r.query.contains("mount=");
    registry.content().blobs.retain(|(repository, _), _| repository != "first");
    push(s, &registry.name("second:v1"));
    has_come(s, &registry, "second");
    assert!(registry.count(mounts) >= 1, "it did try: {:?}", registry.seen());
}

fn pages_of_tags(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 1, 1000);
    let tags = ["a", "b", "c", "d", "e"];
    tags.iter().for_each(|tag| registry.put("paged", tag, &image));
    registry.behave(move |r| {
        if !r.path.ends_with("/tags/list") {
            return Deed::serve();
        }
        let last = r.query.split('&').find_map(|q| q.strip_prefix("last=")).unwrap_or("");
        let page: Vec<&str> = tags.into_iter().filter(|t| *t > last).take(2).collect();
        let deed = Deed::body(json!({ "name": "paged", "tags": page }).to_string().into_bytes());
        match page.last() {
            Some(last) if *last != "e" => {
                deed.header("Link", &format!("</v2/paged/tags/list?n=2&last={last}>; rel=\"next\""))
            }
            _ => deed,
        }
    });
    s.dhow(["pull", "-q", "-a", &registry.name("paged")]).ok();
    let listed = s.dhow(["images", "--format", "{{.Tag}}", &registry.name("paged")]).ok();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, tags);
    // Page after page of the same, a page that never ends, one that leads elsewhere.
    let circle = |r: &Request| r.path.ends_with("/tags/list");
    let again = Deed::body(*b"{\"name\":\"paged\",\"tags\":[\"a\"]}");
    let elsewhere = again.clone().header("Link", "<http://127.0.0.3:9/v2/paged/tags/list>; rel=\"next\"");
    let again = again.header("Link", "</v2/paged/tags/list?last=a>; rel=\"next\"");
    let flood = Deed { body: Some(Body::Padded("{\"tags\":[", 100 << 20)), ..Deed::serve() };
    for deed in [again, elsewhere, flood] {
        registry.forget();
        registry.behave(move |r| if circle(r) { deed.clone() } else { Deed::serve() });
        let out = measured(s, s.dhow(["pull", "-q", "-a", &registry.name("paged")]));
        assert!(registry.count(circle) < 2000, "{}", out.report());
    }
    is_whole(s);
}

fn one_token_for_one_scope(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("team/app", "v1", &Image::small(1, 3, 1000));
    let realm = format!("http://{}/token", registry.addr());
    registry.behave(move |r| match r.header("authorization") {
        _ if r.path == "/token" => Deed::serve(),
        Some("Bearer token-of-the-test") => Deed::serve(),
        _ => {
            let scope = "repository:team/app:pull,push";
            Deed::challenge(&format!("Bearer realm=\"{realm}\",service=\"the tests\",scope=\"{scope}\""))
        }
    });
    pull(s, &registry.name("team/app:v1")).exits(0);
    let tokens: Vec<String> = registry
        .seen()
        .iter()
        .filter(|x| x.request.path == "/token")
        .map(|x| x.request.query.clone())
        .collect();
    assert_eq!(tokens.len(), 1, "one token serves all threads: {tokens:?}");
    let asked = tokens[0].replace("%3A", ":").replace("%2F", "/").replace('+', " ").replace("%20", " ");
    assert!(
        asked.contains("service=the tests") && asked.contains("scope=repository:team/app:pull"),
        "{asked}"
    );
    registry.forget();
    push(s, &registry.name("team/app:v2"));
    let tokens = registry.count(|r| r.path == "/token");
    assert_eq!(tokens, 1, "{:?}", registry.seen());
}
