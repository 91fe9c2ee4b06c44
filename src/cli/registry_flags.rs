//! The flags of every verb that talks to a registry: how far it is trusted, and who we are to it.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{Arg, ArgMatches, Command};

use super::flags::value;
use super::run_flags::one;
use crate::error::ResultExt;
use crate::registry::{Credentials, Options};

/// `--tls-verify[=BOOL] --authfile --creds --cert-dir`.
pub(super) fn add(command: Command) -> Command {
    command
        .arg(tls_verify("tls-verify"))
        .arg(value("authfile", None, "FILE", "Read credentials from FILE"))
        .arg(value("creds", None, "USER:PASSWORD", "Use these credentials in place of stored ones"))
        .arg(value("cert-dir", None, "DIR", "Trust the authorities in DIR, and show its client certificate"))
}

/// A flag that is on, off, or left to the registry's configuration.
pub(super) fn tls_verify(long: &'static str) -> Arg {
    Arg::new(long)
        .long(long)
        .value_name("BOOL")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .overrides_with(long)
        .help("Whether plain HTTP and wrong certificates are refused (only loopback may be plain)")
}

/// What the flags of [`add`] say.
pub(super) fn options(matches: &ArgMatches) -> Result<Options> {
    Ok(Options {
        tls_verify: boolean(matches, "tls-verify")?,
        cert_dir: one(matches, "cert-dir").map(PathBuf::from),
        authfile: one(matches, "authfile").map(PathBuf::from),
        credentials: credentials(matches, "creds")?,
        ..Options::default()
    })
}

/// `true` or `false` as Go reads them.
pub(super) fn boolean(matches: &ArgMatches, name: &str) -> Result<Option<bool>> {
    one(matches, name)
        .map(|text| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(anyhow!("cannot read --{name}: {text:?} is neither true nor false")),
        })
        .transpose()
}

/// `USER:PASSWORD`; the password may hold colons. The text is in no error: it is secret.
pub(super) fn credentials(matches: &ArgMatches, name: &str) -> Result<Option<Credentials>> {
    let Some(text) = one(matches, name) else { return Ok(None) };
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => {
            Ok(Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() }))
        }
        _ => Err(anyhow!("cannot read --{name}: a name, a colon and a password are wanted"))
            .hint("dhow login --password-stdin keeps the password off the command line"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Options> {
        let args = ["x"].iter().chain(args);
        options(&add(Command::new("x")).try_get_matches_from(args)?)
    }

    #[test]
    fn flags_are_read() {
        let none = read(&[]).unwrap();
        assert_eq!((none.tls_verify, none.credentials.is_none()), (None, true));
        assert_eq!(read(&["--tls-verify"]).unwrap().tls_verify, Some(true));
        assert_eq!(read(&["--tls-verify=false"]).unwrap().tls_verify, Some(false));
        let basic = Credentials::Basic { user: "a".into(), password: "b:c".into() };
        assert_eq!(read(&["--creds", "a:b:c"]).unwrap().credentials, Some(basic));
        for bad in [["--tls-verify=maybe"], ["--creds=secret"], ["--creds=:secret"]] {
            let error = format!("{:#}", read(&bad).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
