//! What ill-meant and broken archives do not achieve.

use super::archive::Header;
use super::*;

/// Unpacking must fail and leave nothing, inside the store and out.
fn refuse(archive: Archive, why: &str) {
    let scratch = scratch();
    fs::write(&scratch.dir.join("victim"), b"untouched").unwrap();
    let error = unpack(&scratch.store, &archive.end()[..], None).unwrap_err();
    let text = crate::error::chain(&error);
    assert!(text.contains(why), "{text:?} should say {why:?}");
    assert_eq!(fs::read(&scratch.dir.join("victim")).unwrap(), b"untouched");
    let mut names = fs::read_dir(&scratch.dir).unwrap();
    names.sort();
    assert_eq!(names, ["data", "victim"]);
    assert!(list(&scratch.store).unwrap().is_empty());
    assert!(scratch.is_tidy(), "the draft is gone");
}

#[test]
fn what_leads_out_is_refused() {
    let new = Archive::default;
    refuse(new().file("../../../../victim", "x"), "leads out of the layer");
    refuse(new().file("a/../../victim", "x"), "leads out of the layer");
    refuse(new().dir("../"), "leads out of the layer");
    refuse(new().file("../.wh.victim", ""), "leads out of the layer");
    refuse(new().hard_link("h", "../../../../victim"), "leads out of the layer");
    refuse(new().hard_link("h", "/etc/passwd"), "cannot link to etc/passwd");
    refuse(new().symlink("s", "/etc").hard_link("h", "s/passwd"), "cannot link to s/passwd");
    refuse(new().symlink("s", "..").hard_link("h", "s/victim"), "cannot link to s/victim");
    refuse(new().file("f", "").hard_link("h", "f/x"), "cannot link to f/x");
    refuse(new().dir("d").hard_link("h", "d"), "cannot link to d");
    refuse(new().hard_link("h", ""), "cannot have a second name");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let new = Archive::default;
    refuse(new().file("f", "x").file("f/g", "y"), "f is not a directory");
    refuse(new().symlink("a", "b").symlink("b", "a").file("a/f", "x"), "more than 40 symlinks");
    refuse(new().file(&"n".repeat(300), "x"), "name too long");
    refuse(new().symlink("s", &"t".repeat(5000)), "name too long");
    refuse(new().file(".wh.", ""), "names nothing");
    refuse(new().file("a/.wh...", ""), "names nothing");
    refuse(new().file("/", "x"), "the root must be a directory");
    refuse(new().global("size", "7"), "sets the size of all entries");
    refuse(new().entry(&Header::new(b'0').pax("size", b"-1"), b"f", b"x"), "is not a size");
    refuse(new().entry(&Header::new(b'0').pax("size", b"99999999999"), b"f", b"x"), "cut off");
    refuse(new().dir(&vec!["d"; 5000].join("/")), "directories deep");
    let sparse = |map: &[u8], size: &[u8]| {
        let header = Header::new(b'0').pax("GNU.sparse.map", map).pax("GNU.sparse.size", size);
        new().entry(&header, b"f", b"xx")
    };
    refuse(sparse(b"0,1", b"10"), "its map has 1");
    refuse(sparse(b"9,2", b"10"), "beyond its end");
    refuse(sparse(b"5,1,2,1", b"10"), "overlap");
    refuse(sparse(b"0,2", b"18446744073709551615"), "cannot unpack f");
}

#[test]
fn a_symlink_is_never_written_through() {
    let outside = scratch();
    fs::write(&outside.dir.join("victim"), b"untouched").unwrap();
    let place = outside.dir.to_str().unwrap();
    let scratch = scratch();
    let archive = Archive::default()
        .symlink("dir", place)
        .file("dir/victim", "inside")
        .symlink("file", &format!("{place}/victim"))
        .file("file", "a file now")
        .symlink("again", &format!("{place}/victim"))
        .entry(&Header::new(b'0').mode(0o777), b"again", b"")
        .symlink("sub", place)
        .file("sub/.wh..wh..opq", "")
        .file("sub/.wh.victim2", "")
        .end();
    let layer = unpacked(&scratch.store, &archive);
    assert_eq!(fs::read(&outside.dir.join("victim")).unwrap(), b"untouched");
    let mut names = fs::read_dir(&outside.dir).unwrap();
    names.sort();
    assert_eq!(names, ["data", "victim"]);
    let inside = diff(&scratch.store, &layer).join(place.trim_start_matches('/'));
    assert_eq!(fs::read(&inside.join("victim")).unwrap(), b"inside");
    assert_eq!(fs::read(&diff(&scratch.store, &layer).join("file")).unwrap(), b"a file now");
}

#[test]
fn a_wrong_digest_is_refused() {
    let scratch = scratch();
    let expected = DiffId(crate::oci::Digest::of(b"something else"));
    let archive = Archive::default().file("f", "x").end();
    let error = unpack(&scratch.store, &archive[..], Some(&expected)).unwrap_err();
    assert!(error.to_string().contains("its content has digest sha256:"), "{error}");
    assert!(list(&scratch.store).unwrap().is_empty());
    assert!(scratch.is_tidy());
}

#[test]
fn a_source_that_fails_leaves_nothing() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            let n = bytes.len().min(self.0);
            self.0 -= n;
            if n == 0 { Err(std::io::Error::other("connection lost")) } else { Ok(n) }
        }
    }
    let scratch = scratch();
    let archive = Archive::default().entry(&Header::new(b'0'), b"f", &vec![7; 3 << 20]).end();
    for cut in [0, 100, 600, 1 << 20] {
        let source = (&archive[..]).take(cut).chain(Broken(0));
        let error = unpack(&scratch.store, source, None).unwrap_err();
        assert!(crate::error::chain(&error).contains("connection lost"));
        assert!(scratch.is_tidy());
    }
}

/// An archive with something of everything.
fn rich() -> Vec<u8> {
    Archive::default()
        .dir("./")
        .global("mtime", "5")
        .file("a/f", "hello")
        .entry(&Header::new(b'0').pax("SCHILY.xattr.user.a", b"1").pax("mtime", b"1.5"), b"a/x", b"payload")
        .file("a/f", "again")
        .symlink("l", "a")
        .file("l/g", "linked")
        .hard_link("h", "a/f")
        .file(".wh.gone", "")
        .file("a/.wh..wh..opq", "")
        .device("null", b'3', 1, 3)
        .device("p", b'6', 0, 0)
        .entry(
            &Header::new(b'0').pax("GNU.sparse.map", b"1,2,100,1").pax("GNU.sparse.size", b"1000"),
            b"sparse",
            b"xyz",
        )
        .file(&format!("{}/x", "long".repeat(40)), "")
        .file("a", "replaces all")
        .end()
}

#[test]
fn every_prefix_of_an_archive_returns() {
    let scratch = scratch();
    let archive = rich();
    unpacked(&scratch.store, &archive);
    // Where a header ends and where it does not, without trying each of 15,000 lengths.
    let lengths = (0..archive.len()).filter(|n| n % 512 < 2 || n % 512 == 511 || n % 211 == 0);
    for n in lengths {
        match extract(&scratch.store, &archive[..n], None) {
            Ok(layer) => drop(layer),
            Err(error) => assert!(!crate::error::chain(&error).is_empty()),
        }
    }
    assert_eq!(list(&scratch.store).unwrap().len(), 1);
    assert!(scratch.is_tidy());
}

#[test]
fn archives_with_random_damage_return() {
    let scratch = scratch();
    let archive = rich();
    // xorshift, so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..500 {
        let mut damaged = archive.clone();
        for _ in 0..=random() % 3 {
            let at = random() as usize % damaged.len();
            damaged[at] = random() as u8;
        }
        if random() % 2 == 0 {
            repair_checksums(&mut damaged);
        }
        drop(extract(&scratch.store, &damaged[..], None));
    }
    assert!(scratch.is_tidy());
}

/// Makes the sums of all blocks right, so that the damage gets past them.
fn repair_checksums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Fills a file system of one megabyte, which only this thread sees.
#[test]
fn a_full_disk_is_one_clear_error() {
    std::thread::spawn(fill_a_disk).join().unwrap();
}

fn fill_a_disk() {
    use nix::mount::{MsFlags, mount};
    let scratch = scratch();
    let none = None::<&str>;
    let mounted = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| {
            mount(none, &scratch.store.data, Some("tmpfs"), MsFlags::empty(), Some("size=1m,mode=700"))
        });
    if let Err(error) = mounted {
        return super::stacked::skip(error.desc());
    }
    let store = Store::at(&scratch.store.data, ids()).unwrap();
    let archive = Archive::default().file("small", "x").entry(&Header::new(b'0'), b"big", &vec![1; 2 << 20]);
    let error = unpack(&store, &archive.end()[..], None).unwrap_err();
    let text = crate::error::report(&error);
    assert!(
        text.contains("cannot unpack big: No space left on device (os error 28)\nhint: free some"),
        "{text}"
    );
    assert!(scratch.is_tidy());
}
