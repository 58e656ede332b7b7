//! Server-sent events, read from bytes that come in any slices.
//!
//! Own code, because the crates looked at do not survive what a wrong base URL may answer: one panics on a byte order
//! mark, another fails on fields it does not know, and neither bounds the memory of one event. Follows the parsing
//! rules of the HTML standard; `id` and `retry` are read over, since a model's answer is never resumed.

use crate::bounds::VENDOR_EVENT_BYTES;

/// One event with data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// Its `event` field; empty if there was none.
    pub name: String,
    /// Its `data` lines, joined by line feeds.
    pub data: String,
}

/// Why bytes are no event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line is not UTF-8.
    #[error("an event is not UTF-8")]
    NotUtf8,
    /// One event is longer than [`VENDOR_EVENT_BYTES`].
    #[error("an event is longer than {VENDOR_EVENT_BYTES} bytes")]
    TooLong,
}

/// Reads events from slices of bytes.
#[derive(Debug, Default)]
pub struct SseReader {
    /// The line that has not ended yet.
    line: Vec<u8>,
    event: SseEvent,
    has_data: bool,
    /// The last byte was a carriage return: a line feed right after it belongs to it.
    after_return: bool,
    /// The first line, which may carry a byte order mark, is behind us.
    begun: bool,
}

impl SseReader {
    /// Reads on; events that are complete now go to `out`. What an unfinished event holds at the end of the bytes is
    /// dropped by never being completed, as the standard wants.
    ///
    /// # Errors
    /// The bytes are no event stream. Nothing sensible can be read afterwards.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut impl Extend<SseEvent>) -> Result<(), SseError> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.keep(bytes)?;
                return Ok(());
            };
            self.after_return = bytes[end] == b'\r';
            let (rest_of_line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.line.is_empty() {
                self.line_ended(rest_of_line, out)?;
            } else {
                self.keep(rest_of_line)?;
                let mut line = std::mem::take(&mut self.line);
                self.line_ended(&line, out)?;
                line.clear();
                self.line = line;
            }
            bytes = rest;
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        if self.line.len() + self.event.data.len() + bytes.len() > VENDOR_EVENT_BYTES {
            return Err(SseError::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn line_ended(&mut self, line: &[u8], out: &mut impl Extend<SseEvent>) -> Result<(), SseError> {
        let line = if std::mem::replace(&mut self.begun, true) {
            line
        } else {
            line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
        };
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                out.extend([event]);
            }
            return Ok(());
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        if !matches!(field, b"data" | b"event") {
            return Ok(());
        }
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let value = std::str::from_utf8(value).map_err(|_| SseError::NotUtf8)?;
        if field == b"event" {
            value.clone_into(&mut self.event.name);
            return Ok(());
        }
        if self.event.data.len() + value.len() >= VENDOR_EVENT_BYTES {
            return Err(SseError::TooLong);
        }
        if std::mem::replace(&mut self.has_data, true) {
            self.event.data.push('\n');
        }
        self.event.data.push_str(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(name: &str, data: &str) -> SseEvent {
        SseEvent { name: name.to_owned(), data: data.to_owned() }
    }

    fn read(slices: &[&[u8]]) -> Result<Vec<SseEvent>, SseError> {
        let mut reader = SseReader::default();
        let mut out = Vec::new();
        for slice in slices {
            reader.push(slice, &mut out)?;
        }
        Ok(out)
    }

    #[test]
    fn fields_comments_and_unknown_fields_are_read_as_the_standard_says() {
        let text = ": hello\n\nevent: a\ndata: one\ndata:two\nid: 7\nretry: 3\nnonsense\nother: x\n\ndata\n\nevent: gone\n\ndata:  kept\n\ndata: unfinished";
        assert_eq!(
            read(&[text.as_bytes()]),
            Ok(vec![event("a", "one\ntwo"), event("", ""), event("", " kept")])
        );
    }

    #[test]
    fn every_line_ending_and_a_byte_order_mark_give_the_same_events() {
        let expected = Ok(vec![event("a", "ü"), event("", "2")]);
        for ending in ["\n", "\r\n", "\r"] {
            let text = "\u{feff}event: a\ndata: ü\n\ndata: 2\n\n".replace('\n', ending);
            assert_eq!(read(&[text.as_bytes()]), expected, "{ending:?} at once");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes), expected, "{ending:?} byte by byte");
        }
    }

    #[test]
    fn an_event_beyond_all_bounds_is_refused_not_stored() {
        let slice = vec![b'x'; 1024 * 1024];
        let mut reader = SseReader::default();
        let mut out = Vec::new();
        let verdict = (0..9).try_for_each(|_| reader.push(&slice, &mut out));
        assert_eq!(verdict, Err(SseError::TooLong));
        let mut reader = SseReader::default();
        let line = [b"data: ", &slice[..], b"\n"].concat();
        assert_eq!((0..9).try_for_each(|_| reader.push(&line, &mut out)), Err(SseError::TooLong));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(read(&[b"data: \xff\n\n"]), Err(SseError::NotUtf8));
    }

    proptest! {
        #[test]
        fn slicing_never_changes_what_is_read(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), any::<u8>()], 0..60),
            cut in 0usize..60,
        ) {
            let text = [b"data: a\r\n", &bytes[..]].concat();
            let cut = cut.min(text.len());
            prop_assert_eq!(read(&[&text]), read(&[&text[..cut], &text[cut..]]));
        }
    }
}
