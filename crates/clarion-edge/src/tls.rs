//! TLS settings of a listener: certificate, key, whose client certificates are believed.
//!
//! Invariants: one provider (ring); TLS 1.2 and 1.3; what cannot be read is told with the file's path, never with its text.
//! Must not know: connections (they get the finished configuration).

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A listener's TLS, ready.
pub type TlsConfig = Arc<ServerConfig>;

/// Where a listener's certificates lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate in PEM, those of its issuers behind it.
    pub cert: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
    /// Issuers of client certificates in PEM; `None` = clients are asked for none.
    pub client_ca: Option<PathBuf>,
    /// A client without a certificate is refused in the handshake.
    pub require_client_cert: bool,
}

/// What is wrong with which of the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {text}", path = .path.display())]
pub struct TlsError {
    /// Which key of the `tls` section: `cert`, `key` or `client_ca`.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub text: String,
}

fn wrong(key: &'static str, path: &Path, text: impl Into<String>) -> TlsError {
    TlsError { key, path: path.to_owned(), text: text.into() }
}

/// Reads the files. `protocols` are those of ALPN, such as `h2`; none = the extension is not answered.
pub fn server_config(files: &TlsFiles, protocols: &[&str]) -> Result<TlsConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates("cert", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
        let text = match error {
            rustls::pki_types::pem::Error::Io(error) => format!("cannot be read: {error}"),
            _ => "has no private key in PEM".to_owned(),
        };
        wrong("key", &files.key, text)
    })?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("cert", &files.cert, format!("TLS is not possible: {error}")))?;
    let builder = builder.with_client_cert_verifier(verifier(files, provider)?);
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let text = format!("is not the key of {}", files.cert.display());
            wrong("key", &files.key, text)
        }
        error => wrong("key", &files.key, format!("cannot be used: {error}")),
    })?;
    // Who comes back goes on without a whole handshake, and the server keeps nothing for that.
    config.ticketer = rustls::crypto::ring::Ticketer::new()
        .map_err(|error| wrong("key", &files.key, format!("no tickets: {error}")))?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn verifier(
    files: &TlsFiles,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = &files.client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", path)? {
        roots
            .add(certificate)
            .map_err(|error| wrong("client_ca", path, format!("cannot be used: {error}")))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if files.require_client_cert { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| wrong("client_ca", path, format!("cannot be used: {error}")))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path)
        .map_err(|error| match error {
            rustls::pki_types::pem::Error::Io(error) => {
                wrong(key, path, format!("cannot be read: {error}"))
            }
            _ => wrong(key, path, "is no PEM"),
        })?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| wrong(key, path, "is no PEM"))?;
    if read.is_empty() { Err(wrong(key, path, "has no certificate in PEM")) } else { Ok(read) }
}

/// The common name of a certificate's subject: the user of a client that shows it. `None` when it has none, or several.
/// The certificate must have been verified already.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let tbs = children(value(certificate.as_ref(), SEQUENCE)?).next()?;
    // version [0]?, serial number, signature, issuer, validity, subject (RFC 5280 §4.1).
    let mut fields = children(tbs.value).peekable();
    fields.next_if(|field| field.tag == VERSION);
    let subject = fields.nth(4).filter(|field| field.tag == SEQUENCE)?;
    let names =
        children(subject.value).filter(|set| set.tag == SET).flat_map(|set| children(set.value));
    let mut found = names.filter_map(|attribute| {
        let mut parts = children(attribute.value);
        let (kind, text) = (parts.next()?, parts.next()?);
        let is_text = [UTF8_STRING, PRINTABLE_STRING, IA5_STRING].contains(&text.tag);
        (kind.tag == OBJECT_ID && kind.value == COMMON_NAME && is_text).then_some(text.value)
    });
    let (name, another) = (found.next()?, found.next());
    if another.is_some() {
        return None;
    }
    std::str::from_utf8(name).ok().map(str::to_owned)
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const OBJECT_ID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// One element of DER.
struct Element<'a> {
    tag: u8,
    value: &'a [u8],
}

/// The elements within another one's value; ends where they are not DER.
fn children(mut rest: &[u8]) -> impl Iterator<Item = Element<'_>> {
    std::iter::from_fn(move || {
        let (element, behind) = split(rest)?;
        rest = behind;
        Some(element)
    })
}

fn value(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    split(bytes).filter(|(element, _)| element.tag == tag).map(|(element, _)| element.value)
}

fn split(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (value, behind) = rest.split_at_checked(length)?;
    Some((Element { tag, value }, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/certs").join(name)
    }

    fn files() -> TlsFiles {
        TlsFiles {
            cert: file("server.pem"),
            key: file("server.key.pem"),
            client_ca: None,
            require_client_cert: false,
        }
    }

    fn fails(files: &TlsFiles) -> (&'static str, String) {
        let error = server_config(files, &[]).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}: ", error.path.display())));
        (error.key, error.text)
    }

    #[test]
    fn what_is_there_is_taken() {
        let config = server_config(&files(), &["h2"]).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2"]);
        for require_client_cert in [false, true] {
            let client_ca = Some(file("named.pem"));
            server_config(&TlsFiles { client_ca, require_client_cert, ..files() }, &[]).unwrap();
        }
    }

    #[test]
    fn what_is_not_is_told_with_its_file() {
        let (key, text) = fails(&TlsFiles { cert: file("missing.pem"), ..files() });
        assert!(key == "cert" && text.starts_with("cannot be read: "), "{text}");
        let (key, text) = fails(&TlsFiles { key: file("missing.pem"), ..files() });
        assert!(key == "key" && text.starts_with("cannot be read: "), "{text}");
        let told = fails(&TlsFiles { cert: file("server.key.pem"), ..files() });
        assert_eq!(told, ("cert", "has no certificate in PEM".into()));
        let told = fails(&TlsFiles { key: file("server.pem"), ..files() });
        assert_eq!(told, ("key", "has no private key in PEM".into()));
        let (key, text) = fails(&TlsFiles { cert: file("named.pem"), ..files() });
        assert!(key == "key" && text.starts_with("is not the key of "), "{text}");
        let told = fails(&TlsFiles { client_ca: Some(file("server.key.pem")), ..files() });
        assert_eq!(told, ("client_ca", "has no certificate in PEM".into()));
    }

    #[test]
    fn the_common_name_is_the_only_one() {
        let name = |text: &str| {
            let certificate = CertificateDer::from_pem_file(file(text)).unwrap();
            // Whatever is cut off or changed, nothing panics.
            for length in 0..certificate.len() {
                let _ = common_name(&CertificateDer::from(&certificate[..length]));
            }
            common_name(&certificate)
        };
        assert_eq!(name("named.pem").as_deref(), Some("alice ü"));
        assert_eq!(name("server.pem").as_deref(), Some("localhost"));
        assert_eq!(name("two-names.pem"), None);
        assert_eq!(name("no-name.pem"), None);
        assert_eq!(common_name(&CertificateDer::from(&[][..])), None);
    }
}
