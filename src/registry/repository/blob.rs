//! Blobs as streams, and whether they are there. Source: distribution-spec "Pulling blobs", "Checking if content exists".

use std::io;
use std::io::Read;

use anyhow::{Context, Result, anyhow, bail};
use ureq::http::Method;

use crate::error::NotFound;
use crate::oci::Digest;

use super::Repository;
use crate::registry::exchange::Place;
use crate::registry::header;
use crate::registry::message::Body;
use crate::registry::message::Call;
use crate::registry::message::Response;
use crate::registry::url::Url;

/// A blob's bytes as they arrive. Not verified: the digest is for the reader to compare. A read error that asking again may
/// mend is a [`Cut`](crate::registry::Cut).
pub struct BlobStream {
    /// Where the bytes start: what was asked for, or 0 where the registry ignores Range.
    pub from: u64,
    /// How large the whole blob is, where the registry says so.
    pub total: Option<u64>,
    body: Body,
}

impl Read for BlobStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}

impl Repository<'_> {
    /// Begins to fetch a blob, from the byte `from` if the registry can. A stream that is cut (see
    /// [`Cut`](crate::registry::Cut)) is the caller's to go on with, by calling again.
    pub fn blob(&self, digest: &Digest, from: u64) -> Result<BlobStream> {
        let begun = self.each(|place| {
            let url = self.url(place, &format!("blobs/{digest}"))?;
            self.fetch(place, digest, from, |call| self.exchange(place, call), url)
        });
        Self::about(begun, || format!("cannot get {digest} of {}", self.name()))
    }

    /// The same from an address that a descriptor names (foreign layers): without credentials.
    pub fn blob_at(&self, url: &str, digest: &Digest, from: u64) -> Result<BlobStream> {
        let about = || format!("cannot get {digest} of {} from elsewhere", self.name());
        let url = Url::parse(url).with_context(about)?;
        // The address is the image's word, which is no reason to be less careful than with the registry.
        if !url.is_tls && self.places.iter().all(|p| !p.security.plain) {
            return Err(anyhow!("it is to come over plain http")).with_context(about);
        }
        let origin = self.origin().with_context(about)?;
        let place =
            Place { registry: url.authority.clone(), authority: url.authority.clone(), ..origin.clone() };
        self.fetch(&place, digest, from, |call| self.client.attempt(&place, call, None), url)
            .with_context(about)
    }

    fn fetch(
        &self,
        place: &Place,
        digest: &Digest,
        from: u64,
        send: impl Fn(&Call<'_>) -> Result<Response>,
        url: Url,
    ) -> Result<BlobStream> {
        let call = Call::get(url);
        let mut response = match from {
            0 => send(&call)?,
            _ => send(&call.clone().header("range", format!("bytes={from}-")))?,
        };
        if from > 0 && response.status == 416 {
            // There is no byte beyond what we have, or the registry cannot do this: all of it, then.
            response.complaint();
            response = send(&call)?;
        }
        match response.status {
            200 => {
                let total = response.length();
                Ok(BlobStream { from: 0, total, body: response.stream() })
            }
            206 => {
                let range = response.header("content-range").and_then(header::content_range);
                match range {
                    Some((start, total)) if start == from => {
                        let total = total.or(response.length().and_then(|n| n.checked_add(from)));
                        Ok(BlobStream { from, total, body: response.stream() })
                    }
                    _ => bail!("{} answers with another part than was asked for", place.registry),
                }
            }
            404 => Err(NotFound { kind: "blob", name: format!("{digest} in {}", self.name()) }.into()),
            _ => Err(self.refusal(place, response)),
        }
    }

    /// The size of a blob, `None` where the registry does not have it.
    pub fn has_blob(&self, digest: &Digest) -> Result<Option<u64>> {
        let found = self.each(|place| {
            let call = Call::new(Method::HEAD, self.url(place, &format!("blobs/{digest}"))?);
            let response = self.exchange(place, &call)?;
            match response.status {
                // Whoever does not say how long it is has it nevertheless.
                200 => Ok(response
                    .header("content-length")
                    .and_then(|n| n.parse().ok())
                    .or(response.length())
                    .unwrap_or(0)),
                404 => Err(NotFound { kind: "blob", name: digest.to_string() }.into()),
                _ => Err(self.refusal(place, response)),
            }
        });
        match found {
            Ok(size) => Ok(Some(size)),
            Err(e) if e.downcast_ref::<NotFound>().is_some() => Ok(None),
            Err(e) => Err(e.context(format!("cannot look up {digest} in {}", self.name()))),
        }
    }
}
