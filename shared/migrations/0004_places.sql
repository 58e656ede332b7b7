-- No agent and no token holds all places of the workers, and a clock that was ahead hides no job. Jobs from before, and
-- those of a process of the version before that still runs, belong to nobody and were set at the beginning of time: they are
-- delivered as ever.
ALTER TABLE jobs ADD COLUMN lane TEXT NOT NULL DEFAULT '';    -- JSON: for which agent, and who asked
ALTER TABLE jobs ADD COLUMN set_at BIGINT NOT NULL DEFAULT 0; -- when visible_at was set
CREATE INDEX jobs_by_lane ON jobs (lane, visible_at, created_at, tenant, id) WHERE state = 'pending';
CREATE INDEX jobs_by_set ON jobs (set_at) WHERE state = 'pending';
CREATE INDEX jobs_dead ON jobs (set_at) WHERE state = 'dead';
