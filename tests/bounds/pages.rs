//! The pages `docs/limits.md` and `docs/ja/limits.md`, made from the rows.

use shared::bounds::{Bound, Unit};
use shared::config::Config;
use std::fmt::Write as _;
use std::path::Path;

const SETTINGS: &str = "{agents: [{id: \"assistant\", model: \"ollama/llama3.2\"}]}";

/// Groups by the first part of their names, in both languages. A group that is not here is headed by that part.
const GROUPS: [(&str, &str, &str); 20] = [
    ("request", "Requests", "リクエスト"),
    ("connections", "Connections", "接続"),
    ("caller", "Callers", "呼び出し元"),
    ("turn", "Turns", "ターン"),
    ("answer", "Answers", "応答"),
    ("listener", "Listeners", "ストリームの受け手"),
    ("hop", "Between two functions", "関数の間"),
    ("tool", "Tools", "ツール"),
    ("vendor", "Model vendors", "モデルベンダー"),
    ("jobs", "Jobs", "ジョブ"),
    ("key", "Idempotency keys", "冪等キー"),
    ("stored", "What is stored", "保存されるもの"),
    ("store", "The database", "データベース"),
    ("unreadable", "Unreadable rows", "読めない行"),
    ("clock", "Clocks", "時計"),
    ("audit", "The audit trail", "監査証跡"),
    ("word", "Errors, logs and metrics", "エラー・ログ・メトリクス"),
    ("settings", "The settings' file", "設定ファイル"),
    ("process", "The process", "プロセス"),
    ("aws", "AWS", "AWS"),
];

const ENGLISH: &str = "\
# Limits

Every bound of Reef: how much of what is taken, and what happens beyond it. The values are the defaults; those in force
with your settings are shown by `reef config show --limits` (`--json` for programs). Where a bound has a setting, change it
in `openclaw.json`.

This page is generated from the code; `docs/ja/limits.md` is the same in Japanese. To write both anew:
`REEF_WRITE_DOCS=1 cargo nextest run -p tests --test bounds pages`
";

const JAPANESE: &str = "\
# 上限

Reef のすべての上限です。何をどこまで受け付け、超えたときにどうなるかを示します。値は既定値です。お使いの設定で実際に有効な値は
`reef config show --limits`（プログラムからは `--json`）で確認できます。設定キーのある上限は `openclaw.json` で変更できます。

このページはコードから生成されています。英語版は `docs/limits.md` です。両方を書き直すには:
`REEF_WRITE_DOCS=1 cargo nextest run -p tests --test bounds pages`
";

/// What happens beyond a bound, in Japanese; `None` for a row that has no words yet.
fn japanese(name: &str) -> Option<&'static str> {
    Some(match name {
        "request.body" => "413 payload_too_large",
        "request.tools" => "400 invalid（`tools` を示します）",
        "request.headers" => "431 を返し、接続を閉じます",
        "request.headTime" => "接続を閉じます",
        "request.bodyTime" => "408 request_timeout",
        "request.bytesPerRequest" => "トークンが 256 秒分先行すると 429 rate_limited",
        "request.hookBody" => "413 payload_too_large（`/hooks/…`）",
        "request.toolBody" => "413 payload_too_large（`/tools/invoke`）",
        "request.pictures" => "400 invalid（該当する画像を示します。メッセージごと）",
        "request.picture" => "400 invalid（該当する画像を示します。デコード後のサイズ）",
        "request.picturesTogether" => {
            "400 invalid（該当する画像を示します。1 リクエストの合計、デコード後のサイズ）"
        }
        "request.file" => "400 invalid（該当するファイルを示します。デコード後のサイズ）",
        "request.fileName" => "名前の残りは省かれます",
        "request.toolName" => "400 invalid（該当するツールを示します）",
        "request.stop" => "400 invalid（`stop` を示します）",
        "request.metadata" | "request.metadataKey" | "request.metadataValue" => {
            "`/v1/responses` では 400 invalid（`metadata` を示します）"
        }
        "request.agent" => "400 invalid（`model` を示します）",
        "request.session" | "request.channel" => "400 invalid（該当するヘッダーまたはフィールドを示します）",
        "request.model" => "`x-openclaw-model` では 404 not_found、エージェントの指定では 400 invalid",
        "request.user" => "400 invalid（`user` を示します）",
        "request.key" => "400 invalid（`Idempotency-Key` を示します）",
        "request.id" => "代わりに Reef が付けた ID を使います",
        "request.hookName" => "400 invalid（`name` を示します）",
        "request.hookWait" => "400 invalid（`timeoutSeconds` を示します）",
        "request.sessionsPage" | "request.transcriptPage" => "400 invalid（`limit` を示します）",
        "request.transcriptPageBytes" => {
            "ページはそのメッセージの前で終わり、`has_more` で続きがあることを示します（1 件は必ず返します）"
        }
        "caller.requestsPerMinute" => "429 rate_limited と `Retry-After`（トークンごと、長期的な平均）",
        "caller.burst" => "429 rate_limited と `Retry-After`（トークンごと、平均を超えて一度に送れる数）",
        "caller.failedLogins" => "429 rate_limited。そのアドレスを締め出します（このホスト自身は除きます）",
        "caller.failedHookLogins" => "429 rate_limited。そのアドレスを `/hooks/…` から締め出します",
        "caller.failureWindow" => "これより古いログイン失敗は数えません",
        "caller.lockout" => "そのアドレスは再び試せます",
        "caller.addresses" => "最も長く来ていないアドレスから忘れます",
        "caller.tokens" => "最も長く使われていないトークンは、ストアから読み直します",
        "turn.steps" | "turn.tokens" => "それまでの結果に注記を付けてターンを終えます",
        "turn.time" => "ターンは失敗し、セッションは空きます",
        "turn.resumptions" => "ターンを打ち切り、記録に残します",
        "turn.waiting" => "409 conflict と `Retry-After`（セッションごと）",
        "turn.wait" => "409 conflict と `Retry-After`",
        "turn.lease" => "別のプロセスがターンを引き継ぎます",
        "turn.messages" => "古いメッセージは要約で置き換えます",
        "turn.messagesRead" => "それより古いメッセージはプロンプトに入りません",
        "turn.instructionFile" | "turn.instructions" => "切り詰め、そのことをエージェントに伝えます",
        "turn.workspacesRemembered" => "最も長く使われていないワークスペースは読み直します",
        "turn.transcriptsRemembered" => "最も長く使われていない会話記録は、ストアから読み直します",
        "turn.transcriptRemembered" => "その会話記録はターンごとにストアから読みます",
        "tool.path" | "tool.write" => "400 invalid（`args` を示します）。エージェントには理由を伝えます",
        "tool.read" => "どこから読み続ければよいかを答えに含めます",
        "tool.list" => "全部でいくつあるかを答えに含めます",
        "tool.file" => "400 invalid。エージェントには理由を伝えます",
        "vendor.event" => "502 upstream。接続を切ります",
        "vendor.error" => "残りは読みません",
        "vendor.words" => "切り詰めます（呼び出し元への答えとログ）",
        "vendor.tries" => "502 upstream、またはエージェントの次のモデル",
        "vendor.wait" => "502 upstream。これより長い待ち時間を求めるベンダーは待ちません",
        "vendor.connect" | "vendor.silence" => "再試行の後に 502 upstream",
        "jobs.atOnce" => "それ以上のジョブはキューで待ちます",
        "jobs.deliveries" => "ジョブは理由とともに dead になり、人が対処するまで残ります",
        "jobs.kept" => "完了したジョブは忘れられます",
        "key.kept" => "冪等キーは効力を失います",
        "word.quoted" => "切り詰めます（エラーやログ行に引用する値）",
        "word.error" => "切り詰めます（失敗を伝える文と、ログに残す原因）",
        "word.logged" => "切り詰めます（ログ行の 1 フィールド）",
        "word.logLines" => "誰も読まない間のログ行は捨て、その数を数えます",
        "word.labelValues" => "`other` として数えます（メトリクスのラベルごと）",
        "settings.file" => "サイズを示して拒否します",
        "settings.problems" => "それ以上は件数だけを示します",
        "process.threads" => "ターンはこれらのスレッドを分け合います",
        "process.drain" => "停止中のプロセスは終了し、ターンは次の起動時に続きます",
        "store.lockWait" => "503 unavailable（別のプロセスがデータベースに書き込み中）",
        "aws.item" => "複数の項目に分けて保存します",
        "aws.step" => "400 invalid（大きすぎて保存できません）",
        "aws.fileName" => "拒否し、エージェントに理由を伝えます",
        "aws.regions" => "関数は起動せず、理由をログに出します",
        "aws.silence" => "そのターンをもう一度依頼します",
        "request.levels" => "400 invalid（該当するフィールドを示します）",
        "request.messages" => "400 invalid（`messages` または `input` を示します）",
        "request.parts" => "400 invalid（メッセージの内容を示します）",
        "request.values" => "400 invalid",
        "request.head" => "431 を返し、接続を閉じます",
        "connections.all" | "connections.perAddress" => "503 unavailable を返し、接続を閉じます",
        "answer.writeTime" => "接続を閉じます",
        "answer.bytes" | "answer.bytesPerToken" | "answer.wire" | "turn.recorded" => {
            "ターンは `length` として終わります"
        }
        "answer.toolCalls" => "どの呼び出しも実行せず、ターンは `length` として終わります",
        "listener.waiting" => "残りはターンの終わりに伝えます",
        "hop.line" => "503 unavailable",
        "stored.levels" => "400 invalid。ターンの途中であればターンは失敗し、記録に残ります",
        "settings.levels" => "設定を拒否します",
        "unreadable.told" => "それ以上は数えるだけで、ID は示しません",
        "store.readsAside" => "順番を待ちます",
        "store.readAsideWait" => "503 unavailable",
        "jobs.ofToken" => "そのトークンの次のジョブは待ちます",
        "jobs.ofAgent" => "そのエージェント、またはそのベンダーの次のジョブは待ちます",
        "jobs.counted" => "1 回の収集ではそれ以上数えません",
        "jobs.lanes" => "それより後のジョブは、誰も枠の半分を占めなくなるまで待ちます",
        "clock.slack" => "それより先の、あり得ない時刻は無いものとみなします",
        "audit.counted" => "`reef audit list` は、さらにあることを示します",
        _ => return None,
    })
}

fn amount_in_japanese(bound: &Bound) -> String {
    let shown = bound.amount();
    match bound.unit {
        Unit::Chars => shown.replace(" characters", " 文字"),
        Unit::Bytes => shown.replace(" bytes", " バイト"),
        Unit::Levels => shown.replace(" levels", " 段"),
        Unit::Millis => shown.replace(" days", " 日").replace(" ms", " ミリ秒").replace(" s", " 秒"),
        Unit::Count => shown,
    }
}

/// The rows as tables, one for each group.
fn tables(
    bounds: &[Bound],
    heads: [&str; 4],
    title: impl Fn(&str) -> String,
    row: impl Fn(&Bound) -> [String; 2],
) -> String {
    let mut text = String::new();
    let mut last = "";
    for bound in bounds {
        let group = bound.name.split('.').next().unwrap_or_default();
        if group != last {
            last = group;
            let [name, value, setting, beyond] = heads;
            let _ = write!(
                text,
                "\n## {}\n\n| {name} | {value} | {setting} | {beyond} |\n|---|---|---|---|\n",
                title(group)
            );
        }
        let setting = bound.setting.map_or_else(|| "–".to_owned(), |setting| format!("`{setting}`"));
        let [amount, beyond] = row(bound);
        let _ = writeln!(text, "| `{}` | {amount} | {setting} | {beyond} |", bound.name);
    }
    text
}

fn titled(group: &str, of: fn(&(&'static str, &'static str, &'static str)) -> &'static str) -> String {
    GROUPS.iter().find(|known| known.0 == group).map(of).unwrap_or(group).to_owned()
}

#[test]
fn the_pages_of_limits_are_what_the_code_says() {
    let config = Config::load(SETTINGS, Path::new("/"), &|_| None, false);
    let bounds = config.unwrap_or_else(|problems| panic!("{problems}")).bounds();
    let without: Vec<&str> =
        bounds.iter().map(|bound| bound.name).filter(|name| japanese(name).is_none()).collect();
    assert!(without.is_empty(), "add Japanese words to tests/bounds/pages.rs: {without:?}");
    let english = tables(
        &bounds,
        ["Limit", "Value", "Setting", "Beyond it"],
        |group| titled(group, |known| known.1),
        |bound| [bound.amount(), bound.beyond.to_owned()],
    );
    let japanese = tables(
        &bounds,
        ["上限", "値", "設定キー", "超えると"],
        |group| titled(group, |known| known.2),
        |bound| [amount_in_japanese(bound), japanese(bound.name).unwrap_or_default().to_owned()],
    );
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let pages =
        [("limits.md", format!("{ENGLISH}{english}")), ("ja/limits.md", format!("{JAPANESE}{japanese}"))];
    for (name, page) in pages {
        let file = docs.join(name);
        if std::env::var_os("REEF_WRITE_DOCS").is_some() {
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("the docs' folder");
            std::fs::write(&file, &page).expect("a page");
        }
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            there == page,
            "docs/{name} is not what the code says; tests/bounds.rs says how it is written anew"
        );
    }
}
