//! DEV
use clarion_tests::{
    Server,
    mqtt::{Client, Options, Version},
    wait_for,
};
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
};

pub(crate) struct Broker {
    pub(crate) server: Option<Server>,
    child: Option<Child>,
    at: SocketAddr,
    _dir: Option<tempfile::TempDir>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(c) = &mut self.child {
            let _ = c.kill();
            let _ = c.wait();
        }
    }
}

pub(crate) fn is_mosquitto() -> bool {
    std::env::var_os("MOSQ").is_some()
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }
    pub(crate) fn with(sets: &[(&str, &str)]) -> Self {
        if is_mosquitto() {
            return Self::mosquitto(sets);
        }
        let mut builder = Server::builder();
        for (k, v) in sets {
            builder = builder.set(k, v);
        }
        let server = builder.start();
        let at = server.listener("mqtt");
        Self { server: Some(server), child: None, at, _dir: None }
    }
    pub(crate) fn at(&self) -> SocketAddr {
        self.at
    }
    pub(crate) fn client(&self, version: Version, id: &str) -> Client {
        Options::new(version, id).connect(self.at)
    }
    fn mosquitto(sets: &[(&str, &str)]) -> Self {
        static N: AtomicU32 = AtomicU32::new(1);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let ip = format!("127.250.{}.{}", n / 250, n % 250 + 1);
        let port = TcpListener::bind(format!("{ip}:0")).unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let mut conf = format!(
            "listener {port} {ip}\nallow_anonymous true\nlog_type none\nset_tcp_nodelay true\n"
        );
        for (k, v) in sets {
            match *k {
                "mqtt.max_inflight" => conf += &format!("max_inflight_messages {v}\n"),
                "mqtt.max_packet_bytes" => conf += &format!("max_packet_size {v}\n"),
                "mqtt.keep_alive_max" => conf += &format!("max_keepalive {v}\n"),
                _ => {}
            }
        }
        let path = dir.path().join("c");
        std::fs::write(&path, conf).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "mosquitto", "-c"])
            .arg(&path)
            .spawn()
            .unwrap();
        let at: SocketAddr = format!("{ip}:{port}").parse().unwrap();
        wait_for("mosquitto", || TcpStream::connect(at).is_ok());
        Self { server: None, child: Some(child), at, _dir: Some(dir) }
    }
}
