//! `--mikudos-config`: the configuration file of a mikudos-message-pusher, translated into keys of ours.
//!
//! A source like the others: what it says is put into the tree of values, between `--config` and the environment, and is
//! checked there. Owns: that system's keys (in any case, as there), its variable `SERVICE_PORT`, and the set of listeners
//! that such a server has. Must not know: what the values are used for.

#[cfg(test)]
mod tests;

use super::{
    At, FileSource, Problem,
    kinds::{Choice, Kind, count, one_of},
    listeners::{Listener, ListenerName},
    not_utf8,
    sections::MikudosMode,
    suggest::nearest,
    tree::{Flat, Node, Origin, Value, clip, parse_yaml},
};
use std::ffi::OsStr;

/// The variable that is stronger than the file's `port`; it counts only beside such a file.
pub(super) const PORT_VARIABLE: &str = "SERVICE_PORT";

const STORE_KEY: &str = "store.kind";

/// That system's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Port,
    Mode,
    StorageType,
    RedisSource,
    MySqlSource,
}

impl Key {
    const ALL: [Self; 5] =
        [Self::Port, Self::Mode, Self::StorageType, Self::RedisSource, Self::MySqlSource];

    /// As it is usually written.
    fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Mode => "mode",
            Self::StorageType => "storageType",
            Self::RedisSource => "redisSource",
            Self::MySqlSource => "mySQLSource",
        }
    }
}

/// Where that system keeps messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SharedStore {
    Redis,
    MySql,
}

impl Choice for SharedStore {
    const NAMES: &'static [(&'static str, Self)] =
        &[("redis", Self::Redis), ("mysql", Self::MySql)];
}

/// What the start tells besides when there was such a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notices {
    /// Each key that means nothing here.
    pub(crate) ignored: Vec<String>,
}

/// A file that was translated. What it says about the store waits for the stronger sources.
pub(super) struct Translation {
    /// The keys about the store, as they are told, in the file's order.
    store_keys: Vec<(String, Origin)>,
    /// The file wants a store of that system.
    shared_store: Option<(String, Origin)>,
    /// What the weaker sources say about the store.
    weaker: Option<Node>,
}

/// Puts what the file says into the tree.
pub(super) fn translate(
    file: &FileSource,
    port_variable: Option<&OsStr>,
    flat: &mut Flat,
    problems: &mut Vec<Problem>,
) -> Translation {
    let mut translation = Translation {
        store_keys: Vec::new(),
        shared_store: None,
        weaker: flat.get(STORE_KEY).cloned(),
    };
    for name in ListenerName::ALL {
        let speaks = match name {
            ListenerName::Http => "[http]",
            ListenerName::Grpc => "[mikudos, grpc]",
            _ => "[]",
        };
        flat.insert(format!("listeners.{name}.speaks"), Node::untyped(speaks, &file.name));
    }
    for (key, node) in read_keys(file, problems) {
        let mut at = At::new(key.name(), &node.origin, problems);
        match key {
            Key::Port => translate_port(node, &mut at, flat),
            Key::Mode => {
                if one_of::<MikudosMode>().parse(&node, &mut at).is_some() {
                    flat.insert("mikudos.mode".to_owned(), node);
                }
            }
            Key::StorageType => {
                if one_of::<SharedStore>().parse(&node, &mut at).is_some()
                    && let Value::Text(store) = node.value
                {
                    let told = format!("{} {store}", key.name());
                    translation.store_keys.push((told, node.origin.clone()));
                    translation.shared_store = Some((store, node.origin));
                }
            }
            Key::RedisSource | Key::MySqlSource => {
                translation.store_keys.push((key.name().to_owned(), node.origin));
            }
        }
    }
    match port_variable.filter(|value| !value.is_empty()).map(OsStr::to_str) {
        None => {}
        Some(None) => problems.push(not_utf8("", PORT_VARIABLE)),
        Some(Some(port)) => {
            let node = Node::untyped(port, PORT_VARIABLE);
            translate_port(node.clone(), &mut At::new("", &node.origin, problems), flat);
        }
    }
    translation
}

/// The file's values by key; those that say nothing (null or empty text) are left out, as that system does.
fn read_keys(file: &FileSource, problems: &mut Vec<Problem>) -> Vec<(Key, Node)> {
    let root = match parse_yaml(&file.text, &file.name, false) {
        Ok(root) => root,
        Err(error) => {
            problems.push(Problem::new("", error, &Origin::untyped(&file.name)));
            return Vec::new();
        }
    };
    let entries = match root.value {
        Value::Null => Vec::new(),
        Value::Map(entries) => entries,
        other => {
            let text = format!("expected a map of keys, found {}", other.describe());
            problems.push(Problem::new("", text, &root.origin));
            Vec::new()
        }
    };
    let mut seen = Vec::new();
    let mut values = Vec::new();
    for (name, node) in entries {
        let known = Key::ALL.into_iter().find(|key| key.name().eq_ignore_ascii_case(&name));
        let Some(key) = known else {
            problems.push(unknown_key(&name, &node.origin));
            continue;
        };
        if seen.contains(&key) {
            let text = format!("is {} again; upper and lower case are the same here", key.name());
            problems.push(Problem::new(&clip(&name), text, &node.origin));
            continue;
        }
        seen.push(key);
        if !matches!(&node.value, Value::Null)
            && !matches!(&node.value, Value::Text(text) if text.is_empty())
        {
            values.push((key, node));
        }
    }
    values
}

fn unknown_key(name: &str, origin: &Origin) -> Problem {
    // Compared in lower case, since capitals are no mistakes here.
    let lower = Key::ALL.map(|key| key.name().to_lowercase());
    let near = nearest(name, &lower.each_ref().map(String::as_str));
    let near = Key::ALL.into_iter().find(|key| near == Some(&key.name().to_lowercase()));
    let text = match near {
        Some(near) => format!("unknown key; did you mean {}?", near.name()),
        None => {
            let names = Key::ALL.map(Key::name).join(", ");
            format!("unknown key; a mikudos configuration has {names}")
        }
    };
    Problem::new(&clip(name), text, origin)
}

/// A number, also in quotes: that system takes both.
fn translate_port(mut node: Node, at: &mut At<'_>, flat: &mut Flat) {
    node.origin.untyped = true;
    if let Some(port) = count::<u16>(0, u16::MAX.into()).parse(&node, at) {
        let bind = Value::Text(format!("127.0.0.1:{port}"));
        flat.insert(format!("listeners.{}.bind", ListenerName::Grpc), Node { value: bind, ..node });
    }
}

impl Translation {
    /// When all sources are read: whether somebody stronger than the file says where messages are kept, and what of the
    /// file is ignored.
    pub(super) fn finish(self, flat: &Flat, problems: &mut Vec<Problem>) -> Notices {
        let overruled = flat.get(STORE_KEY) != self.weaker.as_ref();
        if let Some((store, origin)) = self.shared_store.filter(|_| !overruled) {
            let text = format!(
                "'{store}': stores that servers share do not exist yet; to keep the messages in the data directory, \
                 and to start with this file as it is: --set {STORE_KEY}=embedded"
            );
            problems.push(Problem::new(Key::StorageType.name(), text, &origin));
        }
        let told = |(key, origin): (String, Origin)| {
            format!("{origin}: {key} is ignored: {STORE_KEY} says where messages are kept")
        };
        Notices { ignored: self.store_keys.into_iter().map(told).collect() }
    }
}

/// What opens the gRPC port to more than this machine.
pub(crate) fn open_further(listener: &Listener) -> String {
    let (name, port) = (listener.name, listener.bind.port());
    format!(
        "--set listeners.{name}.bind=0.0.0.0:{port} --set 'listeners.{name}.allow_from=[10.0.0.0/8]'"
    )
}
