//! The workload `grpc queue`: producers and consumers of one queue, each message to one consumer, once.
//!
//! Native consumers ack what they get as it comes; those of message-sync have nothing to ack. Must not know: the server's
//! insides.

use std::{rc::Rc, time::Duration};

use clarion_wire::proto::{
    clarion_v1::{
        Ack, AckRange, Hello, Mode, PublishRequest, SubscribeRequest, SubscribeResponse,
        subscribe_request::Request, subscribe_response::Response,
    },
    push::{ConnRequest, SubmitRequest},
};
use memchr::memmem::Finder;
use prost::Message;
use tokio::{task::JoinSet, time::timeout};

use super::{
    super::{
        Bench, BenchError,
        meter::Meter,
        payload::{TEXT_MARK, find_stamp},
    },
    PUBLISH, PUSH_STREAM, SUBMIT, SUBSCRIBE, Target,
    client::{Connection, Hear, Say},
    flow::Flow,
    new_name, text,
};

/// Longest wait for the last acks.
const CONFIRM: Duration = Duration::from_secs(10);

/// How the queue is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Dialect {
    /// Publish and Subscribe.
    Native,
    /// SubmitMessage and PushMessageStream.
    MessageSync,
}

/// What to put through.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Producers, a connection each.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    producers: u64,
    /// Publishes that one producer has under way.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    depth: u64,
    /// Consumers, a connection each.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    consumers: u64,
    /// Messages in all.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// What is spoken.
    #[arg(long, value_enum, default_value = "native")]
    dialect: Dialect,
    /// Native consumers ack each message by a request of its own, not those that came together by ranges.
    #[arg(long)]
    singly: bool,
    /// The queue's name; a new one if none is given.
    #[arg(long)]
    queue: Option<String>,
}

struct Run {
    bench: Rc<Bench>,
    args: Args,
    queue: String,
    flow: Flow,
}

type Tasks = JoinSet<Result<(), BenchError>>;

/// Measures.
pub(super) async fn run(bench: &Rc<Bench>, target: &Target, args: Args) -> Result<(), BenchError> {
    let lanes = args.producers * args.depth;
    let run = Rc::new(Run {
        bench: Rc::clone(bench),
        queue: args.queue.clone().unwrap_or_else(new_name),
        flow: Flow::new(lanes, 1, args.messages),
        args,
    });
    let mut tasks = Tasks::new();
    consume(&run, target, &mut tasks).await?;
    let producers = Connection::open_many(bench.at, run.args.producers).await?;
    let meter = Meter::start(bench.server.as_ref());
    let native = run.args.dialect == Dialect::Native;
    let method = target.method(if native { PUBLISH } else { SUBMIT })?;
    for (lane, connection) in (0..lanes as u32).zip(producers.iter().cycle()) {
        let (run, method, connection) = (Rc::clone(&run), method.clone(), connection.clone());
        tasks.spawn_local(async move {
            let (flow, size) = (&run.flow, run.args.size);
            if native {
                let address = format!("queue:{}", run.queue);
                let request = |stamp| PublishRequest {
                    address: address.clone(),
                    payload: text(stamp, size).into(),
                    ..PublishRequest::default()
                };
                flow.produce(connection, &method, lane, request).await
            } else {
                let request = |stamp| SubmitRequest {
                    channel: run.queue.clone(),
                    message: text(stamp, size),
                };
                flow.produce(connection, &method, lane, request).await
            }
        });
    }
    run.flow.settle(&mut tasks).await?;
    run.flow.finish(&mut tasks).await?;
    let name = if native { "grpc-queue" } else { "grpc-queue-message-sync" };
    bench.tell(&run.flow.report(bench, meter, name));
    Ok(())
}

/// Opens the consumers; each reads in a task.
async fn consume(run: &Rc<Run>, target: &Target, tasks: &mut Tasks) -> Result<(), BenchError> {
    let native = run.args.dialect == Dialect::Native;
    let method = target.method(if native { SUBSCRIBE } else { PUSH_STREAM })?;
    for mut connection in Connection::open_many(run.bench.at, run.args.consumers).await? {
        let run = Rc::clone(run);
        if native {
            let hello = Hello {
                addresses: vec![format!("queue:{}", run.queue)],
                mode: Mode::Unify.into(),
                ..Hello::default()
            };
            let hello = SubscribeRequest { request: Some(Request::Hello(hello)) };
            let (say, mut hear) = connection.stream(&method, Some(&hello), false).await?;
            let mut welcomed = false;
            while !welcomed && hear.pump(&mut |_| welcomed = true).await? {}
            tasks.spawn_local(read_native(run, say, hear));
        } else {
            let first = ConnRequest { channel: run.queue.clone() };
            let (_, hear) = connection.stream(&method, Some(&first), true).await?;
            tasks.spawn_local(read_sync(run, hear));
        }
    }
    Ok(())
}

async fn read_sync(run: Rc<Run>, mut hear: Hear) -> Result<(), BenchError> {
    let finder = Finder::new(TEXT_MARK);
    let mut order = run.flow.order();
    let finished = run.flow.finished();
    tokio::pin!(finished);
    loop {
        let mut take = |message: &[u8]| {
            if let Some(stamp) = find_stamp(&finder, message) {
                run.flow.take(&run.bench, &mut order, stamp);
            }
        };
        tokio::select! {
            biased;
            more = hear.pump(&mut take) => if !more? {
                return Err(BenchError::Other("the server ended a consumer's stream".into()));
            },
            () = &mut finished => return Ok(()),
        }
    }
}

/// Messages to ack: ranges of successive ones.
#[derive(Debug, Default)]
struct Acks {
    ranges: Vec<AckRange>,
    confirmed: bool,
}

impl Acks {
    fn add(&mut self, seq: u64, epoch: u32) {
        if let Some(last) = self.ranges.last_mut()
            && (last.to + 1, last.epoch) == (seq, epoch)
        {
            last.to = seq;
        } else {
            let range = AckRange { channel: String::new(), epoch, from: seq, to: seq };
            self.ranges.push(range);
        }
    }

    fn say(&mut self, say: &mut Say, singly: bool) -> Result<(), BenchError> {
        let ranges = std::mem::take(&mut self.ranges);
        if singly {
            for AckRange { channel, epoch, from, to } in ranges {
                for seq in from..=to {
                    let range = AckRange { channel: channel.clone(), epoch, from: seq, to: seq };
                    say.push(&ack(vec![range], 0));
                }
            }
        } else if !ranges.is_empty() {
            say.push(&ack(ranges, 0));
        }
        say.flush()
    }
}

fn ack(ranges: Vec<AckRange>, confirm: u64) -> SubscribeRequest {
    SubscribeRequest { request: Some(Request::Ack(Ack { ranges, confirm })) }
}

async fn read_native(run: Rc<Run>, mut say: Say, mut hear: Hear) -> Result<(), BenchError> {
    let finder = Finder::new(TEXT_MARK);
    let mut order = run.flow.order();
    let mut acks = Acks::default();
    let mut take = |acks: &mut Acks, message: &[u8]| match SubscribeResponse::decode(message) {
        Ok(SubscribeResponse { response: Some(Response::Delivery(delivery)) }) => {
            let Some(message) = delivery.message else { return };
            if let Some(stamp) = find_stamp(&finder, &message.payload) {
                run.flow.take(&run.bench, &mut order, stamp);
            }
            acks.add(message.seq, message.epoch);
        }
        Ok(SubscribeResponse { response: Some(Response::AckStored(_)) }) => acks.confirmed = true,
        _ => {}
    };
    let finished = run.flow.finished();
    tokio::pin!(finished);
    loop {
        let mut take_one = |message: &[u8]| take(&mut acks, message);
        tokio::select! {
            biased;
            more = hear.pump(&mut take_one) => if !more? {
                return Err(BenchError::Other("the server ended a consumer's stream".into()));
            },
            () = &mut finished => break,
        }
        acks.say(&mut say, run.args.singly)?;
    }
    // The run is over when the last acks are stored.
    say.push(&ack(Vec::new(), 1));
    say.flush()?;
    let confirmed = async {
        while !acks.confirmed && hear.pump(&mut |message| take(&mut acks, message)).await? {}
        Ok(())
    };
    match timeout(CONFIRM, confirmed).await {
        Ok(done) => done,
        Err(_) => Err(BenchError::Other("the last acks were not confirmed".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successive_messages_are_acked_by_a_range() {
        let mut acks = Acks::default();
        for (seq, epoch) in [(3, 1), (4, 1), (6, 1), (7, 2), (8, 2)] {
            acks.add(seq, epoch);
        }
        let ranges = acks.ranges.iter().map(|range| (range.epoch, range.from, range.to));
        assert_eq!(ranges.collect::<Vec<_>>(), [(1, 3, 4), (1, 6, 6), (2, 7, 8)]);
    }
}
