//! Content digests: `sha256:<hex>`, and the newtypes for the ones that are easily confused.
//!
//! What dhow makes has sha256 digests. What comes from outside may have any of those that docker knows (go-digest):
//! sha256, sha384, sha512.
//! Source: OCI image-spec, descriptor.md "Digests" and config.md "Layer DiffID", "Layer ChainID".

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// How bytes are hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// The one of everything that is made here.
    #[default]
    Sha256,
    /// Of 96 hex digits.
    Sha384,
    /// Of 128 hex digits.
    Sha512,
}

/// The digest of some bytes: the algorithm's name, a colon, lower-case hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest {
    // Invariant: 64, 96 or 128 lower-case hex digits, so that it can be a file name without further checks. Their number
    // tells the algorithm.
    hex: String,
}

/// The digest of a layer's uncompressed tar.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct DiffId(pub Digest);

/// The digest of a layer and all the layers beneath it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct ChainId(pub Digest);

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a digest: {why}")]
pub struct InvalidDigest {
    text: String,
    /// The reason alone.
    pub why: &'static str,
}

/// Hashes bytes as they come.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// See [`Algorithm`].
    Sha256(Sha256),
    /// See [`Algorithm`].
    Sha384(Sha384),
    /// See [`Algorithm`].
    Sha512(Sha512),
}

impl Algorithm {
    /// All that there are.
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

    /// The specification's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn n_digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha384 => 96,
            Algorithm::Sha512 => 128,
        }
    }

    /// Begins to hash.
    pub fn hasher(self) -> Hasher {
        match self {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(Sha384::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    /// The digest of these bytes.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha384(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all that came.
    pub fn finish(self) -> Digest {
        let hex = |hash: &[u8]| hash.iter().map(|b| format!("{b:02x}")).collect();
        let hex = match self {
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
            Hasher::Sha384(hasher) => hex(&hasher.finalize()),
            Hasher::Sha512(hasher) => hex(&hasher.finalize()),
        };
        Digest { hex }
    }
}

impl Digest {
    /// The sha256 digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Algorithm::Sha256.digest(bytes)
    }

    /// The digest that these hex digits are of: what a file is called by. `None` where they are none, or too many or too
    /// few for any algorithm.
    pub fn from_hex(hex: &str) -> Option<Digest> {
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let is_one = Algorithm::ALL.iter().any(|a| a.n_digits() == hex.len()) && hex.bytes().all(is_hex);
        is_one.then(|| Digest { hex: hex.to_owned() })
    }

    /// By which algorithm bytes are compared with it.
    pub fn algorithm(&self) -> Algorithm {
        match self.hex.len() {
            96 => Algorithm::Sha384,
            128 => Algorithm::Sha512,
            _ => Algorithm::Sha256,
        }
    }

    /// The hex digits. No two digests have the same, whatever their algorithms.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Where an OCI layout has the bytes beneath `blobs/`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.algorithm().name(), self.hex)
    }

    /// What is behind the algorithm in a text that may be a digest, or the beginning of one.
    pub fn bare(text: &str) -> &str {
        match text.split_once(':') {
            Some((name, hex)) if Algorithm::ALL.iter().any(|a| a.name() == name) => hex,
            _ => text,
        }
    }

    /// The first 12 hex digits, as shown to people.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    /// As docker reads it: the reference grammar's form, and then what go-digest knows of the algorithm.
    fn from_str(text: &str) -> Result<Digest, InvalidDigest> {
        let bad = |why| InvalidDigest { text: text.to_owned(), why };
        let (name, hex) = match text.split_once(':') {
            Some((name, hex)) if is_algorithm(name) && is_any_hex(hex) => (name, hex),
            _ => return Err(bad("a digest is sha256: and 64 hex digits")),
        };
        let Some(algorithm) = Algorithm::ALL.into_iter().find(|a| a.name() == name) else {
            return Err(bad("unsupported digest algorithm: sha256, sha384 and sha512 are known"));
        };
        Digest::from_hex(hex).filter(|digest| digest.algorithm() == algorithm).ok_or_else(|| {
            bad(match algorithm {
                Algorithm::Sha256 => "a digest is sha256: and 64 lower-case hex digits",
                Algorithm::Sha384 => "a digest is sha384: and 96 lower-case hex digits",
                Algorithm::Sha512 => "a digest is sha512: and 128 lower-case hex digits",
            })
        })
    }
}

/// `[A-Za-z][A-Za-z0-9]*` joined by one of `-_+.`
fn is_algorithm(name: &str) -> bool {
    name.split(['-', '_', '+', '.']).all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// As many hex digits as a digest of any algorithm has at least.
fn is_any_hex(hex: &str) -> bool {
    hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Digest, InvalidDigest> {
        text.parse()
    }
}

impl ChainId {
    /// The chain ids of a stack of layers, lowest first: the first is its diff id, each further one is the digest
    /// of `parent + " " + diff_id`.
    pub fn stack(diff_ids: &[DiffId]) -> Vec<ChainId> {
        let mut chain: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            let id = match chain.last() {
                None => diff_id.0.clone(),
                Some(parent) => Digest::of(format!("{} {}", parent.0, diff_id.0).as_bytes()),
            };
            chain.push(ChainId(id));
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_digests_parse() {
        for (name, n) in [("sha256", 64), ("sha384", 96), ("sha512", 128)] {
            let good = format!("{name}:{}", "0f".repeat(n / 2));
            let digest: Digest = good.parse().unwrap();
            assert_eq!(digest.to_string(), good);
            assert_eq!(digest.path(), good.replace(':', "/"));
            assert_eq!(Digest::from_hex(digest.hex()), Some(digest));
            for bad in [good.to_uppercase(), format!("{good}00"), good[..good.len() - 2].to_owned()] {
                assert!(bad.parse::<Digest>().is_err(), "{bad}");
            }
            assert!(format!("{name}:{}", "0F".repeat(n / 2)).parse::<Digest>().is_err());
        }
        for bad in ["", "sha256:", "sha256:../../etc/passwd", "sha512:00", &"0f".repeat(32)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!([0, 63, 65, 127].iter().all(|n| Digest::from_hex(&"a".repeat(*n)).is_none()));
    }

    #[test]
    fn a_digest_that_is_none_says_why() {
        let check = |text: &str, why: &str| {
            let error = text.parse::<Digest>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        };
        let hex = "0f".repeat(32);
        check(&format!("md5:{}", &hex[..32]), "unsupported digest algorithm");
        check(&format!("a+b.c_D-e:{hex}"), "unsupported digest algorithm");
        check(&format!("md5:{}", &hex[..31]), "a digest is sha256:");
        check(&format!("a..b:{hex}"), "a digest is sha256:");
        check(&format!("1a:{hex}"), "a digest is sha256:");
        check(&format!("sha512:{hex}"), "a digest is sha512: and 128");
    }

    #[test]
    fn bytes_are_hashed_by_each_algorithm() {
        // Source: the values that sha256sum(1), sha384sum(1) and sha512sum(1) print.
        let check = |algorithm: Algorithm, want: &str| {
            let digest = algorithm.digest(b"abc");
            assert!(digest.to_string().starts_with(want), "{digest}");
            assert_eq!(digest.algorithm(), algorithm);
        };
        check(Algorithm::Sha256, "sha256:ba7816bf8f01cfea");
        check(Algorithm::Sha384, "sha384:cb00753f45a35e8b");
        check(Algorithm::Sha512, "sha512:ddaf35a193617aba");
        assert_eq!(Digest::of(b"abc"), Algorithm::default().digest(b"abc"));
    }

    #[test]
    fn chain_id_follows_the_specification() {
        let (a, b) = (DiffId(Digest::of(b"a")), DiffId(Digest::of(b"b")));
        let stack = ChainId::stack(&[a.clone(), b.clone()]);
        assert_eq!(stack[0].0, a.0);
        assert_eq!(stack[1].0, Digest::of(format!("{} {}", a.0, b.0).as_bytes()));
    }
}
