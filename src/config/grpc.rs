//! `[grpc]`: the gRPC listener.

use std::net::SocketAddr;
use std::time::Duration;

use super::reader::Reader;
use super::{MINUTE, SECOND, Tls};

/// The gRPC listener.
#[derive(Clone, Debug)]
pub struct Grpc {
    /// The address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Plaintext on an address that is not loopback was asked for.
    pub allow_plaintext: bool,
    /// TLS; `None` for plaintext.
    pub tls: Option<Tls>,
    /// The most connections at once; further ones are closed.
    pub max_connections: usize,
    /// Whether server reflection is offered.
    pub reflection: Reflection,
    /// The longest a unary call may take.
    pub request_timeout: Duration,
    /// The largest request, in bytes.
    pub max_message_bytes: usize,
    /// The most concurrent calls on one connection.
    pub max_concurrent_streams: u32,
    /// The most event streams on this replica at once.
    pub max_streams_watching: usize,
    /// How long a client may take for TLS, and then for the first bytes of HTTP/2.
    pub handshake_timeout: Duration,
    /// How often an idle connection is pinged.
    pub keepalive_interval: Duration,
    /// How long a client may take to answer a ping.
    pub keepalive_timeout: Duration,
    /// How long running calls may finish after a stop was asked for.
    pub drain_timeout: Duration,
}

/// Whether gRPC server reflection is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reflection {
    /// On for a loopback address, off elsewhere.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Grpc {
    /// Whether reflection is offered on the configured address.
    pub fn offers_reflection(&self) -> bool {
        match self.reflection {
            Reflection::Auto => self.listen.ip().is_loopback(),
            Reflection::On => true,
            Reflection::Off => false,
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Self {
        const REFLECTION: [(&str, Reflection); 3] = [
            ("auto", Reflection::Auto),
            ("on", Reflection::On),
            ("off", Reflection::Off),
        ];
        let grpc = Self {
            listen: reader
                .parsed("grpc.listen", "an address such as \"127.0.0.1:7480\"")
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            allow_plaintext: reader.boolean("grpc.allow_plaintext"),
            tls: Tls::read(reader),
            max_connections: reader.integer("grpc.max_connections", 1..=1_000_000),
            reflection: reader
                .choice("grpc.reflection", &REFLECTION)
                .unwrap_or(Reflection::Off),
            request_timeout: reader.duration("grpc.request_timeout", SECOND..=5 * MINUTE),
            max_message_bytes: reader.bytes("grpc.max_message_bytes", 64 << 10..=64 << 20),
            max_concurrent_streams: reader.integer("grpc.max_concurrent_streams", 1..=65_535),
            max_streams_watching: reader.integer("grpc.max_streams_watching", 1..=100_000),
            handshake_timeout: reader.duration("grpc.handshake_timeout", SECOND..=MINUTE),
            keepalive_interval: reader
                .duration("grpc.keepalive_interval", 5 * SECOND..=10 * MINUTE),
            keepalive_timeout: reader.duration("grpc.keepalive_timeout", SECOND..=5 * MINUTE),
            drain_timeout: reader.duration("grpc.drain_timeout", Duration::ZERO..=10 * MINUTE),
        };
        if reader.sound(&["grpc.listen", "grpc.allow_plaintext"])
            && !grpc.listen.ip().is_loopback()
            && !grpc.allow_plaintext
            && !asks_for_tls(reader)
        {
            reader.fault(
                "grpc.listen",
                format!(
                    "{} is not a loopback address, and tokens would cross the network in \
                     plaintext; set grpc.tls.cert_file and grpc.tls.key_file, or \
                     grpc.allow_plaintext = true if something else encrypts it",
                    grpc.listen
                ),
            );
        }
        grpc
    }
}

/// Whether TLS is meant, if maybe wrongly set up: then that is the fault to report.
fn asks_for_tls(reader: &Reader) -> bool {
    reader.is_set("grpc.tls.cert_file") || reader.is_set("grpc.tls.key_file")
}
