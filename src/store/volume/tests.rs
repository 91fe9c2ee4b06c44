use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::host::Ids;
use crate::store::tests::Scratch;

#[test]
fn a_volume_is_made_once_and_taken_once() {
    let scratch = Scratch::new(Ids::Root);
    let store = &scratch.store;
    let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let wanted = Volume { labels, ..Volume::new("vol") };
    let (made, is_new) = ensure(store, &wanted).unwrap();
    assert!(is_new && made == wanted);
    let (found, is_new) = ensure(store, &Volume::new("vol")).unwrap();
    assert!(!is_new && found == wanted, "the first maker's wishes count");
    fs::write(&data(store, "vol").join("file"), b"x").unwrap();
    let (taken, kept) = take_away(store, &["vol", "none"]).unwrap();
    assert_eq!(taken.len(), 1);
    assert!(matches!(kept[..], [("none", Kept::Absent)]));
    assert_eq!(list(store).unwrap(), []);
    drop(taken);
    assert!(scratch.is_tidy());
}

#[test]
fn a_volume_whose_note_was_lost_is_still_one() {
    let scratch = Scratch::new(Ids::Root);
    let store = &scratch.store;
    ensure(store, &Volume::new("vol")).unwrap();
    fs::write(&store.data.join("volumes/vol/volume.json"), b"").unwrap();
    assert!(find(store, "vol").unwrap().is_plain());
    assert_eq!(list(store).unwrap().len(), 1);
    assert!(find(store, "other").is_err() && look_up(store, "../vol").unwrap().is_none());
}

#[test]
fn makers_and_removers_side_by_side() {
    let scratch = Scratch::new(Ids::Root);
    let store = &scratch.store;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(ensure(store, &Volume::new("vol")).unwrap().0.name, "vol");
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..100 {
                take_away(store, &["vol"]).unwrap();
            }
        });
    });
    ensure(store, &Volume::new("vol")).unwrap();
    assert!(fs::metadata(&data(store, "vol")).unwrap().unwrap().is_dir());
    assert!(scratch.is_tidy());
}

fn filled(scratch: &Scratch) -> PathBuf {
    let source = scratch.dir.join("source");
    fs::create_dir_all(&source.join("sub"), 0o755).unwrap();
    fs::write(&source.join("sub/file"), b"x").unwrap();
    fs::symlink("/etc/passwd".as_ref(), &source.join("link")).unwrap();
    rustix::fs::chmod(&source, rustix::fs::Mode::from_raw_mode(0o1777)).unwrap();
    source
}

#[test]
fn an_empty_volume_is_filled_and_another_is_not() {
    let scratch = Scratch::new(Ids::Root);
    let (store, source) = (&scratch.store, filled(&scratch));
    let (volume, _) = ensure(store, &Volume::new("vol")).unwrap();
    assert!(copy_up::is_wanted(store, &volume).unwrap());
    copy_up::fill(store, &volume, &source).unwrap();
    let data = data(store, "vol");
    assert_eq!(fs::read(&data.join("sub/file")).unwrap(), b"x");
    assert_eq!(fs::read_link(&data.join("link")).unwrap().unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::metadata(&data).unwrap().unwrap().permissions().mode() & 0o7777, 0o1777);
    assert!(!copy_up::is_wanted(store, &volume).unwrap());
    fs::remove_tree(&data.join("sub")).unwrap();
    copy_up::fill(store, &volume, &source).unwrap();
    assert!(fs::metadata(&data.join("sub")).unwrap().is_none(), "it was not empty");
}

#[test]
fn a_filling_that_was_cut_short_is_completed() {
    let scratch = Scratch::new(Ids::Root);
    let (store, source) = (&scratch.store, filled(&scratch));
    let (volume, _) = ensure(store, &Volume::new("vol")).unwrap();
    let home = store.data.join("volumes/vol");
    // Killed after one entry was moved, and a container wrote something meanwhile.
    fs::rename(&source, &home.join("content")).unwrap();
    fs::rename(&home.join("content/link"), &home.join("_data/link")).unwrap();
    fs::write(&home.join("_data/own"), b"y").unwrap();
    assert!(copy_up::is_wanted(store, &volume).unwrap());
    copy_up::fill(store, &volume, Path::new("/nonexistent")).unwrap();
    assert_eq!(fs::read(&home.join("_data/sub/file")).unwrap(), b"x");
    assert_eq!(fs::read(&home.join("_data/own")).unwrap(), b"y");
    assert!(fs::metadata(&home.join("content")).unwrap().is_none());
    assert!(!copy_up::is_wanted(store, &volume).unwrap());
}

#[test]
fn two_fill_one_volume_at_once() {
    let scratch = Scratch::new(Ids::Root);
    let (store, source) = (&scratch.store, filled(&scratch));
    let (volume, _) = ensure(store, &Volume::new("vol")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| copy_up::fill(store, &volume, &source).unwrap());
        }
    });
    assert_eq!(fs::read_dir(&data(store, "vol")).unwrap().len(), 2);
    assert!(scratch.is_tidy());
}

#[test]
fn options_of_the_local_driver() {
    let scratch = Scratch::new(Ids::Root);
    let check = |options: &[(&str, &str)], want: &str| {
        let options: BTreeMap<_, _> =
            options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let volume = Volume { options, ..Volume::new("v") };
        let got = match check_options(&volume.options).and_then(|()| mount_of(&scratch.store, &volume)) {
            Ok((fs_type, source, words)) => format!("{fs_type} {} {}", source.display(), words.join(",")),
            Err(error) => error.root_cause().to_string(),
        };
        assert!(got.contains(want), "{got}");
    };
    check(&[], "volumes/v/_data");
    check(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=5")], "tmpfs tmpfs size=1m,uid=5");
    check(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro")], "bind /srv ro");
    check(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=10.0.0.1,rw")], "nfs :/x addr=10.0.0.1,rw");
    check(&[("type", "none"), ("device", "rel"), ("o", "bind")], "not an absolute path");
    check(&[("size", "1")], "invalid option: \"size\"");
    check(&[("o", "size=1m")], "needs a type");
}
