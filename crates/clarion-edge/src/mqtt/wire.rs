//! A connection while it is being let in: its socket, its layers, and the plain bytes that nobody has taken yet.
//!
//! Invariants: a wait has no deadline of its own, and a connection whose wait was dropped can only be ended; what a layer
//! answers by itself is written before anything that it made plain is looked at. Must not know: MQTT.

use crate::accept::drain;
use crate::layer::{Stack, Tls, WebSocket};
use clarion_core::port::layer::{Layer, LayerError, Opened};
use clarion_node::Link;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes that are read at a time.
const READ_BYTES: usize = 4 << 10;
/// How long a peer that was told why it must go may take to read so.
const LINGER_TIME: Duration = Duration::from_secs(5);

/// Why a connection ends before it was let in.
#[derive(Debug)]
pub(super) enum Ended {
    /// It is gone.
    Gone,
    /// It cannot go on; what there was to say is said.
    Broken(LayerError),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

enum Layers {
    None,
    Tls(Tls),
    WebSocket(WebSocket),
    Both(Box<Stack<Tls, WebSocket>>),
    /// Some of these.
    Opaque(Box<dyn Layer>),
}

impl Layers {
    fn get(&mut self) -> Option<&mut dyn Layer> {
        match self {
            Self::None => None,
            Self::Tls(layer) => Some(layer),
            Self::WebSocket(layer) => Some(layer),
            Self::Both(layer) => Some(&mut **layer),
            Self::Opaque(layer) => Some(&mut **layer),
        }
    }
}

/// See the module.
pub(super) struct Wire {
    stream: TcpStream,
    layers: Layers,
    /// What came and is not taken.
    pub(super) plain: Vec<u8>,
}

impl Wire {
    /// A connection of which these bytes were read.
    pub(super) fn new(stream: TcpStream, tls: Option<Tls>, head: Vec<u8>) -> Self {
        Self { stream, layers: tls.map_or(Layers::None, Layers::Tls), plain: head }
    }

    /// The TLS connection, if this is one.
    pub(super) fn tls(&self) -> Option<&Tls> {
        match &self.layers {
            Layers::Tls(tls) => Some(tls),
            _ => None,
        }
    }

    /// Waits for more bytes.
    pub(super) async fn read(&mut self) -> Result<(), Ended> {
        self.stream.readable().await?;
        let mut answer = Vec::new();
        let opened = match self.try_read(&mut answer) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        write_raw(&self.stream, &answer).await?;
        match opened {
            Ok(Opened::More) => Ok(()),
            Ok(Opened::End) => Err(Ended::Gone),
            Err(error) => Err(Ended::Broken(error)),
        }
    }

    /// The buffer is on the stack for as long as the read lasts, so that no waiting connection holds one.
    fn try_read(&mut self, answer: &mut Vec<u8>) -> io::Result<Result<Opened, LayerError>> {
        let mut buffer = [0; READ_BYTES];
        let length = self.stream.try_read(&mut buffer)?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let raw = &buffer[..length];
        Ok(match self.layers.get() {
            Some(layer) => layer.open(raw, &mut self.plain, answer),
            None => {
                self.plain.extend_from_slice(raw);
                Ok(Opened::More)
            }
        })
    }

    /// From now on what comes is in WebSocket frames; what came already as well.
    pub(super) async fn frame(&mut self, mut frames: WebSocket) -> Result<(), Ended> {
        let came = std::mem::take(&mut self.plain);
        let mut answer = Vec::new();
        let opened = frames.open(&came, &mut self.plain, &mut answer);
        // The answer is framed already: it goes through what is below.
        self.write(&answer).await?;
        self.layers = match std::mem::replace(&mut self.layers, Layers::None) {
            Layers::Tls(tls) => Layers::Both(Box::new(Stack::new(tls, frames))),
            _ => Layers::WebSocket(frames),
        };
        match opened {
            Ok(Opened::More) => Ok(()),
            Ok(Opened::End) => Err(Ended::Gone),
            Err(error) => Err(Ended::Broken(error)),
        }
    }

    /// Writes plain bytes.
    pub(super) async fn write(&mut self, plain: &[u8]) -> Result<(), Ended> {
        let Some(layer) = self.layers.get() else {
            return Ok(write_raw(&self.stream, plain).await?);
        };
        let mut raw = Vec::new();
        layer.seal(plain, &mut raw).map_err(Ended::Broken)?;
        Ok(write_raw(&self.stream, &raw).await?)
    }

    /// Ends it: last words, if any, and those of the layers; then the peer has a while to read them. A socket that is
    /// closed with bytes unread would take them with it.
    pub(super) async fn end(mut self, words: &[u8]) {
        // The peer may go at any point.
        let _ = timeout(LINGER_TIME, async {
            self.write(words).await.ok()?;
            let mut raw = Vec::new();
            if let Some(layer) = self.layers.get() {
                layer.close(&mut raw);
            }
            write_raw(&self.stream, &raw).await.ok()?;
            poll_fn(|context| Pin::new(&mut self.stream).poll_shutdown(context)).await.ok()?;
            drain(&self.stream).await.ok()
        })
        .await;
    }

    /// For a shard. Bytes that were not taken are lost.
    pub(super) fn into_link(self) -> io::Result<Link> {
        let layer: Option<Box<dyn Layer>> = match self.layers {
            Layers::None => None,
            Layers::Tls(layer) => Some(Box::new(layer)),
            Layers::WebSocket(layer) => Some(Box::new(layer)),
            Layers::Both(layer) => Some(layer),
            Layers::Opaque(layer) => Some(layer),
        };
        Ok(Link::Tcp(self.stream.into_std()?, layer))
    }

    /// Back from a shard that did not take it.
    pub(super) fn of_link(link: Link) -> Option<Self> {
        let Link::Tcp(stream, layer) = link else { return None };
        let stream = TcpStream::from_std(stream).ok()?;
        let layers = layer.map_or(Layers::None, Layers::Opaque);
        Some(Self { stream, layers, plain: Vec::new() })
    }
}

async fn write_raw(stream: &TcpStream, mut raw: &[u8]) -> io::Result<()> {
    while !raw.is_empty() {
        match stream.try_write(raw) {
            Ok(written) => raw = &raw[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stream.writable().await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
