//! The room for the bodies of a listener's requests, all together.
//!
//! Invariant: who finds no room is refused at once; waiting would keep its bytes, too. Must not know: protocols.

use clarion_core::{Code, Refusal};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that are counted as one.
const UNIT: usize = 1 << 10;

/// The room for the bodies of a listener's requests.
pub(crate) struct Bodies(Arc<Semaphore>);

impl Bodies {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS))))
    }

    /// Grows what a body holds to so many bytes.
    pub(crate) fn grow(
        &self,
        held: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), Refusal> {
        let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(UNIT).saturating_sub(have);
        if more == 0 {
            return Ok(());
        }
        let room = u32::try_from(more).ok().and_then(|more| {
            // Waiting for others' bodies would keep this one's bytes, too.
            self.0.clone().try_acquire_many_owned(more).ok()
        });
        let room = room.ok_or_else(|| {
            Refusal::new(Code::Overloaded, "too many bytes of requests are under way")
        })?;
        match held {
            Some(held) => OwnedSemaphorePermit::merge(held, room),
            None => *held = Some(room),
        }
        Ok(())
    }
}
