//! What a registry that keeps to the distribution specification holds and answers; the ground that `hostile_registry`
//! misbehaves on. Sections are those of the OCI distribution specification 1.1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;

use crate::hostile_registry::Request;
use crate::image_made::{Blob, Image, OCI_MANIFEST, digest_by};

/// What the registry holds.
#[derive(Default)]
pub struct Content {
    /// Repository and digest. The bytes of one digest may be kept twice: that is how a registry without mounts sees it.
    pub blobs: BTreeMap<(String, String), Arc<[u8]>>,
    /// Repository, and tag or digest.
    pub manifests: BTreeMap<(String, String), Blob>,
    /// Uploads under way, by their number.
    pub uploads: BTreeMap<usize, Vec<u8>>,
    n_uploads: usize,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Arc<[u8]>,
    /// Where in `body` what is sent begins.
    pub from: u64,
}

impl Answer {
    fn new(status: u16, body: impl Into<Arc<[u8]>>) -> Answer {
        Answer { status, headers: vec![], body: body.into(), from: 0 }
    }

    /// An error as section "Error Codes" has it.
    fn error(status: u16, code: &str) -> Answer {
        let body = json!({ "errors": [{ "code": code, "message": "so says the test", "detail": null }] });
        Answer::new(status, body.to_string().into_bytes()).header("Content-Type", "application/json")
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

impl Content {
    /// Puts an image there, under a tag and its digest.
    pub fn put(&mut self, repository: &str, tag: &str, image: &Image) {
        for blob in image.blobs() {
            self.blobs.insert((repository.to_owned(), blob.digest.clone()), blob.bytes.clone());
        }
        self.put_manifest(repository, tag, image.manifest.clone());
    }

    /// Puts a manifest there, under a tag and its digest.
    pub fn put_manifest(&mut self, repository: &str, tag: &str, manifest: Blob) {
        self.manifests.insert((repository.to_owned(), manifest.digest.clone()), manifest.clone());
        self.manifests.insert((repository.to_owned(), tag.to_owned()), manifest);
    }

    /// Where an upload stands, so that a cut one can be told from one that never began.
    pub fn add_to_upload(&mut self, path: &str, bytes: &[u8]) {
        if let Some(upload) = upload_number(path).and_then(|n| self.uploads.get_mut(&n)) {
            upload.extend(bytes);
        }
    }

    /// The answer to a request. The bytes of a PATCH or PUT to an upload were given to `add_to_upload` as they came; `body` is
    /// that of any other request.
    pub fn answer(&mut self, request: &Request, body: &[u8]) -> Answer {
        let Some(path) = request.path.strip_prefix("/v2/") else {
            let token = json!({ "token": "token-of-the-test", "expires_in": 300 });
            return match request.path.as_str() {
                "/v2" => Answer::new(200, *b"{}"),
                "/token" => Answer::new(200, token.to_string().into_bytes()),
                _ => Answer::error(404, "UNSUPPORTED"),
            };
        };
        if path.is_empty() {
            return Answer::new(200, *b"{}").header("Docker-Distribution-API-Version", "registry/2.0");
        }
        let reading = matches!(request.method.as_str(), "GET" | "HEAD");
        if let Some((name, _)) = path.split_once("/blobs/uploads/") {
            return self.upload(name, request);
        } else if let Some((name, digest)) = path.split_once("/blobs/").filter(|_| reading) {
            return self.blob(name, digest, request);
        } else if let Some((name, reference)) = path.split_once("/manifests/") {
            return match request.method.as_str() {
                "PUT" => self.receive_manifest(name, reference, request, body),
                _ => self.manifest(name, reference),
            };
        } else if let Some((name, _)) = path.split_once("/tags/list") {
            let of_name = |(repository, tag): &&(String, String)| repository == name && !tag.contains(':');
            let tags: BTreeSet<&String> = self.manifests.keys().filter(of_name).map(|(_, tag)| tag).collect();
            return Answer::new(200, json!({ "name": name, "tags": tags }).to_string().into_bytes());
        }
        Answer::error(404, "NAME_UNKNOWN")
    }

    /// Section "Pulling manifests".
    fn manifest(&self, name: &str, reference: &str) -> Answer {
        let Some(manifest) = self.manifests.get(&(name.to_owned(), reference.to_owned())) else {
            return Answer::error(404, "MANIFEST_UNKNOWN");
        };
        Answer::new(200, manifest.bytes.clone())
            .header("Content-Type", &*manifest.media_type)
            .header("Docker-Content-Digest", &*manifest.digest)
    }

    /// Section "Pulling blobs", with ranges of RFC 9110 section 14 as clients send them: `bytes=FROM-[TO]`.
    fn blob(&self, name: &str, digest: &str, request: &Request) -> Answer {
        let Some(bytes) = self.blobs.get(&(name.to_owned(), digest.to_owned())) else {
            return Answer::error(404, "BLOB_UNKNOWN");
        };
        let answer = Answer::new(200, bytes.clone())
            .header("Content-Type", "application/octet-stream")
            .header("Docker-Content-Digest", digest);
        let Some(range) = request.header("range").and_then(|r| r.strip_prefix("bytes=")) else {
            return answer;
        };
        let total = bytes.len() as u64;
        let (from, to) = range.split_once('-').unwrap_or((range, ""));
        let from: u64 = from.parse().unwrap_or(0);
        let to = to.parse().map_or(total, |to: u64| to + 1).min(total);
        if from >= to {
            return Answer::error(416, "RANGE_INVALID").header("Content-Range", format!("bytes */{total}"));
        }
        let range = format!("bytes {from}-{}/{total}", to - 1);
        let body: Arc<[u8]> = if to == total { bytes.clone() } else { bytes[..to as usize].into() };
        Answer { status: 206, body, from, ..answer }.header("Content-Range", range)
    }

    /// Section "Pushing blobs": begin, mount, continue, ask, end.
    fn upload(&mut self, name: &str, request: &Request) -> Answer {
        let query = |key: &str| {
            let pair = request.query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))?;
            Some(pair.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/"))
        };
        if request.method == "POST" {
            if let (Some(digest), Some(from)) = (query("mount"), query("from"))
                && let Some(bytes) = self.blobs.get(&(from, digest.clone())).cloned()
            {
                self.blobs.insert((name.to_owned(), digest.clone()), bytes);
                return Answer::new(201, []).header("Location", format!("/v2/{name}/blobs/{digest}"));
            }
            self.n_uploads += 1;
            self.uploads.insert(self.n_uploads, Vec::new());
            return standing(202, name, self.n_uploads, 0);
        }
        let Some(n) = upload_number(&request.path).filter(|n| self.uploads.contains_key(n)) else {
            return Answer::error(404, "BLOB_UPLOAD_UNKNOWN");
        };
        let length = self.uploads[&n].len();
        match request.method.as_str() {
            "PATCH" => standing(202, name, n, length),
            "GET" | "HEAD" => standing(204, name, n, length),
            "PUT" => {
                let bytes = self.uploads.remove(&n).unwrap_or_default();
                let said = query("digest").unwrap_or_default();
                let is = digest_by(said.split(':').next().unwrap_or_default(), &bytes);
                if said != is {
                    return Answer::error(400, "DIGEST_INVALID");
                }
                self.blobs.insert((name.to_owned(), is.clone()), bytes.into());
                Answer::new(201, []).header("Location", format!("/v2/{name}/blobs/{is}"))
            }
            _ => {
                self.uploads.remove(&n);
                Answer::new(204, [])
            }
        }
    }

    /// Section "Pushing manifests": what it names has to be there.
    fn receive_manifest(&mut self, name: &str, reference: &str, request: &Request, body: &[u8]) -> Answer {
        let Ok(manifest) = serde_json::from_slice::<serde_json::Value>(body) else {
            return Answer::error(400, "MANIFEST_INVALID");
        };
        let is_there = |digest: &str| {
            let key = (name.to_owned(), digest.to_owned());
            self.blobs.contains_key(&key) || self.manifests.contains_key(&key)
        };
        let named = ["layers", "manifests"].iter().filter_map(|list| manifest[list].as_array()).flatten();
        // But for what is to be had elsewhere.
        let named = named.filter(|descriptor| descriptor["urls"].is_null());
        let mut named = named.chain(manifest.get("config")).filter_map(|d| d["digest"].as_str());
        if !named.all(is_there) {
            return Answer::error(400, "MANIFEST_BLOB_UNKNOWN");
        }
        let media_type = request.header("content-type").unwrap_or(OCI_MANIFEST);
        let mut manifest = Blob::new(body.to_vec(), media_type);
        if let Some((algorithm, _)) = reference.split_once(':') {
            manifest = manifest.by(algorithm);
            if manifest.digest != reference {
                return Answer::error(400, "DIGEST_INVALID");
            }
        }
        let answer = Answer::new(201, [])
            .header("Location", format!("/v2/{name}/manifests/{}", manifest.digest))
            .header("Docker-Content-Digest", &*manifest.digest);
        self.put_manifest(name, reference, manifest);
        answer
    }
}

fn standing(status: u16, name: &str, n: usize, length: usize) -> Answer {
    Answer::new(status, [])
        .header("Location", format!("/v2/{name}/blobs/uploads/{n}"))
        .header("Range", format!("0-{}", length.saturating_sub(1)))
}

fn upload_number(path: &str) -> Option<usize> {
    path.rsplit_once("/blobs/uploads/")?.1.parse().ok()
}
