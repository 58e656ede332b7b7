-- Sessions, transcripts, turns, jobs, tokens, idempotency and the audit trail.
--
-- Portable between SQLite and PostgreSQL: TEXT and BIGINT only, times in milliseconds since the Unix epoch (UTC), JSON
-- as TEXT. SQLite reads the mark /*clustered*/ as WITHOUT ROWID: rows live in the primary key's tree, one page write
-- instead of two. Texts are compared byte by byte: a PostgreSQL database needs the collation "C".

-- One row per session key: the head. Replaced by each turn; everything that grows stands elsewhere.
CREATE TABLE sessions (
  tenant TEXT NOT NULL,
  session_key TEXT NOT NULL,
  id TEXT NOT NULL,                     -- of the present transcript
  agent_id TEXT NOT NULL,
  user_id TEXT,
  channel TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  epoch BIGINT NOT NULL,
  seq BIGINT NOT NULL,                  -- position of the newest message
  summarised_through BIGINT NOT NULL,
  fence BIGINT NOT NULL,                -- grows with each lease
  turn_id TEXT,                         -- the turn at work or interrupted
  lease_until BIGINT,
  audit_hash TEXT NOT NULL,             -- newest of the transcript's audit chain
  audit_n BIGINT NOT NULL,
  PRIMARY KEY (tenant, session_key)
) /*clustered*/;
CREATE UNIQUE INDEX sessions_by_id ON sessions (tenant, id);
CREATE INDEX sessions_by_time ON sessions (tenant, updated_at);
CREATE INDEX sessions_by_agent ON sessions (tenant, agent_id, updated_at);
CREATE INDEX sessions_at_work ON sessions (lease_until) WHERE turn_id IS NOT NULL;

-- Transcripts that a reset put away; they go when the session is deleted.
CREATE TABLE past_transcripts (
  tenant TEXT NOT NULL,
  session_key TEXT NOT NULL,
  session_id TEXT NOT NULL,
  PRIMARY KEY (tenant, session_key, session_id)
) /*clustered*/;

CREATE TABLE messages (
  tenant TEXT NOT NULL,
  session_id TEXT NOT NULL,
  epoch BIGINT NOT NULL,
  seq BIGINT NOT NULL,
  turn_id TEXT NOT NULL,
  role TEXT NOT NULL,
  content TEXT NOT NULL,                -- JSON
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant, session_id, epoch, seq)
) /*clustered*/;

CREATE TABLE turns (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  session_key TEXT NOT NULL,
  session_id TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  principal TEXT NOT NULL,
  user_id TEXT,
  channel TEXT NOT NULL,
  options TEXT NOT NULL,                -- JSON
  accepted_at BIGINT NOT NULL,
  ended_at BIGINT,
  status TEXT,                          -- done, failed, parked; NULL before its end
  outcome TEXT,                         -- JSON
  input_through BIGINT NOT NULL,        -- position of its last input message
  idempotency_key TEXT,
  fingerprint TEXT,
  PRIMARY KEY (tenant, id)
) /*clustered*/;
CREATE INDEX turns_by_session ON turns (session_key, tenant);
CREATE INDEX turns_parked ON turns (tenant, ended_at) WHERE status = 'parked';

-- One namespace for turns and for other requests: turn_id says which.
CREATE TABLE idempotency (
  tenant TEXT NOT NULL,
  principal TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  turn_id TEXT,
  claimed_until BIGINT,
  answer TEXT,                          -- JSON
  PRIMARY KEY (tenant, principal, idempotency_key)
) /*clustered*/;

CREATE TABLE audit (
  tenant TEXT NOT NULL,
  session_key TEXT NOT NULL,
  session_id TEXT NOT NULL,
  n BIGINT NOT NULL,                    -- position in the transcript's chain, from 1
  id TEXT NOT NULL,
  at BIGINT NOT NULL,
  agent_id TEXT NOT NULL,
  turn_id TEXT NOT NULL,
  principal TEXT NOT NULL,
  action TEXT NOT NULL,
  detail TEXT NOT NULL,                 -- JSON
  previous TEXT NOT NULL,
  hash TEXT NOT NULL,
  PRIMARY KEY (tenant, session_key, session_id, n)
) /*clustered*/;
CREATE INDEX audit_by_time ON audit (tenant, at, session_key, session_id, n);

CREATE TABLE jobs (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  work TEXT NOT NULL,                   -- JSON
  state TEXT NOT NULL,                  -- pending, done, dead
  attempts BIGINT NOT NULL,
  token BIGINT NOT NULL,                -- grows with each delivery and settlement
  created_at BIGINT NOT NULL,
  visible_at BIGINT NOT NULL,
  reason TEXT,
  PRIMARY KEY (tenant, id)
) /*clustered*/;
CREATE INDEX jobs_due ON jobs (visible_at, created_at, tenant, id) WHERE state = 'pending';
CREATE INDEX jobs_by_time ON jobs (tenant, created_at, id);

CREATE TABLE tokens (
  id TEXT NOT NULL,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  secret_sha256 TEXT NOT NULL,
  scopes TEXT NOT NULL,                 -- JSON
  agents TEXT,                          -- JSON
  cidrs TEXT,                           -- JSON
  rate_limit TEXT,                      -- JSON
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  revoked_at BIGINT,
  PRIMARY KEY (id)
) /*clustered*/;
CREATE INDEX tokens_by_tenant ON tokens (tenant, created_at, id);
