-- oldest-compatible: 0009_automation
-- Jobs of one kind in the order in which they are handed out, those that are not finished by id, and
-- the one of an authorisation, however it ended.

CREATE INDEX automation_jobs_claim_kind ON automation_jobs (tenant, kind, priority DESC, turn, id) WHERE state = 'pending';
CREATE INDEX automation_jobs_open ON automation_jobs (tenant, id) WHERE finished_at IS NULL;
CREATE INDEX automation_jobs_of_authorization ON automation_jobs (tenant, authorization_id, id) WHERE authorization_id IS NOT NULL;

-- Of indexes that look equally good SQLite takes the newest: these find fewer than the one above.
DROP INDEX automation_jobs_account;
DROP INDEX automation_jobs_profile;
CREATE INDEX automation_jobs_account ON automation_jobs (account_id) WHERE account_id IS NOT NULL AND finished_at IS NULL;
CREATE INDEX automation_jobs_profile ON automation_jobs (profile_id) WHERE profile_id IS NOT NULL AND finished_at IS NULL;
