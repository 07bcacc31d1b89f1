//! Opens the listeners' sockets, and names the key of one that cannot be opened.

use crate::{
    config::{Config, listeners::ListenerName},
    exit::{self, Failure},
};
use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
};
use tokio::net::TcpSocket;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Which listener of the configuration.
    pub(crate) name: ListenerName,
    /// Where it really is: port 0 became a number.
    pub(crate) address: SocketAddr,
    /// The socket; does not block. For `tokio::net::TcpListener::from_std`.
    pub(crate) socket: TcpListener,
}

/// Opens every listener that speaks something. Must run inside a runtime.
pub(crate) fn open(config: &Config) -> Result<Vec<Opened>, Failure> {
    let mut opened = Vec::new();
    for listener in config.listeners.iter().filter(|listener| listener.is_open()) {
        let (name, bind) = (listener.name, listener.bind);
        let socket = listen(bind).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = socket.map_err(|error| failure(name, bind, &error))?;
        opened.push(Opened { name, address, socket });
    }
    Ok(opened)
}

fn listen(bind: SocketAddr) -> io::Result<TcpListener> {
    let socket = if bind.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(bind)?;
    socket.listen(BACKLOG)?.into_std()
}

fn failure(name: ListenerName, bind: SocketAddr, error: &io::Error) -> Failure {
    let why = match error.kind() {
        ErrorKind::AddrInUse => "is busy: another process listens there".to_owned(),
        ErrorKind::PermissionDenied => "may not be bound by this user".to_owned(),
        ErrorKind::AddrNotAvailable => "is no address of this machine".to_owned(),
        _ => format!("cannot be bound: {error}"),
    };
    let text = format!(
        "listeners.{name}.bind: {bind} {why} (another port: --set listeners.{name}.bind=IP:PORT; port 0 takes a \
         free one)"
    );
    Failure::new(exit::UNAVAILABLE, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(bind: &str) -> Config {
        let other = |listener| format!("listeners.{listener}.bind=127.0.0.1:0");
        let sets = vec![format!("listeners.http.bind={bind}"), other("grpc"), other("mqtt")];
        Config::load(&Sources { sets, ..Sources::default() }).unwrap()
    }

    #[tokio::test]
    async fn port_0_becomes_a_number_and_a_busy_one_is_told_by_its_key() {
        let opened = open(&config("127.0.0.1:0")).unwrap();
        let [http, _grpc, _mqtt] = &opened[..] else { panic!("{opened:?}") };
        assert!(opened.iter().all(|opened| opened.address.port() != 0), "{opened:?}");
        let _client = tokio::net::TcpStream::connect(http.address).await.unwrap();
        let failure = open(&config(&http.address.to_string())).unwrap_err();
        assert_eq!(failure.code, exit::UNAVAILABLE);
        assert!(failure.text.starts_with("listeners.http.bind: "), "{failure}");
        assert!(failure.text.contains("is busy"), "{failure}");
    }
}
