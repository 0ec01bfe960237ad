//! What the sources make of a configuration, and what the report of faults says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;

use super::reader::Reader;
use super::sources::{DEFAULTS, Sources};
use super::{Config, Engine, Environment, LogFormat, Reflection, TlsMode};

/// Loads `file` under the variables.
fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Sources::new(Some(path), variables)).map_err(|faults| faults.to_string())
}

fn faults(file: &str) -> String {
    load(file, &[]).unwrap_err()
}

fn postgres_url(config: &Config) -> &str {
    match &config.database.engine {
        Engine::Postgres { url, .. } => url.expose_secret(),
        Engine::Sqlite { path } => panic!("SQLite at {}", path.display()),
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = Config::load(Sources::default()).unwrap();
    assert_eq!(config.environment, Environment::Development);
    assert_eq!(config.data_dir, Path::new("tokenbroker-data"));
    assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:7480");
    assert!(!config.grpc.allow_plaintext);
    assert_eq!(config.grpc.reflection, Reflection::Auto);
    assert!(config.grpc.offers_reflection());
    assert_eq!(config.grpc.max_message_bytes, 1 << 20);
    assert_eq!(config.grpc.max_concurrent_streams, 1024);
    assert_eq!(config.web.public_url.as_str(), "http://127.0.0.1:7481/");
    assert!(config.issuer.listen.is_none());
    assert_eq!(config.issuer.identifier(), "http://127.0.0.1:7482");
    assert_eq!(config.issuer.code_lifetime, Duration::from_secs(60));
    assert!(config.issuer.interaction_url.is_none());
    assert!(config.issuer.scopes.is_empty());
    let Engine::Sqlite { path } = &config.database.engine else {
        panic!("the default engine is SQLite");
    };
    assert_eq!(path, Path::new("tokenbroker-data/tokenbroker.db"));
    assert_eq!(config.database.pool_size, 20);
    assert_eq!(config.database.tls, TlsMode::Prefer);
    let key_file = Path::new("tokenbroker-data/keys.toml");
    assert_eq!(config.keys.file.as_deref(), Some(key_file));
    assert!(config.keys.inline.is_empty());
    assert_eq!(config.journal.dir, Path::new("tokenbroker-data/journal"));
    assert_eq!(config.cache.capacity, 100_000);
    assert_eq!(config.refresh.lease, Duration::from_secs(45));
    assert_eq!(config.refresh.http_timeout, Duration::from_secs(20));
    assert_eq!(config.refresh.margin_share, 0.3);
    assert_eq!(config.events.retention, Duration::from_secs(7 * 86_400));
    assert_eq!(config.backup.dir, Path::new("backups"));
    assert_eq!(config.telemetry.log_format, LogFormat::Auto);
    assert!(config.telemetry.otlp_endpoint.is_none());
    assert!(config.apps.is_empty());
}

#[test]
fn the_defaults_file_holds_every_key_and_no_other() {
    let mut reader = Reader::new(Sources::default());
    Config::read(&mut reader).unwrap();
    let asked: BTreeSet<String> = reader.asked().map(str::to_owned).collect();
    let mut faults = Vec::new();
    let entries = super::sources::defaults(&mut faults);
    let written: BTreeSet<String> = entries.keys().cloned().collect();
    assert_eq!(asked, written);
}

#[test]
fn every_key_of_the_defaults_file_is_explained() {
    let mut previous = "";
    for line in DEFAULTS.lines() {
        let is_key = line.contains(" = ") && !line.starts_with('#');
        // Keys that follow each other share the comment above the first.
        assert!(
            !is_key || previous.starts_with('#') || previous.contains(" = "),
            "{line} has no comment"
        );
        previous = line;
    }
}

#[test]
fn all_faults_are_reported_at_once_each_with_its_key() {
    let report = faults(
        r#"
        environment = "staging"
        nonsense = 1
        cache = 3
        [refresh]
        lease = "abc"
        batch = "many"
        jitter = 2.0
        backoff_max = 30
        leese = "45s"
        [web]
        public_url = "http://broker.example.com"
        [providers]
        allowed_networks = ["10.0.0.0/8", "ten"]
        [telemetry]
        otlp_endpoint = "nowhere"
        log_filter = "tokenbroker=loud"
        [journal]
        dir = "~/journal"
        "#,
    );
    let expected = r#"cache: this is a section; it has keys, not a value
environment: "staging" is none of development, production
journal.dir: "~/journal" begins with "~", which only a shell expands
nonsense: unknown key
providers.allowed_networks: "ten" is not a network such as "10.1.0.0/16"
refresh.backoff_max: 30 is not a duration such as "30s"
refresh.batch: "many" is not a whole number
refresh.jitter: 2 is not within 0 to 0.5
refresh.lease: "abc" is not a duration such as "30s"
refresh.leese: unknown key
telemetry.log_filter: "tokenbroker=loud" is not a filter such as "info": error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
telemetry.otlp_endpoint: "nowhere" is not a URL: relative URL without a base
web.public_url: http is for loopback addresses only; browsers need https here"#;
    assert_eq!(report, expected);
}

#[test]
fn a_variable_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = "[refresh]\nlease = \"60s\"\nhttp_timeout = \"10s\"\n";
    let variables = [
        ("TOKENBROKER__REFRESH__LEASE", "90s"),
        ("TOKENBROKER__REFRESH__BATCH", "7"),
        ("TOKENBROKER__DATA_DIR", "\"/srv/broker\""),
        ("TOKENBROKER__GRPC__MAX_MESSAGE_BYTES", "2 MiB"),
        (
            "TOKENBROKER__PROVIDERS__ALLOWED_NETWORKS",
            "10.0.0.0/8,fd00::/8",
        ),
        ("TOKENBROKER_CONFIG", "ignored here"),
        ("TOKENBROKER_API_KEY", "not a key of the configuration"),
        ("TOKENBROKER_PORT", "tcp://10.0.0.1:7480"),
    ];
    let config = load(file, &variables).unwrap();
    assert_eq!(config.refresh.lease, Duration::from_secs(90));
    assert_eq!(config.refresh.http_timeout, Duration::from_secs(10));
    assert_eq!(config.refresh.batch, 7);
    assert_eq!(config.refresh.concurrency, 32);
    assert_eq!(config.data_dir, Path::new("/srv/broker"));
    assert_eq!(config.grpc.max_message_bytes, 2 << 20);
    assert_eq!(config.providers.allowed_networks.len(), 2);
}

#[test]
fn a_fault_of_a_variable_names_it() {
    let report = load("", &[("TOKENBROKER__REFRESH__LEES", "90s")]).unwrap_err();
    assert_eq!(
        report,
        "refresh.lees: unknown key (set by TOKENBROKER__REFRESH__LEES)"
    );
}

#[test]
fn the_http_deadline_must_fit_into_the_lease() {
    let report = faults("[refresh]\nlease = \"20s\"\nhttp_timeout = \"16s\"\n");
    assert_eq!(
        report,
        "refresh.http_timeout: 16s does not fit into refresh.lease (20s) with 5s to spare"
    );
    load("[refresh]\nlease = \"21s\"\nhttp_timeout = \"16s\"\n", &[]).unwrap();
}

#[test]
fn a_batch_that_would_have_no_effect_is_refused() {
    let report = faults("[retention]\nbatch = 10001\n");
    assert_eq!(report, "retention.batch: 10001 is not within 1 to 10000");
}

#[test]
fn passwords_are_hashed_at_owasps_least_or_more() {
    let report = faults("[passwords]\nmemory = 19455\niterations = 1\nmax_delay = \"1s\"\n");
    for fault in ["passwords.memory: ", "passwords.iterations: "] {
        assert!(report.contains(fault), "{report}");
    }
    let report = faults("[passwords]\nbase_delay = \"2s\"\nmax_delay = \"1s\"\n");
    assert_eq!(
        report,
        "passwords.base_delay: this must not exceed passwords.max_delay"
    );
    let defaults = Config::load(Sources::default()).unwrap().passwords;
    let cost = (defaults.memory, defaults.iterations, defaults.parallelism);
    assert_eq!(cost, (19_456, 2, 1));
}

#[test]
fn plaintext_off_loopback_must_be_asked_for() {
    let report = faults("[grpc]\nlisten = \"0.0.0.0:7480\"\n");
    assert!(report.starts_with("grpc.listen: 0.0.0.0:7480 is not a loopback address"));
    let config = load(
        "[grpc]\nlisten = \"0.0.0.0:7480\"\nallow_plaintext = true\n",
        &[],
    )
    .unwrap();
    assert!(!config.grpc.offers_reflection());
}

#[test]
fn a_secret_can_come_from_a_file_and_never_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "hunter2/@\n").unwrap();
    let variables = [
        ("TOKENBROKER__DATABASE__HOST", "db.example.com"),
        (
            "TOKENBROKER__DATABASE__PASSWORD_FILE",
            path.to_str().unwrap(),
        ),
    ];
    let config = load("", &variables).unwrap();
    assert_eq!(
        postgres_url(&config),
        "postgres://tokenbroker:hunter2%2F%40@db.example.com:5432/tokenbroker"
    );
    assert!(!format!("{config:?}").contains("hunter2"));

    // A variable replaces what the file says; two of one source are a fault.
    let file = "[database]\nhost = \"db\"\npassword = \"old\"\n";
    let from_file = load(file, &variables[1..]).unwrap();
    assert!(postgres_url(&from_file).contains("hunter2"));
    let both = format!("{file}password_file = {path:?}\n");
    assert_eq!(
        faults(&both),
        "database.password: set either this or database.password_file, not both"
    );
    let report = faults("[database]\nhost = \"db\"\npassword_file = \"missing-file\"\n");
    assert!(report.starts_with("database.password_file: missing-file can't be read: "));
}

#[test]
fn faults_never_quote_a_secret() {
    let broken = faults("[database]\npassword = \"hunter2\nhost = \"db\"\n");
    assert!(broken.contains("line 2 is not TOML"), "{broken}");
    assert!(!broken.contains("hunter2"), "{broken}");
    let report = faults(
        r#"
        [database]
        url = "mysql://root:hunter2@db/x"
        [keys]
        entries = ["k1hunter2", "k2:hunter2"]
        "#,
    );
    assert!(!report.contains("hunter2"), "{report}");
    assert_eq!(report.lines().count(), 3, "{report}");
}

#[test]
fn the_database_is_named_by_url_or_by_parts() {
    let config = load("[database]\nurl = \"sqlite:other.db\"\n", &[]).unwrap();
    let Engine::Sqlite { path } = &config.database.engine else {
        panic!("this is a SQLite URL");
    };
    assert_eq!(path, &PathBuf::from("other.db"));

    let url = "postgres://u@a:5432,b:5433/db?sslmode=verify-full&application_name=x";
    let file = format!("[database]\nurl = {url:?}\npassword = \"p w\"\nschema = \"broker\"\n");
    let config = load(&file, &[]).unwrap();
    assert_eq!(
        postgres_url(&config),
        "postgres://u:p%20w@a:5432,b:5433/db?application_name=x"
    );
    assert_eq!(config.database.tls, TlsMode::Require);
    assert!(config.keys.file.is_none());

    let variables = [("TOKENBROKER__DATABASE__HOST", "/run/postgresql")];
    let config = load(&file, &variables).unwrap();
    assert!(postgres_url(&config).contains("@%2Frun%2Fpostgresql:5432/tokenbroker"));

    for (file, key) in [
        ("url = \"sqlite::memory:\"", "database.url"),
        ("url = \"postgres:///db\"", "database.url"),
        ("url = \"postgres://h:99999/db\"", "database.url"),
        ("url = \"postgres://h/db\"\nhost = \"h\"", "database.host"),
        ("user = \"u\"", "database.user"),
        ("host = \"h\"\nschema = \"a; drop\"", "database.schema"),
        (
            "url = \"postgres://h/db?sslmode=require\"\ntls = \"disable\"",
            "database.tls",
        ),
    ] {
        let report = faults(&format!("[database]\n{file}\n"));
        assert!(report.starts_with(&format!("{key}: ")), "{file}: {report}");
        assert_eq!(report.lines().count(), 1, "{file}: {report}");
    }
}

#[test]
fn keys_can_be_given_in_a_variable() {
    let key = STANDARD.encode([7; 32]);
    let entries = format!("[\"k1:{key}\"]");
    let variables = [("TOKENBROKER__KEYS__ENTRIES", entries.as_str())];
    let config = load("", &variables).unwrap();
    let (id, secret) = config.keys.inline.first().unwrap();
    assert_eq!((id.as_str(), secret.expose_secret()), ("k1", key.as_str()));
    assert!(config.keys.file.is_none());
    assert!(!format!("{:?}", config.keys).contains(&key));

    let report = load("[keys]\nactive = \"k2\"\n", &variables).unwrap_err();
    assert_eq!(report, "keys.active: keys.entries has no key \"k2\"");
}

#[test]
fn apps_are_declared_with_secrets_from_anywhere() {
    let file = r#"
        [[apps]]
        provider = "github"
        client_id = "a"
        client_secret_env = "GITHUB_SECRET"
        scopes = ["repo", "repo", "read:user"]
        allowed_return_urls = ["https://app.example.com/done"]
        [[apps]]
        tenant = "acme"
        provider = "microsoft"
        client_id = "b"
        variables = { tenant = "common" }
    "#;
    let variables = [
        ("GITHUB_SECRET", "s1"),
        ("TOKENBROKER__APPS__1__CLIENT_SECRET", "s2"),
    ];
    let config = load(file, &variables).unwrap();
    let [first, second] = config.apps.as_slice() else {
        panic!("{} apps", config.apps.len());
    };
    assert_eq!(first.tenant, "default");
    assert_eq!(first.client_secret.as_ref().unwrap().expose_secret(), "s1");
    assert_eq!(first.scopes, ["repo", "read:user"]);
    assert_eq!(second.client_secret.as_ref().unwrap().expose_secret(), "s2");
    assert_eq!(second.variables.get("tenant").unwrap(), "common");

    let report = faults(
        r#"
        [[apps]]
        client_id = "a"
        client_secret_env = "NOT_SET_ANYWHERE"
        colour = "red"
        allowed_return_urls = ["javascript:alert(1)"]
        "#,
    );
    let expected = r#"apps.0.allowed_return_urls: "javascript:alert(1)" is not an https URL (http is for loopback only)
apps.0.client_secret_env: the environment variable NOT_SET_ANYWHERE is not set
apps.0.colour: unknown key
apps.0.provider: this key must be set"#;
    assert_eq!(report, expected);
}

#[test]
fn a_public_url_keeps_its_path_prefix() {
    let config = load("[web]\npublic_url = \"https://example.com/broker\"\n", &[]).unwrap();
    let callback = config.web.public_url.join("callback/app_1").unwrap();
    assert_eq!(
        callback.as_str(),
        "https://example.com/broker/callback/app_1"
    );
    for url in [
        "https://u:p@example.com",
        "https://example.com/?x=1",
        "ftp://example.com",
    ] {
        let report = faults(&format!("[web]\npublic_url = {url:?}\n"));
        assert!(report.starts_with("web.public_url: "), "{report}");
    }
}

#[test]
fn the_issuer_is_one_address_and_scopes_have_words() {
    let file = r#"
        [issuer]
        listen = "127.0.0.1:7480"
        url = "http://auth.example.com"
        interaction_url = "http://login.example.com/?a=b"
        refresh_grace = "6m"
        resources = ["https://api.example.com/#x"]
        [issuer.scopes]
        "files.read" = "See your files"
        "a b" = "x"
    "#;
    let expected = r#"issuer.interaction_url: this must be https (http is for loopback addresses only)
issuer.listen: another listener has this address already
issuer.refresh_grace: 6m is not within 0s to 5m
issuer.resources: "https://api.example.com/#x" is not an absolute URI without a fragment
issuer.scopes.a b: the name is no scope: visible ASCII without quotes and backslashes
issuer.url: http is for loopback addresses only; browsers need https here"#;
    assert_eq!(faults(file), expected);
    let file =
        "[issuer]\nurl = \"https://a.example/b/\"\n[issuer.scopes]\n\"files.read\" = \"See\"\n";
    let issuer = load(file, &[]).unwrap().issuer;
    assert_eq!(
        issuer.endpoint("oauth2/token"),
        "https://a.example/b/oauth2/token"
    );
    assert_eq!(issuer.scopes["files.read"], "See");
}

#[test]
fn clients_elsewhere_are_not_sent_to_their_own_machine() {
    let public = "[web]\npublic_url = \"https://b.example\"\n[issuer]\n";
    let listening = format!("{public}listen = \"127.0.0.1:7482\"\n");
    assert_eq!(
        faults(&listening),
        "issuer.url: this is a loopback address, while web.public_url is not: clients can't reach it"
    );
    load(&format!("{listening}url = \"https://a.example\"\n"), &[]).unwrap();
    // Off, it harms nobody: there is a warning alone.
    let config = load(public, &[]).unwrap();
    assert!(config.issuer.is_out_of_reach(&config.web));
}

#[test]
fn defaults_for_tests_keep_everything_in_one_folder() {
    let config = Config::defaults(Path::new("/srv/a \"quoted\" folder")).unwrap();
    let journal = Path::new("/srv/a \"quoted\" folder/journal");
    assert_eq!(config.journal.dir, journal);
}
