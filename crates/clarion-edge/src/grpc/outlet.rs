//! The outlet of a Subscribe stream: frames of `clarion.v1.SubscribeResponse`.

use super::response::Ending;
use clarion_core::port::outlet::{CloseReason, Given, Outlet};
use clarion_core::subscription::Gap;
use clarion_core::{Address, Code, Epoch, Message, Refusal};
use clarion_wire::grpc;
use tonic::Status;

/// What a client that is sent away may read in its trailers (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The status of a stream that the node ends.
pub(crate) fn ended(reason: CloseReason, retry_ms: u64) -> Status {
    let mut status = match reason {
        CloseReason::Finished => return Status::ok(""),
        CloseReason::TooManyNacks => {
            let detail = "more messages were given back and wait for another time than may";
            return super::refused(&Refusal::new(Code::Overloaded, detail));
        }
        CloseReason::Shutdown => super::refused(&Code::ShuttingDown.into()),
        CloseReason::Store => super::refused(&Code::StoreUnavailable.into()),
        CloseReason::TooSlow => Status::unavailable("the client took nothing for too long"),
        CloseReason::Kicked => Status::unavailable("an administrator ended the stream"),
        CloseReason::TakenOver => Status::unavailable("another stream took its place"),
        CloseReason::KeepAlive => Status::unavailable("the client was silent for too long"),
        CloseReason::Expired => super::refused(&Code::Unauthenticated.into()),
        CloseReason::Forbidden => super::refused(&Code::Forbidden.into()),
    };
    status.metadata_mut().insert(PUSHBACK, retry_ms.into());
    status
}

/// See the module.
pub(super) struct SubscribeOutlet {
    pub(super) ending: Ending,
}

impl Outlet for SubscribeOutlet {
    fn format(&self) -> u32 {
        1
    }

    fn dialect(&self) -> &'static str {
        "grpc"
    }

    fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        grpc::message(message, out);
    }

    fn before(&mut self, given: Given<'_>, frame_len: usize, out: &mut Vec<u8>) {
        grpc::delivery_head(given.attempt, frame_len, out);
    }

    fn behind(&mut self, _given: Given<'_>, _frame_len: usize, _out: &mut Vec<u8>) {}

    fn open(&mut self, out: &mut Vec<u8>) {
        grpc::welcome(out);
    }

    fn gap(&mut self, channel: &Address, epoch: Epoch, gap: Gap, out: &mut Vec<u8>) {
        grpc::gap(channel, epoch, gap, out);
    }

    fn acks_stored(&mut self, confirm: u64, out: &mut Vec<u8>) {
        grpc::ack_stored(confirm, out);
    }

    // HTTP/2 pings see to it.
    fn heartbeat(&mut self, _out: &mut Vec<u8>) {}

    fn close(&mut self, reason: CloseReason, retry_ms: u64, out: &mut Vec<u8>) {
        if reason != CloseReason::Finished {
            grpc::close(reason.name(), retry_ms, out);
        }
        self.ending.set(ended(reason, retry_ms));
    }
}
