//! Plain HTTP by way of a proxy: the first line of a request names the whole address (RFC 9112 section 3.2.2). ureq would
//! ask for a tunnel, which many proxies open to port 443 alone.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::Agent;
use ureq::Proxy;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::transport::Buffers;
use ureq::unversioned::transport::ConnectionDetails;
use ureq::unversioned::transport::Connector;
use ureq::unversioned::transport::NextTimeout;
use ureq::unversioned::transport::TcpConnector;
use ureq::unversioned::transport::Transport;

use super::resolver::Resolver;

/// An agent whose connections all go to the proxy. Only for `http://` addresses; `config` names no proxy of its own.
pub fn agent(config: Config, proxy: &Proxy, resolver: Resolver) -> Agent {
    let authorization = proxy.username().map(|user| {
        let password = proxy.password().unwrap_or_default();
        format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{user}:{password}")))
    });
    let connector = ().chain(TcpConnector::default()).chain(Forward { authorization });
    Agent::with_parts(config, connector, ToProxy { resolver, proxy: proxy.uri().clone() })
}

/// Whatever is asked for, the proxy's address.
struct ToProxy {
    resolver: Resolver,
    proxy: Uri,
}

impl fmt::Debug for ToProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToProxy")
    }
}

impl ureq::unversioned::resolver::Resolver for ToProxy {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.resolver.resolve(&self.proxy, config, timeout)
    }
}

struct Forward {
    authorization: Option<String>,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forward")
    }
}

impl<In: Transport> Connector<In> for Forward {
    type Out = Forwarded<In>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Forwarded<In>>, ureq::Error> {
        let origin = format!("http://{}", details.uri.authority().map_or("", |a| a.as_str()));
        let authorization = self.authorization.clone().unwrap_or_default();
        Ok(chained.map(|inner| Forwarded { inner, origin, authorization, is_head: true }))
    }
}

/// A connection to a proxy.
struct Forwarded<In> {
    inner: In,
    origin: String,
    authorization: String,
    /// What is sent next begins a request: nothing was sent since an answer was waited for.
    is_head: bool,
}

impl<In> fmt::Debug for Forwarded<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forwarded")
    }
}

impl<In: Transport> Transport for Forwarded<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if !self.is_head {
            return self.inner.transmit_output(amount, timeout);
        }
        self.is_head = false;
        let output = self.inner.buffers().output();
        let head = output
            .get(..amount)
            .and_then(|head| absolute(head, &self.origin, &self.authorization))
            .filter(|head| head.len() <= output.len())
            .ok_or(ureq::Error::LargeResponseHeader(amount, output.len()))?;
        output[..head.len()].copy_from_slice(&head);
        self.inner.transmit_output(head.len(), timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.is_head = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// The head of a request with the whole address in its first line, and what the proxy wants beneath it. Pure.
fn absolute(head: &[u8], origin: &str, authorization: &str) -> Option<Vec<u8>> {
    let method = head.iter().position(|b| *b == b' ')? + 1;
    let line = head.iter().position(|b| *b == b'\n')? + 1;
    (head.get(method) == Some(&b'/') && method < line).then(|| {
        [&head[..method], origin.as_bytes(), &head[method..line], authorization.as_bytes(), &head[line..]]
            .concat()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_whole_address() {
        let got = absolute(b"GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\nGET /x", "http://a:5", "P: x\r\n").unwrap();
        assert_eq!(got, b"GET http://a:5/v2/ HTTP/1.1\r\nP: x\r\nhost: a\r\n\r\nGET /x");
        for bad in [&b""[..], b"GET", b"GET /v2/", b"GET x HTTP/1.1\r\n", b"GET\r\n / "] {
            assert_eq!(absolute(bad, "http://a", ""), None);
        }
    }
}
