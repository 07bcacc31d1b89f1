//! Certificates that tests make: an authority, a server's, and those of clients.

use clarion_tests::target_dir;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::{fs, path::PathBuf};
use tempfile::TempDir;

/// An authority and the files that it made; they go with it.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let tmp = target_dir().join("tmp");
        fs::create_dir_all(&tmp).expect("the target directory is writable");
        let dir = tempfile::Builder::new().prefix("certificates-").tempdir_in(&tmp);
        let dir = dir.expect("the target directory is writable");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(dir.path().join("authority.pem"), certificate.pem()).expect("writable");
        Self { dir, issuer: Issuer::new(params, key) }
    }

    /// The file of its own certificate.
    pub(crate) fn file(&self) -> String {
        self.path("authority.pem")
    }

    /// A certificate for this name, which is an IP address or a user: its file and its key's.
    pub(crate) fn sign(&self, name: &str) -> (String, String) {
        let names = if name.parse::<std::net::IpAddr>().is_ok() {
            vec![name.to_owned(), "localhost".to_owned()]
        } else {
            Vec::new()
        };
        let mut params = CertificateParams::new(names).expect("good names");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (file, key_file) = (format!("{name}.pem"), format!("{name}.key"));
        fs::write(self.dir.path().join(&file), certificate.pem()).expect("writable");
        fs::write(self.dir.path().join(&key_file), key.serialize_pem()).expect("writable");
        (self.path(&file), self.path(&key_file))
    }

    fn path(&self, file: &str) -> String {
        let path: PathBuf = self.dir.path().join(file);
        path.to_str().expect("a path").to_owned()
    }
}
