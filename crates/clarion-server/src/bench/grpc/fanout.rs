//! The workload `grpc fanout`: one channel, many Subscribe streams, a bounded number of messages under way.
//! Must not know: the server's insides.

use std::rc::Rc;

use clarion_wire::proto::clarion_v1::{Hello, PublishRequest, SubscribeRequest, subscribe_request};
use memchr::memmem::Finder;
use tokio::task::JoinSet;

use super::{
    super::{
        Bench, BenchError,
        meter::{Meter, Report},
        payload::{TEXT_MARK, find_stamp},
        tally::Tally,
    },
    PUBLISH, SUBSCRIBE, Target,
    client::{Connection, Hear, Method, Say},
    joined, text,
};

/// What to fan out.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Streams that read the channel.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    streams: u64,
    /// Connections that the streams share.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    /// Messages published.
    #[arg(long, default_value_t = 1000)]
    messages: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Messages published and not yet with every stream, and callers that publish them.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    in_flight: u64,
    /// The channel.
    #[arg(long, default_value = "topic:bench")]
    address: String,
}

struct Run {
    bench: Rc<Bench>,
    args: Args,
    publish: Method,
    tally: Tally,
}

/// Measures.
pub(super) async fn run(bench: &Rc<Bench>, target: &Target, args: Args) -> Result<(), BenchError> {
    let run = Rc::new(Run {
        bench: Rc::clone(bench),
        publish: target.method(PUBLISH)?,
        tally: Tally::new(args.in_flight, args.streams, args.messages, args.in_flight),
        args,
    });
    let connections = run.args.connections.min(run.args.streams);
    let mut readers = JoinSet::new();
    let subscribe = target.method(SUBSCRIBE)?;
    for stream in open(&run, &subscribe, connections).await? {
        readers.spawn_local(read(Rc::clone(&run), stream));
    }
    let publisher = Connection::open(bench.at).await?;
    let meter = Meter::start(bench.server.as_ref());
    let mut writers = JoinSet::new();
    for lane in 0..run.args.in_flight as u32 {
        writers.spawn_local(publish(Rc::clone(&run), publisher.clone(), lane));
    }
    let result = run.tally.settle(&mut writers).await;
    let report = run.tally.report(bench, meter, "grpc-fanout");
    run.tally.finish();
    while let Some(done) = readers.join_next().await {
        done.map_err(|e| BenchError::Other(e.to_string()))?;
    }
    result?;
    bench.tell(&Report { faults: run.tally.faults(), ..report });
    Ok(())
}

/// Opens the streams, some at a time; each has read its welcome.
async fn open(
    run: &Rc<Run>,
    subscribe: &Method,
    connections: u64,
) -> Result<Vec<(Say, Hear)>, BenchError> {
    let connections = Connection::open_many(run.bench.at, connections).await?;
    let hello = Hello { addresses: vec![run.args.address.clone()], ..Hello::default() };
    let hello = SubscribeRequest { request: Some(subscribe_request::Request::Hello(hello)) };
    let mut streams = Vec::new();
    let mut opening = JoinSet::new();
    for (n, connection) in (1..=run.args.streams).zip(connections.iter().cycle()) {
        let (mut connection, method) = (connection.clone(), subscribe.clone());
        let hello = hello.clone();
        opening.spawn_local(async move {
            let (say, mut hear) = connection.stream(&method, Some(&hello), false).await?;
            let mut welcomed = false;
            while !welcomed && hear.pump(&mut |_| welcomed = true).await? {}
            Ok((say, hear))
        });
        if opening.len() >= 64 || n == run.args.streams {
            while let Some(stream) = opening.join_next().await {
                streams.push(joined(stream)?);
            }
        }
    }
    Ok(streams)
}

async fn publish(run: Rc<Run>, mut connection: Connection, lane: u32) -> Result<(), BenchError> {
    while let Some(stamp) = run.tally.next(lane).await {
        let message = PublishRequest {
            address: run.args.address.clone(),
            payload: text(stamp, run.args.size).into(),
            ..PublishRequest::default()
        };
        connection.call(&run.publish, &message).await?;
    }
    Ok(())
}

async fn read(run: Rc<Run>, (_say, mut hear): (Say, Hear)) {
    let finder = Finder::new(TEXT_MARK);
    let mut lanes = run.tally.lanes();
    let finished = run.tally.finished();
    tokio::pin!(finished);
    loop {
        let mut take = |message: &[u8]| {
            if let Some(stamp) = find_stamp(&finder, message) {
                run.tally.take(&run.bench.progress, &mut lanes, stamp);
            }
        };
        let pumped = tokio::select! {
            biased;
            pumped = hear.pump(&mut take) => pumped,
            () = &mut finished => break,
        };
        if !matches!(pumped, Ok(true)) {
            // What it did not get shows as lost.
            finished.await;
            break;
        }
    }
    run.tally.settle_account(&lanes);
}
