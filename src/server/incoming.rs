//! Connections as they come in: capped, encrypted where that is configured, told apart by where they
//! come from, and dropped when they never begin to speak HTTP/2.

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
use super::places::{Full, Place, Places};
use super::tls::Tls;
use crate::access::Peer;
use crate::access::caller::PeerCertificate;

/// Bytes that every HTTP/2 connection begins with (RFC 9113 section 3.4). Once they have come, pings
/// tell whether the client is still there.
const PREFACE: usize = 24;

/// The most TLS handshakes under way: further connections wait in the system's queue.
const HANDSHAKES: usize = 1_000;

/// Connections that are ready and not yet taken.
const READY: usize = 64;

/// How long to wait when no connection can be accepted, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// How often the same trouble is logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Takes connections until `stop`, as many as there are places; what is more is closed at once.
/// `patience` is how long a client may take for TLS, and then for the first bytes of HTTP/2: without
/// an end to it whoever connects and says nothing would keep a place for ever.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    places: Arc<Places>,
    patience: Duration,
    stop: CancellationToken,
) -> impl Stream<Item = Result<Connection, Infallible>> {
    let (ready, connections) = mpsc::channel(READY);
    let door = Door {
        listener,
        tls,
        places,
        patience,
        turns: Arc::new(Semaphore::new(HANDSHAKES)),
        ready,
        stop: stop.clone(),
        full: Seldom::default(),
        crowded: Seldom::default(),
        failing: Seldom::default(),
    };
    tokio::spawn(async move { stop.run_until_cancelled_owned(door.keep()).await });
    ReceiverStream::new(connections).map(Ok)
}

/// Where connections come in.
struct Door {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    places: Arc<Places>,
    patience: Duration,
    turns: Arc<Semaphore>,
    ready: mpsc::Sender<Connection>,
    stop: CancellationToken,
    full: Seldom,
    crowded: Seldom,
    failing: Seldom,
}

impl Door {
    async fn keep(mut self) {
        loop {
            // Before accepting, so that a crowd waits where it costs us nothing.
            let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
                return;
            };
            let (tcp, address) = accept(&self.listener, "gRPC", &mut self.failing).await;
            let place = match self.places.take(address.ip()) {
                Ok(place) => place,
                Err(full) => {
                    drop(tcp);
                    self.refused(full, address);
                    continue;
                }
            };
            // Answers are small: waiting to fill a packet only delays them.
            let _ = tcp.set_nodelay(true);
            match self.tls.clone() {
                None => {
                    let patience = patience(self.patience, &self.stop);
                    let connection = Connection::plain(tcp, address, place, patience);
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
        place: Place,
        turn: OwnedSemaphorePermit,
    ) {
        let acceptor = TlsAcceptor::from(tls.current());
        let (ready, long, stop) = (self.ready.clone(), self.patience, self.stop.clone());
        let handshake = async move {
            let shaken = tokio::time::timeout(long, acceptor.accept(tcp)).await;
            drop(turn);
            let connection = match shaken {
                Err(_) => Err("the client took too long".into()),
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(stream)) => {
                    Connection::encrypted(stream, address, place, patience(long, &stop))
                }
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

    fn refused(&mut self, full: Full, address: SocketAddr) {
        // Apart: an address that is refused all the time must not hide that there is no place left.
        let (seldom, why) = match full {
            Full::All => (&mut self.full, "there are grpc.max_connections already"),
            Full::Address => (
                &mut self.crowded,
                "its address has limits.connections_per_address already",
            ),
        };
        if let Some(others) = seldom.admit() {
            tracing::warn!(%address, others, "a connection was closed: {why}");
        }
    }
}

/// The next connection, however long it takes to have one. `name` is the listener's, for the log.
pub(super) async fn accept(
    listener: &TcpListener,
    name: &str,
    failing: &mut Seldom,
) -> (TcpStream, SocketAddr) {
    loop {
        let error = match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => error,
        };
        // The client's own: the next one may be fine.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::Interrupted
        ) {
            continue;
        }
        if let Some(others) = failing.admit() {
            tracing::error!(%error, others, "the {name} listener can't accept a connection");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Holds back what would be logged too often.
#[derive(Default)]
pub(super) struct Seldom {
    last: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    /// Whether to log now; if so, how often it was held back.
    pub(super) fn admit(&mut self) -> Option<u64> {
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
    /// Until HTTP/2 has begun.
    beginning: Option<Beginning>,
    _place: Place,
}

/// What is awaited of a connection before it counts as used.
struct Beginning {
    /// Bytes that are missing.
    missing: usize,
    patience: Patience,
}

/// Ends when a client has taken too long to begin, or the server is on its way down: a connection
/// that is silent has nothing to finish, and would hold up the stop.
type Patience = Pin<Box<dyn Future<Output = ()> + Send>>;

fn patience(long: Duration, stop: &CancellationToken) -> Patience {
    let stop = stop.clone();
    Box::pin(async move {
        stop.run_until_cancelled(tokio::time::sleep(long)).await;
    })
}

enum Io {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn plain(tcp: TcpStream, address: SocketAddr, place: Place, patience: Patience) -> Self {
        Self::new(Io::Plain(tcp), address, None, place, patience)
    }

    fn encrypted(
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        place: Place,
        patience: Patience,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = chain
            .first()
            .map(|leaf| peer::certificate(leaf).map(Arc::new))
            .transpose()?;
        let io = Io::Encrypted(Box::new(stream));
        Ok(Self::new(io, address, certificate, place, patience))
    }

    fn new(
        io: Io,
        address: SocketAddr,
        certificate: Option<Arc<PeerCertificate>>,
        place: Place,
        patience: Patience,
    ) -> Self {
        Self {
            io,
            peer: Peer {
                ip: Some(address.ip().to_canonical()),
                certificate,
            },
            beginning: Some(Beginning {
                missing: PREFACE,
                patience,
            }),
            _place: place,
        }
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
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Io::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if let Some(beginning) = &mut this.beginning {
            let came = buffer.filled().len().saturating_sub(before);
            beginning.missing = beginning.missing.saturating_sub(came);
            if beginning.missing == 0 {
                this.beginning = None;
            } else if read.is_pending() && beginning.patience.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
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
