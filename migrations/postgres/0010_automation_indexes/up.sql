-- oldest-compatible: 0009_automation
-- Jobs of one kind in the order in which they are handed out, those that are not finished by id, and
-- the one of an authorisation, however it ended.

CREATE INDEX automation_jobs_claim_kind ON automation_jobs (tenant, kind, priority DESC, turn, id) WHERE state = 'pending';
CREATE INDEX automation_jobs_open ON automation_jobs (tenant, id) WHERE finished_at IS NULL;
CREATE INDEX automation_jobs_of_authorization ON automation_jobs (tenant, authorization_id, id) WHERE authorization_id IS NOT NULL;
