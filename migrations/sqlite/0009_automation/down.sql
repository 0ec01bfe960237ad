-- The binary before knows nothing of these, and refuses to read them.
DELETE FROM events WHERE job_id IS NOT NULL OR batch_id IS NOT NULL OR type = 'authorization_ended';
ALTER TABLE events DROP COLUMN detail;
ALTER TABLE events DROP COLUMN batch_id;
ALTER TABLE events DROP COLUMN job_id;
DROP TABLE automation_jobs;
DROP TABLE automation_batches;
DROP TABLE automation_profiles;
DROP TABLE automation_accounts;
