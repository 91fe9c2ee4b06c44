//! What goes wrong with a registry: the kinds that a caller branches on, and the words for them.

use std::error::Error as _;
use std::fmt;
use std::io;

use anyhow::anyhow;
use serde_json::Value;

use crate::error::ResultExt;

use super::resolver::Unresolved;
use super::url::Url;

/// The registry wants other credentials, or any: HTTP 401 and 403.
#[derive(Debug, thiserror::Error)]
#[error("{registry} refuses access to {what}: {why}")]
pub struct Unauthorized {
    /// The registry, as the user knows it.
    pub registry: String,
    /// What was asked for: a repository, or `the registry`.
    pub what: String,
    /// What the registry said.
    pub why: String,
}

/// The connection broke, in the middle of a body or before, or the registry is too busy: asking again, from where it broke,
/// goes on.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Cut {
    /// How it broke.
    pub why: String,
}

impl Cut {
    /// Whether an error of a [`BlobStream`](super::BlobStream), or of a request that ran out of attempts, is one that
    /// asking again may mend.
    pub fn is_in(error: &anyhow::Error) -> bool {
        // As a context it is found by anyhow alone, as a cause by the chain, inside of an io::Error by neither.
        error.downcast_ref::<Cut>().is_some()
            || error
                .chain()
                .any(|link| link.is::<Cut>() || link.downcast_ref::<io::Error>().is_some_and(Cut::is_io))
    }

    /// The same for the error of a `read`.
    pub fn is_io(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Cut>())
    }

    /// As the error of a `read`.
    pub(super) fn io(why: impl Into<String>) -> io::Error {
        io::Error::new(
            io::ErrorKind::ConnectionAborted,
            Cut { why: format!("the connection broke: {}", why.into()) },
        )
    }
}

/// Rides on the refusal of a manifest that names what the registry does not know (yet). Has no text of its own.
#[derive(Debug)]
pub struct BlobUnknown;

impl fmt::Display for BlobUnknown {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub struct Failure {
    /// The error for the user.
    pub error: anyhow::Error,
    /// Asking again may help.
    pub is_transient: bool,
    /// Nobody is there: another mirror may be.
    pub is_unreachable: bool,
}

impl Failure {
    /// One that asking again does not mend.
    pub fn last(error: anyhow::Error) -> Failure {
        Failure { error, is_transient: false, is_unreachable: false }
    }

    /// What ureq's error means, said in our words.
    pub fn of(url: &Url, error: ureq::Error) -> Failure {
        let host = &url.authority;
        let about = format!("cannot reach {host}");
        match error {
            ureq::Error::Io(e) => Failure::of_io(url, &e),
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => Failure {
                error: anyhow!("nobody answers in time").context(about),
                is_transient: false,
                is_unreachable: true,
            },
            ureq::Error::Timeout(_) => Failure {
                error: anyhow::Error::new(Cut { why: "nothing came for too long".to_owned() })
                    .context(format!("cannot talk to {host}")),
                is_transient: true,
                is_unreachable: false,
            },
            ureq::Error::Other(e) if e.is::<Unresolved>() => {
                let why = e.downcast::<Unresolved>().map_or_else(|e| anyhow!(e), |e| anyhow!(*e));
                Failure { error: why.context(about), is_transient: false, is_unreachable: true }
            }
            // It may repeat what the proxy said, never what it was told.
            ureq::Error::ConnectProxyFailed(why) => Failure {
                error: anyhow!("the proxy refuses: {why}").context(about),
                is_transient: false,
                is_unreachable: true,
            },
            ureq::Error::Protocol(e) => Failure::last(anyhow!("it does not speak HTTP: {e}").context(about)),
            e => Failure::last(anyhow!("{e}").context(about)),
        }
    }

    fn of_io(url: &Url, e: &io::Error) -> Failure {
        let host = &url.authority;
        if let Some(tls) = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Failure::last(tls_error(host, tls));
        }
        let why = reason(e);
        let cannot = |is_transient, is_unreachable| Failure {
            error: if is_transient {
                anyhow::Error::new(Cut { why: format!("the connection broke: {why}") })
                    .context(format!("cannot talk to {host}"))
            } else {
                anyhow!("{why}").context(format!("cannot reach {host}"))
            },
            is_transient,
            is_unreachable,
        };
        match e.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted => cannot(true, false),
            _ => cannot(false, true),
        }
    }
}

fn tls_error(host: &str, e: &rustls::Error) -> anyhow::Error {
    let about = format!("cannot reach {host}");
    match e {
        rustls::Error::InvalidMessage(_) => Err::<(), _>(anyhow!("it does not speak TLS").context(about))
            .hint("if it is meant to be plain HTTP, use --tls-verify=false"),
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            Err(anyhow!("its certificate is signed by an unknown authority").context(about)).hint(format!(
                "put the authority's certificate into /etc/docker/certs.d/{host}/ca.crt, or name its directory with --cert-dir"
            ))
        }
        rustls::Error::InvalidCertificate(why) => {
            Err(anyhow!("its certificate is not good: {why}").context(about)).hint("--tls-verify=false takes any certificate")
        }
        e => Err(anyhow!("TLS: {e}").context(about)),
    }
    .expect_err("each arm is an error")
}

/// Why a read or a write failed, without the wrapping.
pub fn reason(e: &io::Error) -> String {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        Some(ureq::Error::Timeout(_)) => return "nothing came for too long".to_owned(),
        Some(inner) => return inner.to_string(),
        None => {}
    }
    match e.kind() {
        io::ErrorKind::UnexpectedEof => "it ended too early".to_owned(),
        _ => e.source().map_or_else(|| e.to_string(), ToString::to_string),
    }
}

/// What the body of a refusal says: the errors of the specification ("Error Codes"), else a short text, else the status.
pub fn complaint(status: u16, body: &[u8]) -> String {
    let from_json = serde_json::from_slice::<Value>(body).ok().and_then(|v| {
        let list = v.get("errors")?.as_array()?;
        let texts: Vec<String> = list.iter().take(3).filter_map(error_text).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    });
    let text = from_json.or_else(|| {
        let text = std::str::from_utf8(body).ok()?.trim();
        let is_short = !text.is_empty() && text.len() <= 200 && !text.contains(['<', '{', '\n']);
        is_short.then(|| text.to_owned())
    });
    let name = ureq::http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
    match text {
        Some(text) => format!("{} (HTTP {status})", text.chars().take(400).collect::<String>()),
        None => format!("HTTP {status} {name}").trim_end().to_owned(),
    }
}

fn error_text(error: &Value) -> Option<String> {
    let field = |name| error.get(name).and_then(Value::as_str).filter(|s| !s.is_empty());
    match (field("code"), field("message")) {
        (Some(code), Some(message)) => Some(format!("{}: {message}", code.to_ascii_lowercase())),
        (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_short() {
        let check = |body: &str, want: &str| assert_eq!(complaint(403, body.as_bytes()), want);
        check(
            r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied","detail":[]}]}"#,
            "denied: requested access to the resource is denied (HTTP 403)",
        );
        check(r#"{"errors":[{"code":"X"},{"message":"y"},{}, 5]}"#, "X, y (HTTP 403)");
        check(r#"{"errors":[]}"#, "HTTP 403 Forbidden");
        check("<html>no</html>", "HTTP 403 Forbidden");
        check("go away\n", "go away (HTTP 403)");
        check("", "HTTP 403 Forbidden");
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "é".repeat(5000));
        assert!(complaint(403, long.as_bytes()).chars().count() < 420);
    }

    #[test]
    fn a_cut_is_found_wherever_it_is() {
        let io = Cut::io("x");
        assert!(Cut::is_io(&io));
        assert!(Cut::is_in(&anyhow::Error::new(io).context("cannot read")));
        assert!(Cut::is_in(&anyhow::Error::new(Cut { why: String::new() }).context("cannot read")));
        let wrapped = anyhow::Error::new(Cut::io("x")).context("a").context(crate::error::Hint("h".into()));
        assert!(Cut::is_in(&wrapped));
        assert!(!Cut::is_in(&anyhow!("the connection broke: x")));
    }
}
