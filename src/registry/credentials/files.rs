//! Where credentials lie.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::document::Document;
use crate::error::ResultExt;
use crate::fs;
use crate::host::Host;

/// A file of credentials has hundreds of bytes. What is larger than this is something else.
const LIMIT: u64 = 4 << 20;

/// A file that may have credentials.
pub(super) struct File {
    pub(super) path: PathBuf,
    is_legacy: bool,
}

impl File {
    fn new(path: PathBuf) -> File {
        File { path, is_legacy: false }
    }

    /// Its contents, `None` where there is no such file.
    pub(super) fn document(&self) -> Result<Option<Document>> {
        let Some(text) = read(&self.path)? else { return Ok(None) };
        let parsed = if self.is_legacy { Document::parse_legacy(&text) } else { Document::parse(&text) };
        parsed.map(Some).with_context(|| format!("cannot read {}", self.path.display()))
    }
}

/// The files to look into, in this order: see the table of the module above.
/// Errors: `--authfile` names a file that is not there.
pub(super) fn to_read(host: &Host, authfile: Option<&Path>) -> Result<Vec<File>> {
    if let Some(path) = authfile {
        if fs::metadata(path)?.is_none() {
            bail!("cannot read {}: there is no such file", path.display());
        }
        return Ok(vec![File::new(path.to_owned())]);
    }
    if let Some(path) = host.env("REGISTRY_AUTH_FILE") {
        return Ok(vec![File::new(path.into())]);
    }
    let mut files: Vec<File> = docker_config(host).into_iter().map(File::new).collect();
    let runtime = match host.env("XDG_RUNTIME_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(format!("/run/containers/{}", host.uid)),
    };
    let podman = if host.env("XDG_RUNTIME_DIR").is_some() {
        runtime.join("containers/auth.json")
    } else {
        runtime.join("auth.json")
    };
    files.push(File::new(podman));
    files.extend(host.config_dir().map(|dir| File::new(dir.join("containers/auth.json"))));
    files.extend(host.home.as_ref().map(|home| File { path: home.join(".dockercfg"), is_legacy: true }));
    Ok(files)
}

/// The file that `login` and `logout` change. Errors: there is no place for one.
pub fn target(host: &Host, authfile: Option<&Path>) -> Result<PathBuf> {
    let named = authfile.map(PathBuf::from).or_else(|| host.env("REGISTRY_AUTH_FILE").map(PathBuf::from));
    let Some(path) = named.or_else(|| docker_config(host)) else {
        return Err(anyhow!(
            "cannot find a place for credentials: HOME is not set and /etc/passwd has no home for uid {}",
            host.uid
        ))
        .hint("set HOME, DOCKER_CONFIG or REGISTRY_AUTH_FILE, or name a file with --authfile");
    };
    std::path::absolute(&path).with_context(|| format!("cannot resolve {}", path.display()))
}

fn docker_config(host: &Host) -> Option<PathBuf> {
    let dir = host.env("DOCKER_CONFIG").map(PathBuf::from);
    Some(dir.or_else(|| host.home.as_ref().map(|home| home.join(".docker")))?.join("config.json"))
}

/// The text of a file, `None` where there is none. Bounded: `--authfile` may name anything.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    // Where the caller may not look, there is nothing for them: /run/containers is often root's alone.
    match fs::metadata(path) {
        Ok(Some(found)) if found.is_dir() => bail!("cannot read {}: it is a directory", path.display()),
        Ok(Some(_)) => (),
        Ok(None) => return Ok(None),
        Err(e) if is_denied(&e) => return Ok(None),
        Err(e) => return Err(e),
    }
    let about = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    fs::open(path)?.take(LIMIT + 1).read_to_end(&mut bytes).with_context(about)?;
    if bytes.len() as u64 > LIMIT {
        bail!("cannot read {}: it is larger than {} MiB", path.display(), LIMIT >> 20);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        // std's error would quote the bytes in its Debug.
        Err(_) => bail!("cannot read {}: it is not UTF-8", path.display()),
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    let denied = |e: &std::io::Error| e.kind() == std::io::ErrorKind::PermissionDenied;
    error.downcast_ref::<std::io::Error>().is_some_and(denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(pairs: &[(&str, &str)], home: Option<&str>) -> Host {
        let mut host = Host::probe(Some(Path::new("/nonexistent"))).unwrap();
        host.env = pairs.iter().map(|(k, v)| (k.into(), v.into())).collect();
        host.home = home.map(PathBuf::from);
        host.uid = 7;
        host
    }

    fn paths(host: &Host) -> Vec<String> {
        to_read(host, None).unwrap().iter().map(|f| f.path.display().to_string()).collect()
    }

    #[test]
    fn files_are_looked_for_where_docker_and_podman_put_them() {
        let podman = ["/run/containers/7/auth.json", "/h/.config/containers/auth.json", "/h/.dockercfg"];
        let of_home = |first: &'static str| [&[first][..], &podman].concat();
        assert_eq!(paths(&host(&[], Some("/h"))), of_home("/h/.docker/config.json"));
        assert_eq!(paths(&host(&[("DOCKER_CONFIG", "/d")], Some("/h"))), of_home("/d/config.json"));
        let xdg = [("XDG_RUNTIME_DIR", "/x"), ("XDG_CONFIG_HOME", "/c")];
        assert_eq!(paths(&host(&xdg, None)), ["/x/containers/auth.json", "/c/containers/auth.json"]);
        let named = [("REGISTRY_AUTH_FILE", "/a"), ("DOCKER_CONFIG", "/d")];
        assert_eq!(paths(&host(&named, Some("/h"))), ["/a"]);
        assert!(to_read(&host(&[], None), Some(Path::new("/nonexistent/x"))).is_err());
    }

    #[test]
    fn login_writes_to_one_place() {
        let check = |pairs: &[(&str, &str)], authfile: Option<&str>, expected: &str| {
            let found = target(&host(pairs, Some("/h")), authfile.map(Path::new)).unwrap();
            assert_eq!(found, Path::new(expected));
        };
        check(&[], None, "/h/.docker/config.json");
        check(&[("DOCKER_CONFIG", "/d")], None, "/d/config.json");
        check(&[("DOCKER_CONFIG", "/d"), ("REGISTRY_AUTH_FILE", "/a")], None, "/a");
        check(&[("REGISTRY_AUTH_FILE", "/a")], Some("/b"), "/b");
        let error = target(&host(&[], None), None).unwrap_err();
        assert!(crate::error::report(&error).contains("hint: set HOME"), "{error:?}");
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert!(format!("{error:#}").contains("larger than 4 MiB"), "{error:#}");
        assert!(read(Path::new("/nonexistent/x")).unwrap().is_none());
    }
}
