//! What conditions look at, by their keys.

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attribute {
    // Of what is asked for:
    DestinationIp,
    DestinationPort,
    Sni,
    Metadata(String, String),
    Host,
    Method,
    Path,
    // Of who asks:
    SourceIp,
    RemoteIp,
    Namespace,
    TrustDomain,
    ServiceAccount,
    Principal,
    RequestPrincipal,
    Claims(Vec<String>),
    Header(String),
    /// A key that is not written as it should be, about HTTP.
    Malformed,
}

/// Whether the key of a condition is one of Istio's.
pub(super) fn is_known(key: &str) -> bool {
    attribute(key).is_some()
}

/// What the key of a condition means.
pub(super) fn attribute(key: &str) -> Option<Attribute> {
    let claim = |name: &str| Attribute::Claims(vec![name.to_owned()]);
    Some(match key {
        "destination.ip" => Attribute::DestinationIp,
        "destination.port" => Attribute::DestinationPort,
        "connection.sni" => Attribute::Sni,
        "source.ip" => Attribute::SourceIp,
        "remote.ip" => Attribute::RemoteIp,
        "source.namespace" => Attribute::Namespace,
        "source.trustDomain" => Attribute::TrustDomain,
        "source.serviceAccount" => Attribute::ServiceAccount,
        "source.principal" => Attribute::Principal,
        "request.auth.principal" => Attribute::RequestPrincipal,
        "request.auth.audiences" => claim("aud"),
        "request.auth.presenter" => claim("azp"),
        key => {
            if let Some(rest) = key.strip_prefix("request.headers") {
                in_brackets(rest).map_or(Attribute::Malformed, |it| Attribute::Header(it.into()))
            } else if let Some(rest) = key.strip_prefix("request.auth.claims") {
                claims(rest).map_or(Attribute::Malformed, Attribute::Claims)
            } else {
                let rest = key.strip_prefix("experimental.")?;
                let filter = rest.strip_prefix("envoy.filters.").map(|_| rest)?;
                let inner = filter.strip_suffix(']').unwrap_or(filter);
                match inner.split_once('[') {
                    Some((filter, key)) => Attribute::Metadata(filter.into(), key.into()),
                    None => Attribute::Malformed,
                }
            }
        }
    })
}

pub(super) fn in_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// The names of `[a][b]`; everything between the outermost brackets is one name if brackets do not pair.
fn claims(text: &str) -> Option<Vec<String>> {
    let whole = in_brackets(text)?;
    let names: Vec<_> = whole.split("][").collect();
    let paired = names.iter().all(|name| !name.contains(['[', ']']));
    let names = if paired { names } else { vec![whole] };
    Some(names.into_iter().map(ToOwned::to_owned).collect())
}

/// Whether an attribute is of what is asked for, and not of who asks.
pub(super) fn is_of_request(attribute: &Attribute) -> bool {
    matches!(
        attribute,
        Attribute::DestinationIp
            | Attribute::DestinationPort
            | Attribute::Sni
            | Attribute::Metadata(..)
            | Attribute::Host
            | Attribute::Method
            | Attribute::Path
    )
}
