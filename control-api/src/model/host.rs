//! Names of hosts: short names become full ones by namespace, wildcards stand for many.

/// The end of every Kubernetes service's full name, with Kubernetes' default domain.
pub const SERVICE_DOMAIN: &str = "svc.cluster.local";

/// The full name of a host that an object of `namespace` names: a name without a dot is a service beside it.
pub fn qualified(host: &str, namespace: &str) -> String {
    if host.contains('.') || host.starts_with('*') || host.is_empty() {
        host.to_ascii_lowercase()
    } else {
        service(host, namespace)
    }
}

/// The full name of a Kubernetes service.
pub fn service(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}.{SERVICE_DOMAIN}").to_ascii_lowercase()
}

/// Name and namespace of a Kubernetes service from its full name.
pub fn parse_service(host: &str) -> Option<(&str, &str)> {
    host.strip_suffix(SERVICE_DOMAIN)?.strip_suffix('.')?.rsplit_once('.')
}

/// Whether some host is meant by both names, each of which may begin with `*`.
pub fn overlap(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (None, None) => one == other,
        (Some(suffix), None) => other.ends_with(suffix),
        (None, Some(suffix)) => one.ends_with(suffix),
        (Some(one), Some(other)) => one.ends_with(other) || other.ends_with(one),
    }
}

/// Whether every host that is meant by `inner` is also meant by `outer`.
pub fn covers(outer: &str, inner: &str) -> bool {
    match outer.strip_prefix('*') {
        None => outer == inner,
        Some(suffix) => inner.strip_prefix('*').unwrap_or(inner).ends_with(suffix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_get_their_namespace() {
        assert_eq!(qualified("reviews", "shop"), "reviews.shop.svc.cluster.local");
        assert_eq!(qualified("Reviews.example.com", "shop"), "reviews.example.com");
        assert_eq!(qualified("*", "shop"), "*");
        assert_eq!(parse_service("a.b.svc.cluster.local"), Some(("a", "b")));
        assert_eq!(parse_service("a.b.c"), None);
    }

    #[test]
    fn wildcards_overlap_and_cover() {
        for (one, other, overlaps, covered) in [
            ("a.com", "a.com", true, true),
            ("*.com", "a.com", true, true),
            ("a.com", "*.com", true, false),
            ("*", "*.com", true, true),
            ("*.b.com", "*.com", true, false),
            ("*.com", "*.b.com", true, true),
            ("*.org", "a.com", false, false),
            ("*.org", "*.com", false, false),
        ] {
            assert_eq!(overlap(one, other), overlaps, "{one} {other}");
            assert_eq!(covers(one, other), covered, "{one} {other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_covers_overlaps(one in "\\*?[ab.]{0,4}", other in "\\*?[ab.]{0,4}") {
            proptest::prop_assert!(!covers(&one, &other) || overlap(&one, &other));
            proptest::prop_assert_eq!(overlap(&one, &other), overlap(&other, &one));
        }
    }
}
