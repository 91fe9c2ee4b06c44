//! Registries that fail, lie and flood, each misbehaviour by itself: a clear error or a recovery, in bounded memory, and a
//! store in which nothing is broken. Redirects and challenges are in `registry_trust`, deaths and crowds in `registry_deaths`.

use std::time::Duration;

use crate::command::{Cmd, Output};
use crate::hostile_registry::{Body, Deed, Hostile, Request};
use crate::image_made::{DOCKER_MANIFEST, Image, Layer, OCI_INDEX, Packing, Random};
use crate::sandbox::Sandbox;

for_each_user!(
    cut_at_random_bytes,
    cut_before_any_answer,
    busy_and_broken_for_a_while,
    never_well_again,
    lengths_that_lie,
    wrong_bytes,
    wrong_bytes_and_then_a_cut,
    descriptors_that_lie,
    floods,
    ranges_ignored_or_wrong,
    a_bomb_in_a_layer,
);
for_root!(a_slow_registry, answers_that_make_no_sense);

/// dhow may use so much for a pull, whatever the registry sends (kibibytes).
const MEMORY: u64 = 100 << 10;

/// Pulls; no error may be a panic, drag on for ever or take more memory than any pull should.
pub fn pull(s: &Sandbox, reference: &str) -> Output {
    measured(s, s.dhow(["pull", "-q", reference]))
}

/// Runs it, and looks at how much memory it took.
pub fn measured(s: &Sandbox, command: Cmd) -> Output {
    // What wait4(2) tells of the child: also where it was a user name space's first process that did the work.
    let script = "import os, sys
pid = os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
open(sys.argv[1], 'w').write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status) % 256)";
    let out = command.under(&["python3", "-c", script, "peak"]).output();
    let peak: u64 = std::fs::read_to_string(s.work.join("peak")).unwrap().parse().unwrap();
    assert!(peak < MEMORY, "it took {peak} KiB of memory: {}", out.report());
    assert!(matches!(out.code, 0 | 1 | 125), "{}", out.report());
    out
}

/// The pull must fail, in one sentence that has all of `words`.
#[track_caller]
pub fn refused(s: &Sandbox, reference: &str, words: &[&str]) -> Output {
    let out = pull(s, reference);
    let said = out.error_text();
    assert!(out.code != 0, "it must fail and name {words:?}: {}", out.report());
    assert_eq!(said.matches("dhow: ").count(), 1, "one error: {}", out.report());
    for word in words {
        assert!(said.contains(word), "{word:?} is missing: {}", out.report());
    }
    assert!(!s.dhow(["images"]).ok().contains(reference.rsplit_once(':').unwrap().0), "it has no name");
    is_whole(s);
    out
}

/// Nothing in the store is broken, half or too much.
#[track_caller]
pub fn is_whole(s: &Sandbox) {
    s.dhow(["system", "check"]).ok();
}

/// The registry behaves from now on: the pull works, and what came is right.
#[track_caller]
pub fn recovers(s: &Sandbox, registry: &Hostile, reference: &str) {
    registry.behave(|_| Deed::serve());
    pull(s, reference).exits(0);
    is_whole(s);
}

fn cut_at_random_bytes(s: &Sandbox) {
    let registry = Hostile::start();
    for seed in 0..6u64 {
        let image = Image::small(seed, 3, 120_000);
        let reference = registry.name(&format!("cut:v{seed}"));
        registry.put("cut", &format!("v{seed}"), &image);
        registry.behave(move |r| {
            let key = r.path.bytes().fold(seed + r.nth as u64 * 77, |k, b| k * 31 % 1_000_003 + u64::from(b));
            match r.nth {
                0 | 1 if r.is_blob() || r.is_manifest() => Deed::cut(Random(key).below(120_000)),
                _ => Deed::serve(),
            }
        });
        pull(s, &reference).exits(0);
        for layer in &image.layers {
            let (sent, len) = (registry.sent(layer), layer.len());
            // What a cut left is built upon: nothing is fetched twice but what was on its way.
            assert!((len..len + (64 << 10)).contains(&sent), "seed {seed}: {sent} bytes for {len}");
        }
        is_whole(s);
    }
}

fn cut_before_any_answer(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("cut", "v1", &Image::small(1, 3, 10_000));
    registry.behave(|r| if r.nth == 0 { Deed::hang_up() } else { Deed::serve() });
    pull(s, &registry.name("cut:v1")).exits(0);
    is_whole(s);
}

fn busy_and_broken_for_a_while(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("busy", "v1", &Image::small(1, 3, 10_000));
    registry.behave(|r| match (r.nth, r.index % 3) {
        (0, 0) => Deed::status(429).header("Retry-After", "1"),
        (0, 1) => Deed::status(503),
        (0, _) => Deed::status(500),
        (1, 0) => Deed::status(502),
        _ => Deed::serve(),
    });
    pull(s, &registry.name("busy:v1")).exits(0);
    is_whole(s);
}

fn never_well_again(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("ill", "v1", &Image::small(1, 1, 10_000));
    let reference = registry.name("ill:v1");
    registry.behave(|_| Deed::status(500));
    refused(s, &reference, &["500", &registry.addr()]);
    let n = registry.count(|_| true);
    assert!((2..=20).contains(&n), "it was asked {n} times");
    registry.behave(|r| if r.is_blob() { Deed::hang_up() } else { Deed::serve() });
    refused(s, &reference, &["ill"]);
    // A registry that asks for more patience than a person has: said at once.
    registry.behave(|_| Deed::status(429).header("Retry-After", "100000"));
    refused(s, &reference, &["429"]);
    registry.behave(|_| Deed::status(429).header("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"));
    refused(s, &reference, &["429"]);
    // What trying again does not mend is not tried again.
    for status in [400, 403, 404] {
        registry.behave(move |_| Deed::status(status));
        registry.forget();
        refused(s, &reference, &["ill:v1"]);
        assert!(registry.count(|_| true) <= 4, "{status}: {:?}", registry.seen());
    }
    recovers(s, &registry, &reference);
}

fn lengths_that_lie(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 2, 50_000);
    registry.put("lies", "v1", &image);
    let reference = registry.name("lies:v1");
    for off in [-100, 100, i64::MAX / 2] {
        let layer = image.layers[0].clone();
        registry.behave(move |r| Deed { length_off: if r.is_of(&layer) { off } else { 0 }, ..Deed::serve() });
        refused(s, &reference, &[&image.layers[0].digest]);
        let of_manifest =
            move |r: &Request| Deed { length_off: if r.is_manifest() { off } else { 0 }, ..Deed::serve() };
        registry.behave(of_manifest);
        refused(s, &reference, &["lies:v1"]);
    }
    recovers(s, &registry, &reference);
}

fn wrong_bytes(s: &Sandbox) {
    let registry = Hostile::start();
    // Another image each time: what was right of a failed pull may be kept, and is not asked for again.
    for seed in 0..4u64 {
        let image = Image::small(seed, 3, 50_000);
        let tag = format!("v{seed}");
        registry.put("wrong", &tag, &image);
        let reference = registry.name(&format!("wrong:{tag}"));
        let blob = image.blobs().nth(seed as usize).unwrap();
        let refused = |deed: Deed| {
            let wrong = blob.clone();
            registry.behave(move |r| if r.is_of(&wrong) { deed.clone() } else { Deed::serve() });
            refused(s, &reference, &[&blob.digest]);
        };
        for at in [0, blob.len() / 2, blob.len() - 1] {
            refused(Deed { flip: Some(at), ..Deed::serve() });
        }
        // Another blob altogether, and none.
        match seed {
            0 => refused(Deed::body(*b"another")),
            1 => refused(Deed::body(*b"")),
            _ => (),
        }
        recovers(s, &registry, &reference);
        s.dhow(["rmi", &reference]).ok();
    }
    let image = Image::small(9, 3, 50_000);
    registry.put("wrong", "last", &image);
    let by_digest = registry.name(&format!("wrong@{}", image.manifest.digest));
    registry.behave(|r| Deed { flip: r.is_manifest().then_some(30), ..Deed::serve() });
    refused(s, &by_digest, &[&image.manifest.digest]);
    recovers(s, &registry, &by_digest);
}

fn wrong_bytes_and_then_a_cut(s: &Sandbox) {
    // What is kept of a blob may be wrong, and no digest can tell before the rest has come: it must not stay in the way.
    let registry = Hostile::start();
    let image = Image::small(1, 3, 200_000);
    registry.put("half", "v1", &image);
    let reference = registry.name("half:v1");
    registry.behave(|r| match r.nth {
        0 if r.is_blob() => Deed { flip: Some(10), ..Deed::cut(100_000) },
        _ if r.is_blob() => Deed::hang_up(),
        _ => Deed::serve(),
    });
    refused(s, &reference, &["half"]);
    registry.behave(|_| Deed::serve());
    if pull(s, &reference).code != 0 {
        is_whole(s);
        pull(s, &reference).exits(0);
    }
    is_whole(s);
}

fn descriptors_that_lie(s: &Sandbox) {
    let registry = Hostile::start();
    let (gzip, zstd) =
        (Layer::random(Packing::Gzip, "a", 1, 9000), Layer::random(Packing::Zstd, "b", 2, 9000));
    let image = Image::new(&[gzip.clone(), zstd.clone()]);
    let (first, second) = (gzip.blob.digest.clone(), zstd.blob.digest.clone());
    let check = |name: &str, image: &Image, words: &[&str]| {
        registry.put(name, "v1", image);
        refused(s, &registry.name(&format!("{name}:v1")), words);
    };
    let none: &[&str] = &[];
    let (of_layer, of_config) = ([&*first], [&*image.config.digest]);
    for (name, size) in
        [("more", 10_000_000), ("less", 10), ("none", 0), ("huge", i64::MAX), ("negative", -1)]
    {
        let lies = image.with_manifest(|m| m["layers"][0]["size"] = size.into());
        // What no blob can have is refused where it stands, in the manifest.
        check(name, &lies, if size < 0 { none } else { &of_layer });
        let lies = image.with_manifest(|m| m["config"]["size"] = size.into());
        check(&format!("{name}-config"), &lies, if size < 0 { none } else { &of_config });
    }
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    check("type", &image.with_manifest(|m| m["layers"][1]["mediaType"] = media_type.into()), &[&second]);
    check(
        "strange",
        &image.with_manifest(|m| m["layers"][1]["mediaType"] = "text/plain".into()),
        &["text/plain"],
    );
    // The layers are in another order than the configuration says, and one is what no archive is.
    let swapped = image.with_manifest(|m| m["layers"].as_array_mut().unwrap().swap(0, 1));
    check("order", &swapped, &["sha256:"]);
    let junk = Layer::of_tar(Packing::Gzip, &Random(5).bytes(5000));
    check("junk", &Image::new(&[gzip.clone(), junk.clone()]), &[&junk.blob.digest]);
    check("fewer", &image.with_manifest(|m| drop(m["layers"].as_array_mut().unwrap().pop())), &[]);
    check(
        "bad",
        &image.with_manifest(|m| m["layers"][0]["digest"] = "sha256:../../../etc/passwd".into()),
        &[],
    );
    registry.put("right", "v1", &image);
    recovers(s, &registry, &registry.name("right:v1"));
}

fn floods(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 1, 1000);
    registry.put("flood", "v1", &image);
    let reference = registry.name("flood:v1");
    let flood = |start| Deed { body: Some(Body::Padded(start, 100 << 20)), ..Deed::serve() };
    let sent = || registry.seen().iter().map(|seen| seen.sent).sum::<u64>();
    registry.behave(move |r| if r.is_manifest() { flood("{\"schemaVersion\":2,") } else { Deed::serve() });
    refused(s, &reference, &["flood:v1"]);
    assert!(sent() < 40 << 20, "no use in reading all of it: {}", sent());
    // Without a length that would tell, and where a document of few bytes was promised.
    let endless = move |start| flood(start).header("Content-Length", "");
    registry.behave(move |r| if r.is_manifest() { endless("{") } else { Deed::serve() });
    refused(s, &reference, &["flood:v1"]);
    for blob in [image.config.clone(), image.layers[0].clone()] {
        registry.forget();
        registry.behave(move |r| if r.is_blob() { endless("{") } else { Deed::serve() });
        refused(s, &reference, &["sha256:"]);
        assert!(sent() < 40 << 20, "{} has {} bytes, not {}", blob.digest, blob.len(), sent());
    }
    // Errors, headers and challenges are read too.
    registry.behave(move |_| Deed { status: Some(500), ..flood("<html>") });
    refused(s, &reference, &["500"]);
    let long = "x".repeat(1 << 20);
    registry.behave(move |_| Deed::serve().header("X-Long", &long));
    refused(s, &reference, &["flood"]);
    recovers(s, &registry, &reference);
}

fn ranges_ignored_or_wrong(s: &Sandbox) {
    let registry = Hostile::start();
    for (n, kind) in ["ignored", "wrong", "refused", "none"].into_iter().enumerate() {
        let image = Image::small(n as u64, 3, 100_000);
        registry.put(kind, "v1", &image);
        registry.behave(move |r| match (r.nth, kind) {
            (0, _) if r.is_blob() => Deed::cut(50_000),
            _ if r.header("range").is_none() => Deed::serve(),
            (_, "ignored") => Deed { ignore_range: true, ..Deed::serve() },
            // It answers with another part than it was asked for, and says so; with an error; without saying which part.
            (1, "wrong") => Deed::serve().header("Content-Range", "bytes 7-99/100"),
            (1, "refused") => Deed::status(416),
            (1, _) => Deed::serve().header("Content-Range", ""),
            _ => Deed::serve(),
        });
        let reference = registry.name(&format!("{kind}:v1"));
        if pull(s, &reference).code != 0 {
            assert!(kind != "ignored", "the whole is as good as a part");
            is_whole(s);
            recovers(s, &registry, &reference);
        }
        is_whole(s);
    }
}

fn a_bomb_in_a_layer(s: &Sandbox) {
    // 10 GiB out of 10 MB. A file may not be larger than 64 MiB here, as it would be on a full disk; nothing else stops it.
    let registry = Hostile::start();
    registry.put("bomb", "v1", &Image::new(&[Layer::bomb(10)]));
    let script = "trap '' XFSZ; ulimit -f 131072; exec \"$@\"";
    let reference = registry.name("bomb:v1");
    let out = measured(s, s.dhow(["pull", "-q", &reference]).under(&["sh", "-c", script, "sh"]));
    assert!(out.code != 0 && out.error_text().contains("sha256:"), "{}", out.report());
    is_whole(s);
    let left = crate::leftovers::names(&s.store.join("tmp")).into_iter().filter(|n| n != ".lock").count();
    assert_eq!(left, 0, "what was unpacked of it is gone");
}

fn a_slow_registry(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("slow", "v1", &Image::small(1, 3, 4000));
    registry.behave(|_| Deed::drip(100, Duration::from_millis(20)));
    pull(s, &registry.name("slow:v1")).exits(0);
    is_whole(s);
}

fn answers_that_make_no_sense(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 1, 1000);
    registry.put("odd", "v1", &image);
    let reference = registry.name("odd:v1");
    let schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let other = format!("sha256:{}", "0".repeat(64));
    let cases: Vec<(Deed, Vec<&str>)> = vec![
        (Deed::serve().header("Docker-Content-Digest", &other), vec![&image.manifest.digest]),
        (Deed::serve().header("Content-Type", OCI_INDEX), vec!["odd"]),
        (Deed::serve().header("Content-Type", DOCKER_MANIFEST), vec!["odd"]),
        (
            Deed::body(*b"{\"schemaVersion\":1,\"fsLayers\":[]}").header("Content-Type", schema_1),
            vec!["schema"],
        ),
        (Deed::body(*b""), vec!["odd"]),
        (Deed::body(*b"null"), vec!["odd"]),
        (Deed::body(vec![b'['; 1 << 20]), vec!["odd"]),
        (Deed::body(*b"<html>\x1b[2J</html>"), vec!["odd"]),
        (Deed::status(200), vec!["odd"]),
        (Deed::status(204), vec!["odd"]),
        (Deed::status(999), vec!["odd"]),
        (Deed::status(101), vec!["odd"]),
    ];
    for (deed, words) in cases {
        // The digest of other bytes would be noticed before all else.
        let deed = if deed.body.is_some() { deed.header("Docker-Content-Digest", "") } else { deed };
        registry.behave(move |r| if r.is_manifest() { deed.clone() } else { Deed::serve() });
        let out = refused(s, &reference, &words);
        assert!(!out.error_text().contains('\x1b'), "{}", out.report());
    }
    recovers(s, &registry, &reference);
}
