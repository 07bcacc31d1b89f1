//! The accept loop of a listener, whatever it speaks.
//!
//! Invariants: as many connections as configured, the next one is told so and closed; a failed accept never ends the
//! loop; a stop ends accepting at once and waits for the requests under way, until it is told to cut them.

use crate::stop::{Stop, reached};
use crate::trust::AllowFrom;
use clarion_core::Code;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, interval_at, timeout};

/// Refused connections whose peers may still read the refusal.
const REFUSALS_MAX: usize = 256;
/// How long a refused peer may take to read it.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Bytes that are thrown away at a time.
const SINK_BYTES: usize = 16 << 10;
/// Pause after an accept that failed for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// What is served on a listener.
pub(crate) trait Serve: Send + Sync + 'static {
    /// The listener's name.
    fn name(&self) -> &str;
    /// Whence connections are taken; `None` = from everywhere.
    fn allow_from(&self) -> Option<&AllowFrom>;
    /// Connections at once.
    fn connections(&self) -> usize;
    /// What a connection that is not taken is told.
    fn refusal(&self, code: Code) -> Vec<u8>;
    /// Serves a connection to its end.
    fn run(
        self: Arc<Self>,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        stop: watch::Receiver<Stop>,
    ) -> impl Future<Output = ()> + Send;
}

/// Serves a listener until it is told to finish and every request under way is answered, or is told to cut them.
pub(crate) async fn serve<S: Serve>(
    listener: std::net::TcpListener,
    server: Arc<S>,
    mut shutdown: watch::Receiver<Stop>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    // Every connection holds a sender; the channel closes when the last one has ended.
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    let acceptor = Acceptor {
        connections: Arc::new(Semaphore::new(server.connections())),
        refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        alive,
        shutdown: shutdown.clone(),
        server,
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
                tracing::warn!(%error, listener = acceptor.server.name(), "accept failed");
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

struct Acceptor<S> {
    server: Arc<S>,
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    alive: mpsc::Sender<()>,
    shutdown: watch::Receiver<Stop>,
}

impl<S: Serve> Acceptor<S> {
    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        if !self.is_allowed(peer.ip()) {
            return self.refuse(stream, Code::NetworkForbidden);
        }
        let Ok(place) = self.connections.clone().try_acquire_owned() else {
            return self.refuse(stream, Code::TooManyConnections);
        };
        // Without it small answers wait for the peer's ack; a failure costs latency only.
        let _ = stream.set_nodelay(true);
        let server = self.server.clone();
        let (alive, shutdown) = (self.alive.clone(), self.shutdown.clone());
        // `alive` lets the stop wait for it.
        tokio::spawn(async move {
            let cut = reached(shutdown.clone(), Stop::Cut);
            tokio::select! {
                biased;
                () = server.run(stream, place, shutdown) => {}
                () = cut => {}
            }
            drop(alive);
        });
    }

    fn is_allowed(&self, ip: IpAddr) -> bool {
        self.server.allow_from().is_none_or(|allow| allow(ip.to_canonical()))
    }

    /// Answers without reading a request; beyond the bound the connection is just closed.
    fn refuse(&self, stream: TcpStream, code: Code) {
        let Ok(place) = self.refusals.clone().try_acquire_owned() else { return };
        let refusal = self.server.refusal(code);
        tokio::spawn(async move {
            // The peer may go at any point.
            let _ = timeout(REFUSAL_TIME, say_and_drain(stream, &refusal)).await;
            drop(place);
        });
    }
}

/// Writes the refusal, then waits for the peer to go.
async fn say_and_drain(stream: TcpStream, refusal: &[u8]) -> io::Result<()> {
    stream.writable().await?;
    stream.try_write(refusal)?;
    let stream = stream.into_std()?;
    stream.shutdown(std::net::Shutdown::Write)?;
    drain(&TcpStream::from_std(stream)?).await
}

/// Reads until the peer has gone: closing with unread bytes would reset the connection and take the last answer with it.
pub(crate) async fn drain(stream: &TcpStream) -> io::Result<()> {
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
