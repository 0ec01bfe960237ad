//! Connections to the gRPC listener: who keeps a place, and how much may go on in one. Real sockets,
//! and HTTP/2 by hand, for clients that no library would be.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokenbroker::config::Config;
use tokenbroker::pb;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::fixture::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113 section 6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

/// A frame of HTTP/2.
struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    async fn read(tcp: &mut TcpStream) -> io::Result<Self> {
        let mut head = [0; 9];
        tcp.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        tcp.read_exact(&mut payload).await?;
        Ok(Self {
            kind: head[3],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    async fn write(tcp: &mut TcpStream, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        tcp.write_all(&length[1..]).await.unwrap();
        tcp.write_all(&[kind, flags]).await.unwrap();
        tcp.write_all(&stream.to_be_bytes()).await.unwrap();
        tcp.write_all(payload).await.unwrap();
    }
}

async fn start(change: impl FnOnce(&mut Config)) -> Broker {
    Broker::start_with(Engine::Sqlite, change).await
}

/// A connection from there, and the server's settings: it speaks first (RFC 9113 section 3.4), if it
/// takes the connection at all.
async fn connect(from: [u8; 4], to: SocketAddr) -> io::Result<(TcpStream, Frame)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(from)), 0))?;
    let mut tcp = socket.connect(to).await?;
    let settings = Frame::read(&mut tcp).await?;
    Ok((tcp, settings))
}

const HERE: [u8; 4] = [127, 0, 0, 1];

/// Reads to the end: the frames that came.
async fn rest(tcp: &mut TcpStream) -> Vec<Frame> {
    let reading = async {
        let mut frames = Vec::new();
        while let Ok(frame) = Frame::read(tcp).await {
            frames.push(frame);
        }
        frames
    };
    soon("the end of the connection", reading).await
}

async fn works(b: &Broker) -> bool {
    let mut administration = b.admin.administration.clone();
    let answer = administration.get_caller(pb::GetCallerRequest {}).await;
    answer.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_connects_and_says_nothing_loses_the_place() {
    let b = start(|config| {
        config.grpc.max_connections = 1;
        config.grpc.handshake_timeout = Duration::from_millis(200);
    })
    .await;
    // Half of what HTTP/2 begins with is nothing, too.
    for said in [&b""[..], &PREFACE[..12]] {
        let place = async {
            loop {
                if let Ok((tcp, _)) = connect(HERE, b.grpc_address()).await {
                    return tcp;
                }
            }
        };
        let mut silent = soon("a place", place).await;
        silent.write_all(said).await.unwrap();
        rest(&mut silent).await;
    }
    eventually("the place is free again", || works(&b)).await;
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_no_ping_is_gone() {
    let b = start(|config| {
        config.grpc.keepalive_interval = Duration::from_millis(50);
        config.grpc.keepalive_timeout = Duration::from_millis(200);
    })
    .await;
    let (mut dead, _) = connect(HERE, b.grpc_address()).await.unwrap();
    dead.write_all(PREFACE).await.unwrap();
    Frame::write(&mut dead, SETTINGS, 0, 0, &[]).await;
    let came = rest(&mut dead).await;
    assert!(came.iter().any(|frame| frame.kind == PING));
    b.finish().await;
}

// Elsewhere only 127.0.0.1 is there to connect from.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_can_not_take_all_places() {
    let b = start(|config| {
        config.grpc.max_connections = 3;
        config.limits.connections_per_address = 2;
    })
    .await;
    let address = b.grpc_address();
    let first = connect(HERE, address).await.unwrap();
    let _second = connect(HERE, address).await.unwrap();
    assert!(connect(HERE, address).await.is_err(), "a third was taken");
    eventually("it is logged", || async {
        let logged = logs::since(&b.ground.logged);
        let why = b"its address has limits.connections_per_address already";
        logged.windows(why.len()).any(|part| part == why)
    })
    .await;
    let _other = connect([127, 0, 0, 2], address).await.unwrap();
    drop(first);
    eventually("there is a place again", || works(&b)).await;
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_calls_go_on_at_once_in_a_connection_than_configured() {
    const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let b = start(|config| config.grpc.max_concurrent_streams = 1).await;
    let (mut tcp, settings) = connect(HERE, b.grpc_address()).await.unwrap();
    let mut told = settings.payload.chunks_exact(6);
    let told = told.find(|setting| setting[..2] == MAX_CONCURRENT_STREAMS);
    assert_eq!(
        (settings.kind, told.unwrap()),
        (SETTINGS, &[0, 3, 0, 0, 0, 1][..])
    );

    // POST over http to a path of an authority (RFC 7541 appendix A).
    let path = b"/grpc.health.v1.Health/Check";
    let mut head = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    head.extend_from_slice(path);
    head.extend_from_slice(&[0x01, 4]);
    head.extend_from_slice(b"here");
    tcp.write_all(PREFACE).await.unwrap();
    Frame::write(&mut tcp, SETTINGS, 0, 0, &[]).await;
    // The messages never come, so that both calls would go on.
    for stream in [1, 3] {
        const END_HEADERS: u8 = 4;
        Frame::write(&mut tcp, HEADERS, END_HEADERS, stream, &head).await;
    }
    let refused = soon("a call is refused", async {
        loop {
            let frame = Frame::read(&mut tcp).await.unwrap();
            if frame.kind == RST_STREAM {
                return frame;
            }
        }
    })
    .await;
    assert_eq!(
        (refused.stream, &*refused.payload),
        (3, &REFUSED_STREAM[..])
    );
    drop(tcp);
    b.finish().await;
}
