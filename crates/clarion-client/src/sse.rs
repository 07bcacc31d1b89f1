//! An incremental parser of `text/event-stream` after the WHATWG standard, without I/O.
//!
//! Invariants: the events that come out do not depend on how the bytes were cut; an event that the stream's end cuts off
//! is dropped, its `id` too, so a reader never acks what it has not seen whole; memory is bounded by the limit given.
//! Must not know: what the events mean.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `event` field, `message` when there was none.
    pub name: String,
    /// The `data` lines, joined by newlines.
    pub data: String,
    /// The `id` field of this very event; what earlier events left behind is [`Parser::last_event_id`].
    pub id: Option<String>,
}

/// An event is larger than the limit; the stream cannot be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {limit} bytes")]
pub struct TooLarge {
    /// The limit.
    pub limit: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    line: Vec<u8>,
    first_line: bool,
    after_cr: bool,
    name: String,
    data: String,
    has_data: bool,
    id: Option<String>,
    last_event_id: Option<String>,
    retry_ms: Option<u64>,
}

impl Parser {
    /// One for a stream whose events, and single lines, have at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            first_line: true,
            after_cr: false,
            name: String::new(),
            data: String::new(),
            has_data: false,
            id: None,
            last_event_id: None,
            retry_ms: None,
        }
    }

    /// What a reconnect sends as `Last-Event-ID`: the last `id` of a complete block, whether or not that had data.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// The last `retry` the server asked for.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Takes bytes and appends the events that they complete to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut impl Extend<Event>) -> Result<(), TooLarge> {
        if self.after_cr && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
            self.after_cr = false;
        }
        while !bytes.is_empty() {
            let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                self.after_cr = false;
                return self.grow(bytes);
            };
            self.grow(&bytes[..end])?;
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if self.after_cr && bytes.first() == Some(&b'\n') {
                bytes = &bytes[1..];
                self.after_cr = false;
            }
            let line = std::mem::take(&mut self.line);
            self.line(&line, out);
            self.line = line;
            self.line.clear();
        }
        Ok(())
    }

    fn grow(&mut self, part: &[u8]) -> Result<(), TooLarge> {
        // What is kept beside the data counts too, so that no field can grow past the limit.
        let kept = self.data.len() + self.name.len() + self.id.as_ref().map_or(0, String::len);
        if self.line.len() + part.len() + kept > self.limit {
            return Err(TooLarge { limit: self.limit });
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn line(&mut self, line: &[u8], out: &mut impl Extend<Event>) {
        let line = match line.strip_prefix("\u{feff}".as_bytes()) {
            Some(rest) if self.first_line => rest,
            _ => line,
        };
        self.first_line = false;
        if line.is_empty() {
            self.dispatch(out);
            return;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match field {
            b"event" => value.as_ref().clone_into(&mut self.name),
            b"data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(&value);
                self.has_data = true;
            }
            b"id" if !value.contains('\0') => self.id = Some(value.into_owned()),
            b"retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok().or(self.retry_ms);
            }
            // A comment has an empty field name.
            _ => {}
        }
    }

    fn dispatch(&mut self, out: &mut impl Extend<Event>) {
        let id = self.id.take();
        if let Some(id) = &id {
            self.last_event_id = Some(id.clone());
        }
        let name = std::mem::take(&mut self.name);
        if !std::mem::take(&mut self.has_data) {
            return;
        }
        let name = if name.is_empty() { "message".to_owned() } else { name };
        out.extend([Event { name, data: std::mem::take(&mut self.data), id }]);
    }
}

#[cfg(test)]
mod tests;
