//! What the configuration may say of TLS and of client certificates.

use std::path::Path;

use tokenbroker::app;
use tokenbroker::bootstrap::StartError;
use tokenbroker::config::{Config, Sources};

use super::Site;

fn load(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Sources::new(Some(path), [])).map_err(|faults| faults.to_string())
}

/// `[grpc.tls]` with the site's files.
fn section(site: &Site) -> String {
    format!(
        "[grpc.tls]\ncert_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\n",
        site.file("tls.crt"),
        site.file("tls.key"),
        site.file("ca.crt"),
    )
}

#[test]
fn files_are_named_both_or_not_at_all_and_exist() {
    let site = Site::new();
    let file = site.file("tls.crt");
    for (text, expected) in [
        (
            format!("cert_file = {file:?}"),
            "grpc.tls.key_file: this must be set where another key of grpc.tls is",
        ),
        (
            format!("key_file = {file:?}"),
            "grpc.tls.cert_file: this must be set where another key of grpc.tls is",
        ),
        (
            format!("cert_file = {file:?}\nkey_file = \"/nowhere\""),
            "grpc.tls.key_file: /nowhere can't be read: No such file or directory (os error 2)",
        ),
        (
            "require_client_certificate = true".to_owned(),
            "grpc.tls.require_client_certificate: this needs grpc.tls.client_ca_file",
        ),
        (
            "reload_interval = \"2h\"".to_owned(),
            "grpc.tls.reload_interval: 2h is not within 1s to 1h",
        ),
    ] {
        let report = load(&format!("[grpc.tls]\n{text}\n")).unwrap_err();
        assert_eq!(report, expected);
    }
}

#[test]
fn tls_may_listen_everywhere() {
    let site = Site::new();
    let listen = "[grpc]\nlisten = \"0.0.0.0:7480\"\n";
    let report = load(listen).unwrap_err();
    assert!(report.contains("grpc.tls.cert_file"), "{report}");
    let config = load(&format!("{listen}{}", section(&site))).unwrap();
    assert!(config.grpc.tls.is_some() && !config.grpc.allow_plaintext);
}

#[test]
fn rules_for_certificates_are_checked() {
    let site = Site::new();
    let rules = r#"
        [[access.certificates]]
        name = "billing"
        spiffe_id = "spiffe://example.org/ns/prod/*"
        role = "consumer"
        owners = ["customer-*"]
        requests_per_second = 5
        [[access.certificates]]
        name = "host"
        tenant = "acme"
        dns_name = "Host.example.org"
        role = "issuer_ui"
        link_only = true
    "#;
    let config = load(&format!("{}{rules}", section(&site))).unwrap();
    let [billing, host] = config.access.certificates.as_slice() else {
        panic!("{:?}", config.access);
    };
    assert_eq!(billing.granted.rate_limit.unwrap().burst, 5);
    assert_eq!(billing.granted.constraints.owners, ["customer-*"]);
    assert_eq!(
        (
            host.granted.tenant.as_str(),
            host.granted.constraints.link_only
        ),
        ("acme", true)
    );

    let unasked = load(rules).unwrap_err();
    assert_eq!(
        unasked,
        "access.certificates.0: no client certificate is ever asked for: set grpc.tls.client_ca_file"
    );
    let faulty = r#"
        [[access.certificates]]
        name = "a b"
        role = "user"
        [[access.certificates]]
        name = "b"
        spiffe_id = "spiffe://Example.org/x"
        dns_name = "x"
        role = "admin"
        burst = 3
        [[access.certificates]]
        name = "b"
        spiffe_id = "https://example.org/x"
        role = "admin"
        [[access.certificates]]
        name = "c"
        dns_name = "*.example.org"
    "#;
    let report = load(&format!("{}{faulty}", section(&site))).unwrap_err();
    let keys: Vec<&str> = report
        .lines()
        .filter_map(|line| line.strip_prefix("access.certificates.")?.split(':').next())
        .collect();
    assert_eq!(
        keys,
        [
            "0.name",
            "0.role",
            "0.spiffe_id",
            "1.burst",
            "1.dns_name",
            "2.name",
            "2.spiffe_id",
            "3.dns_name",
            "3.role"
        ],
        "{report}"
    );
}

/// What a start says of these files, and `check-config` with it.
fn refused(site: &Site, file: &str, content: &str) -> String {
    let config = load(&section(site)).unwrap();
    app::check(&config).unwrap();
    write(&site.file(file), content);
    match app::check(&config) {
        Err(StartError::Config(faults)) => faults.to_string(),
        other => panic!("{other:?}"),
    }
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
}

#[test]
fn broken_files_are_found_before_the_start() {
    let other = Site::new().identity;
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (file, content, key, problem) in [
        ("tls.crt", "", "cert_file", "holds no certificate in PEM"),
        (
            "tls.crt",
            "-----BEGIN CERTIFICATE-----\n",
            "cert_file",
            "is not PEM",
        ),
        ("tls.key", &other.key, "key_file", "is not the key of"),
        (
            "tls.key",
            encrypted,
            "key_file",
            "holds no private key in PEM that is not encrypted",
        ),
        (
            "ca.crt",
            "nothing",
            "client_ca_file",
            "holds no certificate in PEM",
        ),
    ] {
        let report = refused(&Site::new(), file, content);
        assert!(report.starts_with(&format!("grpc.tls.{key}: ")), "{report}");
        assert!(report.contains(problem), "{report}");
    }
}
