//! Changing what is kept: one reader and writer at a time, the file replaced as one step.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use rustix::fs::FlockOperation;

use super::document::Document;
use super::{Credentials, Server, files, helper};
use crate::error::ResultExt;
use crate::fs;
use crate::host::Host;

/// Where credentials went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Into this file, as they are.
    File(PathBuf),
    /// To this program.
    Helper(String),
}

/// Keeps credentials for a registry, or a part of one, in place of what was there. Returns where.
pub fn store(
    host: &Host,
    authfile: Option<&Path>,
    server: &Server,
    credentials: &Credentials,
) -> Result<Kept> {
    let file = Open::new(&files::target(host, authfile)?)?;
    let mut document = file.document()?;
    let helper = helper_of(&document, &server.key);
    if let Some(name) = &helper {
        helper::store(name, &server.key, credentials)?;
        // As docker: an empty entry says that the helper has one, and an old one in the open goes.
        document.remove(&server.key);
    }
    document.set(&server.key, Some(credentials).filter(|_| helper.is_none()));
    file.replace(&document)?;
    Ok(helper.map_or(Kept::File(file.path), Kept::Helper))
}

/// Removes the credentials for a registry, or a part of one; whether there were any.
pub fn erase(host: &Host, authfile: Option<&Path>, server: &Server) -> Result<bool> {
    let path = files::target(host, authfile)?;
    if fs::metadata(&path)?.is_none() {
        return Ok(false);
    }
    let file = Open::new(&path)?;
    let mut document = file.document()?;
    let had = erase_key(&mut document, &server.key)?;
    if had {
        file.replace(&document)?;
    }
    Ok(had)
}

/// Removes all credentials that the file knows of, also those that its helpers have. Returns their keys.
/// What cannot be erased does not keep the others: the errors come back beside.
pub fn erase_all(host: &Host, authfile: Option<&Path>) -> Result<(Vec<String>, Vec<anyhow::Error>)> {
    let path = files::target(host, authfile)?;
    let (mut gone, mut errors) = (Vec::new(), Vec::new());
    if fs::metadata(&path)?.is_none() {
        return Ok((gone, errors));
    }
    let file = Open::new(&path)?;
    let mut document = file.document()?;
    let mut keys = document.keys();
    match document.store().map(helper::list) {
        Some(Ok(listed)) => keys.extend(listed),
        Some(Err(error)) => errors.push(error),
        None => (),
    }
    keys.sort();
    keys.dedup();
    for key in keys {
        match erase_key(&mut document, &key) {
            Ok(true) => gone.push(key),
            Ok(false) => (),
            Err(error) => errors.push(error),
        }
    }
    file.replace(&document)?;
    Ok((gone, errors))
}

fn erase_key(document: &mut Document, key: &str) -> Result<bool> {
    let in_helper = match helper_of(document, key) {
        Some(name) => helper::erase(&name, key)?,
        None => false,
    };
    Ok(document.remove(key) || in_helper)
}

/// Who keeps the credentials of a key. A store of all knows registries only (docker's protocol): a part of one is kept in
/// the file unless it has a helper of its own.
fn helper_of(document: &Document, key: &str) -> Option<String> {
    let store = || document.store().filter(|_| !key.contains('/'));
    document.helper(key).or_else(store).map(str::to_owned)
}

/// The file, while nobody else of us changes it.
struct Open {
    /// As the user knows it.
    path: PathBuf,
    /// What is replaced: where a symlink leads.
    real: PathBuf,
    _lock: Option<OwnedFd>,
}

impl Open {
    /// Makes the directory where it is missing, and waits for whoever changes the file now.
    fn new(path: &Path) -> Result<Open> {
        let real = follow(path)?;
        let dir = real.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir, 0o700)
            .hint("name a place that can be written with --authfile, REGISTRY_AUTH_FILE or DOCKER_CONFIG")?;
        Ok(Open { path: path.to_owned(), _lock: lock(dir)?, real })
    }

    fn document(&self) -> Result<Document> {
        let text = files::read(&self.real)?.unwrap_or_default();
        Document::parse(&text).with_context(|| format!("cannot read {}", self.path.display()))
    }

    fn replace(&self, document: &Document) -> Result<()> {
        let text = document.text()?;
        let replaced = fs::replace_private(&self.real, text.as_bytes());
        let is_mount = |e: &anyhow::Error| {
            let busy = |io: &std::io::Error| io.raw_os_error() == Some(libc::EBUSY);
            e.downcast_ref::<std::io::Error>().is_some_and(busy)
        };
        match replaced {
            // A file that is mounted into this container by itself cannot be renamed over.
            Err(e) if is_mount(&e) => fs::write(&self.real, text.as_bytes()),
            replaced => replaced,
        }
    }
}

/// A lock on the directory: it leaves no file behind, and lies on no file that is replaced. flock(2), because a record lock
/// wants a descriptor that can write. A file system that has none is used without.
fn lock(dir: &Path) -> Result<Option<OwnedFd>> {
    let fd = OwnedFd::from(fs::open(dir)?);
    loop {
        match rustix::fs::flock(&fd, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(Some(fd)),
            Err(rustix::io::Errno::INTR) => (),
            Err(_) => return Ok(None),
        }
    }
}

/// Where a chain of symlinks ends, also where nothing is there yet.
fn follow(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        if !fs::symlink_metadata(&path)?.is_some_and(|m| m.is_symlink()) {
            return Ok(path);
        }
        let leads_to = fs::read_link(&path)?.unwrap_or_default();
        path = path.parent().unwrap_or(Path::new("/")).join(leads_to);
    }
    Err(anyhow!("cannot resolve {}: too many symlinks", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Place {
        host: Host,
        dir: PathBuf,
    }

    impl Place {
        fn new(name: &str) -> Place {
            let mut host = Host::probe(Some(Path::new("/nonexistent"))).unwrap();
            let dir = std::env::temp_dir().join(format!("dhow-keep-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir, 0o755).unwrap();
            host.env = [("DOCKER_CONFIG".into(), dir.join("d").into())].into();
            host.home = None;
            Place { host, dir }
        }

        fn config(&self) -> PathBuf {
            self.dir.join("d/config.json")
        }

        fn find(&self, registry: &str) -> Option<Credentials> {
            super::super::find(&self.host, None, registry, "").unwrap()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_tree(&self.dir).unwrap();
        }
    }

    fn server(text: &str) -> Server {
        Server::parse(Some(text)).unwrap()
    }

    fn basic(user: &str) -> Credentials {
        Credentials::Basic { user: user.into(), password: "p".into() }
    }

    #[test]
    fn what_is_stored_is_found_and_erased() {
        let place = Place::new("store");
        let (host, config) = (&place.host, place.config());
        for name in ["docker.io", "r:1", "r:1/ns"] {
            assert_eq!(
                store(host, None, &server(name), &basic(&name[2..])).unwrap(),
                Kept::File(config.clone())
            );
        }
        // One that died while writing left its draft: the next takes it away.
        fs::write(&place.dir.join("d/config.json.dhow-draft"), b"half").unwrap();
        assert_eq!(place.find("docker.io"), Some(basic("cker.io")));
        assert_eq!(super::super::find(host, None, "r:1", "ns/x").unwrap(), Some(basic("1/ns")));
        assert_eq!(super::super::find(host, None, "r:1", "nsx").unwrap(), Some(basic("1")));
        let mode = |path: &Path| fs::metadata(path).unwrap().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&config), mode(config.parent().unwrap())), (0o600, 0o700));
        assert!(erase(host, None, &server("r:1")).unwrap());
        assert!(!erase(host, None, &server("r:1")).unwrap());
        assert_eq!(place.find("r:1"), None);
        let (gone, errors) = erase_all(host, None).unwrap();
        assert_eq!((gone, errors.len()), (vec!["docker.io".to_owned(), "r:1/ns".to_owned()], 0));
        assert_eq!(place.find("docker.io"), None);
        assert_eq!(fs::read_dir(&place.dir.join("d")).unwrap(), ["config.json"]);
    }

    #[test]
    fn a_symlink_stays_one() {
        let place = Place::new("link");
        fs::create_dir_all(&place.dir.join("d"), 0o700).unwrap();
        fs::symlink(Path::new("../real/config.json"), &place.config()).unwrap();
        store(&place.host, None, &server("r:1"), &basic("a")).unwrap();
        assert!(fs::read_link(&place.config()).unwrap().is_some());
        assert!(fs::read_to_string(&place.dir.join("real/config.json")).unwrap().contains("r:1"));
        fs::symlink(Path::new("loop"), &place.dir.join("d/loop")).unwrap();
        assert!(store(&place.host, Some(&place.dir.join("d/loop")), &server("r:1"), &basic("a")).is_err());
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let place = Place::new("race");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let host = &place.host;
                scope.spawn(move || store(host, None, &server(&format!("r:{n}")), &basic("a")).unwrap());
            }
        });
        for n in 0..8 {
            assert_eq!(place.find(&format!("r:{n}")), Some(basic("a")), "{n}");
        }
    }

    #[test]
    fn a_broken_file_is_left_as_it_is() {
        let place = Place::new("broken");
        fs::create_dir_all(&place.dir.join("d"), 0o700).unwrap();
        fs::write(&place.config(), b"{\"auths\": hunter2").unwrap();
        let error = store(&place.host, None, &server("r:1"), &basic("a")).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("config.json") && text.contains("line 1") && !text.contains("hunter2"),
            "{text}"
        );
        assert_eq!(fs::read(&place.config()).unwrap(), b"{\"auths\": hunter2");
    }
}
