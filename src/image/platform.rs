//! A platform: operating system, architecture and variant, in the words of Go, which the specifications use.

use std::fmt;
use std::str::FromStr;

/// `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v7` and the like; `None` for any.
    pub variant: Option<String>,
}

/// Why a text is not a platform.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a platform such as linux/arm64/v8")]
pub struct InvalidPlatform(String);

impl Platform {
    /// The one that this program was built for.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    /// With the names by which kernels and distributions call an architecture turned into Go's.
    fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let (architecture, own_variant) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "i386" | "i686" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            other => (other, None),
        };
        // Every arm64 is a v8 and every amd64 a v1: leaving that out is the normal form.
        let variant = variant.or(own_variant).filter(|v| match architecture {
            "arm64" => !matches!(*v, "v8" | "8"),
            "amd64" => *v != "v1",
            _ => true,
        });
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Whether an image for `other` is one for this platform.
    pub fn accepts(&self, other: &Platform) -> bool {
        let same = self.os == other.os && self.architecture == other.architecture;
        same && (self.variant.is_none() || self.variant == other.variant)
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;
    fn from_str(text: &str) -> Result<Platform, InvalidPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |p: &&str| {
            !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(is_word) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        let lower: Vec<String> = parts.iter().map(|p| p.to_ascii_lowercase()).collect();
        match lower.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["linux"] => Ok(Platform::host()),
            [architecture] => Ok(Platform::new("linux", architecture, None)),
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(InvalidPlatform(text.to_owned())),
        }
    }
}

impl From<&crate::oci::image::Platform> for Platform {
    fn from(platform: &crate::oci::image::Platform) -> Platform {
        let variant = platform.variant().as_deref();
        Platform::new(&platform.os().to_string(), &platform.architecture().to_string(), variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|v| write!(f, "/{v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_one_form() {
        let check = |text: &str, want: &str| assert_eq!(text.parse::<Platform>().unwrap().to_string(), want);
        check("linux/amd64", "linux/amd64");
        check("Linux/x86_64", "linux/amd64");
        check("linux/arm64/v8", "linux/arm64");
        check("aarch64", "linux/arm64");
        check("linux/arm/v7", "linux/arm/v7");
        check("armhf", "linux/arm/v7");
        check("windows/amd64", "windows/amd64");
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variant_that_was_not_asked_for_does_not_matter() {
        let check = |asked: &str, there: &str, want: bool| {
            let there: Platform = there.parse().unwrap();
            assert_eq!(asked.parse::<Platform>().unwrap().accepts(&there), want, "{asked} {there}");
        };
        check("linux/arm", "linux/arm/v7", true);
        check("linux/arm/v6", "linux/arm/v7", false);
        check("linux/amd64", "linux/arm64", false);
    }
}
