//! Numbered windows: numbers that a protocol shows its client for what is unacked (design §1.8).
