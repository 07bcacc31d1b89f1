//! Connections within TLS, and what a client's certificate proves.

use super::{code, framed, hello, packet, say, upgrade};
use crate::mqtt::certificates::Authority;
use clarion_tests::{
    Builder, DEADLINE, Server,
    mqtt::{self, Client, Filter, Options, Packet, Version, connect, parse, publish, subscribe},
    raw::Connection,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A TLS connection, the handshake done as far as the client's part goes.
fn tls(at: SocketAddr, authority: &Authority, shown: Option<(&str, &str)>) -> Tls {
    let mut roots = RootCertStore::empty();
    let read = |file: &str| CertificateDer::from_pem_file(Path::new(file)).expect("a certificate");
    roots.add(read(&authority.file())).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = builder.with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some((file, key)) => {
            let key = PrivateKeyDer::from_pem_file(Path::new(key)).expect("a key");
            builder.with_client_auth_cert(vec![read(file)], key).expect("they belong together")
        }
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let stream = TcpStream::connect(at).expect("the server accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    StreamOwned::new(connection, stream)
}

/// The next packet; `None` at the end.
fn next(stream: &mut Tls, version: Version) -> Option<Packet> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let mut body = vec![0; head[1].into()];
    stream.read_exact(&mut body).expect("a whole packet");
    Some(parse(version, head[0], &body))
}

fn with_tls(authority: &Authority) -> Builder {
    let (cert, key) = authority.sign("127.0.0.1");
    Server::builder()
        .set("listeners.mqtts.speaks", "[mqtt]")
        .set("listeners.mqtts.tls.cert", &cert)
        .set("listeners.mqtts.tls.key", &key)
}

#[test]
fn tls_carries_both() {
    let authority = Authority::new();
    let server = with_tls(&authority).set("mqtt.connect_timeout", "1s").start();
    let at = server.listener("mqtts");
    let mut reader = Client::connect(server.listener("mqtt"), Version::V5, "reader");
    reader.subscribe(&[("a/b", 0)]);
    let mut stream = tls(at, &authority, None);
    stream.write_all(&hello(Version::V5, "tls")).expect("the server reads");
    assert_eq!(code(&next(&mut stream, Version::V5).expect("CONNACK")), 0);
    let large = mqtt::Message::new("a/b", vec![b'x'; 100_000]);
    stream.write_all(&publish(Version::V5, &large)).expect("the server reads");
    assert_eq!(reader.message().text().len(), 100_000);
    let mut socket = framed(tls(at, &authority, None), &format!("ws://{at}/mqtt"));
    say(&mut socket, hello(Version::V311, "tls"));
    assert_eq!(code(&packet(&mut socket, Version::V311)), 0);
    let Some(Packet::Disconnect { reason, .. }) = next(&mut stream, Version::V5) else {
        panic!("the newer one takes over")
    };
    assert_eq!((reason, next(&mut stream, Version::V5)), (0x8e, None));
    // What is no TLS gets an alert.
    let mut connection = Connection::open(at).expect("a connection");
    connection.send(&hello(Version::V5, "plain")).expect("the server reads");
    assert_eq!(connection.rest().expect("an end").first(), Some(&21));
    // Who says nothing is told that it is over.
    let mut connection = Connection::open(at).expect("a connection");
    assert_eq!(connection.rest().expect("an end in time").first(), Some(&21));
}

#[test]
fn a_certificate_is_a_proof() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = with_tls(&authority)
        .set("listeners.mqtts.tls.client_ca", &authority.file())
        .set("listeners.mqtts.tls.user_from_cert", "true")
        .set("listeners.mqtts.auth", "required")
        .start();
    let at = server.listener("mqtts");
    let (cert, key) = authority.sign("alice");
    let shown = Some((cert.as_str(), key.as_str()));
    let attempt = |shown, options: Options| {
        let mut stream = tls(at, &authority, shown);
        stream.write_all(&connect(&options)).expect("the server reads");
        next(&mut stream, Version::V5).map(|packet| (code(&packet), stream))
    };
    let (code_of_alice, mut alice) =
        attempt(shown, Options::new(Version::V5, "a")).expect("CONNACK");
    assert_eq!(code_of_alice, 0);
    // Her feed comes to her.
    let filters = [Filter::new("user/alice", 0)];
    alice.write_all(&subscribe(Version::V5, 1, &filters, &[])).expect("the server reads");
    assert!(
        matches!(next(&mut alice, Version::V5), Some(Packet::Suback { codes, .. }) if codes == [0])
    );
    let mut writer = Options::new(Version::V5, "w").user("alice").connect(server.listener("mqtt"));
    writer.publish("user/alice", "hello", 0);
    assert!(
        matches!(next(&mut alice, Version::V5), Some(Packet::Publish(m)) if m.text() == "hello")
    );
    let same = Options::new(Version::V5, "b").user("alice");
    assert_eq!(attempt(shown, same).expect("CONNACK").0, 0);
    let other = Options::new(Version::V5, "b").user("bob");
    assert_eq!(attempt(shown, other).expect("CONNACK").0, 0x87);
    assert_eq!(attempt(None, Options::new(Version::V5, "b")).expect("CONNACK").0, 0x87);
    // Another user does not take the client id over; the answer comes through all layers.
    let (cert, key) = authority.sign("bob");
    let stream = tls(at, &authority, Some((&cert, &key)));
    let mut socket = framed(stream, &format!("ws://{at}/mqtt"));
    say(&mut socket, hello(Version::V5, "a"));
    assert_eq!(code(&packet(&mut socket, Version::V5)), 0x85);
    // A browser shows it whatever page asks, so that the page has to be one that may.
    let (cert, key) = authority.sign("alice");
    for (origin, status) in [("https://evil.example", 403), ("https://127.0.0.1:1", 101)] {
        let mut stream = tls(at, &authority, Some((&cert, &key)));
        let request = upgrade(at, "/mqtt", &[&format!("Origin: {origin}")]);
        stream.write_all(&request).expect("the server reads");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        assert_eq!(head, format!("HTTP/1.1 {status}").as_bytes(), "{origin}");
    }
    // A certificate that nobody here has signed ends the handshake.
    let (cert, key) = stranger.sign("alice");
    let mut stream = tls(at, &authority, Some((&cert, &key)));
    let _ = stream.write_all(&hello(Version::V5, "c"));
    let error = stream.read(&mut [0; 1]).expect_err("no CONNACK");
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
}
