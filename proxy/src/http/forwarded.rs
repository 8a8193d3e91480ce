//! Where a request comes from: the trusted client address, the `x-forwarded-*` headers, and what an
//! external caller must not claim.
//!
//! All rules are Envoy's, checked on 1.40. A request is *internal* if the client's address is in
//! `internal_address_config` (by default nothing is) and nobody in between could have made it up;
//! it is an *edge* request if it is not internal and this proxy is the first trusted one
//! (`use_remote_address`).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{HeaderName, HeaderValue, REFERER};
use http::uri::Scheme;
use http::{HeaderMap, Uri};

use super::names;
use crate::config::http::HttpConnectionManager;
use crate::config::matcher::joined;
use crate::net::listening::known;

/// What is known of a client's connection; made once per connection.
#[derive(Debug, Clone)]
pub struct Downstream {
    remote: SocketAddr,
    tls: bool,
    remote_text: HeaderValue,
    /// None for one that came over a Unix socket.
    forwarded_for: Option<HeaderValue>,
    local_port: u16,
}

impl Downstream {
    /// Facts of the connection from `remote` to `local`. A peer on the loopback interface is written to
    /// `x-forwarded-for` as `node`, this machine's own address, as Envoy does; with `as_mapped`
    /// (`represent_ipv4_remote_address_as_ipv4_mapped_ipv6`) any other IPv4 peer as IPv6.
    pub fn new(
        remote: SocketAddr,
        local: SocketAddr,
        tls: bool,
        node: IpAddr,
        as_mapped: bool,
    ) -> Self {
        let ip = remote.ip().to_canonical();
        let forwarded_for = match ip {
            IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST) => node,
            IpAddr::V4(v4) if as_mapped => v4.to_ipv6_mapped().into(),
            ip => ip,
        };
        Self {
            remote: SocketAddr::new(ip, remote.port()),
            tls,
            remote_text: address_value(ip),
            forwarded_for: known(ip).map(|_| address_value(forwarded_for)),
            local_port: local.port(),
        }
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// Who sent a request, as far as it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The client's address: the peer's, or one of `x-forwarded-for` (then with port 0).
    pub address: SocketAddr,
    /// Whether the request counts as internal.
    pub internal: bool,
    /// Whether it is external and this proxy is the first trusted one.
    pub edge: bool,
}

/// Finds out who sent the request, writes the `x-forwarded-*` and `x-envoy-*` headers that say so, and
/// takes away what an external caller must not set. `internal_only` is the route table's list.
pub fn apply(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    internal_only: &[HeaderName],
    downstream: &Downstream,
) -> Caller {
    remove_bad_referer(headers);
    let found = if config.use_remote_address {
        trust_peer(headers, config, downstream)
    } else {
        last_address(headers, config.xff_num_trusted_hops)
    };
    describe_connection(headers, config, downstream);
    let internal = &config.internal_addresses;
    let internal = found.is_some_and(|found| {
        let is_internal = |ip| internal.ranges.iter().any(|range| range.contains(ip));
        found.alone && known(found.ip).map_or(internal.unix_sockets, is_internal)
    });
    let caller = Caller {
        address: match found {
            Some(found) if found.ip != downstream.remote.ip() => SocketAddr::new(found.ip, 0),
            _ => downstream.remote,
        },
        internal,
        edge: config.use_remote_address && !internal,
    };
    if names::any_x_envoy(headers) {
        headers.remove(names::X_ENVOY_INTERNAL);
        if !internal {
            remove_claims(headers, caller.edge);
        }
    }
    if !internal {
        for name in internal_only {
            headers.remove(name);
        }
    }
    mark(headers, caller, downstream);
    caller
}

/// The request's scheme, `http` or `https`: as overwritten by configuration, else as requested
/// (`:scheme` or an absolute target), else as `x-forwarded-proto` says, else as the connection is.
/// Call after [`apply`], which puts an overwritten scheme into `x-forwarded-proto`.
pub fn scheme(
    requested: Option<&Scheme>,
    headers: &HeaderMap,
    config: &HttpConnectionManager,
    downstream: &Downstream,
) -> &'static str {
    let forwarded = || headers.get(names::X_FORWARDED_PROTO)?.to_str().ok();
    let known =
        |text: &str| ["http", "https"].into_iter().find(|known| text.eq_ignore_ascii_case(known));
    config
        .scheme_overwrite
        .as_deref()
        .and_then(known)
        .or_else(|| known(requested?.as_str()))
        .or_else(|| known(forwarded()?))
        .unwrap_or(downstream.scheme())
}

/// An address, and whether it is the only one the request was forwarded for.
#[derive(Debug, Clone, Copy)]
struct Found {
    ip: IpAddr,
    alone: bool,
}

/// `use_remote_address`: the peer is the client, or the last trusted proxy before which
/// `xff_num_trusted_hops` counts.
fn trust_peer(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    downstream: &Downstream,
) -> Option<Found> {
    let alone = !headers.contains_key(names::X_FORWARDED_FOR);
    let before = config.xff_num_trusted_hops.checked_sub(1);
    let ip = before
        .and_then(|skip| last_address(headers, skip))
        .map_or(downstream.remote.ip(), |found| found.ip);
    if !config.skip_xff_append
        && let Some(address) = &downstream.forwarded_for
    {
        append(headers, names::X_FORWARDED_FOR, address, b",");
    }
    // Without a trusted proxy in front, nobody else may say how the client connected.
    if config.xff_num_trusted_hops == 0 {
        headers.remove(names::X_FORWARDED_PROTO);
        if config.append_x_forwarded_port {
            headers.remove(names::X_FORWARDED_PORT);
        }
    }
    Some(Found { ip, alone })
}

/// The last address of `x-forwarded-for` after leaving out `skip` entries at its end.
fn last_address(headers: &HeaderMap, skip: u32) -> Option<Found> {
    let value = joined(headers, &names::X_FORWARDED_FOR)?;
    let mut entries = value.rsplit(|byte| *byte == b',');
    let entry = entries.nth(usize::try_from(skip).ok()?)?;
    let ip = known(std::str::from_utf8(entry).ok()?.trim().parse().ok()?)?;
    Some(Found { ip, alone: skip == 0 && entries.next().is_none() })
}

/// Fills in how the client connected where that is not known yet.
fn describe_connection(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    downstream: &Downstream,
) {
    let overwrite = config.scheme_overwrite.as_deref();
    if let Some(Ok(scheme)) = overwrite.map(HeaderValue::from_str) {
        headers.insert(names::X_FORWARDED_PROTO, scheme);
    } else {
        headers
            .entry(names::X_FORWARDED_PROTO)
            .or_insert(HeaderValue::from_static(downstream.scheme()));
    }
    if config.append_x_forwarded_port {
        let port = || downstream.local_port.into();
        headers.entry(names::X_FORWARDED_PORT).or_insert_with(port);
    }
}

/// What only an internal caller may set; an edge proxy believes even less.
fn remove_claims(headers: &mut HeaderMap, edge: bool) {
    use crate::config::retry::request_header as retry;
    const EDGE: [HeaderName; 5] = [
        names::X_ENVOY_DECORATOR_OPERATION,
        names::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER,
        names::X_ENVOY_DOWNSTREAM_SERVICE_NODE,
        names::X_ENVOY_ORIGINAL_PATH,
        names::X_ENVOY_ORIGINAL_HOST,
    ];
    const EXTERNAL: [HeaderName; 15] = [
        retry::RETRIABLE_STATUS_CODES,
        retry::RETRIABLE_HEADER_NAMES,
        retry::RETRY_ON,
        retry::RETRY_GRPC_ON,
        retry::MAX_RETRIES,
        retry::TIMEOUT_MS,
        retry::PER_TRY_TIMEOUT_MS,
        retry::TIMEOUT_ALT_RESPONSE,
        names::X_ENVOY_UPSTREAM_STREAM_DURATION_MS,
        names::X_ENVOY_UPSTREAM_ALT_STAT_NAME,
        names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
        names::X_ENVOY_FORCE_TRACE,
        names::X_ENVOY_IP_TAGS,
        names::X_ENVOY_ORIGINAL_URL,
        names::X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT,
    ];
    let edge_only = if edge { &EDGE[..] } else { &[] };
    for name in EXTERNAL.iter().chain(edge_only) {
        headers.remove(name);
    }
}

/// Tells the upstream what was found out.
fn mark(headers: &mut HeaderMap, caller: Caller, downstream: &Downstream) {
    if caller.internal {
        headers.insert(names::X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    } else if caller.edge && known(caller.address.ip()).is_some() {
        let address = if caller.address.ip() == downstream.remote.ip() {
            downstream.remote_text.clone()
        } else {
            address_value(caller.address.ip())
        };
        headers.insert(names::X_ENVOY_EXTERNAL_ADDRESS, address);
    }
}

/// A `referer` that occurs twice or is no address (RFC 9110, section 10.1.3) is a spoof of something; Envoy drops it.
fn remove_bad_referer(headers: &mut HeaderMap) {
    let mut values = headers.get_all(REFERER).iter();
    let good = values.next().is_none_or(|value| is_referer(value.as_bytes()));
    if !good || values.next().is_some() {
        headers.remove(REFERER);
    }
}

/// Whether `value` is a web address or a relative one, without fragment or user.
fn is_referer(value: &[u8]) -> bool {
    if value.contains(&b'#') {
        return false;
    }
    let uri = Uri::try_from(value);
    if uri.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_none_or(|host| !host.as_str().contains('@'))
    }) {
        return true;
    }
    let first = value.split(|byte| *byte == b'/').next().unwrap_or_default();
    let allowed = |byte: &u8| byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(byte);
    !first.contains(&b':') && value.iter().all(allowed)
}

/// Appends `value` to the list header `name`, all of whose fields become one.
pub(super) fn append(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: &HeaderValue,
    separator: &[u8],
) {
    let list = joined(headers, &name).map(|list| [&list, separator, value.as_bytes()].concat());
    let list = list.and_then(|list| HeaderValue::from_maybe_shared(bytes::Bytes::from(list)).ok());
    headers.insert(name, list.unwrap_or_else(|| value.clone()));
}

fn address_value(ip: IpAddr) -> HeaderValue {
    let mut text = String::with_capacity(39);
    // Writing to a string and reading ASCII back cannot fail.
    let _ = write!(text, "{ip}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::address::CidrRange;
    use crate::config::http::*;
    use crate::config::route::RouteConfig;

    const ON: bool = true;

    /// A connection manager with Envoy's defaults.
    fn manager() -> HttpConnectionManager {
        HttpConnectionManager {
            filters: Vec::new(),
            stat_prefix: "test".into(),
            codec: CodecType::Auto,
            routes: RouteSource::Inline(Arc::new(RouteConfig::default())),
            server_name: "envoy".into(),
            server_header: ServerHeaderTransformation::Overwrite,
            via: None,
            use_remote_address: false,
            xff_num_trusted_hops: 0,
            skip_xff_append: false,
            internal_addresses: InternalAddresses::default(),
            represent_ipv4_as_mapped: false,
            forward_client_cert: ForwardClientCert::Sanitize,
            client_cert_details: ClientCertDetails::default(),
            request_id: RequestIdOptions {
                generate: true,
                preserve_external: false,
                always_in_response: false,
                pack_trace_reason: true,
                decides_sampling: true,
            },
            tracing: None,
            path: PathNormalisation {
                normalize: false,
                merge_slashes: false,
                escaped_slashes: EscapedSlashes::Keep,
            },
            strip_port: StripPort::No,
            strip_trailing_host_dot: false,
            suppress_envoy_headers: false,
            append_x_forwarded_port: false,
            scheme_overwrite: None,
            http1: Http1Options {
                accept_http_10: false,
                default_host_for_http_10: None,
                enable_trailers: false,
                proper_case: false,
            },
            http2: Http2Options::default(),
            limits: HttpLimits {
                max_request_headers: 60 << 10,
                max_headers_count: 100,
                idle_timeout: None,
                max_connection_duration: None,
                max_stream_duration: None,
                max_requests_per_connection: 0,
                underscores: Underscores::Allow,
                stream_idle_timeout: None,
                request_timeout: None,
                request_headers_timeout: None,
                drain_timeout: std::time::Duration::from_secs(5),
                delayed_close_timeout: std::time::Duration::from_secs(1),
            },
            upgrades: Vec::new(),
            proxy_100_continue: false,
            access_logs: Vec::new(),
            log_options: LogOptions::default(),
            stream_error_on_invalid_http_message: false,
        }
    }

    fn edge() -> HttpConnectionManager {
        HttpConnectionManager { use_remote_address: ON, ..manager() }
    }

    fn internal_tens(mut config: HttpConnectionManager) -> HttpConnectionManager {
        config.internal_addresses.ranges =
            vec![CidrRange::new("10.0.0.0".parse().unwrap(), 8).unwrap()];
        config
    }

    fn from(remote: &str, tls: bool) -> Downstream {
        let local = "192.0.2.2:8443".parse().unwrap();
        let node = "192.0.2.2".parse().unwrap();
        Downstream::new(SocketAddr::new(remote.parse().unwrap(), 4711), local, tls, node, false)
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers.get(name).map_or("-", |value| value.to_str().unwrap())
    }

    /// (hops, x-forwarded-for in, x-forwarded-for out, x-envoy-external-address), as Envoy 1.40 answers.
    #[test]
    fn an_edge_trusts_its_peer_and_the_hops_in_front() {
        for (hops, before, after, client) in [
            (0, "", "9.9.9.9", "9.9.9.9"),
            (0, "1.2.3.4", "1.2.3.4,9.9.9.9", "9.9.9.9"),
            (0, "1.2.3.4,", "1.2.3.4,,9.9.9.9", "9.9.9.9"),
            (1, "1.2.3.4", "1.2.3.4,9.9.9.9", "1.2.3.4"),
            (1, "1.2.3.4, 5.6.7.8", "1.2.3.4, 5.6.7.8,9.9.9.9", "5.6.7.8"),
            (2, "1.2.3.4, 5.6.7.8", "1.2.3.4, 5.6.7.8,9.9.9.9", "1.2.3.4"),
            (3, "1.2.3.4, 5.6.7.8", "1.2.3.4, 5.6.7.8,9.9.9.9", "9.9.9.9"),
            (1, "bad", "bad,9.9.9.9", "9.9.9.9"),
            (1, "1.2.3.4:80", "1.2.3.4:80,9.9.9.9", "9.9.9.9"),
            (1, "2001:db8::1", "2001:db8::1,9.9.9.9", "2001:db8::1"),
            (1, "[2001:db8::1]", "[2001:db8::1],9.9.9.9", "9.9.9.9"),
        ] {
            let mut map = if before.is_empty() {
                headers(&[])
            } else {
                headers(&[("x-forwarded-for", before)])
            };
            let config = HttpConnectionManager { xff_num_trusted_hops: hops, ..edge() };
            let caller = apply(&mut map, &config, &[], &from("9.9.9.9", false));
            assert_eq!(text(&map, "x-forwarded-for"), after);
            assert_eq!(text(&map, "x-envoy-external-address"), client);
            assert_eq!(caller.address.ip().to_string(), client);
            assert!(caller.edge && !caller.internal);
        }
    }

    #[test]
    fn a_sidecar_trusts_the_header_and_leaves_it_alone() {
        for (hops, value, client) in [
            (0, "1.2.3.4", "1.2.3.4:0"),
            (0, "1.2.3.4, 5.6.7.8", "5.6.7.8:0"),
            (1, "1.2.3.4, 5.6.7.8", "1.2.3.4:0"),
            (2, "1.2.3.4, 5.6.7.8", "9.9.9.9:4711"),
            (0, "1.2.3.4,", "9.9.9.9:4711"),
            (0, "bad", "9.9.9.9:4711"),
        ] {
            let mut map =
                headers(&[("x-forwarded-for", value), ("x-envoy-external-address", "7.7.7.7")]);
            let config = HttpConnectionManager { xff_num_trusted_hops: hops, ..manager() };
            let caller = apply(&mut map, &config, &[], &from("9.9.9.9", false));
            assert_eq!(caller.address.to_string(), client);
            assert_eq!(text(&map, "x-forwarded-for"), value);
            assert_eq!(text(&map, "x-envoy-external-address"), "7.7.7.7");
            assert!(!caller.edge && !caller.internal);
        }
    }

    #[test]
    fn several_fields_are_one_list() {
        let mut map = headers(&[("x-forwarded-for", "1.1.1.1")]);
        map.append("x-forwarded-for", HeaderValue::from_static("2.2.2.2"));
        let config = HttpConnectionManager { xff_num_trusted_hops: 2, ..edge() };
        let caller = apply(&mut map, &config, &[], &from("9.9.9.9", false));
        assert_eq!(caller.address.to_string(), "1.1.1.1:0");
        assert_eq!(text(&map, "x-forwarded-for"), "1.1.1.1,2.2.2.2,9.9.9.9");
        assert_eq!(map.get_all("x-forwarded-for").iter().count(), 1);
    }

    #[test]
    fn only_configured_addresses_that_nobody_made_up_are_internal() {
        let internal = |config: &HttpConnectionManager, remote, value: Option<&'static str>| {
            let mut map = headers(&[("x-envoy-internal", "true")]);
            map.extend(
                value.map(|value| (names::X_FORWARDED_FOR, HeaderValue::from_static(value))),
            );
            let caller = apply(&mut map, config, &[], &from(remote, false));
            assert_eq!(text(&map, "x-envoy-internal") == "true", caller.internal);
            caller.internal
        };
        let edge_of_tens = internal_tens(edge());
        assert!(internal(&edge_of_tens, "10.1.1.1", None));
        assert!(!internal(&edge_of_tens, "10.1.1.1", Some("10.2.2.2")));
        assert!(!internal(&edge_of_tens, "9.9.9.9", None));
        assert!(!internal(&edge(), "10.1.1.1", None));
        let sidecar = internal_tens(manager());
        assert!(internal(&sidecar, "9.9.9.9", Some("10.1.1.1")));
        assert!(!internal(&sidecar, "10.1.1.1", None));
        assert!(!internal(&sidecar, "10.1.1.1", Some("10.1.1.1, 10.2.2.2")));
        assert!(!internal(&sidecar, "10.1.1.1", Some("8.8.8.8")));
    }

    /// Which headers survive, as measured on Envoy 1.40 for each kind of caller.
    #[test]
    fn external_callers_cannot_steer_the_proxy() {
        let claims = [
            "x-envoy-retry-on",
            "x-envoy-retry-grpc-on",
            "x-envoy-max-retries",
            "x-envoy-retriable-status-codes",
            "x-envoy-retriable-header-names",
            "x-envoy-upstream-rq-timeout-ms",
            "x-envoy-upstream-rq-per-try-timeout-ms",
            "x-envoy-upstream-rq-timeout-alt-response",
            "x-envoy-upstream-alt-stat-name",
            "x-envoy-expected-rq-timeout-ms",
            "x-envoy-force-trace",
            "x-envoy-ip-tags",
            "x-envoy-original-url",
            "x-envoy-hedge-on-per-try-timeout",
            "x-envoy-upstream-stream-duration-ms",
            "x-secret",
        ];
        let edge_claims = [
            "x-envoy-decorator-operation",
            "x-envoy-downstream-service-cluster",
            "x-envoy-downstream-service-node",
            "x-envoy-original-path",
            "x-envoy-original-host",
        ];
        let harmless = ["x-envoy-attempt-count", "x-envoy-peer-metadata", "x-envoy-foo", "x-other"];
        let all = || claims.iter().chain(&edge_claims).chain(&harmless);
        let secret = [HeaderName::from_static("x-secret")];
        for (config, remote, kept_claims, kept_edge_claims) in [
            (edge(), "9.9.9.9", false, false),
            (manager(), "9.9.9.9", false, true),
            (internal_tens(edge()), "10.1.1.1", true, true),
        ] {
            let mut map: HeaderMap = all()
                .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("7")))
                .collect();
            apply(&mut map, &config, &secret, &from(remote, false));
            for (names, kept) in
                [(&claims[..], kept_claims), (&edge_claims, kept_edge_claims), (&harmless, true)]
            {
                for name in names {
                    assert_eq!(map.contains_key(*name), kept, "{name} from {remote}");
                }
            }
        }
    }

    #[test]
    fn scheme_and_port_are_the_connections_unless_a_trusted_proxy_knows_better() {
        let claimed = [("x-forwarded-proto", "https"), ("x-forwarded-port", "99")];
        let seen = |config: &HttpConnectionManager, before: &[_]| {
            let mut map = headers(before);
            let downstream = from("9.9.9.9", false);
            apply(&mut map, config, &[], &downstream);
            let scheme = scheme(None, &map, config, &downstream);
            format!(
                "{} {} {scheme}",
                text(&map, "x-forwarded-proto"),
                text(&map, "x-forwarded-port")
            )
        };
        let ports = |config| HttpConnectionManager { append_x_forwarded_port: ON, ..config };
        let hop = |config| HttpConnectionManager { xff_num_trusted_hops: 1, ..config };
        assert_eq!(seen(&edge(), &claimed), "http 99 http");
        assert_eq!(seen(&ports(edge()), &claimed), "http 8443 http");
        assert_eq!(seen(&ports(hop(edge())), &claimed), "https 99 https");
        assert_eq!(seen(&ports(hop(edge())), &[]), "http 8443 http");
        assert_eq!(seen(&ports(manager()), &claimed), "https 99 https");
        assert_eq!(seen(&ports(manager()), &[]), "http 8443 http");
        assert_eq!(seen(&manager(), &[("x-forwarded-proto", "ftp")]), "ftp - http");
        let overwrite = HttpConnectionManager { scheme_overwrite: Some("https".into()), ..edge() };
        assert_eq!(seen(&overwrite, &[]), "https - https");
        let config = manager();
        let downstream = from("9.9.9.9", true);
        assert_eq!(scheme(Some(&Scheme::HTTP), &HeaderMap::new(), &config, &downstream), "http");
        assert_eq!(scheme(None, &HeaderMap::new(), &config, &downstream), "https");
    }

    #[test]
    fn peers_are_written_as_envoy_writes_them() {
        let forwarded = |remote: &str, as_mapped| {
            let peer = SocketAddr::new(remote.parse().unwrap(), 1);
            let node = "192.0.2.2".parse().unwrap();
            let downstream = Downstream::new(peer, peer, false, node, as_mapped);
            let mut map = HeaderMap::new();
            apply(&mut map, &edge(), &[], &downstream);
            format!("{} {}", text(&map, "x-forwarded-for"), text(&map, "x-envoy-external-address"))
        };
        assert_eq!(forwarded("127.0.0.1", false), "192.0.2.2 127.0.0.1");
        assert_eq!(forwarded("127.0.0.1", true), "192.0.2.2 127.0.0.1");
        assert_eq!(forwarded("::1", false), "192.0.2.2 ::1");
        assert_eq!(forwarded("9.9.9.9", true), "::ffff:9.9.9.9 9.9.9.9");
        assert_eq!(forwarded("::ffff:9.9.9.9", false), "9.9.9.9 9.9.9.9");
        let mut map = HeaderMap::new();
        let config = HttpConnectionManager { skip_xff_append: ON, ..edge() };
        apply(&mut map, &config, &[], &from("9.9.9.9", false));
        assert_eq!(text(&map, "x-forwarded-for"), "-");
    }

    #[test]
    fn referers_must_be_one_web_address() {
        for (value, kept) in [
            ("http://a/b?c", true),
            ("https://a", true),
            ("/b", true),
            ("b/c.html?d:e", true),
            ("a b", false),
            ("http://a/b#c", false),
            ("b#c", false),
            ("http://me@a/b", false),
            ("ftp://a/b", false),
        ] {
            let mut map = headers(&[("referer", value)]);
            apply(&mut map, &manager(), &[], &from("9.9.9.9", false));
            assert_eq!(map.contains_key(REFERER), kept, "{value}");
        }
        let mut twice = headers(&[("referer", "http://a/")]);
        twice.append(REFERER, HeaderValue::from_static("http://a/"));
        apply(&mut twice, &manager(), &[], &from("9.9.9.9", false));
        assert!(!twice.contains_key(REFERER));
    }
}
