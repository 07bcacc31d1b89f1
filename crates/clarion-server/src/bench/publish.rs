//! The workload `publish`: as fast as the answers come, one request under way per connection.
//! Must not know: who reads.

use std::{ops::Range, rc::Rc};

use tokio::{task::JoinSet, time::Instant};

use super::{
    Bench, BenchError,
    http::Poster,
    meter::Meter,
    payload::put_message,
    posting::{Load, Posting},
};

/// What to publish, and how.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Connections, each with one request under way.
    #[arg(long, visible_alias = "connections", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    callers: u64,
    #[command(flatten)]
    load: Load,
}

/// Measures.
pub(super) async fn run(bench: &Rc<Bench>, args: Args) -> Result<(), BenchError> {
    let path = if args.load.batch == 1 { "/api/v1/publish" } else { "/api/v1/publish/batch" };
    let mut posters = Vec::new();
    for _ in 0..args.callers {
        posters.push(Poster::connect(bench.at, &bench.head, path).await?);
    }
    let posting = Rc::new(Posting::new(bench, args.load));
    let meter = Meter::start(bench.server.as_ref());
    let mut callers = JoinSet::new();
    for poster in posters {
        callers.spawn_local(call(Rc::clone(&posting), poster));
    }
    while let Some(done) = callers.join_next().await {
        done.map_err(|e| BenchError::Other(e.to_string()))??;
    }
    posting.tell(meter, if posting.load.live { "publish-live" } else { "publish" });
    Ok(())
}

async fn call(posting: Rc<Posting>, mut poster: Poster) -> Result<(), BenchError> {
    let refused = memchr::memmem::Finder::new(b"\"error\":");
    let mut body = Vec::new();
    while let Some(messages) = posting.take() {
        put_request(&posting, &mut body, messages.clone());
        let asked = Instant::now();
        let answer = poster.exchange(&body).await?;
        answer.fatal()?;
        let failed = match answer.status {
            200 => refused.find_iter(answer.body).count() as u64,
            _ => messages.end - messages.start,
        };
        posting.done(messages, failed, asked);
    }
    Ok(())
}

fn put_request(posting: &Posting, body: &mut Vec<u8>, messages: Range<u64>) {
    let load = &posting.load;
    body.clear();
    if load.batch > 1 {
        body.extend_from_slice(b"{\"messages\":[");
    }
    for (i, n) in messages.enumerate() {
        if i > 0 {
            body.push(b',');
        }
        let (address, stamp) = posting.message(n);
        put_message(body, &address, stamp, load.size, load.live);
    }
    if load.batch > 1 {
        body.extend_from_slice(b"]}");
    }
}
