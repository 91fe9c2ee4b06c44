//! Pulls that die at any moment, run out of disk, come in crowds: the next one completes, and nothing in the store is broken.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::capability::needs;
use crate::hostile_registry::{Deed, Gate, Hostile};
use crate::image_made::{Blob, Image, Layer, Packing, Random};
use crate::registry_bad_days::{is_whole, pull};
use crate::sandbox::Sandbox;
use crate::user::User;
use crate::{leftovers, wait};

for_each_user!(
    killed_at_random_moments,
    resumed_by_another_process,
    interrupted_by_the_keyboard,
    ten_pulls_of_one_image,
    two_processes_one_download,
    the_downloader_dies_and_another_goes_on,
);
for_root!(disk_full, power_cut_half_way);

/// What is fetched of a layer is kept in two ways: one that comes packed becomes a blob.
const PACKINGS: [(&str, Packing); 2] = [("packed", Packing::Gzip), ("plain", Packing::Plain)];

/// Each of the three users gets a third of the 200 deaths.
const DEATHS: u64 = 67;

/// Slow enough to be killed in the middle, and quick enough to be killed often.
fn drips() -> Deed {
    Deed::drip(4096, Duration::from_micros(500))
}

fn killed_at_random_moments(s: &Sandbox) {
    let registry = Hostile::start();
    let image = |n: u64| Image::small(n, 4, 30_000);
    registry.put("k", "first", &image(1000));
    registry.behave(|r| if r.is_blob() { drips() } else { Deed::serve() });
    let start = Instant::now();
    s.dhow(["pull", "-q", &registry.name("k:first")]).ok();
    let mut whole = start.elapsed().as_micros() as u64;
    let mut random = Random(u64::from(s.account.uid));
    let (mut deaths, mut n) = (0, 0);
    while deaths < DEATHS {
        n += 1;
        registry.put("k", &format!("v{n}"), &image(n));
        let reference = registry.name(&format!("k:v{n}"));
        registry.behave(|r| if r.is_blob() { drips() } else { Deed::serve() });
        let moment = Duration::from_micros(random.below(whole));
        let mut running = s.dhow(["pull", "-q", &reference]).spawn_with(|_| ());
        wait::within(moment, || None::<()>);
        // What had ended before does not count, and the next ones die sooner.
        match running.child.try_wait().unwrap() {
            None => {
                running.signal(Signal::KILL);
                (deaths, whole) = (deaths + 1, whole + whole / 20);
            }
            Some(_) => whole -= whole / 5,
        }
        assert!(n < 20 * DEATHS, "{deaths} deaths in {n} pulls");
        drop(running);
        let report = || format!("pull {n}, killed after {moment:?}");
        // Right after the death as well as after the next pull.
        let check = s.dhow(["system", "check"]).output();
        assert!(check.code == 0, "{}: {}", report(), check.report());
        registry.behave(|_| Deed::serve());
        let next = pull(s, &reference);
        assert!(next.code == 0, "{}: {}", report(), next.report());
        let check = s.dhow(["system", "check"]).output();
        assert!(check.code == 0, "{}: {}", report(), check.report());
        s.dhow(["rmi", &reference]).ok();
    }
    s.assert_nothing_left();
}

/// A pull that has got about half of the image's one layer, which stays open; its process.
fn half_way(
    s: &Sandbox,
    registry: &Hostile,
    reference: &str,
    layer: &Blob,
) -> (crate::command::Running, Gate) {
    let (gate, blob) = (Gate::default(), layer.clone());
    let held = gate.clone();
    registry.behave(move |r| match r.is_of(&blob) && r.header("range").is_none() {
        true => Deed::gate(blob.len() / 2, &held),
        false => Deed::serve(),
    });
    let before = stored(s);
    let running = s.dhow(["pull", "-q", reference]).spawn_with(|_| ());
    wait::until("a part of the layer to be stored", || (stored(s) > before + layer.len() / 4).then_some(()));
    (running, gate)
}

/// How many bytes there are in the blobs and partial blobs of the store.
fn stored(s: &Sandbox) -> u64 {
    fn walk(dir: &std::path::Path) -> u64 {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let size = |e: std::fs::DirEntry| match e.file_type().is_ok_and(|t| t.is_dir()) {
            true => walk(&e.path()),
            false => e.metadata().map_or(0, |m| m.len()),
        };
        entries.map(size).sum()
    }
    // Not what it was unpacked to.
    let dirs =
        leftovers::names(&s.store).into_iter().filter(|n| !["layers", "tmp"].contains(&n.to_str().unwrap()));
    dirs.map(|name| walk(&s.store.join(name))).sum()
}

/// An image of one layer, and that layer.
fn one_layer(registry: &Hostile, name: &str, packing: Packing, size: usize) -> (String, Blob) {
    // Another content for each, or the store has it already.
    let image = Image::new(&[Layer::random(packing, "file", packing as u64, size)]);
    registry.put(name, "v1", &image);
    (registry.name(&format!("{name}:v1")), image.layers[0].clone())
}

/// What was fetched of the layer is not fetched again.
#[track_caller]
fn resumes(s: &Sandbox, registry: &Hostile, reference: &str, layer: &Blob) {
    registry.forget();
    registry.behave(|_| Deed::serve());
    pull(s, reference).exits(0);
    let again = registry.sent(layer);
    assert!(again <= layer.len() * 3 / 4, "{again} bytes of {} again: {:?}", layer.len(), registry.seen());
    assert!(registry.count(|r| r.is_of(layer) && r.header("range").is_some()) == 1, "{:?}", registry.seen());
    is_whole(s);
}

fn resumed_by_another_process(s: &Sandbox) {
    let registry = Hostile::start();
    for (name, packing) in PACKINGS {
        let (reference, layer) = one_layer(&registry, name, packing, 600_000);
        let (running, gate) = half_way(s, &registry, &reference, &layer);
        running.signal(Signal::KILL);
        drop(running);
        gate.open();
        is_whole(s);
        resumes(s, &registry, &reference, &layer);
    }
    s.assert_nothing_left();
}

fn interrupted_by_the_keyboard(s: &Sandbox) {
    let registry = Hostile::start();
    for (name, packing) in PACKINGS {
        let (reference, layer) = one_layer(&registry, name, packing, 600_000);
        // It ends though the registry sends nothing more.
        let (mut running, gate) = half_way(s, &registry, &reference, &layer);
        running.signal(Signal::INT);
        assert_eq!(running.code(), 130);
        gate.open();
        is_whole(s);
        resumes(s, &registry, &reference, &layer);
    }
}

fn ten_pulls_of_one_image(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(3, 4, 300_000);
    registry.put("ten", "v1", &image);
    let other = Image::small(3, 3, 300_000);
    registry.put("ten", "v2", &other);
    registry
        .behave(|r| if r.is_blob() { Deed::drip(16 << 10, Duration::from_millis(1)) } else { Deed::serve() });
    // Two images that share three layers.
    std::thread::scope(|scope| {
        for n in 0..10 {
            let reference = registry.name(&format!("ten:v{}", n % 2 + 1));
            scope.spawn(move || s.dhow(["pull", "-q", &reference]).output().exits(0));
        }
    });
    for layer in &image.layers {
        assert_eq!(registry.sent(layer), layer.len(), "each layer came once: {:?}", registry.seen());
    }
    is_whole(s);
    s.assert_nothing_left();
}

fn two_processes_one_download(s: &Sandbox) {
    for (name, packing) in PACKINGS {
        one_download(s, name, packing);
    }
}

fn one_download(s: &Sandbox, name: &str, packing: Packing) {
    let registry = Hostile::start();
    let (reference, layer) = one_layer(&registry, name, packing, 600_000);
    let (mut first, gate) = half_way(s, &registry, &reference, &layer);
    let asked = || registry.count(|r| r.path.contains("/manifests/"));
    let before = asked();
    let mut second = s.dhow(["pull", "-q", &reference]).spawn_with(|_| ());
    wait::until("the second to ask for the manifest", || (asked() > before).then_some(()));
    gate.open();
    assert_eq!((first.code(), second.code()), (0, 0));
    assert_eq!(registry.sent(&layer), layer.len(), "{:?}", registry.seen());
    assert_eq!(registry.count(|r| r.is_of(&layer)), 1, "one asks, the other waits: {:?}", registry.seen());
    is_whole(s);
}

fn the_downloader_dies_and_another_goes_on(s: &Sandbox) {
    for (name, packing) in PACKINGS {
        one_goes_on(s, name, packing);
    }
}

fn one_goes_on(s: &Sandbox, name: &str, packing: Packing) {
    let registry = Hostile::start();
    let (reference, layer) = one_layer(&registry, name, packing, 600_000);
    let (first, gate) = half_way(s, &registry, &reference, &layer);
    let asked = || registry.count(|r| r.path.contains("/manifests/"));
    let before = asked();
    let mut second = s.dhow(["pull", "-q", &reference]).spawn_with(|_| ());
    wait::until("the second to ask for the manifest", || (asked() > before).then_some(()));
    first.signal(Signal::KILL);
    drop(first);
    assert_eq!(second.code(), 0, "it waited for the dead one, and then went on itself");
    gate.open();
    // Each asked once, the second for what the first had not got.
    let asked = || registry.seen().into_iter().filter(|seen| seen.request.is_of(&layer));
    let ranges: Vec<Option<u64>> = asked()
        .map(|seen| seen.request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .collect();
    assert!(matches!(ranges[..], [None, Some(from)] if from >= layer.len() / 4), "{ranges:?}");
    is_whole(s);
}

#[test]
fn two_users_at_once() {
    let users = [User::Root, User::Ranges, User::Single];
    let sandboxes: Vec<Sandbox> = users.iter().filter_map(|u| Sandbox::empty(*u, "two_users")).collect();
    let registry = Hostile::start();
    let image = Image::small(9, 3, 200_000);
    registry.put("users", "v1", &image);
    registry.behave(|r| if r.is_blob() { drips() } else { Deed::serve() });
    let reference = registry.name("users:v1");
    std::thread::scope(|scope| {
        for s in &sandboxes {
            scope.spawn(|| (0..2).for_each(|_| drop(s.dhow(["pull", "-q", &reference]).output().exits(0))));
        }
    });
    sandboxes.iter().for_each(is_whole);
}

/// A script on a small file system of its own, mounted at `at` in a mount name space of its own, with `$d` for dhow on a store there.
fn on_a_small_disk(s: &Sandbox, mebibytes: u32, script: &str) -> crate::command::Output {
    let dhow = crate::sandbox::dhow().display();
    let script = format!(
        "set -e; truncate -s {mebibytes}M disk; mkfs.ext4 -q -m 0 disk; mkdir -p at; mount -o loop disk at
         d='{dhow} --root at/store'
         {script}
         umount at"
    );
    s.program("unshare").args(["-m", "sh", "-c", &script]).output().exits(0)
}

fn disk_full(s: &Sandbox) {
    needs!("mkfs.ext4");
    let registry = Hostile::start();
    registry.put("small", "v1", &Image::small(1, 2, 100_000));
    registry.put("big", "v1", &Image::small(2, 4, 10_000_000));
    let (small, big) = (registry.name("small:v1"), registry.name("big:v1"));
    let out = on_a_small_disk(
        s,
        24,
        &format!(
            "for round in 1 2; do
               if $d pull -q {big} 2> said; then echo pulled; fi
               cat said >&2; grep -c 'No space left' said; grep -c '^dhow: ' said
               $d system check >&2
             done
             $d pull -q {small} >&2; $d system check >&2; echo another works
             if $d pull -q {big} 2> said; then echo pulled; fi
             $d rmi {small} >&2; $d system check >&2; ls at/store/tmp | grep -c . || true"
        ),
    );
    assert_eq!(out.text(), "1\n1\n1\n1\nanother works\n0", "{}", out.report());
}

fn power_cut_half_way(s: &Sandbox) {
    needs!("mkfs.ext4");
    // What has reached the disk at some moment is what the loop device has written to its file: a copy of that file, while the
    // pull is stopped, is the disk after a power cut. Its journal is replayed at the mount.
    let registry = Hostile::start();
    let deaths = 12;
    for n in 0..=deaths {
        registry.put("cut", &format!("v{n}"), &Image::small(n, 3, 300_000));
    }
    registry.behave(|r| if r.is_blob() { Deed::drip(8192, Duration::from_millis(1)) } else { Deed::serve() });
    let names = registry.name("cut");
    let out = on_a_small_disk(
        s,
        48,
        &format!(
            "mkdir -p copied
             for n in $(seq {deaths}); do
               $d pull -q {names}:v$n & pull=$!
               sleep 0.0$n; [ $((n % 3)) = 0 ] && sync -f at; sleep 0.0$n
               kill -STOP $pull 2>/dev/null || true
               cp --sparse=always disk copy; kill -KILL $pull 2>/dev/null || true; wait $pull || true
               mount -o loop copy copied
               e=\"$(echo $d | sed s,at/store,copied/store,)\"
               $e images --format '{{{{.Tag}}}}' | while read tag; do $e save -o saved {names}:$tag; done
               $e system check >&2 || echo broken after $n
               $e pull -q {names}:v$n >&2; $e system check >&2 || echo broken later, after $n
               umount copied
             done
             # What was said to be done is on the disk.
             $d pull -q {names}:v0 >&2; cp --sparse=always disk copy; mount -o loop copy copied
             e=\"$(echo $d | sed s,at/store,copied/store,)\"
             $e save -o saved {names}:v0; $e system check >&2 || echo broken at the end
             umount copied; echo end"
        ),
    );
    assert_eq!(
        out.text().lines().filter(|l| !l.starts_with("sha256:")).collect::<Vec<_>>(),
        ["end"],
        "{}",
        out.report()
    );
}
