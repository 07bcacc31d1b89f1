//! The accept loop of an HTTP listener.
//!
//! Invariants: as many connections as configured, the next one is told so and closed; a failed accept never ends the
//! loop; a stop ends accepting at once and waits for the requests under way, until it is told to cut them.

use super::connection;
use super::problem::raw_response;
use super::router::{App, router};
use super::stop::{Stop, reached};
use axum::Router;
use clarion_core::Code;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, interval_at, timeout};

/// Refused connections whose peers may still read the refusal.
const REFUSALS_MAX: usize = 256;
/// How long a refused peer may take to read it.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Bytes that are thrown away at a time.
const SINK_BYTES: usize = 16 << 10;
/// Pause after an accept that failed for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves a listener until it is told to finish and every request under way is answered, or is told to cut them.
pub async fn serve(
    listener: std::net::TcpListener,
    app: Arc<App>,
    mut shutdown: watch::Receiver<Stop>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    // Every connection holds a sender; the channel closes when the last one has ended.
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    let acceptor = Acceptor {
        router: router(app.clone()),
        connections: Arc::new(Semaphore::new(app.config.connections)),
        refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        alive,
        shutdown: shutdown.clone(),
        app,
    };
    loop {
        let accepted = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop > Stop::Run) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => acceptor.admit(stream, peer),
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                tracing::warn!(%error, listener = acceptor.app.config.name, "accept failed");
                interval_at(Instant::now() + PAUSE, PAUSE).tick().await;
            }
        }
    }
    drop(listener);
    drop(acceptor);
    // Nothing is ever sent: this waits for the close.
    let _ = all_ended.recv().await;
    Ok(())
}

fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

struct Acceptor {
    app: Arc<App>,
    router: Router,
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    alive: mpsc::Sender<()>,
    shutdown: watch::Receiver<Stop>,
}

impl Acceptor {
    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        if !self.is_allowed(peer.ip()) {
            return self.refuse(stream, Code::NetworkForbidden);
        }
        let Ok(place) = self.connections.clone().try_acquire_owned() else {
            return self.refuse(stream, Code::TooManyConnections);
        };
        // Without it small answers wait for the peer's ack; a failure costs latency only.
        let _ = stream.set_nodelay(true);
        let (app, router) = (self.app.clone(), self.router.clone());
        let (alive, shutdown) = (self.alive.clone(), self.shutdown.clone());
        // `alive` lets the stop wait for it.
        tokio::spawn(async move {
            let cut = reached(shutdown.clone(), Stop::Cut);
            tokio::select! {
                biased;
                () = connection::run(app, router, stream, place, shutdown) => {}
                () = cut => {}
            }
            drop(alive);
        });
    }

    fn is_allowed(&self, ip: IpAddr) -> bool {
        self.app.config.allow_from.as_ref().is_none_or(|allow| allow(ip.to_canonical()))
    }

    /// Answers without reading a request; beyond the bound the connection is just closed.
    fn refuse(&self, stream: TcpStream, code: Code) {
        let Ok(place) = self.refusals.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            // The peer may go at any point.
            let _ = timeout(REFUSAL_TIME, say_and_drain(stream, code)).await;
            drop(place);
        });
    }
}

/// Writes the refusal, then waits for the peer to go.
async fn say_and_drain(stream: TcpStream, code: Code) -> io::Result<()> {
    stream.writable().await?;
    stream.try_write(&raw_response(code))?;
    let stream = stream.into_std()?;
    stream.shutdown(std::net::Shutdown::Write)?;
    drain(&TcpStream::from_std(stream)?).await
}

/// Reads until the peer has gone: closing with unread bytes would reset the connection and take the last answer with it.
pub(super) async fn drain(stream: &TcpStream) -> io::Result<()> {
    let mut sink = vec![0; SINK_BYTES];
    loop {
        stream.ready(Interest::READABLE).await?;
        match stream.try_read(&mut sink) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
