//! Trust domains in principals: the mesh's own one stands for all of its aliases.

/// What `cluster.local` in a policy means, whatever the mesh's trust domain is called.
const LOCAL: &str = "cluster.local";

/// The principals with each that names one of the trust domains repeated for all of them.
pub(super) fn principals(values: &[String], domains: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for principal in values {
        match domain(principal) {
            Some(named) if named == LOCAL || domains.iter().any(|it| fits(named, it)) => {
                all.extend(in_domains(principal, named, domains));
            }
            _ => all.push(principal.clone()),
        }
    }
    all
}

/// The trust domains with the mesh's own ones if one of these is among them.
pub(super) fn domains(values: &[String], domains: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for value in values {
        let one = [value.as_str()];
        let names = if domains.contains(&value.as_str()) { domains } else { &one };
        for name in names {
            if !all.iter().any(|it| it == name) {
                all.push((*name).to_owned());
            }
        }
    }
    all
}

/// The trust domain of `DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, unless it is `*`.
fn domain(principal: &str) -> Option<&str> {
    let (domain, rest) = principal.split_once('/')?;
    (rest.split('/').count() == 4 && domain != "*").then_some(domain)
}

fn in_domains(principal: &str, named: &str, domains: &[&str]) -> Vec<String> {
    let rest = principal.strip_prefix(named).unwrap_or_default();
    let mut all: Vec<String> = Vec::new();
    for domain in domains {
        // A pattern that the domain fits stays as it is.
        let is_pattern = named.strip_prefix('*').is_some_and(|suffix| domain.ends_with(suffix));
        let name = if is_pattern { principal.to_owned() } else { format!("{domain}{rest}") };
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// Whether either fits the other, either of which may begin or end with `*`.
fn fits(one: &str, other: &str) -> bool {
    let matches = |text: &str, pattern: &str| {
        pattern.strip_suffix('*').is_some_and(|prefix| text.starts_with(prefix))
            || pattern.strip_prefix('*').is_some_and(|suffix| text.ends_with(suffix))
    };
    one == other || matches(one, other) || matches(other, one)
}
