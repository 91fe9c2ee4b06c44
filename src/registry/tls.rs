//! Whom we believe over TLS, and who we are: the machine's authorities, those of a private registry, our certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use rustls::sign::CertifiedKey;
use ureq::tls::Certificate;
use ureq::tls::ClientCert;
use ureq::tls::PemItem;
use ureq::tls::PrivateKey;
use ureq::tls::RootCerts;
use ureq::tls::TlsConfig;
use ureq::tls::parse_pem;

use crate::host::Host;

use super::certs;
use super::certs::Certificates;

/// What the TLS of one run is made of.
pub struct Authorities {
    host: Host,
    cert_dir: Option<PathBuf>,
    // Reading some hundred files costs milliseconds: only when the first TLS connection is made.
    machine: OnceLock<Vec<Certificate<'static>>>,
}

impl Authorities {
    /// `cert_dir` is `--cert-dir`.
    pub fn new(host: &Host, cert_dir: Option<PathBuf>) -> Authorities {
        Authorities { host: host.clone(), cert_dir, machine: OnceLock::new() }
    }

    /// What is kept for this registry (`host[:port]`) beyond what the machine believes.
    pub fn of(&self, authority: &str) -> Result<Certificates> {
        certs::find(&self.host, authority, self.cert_dir.as_deref())
    }

    /// The configuration: the machine's authorities and `own`. Where the machine has none, Mozilla's list, which is linked in.
    pub fn verifying(&self, authority: &str, own: &Certificates) -> Result<TlsConfig> {
        let machine = self.machine.get_or_init(|| {
            // What of the files cannot be read is missed by the host whose certificate it would have been for.
            let found = rustls_native_certs::load_native_certs();
            found.certs.iter().map(|c| Certificate::from_der(c).to_owned()).collect()
        });
        let about = || format!("cannot use the certificates for {authority}");
        let mut roots = machine.clone();
        for pem in &own.cas {
            roots.extend(certificates(pem).with_context(about)?);
        }
        let roots = if roots.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(roots)) };
        let client = client(own).with_context(about)?;
        Ok(TlsConfig::builder().root_certs(roots).client_cert(client).build())
    }

    /// The configuration that takes any certificate.
    pub fn believing_anyone(&self, authority: &str, own: &Certificates) -> Result<TlsConfig> {
        let client = client(own).with_context(|| format!("cannot use the certificates for {authority}"))?;
        Ok(TlsConfig::builder().disable_verification(true).client_cert(client).build())
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item? {
            found.push(certificate);
        }
    }
    Ok(found)
}

/// Our certificate, the first that there is. Checked here: ureq panics over a key that does not fit.
fn client(own: &Certificates) -> Result<Option<ClientCert>> {
    let Some((chain, key)) = own.clients.first() else { return Ok(None) };
    let chain = certificates(chain)?;
    if chain.is_empty() {
        return Err(anyhow!("the client certificate is not in PEM"));
    }
    let mut keys = parse_pem(key).filter_map(|item| match item {
        Ok(PemItem::PrivateKey(key)) => Some(key),
        _ => None,
    });
    let key: PrivateKey<'static> = keys.next().ok_or_else(|| anyhow!("the client key is not in PEM"))?;
    let ders = chain.iter().map(|c| rustls::pki_types::CertificateDer::from(c.der().to_vec())).collect();
    let der = rustls::pki_types::PrivateKeyDer::try_from(key.der().to_vec())
        .map_err(|why| anyhow!("the client key cannot be read: {why}"))?;
    CertifiedKey::from_der(ders, der, &rustls::crypto::ring::default_provider())
        .context("the client key does not fit its certificate")?;
    Ok(Some(ClientCert::new_with_certs(&chain, key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_certificate_that_is_none_is_refused() {
        let check = |chain: &str, key: &str| {
            let own = Certificates { cas: vec![], clients: vec![(chain.into(), key.into())] };
            client(&own).map(|_| ()).unwrap_err().to_string()
        };
        assert!(check("", "").contains("not in PEM"));
        let chain = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(check(chain, "").contains("not in PEM"));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(check(chain, key).contains("key"));
    }
}
