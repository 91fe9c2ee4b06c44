//! Manifests and indexes: got, put, asked for. Source: distribution-spec "Pulling manifests", "Pushing Manifests".

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use ureq::http::Method;

use crate::error::NotFound;
use crate::error::ResultExt;
use crate::oci::Digest;

use super::Repository;
use crate::registry::exchange::Place;
use crate::registry::message::Call;
use crate::registry::message::Response;

/// The most that a manifest or an index may have, as registries have it.
const LIMIT: u64 = 8 << 20;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const SCHEMA_1: &[&str] = &[
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Media types that say nothing of what a document is: what web servers call files that they do not know.
const UNSAID: &[&str] =
    &["", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain"];

/// A manifest or an index, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The exact bytes, which the digest is of.
    pub bytes: Vec<u8>,
    /// Its media type, as the registry said and as it says itself.
    pub media_type: String,
    /// The digest of the bytes: by the algorithm of who asked for it, else of the registry.
    pub digest: Digest,
}

/// What tells manifests and indexes apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

impl Repository<'_> {
    /// Gets a manifest or an index by tag or digest: at most 8 MiB; verified where it is asked for by digest, or where the
    /// registry says the digest. [`NotFound`] of kind `manifest` where there is none; schema 1 is refused.
    pub fn manifest(&self, tag_or_digest: &str) -> Result<Manifest> {
        let got = self.each(|place| {
            let call = self.manifest_call(place, Method::GET, tag_or_digest)?;
            let response = self.exchange(place, &call)?;
            self.read_manifest(place, tag_or_digest, response)
        });
        Self::about(got, || format!("cannot get {}", self.with(tag_or_digest)))
    }

    /// The digest behind a tag, without its bytes where the registry allows; `None` where there is no such tag.
    pub fn head_manifest(&self, tag_or_digest: &str) -> Result<Option<Digest>> {
        let found = self.each(|place| {
            let call = self.manifest_call(place, Method::HEAD, tag_or_digest)?;
            let response = self.exchange(place, &call)?;
            match (response.status, digest_header(&response)) {
                (200, Some(digest)) => Ok(digest),
                (404, _) => Err(self.no_manifest(tag_or_digest)),
                // Not every registry answers HEAD, or tells the digest.
                _ => {
                    let call = self.manifest_call(place, Method::GET, tag_or_digest)?;
                    let response = self.exchange(place, &call)?;
                    Ok(self.read_manifest(place, tag_or_digest, response)?.digest)
                }
            }
        });
        match found {
            Ok(digest) => Ok(Some(digest)),
            Err(e) if e.downcast_ref::<NotFound>().is_some() => Ok(None),
            Err(e) => Err(e.context(format!("cannot look up {}", self.with(tag_or_digest)))),
        }
    }

    /// Puts a manifest or an index, as it is, and returns the digest by which the registry has it: the one that was named,
    /// else the one that the registry says.
    pub fn put_manifest(&self, tag_or_digest: &str, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let about = || format!("cannot put {}", self.with(tag_or_digest));
        let place = self.origin().with_context(about)?;
        let url = self.url(place, &format!("manifests/{tag_or_digest}")).with_context(about)?;
        let call = Call { body: Some(bytes), is_slow: true, ..Call::new(Method::PUT, url) }
            .header("content-type", media_type);
        let response = self.exchange(place, &call).with_context(about)?;
        if !matches!(response.status, 200..=202) {
            return Err(self.refusal(place, response)).with_context(about);
        }
        let asked = asked_digest(tag_or_digest)?;
        let said = digest_header(&response);
        for theirs in asked.iter().chain(&said) {
            let digest = theirs.algorithm().digest(bytes);
            if *theirs != digest {
                return Err(anyhow!("the registry made {theirs} of the manifest {digest}"))
                    .with_context(about);
            }
        }
        Ok(asked.or(said).unwrap_or_else(|| Digest::of(bytes)))
    }

    fn manifest_call(&self, place: &Place, method: Method, tag_or_digest: &str) -> Result<Call<'static>> {
        let url = self.url(place, &format!("manifests/{tag_or_digest}"))?;
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        Ok(Call::new(method, url).header("accept", accept))
    }

    fn read_manifest(&self, place: &Place, tag_or_digest: &str, response: Response) -> Result<Manifest> {
        match response.status {
            200 => {}
            404 => return Err(self.no_manifest(tag_or_digest)),
            _ => return Err(self.refusal(place, response)),
        }
        let content_type = response.header("content-type").unwrap_or_default().to_owned();
        let said = digest_header(&response);
        let bytes = response.bytes(LIMIT)?;
        let wanted = asked_digest(tag_or_digest)?.or(said).unwrap_or_else(|| Digest::of(&bytes));
        let digest = wanted.algorithm().digest(&bytes);
        if wanted != digest {
            bail!("{} sent {digest} for the manifest {wanted}", place.registry);
        }
        let media_type = media_type(&content_type, &bytes)?;
        Ok(Manifest { bytes, media_type, digest })
    }

    fn no_manifest(&self, tag_or_digest: &str) -> anyhow::Error {
        NotFound { kind: "manifest", name: self.with(tag_or_digest) }.into()
    }

    fn with(&self, tag_or_digest: &str) -> String {
        let separator = if tag_or_digest.contains(':') { '@' } else { ':' };
        format!("{}{separator}{tag_or_digest}", self.name())
    }
}

/// The digest that was asked for, if it was no tag.
fn asked_digest(tag_or_digest: &str) -> Result<Option<Digest>> {
    Ok(if tag_or_digest.contains(':') { Some(tag_or_digest.parse()?) } else { None })
}

fn digest_header(response: &Response) -> Option<Digest> {
    response.header("docker-content-digest")?.parse().ok()
}

/// The media type of a document: what the header says, unless it says nothing, and what the document says; they may not
/// contradict each other, nor the document itself, or one digest could mean two things (CVE-2021-41190). Pure.
fn media_type(content_type: &str, bytes: &[u8]) -> Result<String> {
    let said = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let shape: Shape = serde_json::from_slice(bytes).context("it is no manifest")?;
    let is_schema_1 = SCHEMA_1.contains(&said.as_str()) || shape.schema_version == Some(1);
    if is_schema_1 {
        return Err(anyhow!("it is in docker's first format (schema 1), which holds no digests of layers"))
            .hint("push it anew with a client of 2017 or later");
    }
    let is_index = shape.manifests.is_some();
    if is_index && (shape.layers.is_some() || shape.config.is_some()) {
        bail!("it is a manifest and an index at once");
    }
    if !is_index && shape.layers.is_none() {
        bail!("it is neither a manifest nor an index");
    }
    let known = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
    if !known.contains(&said.as_str()) && !UNSAID.contains(&said.as_str()) {
        bail!("the registry calls it {said}, which is neither a manifest nor an index");
    }
    if let Some(own) = shape.media_type.as_deref().filter(|own| !own.is_empty() && !known.contains(own)) {
        bail!("it calls itself {own}, which is neither a manifest nor an index");
    }
    let named = [Some(said.as_str()), shape.media_type.as_deref()];
    let mut named = named.into_iter().flatten().filter(|t| known.contains(t));
    let media_type = named.next().unwrap_or(if is_index { OCI_INDEX } else { OCI_MANIFEST });
    if let Some(other) = named.find(|other| *other != media_type) {
        bail!("the registry calls it {media_type}, and it calls itself {other}");
    }
    if is_index != [OCI_INDEX, DOCKER_LIST].contains(&media_type) {
        bail!("it is called {media_type}, which it is not");
    }
    Ok(media_type.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: &str, document: &str, want: Result<&str, &str>) {
        match (media_type(content_type, document.as_bytes()), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{content_type} {document}"),
            (Err(got), Err(want)) => {
                assert!(crate::error::chain(&got).contains(want), "{content_type} {document}: {got:?}");
            }
            (got, _) => panic!("{content_type} {document}: {got:?}"),
        }
    }

    #[test]
    fn header_and_document_agree() {
        let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        check(OCI_MANIFEST, manifest, Ok(OCI_MANIFEST));
        check(
            "application/vnd.docker.distribution.manifest.v2+json; charset=utf-8",
            manifest,
            Ok(DOCKER_MANIFEST),
        );
        check("application/json", manifest, Ok(OCI_MANIFEST));
        check("", index, Ok(OCI_INDEX));
        let typed = format!(r#"{{"mediaType":"{DOCKER_LIST}","manifests":[]}}"#);
        check("text/plain", &typed, Ok(DOCKER_LIST));
        check(DOCKER_LIST, &typed, Ok(DOCKER_LIST));
        check("text/html", &typed, Err("calls it text/html"));
        check(OCI_MANIFEST, r#"{"mediaType":"text/html","layers":[]}"#, Err("calls itself text/html"));
        check(OCI_INDEX, &typed, Err("calls itself"));
        check(OCI_INDEX, manifest, Err("which it is not"));
        check(OCI_MANIFEST, index, Err("which it is not"));
        check("", r#"{"manifests":[],"layers":[]}"#, Err("at once"));
        check("", "{}", Err("neither"));
        check(OCI_MANIFEST, "<html>", Err("no manifest"));
        check("", r#"{"schemaVersion":1,"fsLayers":[]}"#, Err("schema 1"));
        check(SCHEMA_1[1], "{}", Err("schema 1"));
        check("", &"[".repeat(100_000), Err("no manifest"));
    }
}
