//! Certificates of a private registry: its authorities, and ours to show it.
//!
//! Docker's rules: the directory `certs.d/HOST:PORT` holds authorities as `*.crt`, and our certificates as `*.cert`, each with
//! a `*.key` of the same name. All directories that there are count, the machine's and the user's.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::error::ResultExt;
use crate::fs;
use crate::host::Host;

/// What a directory of certificates holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Authorities, in PEM.
    pub cas: Vec<Vec<u8>>,
    /// Our certificates and their keys, in PEM.
    pub clients: Vec<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The keys are secret.
        write!(f, "Certificates {{ cas: {}, clients: {} }}", self.cas.len(), self.clients.len())
    }
}

/// The certificates for a registry (`host[:port]`, `docker.io` for Docker Hub). `cert_dir` is `--cert-dir`, and then the
/// only directory that is looked at. Errors: a certificate without its key and the other way round; what cannot be read.
pub fn find(host: &Host, registry: &str, cert_dir: Option<&Path>) -> Result<Certificates> {
    let mut found = Certificates::default();
    if let Some(dir) = cert_dir {
        if !fs::metadata(dir)?.is_some_and(|m| m.is_dir()) {
            return Err(anyhow!("cannot read certificates of {}: it is not a directory", dir.display()));
        }
        read(dir, fs::read_dir(dir)?, &mut found)?;
        return Ok(found);
    }
    // A name that leads elsewhere is nobody's directory.
    if registry.is_empty() || registry.starts_with('.') || registry.contains('/') {
        return Ok(found);
    }
    for dir in directories(host) {
        let dir = dir.join(registry);
        match fs::read_dir(&dir) {
            Ok(names) => read(&dir, names, &mut found)?,
            // The machine's directories may be root's alone: as podman, a user does without.
            Err(e) if is_denied(&e) => (),
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

fn directories(host: &Host) -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from("/etc/docker/certs.d"), PathBuf::from("/etc/containers/certs.d")];
    if let Some(config) = host.config_dir() {
        // The first is what a rootless docker reads.
        all.push(config.join("docker/certs.d"));
        all.push(config.join("containers/certs.d"));
    }
    all
}

fn is_denied(error: &anyhow::Error) -> bool {
    let denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
    error.downcast_ref::<io::Error>().is_some_and(denied)
}

/// Adds what lies in `dir` under `names`.
fn read(dir: &Path, mut names: Vec<std::ffi::OsString>, found: &mut Certificates) -> Result<()> {
    names.sort();
    for name in &names {
        let path = dir.join(name);
        let other = |extension: &str| {
            let other = path.with_extension(extension);
            names.iter().any(|n| Some(n.as_os_str()) == other.file_name()).then_some(other)
        };
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => found.cas.push(fs::read(&path)?),
            Some("cert") => {
                let Some(key) = other("key") else {
                    return Err(anyhow!("cannot use certificate {}: its key is missing", path.display()))
                        .hint("put the key beside it as *.key; an authority's certificate is called *.crt");
                };
                found.clients.push((fs::read(&path)?, fs::read(&key)?));
            }
            Some("key") if other("cert").is_none() => {
                return Err(anyhow!("cannot use key {}: its certificate is missing", path.display()))
                    .hint("put the certificate beside it as *.cert");
            }
            _ => (),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_as_docker_reads_it() {
        let host = Host::probe(Some(Path::new("/nonexistent"))).unwrap();
        let dir = std::env::temp_dir().join(format!("dhow-certs-{}", std::process::id()));
        fs::create_dir_all(&dir, 0o700).unwrap();
        for name in ["b.crt", "a.crt", "c.cert", "c.key", "readme"] {
            fs::write(&dir.join(name), name.as_bytes()).unwrap();
        }
        let found = find(&host, "reg:5000", Some(&dir)).unwrap();
        assert_eq!(found.cas, [b"a.crt", b"b.crt"]);
        assert_eq!(found.clients, [(b"c.cert".to_vec(), b"c.key".to_vec())]);
        assert_eq!(format!("{found:?}"), "Certificates { cas: 2, clients: 1 }");
        fs::remove_file(&dir.join("c.key")).unwrap();
        let error = format!("{:#}", find(&host, "reg:5000", Some(&dir)).unwrap_err());
        assert!(error.contains("c.cert: its key is missing"), "{error}");
        fs::remove_file(&dir.join("c.cert")).unwrap();
        fs::write(&dir.join("d.key"), b"").unwrap();
        let error = format!("{:#}", find(&host, "reg:5000", Some(&dir)).unwrap_err());
        assert!(error.contains("d.key: its certificate is missing"), "{error}");
        fs::remove_tree(&dir).unwrap();
        assert!(find(&host, "reg:5000", Some(&dir)).is_err());
    }

    #[test]
    fn each_user_has_directories_of_their_own() {
        let mut host = Host::probe(Some(Path::new("/nonexistent"))).unwrap();
        let dir = std::env::temp_dir().join(format!("dhow-certs-d-{}", std::process::id()));
        host.env.insert("XDG_CONFIG_HOME".into(), dir.clone().into());
        let of_registry = dir.join("containers/certs.d/no.such.example:5000");
        fs::create_dir_all(&of_registry, 0o700).unwrap();
        fs::write(&of_registry.join("ca.crt"), b"x").unwrap();
        assert_eq!(find(&host, "no.such.example:5000", None).unwrap().cas, [b"x"]);
        assert_eq!(find(&host, "no.such.example", None).unwrap(), Certificates::default());
        assert_eq!(find(&host, "../certs.d/no.such.example:5000", None).unwrap(), Certificates::default());
        fs::remove_tree(&dir).unwrap();
    }
}
