//! Content digests: `sha256:<hex>`, and the newtypes for the ones that are easily confused.
//! Source: OCI image-spec, descriptor.md "Digests" and config.md "Layer DiffID", "Layer ChainID".

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// The digest of some bytes, always sha256: `sha256:` and 64 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest {
    // Invariant: 64 lower-case hex digits, so that it can be a file name without further checks.
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
#[error("{0:?} is not a digest: sha256: and 64 hex digits are wanted")]
pub struct InvalidDigest(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::from_hash(Sha256::digest(bytes).as_slice())
    }

    /// The digest that a finished sha256 hasher gave.
    pub fn from_hash(hash: &[u8]) -> Digest {
        debug_assert_eq!(hash.len(), 32);
        Digest { hex: hash.iter().map(|b| format!("{b:02x}")).collect() }
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first 12 hex digits, as shown to people.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Digest, InvalidDigest> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| InvalidDigest(text.to_owned()))?;
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() != 64 || !hex.bytes().all(is_hex) {
            return Err(InvalidDigest(text.to_owned()));
        }
        Ok(Digest { hex: hex.to_owned() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex)
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
    fn only_whole_sha256_digests_parse() {
        let good = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        for bad in ["", "sha256:", "sha256:../../etc/passwd", "sha512:00", &good.to_uppercase(), &good[..70]]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn chain_id_follows_the_specification() {
        let (a, b) = (DiffId(Digest::of(b"a")), DiffId(Digest::of(b"b")));
        let stack = ChainId::stack(&[a.clone(), b.clone()]);
        assert_eq!(stack[0].0, a.0);
        assert_eq!(stack[1].0, Digest::of(format!("{} {}", a.0, b.0).as_bytes()));
    }
}
