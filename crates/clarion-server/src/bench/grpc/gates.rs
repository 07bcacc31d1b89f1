//! The workload `grpc gates`: mikudos producers push to channels, gates answer RECEIVED to everything.
//! Must not know: the server's insides.

use std::{rc::Rc, time::Duration};

use clarion_wire::proto::message_pusher::{
    InfoRequest, InfoResponse, Message as Pushed, MessageType, PushMessage, Response,
};
use memchr::memmem::Finder;
use prost::Message;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    super::{
        Bench, BenchError,
        meter::Meter,
        payload::{TEXT_MARK, find_stamp},
    },
    Target,
    client::{Connection, Hear, Method, Say},
    flow::Flow,
    new_name, text,
};

/// Between two looks at what the server says of its gates.
const LOOK: Duration = Duration::from_millis(5);
/// Most looks whether the gates are there, and whether all their answers have arrived.
const LOOKS_OPEN: u32 = 200;
const LOOKS_ANSWERED: u32 = 1000;

/// What to push.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Gates, a connection each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    gates: u64,
    /// Producers, a connection each.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    producers: u64,
    /// Pushes that one producer has under way.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    depth: u64,
    /// Channels that are pushed to.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    channels: u64,
    /// Messages in all.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Only for the gates that are there: nothing is stored.
    #[arg(long)]
    live: bool,
    /// Seconds that a stored push lives.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(i32).range(1..))]
    expire: i32,
    /// The group that the gates name; servers in mode group need it.
    #[arg(long, default_value = "bench")]
    group: String,
    /// The service's name; gates in the field also know message_pusher.Message_pusher.
    #[arg(long, default_value = "message_pusher.MessagePusher")]
    service: String,
}

struct Run {
    bench: Rc<Bench>,
    flow: Flow,
}

type Tasks = JoinSet<Result<(), BenchError>>;

/// Measures.
pub(super) async fn run(bench: &Rc<Bench>, target: &Target, args: Args) -> Result<(), BenchError> {
    let lanes = args.producers * args.depth;
    let slots = args.channels.div_ceil(lanes);
    let flow = Flow::new(lanes, slots, args.messages);
    let run = Rc::new(Run { bench: Rc::clone(bench), flow });
    let mut tasks = Tasks::new();
    let method = |name: &str| target.method(&format!("/{}/{name}", args.service));
    let gate_stream = method("GateStream")?.with("group", &args.group)?;
    for mut connection in Connection::open_many(bench.at, args.gates).await? {
        let (say, hear) = connection.stream(&gate_stream, None::<&Response>, false).await?;
        tasks.spawn_local(gate(Rc::clone(&run), say, hear));
    }
    let mut producers = Connection::open_many(bench.at, args.producers).await?;
    // A gate's stream is open before the gate is there, and what is live is only for those who are.
    let state_info = method("StateInfo")?;
    let gates = args.gates;
    wait(&mut producers[0], &state_info, LOOKS_OPEN, |state| state.gates >= gates).await;
    let meter = Meter::start(bench.server.as_ref());
    let (push, prefix) = (method("PushToChannel")?, new_name());
    for (lane, connection) in (0..lanes as u32).zip(producers.iter().cycle()) {
        let (run, push, connection) = (Rc::clone(&run), push.clone(), connection.clone());
        let (args, prefix) = (args.clone(), prefix.clone());
        tasks.spawn_local(async move {
            let request = |stamp| {
                let channel = u64::from(lane) + lanes * u64::from(run.flow.slot(stamp));
                PushMessage {
                    msg: text(stamp, args.size),
                    channel_id: format!("{prefix}-{}", channel % args.channels),
                    expire: if args.live { 0 } else { args.expire },
                }
            };
            run.flow.produce(connection, &push, lane, request).await
        });
    }
    run.flow.settle(&mut tasks).await?;
    wait(&mut producers[0], &state_info, LOOKS_ANSWERED, |state| state.pending == 0).await;
    let name = if args.live { "grpc-gates-live" } else { "grpc-gates" };
    let report = run.flow.report(bench, meter, name);
    run.flow.finish(&mut tasks).await?;
    bench.tell(&report);
    Ok(())
}

/// Waits until it holds of what the server says, for so many looks at most: an original may not say it.
async fn wait(
    connection: &mut Connection,
    state_info: &Method,
    looks: u32,
    holds: impl Fn(&InfoResponse) -> bool,
) {
    for _ in 0..looks {
        let Ok(answer) = connection.call(state_info, &InfoRequest {}).await else { return };
        if InfoResponse::decode(answer).is_ok_and(|state| holds(&state)) {
            return;
        }
        sleep_until(Instant::now() + LOOK).await;
    }
}

async fn gate(run: Rc<Run>, mut say: Say, mut hear: Hear) -> Result<(), BenchError> {
    let finder = Finder::new(TEXT_MARK);
    let mut order = run.flow.order();
    let finished = run.flow.finished();
    tokio::pin!(finished);
    loop {
        let mut take = |message: &[u8]| {
            let Ok(message) = Pushed::decode(message) else { return };
            if let Some(stamp) = find_stamp(&finder, message.msg.as_bytes()) {
                run.flow.take(&run.bench, &mut order, stamp);
            }
            say.push(&received(message));
        };
        tokio::select! {
            biased;
            more = hear.pump(&mut take) => if !more? {
                return Err(BenchError::Other("the server ended a gate's stream".into()));
            },
            () = &mut finished => return Ok(()),
        }
        say.flush()?;
    }
}

/// What a gate answers to a message.
fn received(message: Pushed) -> Response {
    Response {
        // What the gates themselves do: their answers have 32 bits for it.
        msg_id: message.msg_id as u32,
        channel_id: message.channel_id,
        message_type: MessageType::Received.into(),
        ..Response::default()
    }
}
