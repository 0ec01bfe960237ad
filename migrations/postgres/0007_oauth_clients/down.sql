DROP VIEW oauth_client_stats;
DROP VIEW active_oauth_clients;
DROP TABLE oauth_client_usage;
DROP TABLE oauth_client_secrets;
DROP TABLE oauth_clients;
