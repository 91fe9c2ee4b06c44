//! login and logout.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Arg, ArgMatches, Command};

use super::flags::{exclude, of_flag, switch, value};
use super::registry_flags::{boolean, tls_verify};
use super::run_flags::one;
use super::{Session, ask, out};
use crate::error::{self, ResultExt};
use crate::host::Host;
use crate::registry::credentials::{self, Kept, Server};
use crate::registry::{Client, Credentials, Options, Unauthorized};

/// No password or token is longer.
const LIMIT: u64 = 64 << 10;

pub(super) fn login_args(command: Command) -> Command {
    command
        .arg(value("username", Some('u'), "USER", "User name"))
        .arg(value("password", Some('p'), "PASSWORD", "Password, for all on this machine to see"))
        .arg(switch("password-stdin", None, "Take the password from stdin"))
        .arg(value("authfile", None, "FILE", "Keep the credentials in FILE [env: REGISTRY_AUTH_FILE]"))
        .arg(tls_verify("tls-verify"))
        .arg(value("cert-dir", None, "DIR", "Trust the authorities in DIR, and show its client certificate"))
        .arg(switch("get-login", None, "Print the user who is logged in"))
        .arg(server())
}

fn server() -> Arg {
    Arg::new("server").value_name("SERVER").help("The registry, HOST[:PORT] (Docker Hub)")
}

pub(super) fn login(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    exclude(matches, "password-stdin", &["password"])?;
    let server = Server::parse(one(matches, "server"))?;
    let host = &session.host;
    let authfile = one(matches, "authfile").map(Path::new);
    if matches.get_flag("get-login") {
        return get_login(host, authfile, &server);
    }
    // Who cannot keep anything is told before being asked for a password.
    credentials::target(host, authfile)?;
    let options = Options {
        tls_verify: boolean(matches, "tls-verify")?,
        cert_dir: one(matches, "cert-dir").map(PathBuf::from),
        ..Options::default()
    };
    let client = Client::new(host, options)?;
    let nothing_given = ["username", "password"].iter().all(|flag| one(matches, flag).is_none());
    if nothing_given && !matches.get_flag("password-stdin") {
        // As docker: who is logged in already need not say it again.
        if let Some(stored) = stored(host, authfile, &server)? {
            out::err(&format!("Authenticating with existing credentials for {}\n", server.key));
            match client.ping(&server.registry, Some(&stored)) {
                Ok(()) => {
                    out::out("Login Succeeded\n")?;
                    return Ok(0);
                }
                Err(error) if error.is::<Unauthorized>() => (),
                Err(error) => return Err(refused(error, &server, &stored)),
            }
        }
    }
    let login = given(matches)?;
    let login = client.login(&server.registry, &login).map_err(|e| refused(e, &server, &login))?;
    let kept = credentials::store(host, authfile, &server, &login)
        .with_context(|| format!("cannot keep the credentials for {}", server.key))?;
    if let Kept::File(path) = kept {
        let at = path.display();
        let secret = if matches!(login, Credentials::IdentityToken(_)) { "token" } else { "password" };
        out::warn(&format!(
            "the {secret} lies unencrypted in {at}; credsStore in it names a program to keep it"
        ));
    }
    if server.is_part() {
        out::warn(&format!("these credentials are used for what is under {} alone", server.key));
    }
    out::out("Login Succeeded\n")?;
    Ok(0)
}

fn get_login(host: &Host, authfile: Option<&Path>, server: &Server) -> Result<u8> {
    let user = match stored(host, authfile, server)? {
        Some(Credentials::Basic { user, .. }) => user,
        Some(Credentials::IdentityToken(_)) => "<token>".to_owned(),
        None => bail!("not logged in to {}", server.key),
    };
    out::out(&format!("{user}\n"))?;
    Ok(0)
}

/// What is kept already; a file that `--authfile` is to make has nothing.
fn stored(host: &Host, authfile: Option<&Path>, server: &Server) -> Result<Option<Credentials>> {
    if authfile.is_some_and(|path| crate::fs::metadata(path).is_ok_and(|m| m.is_none())) {
        return Ok(None);
    }
    credentials::find(host, authfile, &server.registry, server.repository())
}

/// What the flags, stdin and the person at the terminal say.
fn given(matches: &ArgMatches) -> Result<Credentials> {
    let from_stdin = matches.get_flag("password-stdin");
    let user = match one(matches, "username") {
        Some(user) => user.to_owned(),
        None if from_stdin => return Err(anyhow!("--password-stdin needs a user name")).hint("add -u USER"),
        None if ask::is_possible() => ask::line("Username: ")?,
        None => return Err(nobody_to_ask()),
    };
    // A colon ends the name (RFC 7617): the rest would be taken for a part of the password.
    if user.is_empty() || user.contains(':') || user.contains(char::is_control) {
        bail!("{user:?} cannot be a user name: it is empty, or holds a colon or a control character");
    }
    let password = match one(matches, "password") {
        Some(password) => {
            out::warn("--password on the command line is seen by all on this machine; use --password-stdin");
            password.to_owned()
        }
        None if from_stdin => read_password()?,
        None if ask::is_possible() => ask::secret("Password: ")?,
        None => return Err(nobody_to_ask()),
    };
    if password.is_empty() {
        bail!("cannot log in with an empty password");
    }
    Ok(Credentials::Basic { user, password })
}

fn nobody_to_ask() -> anyhow::Error {
    let error: Result<()> = Err(anyhow!("cannot ask for a name and a password: stdin is not a terminal"))
        .hint("dhow login -u USER --password-stdin SERVER < FILE");
    error.expect_err("it is an error")
}

/// The whole of stdin, without the newline that `echo` puts there.
fn read_password() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .context("cannot read the password from stdin")?;
    if bytes.len() as u64 > LIMIT {
        bail!("cannot read the password from stdin: it is longer than {} KiB", LIMIT >> 10);
    }
    // The error of from_utf8 holds the bytes.
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("cannot use the password: it is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// A registry's refusal, said to the one who is logging in.
fn refused(error: anyhow::Error, server: &Server, login: &Credentials) -> anyhow::Error {
    let Some(Unauthorized { why, .. }) = error.downcast_ref::<Unauthorized>() else {
        return error.context(format!("cannot log in to {}", server.key));
    };
    let user = match login {
        Credentials::Basic { user, .. } => user.as_str(),
        Credentials::IdentityToken(_) => "<token>",
    };
    anyhow!("cannot log in to {} as {user}: {why}", server.key)
}

pub(super) fn logout_args(command: Command) -> Command {
    command
        .arg(switch("all", Some('a'), "From all registries"))
        .arg(value("authfile", None, "FILE", "Forget what is in FILE [env: REGISTRY_AUTH_FILE]"))
        .arg(server())
}

pub(super) fn logout(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let host = &session.host;
    let authfile = one(matches, "authfile").map(Path::new);
    if matches.get_flag("all") {
        if let Some(server) = one(matches, "server") {
            return of_flag(Err(anyhow!("cannot log out of {server} alone and, by --all, of all")));
        }
        let (gone, errors) = credentials::erase_all(host, authfile)?;
        for key in &gone {
            out::out(&format!("Removing login credentials for {key}\n"))?;
        }
        errors.iter().for_each(|e| out::err(&error::report(e)));
        return Ok(u8::from(!errors.is_empty()));
    }
    let server = Server::parse(one(matches, "server"))?;
    let had = credentials::erase(host, authfile, &server)
        .with_context(|| format!("cannot log out of {}", server.key))?;
    let said = if had { "Removing login credentials for" } else { "Not logged in to" };
    out::out(&format!("{said} {server}\n"))?;
    // Another program's file, which is read but never changed.
    if authfile.is_none() && !server.is_part() && stored(host, None, &server).is_ok_and(|c| c.is_some()) {
        out::warn(&format!(
            "there are other credentials for {}, of podman or in ~/.dockercfg, and they are used now",
            server.key
        ));
    }
    Ok(0)
}
