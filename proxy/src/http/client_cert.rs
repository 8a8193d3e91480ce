//! `x-forwarded-client-cert`: what this and earlier hops verified of the client's certificate.

use http::HeaderMap;
use http::header::HeaderValue;

use super::forwarded::append;
use super::names::X_FORWARDED_CLIENT_CERT;
use crate::config::http::{ClientCertDetails, ForwardClientCert};
use crate::tls::certificate::Certificate;
use crate::tls::peer::PeerInfo;

/// This hop's element, as far as `set_current_client_cert_details` wants it: fields that are none are
/// not written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hop<'a> {
    /// URI names of our own certificate.
    pub by: &'a [String],
    /// SHA-256 of the client's certificate in hex.
    pub hash: &'a str,
    /// The client's certificate as URL-encoded PEM.
    pub cert: Option<&'a str>,
    /// The client's chain as URL-encoded PEM.
    pub chain: Option<&'a str>,
    /// The client's subject in RFC 2253 form, which escapes quotes itself.
    pub subject: Option<&'a str>,
    /// The client's URI names; written even if there are none.
    pub uri: Option<&'a [String]>,
    /// The client's DNS names.
    pub dns: Option<&'a [String]>,
}

impl<'a> Hop<'a> {
    /// What `details` wants to be told of `peer`; none if the client sent no certificate.
    pub fn of(peer: &'a PeerInfo, details: ClientCertDetails) -> Option<Self> {
        let client = peer.certificate()?;
        Some(Self {
            by: peer.local().map(Certificate::uri_sans).unwrap_or_default(),
            hash: client.sha256(),
            cert: details.cert.then(|| client.url_encoded_pem()),
            chain: details.chain.then(|| peer.url_encoded_chain()).flatten(),
            subject: details.subject.then(|| client.subject()),
            uri: details.uri.then(|| client.uri_sans()),
            dns: details.dns.then(|| client.dns_sans()),
        })
    }

    /// The element's text in Envoy's order: By, Hash, Cert, Chain, Subject, URI, DNS. It is the same for
    /// every request of a connection. None if a name holds bytes that no header can carry.
    pub fn element(&self) -> Option<HeaderValue> {
        let mut element = Element::default();
        self.by.iter().for_each(|uri| element.field("By", uri));
        element.field("Hash", self.hash);
        self.cert.iter().for_each(|pem| element.quoted("Cert", pem));
        self.chain.iter().for_each(|pem| element.quoted("Chain", pem));
        self.subject.iter().for_each(|subject| element.quoted("Subject", subject));
        if self.uri.is_some_and(<[String]>::is_empty) {
            element.field("URI", "");
        }
        self.uri.iter().copied().flatten().for_each(|uri| element.field("URI", uri));
        self.dns.iter().copied().flatten().for_each(|dns| element.field("DNS", dns));
        HeaderValue::try_from(element.text).ok()
    }
}

/// Treats the header as `forward_client_cert_details` says. `mtls` is whether the client presented a
/// certificate; `element` gives [`Hop::element`] and is asked only if it is needed. Without an element
/// the header is removed: better no identity than somebody else's.
pub fn apply(
    headers: &mut HeaderMap,
    mode: ForwardClientCert,
    mtls: bool,
    element: impl FnOnce() -> Option<HeaderValue>,
) {
    use ForwardClientCert::*;
    match mode {
        AlwaysForwardOnly => {}
        ForwardOnly if mtls => {}
        SanitizeSet | AppendForward if mtls => match element() {
            Some(element) if mode == SanitizeSet => {
                headers.insert(X_FORWARDED_CLIENT_CERT, element);
            }
            Some(element) => append(headers, X_FORWARDED_CLIENT_CERT, &element, b","),
            None => remove(headers),
        },
        Sanitize | ForwardOnly | SanitizeSet | AppendForward => remove(headers),
    }
}

fn remove(headers: &mut HeaderMap) {
    headers.remove(X_FORWARDED_CLIENT_CERT);
}

#[derive(Default)]
struct Element {
    text: String,
}

impl Element {
    /// A value is quoted if it would read as more than one otherwise. Envoy documents this rule but does
    /// not follow it for names, so that a hostile name could add fields and elements of its own.
    fn field(&mut self, key: &str, value: &str) {
        if value.contains([',', ';', '=', '"', '\\']) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            self.quoted(key, &escaped);
        } else {
            self.start(key);
            self.text.push_str(value);
        }
    }

    fn quoted(&mut self, key: &str, value: &str) {
        self.start(key);
        self.text.extend(["\"", value, "\""]);
    }

    fn start(&mut self, key: &str) {
        if !self.text.is_empty() {
            self.text.push(';');
        }
        self.text.extend([key, "="]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// The text is what Envoy 1.40 sent for such a certificate.
    #[test]
    fn an_element_has_envoys_order_and_quotes() {
        let by = strings(&["spiffe://cluster.local/ns/a/sa/srv", "spiffe://x/y"]);
        let uri = strings(&["spiffe://cluster.local/ns/a/sa/cli", "spiffe://two"]);
        let dns = strings(&["a.example", "b.example"]);
        let hop = Hop {
            by: &by,
            hash: "bf32",
            cert: Some("-----BEGIN%20C"),
            chain: Some("-----BEGIN%20D"),
            subject: Some(r#"CN=cli,O=A\, \"q\" \\\; Inc,C=DE"#),
            uri: Some(&uri),
            dns: Some(&dns),
        };
        let wanted = concat!(
            "By=spiffe://cluster.local/ns/a/sa/srv;By=spiffe://x/y;Hash=bf32;",
            r#"Cert="-----BEGIN%20C";Chain="-----BEGIN%20D";"#,
            r#"Subject="CN=cli,O=A\, \"q\" \\\; Inc,C=DE";"#,
            "URI=spiffe://cluster.local/ns/a/sa/cli;URI=spiffe://two;DNS=a.example;DNS=b.example",
        );
        assert_eq!(hop.element().unwrap(), wanted);
        let bare =
            Hop { by: &by[1..], hash: "70", uri: Some(&[]), dns: Some(&[]), ..Hop::default() };
        assert_eq!(bare.element().unwrap(), "By=spiffe://x/y;Hash=70;URI=");
    }

    #[test]
    fn a_hostile_name_stays_one_value() {
        let uri = strings(&[r#"spiffe://a";URI=spiffe://admin,By=x\"#]);
        let hop = Hop { hash: "1", uri: Some(&uri), ..Hop::default() };
        assert_eq!(
            hop.element().unwrap(),
            r#"Hash=1;URI="spiffe://a\";URI=spiffe://admin,By=x\\""#
        );
        let uri = strings(&["spiffe://a\r\nx-admin: 1"]);
        assert_eq!(Hop { uri: Some(&uri), ..hop }.element(), None);
    }

    /// (mode, on mTLS, otherwise), as measured on Envoy 1.40 for a header that came in as `old`.
    #[test]
    fn each_mode_treats_the_header_as_envoy_does() {
        use ForwardClientCert::*;
        for (mode, with_mtls, without) in [
            (Sanitize, "-", "-"),
            (ForwardOnly, "old", "-"),
            (AppendForward, "old,new", "-"),
            (SanitizeSet, "new", "-"),
            (AlwaysForwardOnly, "old", "old"),
        ] {
            for (mtls, wanted) in [(true, with_mtls), (false, without)] {
                let mut headers = HeaderMap::new();
                headers.insert(X_FORWARDED_CLIENT_CERT, HeaderValue::from_static("old"));
                apply(&mut headers, mode, mtls, || Some(HeaderValue::from_static("new")));
                let got = headers.get(X_FORWARDED_CLIENT_CERT);
                assert_eq!(got.map_or("-", |value| value.to_str().unwrap()), wanted, "{mode:?}");
            }
        }
    }

    #[test]
    fn without_an_element_no_identity_goes_on() {
        for mode in [ForwardClientCert::SanitizeSet, ForwardClientCert::AppendForward] {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_CLIENT_CERT, HeaderValue::from_static("old"));
            apply(&mut headers, mode, true, || None);
            assert!(headers.is_empty());
        }
    }
}
