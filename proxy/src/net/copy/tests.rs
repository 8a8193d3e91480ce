//! Copies between real sockets, and between streams that have none.

use std::cell::Cell;
use std::pin::Pin;
use std::task::Context;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpListener;

use super::*;

#[derive(Debug, Default)]
struct Counts {
    read: [Cell<usize>; 2],
    wrote: [Cell<usize>; 2],
    waiting: [Cell<usize>; 2],
    most_waiting: Cell<usize>,
}

impl Meter for Counts {
    fn read(&self, side: Side, bytes: usize) {
        let count = &self.read[side as usize];
        count.set(count.get() + bytes);
    }

    fn wrote(&self, side: Side, bytes: usize) {
        let count = &self.wrote[side as usize];
        count.set(count.get() + bytes);
    }

    fn paused(&self, side: Side, bytes: usize) {
        let count = &self.waiting[side as usize];
        count.set(count.get() + bytes);
        self.most_waiting.set(self.most_waiting.get().max(count.get()));
    }

    fn resumed(&self, side: Side, bytes: usize) {
        let count = &self.waiting[side as usize];
        count.set(count.get() - bytes);
    }
}

/// A stream in memory, as TLS would look from here.
struct Opaque(DuplexStream);

impl End for Opaque {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    fn is_plain(&self) -> bool {
        false
    }
}

impl AsyncRead for Opaque {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Opaque {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(connecting, listener.accept());
    (client.unwrap(), server.unwrap().0)
}

fn memory() -> (DuplexStream, Opaque) {
    let (outer, inner) = tokio::io::duplex(10_000);
    (outer, Opaque(inner))
}

/// Bytes of which no two stretches are alike.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// Sends much there, and on its arrival something else back; the client ends first.
async fn there_and_back(
    client: impl AsyncRead + AsyncWrite + Unpin,
    mut near: impl End,
    mut far: impl End,
    server: impl AsyncRead + AsyncWrite + Unpin,
    limit: usize,
) -> Counts {
    let (sent, answered) = (noise(3 << 20), noise(1 << 20));
    let counts = Counts::default();
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let (mut server_reads, mut server_writes) = tokio::io::split(server);
    let (mut arrived, mut answer) = (Vec::new(), Vec::new());
    let (ended, ..) = tokio::join!(
        copy(&mut near, &mut far, Until::BothEnd, limit, &counts),
        async {
            client_writes.write_all(&sent).await.unwrap();
            client_writes.shutdown().await.unwrap();
        },
        async {
            server_reads.read_to_end(&mut arrived).await.unwrap();
            server_writes.write_all(&answered).await.unwrap();
            server_writes.shutdown().await.unwrap();
        },
        async {
            client_reads.read_to_end(&mut answer).await.unwrap();
        },
    );
    assert_eq!(ended.unwrap(), Side::Upstream);
    assert!(arrived == sent && answer == answered, "what arrives is what was sent");
    assert_eq!([counts.read[0].get(), counts.wrote[1].get()], [3 << 20; 2]);
    assert_eq!([counts.read[1].get(), counts.wrote[0].get()], [1 << 20; 2]);
    assert_eq!([counts.waiting[0].get(), counts.waiting[1].get()], [0; 2]);
    assert!(counts.most_waiting.get() <= limit, "{counts:?}");
    counts
}

#[tokio::test]
async fn much_passes_unharmed_between_sockets() {
    for limit in [1 << 20, 5_000] {
        let ((client, near), (far, server)) = (sockets().await, sockets().await);
        there_and_back(client, near, far, server, limit).await;
    }
}

#[tokio::test]
async fn much_passes_unharmed_between_streams_without_sockets() {
    for limit in [1 << 20, 100] {
        let ((client, near), (server, far)) = (memory(), memory());
        there_and_back(client, near, far, server, limit).await;
    }
    let ((client, near), (far, server)) = (memory(), sockets().await);
    there_and_back(client, near, far, server, 1 << 20).await;
}

#[tokio::test]
async fn small_messages_pass_before_anybody_ends() {
    let ((mut client, mut near), (mut far, mut server)) = (sockets().await, sockets().await);
    let counts = Counts::default();
    let copying = copy(&mut near, &mut far, Until::BothEnd, 1 << 20, &counts);
    let talking = async {
        let mut buffer = [0; 8];
        for _ in 0..3 {
            client.write_all(b"ping").await.unwrap();
            server.read_exact(&mut buffer[..4]).await.unwrap();
            server.write_all(b"pong").await.unwrap();
            client.read_exact(&mut buffer[4..]).await.unwrap();
            assert_eq!(&buffer, b"pingpong");
        }
        drop(server);
        assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
        drop(client);
    };
    let (ended, ()) = tokio::join!(copying, talking);
    assert_eq!(ended.unwrap(), Side::Downstream);
}

#[tokio::test]
async fn a_reset_is_known_from_an_end() {
    let ((client, mut near), (mut far, server)) = (sockets().await, sockets().await);
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let counts = Counts::default();
    let broken = copy(&mut near, &mut far, Until::BothEnd, 1 << 20, &counts).await.unwrap_err();
    assert!(broken.side == Side::Upstream && broken.is_reset(), "{broken}");
    drop(client);
}

#[tokio::test]
async fn who_reads_slowly_is_waited_for_with_little_in_hand() {
    let ((mut client, mut near), (mut far, server)) = (sockets().await, sockets().await);
    let counts = Counts::default();
    let copying = copy(&mut near, &mut far, Until::BothEnd, 64 << 10, &counts);
    let pushing = async {
        let piece = vec![1; 1 << 20];
        while tokio::time::timeout(Duration::from_millis(300), client.write_all(&piece))
            .await
            .is_ok()
        {}
    };
    tokio::select! {
        ended = copying => panic!("{ended:?}"),
        () = pushing => {}
    }
    assert!((1..=64 << 10).contains(&counts.waiting[0].get()), "{counts:?}");
    drop(server);
}

/// Reads slowly at first, while the far side is already gone.
async fn reads_all(mut client: TcpStream, expected: usize) {
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all.len(), expected);
}

#[tokio::test]
async fn what_an_endpoint_said_arrives_though_it_takes_nothing_any_more() {
    // More than fits between here and the client, less than what fits here with it.
    const ANSWER: usize = 150_000;
    let ((mut client, mut near), (mut far, mut server)) = (sockets().await, sockets().await);
    socket2::SockRef::from(&near).set_send_buffer_size(16 << 10).unwrap();
    socket2::SockRef::from(&client).set_recv_buffer_size(16 << 10).unwrap();
    let counts = Counts::default();
    let copying = copy(&mut near, &mut far, Until::BothEnd, 64 << 10, &counts);
    let answering = async {
        server.write_all(&noise(ANSWER)).await.unwrap();
        drop(server);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(counts.waiting[1].get() > 0, "some of it waits here");
        // The first is answered by a reset, the second finds that out.
        for _ in 0..2 {
            client.write_all(b"late").await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        reads_all(client, ANSWER).await;
    };
    let (broken, ()) = tokio::join!(copying, answering);
    let broken = broken.unwrap_err();
    assert!(broken.side == Side::Upstream && !broken.is_reset(), "{broken}");
    assert_eq!((counts.wrote[0].get(), counts.waiting[1].get()), (ANSWER, 0));
}

#[tokio::test]
async fn an_answer_in_the_middle_of_an_upload_arrives() {
    for _ in 0..20 {
        let ((mut client, mut near), (mut far, mut server)) = (sockets().await, sockets().await);
        let counts = Counts::default();
        let copying = copy(&mut near, &mut far, Until::BothEnd, 1 << 20, &counts);
        let talking = async {
            server.read_exact(&mut [0; 1000]).await.unwrap();
            server.write_all(b"too large").await.unwrap();
            // Closing over what was not read is a reset.
            drop(server);
        };
        let uploading = async {
            let _ = client.write_all(&noise(4 << 20)).await;
            let mut answer = [0; 9];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"too large");
            drop(client);
        };
        let _ = tokio::join!(copying, talking, uploading);
    }
}

#[tokio::test]
async fn one_end_may_be_the_end_of_both() {
    for client_ends in [true, false] {
        let ((mut client, mut near), (mut far, mut server)) = (sockets().await, sockets().await);
        let counts = Counts::default();
        let copying = copy(&mut near, &mut far, Until::OneEnds, 1 << 20, &counts);
        let (ending, other) =
            if client_ends { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let talking = async {
            ending.write_all(b"bye").await.unwrap();
            ending.shutdown().await.unwrap();
            let mut words = String::new();
            other.read_to_string(&mut words).await.unwrap();
            assert_eq!(words, "bye");
        };
        let (last, ()) = tokio::join!(copying, talking);
        assert_eq!(last.unwrap() == Side::Downstream, client_ends);
    }
}
