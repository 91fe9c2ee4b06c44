//! Archives that real programs write: every format of GNU tar, a Debian root.

use super::*;
use std::process::Command;

/// Runs a command in a directory; false, aloud, if it cannot be run.
#[expect(clippy::disallowed_macros, reason = "a skipped test says so")]
fn run(dir: &Path, program: &str, args: &[&str]) -> bool {
    match Command::new(program).args(args).current_dir(dir).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("skipped: {program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            false
        }
    }
}

const MAKE: &str = r#"
    mkdir -p t/dir/empty t/many
    echo hello > t/dir/file; ln t/dir/file t/hard; ln -s dir/file t/soft; mkfifo t/fifo
    head -c 300000 /dev/urandom > t/large; chmod 4755 t/large
    truncate -s 3M t/sparse; printf data | dd of=t/sparse bs=1 seek=1000000 conv=notrunc status=none
    printf end | dd of=t/sparse bs=1 seek=3000000 conv=notrunc status=none
    truncate -s 1M t/hole
    truncate -s 4M t/fragments
    i=0; while [ $i -lt 60 ]; do printf x | dd of=t/fragments bs=1 seek=$((i * 65000)) conv=notrunc status=none; i=$((i + 1)); done
    long=t; for i in 1 2 3 4 5 6; do long=$long/a-rather-long-name-of-a-directory-number-$i; done; mkdir -p $long
    echo long > $long/$(printf 'n%.0s' $(seq 150)); ln -s $long/target t/long-link
    for i in $(seq 200); do echo $i > t/many/$i; done
    touch -d '1999-12-31 23:59:59.123456789' t/dir/file; touch -d '1960-01-01' t/hole
    setfattr -n user.test -v 'a=b' t/large 2>/dev/null || true
    true
"#;

/// Each format comes back byte for byte, and `diff/` is what GNU tar itself would unpack.
#[test]
fn what_gnu_tar_writes_is_unpacked_as_gnu_tar_does() {
    let scratch = scratch();
    let dir = &scratch.dir;
    if !run(dir, "sh", &["-ec", MAKE]) {
        return;
    }
    let formats: &[&[&str]] = &[
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=oldgnu", "--sparse"],
        &["--format=pax", "--xattrs", "--xattrs-include=*"],
        &["--format=pax", "--sparse", "--sparse-version=1.0", "--xattrs"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=gnu", "--blocking-factor=200", "--sort=name"],
        &["--format=ustar", "--exclude=a-rather*", "--exclude=long-link", "--exclude=hole"],
        &["--format=v7", "--exclude=a-rather*", "--exclude=long-link", "--exclude=hole", "--exclude=fifo"],
    ];
    for (n, format) in formats.iter().enumerate() {
        let archive = dir.join(format!("{n}.tar"));
        let name = archive.to_str().unwrap();
        let args: Vec<&str> = format.iter().copied().chain(["-cf", name, "t"]).collect();
        if !run(dir, "tar", &args) {
            continue;
        }
        let layer = unpacked(&scratch.store, &fs::read(&archive).unwrap());
        let theirs = dir.join(format!("{n}.theirs"));
        fs::create_dir(&theirs, 0o755).unwrap();
        assert!(run(&theirs, "tar", &["-xpf", name, "--xattrs", "--xattrs-include=*", "--numeric-owner"]));
        let ours = diff(&scratch.store, &layer);
        let see = r#"cd "$1" && find t -printf '%p %y %m %s %T@ %l %n %U %G\n' | sort | sed 's/ d \([0-7]*\) [0-9]* / d \1 /'
            find t -type f -print0 | sort -z | xargs -0 sha256sum; getfattr -dR t 2>/dev/null; true"#;
        let look = |at: &Path| {
            let output = Command::new("sh").args(["-c", see, "sh", at.to_str().unwrap()]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let (ours_seen, theirs_seen) = (look(&ours), look(&theirs));
        for (a, b) in ours_seen.lines().zip(theirs_seen.lines()) {
            assert_eq!(a, b, "{format:?}");
        }
        assert_eq!(ours_seen.lines().count(), theirs_seen.lines().count());
        if format.contains(&"--sparse") {
            let blocks = fs::metadata(&ours.join("t/sparse")).unwrap().unwrap().blocks();
            assert!(blocks * 512 < 1 << 18, "sparse files stay sparse");
        }
    }
}

/// `DHOW_TEST_ROOT=root.tar cargo test`: a whole distribution, with the times it took.
#[test]
#[expect(clippy::disallowed_macros, reason = "the figures are what it is for")]
#[expect(clippy::disallowed_methods, reason = "the environment of the test, not of the program")]
fn a_distribution_comes_back() {
    let Some(path) = std::env::var_os("DHOW_TEST_ROOT").map(PathBuf::from) else {
        eprintln!("skipped: DHOW_TEST_ROOT names no archive");
        return;
    };
    let scratch = scratch();
    let time = |what: &str, work: &mut dyn FnMut()| {
        let start = std::time::Instant::now();
        work();
        eprintln!("{what}: {:.3} s", start.elapsed().as_secs_f64());
    };
    let mut unpacked = None;
    time("extract", &mut || {
        let (_, plain) = decompress::decompress(
            fs::open(&path).unwrap(),
            &super::super::window::Windows::new(&scratch.dir),
        )
        .unwrap();
        unpacked = Some(extract(&scratch.store, plain, None).unwrap());
    });
    let mut layer = None;
    time("publish", &mut || {
        layer = Some(publish(&scratch.store, vec![unpacked.take().unwrap()]).unwrap().remove(0))
    });
    let layer = layer.unwrap();
    time("write_tar", &mut || write_tar(&scratch.store, &layer.diff_id, &mut std::io::sink()).unwrap());
    let split = layout::layer(&scratch.store, &layer.diff_id).join(layout::SPLIT);
    eprintln!("{} bytes, split {} bytes", layer.size, fs::metadata(&split).unwrap().unwrap().len());
}
