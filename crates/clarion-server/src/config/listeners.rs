//! Listeners: their names, what can be spoken on each, and whom each trusts.

use super::{
    At,
    cidr::Cidr,
    kinds::{Bind, Choice, Kind, ListOf, items_of, one_of, plain::Flag, text_of},
    reader::Reader,
    suggest::nearest,
    tls::Tls,
    tree::Node,
};
use std::{fmt, net::SocketAddr};

/// What a connection may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Http,
    Grpc,
    Mikudos,
    MessageSync,
    Mqtt,
    Dino,
    Mage,
    Mqant,
}

impl Choice for Dialect {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("http", Self::Http),
        ("grpc", Self::Grpc),
        ("mikudos", Self::Mikudos),
        ("message-sync", Self::MessageSync),
        ("mqtt", Self::Mqtt),
        ("dino", Self::Dino),
        ("mage", Self::Mage),
        ("mqant", Self::Mqant),
    ];
}

/// What this build speaks.
pub(crate) const BUILT: &[Dialect] =
    &[Dialect::Http, Dialect::Grpc, Dialect::Mikudos, Dialect::MessageSync, Dialect::Mqtt];

impl Dialect {
    /// Its name in a configuration.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, dialect)| *dialect == self).map_or("", |(name, _)| name)
    }

    /// From a configuration.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, dialect)| *dialect).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            match nearest(text, &names) {
                Some(near) => format!("unknown dialect; did you mean {near}?"),
                None => format!("unknown dialect; there are {}", names.join(", ")),
            }
        })
    }

    /// The listeners on which `--speak` switches it on.
    pub(crate) fn homes(self) -> &'static [ListenerName] {
        use ListenerName as L;
        match self {
            Self::Http => &[L::Http],
            Self::Grpc | Self::Mikudos => &[L::Grpc],
            Self::MessageSync => &[L::Grpc, L::MessageSync],
            Self::Mqtt => &[L::Http, L::Mqtt],
            Self::Dino => &[L::Dino, L::Mqtt],
            Self::Mage => &[L::Http],
            Self::Mqant => &[L::Mqant, L::MqantWs],
        }
    }
}

/// Whether this build has all of them, else the message that says which it lacks.
pub(crate) fn check_built(dialects: &[Dialect]) -> Result<(), String> {
    let lacking: Vec<Dialect> =
        dialects.iter().copied().filter(|dialect| !BUILT.contains(dialect)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(format!("this build does not speak {} (it speaks {})", names_of(&lacking), names_of(BUILT)))
}

fn names_of(dialects: &[Dialect]) -> String {
    dialects.iter().map(|dialect| dialect.name()).collect::<Vec<_>>().join(", ")
}

/// The listeners that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerName {
    Http,
    Grpc,
    Mqtt,
    Mqtts,
    MessageSync,
    Dino,
    Mqant,
    MqantWs,
}

struct ListenerRow {
    name: &'static str,
    bind: &'static str,
    speaks: &'static str,
    may_speak: &'static [Dialect],
    doc: &'static str,
}

const fn row(
    name: &'static str,
    bind: &'static str,
    speaks: &'static str,
    may_speak: &'static [Dialect],
    doc: &'static str,
) -> ListenerRow {
    ListenerRow { name, bind, speaks, may_speak, doc }
}

impl ListenerName {
    /// All of them, in the order of documentation.
    pub(crate) const ALL: [Self; 8] = [
        Self::Http,
        Self::Grpc,
        Self::Mqtt,
        Self::Mqtts,
        Self::MessageSync,
        Self::Dino,
        Self::Mqant,
        Self::MqantWs,
    ];

    fn row(self) -> ListenerRow {
        use Dialect as D;
        match self {
            Self::Http => row(
                "http",
                "127.0.0.1:8080",
                "[http, mqtt]",
                &[D::Http, D::Mqtt, D::Mage],
                "HTTP API, streams, health, metrics; MQTT over WebSocket at `/mqtt`, and as it is; MAGE streams.",
            ),
            Self::Grpc => row(
                "grpc",
                "127.0.0.1:50051",
                "[grpc, mikudos, message-sync]",
                &[D::Grpc, D::Mikudos, D::MessageSync],
                "gRPC: the native services, mikudos, message-sync.",
            ),
            Self::Mqtt => row(
                "mqtt",
                "127.0.0.1:1883",
                "[mqtt]",
                &[D::Mqtt, D::Dino],
                "MQTT over TCP, and over WebSocket at `/mqtt`.",
            ),
            Self::Mqtts => {
                row("mqtts", "127.0.0.1:8883", "[]", &[D::Mqtt, D::Dino], "MQTT over TLS.")
            }
            Self::MessageSync => row(
                "message-sync",
                "127.0.0.1:8081",
                "[]",
                &[D::MessageSync],
                "message-sync on a port of its own.",
            ),
            Self::Dino => row("dino", "127.0.0.1:9800", "[]", &[D::Dino], "The dino REST API."),
            Self::Mqant => row("mqant", "127.0.0.1:3563", "[]", &[D::Mqant], "mqant over TCP."),
            Self::MqantWs => {
                row("mqant-ws", "127.0.0.1:3653", "[]", &[D::Mqant], "mqant over WebSocket.")
            }
        }
    }

    /// Its name in a configuration, a log and the ready file.
    pub(crate) fn name(self) -> &'static str {
        self.row().name
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether clients must prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthMode {
    None,
    Required,
}

impl Choice for AuthMode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("required", Self::Required)];
}

/// The servers that serve listeners; the dialects of one listener share its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    Http,
    Grpc,
    Mqtt,
}

/// What MQTT may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    WebSocket,
}

impl Choice for Transport {
    const NAMES: &'static [(&'static str, Self)] =
        &[("tcp", Self::Tcp), ("websocket", Self::WebSocket)];
}

/// How a listener speaks MQTT, if it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MqttHabits {
    /// What it comes in.
    pub(crate) over: Vec<Transport>,
    /// A session gets its user's feed without subscribing to it.
    pub(crate) auto_subscribe: bool,
}

/// A port and what it does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listener {
    /// Which.
    pub(crate) name: ListenerName,
    /// Where; port 0 = a free one.
    pub(crate) bind: SocketAddr,
    /// What; with nothing to speak it is not opened.
    pub(crate) speaks: Vec<Dialect>,
    /// Proof of identity.
    pub(crate) auth: AuthMode,
    /// Who may connect; empty = everybody who can.
    pub(crate) allow_from: Vec<Cidr>,
    /// Of those that can speak MQTT.
    pub(crate) mqtt: Option<MqttHabits>,
    /// TLS, where the listener can have it.
    pub(crate) tls: Tls,
}

impl Listener {
    /// All of them, in the order of [`ListenerName::ALL`].
    pub(crate) fn read_all(reader: &mut Reader<'_>, path: &str) -> Vec<Self> {
        reader.section(
            path,
            &["Ports, by listener. One that speaks nothing is not opened. Trust belongs to a listener: a bind beyond",
              "loopback needs `auth: required` or `allow_from`."],
        );
        ListenerName::ALL.map(|name| Self::read(reader, name)).into()
    }

    fn read(reader: &mut Reader<'_>, name: ListenerName) -> Self {
        let row = name.row();
        let path = format!("listeners.{name}");
        reader.section(&path, &[row.doc]);
        let key = |key| format!("{path}.{key}");
        Self {
            name,
            bind: reader.take(&key("bind"), &Bind, row.bind, &["Where it listens."]),
            speaks: reader.take(&key("speaks"), &Speaks(name), row.speaks, &["What it speaks."]),
            auth: reader.take(
                &key("auth"),
                &one_of(),
                "none",
                &["`none` takes the name that a client gives as the user, without proof; `required` asks for a",
                  "proof by what stands in `auth`."],
            ),
            allow_from: reader.take(
                &key("allow_from"),
                &ListOf { what: "address ranges", max: 1000, item: |text| text.parse::<Cidr>() },
                "[]",
                &["Who may connect, such as `[10.0.0.0/8, \"::1\"]`; empty = everybody who reaches the port."],
            ),
            mqtt: row.may_speak.contains(&Dialect::Mqtt).then(|| MqttHabits::read(reader, &path)),
            tls: match name {
                ListenerName::Mqtt | ListenerName::Mqtts => Tls::read(reader, &key("tls")),
                _ => Tls::default(),
            },
        }
    }

    /// Which server serves it.
    pub(crate) fn kind(&self) -> ListenerKind {
        use ListenerName as L;
        match self.name {
            L::Grpc | L::MessageSync => ListenerKind::Grpc,
            L::Mqtt | L::Mqtts => ListenerKind::Mqtt,
            // Nothing is built for the last three, so they are never opened.
            L::Http | L::Dino | L::Mqant | L::MqantWs => ListenerKind::Http,
        }
    }

    /// Whether a connection to it may speak this.
    pub(crate) fn speaks(&self, dialect: Dialect) -> bool {
        self.speaks.contains(&dialect)
    }

    /// Whether it is to be opened.
    pub(crate) fn is_open(&self) -> bool {
        !self.speaks.is_empty()
    }

    /// Whether other machines can reach it.
    pub(crate) fn is_beyond_loopback(&self) -> bool {
        !self.bind.ip().to_canonical().is_loopback()
    }
}

impl MqttHabits {
    fn read(reader: &mut Reader<'_>, path: &str) -> Self {
        let transports = ListOf {
            what: "tcp, websocket",
            max: 2,
            item: |text| {
                let found = Transport::NAMES.iter().find(|(name, _)| *name == text);
                found.map(|(_, over)| *over).ok_or_else(|| "expected tcp or websocket".to_owned())
            },
        };
        Self {
            over: reader.take(
                &format!("{path}.mqtt_over"),
                &transports,
                "[tcp, websocket]",
                &["What MQTT may come in; the first bytes of a connection tell. `tcp` is MQTT as it is, `websocket` the",
                  "same in WebSocket frames, at `/mqtt`."],
            ),
            auto_subscribe: reader.take(
                &format!("{path}.auto_subscribe"),
                &Flag,
                "false",
                &["An MQTT session with a user name gets its user's feed on the first of `mqtt.user_topics`, with QoS 1,",
                  "without subscribing to it."],
            ),
        }
    }
}

/// The kind of `listeners.<name>.speaks`.
struct Speaks(ListenerName);

impl Speaks {
    fn check(&self, text: &str) -> Result<Dialect, String> {
        let dialect = Dialect::parse(text)?;
        let may_speak = self.0.row().may_speak;
        if !may_speak.contains(&dialect) {
            let names = names_of(may_speak);
            return Err(format!("listener {} cannot speak {text} (it can speak {names})", self.0));
        }
        check_built(&[dialect])?;
        Ok(dialect)
    }
}

impl Kind for Speaks {
    type Out = Vec<Dialect>;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Vec<Dialect>> {
        let mut speaks = Some(Vec::new());
        for (index, item) in items_of(node, "dialects", at)?.iter().enumerate() {
            let mut at = at.below(&format!("[{index}]"), &item.origin);
            let dialect = text_of(item, "a dialect", &mut at).and_then(|text| {
                self.check(&text).map_or_else(
                    |error| at.problem(format!("{}: {error}", item.value.describe())),
                    Some,
                )
            });
            speaks = speaks.zip(dialect).map(|(mut speaks, dialect)| {
                if !speaks.contains(&dialect) {
                    speaks.push(dialect);
                }
                speaks
            });
        }
        speaks
    }

    fn describe(&self) -> String {
        format!("list of {}", names_of(self.0.row().may_speak))
    }
}
