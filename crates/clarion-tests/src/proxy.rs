//! A TCP proxy that can swallow what passes through it, both ways and without a word, as a NAT that has forgotten a
//! connection does.

use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    at: SocketAddr,
    swallows: watch::Sender<bool>,
    accepting: JoinHandle<io::Result<()>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// In front of this address.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        let (swallows, told) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, to, told));
        Self { at, swallows, accepting }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.at
    }

    /// From now on nothing passes, and nobody is told.
    pub fn swallow(&self) {
        self.swallows.send_replace(true);
    }
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    swallows: watch::Receiver<bool>,
) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        let server = TcpStream::connect(to).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ((client_in, client_out), (server_in, server_out)) =
            (client.into_split(), server.into_split());
        tokio::spawn(pass(client_in, server_out, swallows.clone()));
        tokio::spawn(pass(server_in, client_out, swallows.clone()));
    }
}

/// Passes bytes on, or loses them; an end is passed on only while nothing is lost.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, swallows: watch::Receiver<bool>) {
    let mut part = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut part).await.unwrap_or(0);
        let lost = *swallows.borrow();
        if read == 0 {
            if lost {
                // The other side must not learn of it.
                std::future::pending::<()>().await;
            }
            return;
        }
        if !lost && to.write_all(&part[..read]).await.is_err() {
            return;
        }
    }
}
