//! Requests and responses: connections, TLS or not, proxies, redirects. Knows neither tokens nor the protocol's paths.
//!
//! Redirects are followed here, not by ureq, because of what must not happen on the way: credentials that go to another
//! host, a step down from https to http, a walk without end.

use std::collections::HashMap;
use std::io;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ureq::Agent;
use ureq::SendBody;
use ureq::http;
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::DefaultConnector;

use crate::host::Host;

use super::failure::Cut;
use super::failure::Failure;
use super::proxy::Proxies;
use super::resolver::Resolver;
use super::tls::Authorities;
use super::url::Url;
use super::url::split_authority;

/// A connection that is not made after this long is given up.
const CONNECT: Duration = Duration::from_secs(20);

/// A connection over which nothing comes for this long is broken.
const STALL: Duration = Duration::from_secs(60);

/// The same while a registry moves a large blob to its place, which it does in silence.
const SLOW_STALL: Duration = Duration::from_secs(600);

/// How long a peer on plain HTTP may take to see that a TLS greeting is no request.
const GREETING: Duration = Duration::from_secs(3);

/// As docker and curl have it, more or less.
const MAX_REDIRECTS: u32 = 10;

/// One read(2): large, since a pull is made of them.
const BUFFER: usize = 512 << 10;

/// What a connection to a registry must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Security {
    /// Its certificate must be good.
    pub verify: bool,
    /// It may speak plain HTTP.
    pub plain: bool,
}

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
    headers: http::HeaderMap,
    body: ureq::Body,
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
        super::failure::complaint(status, &bytes)
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
                let why = super::failure::reason(&e);
                self.broken = Some(why.clone());
                Err(Cut::io(why))
            }
            read => read,
        }
    }
}

/// The connections of one run.
pub struct Transport {
    authorities: Authorities,
    proxies: Proxies,
    resolver: Resolver,
    agents: Mutex<HashMap<Key, Agent>>,
    /// Whether a host that may speak either speaks TLS.
    spoken: Mutex<HashMap<String, bool>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    proxy: Option<String>,
    trust: Trust,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Trust {
    /// Plain HTTP: nothing to verify.
    Nobody,
    Machine,
    Host(String),
    Anyone(String),
}

impl Transport {
    /// Touches neither network nor files. `cert_dir` is `--cert-dir`.
    pub fn new(host: &Host, cert_dir: Option<PathBuf>) -> Transport {
        Transport {
            authorities: Authorities::new(host, cert_dir),
            proxies: Proxies::read(|name| Some(host.env(name)?.to_str()?.to_owned())),
            resolver: Resolver::default(),
            agents: Mutex::default(),
            spoken: Mutex::default(),
        }
    }

    /// The address of a path on a registry, with the scheme that it speaks: https, unless it may speak plain HTTP and does
    /// not answer TLS. That is found out once in a run, by a request without credentials.
    pub fn url(&self, authority: &str, path: &str, security: Security) -> Result<Url> {
        let is_tls = !security.plain || self.speaks_tls(authority)?;
        Url::new(is_tls, authority, path)
    }

    fn speaks_tls(&self, authority: &str) -> Result<bool> {
        let spoken = || self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(is_tls) = spoken().get(authority) {
            return Ok(*is_tls);
        }
        let url = Url::new(true, authority, "/v2/")?;
        let agent = self.agent(&url, false)?;
        let request = agent
            .get(url.to_string())
            .config()
            .timeout_per_read(Some(GREETING))
            .timeout_recv_response(Some(GREETING))
            .build();
        let is_tls = match request.call() {
            Ok(_) => true,
            Err(e) => {
                let failure = Failure::of(&url, e);
                // With a port there is one place to ask; without, plain HTTP has another one, and so it may have through
                // a proxy of its own.
                let has_port = split_authority(authority).is_some_and(|(_, port)| port.is_some());
                let same_way = self.proxies.of(&url) == self.proxies.of(&Url::new(false, authority, "/v2/")?);
                if failure.is_unreachable && has_port && same_way {
                    return Err(failure.error);
                }
                false
            }
        };
        spoken().insert(authority.to_owned(), is_tls);
        Ok(is_tls)
    }

    /// Sends one request, once, and follows redirects of GET and HEAD. `authorization` goes to the place of the request
    /// and to no other.
    pub fn send(
        &self,
        call: &Call<'_>,
        authorization: Option<&str>,
        security: Security,
    ) -> Result<Response, Failure> {
        let mut call = call.clone();
        let first = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let is_first_place = call.url.is_same_place(&first);
            let authorization = authorization.filter(|_| is_first_place);
            let body = call.body.map(|bytes| (bytes, bytes.len() as u64));
            let mut response = match body {
                Some((mut bytes, n)) => {
                    self.exchange(&call, authorization, security, Some((&mut bytes, n)))?
                }
                None => self.exchange(&call, authorization, security, None)?,
            };
            response.is_elsewhere = !is_first_place;
            let is_redirect = matches!(response.status, 301 | 302 | 303 | 307 | 308);
            let may_follow = matches!(call.method, http::Method::GET | http::Method::HEAD);
            let Some(location) = response.header("location").filter(|_| is_redirect && may_follow) else {
                return Ok(response);
            };
            call.url = call
                .url
                .join(location)
                .with_context(|| format!("cannot follow the redirect of {}", first.authority))
                .map_err(Failure::last)?;
            // Read to its end, the connection serves the next request.
            response.complaint();
        }
        Err(Failure::last(anyhow!("{} redirects more than {MAX_REDIRECTS} times", first.authority)))
    }

    /// Sends one request whose body is a stream of so many bytes, once. Redirects are not followed.
    pub fn send_stream(
        &self,
        call: &Call<'_>,
        authorization: Option<&str>,
        security: Security,
        body: (&mut dyn Read, u64),
    ) -> Result<Response, Failure> {
        self.exchange(call, authorization, security, Some(body))
    }

    fn exchange(
        &self,
        call: &Call<'_>,
        authorization: Option<&str>,
        security: Security,
        body: Option<(&mut dyn Read, u64)>,
    ) -> Result<Response, Failure> {
        let agent = self.agent(&call.url, security.verify).map_err(Failure::last)?;
        let mut request = http::Request::builder().method(call.method.clone()).uri(call.url.to_string());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        if let Some((_, length)) = &body {
            request = request.header("content-length", length.to_string());
        }
        let request =
            request.body(()).map_err(|e| Failure::last(anyhow!("cannot ask {}: {e}", call.url.authority)))?;
        let sent = match body {
            Some((reader, _)) => run(&agent, request.map(|()| SendBody::from_reader(reader)), call.is_slow),
            None => run(&agent, request.map(|()| SendBody::none()), call.is_slow),
        };
        let (parts, body) = sent.map_err(|e| Failure::of(&call.url, e))?.into_parts();
        Ok(Response {
            status: parts.status.as_u16(),
            url: call.url.clone(),
            is_elsewhere: false,
            headers: parts.headers,
            body,
        })
    }

    /// The connections that are right for an address: one set for each proxy and each set of authorities.
    fn agent(&self, url: &Url, verify: bool) -> Result<Agent> {
        let proxy = self.proxies.of(url);
        let own = if url.is_tls { self.authorities.of(&url.authority)? } else { Default::default() };
        let trust = match (url.is_tls, verify) {
            // A proxy may be spoken to over TLS whatever is behind it.
            (false, _) if proxy.is_some_and(|p| p.starts_with("https")) => Trust::Machine,
            (false, _) => Trust::Nobody,
            (true, false) => Trust::Anyone(url.authority.clone()),
            (true, true) if own.cas.is_empty() && own.clients.is_empty() => Trust::Machine,
            (true, true) => Trust::Host(url.authority.clone()),
        };
        let key = Key { proxy: proxy.map(str::to_owned), trust };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let tls = match &key.trust {
            Trust::Nobody => TlsConfig::default(),
            Trust::Machine => self.authorities.verifying(&url.authority, &Default::default())?,
            Trust::Host(authority) => self.authorities.verifying(authority, &own)?,
            Trust::Anyone(authority) => self.authorities.believing_anyone(authority, &own)?,
        };
        let proxy = match &key.proxy {
            // The error is ours: ureq's might repeat the password.
            Some(text) => match ureq::Proxy::new(text) {
                Ok(proxy) => Some(proxy),
                Err(_) => {
                    bail!("cannot use the proxy of the environment for {}: it is no address", url.authority)
                }
            },
            None => None,
        };
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("dhow/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(STALL))
            .timeout_per_write(Some(STALL))
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_idle_connections(32)
            .max_idle_connections_per_host(16)
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::new(), self.resolver.clone());
        agents.insert(key, agent.clone());
        Ok(agent)
    }
}

fn run(
    agent: &Agent,
    request: http::Request<SendBody<'_>>,
    is_slow: bool,
) -> Result<http::Response<ureq::Body>, ureq::Error> {
    if !is_slow {
        return agent.run(request);
    }
    agent.run(agent.configure_request(request).timeout_per_read(Some(SLOW_STALL)).build())
}
