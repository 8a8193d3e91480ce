//! Which cluster a request goes to: named, named by a header, or one of several by weight.

use std::net::IpAddr;

use http::HeaderValue;

use crate::config::matcher::{HeaderRef, RequestHead};
use crate::config::route::{
    ClusterSpecifier, ClusterTarget, RandomValue, RouteAction, WeightedClusters,
};
use crate::route::hash::{self, Keys};

/// The cluster chosen for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The cluster's name; empty when the header that names it is missing, which no cluster is called.
    pub cluster: &'a str,
    /// Which of the weighted clusters it is, for their own header changes and host.
    pub weighted: Option<usize>,
}

/// The cluster that `action` sends the request to. `client` is the client's address, if known, and `random` the
/// request's random number.
pub fn target<'a>(
    action: &'a RouteAction,
    head: &RequestHead<'a>,
    client: Option<IpAddr>,
    random: u64,
) -> Target<'a> {
    match &action.cluster {
        ClusterSpecifier::Name(name) => Target { cluster: name, weighted: None },
        ClusterSpecifier::Header(header) => {
            Target { cluster: named_by(header, head), weighted: None }
        }
        ClusterSpecifier::Weighted(clusters) => {
            let value = random_value(action, clusters, head, client).unwrap_or(random);
            let weighted = choose(clusters, value);
            let chosen = weighted.and_then(|number| clusters.clusters.get(number));
            let cluster = chosen.map_or("", |cluster| match &cluster.target {
                ClusterTarget::Name(name) => name,
                ClusterTarget::Header(header) => named_by(header, head),
            });
            Target { cluster, weighted }
        }
    }
}

/// What takes the place of the request's random number: a single, decimal value of a header, so that several
/// proxies on a request's way choose alike; or the hash of the route's hash policies, so that a user stays where
/// he is. No cookie is made for that: who has none yet is given one, and a cluster, by the next route that may.
fn random_value(
    action: &RouteAction,
    clusters: &WeightedClusters,
    head: &RequestHead<'_>,
    client: Option<IpAddr>,
) -> Option<u64> {
    match &clusters.random_value {
        RandomValue::Drawn => None,
        RandomValue::Header(name) => only_number(head, name),
        RandomValue::HashPolicy => {
            hash::of(&action.hash_policies, &Keys { head, client, cookie: &|_| None })
        }
    }
}

/// The place of the weighted cluster that `random` falls on, each as often as its weight says.
/// None only if no cluster has any weight.
///
/// While the sum of the weights stays the same, a number falls on another cluster only if the borders of the
/// clusters' shares move across it: of two clusters, the one whose weight rises takes numbers from the other,
/// and gives none, whichever stands first.
pub fn choose(clusters: &WeightedClusters, random: u64) -> Option<usize> {
    let mut left = random.checked_rem(clusters.total)?;
    clusters.clusters.iter().position(|cluster| {
        let weight = u64::from(cluster.weight);
        let taken = left < weight;
        left = left.saturating_sub(weight);
        taken
    })
}

fn only_number(head: &RequestHead<'_>, name: &http::HeaderName) -> Option<u64> {
    let mut values = head.headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok()?.trim().parse().ok()
}

/// The name of a cluster in the first value of `header`; empty if there is none. Envoy uses only the first, since clients may send more.
pub fn named_by<'a>(header: &HeaderRef, head: &RequestHead<'a>) -> &'a str {
    match header {
        HeaderRef::Method => head.method.as_str(),
        HeaderRef::Path => head.path_and_query,
        HeaderRef::Authority => head.authority,
        HeaderRef::Scheme => head.scheme,
        HeaderRef::Named(name) => {
            head.headers.get(name).map(HeaderValue::to_str).and_then(Result::ok).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Target, choose, target};
    use crate::config::hash_policy::{HashPolicy, HashSource};
    use crate::config::matcher::HeaderRef;
    use crate::config::route::{
        ClusterSpecifier, ClusterTarget, RandomValue, RouteAction, WeightedClusters,
    };
    use crate::route::tests::{forward, get, weighted};

    fn clusters(weights: &[u32]) -> WeightedClusters {
        let cluster = |(number, weight): (usize, &u32)| weighted(&format!("c{number}"), *weight);
        WeightedClusters {
            clusters: weights.iter().enumerate().map(cluster).collect(),
            total: weights.iter().map(|weight| u64::from(*weight)).sum(),
            random_value: RandomValue::Drawn,
        }
    }

    fn chosen(action: &RouteAction, headers: &HeaderMap, random: u64) -> Option<usize> {
        target(action, &get("/", headers), None, random).weighted
    }

    #[test]
    fn every_value_of_the_total_belongs_to_one_cluster() {
        let clusters = clusters(&[90, 0, 10]);
        let mut shares = [0; 3];
        for random in 0..1000 {
            shares[choose(&clusters, random).unwrap()] += 1;
        }
        assert_eq!(shares, [900, 0, 100]);
    }

    #[test]
    fn the_edges_are_envoys() {
        let clusters = clusters(&[30, 30, 40]);
        for (random, expected) in [(0, 0), (29, 0), (30, 1), (59, 1), (60, 2), (99, 2), (115, 0)] {
            assert_eq!(choose(&clusters, random), Some(expected), "{random}");
        }
    }

    #[test]
    fn one_numeric_header_replaces_the_random_number() {
        let mut clusters = clusters(&[50, 50]);
        clusters.random_value = RandomValue::Header(HeaderName::from_static("x-random"));
        let action = forward(ClusterSpecifier::Weighted(clusters));
        let mut headers = HeaderMap::new();
        headers.insert("x-random", HeaderValue::from_static("70"));
        assert_eq!(chosen(&action, &headers, 0), Some(1));
        headers.insert("x-random", HeaderValue::from_static("seventy"));
        assert_eq!(chosen(&action, &headers, 0), Some(0));
        headers.insert("x-random", HeaderValue::from_static("70"));
        headers.append("x-random", HeaderValue::from_static("70"));
        assert_eq!(chosen(&action, &headers, 0), Some(0));
    }

    /// Which users are sent to the second cluster, the canary, when the first one has the rest of 100.
    fn on_canary(shares: &[u32]) -> Vec<bool> {
        let mut clusters = clusters(shares);
        clusters.random_value = RandomValue::HashPolicy;
        let mut action = forward(ClusterSpecifier::Weighted(clusters));
        let name = HeaderRef::parse("x-user").unwrap();
        let source = HashSource::Header { name, rewrite: None };
        action.hash_policies.push(HashPolicy { source, terminal: false });
        let canary = shares.len() - 1;
        (0..10_000)
            .map(|user| {
                let mut headers = HeaderMap::new();
                headers.insert("x-user", HeaderValue::try_from(format!("user-{user}")).unwrap());
                chosen(&action, &headers, 7) == Some(canary)
            })
            .collect()
    }

    #[test]
    fn users_only_move_to_the_cluster_whose_weight_rises() {
        let weights = [5, 20, 50, 100];
        let canary_last = weights.map(|weight| on_canary(&[100 - weight, weight]));
        // The other way round, what is not on the last cluster is on the canary.
        let canary_first = weights.map(|weight| {
            on_canary(&[weight, 100 - weight]).into_iter().map(|stable| !stable).collect::<Vec<_>>()
        });
        for steps in [canary_last, canary_first] {
            for pair in steps.windows(2) {
                let back =
                    pair[0].iter().zip(&pair[1]).filter(|(before, after)| **before && !**after);
                assert_eq!(back.count(), 0);
            }
            for (step, weight) in steps.iter().zip(weights) {
                let share = step.iter().filter(|canary| **canary).count() as f64 / 100.0;
                assert!((share - f64::from(weight)).abs() <= 0.5, "{share} % of {weight} %");
            }
        }
    }

    #[test]
    fn whoever_has_no_hash_is_sent_by_chance() {
        let mut clusters = clusters(&[50, 50]);
        clusters.random_value = RandomValue::HashPolicy;
        let action = forward(ClusterSpecifier::Weighted(clusters));
        assert_eq!(
            [0, 70].map(|random| chosen(&action, &HeaderMap::new(), random)),
            [Some(0), Some(1)]
        );
    }

    #[test]
    fn a_header_names_the_cluster_by_its_first_value() {
        let action = forward(ClusterSpecifier::Header(HeaderRef::parse("x-cluster").unwrap()));
        let mut headers = HeaderMap::new();
        assert_eq!(target(&action, &get("/", &headers), None, 0).cluster, "");
        headers.append("x-cluster", HeaderValue::from_static("one"));
        headers.append("x-cluster", HeaderValue::from_static("two"));
        assert_eq!(
            target(&action, &get("/", &headers), None, 0),
            Target { cluster: "one", weighted: None }
        );
    }

    #[test]
    fn a_weighted_choice_may_be_named_by_a_header() {
        let mut clusters = clusters(&[1, 1]);
        clusters.clusters[1].target = ClusterTarget::Header(HeaderRef::Authority);
        let action = forward(ClusterSpecifier::Weighted(clusters));
        let headers = HeaderMap::new();
        let named = target(&action, &get("/", &headers), None, 0);
        assert_eq!(named, Target { cluster: "c0", weighted: Some(0) });
        let by_header = target(&action, &get("/", &headers), None, 1);
        assert_eq!(by_header, Target { cluster: "a.com", weighted: Some(1) });
    }
}
