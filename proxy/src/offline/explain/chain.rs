//! Why a filter chain takes a connection, or does not.

use std::fmt::Display;
use std::net::IpAddr;

use crate::config::address::CidrRange;
use crate::config::listener::{FilterChainMatch, SourceType};
use crate::filter_chain::ConnectionFacts;

/// The first condition of `rule` that a connection with these facts does not meet, in words.
pub(super) fn mismatch(rule: &FilterChainMatch, facts: &ConnectionFacts<'_>) -> Option<String> {
    let FilterChainMatch {
        destination_port,
        destination,
        server_names,
        transport_protocol,
        application_protocols,
        direct_source,
        source_type,
        source,
        source_ports,
    } = rule;
    let (to, from) = (facts.destination, facts.source);
    if destination_port.is_some_and(|port| port != to.port()) {
        let port = destination_port.unwrap_or_default();
        return Some(format!("destination_port is {port}, the connection's {}", to.port()));
    }
    outside("prefix_ranges", destination, to.ip())
        .or_else(|| name_mismatch(server_names, facts.server_name))
        .or_else(|| {
            let wanted = transport_protocol.as_deref()?;
            let actual = facts.transport_protocol;
            (wanted != actual).then(|| format!("transport_protocol is {wanted}, not {actual}"))
        })
        .or_else(|| {
            let mut offered = facts.application_protocols.iter();
            let is_offered = offered
                .any(|it| application_protocols.iter().any(|wanted| wanted.as_bytes() == &**it));
            let is_met = application_protocols.is_empty() || is_offered;
            (!is_met).then(|| {
                format!(
                    "application_protocols are {}, none is offered",
                    list(application_protocols)
                )
            })
        })
        .or_else(|| outside("direct_source_prefix_ranges", direct_source, facts.direct_source.ip()))
        .or_else(|| {
            let is_local = from.ip().is_loopback() || from.ip() == to.ip();
            match source_type {
                SourceType::SameIpOrLoopback if !is_local => {
                    Some(format!("source_type is SAME_IP_OR_LOOPBACK, the client is {}", from.ip()))
                }
                SourceType::External if is_local => {
                    Some(format!("source_type is EXTERNAL, the client is {}", from.ip()))
                }
                _ => None,
            }
        })
        .or_else(|| outside("source_prefix_ranges", source, from.ip()))
        .or_else(|| {
            let is_met = source_ports.is_empty() || source_ports.contains(&from.port());
            (!is_met)
                .then(|| format!("source_ports are {}, not {}", list(source_ports), from.port()))
        })
}

fn outside(field: &str, ranges: &[CidrRange], address: IpAddr) -> Option<String> {
    let is_met = ranges.is_empty() || ranges.iter().any(|range| range.contains(address));
    (!is_met).then(|| format!("{field} are {}, without {address}", list(ranges)))
}

fn name_mismatch(names: &[Box<str>], asked: Option<&str>) -> Option<String> {
    let covers = |name: &str| {
        asked.is_some_and(|asked| match name.strip_prefix('*') {
            Some(suffix) => asked.len() > suffix.len() && asked.ends_with(suffix),
            None => asked == name,
        })
    };
    if names.is_empty() || names.iter().any(|name| covers(name)) {
        return None;
    }
    Some(match asked {
        Some(asked) => format!("server_names are {}, the client asks for {asked}", list(names)),
        None => format!("server_names are {}, the client names none", list(names)),
    })
}

fn list<T: Display>(items: &[T]) -> String {
    let shown: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_condition_that_fails_is_named() {
        let facts = ConnectionFacts {
            destination: "10.0.0.1:443".parse().unwrap(),
            source: "10.9.9.9:5000".parse().unwrap(),
            direct_source: "10.9.9.9:5000".parse().unwrap(),
            server_name: Some("shop.example"),
            transport_protocol: "tls",
            application_protocols: &[Box::from(*b"h2")],
        };
        let range = |text: &str| CidrRange::new(text.parse().unwrap(), 16).unwrap();
        let rule = |change: fn(&mut FilterChainMatch)| {
            let mut rule = FilterChainMatch::default();
            change(&mut rule);
            rule
        };
        let cases = [
            (rule(|_| {}), None),
            (rule(|it| it.destination_port = Some(80)), Some("destination_port is 80")),
            (rule(|it| it.server_names = vec!["*.example".into()]), None),
            (rule(|it| it.server_names = vec!["b.c".into()]), Some("asks for shop.example")),
            (rule(|it| it.transport_protocol = Some("raw_buffer".into())), Some("not tls")),
            (rule(|it| it.application_protocols = vec!["x".into()]), Some("[x], none")),
            (rule(|it| it.source_type = SourceType::SameIpOrLoopback), Some("10.9.9.9")),
            (rule(|it| it.source_ports = vec![1, 2]), Some("[1, 2], not 5000")),
        ];
        for (rule, expected) in cases {
            let said = mismatch(&rule, &facts);
            match expected {
                None => assert_eq!(said, None),
                Some(part) => {
                    assert!(said.as_ref().is_some_and(|it| it.contains(part)), "{said:?}");
                }
            }
        }
        let elsewhere =
            FilterChainMatch { source: vec![range("192.168.0.0")], ..Default::default() };
        assert!(mismatch(&elsewhere, &facts).unwrap().contains("192.168.0.0/16"));
    }
}
