//! What a certificate made for a test, an example or a person should say.

use std::net::IpAddr;

use rcgen::{CertificateParams, DnType, SanType};

use super::{blank, usages};
use crate::key::KeyKind;
use crate::{Error, Validity};

/// What a workload certificate should say. The default is valid for a day, for both sides of TLS.
#[derive(Debug, Clone, Default)]
pub struct Request {
    uris: Vec<String>,
    dns: Vec<String>,
    emails: Vec<String>,
    ips: Vec<IpAddr>,
    common_name: Option<String>,
    organization: Option<String>,
    validity: Validity,
    usage: Usage,
    pub(super) key: KeyKind,
}

/// What a workload certificate may be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Usage {
    /// As server and as client, as mesh workloads need it.
    #[default]
    Both,
    /// As server only.
    Server,
    /// As client only.
    Client,
}

impl Request {
    /// Adds a URI, usually a [`crate::SpiffeId`].
    #[must_use]
    pub fn uri(mut self, uri: impl Into<String>) -> Self {
        self.uris.push(uri.into());
        self
    }

    /// Adds a DNS name, which may begin with `*.`.
    #[must_use]
    pub fn dns(mut self, name: impl Into<String>) -> Self {
        self.dns.push(name.into());
        self
    }

    /// Adds an e-mail address.
    #[must_use]
    pub fn email(mut self, address: impl Into<String>) -> Self {
        self.emails.push(address.into());
        self
    }

    /// Adds an IP address.
    #[must_use]
    pub fn ip(mut self, address: impl Into<IpAddr>) -> Self {
        self.ips.push(address.into());
        self
    }

    /// Sets the subject's common name. Without any subject the other names alone identify the owner.
    #[must_use]
    pub fn common_name(mut self, name: impl Into<String>) -> Self {
        self.common_name = Some(name.into());
        self
    }

    /// Sets the subject's organization.
    #[must_use]
    pub fn organization(mut self, name: impl Into<String>) -> Self {
        self.organization = Some(name.into());
        self
    }

    /// Sets when the certificate is valid.
    #[must_use]
    pub fn validity(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    /// Sets what the certificate may be used for.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Sets the kind of key to make.
    #[must_use]
    pub fn key(mut self, kind: KeyKind) -> Self {
        self.key = kind;
        self
    }

    pub(super) fn params(&self) -> Result<CertificateParams, Error> {
        let mut params = blank(self.validity)?;
        for (kind, name) in [
            (DnType::OrganizationName, &self.organization),
            (DnType::CommonName, &self.common_name),
        ] {
            if let Some(name) = name {
                params.distinguished_name.push(kind, name);
            }
        }
        let ascii = |name: &String| name.as_str().try_into().map_err(|_| Error::Name(name.clone()));
        let names = &mut params.subject_alt_names;
        for uri in &self.uris {
            names.push(SanType::URI(ascii(uri)?));
        }
        for name in &self.dns {
            names.push(SanType::DnsName(ascii(name)?));
        }
        for address in &self.emails {
            names.push(SanType::Rfc822Name(ascii(address)?));
        }
        names.extend(self.ips.iter().copied().map(SanType::IpAddress));
        usages(&mut params, self.usage);
        Ok(params)
    }
}
