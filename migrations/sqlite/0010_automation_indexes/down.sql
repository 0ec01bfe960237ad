DROP INDEX automation_jobs_of_authorization;
DROP INDEX automation_jobs_open;
DROP INDEX automation_jobs_claim_kind;
