//! How a connection is let in: TLS, first bytes, WebSocket request, CONNECT, identity, then its shard.
//!
//! Invariants: all that a client has to send is there within `connect_timeout` and has a largest size; who is refused gets
//! the answer of what he speaks, and a while to read it; nothing is kept for a connection once its shard has it. Must not
//! know: sessions, how packets look (`clarion-wire`).

use super::App;
use super::identity::{Admitted, admit};
use super::peer::{Hello, MqttPeer, PeerSetup, SessionTerms, check_connect};
use super::refuse::Refused;
use super::sniff::{First, alone};
use super::upgrade::{self, Asked, Rules};
use super::wire::{Ended, Wire};
use crate::http::raw_response;
use crate::layer::{Tls, WebSocket};
use clarion_core::{Address, Code, Principal, Refusal};
use clarion_node::{Acks, AttachPlan, Guard, NotAttached, PeerPlan, StreamSpec};
use clarion_wire::mqtt::{Connect, Decoded, Packet, Profile, connect_version, decode_connect};
use rustls::ServerConnection;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Silence that ends a session, as a multiple of its keep-alive (MQTT-3.1.2-22).
const KEEP_ALIVE_FACTOR: f64 = 1.5;

/// How the letting in ends early.
enum Out {
    /// Nothing is to be said.
    Silent,
    /// Last words, of what is spoken.
    Words(Vec<u8>),
}

impl From<Ended> for Out {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Gone => Self::Silent,
            // The layer has had its words: there is only to wait until they are read.
            Ended::Broken(error) => {
                tracing::debug!(%error, "a connection was not let in");
                Self::Words(Vec::new())
            }
        }
    }
}

/// Lets a connection in, of which `head` was read, and hands it to its shard.
pub(super) async fn run(
    app: &App,
    stream: TcpStream,
    (head, at): (Vec<u8>, Instant),
    place: Guard,
) {
    let tls = match app.config.tls.clone().map(ServerConnection::new).transpose() {
        Ok(tls) => tls.map(Tls::new),
        Err(error) => return tracing::warn!(%error, "TLS does not work"),
    };
    let mut wire = Wire::new(stream, tls, head);
    let until = at + app.config.connect_timeout;
    let mut http = false;
    let came = timeout_at(until, arrive(app, &mut wire, &mut http)).await;
    let arrived = match came {
        Ok(Ok(arrived)) => arrived,
        Ok(Err(Out::Silent)) => return,
        Ok(Err(Out::Words(words))) => return wire.end(&words).await,
        Err(_) if http => return wire.end(&raw_response(Code::RequestTimeout)).await,
        Err(_) => return wire.end(&[]).await,
    };
    enter(app, wire, arrived, place).await;
}

/// A client that has said who it is.
struct Arrived {
    /// Its CONNECT.
    connect: Vec<u8>,
    /// What came behind it.
    leftover: Vec<u8>,
    /// The user that its certificate names.
    certificate: Option<String>,
}

/// Waits for a whole CONNECT. `http` tells whether an answer in HTTP is owed meanwhile.
async fn arrive(app: &App, wire: &mut Wire, http: &mut bool) -> Result<Arrived, Out> {
    while wire.tls().is_some_and(|tls| !tls.is_established()) {
        wire.read().await?;
    }
    // Before frames are laid into TLS.
    let certificate = wire.tls().filter(|_| app.config.user_from_cert).and_then(Tls::common_name);
    loop {
        match alone(&wire.plain, app.config.over) {
            First::More => wire.read().await?,
            First::Mqtt => break,
            First::WebSocket => {
                *http = true;
                upgrade(app, wire).await?;
                *http = false;
                break;
            }
            First::Other => return Err(Out::Words(Vec::new())),
        }
    }
    let profile = Profile { packet_bytes_max: app.config.connect_bytes, ..app.config.peer.profile };
    loop {
        match decode_connect(&wire.plain, &profile) {
            Ok(Decoded::More) => {}
            Ok(Decoded::Packet { len, .. }) => {
                let mut connect = std::mem::take(&mut wire.plain);
                let leftover = connect.split_off(len);
                return Ok(Arrived { connect, leftover, certificate });
            }
            Err(wrong) => {
                let version = connect_version(&wire.plain);
                let words = version.map(|version| Refused::from(wrong).connack(version, u32::MAX));
                return Err(Out::Words(words.unwrap_or_default()));
            }
        }
        wire.read().await?;
    }
}

/// Answers a WebSocket request.
async fn upgrade(app: &App, wire: &mut Wire) -> Result<(), Out> {
    let config = &app.config;
    let rules = Rules {
        auth_required: config.auth_required,
        // A browser shows its certificate by itself.
        any_origin: config.auth_required && !config.user_from_cert,
        allow_origins: &config.allow_origins,
        head_bytes: config.head_bytes,
    };
    loop {
        match upgrade::read(&wire.plain, rules) {
            Asked::More => wire.read().await?,
            Asked::Refused(words) => return Err(Out::Words(words)),
            Asked::Taken { answer, head_len } => {
                wire.plain.drain(..head_len);
                wire.write(&answer).await?;
                wire.frame(WebSocket::new(config.websocket_message_bytes)).await?;
                return Ok(());
            }
        }
    }
}

/// Lets a client in, or tells it why not.
async fn enter(app: &App, wire: Wire, arrived: Arrived, place: Guard) {
    let Arrived { connect: bytes, leftover, certificate } = arrived;
    let profile = Profile { packet_bytes_max: u32::MAX, ..app.config.peer.profile };
    let Ok(Decoded::Packet { packet: Packet::Connect(connect), .. }) =
        decode_connect(&bytes, &profile)
    else {
        return;
    };
    let hello = Hello::of(&connect, &app.config.peer);
    let (version, packet_bytes) = (connect.version, hello.packet_bytes);
    let (refused, wire) = match prepare(app, certificate, &connect, hello).await {
        Err(refused) => (refused, Some(wire)),
        Ok((plan, setup)) => {
            let (peer, link) = (Box::new(MqttPeer::new(setup)), wire.into_link());
            let Ok(link) = link else { return };
            match app.node.attach_peer(plan, peer, link, leftover, place).await {
                Ok(_) => return,
                Err(NotAttached { refusal, link }) => {
                    (refusal.into(), link.and_then(Wire::of_link))
                }
            }
        }
    };
    tracing::debug!(listener = app.config.name, what = %refused.what, "a CONNECT was refused");
    if let Some(wire) = wire {
        wire.end(&refused.connack(version, packet_bytes)).await;
    }
}

/// All that the shard needs.
async fn prepare(
    app: &App,
    certificate: Option<String>,
    connect: &Connect<'_>,
    hello: Hello,
) -> Result<(PeerPlan, PeerSetup), Refused> {
    let config = &app.config;
    check_connect(connect, &config.peer)?;
    let Admitted { client_id, assigned, identity } =
        admit(app, connect, certificate.as_deref()).await?;
    let expiry_s = hello.session_expiry_s.min(config.session_expiry_max_s);
    let keep_alive = keep_alive(hello.keep_alive, config.max_keep_alive_s);
    let device = Some(&*client_id).filter(|_| expiry_s > 0);
    let feed_acl_version = identity.principal.acl_version();
    let feed = match identity.user.as_deref() {
        Some(user) => feed(app, &identity.principal, user, device).await?,
        None => None,
    };
    let plan = PeerPlan {
        client_id: client_id.clone(),
        user: identity.user.clone(),
        // No user's name has a control character.
        owner: identity.user.clone().or_else(|| {
            config.auth_required.then(|| format!("\u{1}{}", identity.principal.name()).into())
        }),
        exclusive: config.auth_required,
        clean: hello.clean,
        expiry_s,
        auto_feed: config.auto_subscribe && feed.is_some(),
        feed,
        keep_alive: (keep_alive > 0)
            .then(|| Duration::from_secs(keep_alive.into()).mul_f64(KEEP_ALIVE_FACTOR)),
        window: hello.window(&config.peer),
        will_delay_max_s: expiry_s,
        expires_at: identity.expires_at,
    };
    let setup = PeerSetup {
        hello,
        client_id,
        assigned,
        user: identity.user,
        principal: identity.principal,
        feed_acl_version,
        keep_alive,
        session: SessionTerms { expiry_s, expiry_max_s: config.session_expiry_max_s },
        auto_feed: plan.auto_feed,
        config: config.peer.clone(),
    };
    Ok((plan, setup))
}

/// How a user's feed would be read: by the device of the client id if its session outlives the connection, else from its
/// head. `None` when he may not read it.
async fn feed(
    app: &App,
    principal: &Principal,
    user: &str,
    device: Option<&str>,
) -> Result<Option<AttachPlan>, Refusal> {
    let mut spec =
        StreamSpec { user: Some(user.to_owned()), acks: Acks::Singly, ..StreamSpec::default() };
    match device {
        Some(device) => spec.device = Some(device.to_owned()),
        None => {
            spec.addresses = vec![Address::user(user)?, Address::all()];
            spec.from = Some(clarion_core::start::From::Latest);
        }
    }
    match app.node.prepare(principal, spec).await {
        Ok(plan) => Ok(Some(plan)),
        Err(refusal) if refusal.code == Code::Forbidden => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// The keep-alive that is granted.
fn keep_alive(asked: u16, max: u16) -> u16 {
    match (asked, max) {
        (asked, 0) => asked,
        (0, max) => max,
        (asked, max) => asked.min(max),
    }
}

#[cfg(test)]
mod tests {
    use super::keep_alive;

    #[test]
    fn a_keep_alive_has_a_longest() {
        assert_eq!([keep_alive(0, 0), keep_alive(60, 0)], [0, 60]);
        assert_eq!([keep_alive(0, 30), keep_alive(60, 30), keep_alive(10, 30)], [30, 30, 10]);
    }
}
