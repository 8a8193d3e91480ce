//! By which names a proxy's requests mean a service.

use crate::translate::proxy::Proxy;
use crate::translate::service::{ANY_ADDRESS, Resolution, Service};

/// The names of a service as this proxy may use them: the full one and its aliases, with and without the dot at the
/// end, shorter ones as far as DNS would find them from the proxy's namespace, and addresses. With `port`, each of them
/// also with that port; without, the proxy is to ignore ports.
pub(super) fn of(service: &Service, proxy: &Proxy, port: Option<u32>) -> Vec<Domain> {
    let mut domains = Vec::new();
    for host in std::iter::once(&service.host).chain(&service.aliases) {
        add(&mut domains, host, port, false);
        for short in shorter(host, &proxy.domain) {
            add(&mut domains, &short, port, true);
        }
    }
    // The pods of a headless service have names of their own before the service's.
    if service.resolution == Resolution::Passthrough && service.is_kubernetes() {
        let pods = domains.iter().map(|it| Domain { name: format!("*.{}", it.name), ..*it });
        let pods: Vec<_> = pods.collect();
        domains.extend(pods);
    }
    for address in service.addresses.iter().filter(|it| *it != ANY_ADDRESS) {
        add(&mut domains, address, port, false);
    }
    domains
}

/// A name of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Domain {
    pub(super) name: String,
    /// Whether it gives way to another service that has it as its full name.
    pub(super) is_short: bool,
}

fn add(domains: &mut Vec<Domain>, name: &str, port: Option<u32>, is_short: bool) {
    let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    let with_port = port.map(|port| Domain { name: format!("{name}:{port}"), is_short });
    domains.push(Domain { name, is_short });
    domains.extend(with_port);
}

/// Other forms of a name, for a proxy whose DNS domain is `domain`.
pub(in crate::translate) fn shorter(host: &str, domain: &str) -> Vec<String> {
    let mut names = Vec::new();
    if host.parse::<std::net::IpAddr>().is_err() {
        names.push(format!("{host}."));
    }
    let Some((namespace, suffix)) = domain.split_once(".svc.") else { return names };
    let Some(service) = host.strip_suffix(suffix).and_then(|it| it.strip_suffix(".svc.")) else {
        return names;
    };
    let Some((short, its_namespace)) = service.split_once('.') else { return names };
    if its_namespace == namespace {
        names.extend([short.to_owned(), format!("{service}.svc"), service.to_owned()]);
    } else {
        names.extend([service.to_owned(), format!("{service}.svc")]);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_dns_allows() {
        let of = |host| shorter(host, "shop.svc.cluster.local").join(" ");
        assert_eq!(
            of("web.shop.svc.cluster.local"),
            "web.shop.svc.cluster.local. web web.shop.svc web.shop"
        );
        assert_eq!(
            of("web.other.svc.cluster.local"),
            "web.other.svc.cluster.local. web.other web.other.svc"
        );
        assert_eq!(of("api.example.com"), "api.example.com.");
        assert_eq!(of("10.1.2.3"), "");
    }
}
