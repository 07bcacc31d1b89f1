//! One layer within another: WebSocket frames within TLS.
//!
//! Must not know: which layers they are.

use clarion_core::port::layer::{Layer, LayerError, Opened};

/// `Outer` stands at the socket, `Inner` at the session.
#[derive(Debug)]
pub struct Stack<Outer, Inner> {
    outer: Outer,
    inner: Inner,
}

impl<Outer: Layer, Inner: Layer> Stack<Outer, Inner> {
    /// Puts the inner one into the outer one.
    pub fn new(outer: Outer, inner: Inner) -> Self {
        Self { outer, inner }
    }
}

impl<Outer: Layer, Inner: Layer> Layer for Stack<Outer, Inner> {
    fn open(
        &mut self,
        raw: &[u8],
        plain: &mut Vec<u8>,
        raw_out: &mut Vec<u8>,
    ) -> Result<Opened, LayerError> {
        let (mut between, mut answer) = (Vec::new(), Vec::new());
        // What the outer one made plain before it failed counts.
        let outer = self.outer.open(raw, &mut between, raw_out);
        let inner = self.inner.open(&between, plain, &mut answer);
        if !answer.is_empty() && outer.is_ok() {
            self.outer.seal(&answer, raw_out)?;
        }
        match (outer?, inner?) {
            (Opened::More, Opened::More) => Ok(Opened::More),
            _ => Ok(Opened::End),
        }
    }

    fn seal(&mut self, plain: &[u8], raw_out: &mut Vec<u8>) -> Result<(), LayerError> {
        let mut between = Vec::new();
        self.inner.seal(plain, &mut between)?;
        self.outer.seal(&between, raw_out)
    }

    fn close(&mut self, raw_out: &mut Vec<u8>) {
        let mut between = Vec::new();
        self.inner.close(&mut between);
        // The connection ends either way.
        let _ = self.outer.seal(&between, raw_out);
        self.outer.close(raw_out);
    }
}
