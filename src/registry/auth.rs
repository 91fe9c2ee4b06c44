//! What a registry wants to see with each request: a password (Basic), or a token that a token service gives (Bearer).
//! Source: distribution/docs/spec/auth/token.md, oauth.md.
//!
//! Tokens and passwords are kept for the run, in memory, and shown to nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::Method;

use super::challenge;
use super::challenge::Challenge;
use super::credentials::Credentials;
use super::message::Call;
use super::message::Response;
use super::url::Url;
use super::url::query_escaped;

/// The longest answer of a token service that is read; a token of many groups has tens of kilobytes.
const LIMIT: u64 = 1 << 20;

/// What a token is good for where its service does not say (token.md: `expires_in`).
const LIFE: u64 = 60;

/// What we call ourselves to a token service.
const CLIENT: &str = "dhow";

/// A token that has less than this left is not used any more.
const MARGIN: Duration = Duration::from_secs(5);

/// What the registries of this run have asked for, and what they got.
#[derive(Default)]
pub struct Auth {
    /// By authority.
    demands: Mutex<HashMap<String, Demand>>,
    /// One lock for each, so that threads that want the same one fetch it once.
    tokens: Mutex<HashMap<TokenKey, Slot>>,
    /// Identity tokens for which a service gave another one, by the one that is stored. Locked while one is used: a service
    /// that rotates them takes each once.
    rotated: Mutex<HashMap<String, String>>,
}

type Slot = Arc<Mutex<Option<Token>>>;

/// How a registry wants to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// A name and a password.
    Basic,
    /// A token of this service.
    Bearer {
        /// The token service.
        realm: Url,
        /// What it calls the registry.
        service: Option<String>,
    },
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    realm: Url,
    service: Option<String>,
    scopes: Vec<String>,
    user: Option<String>,
}

struct Token {
    text: String,
    /// What fetches the next one, where the service gave it.
    refresh: Option<String>,
    until: Instant,
}

/// A token service's answer: one of the first two, how many seconds it is good for, and what fetches further ones.
#[derive(serde::Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

impl Auth {
    /// Whether this registry has asked for something.
    pub fn is_known(&self, authority: &str) -> bool {
        self.demands.lock().unwrap_or_else(PoisonError::into_inner).contains_key(authority)
    }

    /// The header for a request, `None` where the registry has not asked for one, or has asked for a password and there is
    /// none. `send` sends a request to the token service, with a header of its own.
    pub fn header(
        &self,
        authority: &str,
        scopes: &[String],
        credentials: Option<&Credentials>,
        send: &dyn Fn(&Call<'_>, Option<&str>) -> Result<Response>,
    ) -> Result<Option<String>> {
        let demand = self.demands.lock().unwrap_or_else(PoisonError::into_inner).get(authority).cloned();
        let (realm, service) = match demand {
            None => return Ok(None),
            Some(Demand::Basic) => return Ok(credentials.and_then(basic)),
            Some(Demand::Bearer { realm, service }) => (realm, service),
        };
        let key = token_key(realm, service, scopes, credentials);
        let slot = self.slot(&key);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_none_or(|token| token.until <= Instant::now() + MARGIN) {
            *slot = Some(self.fetch(&key, credentials, send)?);
        }
        Ok(slot.as_ref().map(|token| format!("Bearer {}", token.text)))
    }

    fn fetch(
        &self,
        key: &TokenKey,
        credentials: Option<&Credentials>,
        send: &dyn Fn(&Call<'_>, Option<&str>) -> Result<Response>,
    ) -> Result<Token> {
        let Some(Credentials::IdentityToken(stored)) = credentials else {
            return fetch(key, credentials, send);
        };
        let mut rotated = self.rotated.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = rotated.get(stored).unwrap_or(stored).clone();
        let token = fetch(key, Some(&Credentials::IdentityToken(latest)), send)?;
        // For this run only, as docker: its command line passes the stored token with each pull and push, and what the
        // service gave in its place goes with the request (moby, registry/auth.go: `staticCredentialStore` keeps none);
        // only a login stores one.
        if let Some(new) = &token.refresh {
            rotated.insert(stored.clone(), new.clone());
        }
        Ok(token)
    }

    /// The identity token that the token service gives for a password (token.md: `offline_token`), `None` where it gives
    /// none. For a registry that has asked for a token.
    pub fn identity(
        &self,
        authority: &str,
        login: &Credentials,
        send: &dyn Fn(&Call<'_>, Option<&str>) -> Result<Response>,
    ) -> Option<Credentials> {
        let demand = self.demands.lock().unwrap_or_else(PoisonError::into_inner).get(authority).cloned();
        let (Some(Demand::Bearer { realm, service }), Credentials::Basic { user, .. }) = (demand, login)
        else {
            return None;
        };
        let url = service.map_or(realm.clone(), |service| realm.with("service", &service));
        let url = url.with("account", user).with("client_id", CLIENT).with("offline_token", "true");
        // That there is none, for whatever reason, is no reason not to be logged in.
        let answer = send(&Call::get(url), basic(login).as_deref()).ok()?.bytes(LIMIT).ok()?;
        let answer: Answer = serde_json::from_slice(&answer).ok()?;
        answer.refresh_token.filter(|t| !t.is_empty()).map(Credentials::IdentityToken)
    }

    /// Learns from a refusal (401) what the registry wants. `used` is the header that it refused: a token in it is no
    /// longer good.
    pub fn learn(&self, response: &Response, authority: &str, used: Option<&str>) -> Result<()> {
        let headers: Vec<&str> = response.headers("www-authenticate").collect();
        let demand = demand(&headers, &response.url)?;
        if let Some(used) = used.and_then(|u| u.strip_prefix("Bearer ")) {
            let slots: Vec<Slot> = self.tokens().values().cloned().collect();
            for slot in slots {
                let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                if slot.as_ref().is_some_and(|token| token.text == used) {
                    *slot = None;
                }
            }
        }
        self.demands.lock().unwrap_or_else(PoisonError::into_inner).insert(authority.to_owned(), demand);
        Ok(())
    }

    fn slot(&self, key: &TokenKey) -> Slot {
        self.tokens().entry(key.clone()).or_default().clone()
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, HashMap<TokenKey, Slot>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn token_key(
    realm: Url,
    service: Option<String>,
    scopes: &[String],
    credentials: Option<&Credentials>,
) -> TokenKey {
    let user = credentials.map(|c| match c {
        Credentials::Basic { user, .. } => user.clone(),
        Credentials::IdentityToken(_) => "<token>".to_owned(),
    });
    let mut scopes = scopes.to_vec();
    scopes.sort();
    scopes.dedup();
    TokenKey { realm, service, scopes, user }
}

/// What the headers of a refusal ask for: a token rather than a password, as docker prefers it. `from` is who asks.
fn demand(headers: &[&str], from: &Url) -> Result<Demand> {
    let challenges: Vec<Challenge> = headers.iter().flat_map(|h| challenge::parse(h)).collect();
    if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
        let Some(realm) = bearer.get("realm") else {
            bail!("{} asks for a token and does not say of whom", from.authority);
        };
        let realm = from.join(realm).map_err(|e| e.context("cannot use its token service"))?;
        return Ok(Demand::Bearer { realm, service: bearer.get("service").map(str::to_owned) });
    }
    if challenges.iter().any(|c| c.scheme == "basic") {
        return Ok(Demand::Basic);
    }
    match challenges.first() {
        Some(other) => {
            bail!("{} asks for {}, which no container engine speaks", from.authority, other.scheme)
        }
        None => bail!("{} refuses and does not say what it wants", from.authority),
    }
}

fn basic(credentials: &Credentials) -> Option<String> {
    match credentials {
        Credentials::Basic { user, password } => {
            Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
        }
        Credentials::IdentityToken(_) => None,
    }
}

fn fetch(
    key: &TokenKey,
    credentials: Option<&Credentials>,
    send: &dyn Fn(&Call<'_>, Option<&str>) -> Result<Response>,
) -> Result<Token> {
    let answer = match credentials {
        Some(Credentials::IdentityToken(token)) => {
            let mut form =
                format!("grant_type=refresh_token&client_id={CLIENT}&refresh_token={}", form_escaped(token));
            if let Some(service) = &key.service {
                form.push_str(&format!("&service={}", form_escaped(service)));
            }
            if !key.scopes.is_empty() {
                form.push_str(&format!("&scope={}", form_escaped(&key.scopes.join(" "))));
            }
            let call = Call { body: Some(form.as_bytes()), ..Call::new(Method::POST, key.realm.clone()) };
            send(&call.header("content-type", "application/x-www-form-urlencoded"), None)?
        }
        credentials => {
            let mut url = key.realm.clone();
            if let Some(service) = &key.service {
                url = url.with("service", service);
            }
            for scope in &key.scopes {
                url = url.with("scope", scope);
            }
            if let Some(Credentials::Basic { user, .. }) = credentials {
                url = url.with("account", user);
            }
            send(&Call::get(url), credentials.and_then(basic).as_deref())?
        }
    };
    parse_token(&answer.bytes(LIMIT)?)
        .map_err(|e| e.context(format!("cannot read the token of {}", key.realm.authority)))
}

/// Reads a token service's answer. Pure, but for the present moment.
fn parse_token(bytes: &[u8]) -> Result<Token> {
    // The parser's own error would repeat a part of the token.
    let answer: Answer = serde_json::from_slice(bytes).map_err(|_| anyhow!("it is no token in JSON"))?;
    let text = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        bail!("it holds no token");
    }
    // docker takes less than a minute for a mistake, and so do we: otherwise each request would fetch its own.
    let life = answer.expires_in.unwrap_or(LIFE).clamp(LIFE, 24 * 3600);
    let refresh = answer.refresh_token.filter(|t| !t.is_empty());
    Ok(Token { text, refresh, until: Instant::now() + Duration::from_secs(life) })
}

/// As in a form: everything but unreserved characters is escaped.
fn form_escaped(value: &str) -> String {
    query_escaped(value).replace(':', "%3A").replace('/', "%2F").replace('*', "%2A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands_are_understood() {
        let from = Url::parse("https://reg:5000/v2/").unwrap();
        let check = |headers: &[&str], want: &str| {
            let got = match demand(headers, &from) {
                Ok(Demand::Basic) => "basic".to_owned(),
                Ok(Demand::Bearer { realm, service }) => format!("{realm} {}", service.unwrap_or_default()),
                Err(e) => crate::error::chain(&e),
            };
            assert!(got.contains(want), "{headers:?}: {got}");
        };
        check(&[r#"Basic realm="x""#], "basic");
        check(&["Basic realm=x", r#"Bearer realm="https://t/k?a=1",service="s""#], "https://t/k?a=1 s");
        check(&[r#"Bearer realm="/token""#], "https://reg:5000/token");
        check(&[r#"Bearer realm="http://t/k""#], "plain http");
        check(&[r#"Bearer realm="gopher://t/k""#], "not an http");
        check(&["Bearer service=s"], "does not say of whom");
        check(&["Negotiate"], "asks for negotiate");
        check(&[], "does not say what");
    }

    #[test]
    fn tokens_are_read_and_never_shown() {
        assert_eq!(parse_token(br#"{"token":"","access_token":"b","expires_in":5}"#).unwrap().text, "b");
        assert!(parse_token(br#"{"token":"a"}"#).unwrap().until > Instant::now() + Duration::from_secs(50));
        for bad in [&b"secret"[..], b"{}", br#"{"token":"secret\r\nx: y"}"#, br#"{"token":["secret"]}"#] {
            let error = crate::error::chain(&parse_token(bad).map(|_| ()).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn keys_of_tokens_hold_no_secret_and_ignore_order() {
        let realm = || Url::parse("https://t/").unwrap();
        let identity = Credentials::IdentityToken("secret".into());
        let key = token_key(realm(), None, &["b".into(), "a".into(), "a".into()], Some(&identity));
        assert_eq!(key.scopes, ["a", "b"]);
        assert_eq!(key.user.as_deref(), Some("<token>"));
        assert_eq!(form_escaped("a:b/c d&"), "a%3Ab%2Fc%20d%26");
    }
}
