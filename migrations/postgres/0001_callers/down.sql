DROP TABLE idempotent_requests;
DROP TABLE api_keys;
