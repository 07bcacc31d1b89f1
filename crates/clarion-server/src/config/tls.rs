//! `listeners.<name>.tls`: where certificates lie. Must not know: what stands in them.

use super::{
    kinds::plain::{Flag, OptionalFile},
    reader::Reader,
};
use clarion_edge::tls::TlsFiles;
use std::path::PathBuf;

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tls {
    /// The certificate; with it the listener has TLS.
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) require_client_cert: bool,
    pub(crate) user_from_cert: bool,
}

impl Tls {
    /// Reads the keys below `path`.
    pub(crate) fn read(reader: &mut Reader<'_>, path: &str) -> Self {
        reader.section(path, &["TLS 1.2 and 1.3, when `cert` and `key` are given."]);
        let key = |key| format!("{path}.{key}");
        Self {
            cert: reader.take(
                &key("cert"),
                &OptionalFile,
                "none",
                &["The server's certificate in PEM, those of its issuers behind it."],
            ),
            key: reader.take(&key("key"), &OptionalFile, "none", &["Its private key in PEM."]),
            client_ca: reader.take(
                &key("client_ca"),
                &OptionalFile,
                "none",
                &["Issuers of client certificates, in PEM. Clients are then asked for one."],
            ),
            require_client_cert: reader.take(
                &key("require_client_cert"),
                &Flag,
                "false",
                &["A client without a certificate is refused in the handshake."],
            ),
            user_from_cert: reader.take(
                &key("user_from_cert"),
                &Flag,
                "false",
                &["The common name of a verified client certificate is the user, and proof enough for `auth: required`."],
            ),
        }
    }

    /// Whether there is any.
    pub(crate) fn is_on(&self) -> bool {
        self.cert.is_some()
    }

    /// Its files.
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            cert: self.cert.clone()?,
            key: self.key.clone()?,
            client_ca: self.client_ca.clone(),
            require_client_cert: self.require_client_cert,
        })
    }

    /// What does not fit together: the key, and what is wrong.
    pub(crate) fn contradictions(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        match (&self.cert, &self.key) {
            (Some(_), None) => {
                found.push(("key", "is missing: a certificate is nothing without its key"))
            }
            (None, Some(_)) => {
                found.push(("cert", "is missing: a key is nothing without its certificate"))
            }
            _ => {}
        }
        if self.client_ca.is_some() && self.cert.is_none() {
            found.push(("client_ca", "says nothing without cert and key"));
        }
        if self.require_client_cert && self.client_ca.is_none() {
            found.push(("require_client_cert", "needs client_ca: whose certificates are believed"));
        }
        if self.user_from_cert && self.client_ca.is_none() {
            found.push(("user_from_cert", "needs client_ca: whose certificates are believed"));
        }
        found
    }
}
