//! Agents' files: [`shared::files::Files`].

use harness::files::{Owner, Place};
use shared::bounds::FILE_BYTES;
use shared::files::{Entry, FileError, FilePart, FilePath, TargetPath};
use tokio::task::JoinSet;

const ENOUGH: u64 = 1_000;

async fn read_part(
    place: &Place,
    owner: &Owner,
    path: &str,
    offset: u64,
    most: u64,
) -> Result<FilePart, FileError> {
    let path = FilePath::new(path).expect("a path");
    place.files.read(owner.files(), &path, offset, most).await
}

async fn read(place: &Place, owner: &Owner, path: &str) -> Result<String, FileError> {
    let part = read_part(place, owner, path, 0, ENOUGH).await?;
    assert_eq!(part.total, part.bytes.len() as u64);
    Ok(String::from_utf8(part.bytes).expect("a text"))
}

async fn write(place: &Place, owner: &Owner, path: &str, content: &str) -> Result<bool, FileError> {
    let path = TargetPath::new(path).expect("a file's path");
    place.files.write(owner.files(), &path, content.into(), 7).await
}

async fn append(place: &Place, owner: &Owner, path: &str, content: &str) -> Result<u64, FileError> {
    let path = TargetPath::new(path).expect("a file's path");
    place.files.append(owner.files(), &path, content.into()).await
}

/// The entries that are shown, as `name` or `name bytes`, and how many there are.
async fn list(
    place: &Place,
    owner: &Owner,
    path: &str,
    most: usize,
) -> Result<(Vec<String>, usize), FileError> {
    let path = FilePath::new(path).expect("a path");
    let listing = place.files.list(owner.files(), &path, most).await?;
    let shown = listing.entries.iter().map(|(name, entry)| match entry {
        Entry::File { bytes } => format!("{name} {bytes}"),
        Entry::Folder => format!("{name}/"),
        Entry::Other { kind } => format!("{name} {kind}"),
    });
    Ok((shown.collect(), listing.total))
}

/// What a refusal says; anything else fails the test.
fn refusal<T: std::fmt::Debug>(answer: Result<T, FileError>) -> String {
    match answer {
        Err(error @ (FileError::Missing(_) | FileError::Folder(_) | FileError::Refused(_))) => {
            error.to_string()
        }
        other => unreachable!("it answered {other:?}"),
    }
}

pub(crate) async fn what_is_written_is_read_and_replaced_as_a_whole(place: &Place) {
    let owner = place.of("mail");
    assert!(!write(place, &owner, "notes/2026/a.md", "日本\n").await.expect("a new file"));
    assert_eq!(read(place, &owner, "./notes//2026/a.md").await.expect("the file"), "日本\n");
    assert!(write(place, &owner, "notes/2026/a.md", "").await.expect("another content"));
    assert_eq!(read(place, &owner, "notes/2026/a.md").await.expect("the file"), "");
    assert_eq!(
        list(place, &owner, "notes/2026", 10).await.expect("a folder"),
        (vec!["a.md 0".to_owned()], 1)
    );
}

pub(crate) async fn a_file_is_read_in_parts(place: &Place) {
    let owner = place.of("mail");
    write(place, &owner, "a", "0123456789").await.expect("a file");
    write(place, &owner, "empty", "").await.expect("a file");
    for (path, offset, most, expected, total) in [
        ("a", 0, 4, "0123", 10),
        ("a", 4, 4, "4567", 10),
        ("a", 8, 4, "89", 10),
        ("a", 9, u64::MAX, "9", 10),
        ("a", 10, 4, "", 10),
        ("a", 11, 4, "", 10),
        ("a", 0, 0, "", 10),
        ("empty", 0, 4, "", 0),
        ("empty", 0, 0, "", 0),
    ] {
        let part = read_part(place, &owner, path, offset, most).await.expect("a part");
        assert_eq!(part, FilePart { bytes: expected.into(), total }, "{path} from {offset}, at most {most}");
    }
}

pub(crate) async fn an_append_makes_a_file_and_adds_to_it(place: &Place) {
    let owner = place.of("mail");
    assert_eq!(append(place, &owner, "log/today.txt", "one\n").await.expect("a new file"), 4);
    assert_eq!(append(place, &owner, "log/today.txt", "two\n").await.expect("more of it"), 8);
    assert_eq!(append(place, &owner, "log/today.txt", "").await.expect("no more of it"), 8);
    write(place, &owner, "log/other.txt", "written\n").await.expect("a file");
    assert_eq!(append(place, &owner, "log/other.txt", "added\n").await.expect("more of it"), 14);
    assert_eq!(read(place, &owner, "log/today.txt").await.expect("the file"), "one\ntwo\n");
    assert_eq!(read(place, &owner, "log/other.txt").await.expect("the file"), "written\nadded\n");
}

pub(crate) async fn of_many_appends_at_once_each_adds_its_own(place: &Place) {
    let mut tasks = JoinSet::new();
    for number in 0..12 {
        let (files, owner) = (place.files.clone(), place.of("mail"));
        tasks.spawn(async move {
            let path = TargetPath::new("log.txt").expect("a path");
            files.append(owner.files(), &path, format!("line {number:02}\n").into()).await.expect("an append")
        });
    }
    tasks.join_all().await;
    let text = read(place, &place.of("mail"), "log.txt").await.expect("the file");
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..12).map(|number| format!("line {number:02}")).collect::<Vec<_>>());
}

pub(crate) async fn a_file_grows_to_its_limit_and_no_further(place: &Place) {
    let owner = place.of("mail");
    // A file of the folder, below the bucket if there is one: long, and made at once.
    std::fs::create_dir_all(owner.folder()).expect("a folder");
    let file = std::fs::File::create(owner.folder().join("huge.log")).expect("a file");
    file.set_len(FILE_BYTES - 1).expect("a long file");
    let why = "`huge.log` would grow beyond 67108864 bytes";
    assert_eq!(refusal(append(place, &owner, "huge.log", "12").await), why);
    assert_eq!(append(place, &owner, "huge.log", "1").await.expect("the last byte"), FILE_BYTES);
    assert_eq!(refusal(append(place, &owner, "huge.log", "2").await), why);
    let end = read_part(place, &owner, "huge.log", FILE_BYTES - 2, ENOUGH).await.expect("its end");
    assert_eq!(end, FilePart { bytes: b"\x001".to_vec(), total: FILE_BYTES });
}

pub(crate) async fn what_is_not_there_is_missing(place: &Place) {
    let owner = place.of("mail");
    for path in [".", "a"] {
        let listed = list(place, &owner, path, 10).await;
        assert!(matches!(listed, Err(FileError::Missing(_))), "{path}: {listed:?}");
    }
    assert!(matches!(read(place, &owner, "a").await, Err(FileError::Missing(_))));
    write(place, &owner, "notes/b", "x").await.expect("a file");
    assert_eq!(refusal(read(place, &owner, "a").await), "`a` does not exist");
    assert_eq!(refusal(read(place, &owner, "notes/a").await), "`notes/a` does not exist");
    assert_eq!(refusal(list(place, &owner, "note", 10).await), "`note` does not exist");
    assert_eq!(refusal(list(place, &owner, "notes/a", 10).await), "`notes/a` does not exist");
}

pub(crate) async fn a_folder_is_no_file_and_a_file_is_no_folder(place: &Place) {
    let owner = place.of("mail");
    write(place, &owner, "notes/sub/a", "inside").await.expect("a file");
    write(place, &owner, "b.txt", "beside").await.expect("a file");
    for path in ["notes", "notes/sub"] {
        assert_eq!(refusal(read(place, &owner, path).await), format!("`{path}` is a folder; `ls` lists it"));
        let why = format!("`{path}` is a folder; name a file");
        assert_eq!(refusal(write(place, &owner, path, "x").await), why);
        assert_eq!(refusal(append(place, &owner, path, "x").await), why);
    }
    assert_eq!(refusal(read(place, &owner, ".").await), "`.` is a folder; `ls` lists it");
    assert_eq!(refusal(list(place, &owner, "b.txt", 10).await), "`b.txt` is no folder; `read` shows a file");
    for path in ["b.txt/c", "notes/sub/a/c/d"] {
        let why = format!("`{path}` leads through something that is no folder");
        assert_eq!(refusal(write(place, &owner, path, "x").await), why);
        assert_eq!(refusal(append(place, &owner, path, "x").await), why);
    }
    assert_eq!(read(place, &owner, "notes/sub/a").await.expect("the file"), "inside");
    assert_eq!(read(place, &owner, "b.txt").await.expect("the file"), "beside");
}

pub(crate) async fn a_listing_is_sorted_by_name_and_cut(place: &Place) {
    let owner = place.of("mail");
    // In a bucket's own order `a-b` stands before `a/`.
    for path in ["a/x/1", "a/2", "a-b", "b", "a.txt"] {
        write(place, &owner, path, path).await.expect("a file");
    }
    let all = ["a/", "a-b 3", "a.txt 5", "b 1"];
    assert_eq!(
        list(place, &owner, ".", 10).await.expect("a folder"),
        (all.map(str::to_owned).to_vec(), all.len())
    );
    assert_eq!(
        list(place, &owner, ".", 2).await.expect("a folder"),
        (all[..2].iter().map(|name| (*name).to_owned()).collect(), all.len())
    );
    assert_eq!(
        list(place, &owner, "a/", 10).await.expect("a folder"),
        (vec!["2 3".to_owned(), "x/".to_owned()], 2)
    );
}

pub(crate) async fn a_name_means_only_itself(place: &Place) {
    let owner = place.of("mail");
    let mut names = [
        "日本 語.md",
        "a+b%20c?d=e&f#g.txt",
        "it's \"<quoted>\".txt",
        "%2e%2e",
        "back\\slash",
        "*",
        "~",
        "...",
        " blank ",
        "e\u{301}",
        "\u{e9}",
    ];
    for name in names {
        write(place, &owner, &format!("odd/{name}"), name).await.expect("a file");
    }
    for name in names {
        assert_eq!(read(place, &owner, &format!("odd/{name}")).await.expect("the file"), name);
        assert_eq!(append(place, &owner, &format!("odd/{name}"), "").await.expect("it"), name.len() as u64);
    }
    names.sort_unstable();
    let expected: Vec<_> = names.iter().map(|name| format!("{name} {}", name.len())).collect();
    assert_eq!(list(place, &owner, "odd", 100).await.expect("a folder"), (expected, names.len()));
}

pub(crate) async fn the_files_of_two_agents_are_apart(place: &Place) {
    let (mail, mailbox, other) = (place.of("mail"), place.of("mailbox"), place.of_tenant("other", "mail"));
    for (owner, content) in [(&mail, "for mail"), (&mailbox, "for mailbox"), (&other, "for another")] {
        assert!(!write(place, owner, "a/b.txt", content).await.expect("a new file"));
    }
    for (owner, content) in [(&mail, "for mail"), (&mailbox, "for mailbox"), (&other, "for another")] {
        assert_eq!(read(place, owner, "a/b.txt").await.expect("the file"), content);
        assert_eq!(list(place, owner, ".", 10).await.expect("a folder"), (vec!["a/".to_owned()], 1));
    }
}
