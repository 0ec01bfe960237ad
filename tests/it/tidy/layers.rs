//! The tables: who may use what.

/// Each module below the crate's root, and the others that it may use.
pub const MAY_USE: &[(&str, &str)] = &[
    // Leaves. The error names the causes that it can have.
    ("model", ""),
    ("clock", "model"),
    ("config", "model"),
    ("error", "crypto model store"),
    ("freshness", ""),
    ("pb", ""),
    ("tasks", "error"),
    ("telemetry", "config"),
    // What the domain is built on. They don't know each other.
    ("crypto", "clock model"),
    ("oauth", "clock config model"),
    ("store", "error model"),
    // The domain: no sibling but access. The broker asks the registry for apps and providers.
    (
        "access",
        "clock config crypto error freshness model oauth store",
    ),
    (
        "broker",
        "access clock config crypto error freshness model oauth registry store tasks telemetry",
    ),
    (
        "registry",
        "access clock config crypto error freshness model oauth store tasks telemetry",
    ),
    (
        "issuer",
        "access clock config crypto error freshness model oauth store telemetry",
    ),
    (
        "automation",
        "access clock config crypto error model store telemetry",
    ),
    (
        "maintenance",
        "access clock config crypto error model store telemetry",
    ),
    // The edges: the domain and what it gives back, never what is below it.
    (
        "grpc",
        "access automation broker clock config error issuer maintenance model pb registry tasks telemetry",
    ),
    (
        "web",
        "access broker clock config error issuer model registry tasks telemetry",
    ),
    // The loops also write down what was counted in memory.
    (
        "workers",
        "access automation broker clock config error issuer maintenance model registry store tasks telemetry",
    ),
    // Start-up.
    ("bootstrap", "access clock config crypto error model store"),
    (
        "server",
        "access bootstrap clock config error grpc model pb tasks telemetry web",
    ),
    (
        "app",
        "access automation bootstrap broker clock config crypto error freshness grpc issuer maintenance model \
         oauth registry server store tasks telemetry web workers",
    ),
    (
        "cli",
        "access app bootstrap broker clock config error freshness maintenance model pb store telemetry",
    ),
    ("main", "cli"),
];

/// Crates that only these modules may use.
pub const CRATES: &[(&str, &str)] = &[
    (
        "bb8 diesel diesel_async libsqlite3_sys tokio_postgres tokio_postgres_rustls",
        "store",
    ),
    ("oauth2 reqwest", "oauth"),
    ("axum", "web server"),
    ("hyper hyper_util", "server"),
    ("askama", "web"),
    ("tokio_rustls x509_cert", "server"),
    (
        "prost prost_types tonic tonic_health tonic_prost tonic_reflection tonic_types",
        "grpc server app pb",
    ),
    (
        "argon2 chacha20poly1305 getrandom hmac jsonwebtoken ring sha2 subtle totp_rs",
        "crypto",
    ),
    ("anstream anstyle clap rpassword rustix", "cli"),
    ("governor", "access"),
    (
        "opentelemetry opentelemetry_otlp opentelemetry_sdk tracing_opentelemetry",
        "telemetry",
    ),
];

/// Single files that may do what their folder may not, and why.
pub const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "src/store/migrate.rs",
        "sha2",
        "checksums of migrations are no secrets, and the store does not use crypto",
    ),
    (
        "src/cli/demo/calls.rs",
        "tonic",
        "the demo calls its own service as others do",
    ),
    (
        "src/cli/demo/calls.rs",
        "prost_types",
        "some fields of what it sends are of these types",
    ),
    (
        "src/cli/work/calls.rs",
        "tonic",
        "a worker is a client, wherever it runs; the binary that has the service brings it along",
    ),
    (
        "src/cli/work/calls.rs",
        "tonic_types",
        "a lost lease is told by the reason in the error's details",
    ),
    (
        "src/cli/work/calls.rs",
        "prost_types",
        "some fields of what it gets are of these types",
    ),
    (
        "src/cli/demo/person.rs",
        "reqwest",
        "the demo's person has a browser, which must not be the client for providers",
    ),
];

/// Whether a list of a table names this.
pub fn lists(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|listed| listed == name)
}

/// Whether this file may use what its folder may not.
pub fn is_exception(path: &str, name: &str) -> bool {
    EXCEPTIONS
        .iter()
        .any(|(file, what, _)| *file == path && *what == name)
}
