//! One gRPC connection: its first bytes, hyper's HTTP/2, keep-alive, and its end.
//!
//! Invariants: who says nothing is closed after `head_timeout`, who does not answer a ping after `keep_alive_interval` +
//! `keep_alive_timeout`; a connection's end is noted before its streams learn of it; a stop sends GOAWAY and waits for
//! the calls under way. Must not know: services.

use super::route::{App, Routed};
use super::socket::{Broken, Socket};
use crate::stop::{Stop, reached};
use clarion_core::Code;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// HTTP/2 error ENHANCE_YOUR_CALM (RFC 9113 §7).
const ENHANCE_YOUR_CALM: u8 = 0xb;
/// Streams that a client may reset before they were handled; more end the connection (rapid reset).
const RESETS_MAX: usize = 200;
/// Streams that a client may go on with after they have ended; more end the connection.
const LOCAL_RESETS_MIN: usize = 1024;

/// SETTINGS and GOAWAY with the reason: for connections that are not taken (RFC 9113 §6.5, §6.8).
pub(super) fn goodbye(code: Code) -> Vec<u8> {
    let reason = format!("{}: {}", code.name(), code.row().title);
    let mut bytes = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    let length = (8 + reason.len()) as u32;
    bytes.extend_from_slice(&length.to_be_bytes()[1..]);
    bytes.extend_from_slice(&[7, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, ENHANCE_YOUR_CALM]);
    bytes.extend_from_slice(reason.as_bytes());
    bytes
}

/// How a client's first bytes look.
enum First {
    Http2,
    Other,
    Gone,
}

/// Reads the first bytes, as many as a preface has.
async fn first(stream: &TcpStream) -> First {
    let mut bytes = [0; PREFACE.len()];
    let mut seen = 0;
    while seen < PREFACE.len() {
        if stream.readable().await.is_err() {
            return First::Gone;
        }
        match stream.try_read(&mut bytes[seen..]) {
            Ok(0) => return First::Gone,
            Ok(more) => seen += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return First::Gone,
        }
        if bytes[..seen] != PREFACE[..seen] {
            return First::Other;
        }
    }
    First::Http2
}

/// Serves a connection to its end.
pub(super) async fn run(app: Arc<App>, stream: TcpStream, shutdown: watch::Receiver<Stop>) {
    let mut stopping = pin!(reached(shutdown.clone(), Stop::Finish));
    let looked = tokio::select! {
        looked = timeout(app.config.head_timeout, first(&stream)) => looked,
        () = &mut stopping => return,
    };
    match looked {
        Ok(First::Http2) => {}
        Ok(First::Other) => {
            let text = b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\n\
                connection: close\r\n\r\nThis port speaks gRPC: HTTP/2 without TLS, from the first byte.\n";
            // The socket's buffer is empty.
            let _ = stream.try_write(text);
            return;
        }
        Ok(First::Gone) | Err(_) => return,
    }
    let config = &app.config;
    let broken = Broken::new(config.keep_alive_timeout / 2);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(config.keep_alive_interval)
        .keep_alive_timeout(config.keep_alive_timeout)
        .max_concurrent_streams(config.connection_streams)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_header_list_size(config.head_bytes)
        .max_pending_accept_reset_streams(RESETS_MAX)
        // What a client says on a stream that was refused meanwhile counts here; all of its streams may be refused.
        .max_local_error_reset_streams(Some(
            LOCAL_RESETS_MIN.max(config.connection_streams as usize),
        ));
    let socket = TokioIo::new(Socket::new(stream, PREFACE, broken.clone()));
    let routed = Routed { app: app.clone(), broken: broken.clone(), stop: shutdown };
    let mut connection = pin!(builder.serve_connection(socket, routed));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = &mut stopping => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    // Before the connection is dropped, and with it its streams.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
        broken.set();
    }
}

#[cfg(test)]
mod tests {
    use super::goodbye;
    use clarion_core::Code;

    #[test]
    fn a_goodbye_is_two_whole_frames() {
        let bytes = goodbye(Code::TooManyConnections);
        let (settings, goaway) = bytes.split_at(9);
        assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let length = usize::from(goaway[1]) << 8 | usize::from(goaway[2]);
        assert_eq!((goaway[3], goaway.len()), (7, 9 + length));
        assert!(goaway.ends_with(b"as it may"));
    }
}
