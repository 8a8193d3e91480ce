//! What host names, namespaces, addresses and protocols look like.

use std::net::IpAddr;

use super::check::Check;

/// One part of a DNS name, as namespaces and names of services are.
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Labels with dots between them.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// A name for hosts, in any case; a dot at its end makes it absolute.
pub(super) fn is_fqdn(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(label)
}

/// A name for hosts of which the first label may be `*`, or begin with it; or `*`.
pub(super) fn is_wildcard_host(text: &str) -> bool {
    match text.strip_prefix('*') {
        None => is_fqdn(text),
        Some("") => true,
        Some(rest) => is_fqdn(rest.strip_prefix(['.', '-']).unwrap_or(rest)),
    }
}

/// An address, or a range of them.
pub(in crate::validate) fn is_subnet(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return is_ip(text) };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= most)
}

/// An address.
pub(super) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Protocols of Istio's ports.
pub(super) fn is_protocol(text: &str) -> bool {
    const KNOWN: [&str; 15] = [
        "TCP",
        "UDP",
        "GRPC",
        "GRPC-WEB",
        "GRPC-WEB-OVER-HTTP2",
        "HTTP",
        "HTTP_PROXY",
        "HTTP2",
        "HTTPS",
        "HBONE",
        "TLS",
        "MONGO",
        "REDIS",
        "MYSQL",
        "DOUBLEHBONE",
    ];
    KNOWN.iter().any(|known| known.eq_ignore_ascii_case(text))
}

/// Whether HTTP is spoken, in the clear.
pub(super) fn is_http(protocol: &str) -> bool {
    const HTTP: [&str; 6] =
        ["HTTP", "HTTP2", "HTTP_PROXY", "GRPC", "GRPC-WEB", "GRPC-WEB-OVER-HTTP2"];
    HTTP.iter().any(|http| http.eq_ignore_ascii_case(protocol))
}

/// Whether TLS is spoken.
pub(super) fn is_tls(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("HTTPS") || protocol.eq_ignore_ascii_case("TLS")
}

impl Check<'_> {
    /// A host name, possibly with a wildcard at its start.
    pub(super) fn wildcard_host(&mut self, path: &str, host: &str) {
        if !is_wildcard_host(host) && !is_ip(host) {
            let reason = "must be a host name, or one that begins with '*.'";
            self.invalid(path, format!("{host:?}"), reason);
        }
    }

    /// A host name without wildcards, or an address.
    pub(super) fn plain_host(&mut self, path: &str, host: &str) {
        if !is_fqdn(host) && !is_ip(host) {
            self.invalid(path, format!("{host:?}"), "must be a host name");
        }
    }

    /// An address or a range.
    pub(super) fn subnet(&mut self, path: &str, subnet: &str) {
        if !is_subnet(subnet) {
            let reason = "must be an IP address, or a range as 10.0.0.0/8";
            self.invalid(path, format!("{subnet:?}"), reason);
        }
    }

    /// A protocol; it may be left out.
    pub(super) fn protocol(&mut self, path: &str, protocol: &str) {
        if !protocol.is_empty() && !is_protocol(protocol) {
            let known = "HTTP, HTTP2, HTTPS, GRPC, GRPC-WEB, TLS, TCP, MONGO, REDIS, MYSQL";
            self.error(path, format!("Unsupported value: {protocol:?}: supported values: {known}"));
        }
    }

    /// A header's name.
    pub(super) fn header_name(&mut self, path: &str, name: &str) {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let plain = name.strip_prefix(':').unwrap_or(name);
        // `@request.auth.claims.x` stands for a claim of a JWT.
        if plain.is_empty()
            || !plain.trim_start_matches('@').replace(['[', ']', '/', ':'], "").bytes().all(token)
        {
            self.invalid(path, format!("{name:?}"), "must be the name of a header");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ranges() {
        for good in ["a", "a.b.svc.cluster.local", "*", "*.b", "*-x.com", "A.com", "a.com."] {
            assert!(is_wildcard_host(good), "{good}");
        }
        for bad in ["", "a..b", "-a", "a b", "a.*.b", "**", "*."] {
            assert!(!is_wildcard_host(bad), "{bad}");
        }
        assert!(is_subnet("1.1.1.1/32") && is_subnet("::/0") && is_subnet("10.0.0.1"));
        assert!(!is_subnet("1.1.1.1/33") && !is_subnet("a/8") && !is_subnet("1.1.1/8"));
        assert!(is_dns_label("istio-system") && !is_dns_label("A") && !is_dns_label("a_b"));
    }
}
