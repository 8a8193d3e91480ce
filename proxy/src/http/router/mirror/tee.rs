//! A body that others get as well, piece by piece as it is read. Whoever reads it never waits for them: a copy that
//! is read too slowly loses its claim to the rest.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::net::body::BoxError;
use crate::worker::mirror_budget::{MIN_COST, MirrorBudget, cost};

/// Why a copy ends before its original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// It was read too slowly.
    #[error("the copy fell behind")]
    FellBehind,
    /// So did the original.
    #[error("the original broke off")]
    BrokeOff,
}

/// A body, and those who get a copy of what is read of it.
#[derive(Debug)]
pub struct Tee<B> {
    body: B,
    copies: Vec<Rc<RefCell<Copy>>>,
}

/// A copy of a body.
#[derive(Debug)]
pub struct CopyBody(Rc<RefCell<Copy>>);

/// How far a copy has come.
#[derive(Debug, Clone)]
pub struct Progress(Rc<RefCell<Copy>>);

#[derive(Debug)]
struct Copy {
    frames: VecDeque<Frame<Bytes>>,
    /// What the frames count for, and how much that may be.
    waiting: u64,
    limit: u64,
    budget: Rc<MirrorBudget>,
    end: Option<Result<Instant, Cut>>,
    reader: Option<Waker>,
    watcher: Option<Waker>,
}

impl<B> Tee<B> {
    /// `body`, without copies yet.
    pub fn new(body: B) -> Self {
        Self { body, copies: Vec::new() }
    }

    /// A copy, of which at most `limit` bytes may wait to be read, and no more than `budget` has room for.
    pub fn copy(&mut self, limit: u64, budget: &Rc<MirrorBudget>) -> CopyBody {
        let copy = Rc::new(RefCell::new(Copy {
            frames: VecDeque::new(),
            waiting: 0,
            limit,
            budget: Rc::clone(budget),
            end: None,
            reader: None,
            watcher: None,
        }));
        self.copies.push(Rc::clone(&copy));
        CopyBody(copy)
    }

    /// Gives every copy the frame, and forgets those that take no more.
    fn share(&mut self, frame: &Frame<Bytes>) {
        self.copies.retain(|copy| {
            let mut copy = copy.borrow_mut();
            copy.push(frame);
            copy.end.is_none()
        });
    }

    fn end(&mut self, end: Result<Instant, Cut>) {
        for copy in self.copies.drain(..) {
            copy.borrow_mut().end(end);
        }
    }
}

impl<B> Drop for Tee<B> {
    fn drop(&mut self) {
        for copy in self.copies.drain(..) {
            copy.borrow_mut().end(Err(Cut::BrokeOff));
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Tee<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.copies.is_empty() {
            return Poll::Ready(polled);
        }
        match &polled {
            Some(Ok(frame)) => {
                self.share(frame);
                if self.body.is_end_stream() {
                    self.end(Ok(Instant::now()));
                }
            }
            Some(Err(_)) => self.end(Err(Cut::BrokeOff)),
            None => self.end(Ok(Instant::now())),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Copy {
    fn push(&mut self, frame: &Frame<Bytes>) {
        if self.end.is_some() {
            return;
        }
        let copied = if let Some(data) = frame.data_ref() {
            if data.is_empty() {
                return;
            }
            let waiting = self.waiting + cost(data);
            let fits = waiting <= self.limit.max(MIN_COST);
            let Some(charged) = fits.then(|| self.budget.charge(data)).flatten() else {
                return self.end(Err(Cut::FellBehind));
            };
            self.waiting = waiting;
            Frame::data(charged)
        } else if let Some(trailers) = frame.trailers_ref() {
            Frame::trailers(trailers.clone())
        } else {
            return;
        };
        self.frames.push_back(copied);
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        let frame = self.frames.pop_front()?;
        self.waiting -= frame.data_ref().map_or(0, cost);
        Some(frame)
    }

    fn end(&mut self, end: Result<Instant, Cut>) {
        self.end.get_or_insert(end);
        if end.is_err() {
            while self.pop().is_some() {}
        }
        self.reader.take().into_iter().for_each(Waker::wake);
        self.watcher.take().into_iter().for_each(Waker::wake);
    }
}

impl CopyBody {
    /// Tells how far it has come.
    pub fn progress(&self) -> Progress {
        Progress(Rc::clone(&self.0))
    }
}

impl Body for CopyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut copy = self.0.borrow_mut();
        if let Some(frame) = copy.pop() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match copy.end {
            Some(Ok(_)) => Poll::Ready(None),
            Some(Err(cut)) => Poll::Ready(Some(Err(cut.into()))),
            None => {
                copy.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let copy = self.0.borrow();
        copy.frames.is_empty() && matches!(copy.end, Some(Ok(_)))
    }
}

impl Drop for CopyBody {
    fn drop(&mut self) {
        let mut copy = self.0.borrow_mut();
        while copy.pop().is_some() {}
        // Nobody will read on: that is all of it.
        copy.end(Ok(Instant::now()));
    }
}

impl Progress {
    /// When the copy had all of its original, or why it never will; none, and the task is woken then, until one of
    /// both is so.
    pub fn poll_end(&self, cx: &Context<'_>) -> Option<Result<Instant, Cut>> {
        let mut copy = self.0.borrow_mut();
        if copy.end.is_none() {
            copy.watcher = Some(cx.waker().clone());
        }
        copy.end
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::HeaderMap;

    use super::*;

    struct Original(VecDeque<Frame<Bytes>>);

    impl Original {
        fn of(parts: &[&'static [u8]]) -> Tee<Self> {
            Tee::new(Self(parts.iter().map(|part| Frame::data(Bytes::from_static(part))).collect()))
        }
    }

    impl Body for Original {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn read(tee: &mut Tee<Original>) -> Option<Frame<Bytes>> {
        match Pin::new(tee).poll_frame(&mut cx()) {
            Poll::Ready(frame) => frame.map(|frame| frame.unwrap()),
            Poll::Pending => panic!("the original is always ready"),
        }
    }

    /// What a copy gives now: data, `.` for trailers, `|` at its end, `!` if it was cut, `…` if it waits.
    fn given(copy: &mut CopyBody) -> String {
        let mut text = String::new();
        loop {
            match Pin::new(&mut *copy).poll_frame(&mut cx()) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => text += std::str::from_utf8(&data).unwrap(),
                    Err(_) => text.push('.'),
                },
                Poll::Ready(Some(Err(_))) => return text + "!",
                Poll::Ready(None) => return text + "|",
                Poll::Pending => return text + "…",
            }
        }
    }

    #[test]
    fn copies_get_what_is_read_and_when_it_is() {
        let budget = Rc::new(MirrorBudget::default());
        let mut tee = Original::of(&[b"one", b"two"]);
        tee.body.0.push_back(Frame::trailers(HeaderMap::new()));
        let (mut a, mut b) = (tee.copy(1000, &budget), tee.copy(1000, &budget));
        assert_eq!(given(&mut a), "…");
        read(&mut tee);
        assert_eq!(given(&mut a), "one…");
        read(&mut tee);
        read(&mut tee);
        assert!(a.progress().poll_end(&cx()).is_none());
        assert!(read(&mut tee).is_none());
        assert_eq!((given(&mut a), given(&mut b)), ("two.|".to_owned(), "onetwo.|".to_owned()));
        assert!(matches!(a.progress().poll_end(&cx()), Some(Ok(_))));
        assert!(a.is_end_stream());
        assert_eq!(budget.waiting(), 0);
    }

    #[test]
    fn a_copy_that_falls_behind_is_cut_and_holds_nothing() {
        let budget = Rc::new(MirrorBudget::default());
        let mut tee = Original::of(&[b"one", b"two", b"three"]);
        let mut slow = tee.copy(2 * MIN_COST, &budget);
        let mut quick = tee.copy(2 * MIN_COST, &budget);
        for _ in 0..3 {
            read(&mut tee);
            assert!(!given(&mut quick).contains('!'));
        }
        assert_eq!(slow.progress().poll_end(&cx()), Some(Err(Cut::FellBehind)));
        assert_eq!(budget.waiting(), 0);
        assert_eq!(given(&mut slow), "!");
    }

    #[test]
    fn a_copy_breaks_off_with_its_original() {
        let budget = Rc::new(MirrorBudget::default());
        let mut tee = Original::of(&[b"one", b"two"]);
        let mut copy = tee.copy(1000, &budget);
        read(&mut tee);
        drop(tee);
        assert_eq!(given(&mut copy), "!");
    }

    #[test]
    fn nothing_is_kept_for_a_copy_that_nobody_reads() {
        let budget = Rc::new(MirrorBudget::default());
        let mut tee = Original::of(&[b"one", b"two"]);
        let copy = tee.copy(1000, &budget);
        let progress = copy.progress();
        read(&mut tee);
        drop(copy);
        read(&mut tee);
        assert_eq!(budget.waiting(), 0);
        assert!(matches!(progress.poll_end(&cx()), Some(Ok(_))));
    }
}
