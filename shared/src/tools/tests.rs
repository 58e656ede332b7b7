//! What the built-in tools do on a real folder.

use super::{NAMES, builtin};
use crate::adapters::folder::FolderFiles;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::files::Files;
use crate::id::TenantId;
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn in_folders() -> BTreeMap<String, Arc<dyn Tool>> {
    let files: Arc<dyn Files> = Arc::new(FolderFiles);
    builtin(&files)
}

/// A folder with an agent's workspace in it and, beside it, a file that is none of the agent's business.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("workspace")).unwrap();
        fs::create_dir(folder.path().join("private")).unwrap();
        fs::write(folder.path().join("private/secret.txt"), "do not read").unwrap();
        Self { folder }
    }

    fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    fn private(&self) -> PathBuf {
        self.folder.path().join("private")
    }

    fn context(&self) -> ToolContext {
        ToolContext {
            tenant: TenantId::single(),
            agent: "doc-processor".into(),
            session: None,
            turn: "01J0000000000000000000TURN".into(),
            call_id: "call_1".to_owned(),
            // 2026-03-08T07:30:00Z: in New York, the hour after the clocks went forward.
            now: Timestamp::from_millis(1_772_955_000_000),
            time_zone: "Asia/Tokyo".to_owned(),
            workspace: self.workspace(),
        }
    }

    async fn call(&self, tool: &str, arguments: Value) -> Result<ToolOutput, ToolError> {
        in_folders()[tool].call(&self.context(), &arguments).await
    }

    async fn text(&self, tool: &str, arguments: Value) -> String {
        self.call(tool, arguments).await.unwrap().content
    }

    /// The refusal's text; anything else fails the test.
    async fn refusal(&self, tool: &str, arguments: Value) -> String {
        match self.call(tool, arguments).await {
            Err(ToolError::Refused(text)) => text,
            other => panic!("{tool} answered {other:?}"),
        }
    }

    /// The complaint about the arguments; anything else fails the test.
    async fn complaint(&self, tool: &str, arguments: Value) -> String {
        match self.call(tool, arguments).await {
            Err(ToolError::Arguments(text)) => text,
            other => panic!("{tool} answered {other:?}"),
        }
    }

    /// Every tool that takes a path refuses this one, and nothing outside changed.
    async fn everybody_refuses(&self, path: &str) {
        for (tool, arguments) in [
            ("read", json!({ "path": path })),
            ("ls", json!({ "path": path })),
            ("write", json!({ "path": path, "content": "x" })),
            ("append", json!({ "path": path, "content": "x" })),
        ] {
            let answer = self.call(tool, arguments).await;
            assert!(matches!(answer, Err(ToolError::Refused(_))), "{tool} {path}: {answer:?}");
        }
        assert_eq!(names(&self.private()), ["secret.txt"]);
        assert_eq!(fs::read_to_string(self.private().join("secret.txt")).unwrap(), "do not read");
        assert_eq!(names(self.folder.path()), ["private", "workspace"]);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn each_tool_is_known_by_the_name_in_its_spec_and_says_what_twice_would_do() {
    let tools = in_folders();
    assert_eq!(tools.keys().collect::<Vec<_>>(), NAMES.iter().collect::<Vec<_>>());
    let effects: Vec<_> =
        tools.values().map(|tool| (tool.spec().name.as_str(), tool.spec().effect)).collect();
    assert_eq!(
        effects,
        [
            ("append", Effect::Once),
            ("current_time", Effect::None),
            ("ls", Effect::None),
            ("read", Effect::None),
            ("write", Effect::Idempotent),
        ]
    );
}

#[tokio::test]
async fn the_time_is_shown_in_the_agents_zone_beside_utc() {
    let place = Place::new();
    let output = place.call("current_time", json!({})).await.unwrap();
    assert_eq!(output.content, "2026-03-08T16:30:00+09:00 (Asia/Tokyo, Sunday)\n2026-03-08T07:30:00Z (UTC)");
    assert_eq!(
        output.details,
        Some(json!({
            "local": "2026-03-08T16:30:00+09:00",
            "utc": "2026-03-08T07:30:00Z",
            "timeZone": "Asia/Tokyo",
            "weekday": "Sunday",
        }))
    );
    let new_york = place.text("current_time", json!({ "time_zone": "America/New_York" })).await;
    assert_eq!(new_york, "2026-03-08T03:30:00-04:00 (America/New_York, Sunday)\n2026-03-08T07:30:00Z (UTC)");
    assert_eq!(
        place.complaint("current_time", json!({ "time_zone": "Mars/Olympus" })).await,
        "`time_zone`: `Mars/Olympus` is no IANA time zone, such as Asia/Tokyo"
    );
}

#[tokio::test]
async fn a_wrong_argument_is_named() {
    let place = Place::new();
    for (tool, arguments, expected) in [
        ("read", json!([]), "the arguments must be a JSON object"),
        ("read", json!({}), "missing field `path`"),
        ("read", json!({ "path": 3 }), "`path`: invalid type: integer `3`, expected a string"),
        ("read", json!({ "path": "a", "offset": -1 }), "`offset`: invalid value: integer `-1`, expected u64"),
        (
            "read",
            json!({ "path": "a", "lines": 3 }),
            "`lines`: unknown field `lines`, expected `path` or `offset`",
        ),
        ("write", json!({ "path": "a" }), "missing field `content`"),
        ("read", json!({ "path": "" }), "`path`: must not be empty; the workspace is `.`"),
        ("read", json!({ "path": "a\0b" }), "`path`: must hold no control characters"),
        ("write", json!({ "path": "a\nb", "content": "" }), "`path`: must hold no control characters"),
        ("ls", json!({ "path": "a/".repeat(2_049) }), "`path`: longer than 4096 bytes"),
    ] {
        assert_eq!(place.complaint(tool, arguments).await, expected);
    }
    assert_eq!(names(&place.workspace()), [""; 0]);
}

#[tokio::test]
async fn a_file_is_written_listed_read_and_appended_to() {
    let place = Place::new();
    assert_eq!(place.text("ls", json!({})).await, "(empty)");
    assert_eq!(
        place.text("write", json!({ "path": "notes/2026/a.md", "content": "日本\n" })).await,
        "`notes/2026/a.md` made: 7 bytes"
    );
    assert_eq!(
        place.text("append", json!({ "path": "./notes/2026/a.md", "content": "two\n" })).await,
        "4 bytes added to `./notes/2026/a.md`, which has 11 now"
    );
    assert_eq!(
        place.text("append", json!({ "path": "b.txt", "content": "x" })).await,
        "1 bytes added to `b.txt`, which has 1 now"
    );
    assert_eq!(place.text("read", json!({ "path": "notes/2026/a.md" })).await, "日本\ntwo\n");
    assert_eq!(place.text("ls", json!({})).await, "b.txt  1\nnotes/");
    assert_eq!(place.text("ls", json!({ "path": "notes/2026/" })).await, "a.md  11");
    assert_eq!(
        place.text("write", json!({ "path": "notes/2026/a.md", "content": "" })).await,
        "`notes/2026/a.md` replaced: 0 bytes"
    );
    assert_eq!(names(&place.workspace().join("notes/2026")), ["a.md"], "a draft was left");
    assert_eq!(place.refusal("read", json!({ "path": "c.txt" })).await, "`c.txt` does not exist");
    assert_eq!(place.refusal("read", json!({ "path": "notes" })).await, "`notes` is a folder; `ls` lists it");
    assert_eq!(
        place.refusal("ls", json!({ "path": "b.txt" })).await,
        "`b.txt` is no folder; `read` shows a file"
    );
    for tool in ["write", "append"] {
        for (path, why) in [
            ("notes", "is a folder; name a file"),
            ("notes/", "ends like a folder; name a file"),
            (".", "is a folder; name a file"),
            ("b.txt/c", "leads through something that is no folder"),
        ] {
            let refusal = place.refusal(tool, json!({ "path": path, "content": "x" })).await;
            assert_eq!(refusal, format!("`{path}` {why}"));
        }
    }
}

#[tokio::test]
async fn a_workspace_that_is_not_there_yet_is_empty_until_something_is_written() {
    let place = Place::new();
    fs::remove_dir(place.workspace()).unwrap();
    assert_eq!(place.refusal("ls", json!({})).await, "your workspace holds no files yet");
    assert_eq!(place.refusal("read", json!({ "path": "a" })).await, "your workspace holds no files yet");
    place.text("write", json!({ "path": "a", "content": "1" })).await;
    assert_eq!(place.text("ls", json!({})).await, "a  1");
}

#[tokio::test]
async fn no_path_leads_out_of_the_workspace() {
    let place = Place::new();
    fs::create_dir(place.workspace().join("in")).unwrap();
    for path in
        ["..", "../private/secret.txt", "in/../../private/secret.txt", "in/..", "/etc/passwd", "//etc", "/"]
    {
        place.everybody_refuses(path).await;
    }
    let absolute = place.private().join("secret.txt");
    place.everybody_refuses(absolute.to_str().unwrap()).await;
}

#[tokio::test]
async fn no_link_leads_out_of_the_workspace() {
    let place = Place::new();
    let workspace = place.workspace();
    symlink(place.private().join("secret.txt"), workspace.join("absolute")).unwrap();
    symlink("../private/secret.txt", workspace.join("relative")).unwrap();
    symlink(place.private(), workspace.join("folder")).unwrap();
    symlink("../private", workspace.join("up")).unwrap();
    symlink("loop", workspace.join("loop")).unwrap();
    symlink("pong", workspace.join("ping")).unwrap();
    symlink("ping", workspace.join("pong")).unwrap();
    symlink("/proc/self/root", workspace.join("root")).unwrap();
    for path in [
        "absolute",
        "relative",
        "folder/secret.txt",
        "folder/new.txt",
        "up/secret.txt",
        "up/new.txt",
        "folder",
        "up",
        "loop",
        "loop/a",
        "ping",
        "root/etc/passwd",
    ] {
        place.everybody_refuses(path).await;
    }
}

#[tokio::test]
async fn links_inside_are_read_through_and_never_written_through() {
    let place = Place::new();
    fs::create_dir(place.workspace().join("real")).unwrap();
    fs::write(place.workspace().join("real/a.txt"), "inside").unwrap();
    symlink("real", place.workspace().join("alias")).unwrap();
    symlink("real/a.txt", place.workspace().join("a-link")).unwrap();
    assert_eq!(place.text("read", json!({ "path": "alias/a.txt" })).await, "inside");
    assert_eq!(place.text("read", json!({ "path": "a-link" })).await, "inside");
    assert_eq!(place.text("ls", json!({})).await, "a-link  (link)\nalias  (link)\nreal/");
    for tool in ["write", "append"] {
        for path in ["a-link", "alias/a.txt", "alias/new.txt"] {
            place.refusal(tool, json!({ "path": path, "content": "x" })).await;
        }
    }
    assert_eq!(fs::read_to_string(place.workspace().join("real/a.txt")).unwrap(), "inside");
    assert_eq!(names(&place.workspace().join("real")), ["a.txt"]);
}

#[tokio::test]
async fn pipes_sockets_and_devices_are_refused_at_once() {
    let place = Place::new();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        place.workspace().join("pipe"),
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    let _listener = UnixListener::bind(place.workspace().join("socket")).unwrap();
    for path in ["pipe", "socket"] {
        place.everybody_refuses(path).await;
    }
    assert_eq!(place.text("ls", json!({})).await, "pipe  (special)\nsocket  (special)");
}

#[tokio::test]
async fn an_agent_reads_its_instructions_and_cannot_change_any() {
    let place = Place::new();
    fs::write(place.workspace().join("AGENTS.md"), "Be brief.").unwrap();
    assert_eq!(place.text("read", json!({ "path": "AGENTS.md" })).await, "Be brief.");
    for tool in ["write", "append"] {
        for path in ["AGENTS.md", "./AGENTS.md", "agents.md", "SOUL.md", "MEMORY.md", "sub/AGENTS.md"] {
            assert_eq!(
                place.refusal(tool, json!({ "path": path, "content": "x" })).await,
                format!("`{path}` belongs to an agent's instructions; only a person may change it")
            );
        }
    }
    assert_eq!(names(&place.workspace()), ["AGENTS.md"]);
    assert_eq!(fs::read_to_string(place.workspace().join("AGENTS.md")).unwrap(), "Be brief.");
}

#[tokio::test]
async fn a_long_file_is_read_in_parts_that_join_without_a_gap() {
    let place = Place::new();
    // Three bytes per character: 256 KB is no multiple of it, so each part ends before a broken character.
    let whole = "あ".repeat(200_000);
    fs::write(place.workspace().join("long.txt"), &whole).unwrap();
    let mut joined = String::new();
    let mut offset = 0;
    let mut parts = 0;
    loop {
        let output = place.call("read", json!({ "path": "long.txt", "offset": offset })).await.unwrap();
        let details = output.details.unwrap();
        parts += 1;
        match details["nextOffset"].as_u64() {
            Some(next) => {
                let (part, note) = output.content.rsplit_once('\n').unwrap();
                assert_eq!(
                    note,
                    format!(
                        "[TRUNCATED] Bytes {offset} to {next} of 600000 are shown; read on with `offset` {next}."
                    )
                );
                joined.push_str(part);
                offset = next;
            }
            None => {
                joined.push_str(&output.content);
                break;
            }
        }
    }
    assert_eq!(parts, 3);
    assert!(joined == whole, "the parts do not join");
    assert_eq!(
        place.complaint("read", json!({ "path": "long.txt", "offset": 600_001 })).await,
        "`offset`: `long.txt` has only 600000 bytes"
    );
    assert_eq!(
        place.refusal("read", json!({ "path": "long.txt", "offset": 1 })).await,
        "`long.txt` is no text in UTF-8 at this offset"
    );
}

#[tokio::test]
async fn only_text_is_read() {
    let place = Place::new();
    fs::write(place.workspace().join("a.png"), b"\x89PNG\r\n").unwrap();
    fs::write(place.workspace().join("cut.txt"), &"あ".as_bytes()[..2]).unwrap();
    for path in ["a.png", "cut.txt"] {
        assert_eq!(
            place.refusal("read", json!({ "path": path })).await,
            format!("`{path}` is no text in UTF-8")
        );
    }
}

#[tokio::test]
async fn too_much_text_is_refused_before_anything_is_written() {
    let place = Place::new();
    let most = "x".repeat(1024 * 1024);
    place.text("write", json!({ "path": "most", "content": most })).await;
    for tool in ["write", "append"] {
        assert_eq!(
            place.complaint(tool, json!({ "path": "more", "content": format!("{most}x") })).await,
            "`content`: 1048577 bytes are more than the 1048576 of one call"
        );
    }
    assert_eq!(names(&place.workspace()), ["most"]);

    let file = fs::File::create(place.workspace().join("huge.log")).unwrap();
    file.set_len(64 * 1024 * 1024 - 1).unwrap();
    place.text("append", json!({ "path": "huge.log", "content": "x" })).await;
    assert_eq!(
        place.refusal("append", json!({ "path": "huge.log", "content": "x" })).await,
        "`huge.log` would grow beyond 67108864 bytes"
    );
}

#[tokio::test]
async fn a_file_is_replaced_by_another_file_and_keeps_its_permissions() {
    let place = Place::new();
    let path = place.workspace().join("run.sh");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    let before = fs::metadata(&path).unwrap();
    let reader = fs::File::open(&path).unwrap();
    place.text("write", json!({ "path": "run.sh", "content": "new" })).await;
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.mode() & 0o777, 0o750);
    // Another inode: a crash before the rename leaves the old file, and who reads it reads it to its end.
    assert_ne!(after.ino(), before.ino());
    assert_eq!(std::io::read_to_string(reader).unwrap(), "old");
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
}

#[tokio::test]
async fn a_call_that_runs_again_after_a_crash_replaces_the_draft_it_left() {
    let place = Place::new();
    // What a crash leaves: the draft of this very call, half written.
    place.text("write", json!({ "path": "a", "content": "1" })).await;
    let draft = {
        use sha2::{Digest, Sha256};
        let hash = Sha256::digest(b"01J0000000000000000000TURN\ncall_1");
        format!(".reef-{:016x}.tmp", u64::from_be_bytes(std::array::from_fn(|at| hash[at])))
    };
    fs::write(place.workspace().join(&draft), "half of what was to be writ").unwrap();
    place.text("write", json!({ "path": "a", "content": "2" })).await;
    assert_eq!(names(&place.workspace()), ["a"]);
    assert_eq!(fs::read_to_string(place.workspace().join("a")).unwrap(), "2");
}

#[tokio::test]
async fn a_full_folder_is_listed_in_order_up_to_a_thousand_entries() {
    let place = Place::new();
    for number in (0..1_005).rev() {
        fs::write(place.workspace().join(format!("{number:04}")), "").unwrap();
    }
    let listed = place.text("ls", json!({})).await;
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 1_001);
    assert_eq!(lines[0], "0000  0");
    assert_eq!(lines[999], "0999  0");
    assert_eq!(lines[1_000], "[TRUNCATED] The first 1000 of 1005 entries are shown.");
}

#[tokio::test]
async fn a_name_with_a_line_feed_is_one_entry() {
    let place = Place::new();
    fs::write(place.workspace().join("a\nb  9"), "").unwrap();
    fs::write(place.workspace().join("it's \"日本\""), "").unwrap();
    assert_eq!(place.text("ls", json!({})).await, "a\\nb  9  0\nit's \"日本\"  0");
}

#[tokio::test]
async fn what_a_tool_makes_is_for_its_owner_alone() {
    let place = Place::new();
    place.call("write", json!({"path": "a/b.txt", "content": "x"})).await.unwrap();
    place.call("append", json!({"path": "c/d.txt", "content": "x"})).await.unwrap();
    for (path, mode) in [("a", 0o700), ("a/b.txt", 0o600), ("c", 0o700), ("c/d.txt", 0o600)] {
        let found = fs::metadata(place.workspace().join(path)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
}

#[test]
fn a_disk_that_takes_nothing_is_a_failure_that_may_pass() {
    let error = |unchanged| {
        let message = "the disk is full".to_owned();
        Error::from(ToolError::Unavailable { message, unchanged, source: "ENOSPC".into() })
    };
    assert_eq!((error(true).kind, error(true).cause()), (ErrorKind::Unavailable, "ENOSPC".to_owned()));
    assert!(error(true).retry_after.is_some());
    assert_eq!(error(false).retry_after, None, "who cannot know what was done looks first");
}
