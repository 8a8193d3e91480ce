//! Which cluster a request goes to: named, named by a header, or one of several by weight.

use http::HeaderValue;

use crate::config::matcher::{HeaderRef, RequestHead};
use crate::config::route::{ClusterSpecifier, ClusterTarget, RouteAction, WeightedClusters};

/// The cluster chosen for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The cluster's name; empty when the header that names it is missing, which no cluster is called.
    pub cluster: &'a str,
    /// Which of the weighted clusters it is, for their own header changes and host.
    pub weighted: Option<usize>,
}

/// The cluster that `action` sends the request to. `random` is the request's random number.
pub fn target<'a>(action: &'a RouteAction, head: &RequestHead<'a>, random: u64) -> Target<'a> {
    match &action.cluster {
        ClusterSpecifier::Name(name) => Target { cluster: name, weighted: None },
        ClusterSpecifier::Header(header) => {
            Target { cluster: named_by(header, head), weighted: None }
        }
        ClusterSpecifier::Weighted(clusters) => {
            let weighted = choose(clusters, head, random);
            let chosen = weighted.and_then(|number| clusters.clusters.get(number));
            let cluster = chosen.map_or("", |cluster| match &cluster.target {
                ClusterTarget::Name(name) => name,
                ClusterTarget::Header(header) => named_by(header, head),
            });
            Target { cluster, weighted }
        }
    }
}

/// The place of the weighted cluster that `random` falls on, each as often as its weight says.
/// None only if no cluster has any weight.
///
/// A single, decimal value of [`WeightedClusters::random_value_header`] takes the place of `random`, so
/// that several proxies on a request's way choose alike.
pub fn choose(clusters: &WeightedClusters, head: &RequestHead<'_>, random: u64) -> Option<usize> {
    let header = clusters.random_value_header.as_ref();
    let random = header.and_then(|name| only_number(head, name)).unwrap_or(random);
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

/// The first value of `header`. Envoy uses only the first, since clients may send more.
fn named_by<'a>(header: &HeaderRef, head: &RequestHead<'a>) -> &'a str {
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
    use crate::config::matcher::HeaderRef;
    use crate::config::route::{ClusterSpecifier, ClusterTarget, WeightedClusters};
    use crate::route::tests::{forward, get, weighted};

    fn clusters(weights: &[u32]) -> WeightedClusters {
        let cluster = |(number, weight): (usize, &u32)| weighted(&format!("c{number}"), *weight);
        WeightedClusters {
            clusters: weights.iter().enumerate().map(cluster).collect(),
            total: weights.iter().map(|weight| u64::from(*weight)).sum(),
            random_value_header: Some(HeaderName::from_static("x-random")),
        }
    }

    #[test]
    fn every_value_of_the_total_belongs_to_one_cluster() {
        let clusters = clusters(&[90, 0, 10]);
        let headers = HeaderMap::new();
        let mut shares = [0; 3];
        for random in 0..1000 {
            shares[choose(&clusters, &get("/", &headers), random).unwrap()] += 1;
        }
        assert_eq!(shares, [900, 0, 100]);
    }

    #[test]
    fn the_edges_are_envoys() {
        let clusters = clusters(&[30, 30, 40]);
        let headers = HeaderMap::new();
        for (random, expected) in [(0, 0), (29, 0), (30, 1), (59, 1), (60, 2), (99, 2), (115, 0)] {
            assert_eq!(choose(&clusters, &get("/", &headers), random), Some(expected), "{random}");
        }
    }

    #[test]
    fn one_numeric_header_replaces_the_random_number() {
        let clusters = clusters(&[50, 50]);
        let mut headers = HeaderMap::new();
        headers.insert("x-random", HeaderValue::from_static("70"));
        assert_eq!(choose(&clusters, &get("/", &headers), 0), Some(1));
        headers.insert("x-random", HeaderValue::from_static("seventy"));
        assert_eq!(choose(&clusters, &get("/", &headers), 0), Some(0));
        headers.insert("x-random", HeaderValue::from_static("70"));
        headers.append("x-random", HeaderValue::from_static("70"));
        assert_eq!(choose(&clusters, &get("/", &headers), 0), Some(0));
    }

    #[test]
    fn a_header_names_the_cluster_by_its_first_value() {
        let action = forward(ClusterSpecifier::Header(HeaderRef::parse("x-cluster").unwrap()));
        let mut headers = HeaderMap::new();
        assert_eq!(target(&action, &get("/", &headers), 0).cluster, "");
        headers.append("x-cluster", HeaderValue::from_static("one"));
        headers.append("x-cluster", HeaderValue::from_static("two"));
        assert_eq!(
            target(&action, &get("/", &headers), 0),
            Target { cluster: "one", weighted: None }
        );
    }

    #[test]
    fn a_weighted_choice_may_be_named_by_a_header() {
        let mut clusters = clusters(&[1, 1]);
        clusters.clusters[1].target = ClusterTarget::Header(HeaderRef::Authority);
        let action = forward(ClusterSpecifier::Weighted(clusters));
        let headers = HeaderMap::new();
        let named = target(&action, &get("/", &headers), 0);
        assert_eq!(named, Target { cluster: "c0", weighted: Some(0) });
        let by_header = target(&action, &get("/", &headers), 1);
        assert_eq!(by_header, Target { cluster: "a.com", weighted: Some(1) });
    }
}
