"""Tables that hold 10⁴ rows and more, as they are after weeks of work: for what is to be proven of plans."""

import re
from typing import Final

from overnight.stores.sql.sqlite_link import SqliteLink

MANY: Final = 10_000
FILL = f"""
SET session_replication_role = replica;
INSERT INTO streams (pk, kind, owner, run_id, session_id, last_seq, last_at)
  SELECT n, 'session', 'usr_' || n % 50, NULL, 'ses_' || n, 3, n FROM generate_series(1, {MANY}) n;
INSERT INTO streams (pk, kind, owner, run_id, session_id, last_seq, last_at)
  SELECT n + {MANY}, 'run', 'usr_' || n % 50, 'run_' || n, 'ses_' || n, 3, n FROM generate_series(1, {MANY}) n;
INSERT INTO sessions (pk, id, owner, name, mode, state, made_for_run, version, variables, config, created_at,
    updated_at,
  name_folded) SELECT n, 'ses_' || n, 'usr_' || n % 50, 'n', 'chat',
    CASE WHEN n % 5 = 0 THEN 'suspended' ELSE 'active' END,
  0, 1, '{{}}', '{{}}', n, n, 'n' FROM generate_series(1, {MANY}) n;
INSERT INTO lanes (place, backend, need) SELECT 'host:' || n, 'echo', '{{}}' FROM generate_series(1, 2000) n;
INSERT INTO runs (pk, id, owner, state, session_pk, session_id, host_id, place, lane, due, gate, gate_key, limited,
  not_before, mode, backend, priority, shared, created_at, updated_at, ended_at, token, attempt, turn,
    fallback, stats,
  idle_turns, sandbox_effective, change)
  SELECT n + {MANY}, 'run_' || n, 'usr_' || n % 50,
    CASE WHEN n % 10 < 6 THEN 'completed' WHEN n % 100 = 7 THEN 'running'
    ELSE 'queued' END, n, 'ses_' || n, 'hst_' || n % 20, 'host:' || n % 20, 1 + n % 20, n,
    CASE WHEN n % 10 < 6 OR n % 100 = 7 THEN NULL WHEN n % 10 = 8 THEN 'session' WHEN n % 20 = 9 THEN 'workspace'
      WHEN n % 20 = 19 THEN 'time' END,
    CASE WHEN n % 20 = 9 THEN 'k' || n % 500 END, CASE WHEN n % 100 = 16 THEN 'echo' END,
    CASE WHEN n % 20 = 19 THEN n END,
    'oneshot', 'echo', n % 3, 0, n, n, CASE WHEN n % 10 < 6 THEN n END, 1, 1, 1, 0,
    '{{"turns":1,"usage":{{}},"files":{{}},"tests":null,"wall_ms":1}}',
    0, 'none', n + {MANY}
  FROM generate_series(1, {MANY}) n;
INSERT INTO run_specs SELECT n + {MANY}, '{{"goal":"g","backend":"echo"}}', 'goal',
    '{{}}' FROM generate_series(1, {MANY}) n;
INSERT INTO run_labels SELECT n + {MANY}, 'team', 'a' || n % 20 FROM generate_series(1, {MANY}) n;
INSERT INTO run_places SELECT n + {MANY}, d, d || ':' || n FROM generate_series(1, {MANY}) n, generate_series(0, 1) d;
INSERT INTO leases (run_pk, worker_pk, token, renewal) SELECT n + {MANY}, n % 50, 1, 0 FROM generate_series(1,
    {MANY}) n;
INSERT INTO workspace_locks SELECT n + {MANY}, 0, 'hst_' || n % 20, '1:' || n, 0 FROM generate_series(1, {MANY}) n;
INSERT INTO events SELECT s, q, 'output.recorded', 1, q, 1, 'x'::bytea
  FROM generate_series(1, {2 * MANY}) s, generate_series(1, 3) q;
INSERT INTO turns (run_pk, number, attempt, state, backend, token, folder, started_at, ended_at, first_seq,
    stdout, stderr,
  items, resume_before) SELECT n + {MANY}, 1, 1, 'completed', 'echo', 1, 'f', n, n, 1, 0, 0, 0, '{{}}'
  FROM generate_series(1, {MANY}) n;
INSERT INTO inputs SELECT n + {MANY}, 1, 1, 1, 'x'::bytea FROM generate_series(1, {MANY}) n;
INSERT INTO messages (session_pk, n, role, text, at)
  SELECT n, m, 'user', 't', 1 FROM generate_series(1, {MANY}) n, generate_series(1, 2) m;
INSERT INTO approvals (id, owner, run_pk, run_id, session_pk, session_id, turn, attempt, request, kind, title,
    context,
  digest, options, state, decision, default_option, expires_at, created_at, resolved_at)
  SELECT 'apr_' || n, 'usr_' || n % 50, n + {MANY}, 'run_' || n, n, 'ses_' || n, 1, 1, 'r' || n, 'question',
    't', '{{}}',
  'd', '[]', CASE WHEN n % 20 = 0 THEN 'pending' ELSE 'resolved' END, CASE WHEN n % 20 <> 0 THEN 'x' END, 'o', n, n,
  CASE WHEN n % 20 <> 0 THEN n END FROM generate_series(1, {MANY}) n;
INSERT INTO requests (run_pk, kind, body, owner, actor, created_at, settled_at, outcome)
  SELECT n + {MANY}, 'cancel', '{{}}', 'o', 'a', n, CASE WHEN n % 20 <> 0 THEN n END,
    CASE WHEN n % 20 <> 0 THEN 'x' END
  FROM generate_series(1, {MANY}) n;
INSERT INTO queue (id, session_pk, text, actor, state, created_at, settled_at)
  SELECT 'msg_' || n, n, 't', 'a', CASE WHEN n % 20 = 0 THEN 'queued' ELSE 'sent' END, n,
  CASE WHEN n % 20 <> 0 THEN n END FROM generate_series(1, {MANY}) n;
INSERT INTO shares (id, session_pk, kind, "user", role, actor, created_at)
  SELECT 'shr_' || n, n, 'user', 'usr_' || n % 500, 'viewer', 'a', n FROM generate_series(1, {MANY}) n;
INSERT INTO tokens (id, owner, name, kind, digest, created_at)
  SELECT 'tok_' || n, 'usr_' || n % 50, 'n' || n, 'user', 'd' || n, n FROM generate_series(1, {MANY}) n;
INSERT INTO token_shares SELECT n, n FROM generate_series(1, {MANY}) n;
INSERT INTO idempotency SELECT 'o', 'r', 'k' || n, 'h', n + {MANY} FROM generate_series(1, {MANY}) n;
SET session_replication_role = origin;
ANALYZE
"""


SERIES: Final = re.compile(r"generate_series\((\d+),\s*(\d+)\) (\w)")


def fill_sqlite(link: SqliteLink) -> None:
    """The same rows in a SQLite database that is empty."""
    words = SERIES.sub(r"(SELECT i AS \3 FROM temp.series WHERE i BETWEEN \1 AND \2)", FILL)
    words = words.replace("'x'::bytea", "x'78'")
    link.script("PRAGMA foreign_keys = OFF")
    link.script("CREATE TEMP TABLE series (i INTEGER PRIMARY KEY)")
    link.script(
        f"WITH RECURSIVE given(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM given WHERE i < {2 * MANY}) "
        "INSERT INTO temp.series SELECT i FROM given"
    )
    link.script("BEGIN")
    for statement in words.split(";"):
        if statement.lstrip().startswith("INSERT"):
            link.script(statement)
    link.script("COMMIT")
    link.script("DROP TABLE temp.series")
