//! What the start prints: what is open, for which clients, and whom it trusts.

use super::open::Opened;
use crate::config::{
    Config,
    listeners::{AuthMode, Dialect, Listener, ListenerName, Transport},
    mikudos_file::open_further,
    sections::{StoreDurability, StoreKind},
};
use std::fmt::Write;

/// The whole text.
pub(crate) fn render(config: &Config, opened: &[Opened]) -> String {
    let addresses: Vec<(ListenerName, String)> =
        opened.iter().map(|opened| (opened.name, opened.address.to_string())).collect();
    render_addresses(config, &addresses)
}

fn render_addresses(config: &Config, addresses: &[(ListenerName, String)]) -> String {
    let mut out = format!("clarion {}: {}\n", env!("CARGO_PKG_VERSION"), store_line(config));
    let mut rows = vec![["listener", "address", "clients", "trust"].map(String::from)];
    let mut anybody_local = false;
    for listener in config.listeners.iter().filter(|listener| listener.is_open()) {
        let address = addresses.iter().find(|(name, _)| *name == listener.name);
        let address = address.map_or_else(|| listener.bind.to_string(), |(_, text)| text.clone());
        anybody_local |= listener.auth == AuthMode::None;
        rows.push([listener.name.to_string(), address, clients(listener), trust(listener)]);
    }
    push_columns(&mut out, &rows);
    let closed: Vec<&str> =
        config.listeners.iter().filter(|l| !l.is_open()).map(|l| l.name.name()).collect();
    if !closed.is_empty() {
        let _ = writeln!(out, "  not opened, since they speak nothing: {}", closed.join(", "));
    }
    let of_mikudos = |l: &&Listener| config.mikudos_file.is_some() && l.speaks(Dialect::Mikudos);
    for listener in config.listeners.iter().filter(of_mikudos) {
        if !listener.is_beyond_loopback() {
            let _ = writeln!(
                out,
                "  To open {} to other machines: {}",
                listener.name,
                open_further(listener)
            );
        }
    }
    if anybody_local {
        out.push_str(
            "  Without auth the name that a client gives is taken as the user, without proof. To ask for one:\n  \
             listeners.<name>.auth: required and auth.keys, a password file or tokens (docs/security.md).\n",
        );
    }
    out
}

fn store_line(config: &Config) -> String {
    match (config.store.kind, config.store.durability) {
        (StoreKind::Memory, _) => "messages in memory only, gone with this process".to_owned(),
        (StoreKind::Embedded, StoreDurability::Disk) => {
            format!(
                "messages in {}, on disk before a publish is answered",
                config.data_dir.display()
            )
        }
        (StoreKind::Embedded, StoreDurability::Memory) => format!(
            "messages in {}, written after a publish is answered: a power failure loses the last ones",
            config.data_dir.display()
        ),
    }
}

fn clients(listener: &Listener) -> String {
    let spoken = listener.speaks.iter().map(|dialect| match dialect {
        Dialect::Http => "HTTP API and event streams",
        Dialect::Grpc => "native gRPC",
        Dialect::Mikudos => "mikudos gates and producers",
        Dialect::MessageSync => "message-sync",
        Dialect::Mqtt => mqtt_clients(listener),
        Dialect::Dino if listener.name == ListenerName::Dino => "dino REST callers",
        Dialect::Dino => "dino users",
        Dialect::Mage => "MAGE message streams at /msgstream",
        Dialect::Mqant => "mqant clients",
    });
    spoken.collect::<Vec<_>>().join(", ")
}

fn mqtt_clients(listener: &Listener) -> &'static str {
    let has = |over| listener.mqtt.as_ref().is_some_and(|habits| habits.over.contains(&over));
    match (has(Transport::Tcp), has(Transport::WebSocket)) {
        (true, true) => "MQTT, also over WebSocket at /mqtt",
        (true, false) => "MQTT",
        (false, true) => "MQTT over WebSocket at /mqtt",
        (false, false) => "nobody (mqtt_over is empty)",
    }
}

fn trust(listener: &Listener) -> String {
    let from = match (&listener.allow_from[..], listener.is_beyond_loopback()) {
        ([], false) => "everybody on this machine".to_owned(),
        ([], true) => "everybody who reaches it".to_owned(),
        ([range], _) => format!("those from {range}"),
        (ranges, _) => format!("those from {} address ranges", ranges.len()),
    };
    match listener.auth {
        AuthMode::None => from,
        AuthMode::Required => format!("{from} with a proof"),
    }
}

fn push_columns(out: &mut String, rows: &[[String; 4]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..4).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, " {cell:<width$} ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FileSource, Sources};

    fn check(sets: &[&str], expected: &[&str]) {
        let sets = sets.iter().map(ToString::to_string).collect();
        let config = Config::load(&Sources { sets, ..Sources::default() }).unwrap();
        let text = render_addresses(&config, &[(ListenerName::Http, "127.0.0.1:4711".into())]);
        for part in expected {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }

    #[test]
    fn it_says_what_is_open_and_whom_it_trusts() {
        check(
            &[],
            &[
                "messages in ./clarion-data, on disk before a publish is answered",
                "http      127.0.0.1:4711   HTTP API and event streams, MQTT, also over WebSocket at /mqtt  everybody on \
                 this machine\n",
                "grpc      127.0.0.1:50051  native gRPC, mikudos gates and producers, message-sync          everybody",
                "mqtt      127.0.0.1:1883   MQTT, also over WebSocket at /mqtt                              everybody",
                "not opened, since they speak nothing: mqtts, message-sync,",
                "without proof",
            ],
        );
        check(
            &["listeners.http.bind=0.0.0.0:1", "listeners.http.allow_from=10.0.0.0/8"],
            &["those from 10.0.0.0/8\n"],
        );
        check(
            &["listeners.http.mqtt_over=websocket"],
            &["streams, MQTT over WebSocket at /mqtt  every"],
        );
        check(&["store.kind=memory"], &["in memory only"]);
        check(&["store.durability=memory"], &["a power failure loses"]);
    }

    #[test]
    fn in_place_of_a_mikudos_server_it_says_what_opens_the_port() {
        let render = |text: &str, set: &str| {
            let file = FileSource { name: "m.yaml".into(), text: text.into() };
            let sets = vec![set.to_owned(), "listeners.grpc.allow_from=10.0.0.0/8".into()];
            let sources = Sources { mikudos_file: Some(file), sets, ..Sources::default() };
            render_addresses(&Config::load(&sources).unwrap(), &[])
        };
        let text = render("port: 7000\n", "log.level=warn");
        let line = "  To open grpc to other machines: --set listeners.grpc.bind=0.0.0.0:7000 \
                    --set 'listeners.grpc.allow_from=[10.0.0.0/8]'\n";
        assert!(text.contains(line), "{text}");
        // When it is open already nothing is to be said.
        let text = render("", "listeners.grpc.bind=0.0.0.0:7000");
        assert!(!text.contains("To open"), "{text}");
        let text = render_addresses(&Config::defaults().0, &[]);
        assert!(!text.contains("To open"), "{text}");
    }

    #[test]
    fn with_keys_nothing_is_without_proof() {
        let key = format!("auth.keys=[{{name: k, sha256: {}, allow: [read]}}]", "0a".repeat(32));
        let required = |listener| format!("listeners.{listener}.auth=required");
        let sets = vec![required("http"), required("grpc"), required("mqtt"), key];
        let config = Config::load(&Sources { sets, ..Sources::default() }).unwrap();
        let text = render_addresses(&config, &[]);
        assert!(text.contains("everybody on this machine with a proof\n"), "{text}");
        assert!(!text.contains("without proof"), "{text}");
    }
}
