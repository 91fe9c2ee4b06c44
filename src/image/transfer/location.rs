//! A location: where an image can be copied from or to, as skopeo and podman spell it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Error, Result, anyhow, bail};

use crate::error::ResultExt;
use crate::oci::Reference;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `docker://REFERENCE`, with the tag written out where there is no digest.
    Registry(Reference),
    /// `oci:DIR[:TAG]`
    OciDirectory(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]`
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:REFERENCE]`
    DockerArchive(PathBuf, Option<Reference>),
    /// `dir:DIR`
    Directory(PathBuf),
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Location> {
        let hint =
            "use docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] or dir:DIR";
        let Some((transport, rest)) = text.split_once(':') else {
            return Err(anyhow!("cannot read {text:?}: it does not say what kind of place it is")).hint(hint);
        };
        // A path with a colon in it cannot be said, as with skopeo.
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (PathBuf::from(path), Some(tag.to_owned()).filter(|t| !t.is_empty())),
            None => (PathBuf::from(rest), None),
        };
        if rest.is_empty() || (transport != "docker" && path.as_os_str().is_empty()) {
            bail!("cannot read {text:?}: nothing follows {transport}:");
        }
        match transport {
            "docker" => match rest.strip_prefix("//") {
                Some(name) => Ok(Location::Registry(name.parse::<Reference>()?.with_default_tag())),
                None => Err(anyhow!("cannot read {text:?}")).hint(hint),
            },
            "oci" => Ok(Location::OciDirectory(path, tag)),
            "oci-archive" => Ok(Location::OciArchive(path, tag)),
            "docker-archive" => {
                let name = tag.map(|t| t.parse::<Reference>()).transpose()?.map(Reference::with_default_tag);
                Ok(Location::DockerArchive(path, name))
            }
            "dir" => Ok(Location::Directory(PathBuf::from(rest))),
            other => {
                Err(anyhow!("cannot read {text:?}: there is no such kind of place as {other:?}")).hint(hint)
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag) = match self {
            Location::Registry(reference) => return write!(f, "docker://{}", reference.familiar()),
            Location::OciDirectory(path, tag) => ("oci", path, tag.clone()),
            Location::OciArchive(path, tag) => ("oci-archive", path, tag.clone()),
            Location::DockerArchive(path, name) => {
                ("docker-archive", path, name.as_ref().map(Reference::familiar))
            }
            Location::Directory(path) => ("dir", path, None),
        };
        write!(f, "{transport}:{}", path.display())?;
        tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_read_as_skopeos() {
        let check = |text: &str, want: &str| {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), want);
        };
        check("docker://busybox", "docker://busybox:latest");
        check("docker://localhost:5000/a/b:1", "docker://localhost:5000/a/b:1");
        check("oci:some/dir", "oci:some/dir");
        check("oci:some/dir:tag", "oci:some/dir:tag");
        check("oci-archive:f.tar:a.b/c:1", "oci-archive:f.tar:a.b/c:1");
        check("docker-archive:f.tar:name", "docker-archive:f.tar:name:latest");
        check("dir:a:b", "dir:a:b");
        for bad in [
            "busybox",
            "docker:busybox",
            "docker://",
            "docker://A",
            "oci:",
            "oci::tag",
            "x:y",
            "dir:",
            "docker-archive:f:A",
        ] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
