//! Logs to syslog: RFC 3164 as this machine's daemon and docker write it, and RFC 5424; by UDP (RFC 5426), TCP with a
//! newline after each message (RFC 6587 section 3.4.2), or a socket of this machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Stream;
use super::ship::{self, Peer, Ship};
use crate::error::ResultExt;
use crate::fs;
use crate::registry::Resolver;

/// The options of this driver.
pub const OPTIONS: &[&str] = &["syslog-address", "syslog-facility", "syslog-format"];

/// By number.
const FACILITIES: &[&str] = &[
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];
/// Where this machine's daemon listens.
const LOCAL: &[&str] = &["/dev/log", "/var/run/syslog", "/var/run/log"];

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    address: Address,
    facility: u8,
    format: Format,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Local,
    Udp(String, u16),
    Tcp(String, u16),
    Unix(PathBuf),
    UnixDatagram(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// As syslog(3) writes: no host name.
    Local,
    Rfc3164,
    Rfc5424 {
        /// Digits of the second.
        micro: bool,
    },
}

impl Options {
    /// Reads the options; those that are none of syslog's are not looked at.
    pub fn of(options: &BTreeMap<String, String>) -> Result<Options> {
        let option = |key: &str| options.get(key).map(String::as_str);
        let address =
            option("syslog-address").map_or(Ok(Address::Local), address).context("syslog-address")?;
        let facility = option("syslog-facility").map_or(Ok(3), facility).context("syslog-facility")?;
        let format = match option("syslog-format") {
            None | Some("") => Format::Local,
            Some("rfc3164") => Format::Rfc3164,
            Some("rfc5424") => Format::Rfc5424 { micro: false },
            Some("rfc5424micro") => Format::Rfc5424 { micro: true },
            Some(other) => {
                return Err(anyhow!("syslog-format: there is no {other:?}"))
                    .hint("it is rfc3164, rfc5424 or rfc5424micro");
            }
        };
        Ok(Options { address, facility, format })
    }
}

fn address(text: &str) -> Result<Address> {
    let bad = || {
        anyhow!(
            "{text:?} is not an address: udp://HOST[:PORT], tcp://HOST[:PORT], unix://PATH, unixgram://PATH"
        )
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
    let path = || {
        let path = PathBuf::from(rest);
        if path.is_absolute() { Ok(path) } else { Err(bad()) }
    };
    let host = || {
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(bad)?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(bad)?) })
            }
            None => rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        // 514 is syslog's for UDP, and what docker takes for TCP.
        let port = port.map_or(Ok(514), str::parse).map_err(|_| bad())?;
        if host.is_empty() || host.contains('/') { Err(bad()) } else { Ok((host.to_owned(), port)) }
    };
    Ok(match scheme {
        "udp" => host().map(|(host, port)| Address::Udp(host, port))?,
        "tcp" => host().map(|(host, port)| Address::Tcp(host, port))?,
        "unix" => Address::Unix(path()?),
        "unixgram" => Address::UnixDatagram(path()?),
        _ => return Err(bad()),
    })
}

fn facility(text: &str) -> Result<u8> {
    let by_name = FACILITIES.iter().position(|name| *name == text);
    let number = by_name.or_else(|| text.parse().ok()).filter(|n| *n < FACILITIES.len());
    number.and_then(|n| u8::try_from(n).ok()).ok_or_else(|| {
        anyhow!("there is no {text:?}; there are {}, and their numbers", FACILITIES.join(", "))
    })
}

/// Connects to where the options say.
pub fn open(options: &Options, tag: &str) -> Result<Ship> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // The place of the process in a message: who passes on, as docker has it.
    let pid = crate::host::visible_pid().unwrap_or_default();
    let peers = peers(&options.address)?;
    let mut last = None;
    for peer in peers {
        let is_stream = matches!(peer, Peer::Tcp(_) | Peer::Unix(_));
        let form = Form {
            facility: options.facility,
            format: options.format,
            host: host.clone(),
            tag: tag.into(),
            pid,
            is_stream,
        };
        let about = match &peer {
            Peer::Udp(address) => format!("udp://{address}"),
            Peer::Tcp(address) => format!("tcp://{address}"),
            Peer::Unix(path) => format!("unix://{}", path.display()),
            Peer::UnixDatagram(path) => format!("unixgram://{}", path.display()),
        };
        match Ship::open(peer, ship::Form::Syslog(form)) {
            Ok(ship) => return Ok(ship),
            Err(error) => last = Some(error.context(about)),
        }
    }
    Err(last.unwrap_or_else(|| anyhow!("there is no address")))
}

/// The addresses to try, in order.
fn peers(address: &Address) -> Result<Vec<Peer>> {
    let resolve = |host: &str, port: &u16| -> Result<Vec<SocketAddr>> {
        let found = Resolver::default().addresses(host).map_err(|error| anyhow!("{error}"))?;
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect())
    };
    Ok(match address {
        Address::Udp(host, port) => resolve(host, port)?.into_iter().map(Peer::Udp).collect(),
        Address::Tcp(host, port) => resolve(host, port)?.into_iter().map(Peer::Tcp).collect(),
        Address::Unix(path) => vec![Peer::Unix(path.clone())],
        Address::UnixDatagram(path) => vec![Peer::UnixDatagram(path.clone())],
        Address::Local => {
            let there = |path: &&&str| fs::metadata(Path::new(path)).is_ok_and(|found| found.is_some());
            let path = LOCAL.iter().find(there);
            let none = || anyhow!("this machine has no syslog daemon: there is none of {}", LOCAL.join(", "));
            let path = path.ok_or_else(none).hint(
                "name one with --log-opt syslog-address=, or keep the log here with --log-driver json-file",
            )?;
            // Datagrams as a rule; streams with some old daemons.
            vec![Peer::UnixDatagram(path.into()), Peer::Unix(path.into())]
        }
    })
}

/// What all messages of a container have in common.
#[derive(Debug)]
pub struct Form {
    facility: u8,
    format: Format,
    host: String,
    tag: String,
    pid: i32,
    is_stream: bool,
}

impl Form {
    /// One message. On a stream a newline ends it; there is none inside.
    pub fn message(&self, time: Timestamp, stream: Stream, line: &[u8]) -> Vec<u8> {
        // LOG_INFO and LOG_ERR.
        let severity = if stream == Stream::Out { 6 } else { 3 };
        let priority = u16::from(self.facility) * 8 + severity;
        let Form { host, tag, pid, .. } = self;
        let utc = || time.to_zoned(TimeZone::UTC).datetime();
        let head = match self.format {
            Format::Local => format!("<{priority}>{} {tag}[{pid}]: ", short_date(utc())),
            Format::Rfc3164 => format!("<{priority}>{} {host} {tag}[{pid}]: ", short_date(utc())),
            Format::Rfc5424 { micro } => {
                let time = if micro { format!("{time:.6}") } else { format!("{time:.0}") };
                // The tag stands for the program and for the message: neither may have a space, and lengths are bounded.
                let word = |text: &str, most: usize| {
                    let text: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
                    if text.is_empty() { "-".to_owned() } else { text }
                };
                format!(
                    "<{priority}>1 {time} {} {} {pid} {} - ",
                    word(host, 255),
                    word(tag, 48),
                    word(tag, 32)
                )
            }
        };
        let mut message = head.into_bytes();
        message.extend_from_slice(line);
        if self.is_stream {
            message.push(b'\n');
        }
        message
    }
}

/// `Jan  2 03:04:05`, in UTC: a static program does not know the machine's zone, and the daemon notes its own time.
fn short_date(time: jiff::civil::DateTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = usize::try_from(time.month() - 1).ok().and_then(|n| MONTHS.get(n)).unwrap_or(&"Jan");
    format!("{month} {:2} {:02}:{:02}:{:02}", time.day(), time.hour(), time.minute(), time.second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(format: Format, is_stream: bool) -> Form {
        Form { facility: 3, format, host: "h".into(), tag: "web 1".into(), pid: 7, is_stream }
    }

    #[test]
    fn messages() {
        let time: Timestamp = "2026-01-02T03:04:05.000000678Z".parse().unwrap();
        let check = |format, is_stream, stream, expected: &str| {
            let message = form(format, is_stream).message(time, stream, b"text");
            assert_eq!(String::from_utf8(message).unwrap(), expected);
        };
        check(Format::Local, false, Stream::Out, "<30>Jan  2 03:04:05 web 1[7]: text");
        check(Format::Rfc3164, false, Stream::Err, "<27>Jan  2 03:04:05 h web 1[7]: text");
        let rfc5424 = Format::Rfc5424 { micro: false };
        check(rfc5424, true, Stream::Out, "<30>1 2026-01-02T03:04:05Z h web1 7 web1 - text\n");
        let micro = Format::Rfc5424 { micro: true };
        check(micro, false, Stream::Out, "<30>1 2026-01-02T03:04:05.000000Z h web1 7 web1 - text");
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("udp://h", Some(Address::Udp("h".into(), 514))),
            ("udp://h:1514", Some(Address::Udp("h".into(), 1514))),
            ("tcp://[::1]:601", Some(Address::Tcp("::1".into(), 601))),
            ("tcp://[::1]", Some(Address::Tcp("::1".into(), 514))),
            ("unix:///run/x", Some(Address::Unix("/run/x".into()))),
            ("unixgram:///run/x", Some(Address::UnixDatagram("/run/x".into()))),
            ("unix://x", None),
            ("udp://", None),
            ("udp://h:x", None),
            ("udp://h:99999", None),
            ("udp://[::1", None),
            ("http://h", None),
            ("h", None),
        ] {
            assert_eq!(address(text).ok(), expected, "{text}");
        }
        assert_eq!(facility("local7").unwrap(), 23);
        assert_eq!(facility("0").unwrap(), 0);
        assert!(facility("24").is_err() && facility("x").is_err());
    }
}
