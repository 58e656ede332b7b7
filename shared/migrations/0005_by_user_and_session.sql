-- Sessions of one end user are found by an index; so are the jobs of a session, which go with it.
CREATE INDEX sessions_by_user ON sessions (tenant, user_id, updated_at) WHERE user_id IS NOT NULL;
ALTER TABLE jobs ADD COLUMN session_key TEXT;         -- for which it works; NULL in what a process of the version before wrote
ALTER TABLE jobs ADD COLUMN delivered BIGINT NOT NULL DEFAULT 0; -- 1 from a delivery to its settlement
-- SQLite's JSON functions; PostgreSQL: work::json ->> 'session'.
UPDATE jobs SET session_key = CASE WHEN json_valid(work) THEN json_extract(work, '$.session') END;
CREATE INDEX jobs_by_session ON jobs (session_key, tenant) WHERE session_key IS NOT NULL;
