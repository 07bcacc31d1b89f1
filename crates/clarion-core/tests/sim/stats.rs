//! How often things happened: a run in which nothing went wrong shows nothing.

macro_rules! stats {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Stats {
            $(pub(crate) $name: u64,)*
        }

        impl Stats {
            fn all(&mut self) -> Vec<&mut u64> {
                vec![$(&mut self.$name),*]
            }
        }
    };
}

stats! {
    published,
    delivered,
    gaps,
    epoch_gaps,
    attaches,
    crashes,
    stops,
    lost_histories,
    refused,
    unknown,
    hints_lost,
    pages,
    shared_reads,
    numbered,
    given_again,
    handed_out,
    lapsed,
    nacked,
    late_nacks,
    died,
    written,
    settled,
    given_back,
    gate_pushes,
    gate_received,
    gate_unreceived,
    gate_strays,
    gate_requests,
    gate_again,
    gate_parked,
    gate_idle,
    expired,
    queue_full,
    peer_published,
    peer_live,
    peer_given,
    peer_elsewhere,
    peer_held_dropped,
    peer_again,
    peer_released_again,
    peer_closed,
    peer_read_again,
    peer_attaches,
    peer_clean_starts,
    peer_takeovers,
    peer_breaks,
    peer_ends,
    peer_crashes,
    peer_stops,
    peer_erased,
    peer_refused,
    peer_subscribed,
    peer_changed,
    peer_lowered,
    peer_raised,
    peer_revived,
    peer_tails,
    peer_spent,
    peer_later,
    peer_inbound_again,
    peer_window_commits,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        let mut other = Self { ..*other };
        for (sum, n) in self.all().into_iter().zip(other.all()) {
            *sum += *n;
        }
    }

    /// Every kind of event that the world knows took place.
    pub(crate) fn check_everything_happened(&mut self) {
        let text = format!("{self:?}");
        assert!(self.all().into_iter().all(|n| *n > 0), "something never happened: {text}");
    }
}
