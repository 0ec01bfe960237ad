DROP VIEW oauth_client_stats;
CREATE VIEW oauth_client_stats AS
SELECT
    c.id, c.tenant, c.name, c.state, coalesce(u.authorizations, 0) AS authorizations,
    coalesce(u.tokens, 0) AS tokens, u.last_used_at, c.created_at
FROM oauth_clients c
LEFT JOIN oauth_client_usage u ON u.client_id = c.id
WHERE c.deleted_at IS NULL;
DROP TABLE spent_proofs;
DROP TABLE issuer_keys;
DROP TABLE issued_tokens;
DROP TABLE authorization_codes;
DROP TABLE authorization_requests;
DROP TABLE device_authorizations;
DROP TABLE issued_grants;
DROP INDEX oauth_client_secrets_expires;
DROP INDEX oauth_clients_deleted;
ALTER TABLE oauth_clients DROP COLUMN require_pushed;
ALTER TABLE oauth_clients DROP COLUMN dpop_bound;
ALTER TABLE oauth_clients DROP COLUMN access_token_format;
