-- A turn that was resumed again and again without a new step is given up.
ALTER TABLE sessions ADD COLUMN tries BIGINT NOT NULL DEFAULT 0; -- resumptions of turn_id since its newest message
