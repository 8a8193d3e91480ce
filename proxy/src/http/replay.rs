//! A request's body, kept while it is sent so that another attempt can send it again.
//!
//! The first attempt streams straight from the client while what passes is kept, up to a limit. A later
//! attempt sends what was kept and then goes on streaming. Nothing is read from the client before an
//! attempt asks for it, so a slow upstream slows the client down as without this wrapper.
//!
//! One worker owns a request, therefore `Rc` and `RefCell`; a body without any frame costs nothing.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::net::body::BoxError;

/// A frame counts for at least this many bytes, so that many tiny frames cannot hold far more memory
/// than the limit says.
const MIN_FRAME_COST: u64 = 256;

/// The attempt whose body this is has been given up for a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a later attempt has taken over the request's body")]
pub struct Superseded;

/// A request's body and what was kept of it.
#[derive(Debug)]
pub struct Replay<B> {
    shared: Option<Rc<RefCell<Shared<B>>>>,
}

/// The body of one attempt; see [`Replay::attempt`].
#[derive(Debug)]
pub struct ReplayBody<B> {
    shared: Option<Rc<RefCell<Shared<B>>>>,
    attempt: u32,
}

#[derive(Debug)]
struct Shared<B> {
    body: B,
    /// No more frames will come from `body`.
    ended: bool,
    /// The attempt that may read.
    attempt: u32,
    /// Index in `kept` of the frame it reads next.
    next: usize,
    /// Whether it has been given the trailers, if there are any.
    trailers_given: bool,
    kept: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// How much may still be kept.
    room: u64,
    /// A frame that was passed on is not kept, or the body broke off: no further attempt.
    lost: bool,
    received: u64,
}

impl<B: Body<Data = Bytes> + Unpin> Replay<B> {
    /// Wraps `body`, of which up to `limit` bytes are kept
    /// (`request_body_buffer_limit`, `per_request_buffer_limit_bytes`).
    pub fn new(body: B, limit: u64) -> Self {
        let shared = Shared {
            body,
            ended: false,
            attempt: 0,
            next: 0,
            trailers_given: false,
            kept: Vec::new(),
            trailers: None,
            room: limit,
            lost: false,
            received: 0,
        };
        let is_empty = shared.body.is_end_stream();
        Self { shared: (!is_empty).then(|| Rc::new(RefCell::new(shared))) }
    }

    /// The whole body for the next attempt; none if a part is lost. Bodies given out before end with
    /// [`Superseded`].
    pub fn attempt(&self) -> Option<ReplayBody<B>> {
        let Some(shared) = &self.shared else {
            return Some(ReplayBody { shared: None, attempt: 0 });
        };
        let mut state = shared.borrow_mut();
        if state.lost {
            return None;
        }
        state.attempt += 1;
        state.next = 0;
        state.trailers_given = false;
        Some(ReplayBody { attempt: state.attempt, shared: Some(Rc::clone(shared)) })
    }

    /// Whether [`attempt`](Self::attempt) would give the whole body.
    pub fn can_replay(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| !shared.borrow().lost)
    }

    /// All of the body, if it has been read to its end and kept whole.
    pub fn whole(&self) -> Option<(Vec<Bytes>, Option<HeaderMap>)> {
        let Some(shared) = &self.shared else { return Some((Vec::new(), None)) };
        let state = shared.borrow();
        let ended = state.ended || state.body.is_end_stream();
        (ended && !state.lost).then(|| (state.kept.clone(), state.trailers.clone()))
    }

    /// Gives up on further attempts and frees what was kept for them.
    pub fn forget(&self) {
        if let Some(shared) = &self.shared {
            let state = &mut *shared.borrow_mut();
            state.lost = true;
            // What a repeated attempt has not sent yet it still needs.
            state.kept.iter_mut().take(state.next).for_each(|frame| *frame = Bytes::new());
        }
    }

    /// Bytes of the body that have come from the client, each counted once.
    pub fn received(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.borrow().received)
    }
}

impl<B> Shared<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(frame) = self.kept.get_mut(self.next) {
            self.next += 1;
            let data = if self.lost { std::mem::take(frame) } else { frame.clone() };
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.ended {
            let first_time = !std::mem::replace(&mut self.trailers_given, true);
            let trailers = self.trailers.clone().filter(|_| first_time);
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.keep(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.ended = true;
                self.lost = true;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            self.received += length;
            if data.is_empty() || self.lost {
                return;
            }
            match self.room.checked_sub(length.max(MIN_FRAME_COST)) {
                Some(room) => {
                    self.room = room;
                    self.kept.push(data.clone());
                    self.next += 1;
                }
                None => {
                    self.lost = true;
                    self.kept = Vec::new();
                }
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            self.trailers_given = true;
            self.ended = true;
        }
    }

    fn is_end_stream(&self) -> bool {
        let replayed = self.next >= self.kept.len();
        let trailers_done = self.trailers.is_none() || self.trailers_given;
        replayed && if self.ended { trailers_done } else { self.body.is_end_stream() }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = if self.ended { SizeHint::with_exact(0) } else { self.body.size_hint() };
        let unsent: usize = self.kept.iter().skip(self.next).map(Bytes::len).sum();
        let unsent = u64::try_from(unsent).unwrap_or(u64::MAX);
        // The upper bound first: it must never be below the lower one.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(unsent));
        }
        hint.set_lower(hint.lower().saturating_add(unsent));
        hint
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(shared) = &self.shared else { return Poll::Ready(None) };
        let mut shared = shared.borrow_mut();
        if shared.attempt == self.attempt {
            shared.poll_frame(cx)
        } else {
            Poll::Ready(Some(Err(Superseded.into())))
        }
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        let shared = shared.borrow();
        shared.attempt == self.attempt && shared.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.shared else { return SizeHint::with_exact(0) };
        let shared = shared.borrow();
        if shared.attempt == self.attempt { shared.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;
    use std::task::Waker;

    use http::header::HeaderValue;
    use http_body_util::{BodyExt as _, Empty, Full};
    use proptest::prelude::*;

    use super::*;

    /// A client that sends these frames, one whenever it is asked, and counts how often it is.
    #[derive(Debug, Default)]
    struct Client {
        frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
        asked: Rc<RefCell<usize>>,
    }

    impl Client {
        fn sending(parts: &[&[u8]]) -> Self {
            let frame = |part: &&[u8]| Ok(Frame::data(Bytes::copy_from_slice(part)));
            Self { frames: parts.iter().map(frame).collect(), ..Self::default() }
        }

        fn then(mut self, last: Result<Frame<Bytes>, &'static str>) -> Self {
            self.frames.push_back(last);
            self
        }
    }

    impl Body for Client {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            *self.asked.borrow_mut() += 1;
            Poll::Ready(self.frames.pop_front().map(|frame| frame.map_err(Into::into)))
        }

        fn is_end_stream(&self) -> bool {
            self.frames.is_empty()
        }
    }

    type Attempt = ReplayBody<Client>;

    fn frame(body: &mut Attempt) -> Option<Result<Frame<Bytes>, BoxError>> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => panic!("the client always has an answer"),
        }
    }

    fn data(body: &mut Attempt) -> Bytes {
        frame(body).unwrap().unwrap().into_data().unwrap()
    }

    /// Everything that is left of a body: data, and whether trailers followed.
    fn rest(body: &mut Attempt) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        let mut trailers = false;
        while let Some(frame) = frame(body) {
            let frame = frame.unwrap();
            trailers |= frame.is_trailers();
            all.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        }
        assert!(body.is_end_stream());
        (all, trailers)
    }

    fn trailers() -> Frame<Bytes> {
        let status = HeaderValue::from_static("0");
        Frame::trailers(HeaderMap::from_iter([(super::super::names::GRPC_STATUS, status)]))
    }

    #[test]
    fn a_second_attempt_sends_what_was_kept_and_goes_on() {
        let replay =
            Replay::new(Client::sending(&[b"one", b"two", b"three"]).then(Ok(trailers())), 1 << 20);
        let mut first = replay.attempt().unwrap();
        assert_eq!((data(&mut first), data(&mut first)), ("one".into(), "two".into()));
        let mut second = replay.attempt().unwrap();
        assert_eq!(rest(&mut second), (b"onetwothree".to_vec(), true));
        let mut third = replay.attempt().unwrap();
        assert_eq!(third.size_hint().exact(), Some(11));
        assert_eq!(rest(&mut third), (b"onetwothree".to_vec(), true));
        assert_eq!(replay.received(), 11);
    }

    #[test]
    fn an_attempt_that_was_given_up_cannot_steal_frames() {
        let replay = Replay::new(Client::sending(&[b"one", b"two"]), 1 << 20);
        let mut first = replay.attempt().unwrap();
        data(&mut first);
        let mut second = replay.attempt().unwrap();
        assert!(!first.is_end_stream());
        assert!(frame(&mut first).unwrap().unwrap_err().is::<Superseded>());
        assert_eq!(rest(&mut second).0, b"onetwo");
    }

    #[test]
    fn beyond_the_limit_the_body_streams_on_but_cannot_be_repeated() {
        let long = [7; 300];
        let replay = Replay::new(Client::sending(&[&long, &long, b"end"]), 599);
        let mut first = replay.attempt().unwrap();
        data(&mut first);
        assert!(replay.can_replay());
        data(&mut first);
        assert!(!replay.can_replay() && replay.attempt().is_none());
        assert_eq!(rest(&mut first).0, b"end");
    }

    #[test]
    fn tiny_frames_count_for_the_memory_they_hold() {
        let replay = Replay::new(Client::sending(&[b"a", b"", b"b", b"c"]), 2 * MIN_FRAME_COST);
        let mut first = replay.attempt().unwrap();
        (0..3).for_each(|_| assert!(data(&mut first).len() < 2));
        assert!(replay.can_replay());
        data(&mut first);
        assert!(!replay.can_replay());
    }

    #[test]
    fn nothing_is_read_before_it_is_asked_for() {
        let client = Client::sending(&[b"one", b"two"]);
        let asked = Rc::clone(&client.asked);
        let replay = Replay::new(client, 1 << 20);
        let mut first = replay.attempt().unwrap();
        assert_eq!(*asked.borrow(), 0);
        data(&mut first);
        assert_eq!(*asked.borrow(), 1);
        let mut second = replay.attempt().unwrap();
        data(&mut second);
        assert_eq!(*asked.borrow(), 1);
    }

    #[test]
    fn a_body_that_breaks_off_is_not_repeated() {
        let replay = Replay::new(Client::sending(&[b"one"]).then(Err("reset by client")), 1 << 20);
        let mut first = replay.attempt().unwrap();
        data(&mut first);
        assert_eq!(frame(&mut first).unwrap().unwrap_err().to_string(), "reset by client");
        assert!(replay.attempt().is_none());
    }

    #[test]
    fn forgetting_leaves_the_attempt_under_way_whole() {
        let replay = Replay::new(Client::sending(&[b"one", b"two", b"three"]), 1 << 20);
        let mut first = replay.attempt().unwrap();
        (0..2).for_each(|_| drop(data(&mut first)));
        let mut second = replay.attempt().unwrap();
        data(&mut second);
        replay.forget();
        assert!(!replay.can_replay());
        assert_eq!(rest(&mut second).0, b"twothree");
    }

    #[tokio::test]
    async fn empty_bodies_are_always_repeatable() {
        let replay = Replay::new(Empty::<Bytes>::new(), 0);
        for _ in 0..2 {
            let mut body = replay.attempt().unwrap();
            assert!(body.is_end_stream() && body.size_hint().exact() == Some(0));
            assert!(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_none());
        }
        replay.forget();
        assert!(replay.can_replay() && replay.received() == 0);
    }

    #[tokio::test]
    async fn a_known_length_stays_known() {
        let replay = Replay::new(Full::new(Bytes::from_static(b"hello")), 1 << 20);
        for _ in 0..2 {
            let body = replay.attempt().unwrap();
            assert_eq!(body.size_hint().exact(), Some(5));
            assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        }
    }

    proptest! {
        #[test]
        fn every_attempt_sends_the_whole_body_or_is_refused(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..8),
            reads in prop::collection::vec(0_usize..10, 0..4),
            limit in 0_u64..4_000,
            has_trailers: bool,
        ) {
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let client = Client::sending(&slices);
            let client = if has_trailers { client.then(Ok(trailers())) } else { client };
            let replay = Replay::new(client, limit);
            for reads in reads {
                let before = replay.can_replay();
                let Some(mut attempt) = replay.attempt() else {
                    prop_assert!(!before);
                    return Ok(());
                };
                (0..reads).for_each(|_| drop(frame(&mut attempt)));
            }
            if let Some(mut last) = replay.attempt() {
                prop_assert_eq!(rest(&mut last), (parts.concat(), has_trailers));
                prop_assert_eq!(replay.received(), parts.concat().len() as u64);
            }
        }
    }
}
