//! Recorded streams, read whole, cut in two at every byte, byte by byte, and with other line endings: always the same
//! events. The streams are written after the vendors' documentation and after what servers are known to make of it.

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use shared::adapters::models::wire::{self, Protocol};
use shared::adapters::models::{anthropic, openai};
use shared::bounds::ANSWER_WIRE_BYTES;
use shared::model::{ModelEvent, ModelFailure, StopReason};
use std::path::Path;

type Events = Vec<Result<ModelEvent, (ModelFailure, String)>>;

/// The events of a stream that comes in these slices; a failure as its kind and what the log sees.
fn read<P: Protocol + Default>(slices: Vec<Bytes>) -> Events {
    let events = wire::events(stream::iter(slices).map(Ok).boxed(), P::default());
    let events = events.map(|event| event.map_err(|fault| (fault.failure, fault.log)));
    events.collect().now_or_never().expect("all bytes are there")
}

/// One event per line.
fn lines(events: &Events) -> String {
    let line = |event: &Result<_, _>| match event {
        Ok(event) => format!("{event:?}"),
        Err((failure, log)) => format!("failed: {failure:?}: {log}"),
    };
    events.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn replay<P: Protocol + Default>(provider: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("providers/transcripts").join(provider);
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let bytes = Bytes::from(std::fs::read(&file).unwrap());
        let whole = read::<P>(vec![bytes.clone()]);
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(format!("{provider}-{name}"), lines(&whole));
        });
        for at in 0..bytes.len() {
            let cut = read::<P>(vec![bytes.slice(..at), bytes.slice(at..)]);
            assert_eq!(cut, whole, "{provider}/{name} cut at byte {at}");
        }
        let single = (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect();
        assert_eq!(read::<P>(single), whole, "{provider}/{name} byte by byte");
        for ending in ["\r\n", "\r"] {
            let other = Bytes::from(std::str::from_utf8(&bytes).unwrap().replace('\n', ending));
            assert_eq!(read::<P>(vec![other.clone()]), whole, "{provider}/{name} with {ending:?}");
            let single = (0..other.len()).map(|at| other.slice(at..=at)).collect();
            assert_eq!(read::<P>(single), whole, "{provider}/{name} with {ending:?}, byte by byte");
        }
    }
}

#[test]
fn an_anthropic_stream_is_read_the_same_however_it_is_cut() {
    replay::<anthropic::answer::Answer>("anthropic");
}

#[test]
fn an_openai_stream_is_read_the_same_however_it_is_cut() {
    replay::<openai::answer::Answer>("openai");
}

/// Everything that a stream may hold is cut short somewhere: a stream without its end is never a success.
#[test]
fn a_stream_cut_short_anywhere_never_looks_complete() {
    fn check<P: Protocol + Default>(file: &str, complete_from: impl Fn(&str) -> usize) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("providers/transcripts").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let complete_from = complete_from(&text);
        for (end, _) in text.char_indices() {
            let events = read::<P>(vec![Bytes::copy_from_slice(&text.as_bytes()[..end])]);
            let succeeded = matches!(events.last(), Some(Ok(ModelEvent::Stop(_))));
            assert_eq!(succeeded, end >= complete_from, "{file} up to byte {end}: {events:?}");
        }
    }
    // With the line feed that ends the last event.
    check::<anthropic::answer::Answer>("anthropic/tools.sse", str::len);
    // Complete with the event that holds the reason, whatever follows.
    check::<openai::answer::Answer>("openai/tools.sse", |text| {
        let reason = text.find(r#""finish_reason":"tool_calls""#).unwrap();
        reason + text[reason..].find("\n\n").unwrap() + 2
    });
}

#[test]
fn an_answer_that_is_longer_than_any_model_writes_is_cut_at_its_length() {
    let silence = Bytes::from(format!(": {}\n\n", "x".repeat(1024 * 1024)));
    let text = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"so far\"}}]}\n\n");
    let slices =
        std::iter::once(text).chain(std::iter::repeat_n(silence, ANSWER_WIRE_BYTES / (1024 * 1024) + 5));
    let events = read::<openai::answer::Answer>(slices.collect());
    assert_eq!(events, [Ok(ModelEvent::Text("so far".to_owned())), Ok(ModelEvent::Stop(StopReason::Length))]);
}
