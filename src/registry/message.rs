//! What goes over a connection: a request, and the answer to it with its body as a stream.

use std::io;
use std::io::Read;

use anyhow::{Result, anyhow};
use ureq::http;

use super::failure;
use super::failure::Cut;
use super::url::Url;

/// One request; can be sent again.
#[derive(Clone)]
pub struct Call<'a> {
    /// The method.
    pub method: http::Method,
    /// The address.
    pub url: Url,
    /// Headers, without Authorization.
    pub headers: Vec<(&'static str, String)>,
    /// The body, for the methods that have one.
    pub body: Option<&'a [u8]>,
    /// The answer may take minutes.
    pub is_slow: bool,
}

impl Call<'_> {
    /// A request without headers and body.
    pub fn new(method: http::Method, url: Url) -> Call<'static> {
        Call { method, url, headers: Vec::new(), body: None, is_slow: false }
    }

    /// A GET.
    pub fn get(url: Url) -> Call<'static> {
        Call::new(http::Method::GET, url)
    }

    /// With one more header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// An answer; its body is still to be read.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Where it came from, after redirects.
    pub url: Url,
    /// Whether another place answered than the one that was asked.
    pub is_elsewhere: bool,
    pub(super) headers: http::HeaderMap,
    pub(super) body: ureq::Body,
}

impl Response {
    /// A header, if it is there once and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers of a name.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|v| v.to_str().ok())
    }

    /// How long the body says that it is.
    pub fn length(&self) -> Option<u64> {
        self.body.content_length()
    }

    /// The body, as it comes. Its errors are [`Cut`].
    pub fn stream(self) -> Body {
        let reader = self.body.into_with_config().limit(u64::MAX).reader();
        Body { reader, broken: None }
    }

    /// The whole body; one that is longer than `limit` is an error.
    pub fn bytes(self, limit: u64) -> Result<Vec<u8>> {
        let too_long = || anyhow!("the answer has more than {limit} bytes");
        if self.length().is_some_and(|n| n > limit) {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        self.stream().take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit { Err(too_long()) } else { Ok(bytes) }
    }

    /// What a refusal says, as far as it is worth repeating; empty where it says nothing.
    pub fn complaint(self) -> String {
        let status = self.status;
        let mut bytes = Vec::new();
        // A body that breaks off has said what it had to say.
        let _ = self.stream().take(64 << 10).read_to_end(&mut bytes);
        failure::complaint(status, &bytes)
    }
}

/// The bytes of a body.
pub struct Body {
    reader: ureq::BodyReader<'static>,
    /// How it broke. Kept, because ureq would report a clean end after the error.
    broken: Option<String>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(why) = &self.broken {
            return Err(Cut::io(why.clone()));
        }
        match self.reader.read(buffer) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                let why = failure::reason(&e);
                self.broken = Some(why.clone());
                Err(Cut::io(why))
            }
            read => read,
        }
    }
}
