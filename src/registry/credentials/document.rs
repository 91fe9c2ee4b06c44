//! The text of config.json and auth.json <-> credentials. Pure.
//!
//! `auths` maps a registry, and with podman also a repository of it, to `auth` (base64 of USER:PASSWORD) or `identitytoken`;
//! `credHelpers` maps it to the name of a program that keeps them, and `credsStore` names one for all registries. Every other
//! key, and the order of all of them, is kept. Source: docker's cli/config/configfile, containers-auth.json(5).
//!
//! Invariant: no error quotes a value of the file, only keys.

use anyhow::{Result, anyhow, bail};
use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value, json};

use super::{Credentials, HUB};

/// What docker calls Docker Hub in its files, and to its helpers.
pub(super) const HUB_URL: &str = "https://index.docker.io/v1/";

/// What a helper, and sometimes a file, gives as the user's name where the secret is an identity token.
pub(super) const TOKEN_USER: &str = "<token>";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One file.
#[derive(Clone, Default)]
pub(super) struct Document(Map<String, Value>);

impl Document {
    /// Reads the text of config.json or auth.json. An empty file is an empty object, as docker has it.
    pub(super) fn parse(text: &str) -> Result<Document> {
        if text.trim().is_empty() {
            return Ok(Document::default());
        }
        // serde_json's errors of syntax name a line and a column, and quote nothing.
        let value: Value = serde_json::from_str(text)?;
        let Value::Object(map) = value else { bail!("it is not a JSON object") };
        for key in ["auths", "credHelpers"] {
            if map.get(key).is_some_and(|v| !v.is_object() && !v.is_null()) {
                bail!("{key} is not a JSON object");
            }
        }
        Ok(Document(map))
    }

    /// The same for docker's oldest file, ~/.dockercfg, which is what others have in `auths`.
    pub(super) fn parse_legacy(text: &str) -> Result<Document> {
        let Document(auths) = Document::parse(text)?;
        Ok(Document(Map::from_iter([("auths".to_owned(), Value::Object(auths))])))
    }

    /// The text of the file, laid out as docker lays it out.
    pub(super) fn text(&self) -> Result<String> {
        use serde::Serialize;
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        self.0.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
        bytes.push(b'\n');
        Ok(String::from_utf8(bytes)?)
    }

    /// The credentials under a key in whatever spelling; none where the entry is empty, as it is beside a helper.
    pub(super) fn credentials(&self, key: &str) -> Result<Option<Credentials>> {
        let auths = self.object("auths");
        let exact = auths.and_then(|a| a.get_key_value(spelling(key)));
        let others = auths.into_iter().flatten().filter(|(k, _)| normalize(k) == key);
        for (name, entry) in exact.into_iter().chain(others) {
            if let Some(found) = decode(entry).map_err(|e| anyhow!("{e} of {name:?} in auths"))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The helper that `credHelpers` has for a key.
    pub(super) fn helper(&self, key: &str) -> Option<&str> {
        let helpers = self.object("credHelpers")?;
        let exact = helpers.get(spelling(key));
        let others = || helpers.iter().find(|(k, _)| normalize(k) == key).map(|(_, v)| v);
        exact.or_else(others)?.as_str().filter(|name| !name.is_empty())
    }

    /// The helper that keeps everything.
    pub(super) fn store(&self) -> Option<&str> {
        self.0.get("credsStore")?.as_str().filter(|name| !name.is_empty())
    }

    /// Every key of `auths` and `credHelpers`, normalised, each once.
    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for name in ["auths", "credHelpers"] {
            keys.extend(self.object(name).into_iter().flatten().map(|(k, _)| normalize(k)));
        }
        keys.sort();
        keys.dedup();
        keys
    }

    /// Puts credentials under a key, or, with `None`, the empty entry that says that a helper has them.
    pub(super) fn set(&mut self, key: &str, credentials: Option<&Credentials>) {
        let entry = match credentials {
            None => json!({}),
            Some(Credentials::Basic { user, password }) => {
                json!({ "auth": BASE64.encode(format!("{user}:{password}")) })
            }
            Some(Credentials::IdentityToken(token)) => {
                json!({ "auth": BASE64.encode(format!("{TOKEN_USER}:")), "identitytoken": token })
            }
        };
        let auths = self.0.entry("auths").or_insert(Value::Null);
        if !auths.is_object() {
            *auths = json!({});
        }
        auths[spelling(key)] = entry;
    }

    /// Removes every spelling of a key from `auths`; whether there was one.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let Some(Value::Object(auths)) = self.0.get_mut("auths") else { return false };
        let before = auths.len();
        auths.retain(|k, _| normalize(k) != key);
        auths.len() != before
    }

    fn object(&self, key: &str) -> Option<&Map<String, Value>> {
        self.0.get(key)?.as_object()
    }
}

/// How a key is written into a file.
pub(super) fn spelling(key: &str) -> &str {
    if key == HUB { HUB_URL } else { key }
}

/// A key as it is compared: `host[:port][/repository]`, Docker Hub being `docker.io` under all its names.
pub(super) fn normalize(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let name = match bare {
        // A URL is docker's old way, of a whole registry: its path is that of the interface.
        Some(url) => url.split('/').next().unwrap_or_default(),
        None => key.strip_suffix("/v1/").or_else(|| key.strip_suffix("/v2/")).unwrap_or(key),
    };
    let name = name.trim_end_matches('/');
    let (host, path) = name.split_at(name.find('/').unwrap_or(name.len()));
    let host = host.to_ascii_lowercase();
    let host = if matches!(host.as_str(), "index.docker.io" | "registry-1.docker.io") { HUB } else { &host };
    format!("{host}{path}")
}

/// An entry of `auths`.
fn decode(entry: &Value) -> Result<Option<Credentials>> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::IdentityToken(token.to_owned())));
    }
    let (user, password) = match text("auth") {
        Some(auth) => {
            let wrong = || anyhow!("`auth` is not base64 of USER:PASSWORD");
            let bytes = BASE64.decode(auth.trim()).map_err(|_| wrong())?;
            let pair = String::from_utf8(bytes).map_err(|_| wrong())?;
            let (user, password) = pair.split_once(':').ok_or_else(wrong)?;
            // Some versions of docker padded with zeros.
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        None => {
            let Some(user) = text("username") else { return Ok(None) };
            (user.to_owned(), text("password").unwrap_or_default().to_owned())
        }
    };
    if user == TOKEN_USER && !password.is_empty() {
        return Ok(Some(Credentials::IdentityToken(password)));
    }
    Ok((!user.is_empty() && !password.is_empty()).then_some(Credentials::Basic { user, password }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic { user: user.into(), password: password.into() })
    }

    #[test]
    fn keys_have_one_name() {
        let check = |key: &str, expected: &str| assert_eq!(normalize(key), expected, "{key}");
        check("https://index.docker.io/v1/", "docker.io");
        check("index.docker.io/v1/", "docker.io");
        check("index.docker.io", "docker.io");
        check("registry-1.docker.io", "docker.io");
        check("docker.io/al", "docker.io/al");
        check("https://reg.example:5000/v2/", "reg.example:5000");
        check("http://reg.example/some/path", "reg.example");
        check("Reg.Example/ns/repo", "reg.example/ns/repo");
        check("reg.example/", "reg.example");
        check("", "");
        check("https://", "");
    }

    #[test]
    fn entries_are_read_as_docker_and_podman_write_them() {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnA6dw=="},
            "reg:5000": {"auth": "YTpi"},
            "https://old.example/v1/": {"auth": "bzpsAA"},
            "reg:5000/ns": {"auth": "bjpz"},
            "plain": {"username": "u", "password": "p"},
            "token": {"auth": "PHRva2VuPjp4", "identitytoken": "t1"},
            "token2": {"auth": "PHRva2VuPjp4"},
            "empty": {}, "null": null, "user": {"auth": "dTo="}
        }}"#;
        let document = Document::parse(text).unwrap();
        let check = |key: &str, expected: Option<Credentials>| {
            assert_eq!(document.credentials(key).unwrap(), expected, "{key}");
        };
        check("docker.io", basic("hub", "p:w"));
        check("reg:5000", basic("a", "b"));
        check("old.example", basic("o", "l"));
        check("reg:5000/ns", basic("n", "s"));
        check("plain", basic("u", "p"));
        check("token", Some(Credentials::IdentityToken("t1".into())));
        check("token2", Some(Credentials::IdentityToken("x".into())));
        for none in ["empty", "null", "user", "other"] {
            check(none, None);
        }
        let legacy = Document::parse_legacy(r#"{"https://x.example/v1/": {"auth": "YTpi"}}"#).unwrap();
        assert_eq!(legacy.credentials("x.example").unwrap(), basic("a", "b"));
    }

    #[test]
    fn what_is_not_ours_stays_in_its_place() {
        let text = "{\n\t\"psFormat\": \"x\",\n\t\"auths\": {\n\t\t\"b\": {\n\t\t\t\"auth\": \"YTpi\"\n\t\t}\n\t},\n\t\"HttpHeaders\": {\n\t\t\"A\": 1.5\n\t}\n}\n";
        let mut document = Document::parse(text).unwrap();
        assert_eq!(document.text().unwrap(), text);
        document.set(HUB, basic("u", "p").as_ref());
        document.set("reg:1", None);
        let written = document.text().unwrap();
        let names = ["psFormat", "auths", "\"b\"", HUB_URL, "reg:1", "HttpHeaders"];
        let at: Vec<usize> = names.iter().map(|n| written.find(n).unwrap()).collect();
        assert!(at.is_sorted(), "{written}");
        let mut read = Document::parse(&written).unwrap();
        assert_eq!(read.credentials(HUB).unwrap(), basic("u", "p"));
        assert!(read.remove(HUB) && read.remove("reg:1") && !read.remove("c"));
        assert_eq!(read.text().unwrap(), text);
        assert_eq!(Document::parse(" \n").unwrap().text().unwrap(), "{}\n");
    }

    #[test]
    fn helpers_are_found_under_every_spelling() {
        let text = r#"{"credsStore": "all", "credHelpers": {"docker.io": "hub", "r:1": "one", "x": ""}}"#;
        let document = Document::parse(text).unwrap();
        assert_eq!(document.helper(HUB), Some("hub"));
        assert_eq!(document.helper("r:1"), Some("one"));
        assert_eq!((document.helper("x"), document.helper("y"), document.store()), (None, None, Some("all")));
        assert_eq!(document.keys(), ["docker.io", "r:1", "x"]);
    }

    #[test]
    fn errors_do_not_quote() {
        for text in [
            r#"{"auths": {"r": {"auth": "hunter2-is-secret"}}}"#,
            r#"{"auths": {"r": {"auth": "aHVudGVyMg=="}}}"#,
            r#"{"auths": "hunter2"}"#,
            r#""hunter2""#,
            r#"{"auths": {"r": hunter2}}"#,
            r#"{"auths": {"r": {"auth": "aHVudGVyMg=="#,
        ] {
            let error = Document::parse(text).and_then(|d| d.credentials("r")).unwrap_err();
            assert!(!format!("{error:#} {error:?}").contains("unter"), "{error:?}");
        }
    }
}
