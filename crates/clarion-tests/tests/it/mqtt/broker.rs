//! A server as an MQTT client sees it: addresses and clients. Must not know: what a test is about.

use super::certificates::Authority;
use clarion_tests::{
    Server,
    mqtt::{Client, Options, Version},
};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

/// A server, and who signed its certificate.
pub(crate) struct Broker {
    server: Server,
    authority: Option<Authority>,
}

impl Broker {
    /// With defaults.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With these keys of the configuration.
    pub(crate) fn with(sets: &[(&str, &str)]) -> Self {
        let builder = Server::builder();
        let builder = sets.iter().fold(builder, |builder, (key, value)| builder.set(key, value));
        Self { server: builder.start(), authority: None }
    }

    /// With TLS on the listener `mqtts`.
    pub(crate) fn with_tls() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        // The certificate names the address.
        let address = format!("127.250.0.{}", COUNT.fetch_add(1, Ordering::Relaxed) % 250);
        let authority = Authority::new();
        let (cert, key) = authority.sign(&address);
        let broker = Self::with(&[
            ("listeners.mqtts.bind", &format!("{address}:0")),
            ("listeners.mqtts.speaks", "[mqtt]"),
            ("listeners.mqtts.tls.cert", &cert),
            ("listeners.mqtts.tls.key", &key),
        ]);
        Self { authority: Some(authority), ..broker }
    }

    /// Kills it and starts it again with another value of a key.
    pub(crate) fn restart_with(&mut self, key: &str, value: &str) {
        self.server.kill9();
        self.server.reconfigure(|builder| builder.set(key, value));
        self.server.restart();
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// The MQTT listener.
    pub(crate) fn at(&self) -> SocketAddr {
        self.server.listener("mqtt")
    }

    /// The HTTP listener.
    pub(crate) fn http(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The listener with TLS.
    pub(crate) fn tls(&self) -> SocketAddr {
        self.server.listener("mqtts")
    }

    /// The file of the certificate that is to be trusted.
    pub(crate) fn certificate(&self) -> String {
        self.authority.as_ref().expect("started with TLS").file()
    }

    /// A client with a clean session.
    pub(crate) fn client(&self, version: Version, id: &str) -> Client {
        Options::new(version, id).connect(self.at())
    }
}
