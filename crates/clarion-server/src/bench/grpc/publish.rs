//! The workload `grpc publish`: callers that share a few connections, one request of each under way.
//! Must not know: who reads.

use std::rc::Rc;

use clarion_wire::proto::clarion_v1::{
    PublishBatchRequest, PublishBatchResponse, PublishRequest, publish_result,
};
use prost::Message;
use tokio::{task::JoinSet, time::Instant};

use super::{
    super::{
        Bench, BenchError,
        meter::Meter,
        posting::{Load, Posting},
    },
    PUBLISH, PUBLISH_BATCH, Target,
    client::{Connection, Method},
    joined, text,
};

/// What to publish, and how.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Callers, each with one request under way.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    callers: u64,
    /// Connections that they share.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    #[command(flatten)]
    load: Load,
}

/// Measures.
pub(super) async fn run(bench: &Rc<Bench>, target: &Target, args: Args) -> Result<(), BenchError> {
    let connections = Connection::open_many(bench.at, args.connections.min(args.callers)).await?;
    let method = target.method(if args.load.batch == 1 { PUBLISH } else { PUBLISH_BATCH })?;
    let posting = Rc::new(Posting::new(bench, args.load));
    let meter = Meter::start(bench.server.as_ref());
    let mut callers = JoinSet::new();
    for connection in connections.iter().cycle().take(args.callers as usize) {
        callers.spawn_local(call(Rc::clone(&posting), connection.clone(), method.clone()));
    }
    while let Some(done) = callers.join_next().await {
        joined(done)?;
    }
    posting.tell(meter, if posting.load.live { "grpc-publish-live" } else { "grpc-publish" });
    Ok(())
}

async fn call(
    posting: Rc<Posting>,
    mut connection: Connection,
    method: Method,
) -> Result<(), BenchError> {
    while let Some(messages) = posting.take() {
        let asked = Instant::now();
        let answer = if posting.load.batch == 1 {
            connection.call(&method, &request(&posting, messages.start)).await.map(|_| 0)
        } else {
            let messages = messages.clone().map(|n| request(&posting, n)).collect();
            let answer = connection.call(&method, &PublishBatchRequest { messages }).await;
            answer.and_then(|answer| refused_of(&answer))
        };
        let failed = match answer {
            Err(error) if !error.is_passing() => return Err(error),
            Err(_) => messages.end - messages.start,
            Ok(failed) => failed,
        };
        posting.done(messages, failed, asked);
    }
    Ok(())
}

/// How many of a batch were not taken.
fn refused_of(answer: &[u8]) -> Result<u64, BenchError> {
    let answer = PublishBatchResponse::decode(answer)
        .map_err(|e| BenchError::Other(format!("the answer: {e}")))?;
    let taken = |result: &Option<_>| matches!(result, Some(publish_result::Result::Taken(_)));
    Ok(answer.results.iter().filter(|one| !taken(&one.result)).count() as u64)
}

fn request(posting: &Posting, n: u64) -> PublishRequest {
    let (address, stamp) = posting.message(n);
    PublishRequest {
        address,
        payload: text(stamp, posting.load.size).into(),
        expire: posting.load.live.then_some(0),
        ..PublishRequest::default()
    }
}
