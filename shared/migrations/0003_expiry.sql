-- Idempotency records and jobs that are done are forgotten after a while: what stands here already, 30 days after a turn was
-- accepted or a claim ran out, 14 days after the last delivery of a job. What a process of the version before writes while
-- it still runs is kept for good.
ALTER TABLE idempotency ADD COLUMN expires_at BIGINT NOT NULL DEFAULT 9223372036854775807;
UPDATE idempotency SET expires_at = 2592000000 + COALESCE(claimed_until, (
  SELECT turns.accepted_at FROM turns
  WHERE turns.tenant = idempotency.tenant AND turns.id = idempotency.turn_id), 0);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);
ALTER TABLE jobs ADD COLUMN expires_at BIGINT; -- of a job that is done
UPDATE jobs SET expires_at = visible_at + 1209600000 WHERE state = 'done';
CREATE INDEX jobs_by_expiry ON jobs (expires_at) WHERE expires_at IS NOT NULL;
