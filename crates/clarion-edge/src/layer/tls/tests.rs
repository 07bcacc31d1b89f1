//! The layer against a client, in pieces of every size.

use super::*;
use crate::layer::{Stack, WebSocket};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use std::sync::Arc;
use tungstenite::Message;
use tungstenite::protocol::Role;

struct Made {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn make() -> Made {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    Made { certificate: made.cert.der().clone(), key }
}

fn roots(made: &Made) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(made.certificate.clone()).unwrap();
    roots
}

/// A server and a client that trusts it; with `mutual` the client shows a certificate too.
fn ends(version: &'static SupportedProtocolVersion, mutual: bool) -> (Tls, ClientConnection) {
    let (server, client) = (make(), make());
    let versions = [version];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(&versions).unwrap();
    let builder = if mutual {
        let roots = Arc::new(roots(&client));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        builder.with_client_cert_verifier(verifier.unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let served = builder.with_single_cert(vec![server.certificate.clone()], server.key.clone_key());
    let wanted = ClientConfig::builder_with_provider(provider);
    let wanted = wanted.with_protocol_versions(&versions).unwrap();
    let wanted = wanted.with_root_certificates(roots(&server));
    let wanted = if mutual {
        wanted.with_client_auth_cert(vec![client.certificate], client.key).unwrap()
    } else {
        wanted.with_no_client_auth()
    };
    let name = ServerName::try_from("localhost").unwrap();
    let tls = Tls::new(ServerConnection::new(Arc::new(served.unwrap())).unwrap());
    (tls, ClientConnection::new(Arc::new(wanted), name).unwrap())
}

/// What the client has to say goes to the server in parts of so many bytes, and back, until both are silent.
fn talk(server: &mut dyn Layer, client: &mut ClientConnection, cut: usize) -> (Vec<u8>, Opened) {
    let (mut plain, mut out, mut state) = (Vec::new(), Vec::new(), Opened::More);
    loop {
        let mut raw = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut raw).unwrap();
        }
        for part in raw.chunks(cut) {
            state = server.open(part, &mut plain, &mut out).unwrap();
        }
        let said = std::mem::take(&mut out);
        let mut said = said.as_slice();
        while !said.is_empty() {
            client.read_tls(&mut said).unwrap();
            client.process_new_packets().unwrap();
        }
        if !client.wants_write() {
            return (plain, state);
        }
    }
}

/// What the client reads of these raw bytes.
fn received(client: &mut ClientConnection, mut raw: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !raw.is_empty() {
        client.read_tls(&mut raw).unwrap();
        client.process_new_packets().unwrap();
        let _ = client.reader().read_to_end(&mut plain);
    }
    plain
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn handshake_data_and_end_however_they_are_cut() {
    for version in VERSIONS {
        for cut in [1, 7, 1000, 1 << 20] {
            let (mut server, mut client) = ends(version, false);
            assert!(!server.is_established());
            assert_eq!(talk(&mut server, &mut client, cut), (vec![], Opened::More));
            assert!(server.is_established() && !client.is_handshaking());
            let sent: Vec<u8> = (0..50_000u32).map(|n| n as u8).collect();
            for part in sent.chunks(20_000) {
                client.writer().write_all(part).unwrap();
            }
            assert_eq!(talk(&mut server, &mut client, cut), (sent, Opened::More));
            let answer = vec![9; 200_000];
            let mut raw = Vec::new();
            server.seal(&answer, &mut raw).unwrap();
            assert_eq!(received(&mut client, &raw), answer);
            client.writer().write_all(b"last").unwrap();
            client.send_close_notify();
            assert_eq!(talk(&mut server, &mut client, cut), (b"last".to_vec(), Opened::End));
            let opened = server.open(b"after the end", &mut Vec::new(), &mut Vec::new());
            assert_eq!(opened, Ok(Opened::End));
            let mut raw = Vec::new();
            server.close(&mut raw);
            assert!(!raw.is_empty(), "close_notify");
            let first = raw.len();
            server.close(&mut raw);
            assert_eq!(raw.len(), first, "once");
        }
    }
}

#[test]
fn a_client_certificate_is_there_after_the_handshake() {
    for version in VERSIONS {
        let (mut server, mut client) = ends(version, true);
        talk(&mut server, &mut client, 1 << 20);
        assert!(server.is_established());
        assert_eq!(server.common_name().as_deref(), Some("rcgen self signed cert"));
    }
}

#[test]
fn what_is_no_tls_gets_an_alert() {
    let (mut server, _) = ends(VERSIONS[1], false);
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let mqtt = [0x10, 0x0c, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 0];
    assert!(server.open(&mqtt, &mut plain, &mut out).is_err());
    assert_eq!((plain.len(), out[0]), (0, 21), "an alert record");
    // An announced record that is too long is refused by its head.
    let (mut server, _) = ends(VERSIONS[1], false);
    assert!(server.open(&[22, 3, 1, 0xff, 0xff], &mut plain, &mut out).is_err());
}

#[test]
fn a_broken_record_ends_it() {
    let (mut server, mut client) = ends(VERSIONS[1], false);
    talk(&mut server, &mut client, 1 << 20);
    client.writer().write_all(b"x").unwrap();
    let mut raw = Vec::new();
    client.write_tls(&mut raw).unwrap();
    *raw.last_mut().unwrap() ^= 1;
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    assert!(server.open(&raw, &mut plain, &mut out).is_err());
    assert!(plain.is_empty() && !out.is_empty());
}

#[test]
fn websocket_frames_within() {
    let (server, client) = ends(VERSIONS[1], false);
    let (mut server, mut client) = (server, client);
    talk(&mut server, &mut client, 1 << 20);
    let mut server = Stack::new(server, WebSocket::new(1 << 20));
    let mut frames =
        tungstenite::WebSocket::from_raw_socket(io::Cursor::new(Vec::new()), Role::Client, None);
    frames.send(Message::Binary(b"hello".to_vec().into())).unwrap();
    frames.send(Message::Ping(b"!".to_vec().into())).unwrap();
    client.writer().write_all(frames.get_ref().get_ref()).unwrap();
    let mut raw = Vec::new();
    client.write_tls(&mut raw).unwrap();
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    assert_eq!(server.open(&raw, &mut plain, &mut out), Ok(Opened::More));
    assert_eq!(plain, b"hello");
    server.seal(b"back", &mut out).unwrap();
    server.close(&mut out);
    let expected = [&[0x8a, 1, b'!'][..], &[0x82, 4], b"back", &[0x88, 2, 3, 232]].concat();
    assert_eq!(received(&mut client, &out), expected);
}
