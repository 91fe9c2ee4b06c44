//! Requests and responses: connections, TLS or not, proxies, redirects. Knows neither tokens nor the protocol's paths.
//!
//! Redirects are followed here, not by ureq, because of what must not happen on the way: credentials that go to another
//! host, a step down from https to http, a walk without end.

use std::collections::HashMap;
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

use super::failure::Failure;
use super::forward;
use super::message::Call;
use super::message::Response;
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

    /// For tests: what would be found out by asking.
    #[cfg(test)]
    pub fn assume_plain(&self, authority: &str) {
        self.spoken.lock().unwrap().insert(authority.to_owned(), false);
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
        let (parts, body) = sent.map_err(|e| self.failure(&call.url, e))?.into_parts();
        Ok(Response {
            status: parts.status.as_u16(),
            url: call.url.clone(),
            is_elsewhere: false,
            headers: parts.headers,
            body,
        })
    }

    /// The error, with the proxy that may be the cause of it.
    fn failure(&self, url: &Url, e: ureq::Error) -> Failure {
        let failure = Failure::of(url, e);
        match self.proxies.of(url).and_then(|p| ureq::Proxy::new(p).ok()).filter(|_| failure.is_unreachable) {
            Some(proxy) => {
                let about = format!("cannot use the proxy {}:{}", proxy.host(), proxy.port());
                Failure { error: failure.error.context(about), ..failure }
            }
            None => failure,
        }
    }

    /// The connections that are right for an address: one set for each proxy and each set of authorities.
    fn agent(&self, url: &Url, verify: bool) -> Result<Agent> {
        let proxy = self.proxies.of(url);
        let own = if url.is_tls { self.authorities.of(&url.authority)? } else { Default::default() };
        let trust = match (url.is_tls, verify) {
            // A proxy may be spoken to over TLS whatever is behind it.
            (false, _) if proxy.is_some_and(|p| p.starts_with("https:")) => Trust::Machine,
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
        // Plain HTTP is handed to a proxy that speaks it; all else goes through a tunnel.
        let forwarder = proxy.clone().filter(|p| !url.is_tls && p.protocol() == ureq::ProxyProtocol::Http);
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy.filter(|_| forwarder.is_none()))
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
        let agent = match forwarder {
            Some(proxy) => forward::agent(config, &proxy, self.resolver.clone()),
            None => Agent::with_parts(config, DefaultConnector::new(), self.resolver.clone()),
        };
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
