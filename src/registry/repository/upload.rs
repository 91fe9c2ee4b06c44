//! Blobs on their way up. Source: distribution-spec "Pushing blobs", "Mounting a blob from another repository".
//!
//! 1. POST begins an upload; its answer says where to send to, and each further answer where to send next
//! 2. PATCH sends all the bytes in one stream, which every registry takes; in pieces only where one is too large (413)
//! 3. where that is cut, GET tells how far the registry got, and 2 goes on from there; where it forgot, 1 begins again
//! 4. PUT names the digest, which the registry compares
//!
//! A small blob goes with the PUT.

use std::io;
use std::io::Read;

use anyhow::{Context, Result, anyhow, bail};
use ureq::http::Method;

use crate::oci::Digest;

use super::Repository;
use crate::registry::backoff::Backoff;
use crate::registry::exchange::Place;
use crate::registry::exchange::is_busy;
use crate::registry::failure::Cut;
use crate::registry::failure::Unauthorized;
use crate::registry::header;
use crate::registry::message::Call;
use crate::registry::message::Response;
use crate::registry::url::Url;

/// A blob up to this size is held in memory and sent in one piece.
const SMALL: u64 = 256 << 10;

/// The first size of a piece where the whole is too large for a registry, or what stands before it.
const PIECE: u64 = 32 << 20;

/// Smaller pieces are not tried.
const SMALLEST_PIECE: u64 = 1 << 20;

/// How many requests an upload may take, whatever the registry claims.
const MAX_STEPS: usize = 10_000;

const OCTETS: &str = "application/octet-stream";

/// Gives the bytes of a blob from an offset on.
type Open<'a> = &'a mut dyn FnMut(u64) -> Result<Box<dyn Read + Send>>;

/// An upload that the registry has begun.
pub struct Begun {
    /// Where the next request goes.
    location: Url,
    /// Pieces, but for the last, have at least so many bytes (OCI-Chunk-Min-Length).
    least: u64,
}

/// An upload, as far as it got.
struct Upload {
    begun: Begun,
    /// How many bytes the registry has.
    offset: u64,
    /// How many go with one request.
    piece: u64,
}

/// What one request came to.
enum Step {
    /// The registry has more than before, or all.
    Forward,
    /// How far it got is to be asked.
    Unsure(anyhow::Error),
    /// It knows nothing of the upload any more.
    Lost(anyhow::Error),
}

impl Repository<'_> {
    /// Takes a blob over from another repository of the same registry; false where that cannot be.
    pub fn mount(&self, digest: &Digest, from_repository: &str) -> Result<bool> {
        let about = || format!("cannot mount {digest} of {from_repository} into {}", self.name());
        let place = self.origin().with_context(about)?;
        let url = self.url(place, "blobs/uploads/").with_context(about)?;
        let url = url.with("mount", &digest.to_string()).with("from", from_repository);
        let mut scopes = self.scopes(place);
        scopes.push(format!("repository:{from_repository}:pull"));
        let call = Call { body: Some(b""), ..Call::new(Method::POST, url) };
        match self.client.exchange(place, &scopes, &call) {
            Ok(response) if response.status == 201 => Ok(true),
            Ok(response) if response.status == 202 => {
                // It began an upload instead, which serves as well as one of our own.
                if let Ok(begun) = begun(&response) {
                    self.begun().insert(digest.clone(), begun);
                }
                Ok(false)
            }
            Ok(_) => Ok(false),
            Err(e) if e.downcast_ref::<Unauthorized>().is_some() => Ok(false),
            Err(e) => Err(e).with_context(about),
        }
    }

    /// Uploads a blob. `open(offset)` gives its bytes from there: it is called again where an upload is cut.
    /// `progress` hears how many bytes the registry has.
    pub fn upload(
        &self,
        digest: &Digest,
        size: u64,
        open: &mut dyn FnMut(u64) -> Result<Box<dyn Read + Send>>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let about = || format!("cannot upload {digest} to {}", self.name());
        let place = self.origin().with_context(about)?;
        if size <= SMALL {
            self.upload_small(place, digest, size, open).with_context(about)?;
        } else {
            self.upload_large(place, digest, size, open, progress).with_context(about)?;
        }
        progress(size);
        Ok(())
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<Digest, Begun>> {
        self.begun.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn begin(&self, place: &Place, digest: &Digest) -> Result<Begun> {
        if let Some(begun) = self.begun().remove(digest) {
            return Ok(begun);
        }
        let url = self.url(place, "blobs/uploads/")?;
        let call = Call { body: Some(b""), ..Call::new(Method::POST, url) };
        let response = self.exchange(place, &call)?;
        if response.status != 202 {
            return Err(self.refusal(place, response));
        }
        begun(&response)
    }

    fn upload_small(&self, place: &Place, digest: &Digest, size: u64, open: Open<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        open(0)?.take(size + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            bail!("it has not the {size} bytes that it should have");
        }
        // A PUT whose answer was lost may have been the end of its upload: a second one starts anew.
        let mut has_begun_again = false;
        loop {
            let url = self.begin(place, digest)?.location.with("digest", &digest.to_string());
            let call = Call { body: Some(&bytes), is_slow: true, ..Call::new(Method::PUT, url) };
            let response = self.exchange(place, &call.header("content-type", OCTETS))?;
            match response.status {
                200..=204 => return Ok(()),
                404 | 416 if !has_begun_again => has_begun_again = true,
                _ => return Err(self.refusal(place, response)),
            }
        }
    }

    fn upload_large(
        &self,
        place: &Place,
        digest: &Digest,
        size: u64,
        open: Open<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut upload = Upload { begun: self.begin(place, digest)?, offset: 0, piece: size };
        let mut backoff = Backoff::new();
        let mut furthest = 0;
        for _ in 0..MAX_STEPS {
            if upload.offset == size {
                match self.finish(place, digest, &upload)? {
                    Step::Forward => return Ok(()),
                    Step::Unsure(e) | Step::Lost(e) if !backoff.wait(None) => return Err(e),
                    Step::Unsure(_) | Step::Lost(_) => {
                        // The blob may be there already: the answer to a PUT can be lost like any other.
                        if self.has_blob(digest)?.is_some() {
                            return Ok(());
                        }
                        upload = Upload { begun: self.begin(place, digest)?, offset: 0, ..upload };
                    }
                }
                continue;
            }
            match self.send(place, &mut upload, size, open, progress)? {
                Step::Forward => {}
                Step::Unsure(e) | Step::Lost(e) if !backoff.wait(None) => return Err(e),
                Step::Unsure(_) => self.look(place, digest, size, &mut upload)?,
                Step::Lost(_) => {
                    upload = Upload { begun: self.begin(place, digest)?, offset: 0, ..upload };
                }
            }
            // A registry that gets further is given more time.
            if upload.offset > furthest {
                furthest = upload.offset;
                backoff.reset();
            }
            progress(upload.offset);
        }
        bail!("the registry does not get to the end within {MAX_STEPS} requests")
    }

    /// PATCH: sends the next piece.
    fn send(
        &self,
        place: &Place,
        upload: &mut Upload,
        size: u64,
        open: Open<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Step> {
        let length = upload.piece.min(size - upload.offset);
        let mut body =
            Watched { input: open(upload.offset)?, at: upload.offset, left: length, error: None, progress };
        let mut call = Call { is_slow: true, ..Call::new(Method::PATCH, upload.begun.location.clone()) }
            .header("content-type", OCTETS);
        if length != size {
            call = call.header("content-range", format!("{}-{}", upload.offset, upload.offset + length - 1));
        }
        let sent = self.client.exchange_stream(place, &self.scopes(place), &call, (&mut body, length));
        if let Some(e) = body.error {
            return Err(e).context("cannot read it");
        }
        let response = match sent {
            Ok(response) => response,
            Err(e) if Cut::is_in(&e) => return Ok(Step::Unsure(e)),
            Err(e) => return Err(e),
        };
        match response.status {
            200..=204 => {
                let arrived = response.header("range").and_then(header::uploaded);
                let arrived = arrived.unwrap_or(upload.offset + length);
                upload.begun.location = location(&response).unwrap_or_else(|_| upload.begun.location.clone());
                if arrived <= upload.offset || arrived > size {
                    return Ok(Step::Unsure(anyhow!("the registry took {arrived} of {size} bytes")));
                }
                upload.offset = arrived;
                Ok(Step::Forward)
            }
            413 if length > upload.begun.least => {
                upload.piece = if length > PIECE { PIECE } else { length / 2 }.max(upload.begun.least);
                Ok(Step::Unsure(self.refusal(place, response)))
            }
            401 | 416 => Ok(Step::Unsure(self.refusal(place, response))),
            404 => Ok(Step::Lost(self.refusal(place, response))),
            status if is_busy(status) => Ok(Step::Unsure(self.refusal(place, response))),
            _ => Err(self.refusal(place, response)),
        }
    }

    /// GET: asks how far the registry got; an upload that it knows nothing of begins again.
    fn look(&self, place: &Place, digest: &Digest, size: u64, upload: &mut Upload) -> Result<()> {
        let response = self.exchange(place, &Call::get(upload.begun.location.clone()))?;
        let arrived = response.header("range").and_then(header::uploaded).filter(|n| *n <= size);
        match (response.status, arrived) {
            (200..=204, Some(arrived)) => {
                upload.begun.location = location(&response).unwrap_or_else(|_| upload.begun.location.clone());
                upload.offset = arrived;
            }
            // What it says is of no use: an upload of our own beginning is.
            _ => {
                upload.begun = self.begin(place, digest)?;
                upload.offset = 0;
            }
        }
        Ok(())
    }

    /// PUT: everything is there.
    fn finish(&self, place: &Place, digest: &Digest, upload: &Upload) -> Result<Step> {
        let url = upload.begun.location.with("digest", &digest.to_string());
        let call = Call { body: Some(b""), is_slow: true, ..Call::new(Method::PUT, url) };
        let response = self.exchange(place, &call.header("content-type", OCTETS))?;
        match response.status {
            200..=204 => Ok(Step::Forward),
            404 | 416 => Ok(Step::Lost(self.refusal(place, response))),
            _ => Err(self.refusal(place, response)),
        }
    }
}

fn begun(response: &Response) -> Result<Begun> {
    let least = response.header("oci-chunk-min-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    Ok(Begun { location: location(response)?, least: SMALLEST_PIECE.max(least) })
}

/// Where the upload goes on.
fn location(response: &Response) -> Result<Url> {
    let Some(location) = response.header("location") else {
        bail!("{} does not say where to upload to", response.url.authority);
    };
    response
        .url
        .join(location)
        .with_context(|| format!("cannot upload where {} says", response.url.authority))
}

/// The bytes of one piece: says how far they got, and keeps its own error apart from the connection's.
struct Watched<'a> {
    input: Box<dyn Read + Send>,
    at: u64,
    left: u64,
    error: Option<anyhow::Error>,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.progress)(self.at);
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = loop {
            match self.input.read(&mut buffer[..most]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match n {
            Ok(0) if most > 0 => {
                self.error = Some(anyhow!("it ends {} bytes too early", self.left));
                Err(io::ErrorKind::InvalidData.into())
            }
            Ok(n) => {
                self.at += n as u64;
                self.left -= n as u64;
                Ok(n)
            }
            Err(e) => {
                self.error = Some(e.into());
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }
}
