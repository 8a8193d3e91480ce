//! Tables of connections and the chains they get.

use super::*;

fn facts<'a>() -> ConnectionFacts<'a> {
    ConnectionFacts {
        destination: "10.1.2.3:443".parse().unwrap(),
        source: "192.0.2.7:5000".parse().unwrap(),
        direct_source: "192.0.2.7:5000".parse().unwrap(),
        server_name: None,
        transport_protocol: "raw_buffer",
        application_protocols: &[],
    }
}

fn rule(change: impl FnOnce(&mut FilterChainMatch)) -> FilterChainMatch {
    let mut rule = FilterChainMatch::default();
    change(&mut rule);
    rule
}

fn ranges(texts: &[&str]) -> Vec<CidrRange> {
    let parse = |text: &&str| {
        let (prefix, length) = text.split_once('/').unwrap();
        CidrRange::new(prefix.parse().unwrap(), length.parse().unwrap()).unwrap()
    };
    texts.iter().map(parse).collect()
}

fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

fn compile(rules: &[FilterChainMatch]) -> Result<FilterChainMatcher, Invalid> {
    FilterChainMatcher::compile(&rules.iter().collect::<Vec<_>>())
}

#[test]
fn a_rule_without_conditions_takes_everything() {
    assert_eq!(compile(&[rule(|_| {})]).unwrap().pick(&facts()), Some(0));
    assert_eq!(compile(&[]).unwrap().pick(&facts()), None);
}

#[test]
fn server_names_match_exactly_then_by_the_longest_suffix() {
    let matcher = compile(&[
        rule(|rule| rule.server_names = names(&["a.example.com", "example.net"])),
        rule(|rule| rule.server_names = names(&["*.example.com"])),
        rule(|rule| rule.server_names = names(&["*.com"])),
        rule(|_| {}),
    ])
    .unwrap();
    for (name, chain) in [
        ("a.example.com", 0),
        ("example.net", 0),
        ("b.example.com", 1),
        ("c.b.example.com", 1),
        ("example.com", 2),
        ("other.com", 2),
        ("com", 3),
        ("sub.example.net", 3),
        ("", 3),
    ] {
        let facts = ConnectionFacts { server_name: Some(name), ..facts() };
        assert_eq!(matcher.pick(&facts), Some(chain), "{name}");
    }
    assert_eq!(matcher.pick(&facts()), Some(3));
}

#[test]
fn the_most_specific_destination_wins_and_there_is_no_way_back() {
    let matcher = compile(&[
        rule(|rule| rule.destination = ranges(&["10.0.0.0/8"])),
        rule(|rule| {
            rule.destination = ranges(&["10.1.0.0/16"]);
            rule.server_names = names(&["only.example"]);
        }),
        rule(|rule| rule.destination = ranges(&["2001:db8::/32"])),
    ])
    .unwrap();
    for (destination, name, chain) in [
        ("10.9.9.9:1", None, Some(0)),
        ("10.1.2.3:1", Some("only.example"), Some(1)),
        ("10.1.2.3:1", Some("other.example"), None),
        ("10.1.2.3:1", None, None),
        ("[2001:db8::1]:1", None, Some(2)),
        ("[::ffff:10.9.9.9]:1", None, Some(0)),
        ("192.0.2.1:1", None, None),
    ] {
        let destination = destination.parse().unwrap();
        let facts = ConnectionFacts { destination, server_name: name, ..facts() };
        assert_eq!(matcher.pick(&facts), chain, "{destination} {name:?}");
    }
}

#[test]
fn a_port_with_a_rule_of_its_own_never_uses_the_rules_of_all_ports() {
    let matcher = compile(&[
        rule(|_| {}),
        rule(|rule| {
            rule.destination_port = Some(443);
            rule.transport_protocol = Some("tls".into());
        }),
    ])
    .unwrap();
    let tls = ConnectionFacts { transport_protocol: "tls", ..facts() };
    assert_eq!(matcher.pick(&tls), Some(1));
    assert_eq!(matcher.pick(&facts()), None);
    let other = ConnectionFacts { destination: "10.1.2.3:80".parse().unwrap(), ..facts() };
    assert_eq!(matcher.pick(&other), Some(0));
}

#[test]
fn the_first_offered_protocol_with_a_rule_wins() {
    let matcher = compile(&[
        rule(|rule| rule.application_protocols = names(&["h2"])),
        rule(|rule| rule.application_protocols = names(&["http/1.1", "http/1.0"])),
        rule(|_| {}),
    ])
    .unwrap();
    for (offered, chain) in [
        (&["h2", "http/1.1"][..], 0),
        (&["http/1.1", "h2"], 1),
        (&["grpc", "http/1.0"], 1),
        (&["grpc"], 2),
        (&[], 2),
    ] {
        let offered: Vec<Box<[u8]>> = offered.iter().map(|text| text.as_bytes().into()).collect();
        let facts = ConnectionFacts { application_protocols: &offered, ..facts() };
        assert_eq!(matcher.pick(&facts), Some(chain), "{offered:?}");
    }
}

#[test]
fn local_clients_are_told_from_others() {
    let matcher = compile(&[
        rule(|rule| rule.source_type = SourceType::SameIpOrLoopback),
        rule(|rule| rule.source_type = SourceType::External),
    ])
    .unwrap();
    for (source, chain) in [
        ("127.0.0.1:1", 0),
        ("127.9.9.9:1", 1),
        ("[::1]:1", 0),
        ("10.1.2.3:1", 0),
        ("10.1.2.4:1", 1),
    ] {
        let facts = ConnectionFacts { source: source.parse().unwrap(), ..facts() };
        assert_eq!(matcher.pick(&facts), Some(chain), "{source}");
    }
}

#[test]
fn a_local_rule_hides_the_rule_for_all_from_local_clients_only() {
    let matcher = compile(&[
        rule(|rule| {
            rule.source_type = SourceType::SameIpOrLoopback;
            rule.source_ports = vec![7];
        }),
        rule(|_| {}),
    ])
    .unwrap();
    for (source, chain) in [
        ("127.0.0.1:7", Some(0)),
        ("127.0.0.1:8", None),
        ("192.0.2.7:7", Some(1)),
        ("192.0.2.7:8", Some(1)),
    ] {
        let facts = ConnectionFacts { source: source.parse().unwrap(), ..facts() };
        assert_eq!(matcher.pick(&facts), chain, "{source}");
    }
}

#[test]
fn direct_source_is_asked_before_source_and_port() {
    let matcher = compile(&[
        rule(|rule| rule.direct_source = ranges(&["192.0.2.0/24"])),
        rule(|rule| {
            rule.source = ranges(&["198.51.100.0/24"]);
            rule.source_ports = vec![5000, 5001];
        }),
        rule(|rule| rule.source = ranges(&["198.51.100.0/24"])),
    ])
    .unwrap();
    let far = |direct_source: &str, source: &str| {
        matcher.pick(&ConnectionFacts {
            direct_source: direct_source.parse().unwrap(),
            source: source.parse().unwrap(),
            ..facts()
        })
    };
    assert_eq!(far("192.0.2.1:1", "198.51.100.1:5000"), Some(0));
    assert_eq!(far("203.0.113.1:1", "198.51.100.1:5001"), Some(1));
    assert_eq!(far("203.0.113.1:1", "198.51.100.1:5002"), Some(2));
    assert_eq!(far("203.0.113.1:1", "203.0.113.1:5000"), None);
}

#[test]
fn rules_that_match_the_same_connections_are_refused() {
    let same = compile(&[rule(|_| {}), rule(|_| {})]).unwrap_err();
    assert_eq!(same.path, "filter_chains[1].filter_chain_match");
    assert!(same.reason.contains("filter_chains[0]"), "{same}");
    let overlapping = compile(&[
        rule(|rule| rule.server_names = names(&["a", "b"])),
        rule(|rule| rule.server_names = names(&["b", "c"])),
    ]);
    assert!(overlapping.is_err());
}

#[test]
fn a_star_inside_a_label_is_refused() {
    for name in ["*", "a.*.com", "*a.com", "*.*.com"] {
        let error = compile(&[rule(|rule| rule.server_names = names(&["ok", name]))]).unwrap_err();
        assert_eq!(error.path, "filter_chains[0].filter_chain_match.server_names[1]");
    }
}
