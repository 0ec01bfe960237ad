DROP VIEW oauth_connections;
