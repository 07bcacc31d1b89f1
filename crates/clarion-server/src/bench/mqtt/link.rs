//! One connection's way to the broker: a socket that never blocks and, if asked for, TLS and a WebSocket on it.
//!
//! Invariants: what was sent goes out in order, at the latest when the socket is writable again; closing is by RST, so that
//! no port waits. Must not know: MQTT.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::websocket::WebSocket;

/// What is read at once.
const READ_BYTES: usize = 256 << 10;

/// What lies between a connection and its socket.
#[derive(Debug, Clone, Default)]
pub(super) struct Layers {
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The WebSocket's subprotocol.
    pub(super) websocket: Option<&'static str>,
}

/// Buffers that all connections share, since one is served at a time.
#[derive(Debug)]
pub(super) struct Buffers {
    /// What came, layers taken off; a link's own remainder first.
    pub(super) input: Vec<u8>,
    raw: Vec<u8>,
    framed: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { input: vec![0; READ_BYTES], raw: Vec::new(), framed: Vec::new() }
    }
}

/// See the module.
pub(super) struct Link {
    socket: OwnedFd,
    connected: bool,
    tls: Option<Box<ClientConnection>>,
    websocket: Option<Box<WebSocket>>,
    /// What the socket has not taken.
    out: Vec<u8>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// What one reading brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// Where the input ends now.
    pub(super) end: usize,
    /// The socket may have more.
    pub(super) more: bool,
}

impl Link {
    /// Begins to connect, from this address if any.
    pub(super) fn start(layers: &Layers, at: SocketAddr, from: Option<IpAddr>) -> io::Result<Self> {
        let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        if let Some(from) = from {
            bind(&socket, &SocketAddr::new(from, 0))?;
        }
        match connect(&socket, &at) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let tls = match &layers.tls {
            None => None,
            Some(config) => {
                let name = ServerName::IpAddress(at.ip().into());
                let connection = ClientConnection::new(Arc::clone(config), name);
                let mut connection = connection.map_err(io::Error::other)?;
                connection.set_buffer_limit(None);
                Some(Box::new(connection))
            }
        };
        let websocket = layers.websocket.map(|_| Box::default());
        Ok(Self { socket, connected: false, tls, websocket, out: Vec::new() })
    }

    /// For the poller.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether bytes of the protocol may be sent.
    pub(super) fn is_open(&self) -> bool {
        self.connected && self.websocket.as_ref().is_none_or(|socket| socket.is_open())
    }

    /// The socket is writable: it has connected, or takes more.
    pub(super) fn writable(
        &mut self,
        layers: &Layers,
        at: SocketAddr,
        buffers: &mut Buffers,
    ) -> io::Result<()> {
        if self.connected {
            return self.flush();
        }
        sockopt::socket_error(&self.socket)??;
        self.connected = true;
        let upgrade = layers.websocket.map(|name| WebSocket::upgrade(&at.to_string(), name));
        buffers.framed.clear();
        buffers.framed.extend_from_slice(upgrade.unwrap_or_default().as_bytes());
        self.seal(&buffers.framed)
    }

    /// Reads what is there behind the first `start` bytes of the input, which stay. A reading that does not fill the
    /// buffer has emptied the socket, unless the peer `hung_up`: then the end of the stream is still to be read.
    pub(super) fn receive(
        &mut self,
        buffers: &mut Buffers,
        start: usize,
        hung_up: bool,
    ) -> io::Result<Received> {
        let Buffers { input, raw, framed } = buffers;
        let room = if self.tls.is_some() { &mut *raw } else { &mut *input };
        let offset = if self.tls.is_some() { 0 } else { start };
        if room.len() < offset + READ_BYTES {
            room.resize(offset + READ_BYTES, 0);
        }
        let read = match rustix::io::read(&self.socket, &mut room[offset..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Received { end: start, more: false }),
            Err(error) => return Err(error.into()),
        };
        let more = hung_up || offset + read == room.len();
        let mut end = start + read;
        if let Some(tls) = &mut self.tls {
            end = open(tls, &raw[..read], input, start)?;
            if tls.wants_write() {
                self.seal(&[])?;
            }
        }
        if let Some(websocket) = &mut self.websocket {
            framed.clear();
            end = start + websocket.unwrap(&mut input[start..end], framed)?;
            if !framed.is_empty() {
                self.seal(framed)?;
            }
        }
        Ok(Received { end, more })
    }

    /// Sends bytes of the protocol.
    pub(super) fn send(&mut self, buffers: &mut Buffers, bytes: &[u8]) -> io::Result<()> {
        match &self.websocket {
            None => self.seal(bytes),
            Some(websocket) => {
                buffers.framed.clear();
                websocket.wrap(bytes, &mut buffers.framed);
                self.seal(&buffers.framed)
            }
        }
    }

    /// Sends bytes of the layer above TLS, and whatever TLS itself has to say.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            while tls.wants_write() {
                tls.write_tls(&mut self.out)?;
            }
            return self.flush();
        }
        if !self.out.is_empty() {
            self.out.extend_from_slice(bytes);
            return Ok(());
        }
        let written = self.write(bytes)?;
        self.out.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.write(&self.out)?;
        self.out.drain(..written);
        if self.out.is_empty() && self.out.capacity() > 4096 {
            self.out = Vec::new();
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::write(&self.socket, &bytes[written..]) {
                Ok(more) => written += more,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(written)
    }
}

/// Takes TLS off `raw`, onto `input` from `start`; answers where that ends.
fn open(
    tls: &mut ClientConnection,
    mut raw: &[u8],
    input: &mut Vec<u8>,
    start: usize,
) -> io::Result<usize> {
    let mut end = start;
    while !raw.is_empty() {
        if tls.read_tls(&mut raw)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let state = tls.process_new_packets();
        let state = state.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let size = state.plaintext_bytes_to_read();
        if input.len() < end + size {
            input.resize(end + size, 0);
        }
        tls.reader().read_exact(&mut input[end..end + size])?;
        end += size;
    }
    Ok(end)
}

/// TLS that takes any certificate: what is measured is the server, not who it is.
pub(super) fn tls_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
