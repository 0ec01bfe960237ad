//! Connections as they come in: capped, encrypted where that is configured, and told apart by where
//! they come from.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::peer;
use super::tls::Tls;
use crate::access::Peer;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The most TLS handshakes under way: further connections wait in the system's queue.
const HANDSHAKES: usize = 1_000;

/// Connections that are ready and not yet taken.
const READY: usize = 64;

/// How long to wait when no connection can be accepted, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// How often the same trouble is logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Takes connections until `stop`, at most `most` at once; what is more is closed at once.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    most: usize,
    stop: CancellationToken,
) -> impl Stream<Item = Result<Connection, Infallible>> {
    let (ready, connections) = mpsc::channel(READY);
    let door = Door {
        listener,
        tls,
        places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
        turns: Arc::new(Semaphore::new(HANDSHAKES)),
        ready,
        stop: stop.clone(),
        full: Seldom::default(),
        failing: Seldom::default(),
    };
    tokio::spawn(async move { stop.run_until_cancelled_owned(door.keep()).await });
    ReceiverStream::new(connections).map(Ok)
}

/// Where connections come in.
struct Door {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    ready: mpsc::Sender<Connection>,
    stop: CancellationToken,
    full: Seldom,
    failing: Seldom,
}

impl Door {
    async fn keep(mut self) {
        loop {
            // Before accepting, so that a crowd waits where it costs us nothing.
            let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
                return;
            };
            let (tcp, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.failed(&error).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                drop(tcp);
                if let Some(others) = self.full.admit() {
                    tracing::warn!(
                        %address, others,
                        "a connection was closed: there are grpc.max_connections already"
                    );
                }
                continue;
            };
            // Answers are small: waiting to fill a packet only delays them.
            let _ = tcp.set_nodelay(true);
            match self.tls.clone() {
                None => {
                    let connection = Connection::plain(tcp, address, place);
                    if self.ready.send(connection).await.is_err() {
                        return;
                    }
                }
                Some(tls) => self.shake_hands(&tls, tcp, address, place, turn),
            }
        }
    }

    /// Beside the others: a slow client holds up nobody.
    fn shake_hands(
        &self,
        tls: &Tls,
        tcp: TcpStream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
        turn: OwnedSemaphorePermit,
    ) {
        let acceptor = TlsAcceptor::from(tls.current());
        let ready = self.ready.clone();
        let handshake = async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await;
            drop(turn);
            let connection = match shaken {
                Err(_) => Err("the client took too long".into()),
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(stream)) => Connection::encrypted(stream, address, place),
            };
            match connection {
                // Nobody takes it any more when the server is on its way down.
                Ok(connection) => drop(ready.send(connection).await),
                Err(error) => {
                    tracing::debug!(%address, error = &*error, "a TLS handshake failed");
                }
            }
        };
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(handshake));
    }

    async fn failed(&mut self, error: &io::Error) {
        // The client's own: the next one may be fine.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::Interrupted
        ) {
            return;
        }
        if let Some(others) = self.failing.admit() {
            tracing::error!(%error, others, "the gRPC listener can't accept a connection");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Holds back what would be logged too often.
#[derive(Default)]
struct Seldom {
    last: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    /// Whether to log now; if so, how often it was held back.
    fn admit(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < LOG_INTERVAL) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

/// A connection that may be served. Its place is free again when it is dropped.
pub(super) struct Connection {
    io: Io,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

enum Io {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn plain(tcp: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) -> Self {
        Self {
            io: Io::Plain(tcp),
            peer: Peer {
                ip: Some(address.ip().to_canonical()),
                certificate: None,
            },
            _place: place,
        }
    }

    fn encrypted(
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = chain
            .first()
            .map(|leaf| peer::certificate(leaf).map(Arc::new))
            .transpose()?;
        Ok(Self {
            io: Io::Encrypted(Box::new(stream)),
            peer: Peer {
                ip: Some(address.ip().to_canonical()),
                certificate,
            },
            _place: place,
        })
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Io::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Io::Encrypted(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Io::Encrypted(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(tcp) => tcp.is_write_vectored(),
            Io::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Io::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Io::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
