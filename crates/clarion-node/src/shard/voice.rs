//! How a session's dialect writes to it: an outlet, or a peer, which is an outlet too.

use clarion_core::port::outlet::{Given, Outlet};
use clarion_core::port::peer::{Peer, Taking};
use std::ops::{Deref, DerefMut};

/// See the module.
pub(super) enum Voice {
    Outlet(Box<dyn Outlet>),
    Peer(Box<dyn Peer>),
}

impl Voice {
    /// Who talks both ways.
    pub(super) fn peer(&mut self) -> Option<&mut dyn Peer> {
        match self {
            Self::Outlet(_) => None,
            Self::Peer(peer) => Some(&mut **peer),
        }
    }

    /// Whether the client may and can have a delivery.
    pub(super) fn takes(&self, given: Given<'_>, frame_len: usize) -> Taking {
        match self {
            Self::Outlet(_) => Taking::Yes,
            Self::Peer(peer) => peer.takes(given, frame_len),
        }
    }

    /// Whether deliveries of subscriptions to channels use up what the client has granted.
    pub(super) fn uses_credit(&self) -> bool {
        match self {
            Self::Outlet(_) => true,
            Self::Peer(peer) => peer.feed_is_numbered(),
        }
    }
}

impl Deref for Voice {
    type Target = dyn Outlet;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Outlet(outlet) => &**outlet,
            Self::Peer(peer) => &**peer,
        }
    }
}

impl DerefMut for Voice {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::Outlet(outlet) => &mut **outlet,
            Self::Peer(peer) => &mut **peer,
        }
    }
}
