DROP INDEX automation_jobs_open;
DROP INDEX automation_jobs_claim_kind;
