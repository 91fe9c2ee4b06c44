//! image copy: between registries, archives and directories, without the store.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Arg, ArgMatches, Command};

use super::flags::{switch, value};
use super::progress::{Display, Headline};
use super::registry_flags::{boolean, credentials, tls_verify};
use super::run_flags::one;
use super::{Session, out, push};
use crate::fs;
use crate::host::Host;
use crate::image::Platform;
use crate::image::transfer::location::Location;
use crate::image::transfer::{self, Options};
use crate::registry;
use crate::registry::Client;

pub(super) fn copy_args(command: Command) -> Command {
    command
        .arg(switch("all", Some('a'), "Copy the images for all platforms, and the index that lists them"))
        .arg(value("platform", None, "OS/ARCH", "Which image of several platforms"))
        .arg(switch("quiet", Some('q'), "Print no progress"))
        .arg(value("digestfile", None, "FILE", "Write the digest of what was copied to FILE"))
        .arg(
            value("compression", None, "KIND", "gzip or zstd: what packs the layers of a docker archive")
                .alias("dest-compress-format"),
        )
        .arg(
            value("compression-level", None, "N", "1 to 9 for gzip (6), 1 to 19 for zstd (3)")
                .alias("dest-compress-level"),
        )
        .arg(value("authfile", None, "FILE", "Read credentials from FILE"))
        .arg(value("src-authfile", None, "FILE", "The same for the source alone"))
        .arg(value("dest-authfile", None, "FILE", "The same for the destination alone"))
        .arg(value("src-creds", None, "USER:PASSWORD", "Credentials for the source"))
        .arg(value("dest-creds", None, "USER:PASSWORD", "Credentials for the destination"))
        .arg(value("src-cert-dir", None, "DIR", "Authorities and client certificate for the source"))
        .arg(value("dest-cert-dir", None, "DIR", "Authorities and client certificate for the destination"))
        .arg(tls_verify("src-tls-verify"))
        .arg(tls_verify("dest-tls-verify"))
        .arg(Arg::new("source").value_name("SOURCE").required(true).help(
            "docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] or dir:DIR",
        ))
        .arg(Arg::new("destination").value_name("DESTINATION").required(true))
}

pub(super) fn copy_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let location = |name| one(matches, name).unwrap_or_default().parse::<Location>();
    let (from, to) = (location("source")?, location("destination")?);
    let ends = [registry_options(matches, "src")?, registry_options(matches, "dest")?];
    let options = Options {
        all: matches.get_flag("all"),
        platform: one(matches, "platform").map_or_else(|| Ok(Platform::host()), str::parse)?,
        packing: push::packing(matches)?.unwrap_or_default(),
        spool: spool(&session.host),
    };
    let [source, destination] = ends.map(|options| Client::new(&session.host, options));
    let is_quiet = matches.get_flag("quiet");
    let mut display = Display::new(Headline::Stderr, is_quiet);
    let tell = &mut |event| display.tell(event);
    let digest = transfer::copy((&from, &source?), (&to, &destination?), &options, tell)?;
    if let Some(file) = one(matches, "digestfile") {
        fs::write_atomic(Path::new(file), digest.to_string().as_bytes())?;
    }
    if !is_quiet {
        out::out(&format!("{digest}\n"))?;
    }
    Ok(0)
}

fn registry_options(matches: &ArgMatches, end: &str) -> Result<registry::Options> {
    let authfile = one(matches, &format!("{end}-authfile")).or(one(matches, "authfile"));
    Ok(registry::Options {
        tls_verify: boolean(matches, &format!("{end}-tls-verify"))?,
        cert_dir: one(matches, &format!("{end}-cert-dir")).map(PathBuf::from),
        authfile: authfile.map(PathBuf::from),
        credentials: credentials(matches, &format!("{end}-creds"))?,
        ..registry::Options::default()
    })
}

/// Where there is room for what has no name: /tmp may be memory.
pub(super) fn spool(host: &Host) -> PathBuf {
    host.env("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}
