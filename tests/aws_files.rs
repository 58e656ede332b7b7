//! Agents' files on AWS: what they write lies in a bucket of S3 (emulated), over the layer that they were deployed with.
//!
//! What every adapter promises is in `conformance`.

#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::IntoResponse;
use harness::files::{Bucket, Owner, Place};
use harness::lambda::serve;
use shared::files::{Entry, FileError, FilePath, Files, Listing, TargetPath};
use shared::quote::quoted;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

async fn read(files: &Arc<dyn Files>, owner: &Owner, path: &str) -> Result<String, FileError> {
    let part = files.read(owner.files(), &FilePath::new(path)?, 0, 1_000).await?;
    Ok(String::from_utf8(part.bytes).expect("a text"))
}

async fn write(files: &Arc<dyn Files>, owner: &Owner, path: &str, content: &str) -> Result<bool, FileError> {
    files.write(owner.files(), &TargetPath::new(path)?, content.into(), 7).await
}

async fn append(files: &Arc<dyn Files>, owner: &Owner, path: &str, content: &str) -> Result<u64, FileError> {
    files.append(owner.files(), &TargetPath::new(path)?, content.into()).await
}

async fn list(files: &Arc<dyn Files>, owner: &Owner, path: &str) -> Result<Listing, FileError> {
    files.list(owner.files(), &FilePath::new(path)?, 1_000).await
}

fn file(bytes: u64) -> Entry {
    Entry::File { bytes }
}

fn objects<const N: usize>(expected: [(&str, &str); N]) -> BTreeMap<String, String> {
    expected.map(|(key, content)| (key.to_owned(), content.to_owned())).into()
}

/// An agent whose layer holds instructions, `notes/a.txt` and `notes/b.txt`; and everything that is to stay as it is.
fn deployed(place: &Place) -> Owner {
    let owner = place.of("mail");
    fs::create_dir_all(owner.folder().join("notes")).expect("a folder");
    fs::write(owner.folder().join("AGENTS.md"), "Be brief.").expect("a file");
    fs::write(owner.folder().join("notes/a.txt"), "a of the layer\n").expect("a file");
    fs::write(owner.folder().join("notes/b.txt"), "b of the layer\n").expect("a file");
    owner
}

fn assert_layer_is_untouched(owner: &Owner) {
    let names = |folder: &str| {
        let entries = fs::read_dir(owner.folder().join(folder)).expect("a folder");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(
        (names("."), names("notes")),
        (vec!["AGENTS.md".into(), "notes".into()], vec!["a.txt".into(), "b.txt".into()])
    );
    for (name, content) in [("a.txt", "a of the layer\n"), ("b.txt", "b of the layer\n")] {
        let found = fs::read_to_string(owner.folder().join("notes").join(name)).expect("a file");
        assert_eq!(found, content);
    }
}

#[tokio::test]
async fn what_an_agent_writes_hides_the_layers_file_and_changes_nothing_there() {
    let (place, bucket) = Place::in_bucket().await;
    let (files, owner) = (&place.files, deployed(&place));
    assert_eq!(read(files, &owner, "notes/a.txt").await.expect("the layer's"), "a of the layer\n");
    assert!(write(files, &owner, "notes/a.txt", "mine").await.expect("a write"), "it replaced the layer's");
    assert!(!write(files, &owner, "notes/c.txt", "new").await.expect("a write"));
    assert_eq!(append(files, &owner, "notes/b.txt", "and mine\n").await.expect("an append"), 24);
    assert_eq!(read(files, &owner, "notes/a.txt").await.expect("the agent's"), "mine");
    assert_eq!(read(files, &owner, "notes/b.txt").await.expect("both"), "b of the layer\nand mine\n");
    let expected = objects([
        ("agents/main/mail/notes/a.txt", "mine"),
        ("agents/main/mail/notes/b.txt", "b of the layer\nand mine\n"),
        ("agents/main/mail/notes/c.txt", "new"),
    ]);
    assert_eq!(bucket.objects().await, expected);
    assert_layer_is_untouched(&owner);
}

#[tokio::test]
async fn a_listing_names_each_file_of_bucket_and_layer_once() {
    let (place, _bucket) = Place::in_bucket().await;
    let (files, owner) = (&place.files, deployed(&place));
    write(files, &owner, "notes/a.txt", "mine").await.expect("a write");
    write(files, &owner, "notes/0.txt", "new").await.expect("a write");
    write(files, &owner, "mine/0.txt", "new").await.expect("a write");
    let root = list(files, &owner, ".").await.expect("a folder");
    let expected = [("AGENTS.md", file(9)), ("mine", Entry::Folder), ("notes", Entry::Folder)];
    assert_eq!(root.entries, expected.map(|(name, entry)| (name.to_owned(), entry)).into());
    assert_eq!(root.total, 3);
    let notes = list(files, &owner, "notes").await.expect("a folder");
    let expected = [("0.txt", file(3)), ("a.txt", file(4)), ("b.txt", file(15))];
    assert_eq!(notes.entries, expected.map(|(name, entry)| (name.to_owned(), entry)).into());
    assert_eq!(notes.total, 3);
}

#[tokio::test]
async fn instructions_are_the_layers_alone_whatever_the_bucket_holds() {
    let (place, bucket) = Place::in_bucket().await;
    let (files, owner) = (&place.files, deployed(&place));
    for path in ["AGENTS.md", "soul.md", "notes/MEMORY.md"] {
        bucket.put(&format!("agents/main/mail/{path}"), "Do as I say.").await;
        let refused = write(files, &owner, path, "Do as I say.").await.map_err(|error| error.to_string());
        let why = format!("`{path}` belongs to an agent's instructions; only a person may change it");
        assert_eq!(refused, Err(why));
    }
    assert_eq!(read(files, &owner, "AGENTS.md").await.expect("the layer's"), "Be brief.");
    for path in ["soul.md", "notes/MEMORY.md"] {
        let missing = read(files, &owner, path).await;
        assert!(matches!(missing, Err(FileError::Missing(_))), "{path}: {missing:?}");
    }
    let root = list(files, &owner, ".").await.expect("a folder").entries;
    assert_eq!(root.keys().collect::<Vec<_>>(), ["AGENTS.md", "notes"]);
    assert_eq!(root["AGENTS.md"], file(9));
    let notes = list(files, &owner, "notes").await.expect("a folder").entries;
    assert_eq!(notes.keys().collect::<Vec<_>>(), ["a.txt", "b.txt"]);
}

#[tokio::test]
async fn a_path_is_no_file_here_and_folder_there() {
    let (place, bucket) = Place::in_bucket().await;
    let (files, owner) = (&place.files, deployed(&place));
    for (path, why) in [
        ("notes", "is a folder; name a file"),
        ("notes/a.txt/x", "leads through something that is no folder"),
    ] {
        let why = Err(format!("`{path}` {why}"));
        assert_eq!(write(files, &owner, path, "x").await.map_err(|error| error.to_string()), why);
        assert_eq!(
            append(files, &owner, path, "x").await.map(|_| true).map_err(|error| error.to_string()),
            why
        );
    }
    assert_eq!(bucket.objects().await, BTreeMap::new());
    assert_layer_is_untouched(&owner);
}

#[tokio::test]
async fn what_can_be_no_key_is_refused() {
    let (place, bucket) = Place::in_bucket().await;
    let (files, owner) = (&place.files, place.of("mail"));
    // `agents/main/mail/` and the path are a byte too long together.
    let long = format!("{}x", "a/".repeat(503)) + "y";
    for (path, why) in
        [(long.as_str(), "has a name that is too long"), ("a\u{ffff}", "has a name that cannot be kept")]
    {
        let refused = write(files, &owner, path, "x").await.map_err(|error| error.to_string());
        assert_eq!(refused, Err(format!("`{}` {why}", quoted(path))));
    }
    assert!(!write(files, &owner, &long[..long.len() - 1], "x").await.expect("the longest path"));
    assert_eq!(bucket.objects().await.into_keys().map(|key| key.len()).collect::<Vec<_>>(), [1_024]);
}

#[tokio::test]
async fn a_full_folder_is_counted_page_by_page() {
    let (place, bucket) = Place::in_bucket().await;
    let owner = place.of("mail");
    let mut tasks = JoinSet::new();
    for worker in 0..5 {
        let bucket = bucket.clone();
        tasks.spawn(async move {
            for number in 0..201 {
                bucket.put(&format!("agents/main/mail/full/{worker}{number:03}"), "").await;
            }
        });
    }
    tasks.join_all().await;
    let listing = list(&place.files, &owner, "full").await.expect("a folder");
    assert_eq!((listing.total, listing.entries.len()), (1_005, 1_000));
    assert_eq!(listing.entries.into_keys().next_back().as_deref(), Some("4195"));
}

/// An S3 that has an object at every key and answers each write like this; and how many writes came.
async fn stand_in(status: StatusCode, code: &'static str) -> (Bucket, Arc<AtomicUsize>) {
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let answer = move |request: Request| {
        let answer = if request.method() == Method::PUT {
            counted.fetch_add(1, Ordering::Relaxed);
            (status, format!("<Error><Code>{code}</Code></Error>")).into_response()
        } else {
            ([(header::ETAG, "\"tag\"")], "before").into_response()
        };
        std::future::ready(answer)
    };
    // It ends with the test's runtime.
    let (endpoint, _) = serve(&TaskTracker::new(), Router::new().fallback(answer)).await;
    (Bucket::at(&endpoint, "files"), writes)
}

#[tokio::test]
async fn an_append_of_which_nobody_knows_whether_it_was_made_is_not_made_again() {
    let place = Place::in_folders();
    let (bucket, writes) = stand_in(StatusCode::INTERNAL_SERVER_ERROR, "InternalError").await;
    let failed = append(&bucket.files(), &place.of("mail"), "log.txt", "x").await;
    let told = failed.map_err(|error| error.to_string());
    let expected = "your files cannot be reached right now; whether the text was added is not known: read the file before \
                    you try again";
    assert_eq!(told, Err(expected.to_owned()));
    assert_eq!(writes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_append_that_others_always_overtake_gives_up() {
    let place = Place::in_folders();
    let (bucket, writes) = stand_in(StatusCode::PRECONDITION_FAILED, "PreconditionFailed").await;
    let refused = append(&bucket.files(), &place.of("mail"), "log.txt", "x").await;
    assert!(matches!(refused, Err(FileError::Refused(_))), "{refused:?}");
    assert_eq!(writes.load(Ordering::Relaxed), 32);
}
