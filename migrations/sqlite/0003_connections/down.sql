DROP TABLE sync_records;
DROP TABLE refresh_attempts;
DROP TABLE authorization_visits;
DROP TABLE authorizations;
DROP TABLE connection_usage;
DROP TABLE connections;
DROP TABLE grants;
