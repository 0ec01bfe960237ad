DROP TABLE apps;
DROP TABLE providers;
