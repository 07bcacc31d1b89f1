//! DEV
use super::certificates::Authority;
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
    authority: Option<Authority>,
    more: [Option<SocketAddr>; 2],
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

fn own_ip() -> String {
    static N: AtomicU32 = AtomicU32::new(1);
    let n = N.fetch_add(1, Ordering::Relaxed);
    format!("127.250.{}.{}", n / 250, n % 250 + 1)
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }
    pub(crate) fn with(sets: &[(&str, &str)]) -> Self {
        if is_mosquitto() {
            return Self::mosquitto(&own_ip(), sets, None);
        }
        let mut builder = Server::builder();
        for (k, v) in sets {
            builder = builder.set(k, v);
        }
        let server = builder.start();
        let at = server.listener("mqtt");
        Self { server: Some(server), child: None, at, _dir: None, authority: None, more: [None; 2] }
    }
    pub(crate) fn with_tls() -> Self {
        let authority = Authority::new();
        let ip = own_ip();
        let (cert, key) = authority.sign(&ip);
        let mut broker = if is_mosquitto() {
            Self::mosquitto(&ip, &[], Some((&cert, &key)))
        } else {
            Self::with(&[
                ("listeners.mqtts.bind", &format!("{ip}:0")),
                ("listeners.mqtts.speaks", "[mqtt]"),
                ("listeners.mqtts.tls.cert", &cert),
                ("listeners.mqtts.tls.key", &key),
            ])
        };
        broker.authority = Some(authority);
        broker
    }
    pub(crate) fn tls(&self) -> SocketAddr {
        match &self.server {
            Some(s) => s.listener("mqtts"),
            None => self.more[1].unwrap(),
        }
    }
    pub(crate) fn certificate(&self) -> String {
        self.authority.as_ref().unwrap().file()
    }
    pub(crate) fn http(&self) -> SocketAddr {
        match &self.server {
            Some(s) => s.addr(),
            None => self.more[0].unwrap(),
        }
    }
    pub(crate) fn speaks(&self, url: &str) -> bool {
        let browser = url.starts_with("ws:");
        self.server.is_some()
            || url.starts_with("mqtts:")
            || (url.contains(&self.at.to_string()) && url.starts_with("mqtt:"))
            || (browser && url.contains(&self.more[0].unwrap().to_string()))
    }
    pub(crate) fn at(&self) -> SocketAddr {
        self.at
    }
    pub(crate) fn client(&self, version: Version, id: &str) -> Client {
        Options::new(version, id).connect(self.at)
    }
    fn mosquitto(ip: &str, sets: &[(&str, &str)], tls: Option<(&str, &str)>) -> Self {
        let port = |ip: &str| TcpListener::bind(format!("{ip}:0")).unwrap().local_addr().unwrap();
        let (at, ws, tls_at) = (port(ip), port(ip), port(ip));
        let dir = tempfile::tempdir().unwrap();
        let mut conf = format!(
            "per_listener_settings false\nallow_anonymous true\nlog_type none\nset_tcp_nodelay true\n"
        );
        for (k, v) in sets {
            match *k {
                "mqtt.max_inflight" => conf += &format!("max_inflight_messages {v}\n"),
                "mqtt.max_packet_bytes" => conf += &format!("max_packet_size {v}\n"),
                "mqtt.max_keep_alive" => {
                    conf += &format!("max_keepalive {}\n", v.trim_end_matches('s'))
                }
                _ => {}
            }
        }
        conf += &format!("listener {} {ip}\n", at.port());
        conf += &format!("listener {} {ip}\nprotocol websockets\n", ws.port());
        if let Some((cert, key)) = tls {
            conf += &format!("listener {} {ip}\ncertfile {cert}\nkeyfile {key}\n", tls_at.port());
        }
        let path = dir.path().join("c");
        std::fs::write(&path, conf).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "mosquitto", "-c"])
            .arg(&path)
            .spawn()
            .unwrap();
        wait_for("mosquitto", || TcpStream::connect(at).is_ok());
        Self {
            server: None,
            child: Some(child),
            at,
            _dir: Some(dir),
            authority: None,
            more: [Some(ws), Some(tls_at)],
        }
    }
}
