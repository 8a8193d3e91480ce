//! How requests are described to rate limits: which limits apply to one, and the descriptor that each makes of it.

use std::borrow::Cow;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use crate::config::address::CidrRange;
use crate::config::format::Facts;
use crate::config::matcher::{QueryParameterMatcher, RequestHead};
use crate::config::metadata::Metadata;
use crate::config::rate_limit::{
    Action, HitsAddend, MetadataKey, MetadataSource, RateLimit, VirtualHostLimits,
};
use crate::config::route::{self, Route, VirtualHost};
use crate::net::listening::known;

/// Most hits one request may be.
const MOST_HITS: f64 = 1_000_000_000.0;

/// What a request is described by.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Its head.
    pub head: &'a RequestHead<'a>,
    /// The client, as trusted headers say.
    pub client: IpAddr,
    /// The cluster that this proxy belongs to (`--service-cluster`).
    pub source_cluster: &'a str,
    /// The cluster that it is forwarded to, if it is.
    pub destination_cluster: Option<&'a str>,
    /// What filters have set.
    pub metadata: Option<&'a Metadata>,
    /// What its route says.
    pub route_metadata: Option<&'a Metadata>,
    /// What formats ask about.
    pub facts: &'a dyn Facts,
}

/// A request as a limit sees it (Envoy `RateLimitDescriptor`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Descriptor<'a> {
    /// Keys and values, in order; never empty.
    pub entries: SmallVec<[Entry<'a>; 2]>,
    /// The limit in place of the service's own.
    pub limit: Option<Limit>,
    /// How many hits the request is, if its limit says so.
    pub hits: Option<u64>,
}

/// One entry of a [`Descriptor`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its value, may be empty.
    pub value: Cow<'a, str>,
}

/// A limit that metadata sets (Envoy `RateLimitOverride`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// `requests_per_unit`
    pub requests: u32,
    /// `unit`
    pub unit: Unit,
}

/// Envoy `type.v3.RateLimitUnit`, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is Envoy's unit of the same name")]
pub enum Unit {
    Unknown = 0,
    Second = 1,
    Minute = 2,
    Hour = 3,
    Day = 4,
    Month = 5,
    Year = 6,
}

/// The limits of `stage` that count for a request of `route`, in the order in which Envoy heeds them. Those of its
/// virtual host may count as well, if `hosts` or the route itself says so; routes that do not forward have none.
pub fn limits<'a>(
    host: Option<&'a VirtualHost>,
    route: Option<&'a Route>,
    hosts: VirtualHostLimits,
    stage: u32,
) -> impl Iterator<Item = &'a RateLimit> {
    let (mut own, mut shared): (&[RateLimit], &[RateLimit]) = (&[], &[]);
    if let Some(route::Action::Forward(action)) = route.map(|route| &route.action) {
        own = &action.rate_limits;
        let includes = match hosts {
            _ if action.include_vh_rate_limits => true,
            VirtualHostLimits::Include => true,
            VirtualHostLimits::Override => own.is_empty(),
            VirtualHostLimits::Ignore => false,
        };
        if let Some(host) = host.filter(|_| includes) {
            shared = &host.rate_limits;
        }
    }
    own.iter().chain(shared).filter(move |limit| limit.stage == stage)
}

/// How `limit` describes a request; none if one of its actions cannot.
pub fn descriptor<'a>(limit: &'a RateLimit, of: Subject<'a>) -> Option<Descriptor<'a>> {
    let mut descriptor = Descriptor { hits: hits(limit, of)?, ..Descriptor::default() };
    for action in &limit.actions {
        match entry(action, of) {
            Described::As(key, value) => descriptor.entries.push(Entry { key, value }),
            Described::Skipped => {}
            Described::Not => return None,
        }
    }
    if let Some(key) = &limit.limit {
        descriptor.limit = overridden(key, of.metadata);
    }
    (!descriptor.entries.is_empty()).then_some(descriptor)
}

/// How many hits a request is, if `limit` says so; none at all if the request should say, and does not.
fn hits(limit: &RateLimit, of: Subject<'_>) -> Option<Option<u64>> {
    Some(match &limit.hits_addend {
        None => None,
        Some(HitsAddend::Number(hits)) => Some(*hits),
        Some(HitsAddend::Format(format)) => {
            let mut text = Vec::new();
            format.render(of.facts, "", &mut text);
            let hits: f64 = std::str::from_utf8(&text).ok()?.parse().ok()?;
            Some((0.0..=MOST_HITS).contains(&hits).then_some(hits as u64)?)
        }
    })
}

/// What an action says of a request.
enum Described<'a> {
    As(&'a str, Cow<'a, str>),
    Skipped,
    Not,
}

fn entry<'a>(action: &'a Action, of: Subject<'a>) -> Described<'a> {
    let unless_absent = |key: &'a str, value: Option<Cow<'a, str>>, skip: bool| match value {
        Some(value) => Described::As(key, value),
        None if skip => Described::Skipped,
        None => Described::Not,
    };
    let matched = |key: &'a str, value: &'a str, holds: bool| match holds {
        true => Described::As(key, value.into()),
        false => Described::Not,
    };
    match action {
        Action::SourceCluster => Described::As("source_cluster", of.source_cluster.into()),
        Action::DestinationCluster => {
            let cluster = of.destination_cluster.map(Cow::Borrowed);
            unless_absent("destination_cluster", cluster, false)
        }
        Action::RequestHeader { header, key, skip_if_absent } => {
            let value = header.first(of.head).map(String::from_utf8_lossy);
            unless_absent(key, value, *skip_if_absent)
        }
        Action::QueryParameter { name, key, skip_if_absent } => {
            unless_absent(key, parameter(of.head, name), *skip_if_absent)
        }
        Action::RemoteAddress => {
            let client = known(of.client.to_canonical()).map(|client| client.to_string().into());
            unless_absent("remote_address", client, false)
        }
        Action::MaskedRemoteAddress { v4, v6 } => {
            let block = known(of.client.to_canonical()).and_then(|client| {
                CidrRange::new(client, if client.is_ipv4() { *v4 } else { *v6 })
            });
            let block = block.map(|block| block.to_string().into());
            unless_absent("masked_remote_address", block, false)
        }
        Action::GenericKey { key, value } => Described::As(key, (&**value).into()),
        Action::HeaderValueMatch { key, value, expect_match, headers } => {
            let all = headers.iter().all(|header| header.matches(of.head));
            matched(key, value, all == *expect_match)
        }
        Action::QueryParameterValueMatch { key, value, expect_match, parameters } => {
            let holds = |it: &QueryParameterMatcher| {
                it.matches_value(parameter(of.head, &it.name).as_deref().map(str::as_bytes))
            };
            matched(key, value, parameters.iter().all(holds) == *expect_match)
        }
        Action::Metadata { key, from, source, default, skip_if_absent } => {
            let metadata = match source {
                MetadataSource::Dynamic => of.metadata,
                MetadataSource::Route => of.route_metadata,
            };
            let value = metadata.and_then(|it| it.get(&from.namespace, &from.path)?.as_str());
            let value = [value, Some(&**default)].into_iter().flatten().find(|it| !it.is_empty());
            unless_absent(key, value.map(Cow::Borrowed), *skip_if_absent)
        }
    }
}

/// The first value of a query parameter, decoded.
fn parameter<'a>(head: &RequestHead<'a>, name: &str) -> Option<Cow<'a, str>> {
    let decoded = |text: &'a str| percent_decode_str(text).decode_utf8_lossy();
    head.query()?.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(found) == name).then(|| decoded(value))
    })
}

fn overridden(key: &MetadataKey, metadata: Option<&Metadata>) -> Option<Limit> {
    let limit = metadata?.get(&key.namespace, &key.path)?.as_object()?;
    let unit = match limit.get("unit")?.as_str()? {
        "UNKNOWN" => Unit::Unknown,
        "SECOND" => Unit::Second,
        "MINUTE" => Unit::Minute,
        "HOUR" => Unit::Hour,
        "DAY" => Unit::Day,
        "MONTH" => Unit::Month,
        "YEAR" => Unit::Year,
        _ => return None,
    };
    Some(Limit { requests: limit.get("requests_per_unit")?.as_f64()? as u32, unit })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};
    use serde_json::json;

    use super::*;
    use crate::config::format::{Format, Operator};
    use crate::config::matcher::HeaderRef;

    struct Hits;

    impl Facts for Hits {
        fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
            let known = matches!(operator, Operator::BytesReceived);
            out.extend_from_slice(if known { b"7" } else { b"" });
            known
        }
    }

    fn limit(actions: Vec<Action>) -> RateLimit {
        RateLimit {
            stage: 0,
            disable_key: "".into(),
            actions,
            limit: None,
            hits_addend: None,
            apply_on_stream_done: false,
        }
    }

    /// How `limit` describes a GET of `path` with an `x-a: 1`, and metadata.
    fn described(limit: &RateLimit, path: &str) -> Option<(String, Option<Limit>, Option<u64>)> {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        let mut metadata = Metadata::default();
        let value = json!({"t": "text", "l": {"requests_per_unit": 42, "unit": "HOUR"}});
        metadata.set("n", value.as_object().unwrap().clone());
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a.test",
            path_and_query: path,
            headers: &headers,
        };
        let of = Subject {
            head: &head,
            client: "::ffff:10.1.2.3".parse().unwrap(),
            source_cluster: "me",
            destination_cluster: Some("app"),
            metadata: Some(&metadata),
            route_metadata: None,
            facts: &Hits,
        };
        let descriptor = descriptor(limit, of)?;
        let entries = descriptor.entries.iter().map(|it| format!("{}={}", it.key, it.value));
        Some((entries.collect::<Vec<_>>().join(" "), descriptor.limit, descriptor.hits))
    }

    fn entries(actions: Vec<Action>, path: &str) -> Option<String> {
        described(&limit(actions), path).map(|(entries, ..)| entries)
    }

    fn header(name: &str, skip_if_absent: bool) -> Action {
        let header = HeaderRef::parse(name).unwrap();
        Action::RequestHeader { header, key: "h".into(), skip_if_absent }
    }

    #[test]
    fn each_action_adds_its_entry() {
        let all = vec![
            Action::SourceCluster,
            Action::DestinationCluster,
            header("x-a", false),
            header(":path", false),
            Action::RemoteAddress,
            Action::MaskedRemoteAddress { v4: 8, v6: 128 },
            Action::GenericKey { key: "generic_key".into(), value: "%REQ(x-a)%".into() },
        ];
        assert_eq!(
            entries(all, "/p").as_deref(),
            Some(
                "source_cluster=me destination_cluster=app h=1 h=/p remote_address=10.1.2.3 \
                 masked_remote_address=10.0.0.0/8 generic_key=%REQ(x-a)%"
            )
        );
    }

    #[test]
    fn what_is_absent_ends_the_descriptor_or_is_skipped() {
        let generic = || Action::GenericKey { key: "g".into(), value: "v".into() };
        assert_eq!(entries(vec![generic(), header("x-b", false)], "/"), None);
        assert_eq!(entries(vec![generic(), header("x-b", true)], "/").as_deref(), Some("g=v"));
        assert_eq!(entries(vec![header("x-b", true)], "/"), None, "an empty one is none");
        let parameter = |skip_if_absent| Action::QueryParameter {
            name: "a b".into(),
            key: "q".into(),
            skip_if_absent,
        };
        assert_eq!(entries(vec![parameter(false)], "/?a%20b=c%2Bd&a%20b=e").unwrap(), "q=c+d");
        assert_eq!(entries(vec![parameter(false)], "/?a"), None);
    }

    #[test]
    fn metadata_has_texts_and_limits() {
        let from = |key: &str| MetadataKey { namespace: "n".into(), path: vec![key.into()] };
        let action = |key: &str, default: &str| Action::Metadata {
            key: "m".into(),
            from: from(key),
            source: MetadataSource::Dynamic,
            default: default.into(),
            skip_if_absent: false,
        };
        assert_eq!(entries(vec![action("t", "d")], "/").unwrap(), "m=text");
        assert_eq!(entries(vec![action("l", "d")], "/").unwrap(), "m=d");
        assert_eq!(entries(vec![action("none", "")], "/"), None);
        let with = RateLimit { limit: Some(from("l")), ..limit(vec![Action::SourceCluster]) };
        let (_, limit, _) = described(&with, "/").unwrap();
        assert_eq!(limit, Some(Limit { requests: 42, unit: Unit::Hour }));
    }

    #[test]
    fn a_request_may_say_how_much_it_is() {
        let of = |hits_addend| {
            let limit = RateLimit { hits_addend, ..limit(vec![Action::SourceCluster]) };
            described(&limit, "/").map(|(.., hits)| hits)
        };
        let format = |text| Some(HitsAddend::Format(Format::parse(text).unwrap()));
        assert_eq!(of(None), Some(None));
        assert_eq!(of(Some(HitsAddend::Number(3))), Some(Some(3)));
        assert_eq!(of(format("%BYTES_RECEIVED%")), Some(Some(7)));
        assert_eq!(of(format("%REQ(x)%")), None);
    }
}
