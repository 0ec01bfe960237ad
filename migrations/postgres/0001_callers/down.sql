DROP TABLE sign_in_failures;
DROP TABLE spent_refresh_tokens;
DROP TABLE sessions;
DROP TABLE user_preferences;
DROP TABLE users;
DROP TABLE idempotent_requests;
DROP TABLE api_keys;
