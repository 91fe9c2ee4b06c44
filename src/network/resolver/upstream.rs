//! Whom queries that are not ours are put to: the machine's resolvers, as its resolv.conf says at this moment, or those that
//! were given. The file is looked at (stat(2)) with each such query, and read again when it is another one.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::dns::{self, Configuration};
use crate::fs;

/// Whom to ask.
#[derive(Debug)]
pub struct Upstreams {
    /// What was given in place of the machine's servers, as lines of resolv.conf.
    given: String,
    has_servers: bool,
    stamp: Option<Stamp>,
    configuration: Option<Configuration>,
}

/// What tells one state of a file from another.
type Stamp = (u64, u64, u64, i64, i64);

impl Upstreams {
    /// Those of `--dns` and `--dns-option`, where they are given.
    pub fn new(servers: &[String], options: &[String]) -> Upstreams {
        let mut given: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        if !options.is_empty() {
            given.push_str(&format!("options {}\n", options.join(" ")));
        }
        Upstreams { given, has_servers: !servers.is_empty(), stamp: None, configuration: None }
    }

    /// Whom to ask now.
    pub fn now(&mut self) -> &Configuration {
        let stamp = if self.has_servers { None } else { stamp() };
        if self.stamp != stamp {
            self.configuration = None;
            self.stamp = stamp;
        }
        let (given, has_servers) = (&self.given, self.has_servers);
        self.configuration.get_or_insert_with(|| match has_servers {
            true => dns::configuration_of(given),
            false => dns::configuration_of_machine(given),
        })
    }
}

fn stamp() -> Option<Stamp> {
    let meta = fs::metadata(Path::new(dns::RESOLV_CONF)).ok().flatten()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}
