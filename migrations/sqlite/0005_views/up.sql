-- oldest-compatible: 0005_views
-- What operators and reports read: each connection and how its token stands.

CREATE VIEW oauth_connections AS
SELECT
    c.id, c.tenant, c.owner, c.provider, c.app_id, c.kind, c.account_id, c.display_name, c.email,
    c.team_id, c.provider_tenant_id, g.scopes, g.expires_at, g.refresh_expires_at,
    g.last_refreshed_at, u.last_used_at, c.created_at, p.email AS user_email,
    CASE
        WHEN c.state = 'revoked' OR g.state = 'revoked' THEN 'revoked'
        WHEN c.state = 'pending' THEN 'pending'
        WHEN g.state = 'reauthorization_required' THEN 'reauthorization_required'
        WHEN g.expires_at IS NULL THEN 'valid'
        WHEN g.expires_at > CAST(unixepoch('subsec') * 1000000 AS integer) + 3600000000 THEN 'valid'
        WHEN g.refresh_token IS NOT NULL AND g.expires_at > CAST(unixepoch('subsec') * 1000000 AS integer) THEN 'valid'
        WHEN g.refresh_token IS NOT NULL THEN 'refreshable'
        WHEN g.expires_at > CAST(unixepoch('subsec') * 1000000 AS integer) THEN 'expiring'
        ELSE 'expired'
    END AS token_status
FROM connections c
JOIN grants g ON g.id = c.grant_id
LEFT JOIN connection_usage u ON u.connection_id = c.id
-- At most one: owners are unique among users who are not deleted.
LEFT JOIN users p ON p.tenant = c.tenant AND p.owner = c.owner AND p.deleted_at IS NULL;
