//! One endpoint at several addresses (RFC 8305): tried one after the other, each a little after the one before
//! or as soon as that has failed, until one answers.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use smallvec::SmallVec;

use crate::config::connecting::HappyEyeballs;

/// Time an address is given before the next is tried beside it.
const ATTEMPT_DELAY: Duration = Duration::from_millis(300);

/// Addresses, in the order they are tried. Mostly there is one.
pub(super) type Order = SmallVec<[SocketAddr; 2]>;

/// The order of addresses: so many of the first family, then one of the other, and so on.
pub(super) fn order(first: SocketAddr, others: &[SocketAddr], config: HappyEyeballs) -> Order {
    if others.is_empty() {
        return Order::from_slice(&[first]);
    }
    let ipv4_first = config.ipv4_first.unwrap_or(first.is_ipv4());
    let all = std::iter::once(first).chain(others.iter().copied());
    let (preferred, other): (Order, Order) = all.partition(|it| it.is_ipv4() == ipv4_first);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut ordered = Order::new();
    while preferred.len() > 0 || other.len() > 0 {
        ordered.extend(preferred.by_ref().take(config.first_family_count.max(1)));
        ordered.extend(other.next());
    }
    ordered
}

/// The first success of `attempt` over `addresses`, of which there is at least one, or the last failure.
/// Attempts still under way are dropped. `again` is called before every attempt but the first.
pub(super) async fn race<F, T, E>(
    addresses: Order,
    attempt: impl Fn(SocketAddr) -> F,
    again: impl Fn(),
) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut addresses = addresses.into_iter();
    let first = attempt(addresses.next()?);
    if addresses.len() == 0 {
        return Some(first.await);
    }
    let mut attempts: FuturesUnordered<F> = FuturesUnordered::new();
    attempts.push(first);
    loop {
        let next = tokio::time::sleep(ATTEMPT_DELAY);
        let failure = tokio::select! {
            outcome = attempts.next() => match outcome? {
                Ok(winner) => return Some(Ok(winner)),
                Err(error) => Some(error),
            },
            () = next, if addresses.len() > 0 => None,
        };
        match (addresses.next(), failure) {
            (Some(address), _) => {
                again();
                attempts.push(attempt(address));
            }
            (None, Some(error)) if attempts.is_empty() => return Some(Err(error)),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use futures_util::future::Either;
    use proptest::prelude::*;

    use super::*;

    /// Addresses by number, IPv6 if it is negative.
    fn addresses(numbers: &[i16]) -> Vec<SocketAddr> {
        let address = |number: &i16| match number.unsigned_abs() {
            port if *number < 0 => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
            port => SocketAddr::from(([127, 0, 0, 1], port)),
        };
        numbers.iter().map(address).collect()
    }

    fn ordered(numbers: &[i16], ipv4_first: Option<bool>, first_family_count: usize) -> Order {
        let all = addresses(numbers);
        order(all[0], &all[1..], HappyEyeballs { ipv4_first, first_family_count })
    }

    #[test]
    fn families_take_turns() {
        let is = |order: Order, numbers: &[i16]| assert_eq!(order.to_vec(), addresses(numbers));
        is(ordered(&[1], None, 1), &[1]);
        is(ordered(&[1, 2, 3, -1, -2], None, 1), &[1, -1, 2, -2, 3]);
        is(ordered(&[-1, -2, 1, 2], None, 1), &[-1, 1, -2, 2]);
        is(ordered(&[-1, 1, -2, 2], Some(true), 2), &[1, 2, -1, -2]);
        is(ordered(&[-1, -2, -3, 1], Some(true), 2), &[1, -1, -2, -3]);
        is(ordered(&[1, 2, 3], Some(false), 1), &[1, 2, 3]);
    }

    proptest! {
        #[test]
        fn no_address_is_lost(numbers: Vec<i16>, v4: Option<bool>, count in 0_usize..4) {
            prop_assume!(!numbers.is_empty());
            let mut sorted = addresses(&numbers);
            let mut order = ordered(&numbers, v4, count).to_vec();
            sorted.sort_unstable();
            order.sort_unstable();
            prop_assert_eq!(order, sorted);
        }
    }

    /// Races attempts that by their port succeed (0), fail (1) or never end; the winner's number counted
    /// from 0, and how many were tried.
    async fn raced(ports: &[i16]) -> (Result<SocketAddr, SocketAddr>, u32) {
        let tried = Cell::new(1);
        let attempt = |address: SocketAddr| match address.port() % 10 {
            0 => Either::Left(ready(Ok(address))),
            1 => Either::Left(ready(Err(address))),
            _ => Either::Right(pending()),
        };
        let order = addresses(ports).into_iter().collect();
        let result = race(order, attempt, || tried.set(tried.get() + 1)).await;
        (result.unwrap(), tried.get())
    }

    #[tokio::test]
    async fn the_first_that_answers_wins() {
        let [a, b, c] = [0, 1, 2].map(|index| addresses(&[10, 20, 30])[index]);
        assert_eq!(raced(&[10, 20]).await, (Ok(a), 1));
        assert_eq!(raced(&[11, 20, 30]).await, (Ok(b), 2));
        let start = tokio::time::Instant::now();
        assert_eq!(raced(&[12, 22, 30]).await, (Ok(c), 3));
        assert!(start.elapsed() >= 2 * ATTEMPT_DELAY);
    }

    #[tokio::test]
    async fn a_failure_is_not_waited_for() {
        let last = addresses(&[31])[0];
        assert_eq!(raced(&[11, 21, 31]).await, (Err(last), 3));
    }
}
