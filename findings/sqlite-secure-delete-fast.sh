#!/usr/bin/env bash
# SQLite's secure_delete=FAST leaves every long text in the file, and short ones too.
#
# Package:  apsw 3.54.1.0 (PyPI), which carries SQLite 3.54.1; run on 2026-11-29.
# Guess:    FAST is ON without the cost: "secure deletes" whatever it deletes, save some pages that were not to be written anyway.
# Seen:     Deleting 31 of 50 rows in the middle of a table in WAL mode, checkpoint after it. Of 31 texts of 20,000 bytes FAST
#           leaves all 31 readable in the file – a long text stands on overflow pages, which become free pages that nobody
#           writes – and of 31 texts of 100 bytes it leaves those of each page that became empty as a whole. ON leaves none of
#           either, and pays for it: it writes each freed page (655 KB of log here, against 21 KB).
# Source:   the page on PRAGMA secure_delete says "without increasing the amount of I/O" and "traces on the free pages";
#           that this means any text longer than a page is not said.
# Matters:  The transcript of a chat is just such a table: long texts, deleted as a run. Whoever chooses FAST because a session's
#           deletion has to take the words along keeps nearly all of them. Reef's answer to this is a test that looks for the
#           words in the files after a deletion.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check apsw==3.54.1.0

cat >"$folder/probe.py" <<'PY'
import sys
from pathlib import Path

import apsw


def left(mode, bytes_each):
    """How many of 31 deleted texts the database's file still holds, and how long the log was."""
    path = Path(sys.argv[1]) / f"{mode}-{bytes_each}.db"
    database = apsw.Connection(str(path))
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA secure_delete = {mode}")
    database.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, body TEXT)")
    for row in range(50):
        word = f"order-{row:04d} "
        database.execute("INSERT INTO message (body) VALUES (?)", (word * (bytes_each // len(word)),))
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("DELETE FROM message WHERE id BETWEEN 10 AND 40")
    log = Path(f"{path}-wal").stat().st_size
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    held = path.read_bytes()
    return sum(f"order-{row:04d}".encode() in held for row in range(9, 40)), log


long_off, long_fast, long_on = (left(mode, 20_000) for mode in ("OFF", "FAST", "ON"))
short_off, short_fast, short_on = (left(mode, 100) for mode in ("OFF", "FAST", "ON"))
print(apsw.sqlite_lib_version(), {"long": (long_off, long_fast, long_on), "short": (short_off, short_fast, short_on)})
assert long_off[0] == long_fast[0] == 31, "FAST now reaches long texts"
assert 0 < short_fast[0] < short_off[0], "FAST now treats short texts otherwise"
assert long_on[0] == short_on[0] == 0, "ON now leaves something"
assert long_on[1] > 20 * long_fast[1], "ON now costs less"
PY
"$folder/venv/bin/python" "$folder/probe.py" "$folder"
