//! `clarion listen`: one JSON line per delivery on standard output, each flushed and then acked; what happens to the
//! stream as JSON lines on standard error. A queue is not streamed but taken from: that is `queue`.
//!
//! Invariants: what was not printed is never acked; acks never hold up the reading: while one is under way newer tokens
//! replace each other and the last one is sent; before the command ends, what was printed is acked. Must not know: the
//! server's insides.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clarion_client::{Client, ClientError, Event, EventStream, StreamItem, StreamQuery};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};

use crate::publish::{ServerArgs, block_on, complain, fail, usage};

mod queue;

/// How long the end waits for the last ack.
const LAST_ACK: Duration = Duration::from_secs(5);
/// Pause after an ack that failed for now, unless a newer token comes.
const ACK_AGAIN: Duration = Duration::from_secs(1);

/// Prints what arrives, one JSON line each, and acks it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// user:ID (the user's feed), group:ID, queue:ID, topic:NAME or all.
    address: String,
    /// The durable device that reads a user's feed (`default` when absent).
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Where to start: earliest, latest, unacked or a seq.
    #[arg(long, value_name = "WHERE")]
    from: Option<String>,
    /// End after so many deliveries.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> ExitCode {
    let client = match args.server.client() {
        Ok(client) => client,
        Err(text) => return usage(&text),
    };
    let source = match source(&args) {
        Ok(source) => source,
        Err(text) => return usage(&text),
    };
    let listening = async {
        let stop = match Stop::install() {
            Ok(stop) => stop,
            Err(error) => return complain(&error.to_string(), 1),
        };
        match source {
            Source::Queue(name) => queue::consume(client, name, args.count, stop).await,
            Source::Stream(query) => listen(client, query, args.count, stop).await,
        }
    };
    block_on(listening).unwrap_or_else(|error| complain(&error.to_string(), 1))
}

/// Where lines come from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// A stream.
    Stream(StreamQuery),
    /// A queue, by its name.
    Queue(String),
}

/// A user's feed is read by a durable device; a queue's consumers share it; everything else is read by nobody.
fn source(args: &Args) -> Result<Source, String> {
    let device = args.device.as_deref();
    if let Some(name) = args.address.strip_prefix("queue:") {
        if device.is_some() {
            return Err(
                "--device does not go with queue:ID: all who listen to a queue share its work, and a device reads \
                 alone; to get every message beside them, read the stream ?address=queue:ID&user=…&device=…"
                    .into(),
            );
        }
        if args.from.is_some() {
            return Err(
                "--from does not go with queue:ID: its consumers have one place in it".into()
            );
        }
        return Ok(Source::Queue(name.into()));
    }
    let mut query = match (args.address.strip_prefix("user:"), device) {
        (Some(user), device) => StreamQuery::feed(user, device.unwrap_or("default")),
        (None, None) => StreamQuery::address(&args.address),
        (None, Some(_)) => {
            return Err("--device goes with user:ID: other channels have no devices here".into());
        }
    };
    query.from.clone_from(&args.from);
    Ok(Source::Stream(query))
}

/// Ctrl-C or SIGTERM; once told, it stays told.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    told: bool,
}

impl Stop {
    fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            told: false,
        })
    }

    async fn told(&mut self) {
        if !self.told {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            self.told = true;
        }
    }
}

async fn listen(client: Client, query: StreamQuery, count: Option<u64>, stop: Stop) -> ExitCode {
    let (printed, tokens) = watch::channel(None);
    let acker = query.user.is_some().then(|| tokio::spawn(ack_all(client.clone(), tokens)));
    let mut stream = client.stream(query);
    let code = print_all(&mut stream, &printed, count, stop).await;
    drop(printed);
    let Some(acker) = acker else { return code };
    let refused = match timeout(LAST_ACK, acker).await {
        Ok(Ok(Ok(()))) => return code,
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".into(),
    };
    not_acked(&refused)
}

fn not_acked(refused: &str) -> ExitCode {
    complain(&format!("what was printed last may be delivered again, its ack failed: {refused}"), 1)
}

async fn print_all(
    stream: &mut EventStream,
    printed: &watch::Sender<Option<String>>,
    count: Option<u64>,
    mut stop: Stop,
) -> ExitCode {
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let item = tokio::select! {
            item = stream.next() => item,
            () = stop.told() => break,
        };
        let event = match item {
            Ok(StreamItem::Event(event)) => event,
            Ok(StreamItem::Open) => {
                tell(&json!({ "event": "open" }));
                continue;
            }
            Ok(StreamItem::Lost { cause, retry_ms }) => {
                tell(&json!({ "event": "lost", "cause": cause, "retry_ms": retry_ms }));
                continue;
            }
            Err(error) => return fail(&error),
        };
        if event.name == "message" {
            match print(&event.data) {
                Ok(()) => left -= 1,
                // Nobody reads any more: not printed, so not acked either.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return complain(&format!("standard output: {error}"), 1),
            }
        } else {
            tell(&control(&event));
        }
        if event.id.is_some() {
            printed.send_replace(event.id);
        }
    }
    ExitCode::SUCCESS
}

/// Line breaks in JSON are only ever white space between tokens.
fn print(json: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json.contains('\n') {
        writeln!(out, "{}", json.replace('\n', " "))?;
    } else {
        writeln!(out, "{json}")?;
    }
    out.flush()
}

fn control(event: &Event) -> Value {
    match serde_json::from_str(&event.data) {
        Ok(Value::Object(mut fields)) => {
            fields.insert("event".into(), event.name.clone().into());
            Value::Object(fields)
        }
        _ => json!({ "event": event.name, "data": event.data }),
    }
}

fn tell(line: &Value) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Acks the newest token, then the newest after that, until no more can come; only a refusal that will not pass ends it
/// early. The last one is sent until it is taken (the caller bounds that).
async fn ack_all(
    client: Client,
    mut tokens: watch::Receiver<Option<String>>,
) -> Result<(), ClientError> {
    while tokens.changed().await.is_ok() {
        loop {
            let Some(token) = tokens.borrow_and_update().clone() else { break };
            match client.ack(&token).await {
                Ok(_) => break,
                Err(error) if error.is_passing() => {
                    // A reconnect of the stream acks the same token; this goes on meanwhile.
                    let _ = timeout(ACK_AGAIN, newer(&mut tokens)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Ends with the next token; without a sender there is none.
async fn newer(tokens: &mut watch::Receiver<Option<String>>) {
    if tokens.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
