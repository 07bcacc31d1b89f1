//! Ten thousand connections at once.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use clarion_tests::{
    Server,
    raw::{self, Connection},
};
use rustix::{
    net::sockopt::set_socket_linger,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::time::Duration;

use super::assert_healthy;

const CONNECTIONS: usize = 10_000;
/// Measured: 226 MiB, of which 26 MiB before the first connection; 20 KiB for each, most of it hyper's buffers.
const PEAK_KIB_MAX: u64 = 300 << 10;

/// Both ends need a descriptor each, the server's inherited limit is this process's.
pub(crate) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(20_000);
    assert!(wanted > CONNECTIONS as u64 + 1000, "ulimit -Hn is {wanted}, 20000 are needed");
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
    }
}

/// One crowd at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn ten_thousand_connections_are_all_answered_with_bounded_memory() {
    let _alone = alone();
    raise_descriptors();
    let server = Server::start();
    let at = server.addr();
    let before = server.peak_rss_kib();
    let request = raw::request("GET", "/healthz", at, "", b"");
    let mut open = Vec::with_capacity(CONNECTIONS);
    for n in 0..CONNECTIONS {
        // Several source addresses, so that their ports suffice whatever else runs.
        let source = IpAddr::from([127, 0, 99, 1 + u8::try_from(n % 10).expect("small")]);
        let mut connection = Connection::open_from(source, at).expect("a connection");
        connection.send(&request).expect("sent");
        open.push(connection);
    }
    for connection in &mut open {
        assert_eq!(connection.answer().expect("an answer").status, 200);
    }
    let peak = server.peak_rss_kib();
    println!("{CONNECTIONS} connections: peak {peak} KiB, {before} KiB before");
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB");
    assert_healthy(&server);
    // By reset, so that no port waits.
    for connection in &open {
        set_socket_linger(connection.stream(), Some(Duration::ZERO)).expect("a socket");
    }
    drop(open);
    assert_healthy(&server);
}
