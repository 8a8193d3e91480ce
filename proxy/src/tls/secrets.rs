//! Secrets by name and the files they live in: one consistent reading per build of the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{self, Digest};
use parking_lot::Mutex;

use super::certificate::sha256;
use super::roots::Roots;
use crate::config::tls::{
    CommonTls, DataSource, SecretKind, SecretName, SecretRef, TlsCertificate, ValidationContext,
    ValidationSource,
};
use crate::config::{HashMap, Invalid};

/// Named secrets, and the content of every file read through this value.
///
/// Each file is read once, so that all contexts built with one `Secrets` see the same content. To see
/// what changed on disk, make a new one.
#[derive(Debug, Default)]
pub struct Secrets {
    named: HashMap<SecretName, SecretKind>,
    files: Mutex<BTreeMap<PathBuf, FileContent>>,
    roots: Mutex<HashMap<DataSource, Result<Arc<Roots>, String>>>,
}

/// What a source holds, or why it cannot be read.
type Content = Result<Arc<[u8]>, String>;

/// A file as it was read, and a digest of that.
#[derive(Debug, Clone)]
struct FileContent {
    content: Content,
    digest: Digest,
}

/// A digest of everything a TLS context reads; equal digests mean that nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Secrets {
    /// Adds the secret called `name`, or replaces it.
    pub fn insert(&mut self, name: SecretName, secret: SecretKind) {
        self.named.insert(name, secret);
    }

    /// The names of the secrets that `context` refers to and that are not known (yet).
    pub fn missing(&self, context: &CommonTls) -> Vec<SecretName> {
        names(context).filter(|name| !self.named.contains_key(name)).cloned().collect()
    }

    /// Whether `context` lacks a secret that a management server may yet send.
    pub fn awaits(&self, context: &CommonTls) -> bool {
        let may_come = |name: SecretName| match name {
            SecretName::Discovered(source) => source.source.server().is_some(),
            SecretName::Static(_) => false,
        };
        self.missing(context).into_iter().any(may_come)
    }

    /// The files whose change means that `context` must be built anew, without those that carry
    /// the discovered secrets themselves.
    pub fn files(&self, context: &CommonTls) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self
            .sources(context)
            .into_iter()
            .filter_map(|source| match source {
                DataSource::File(path) => Some(path.clone()),
                DataSource::Inline(_) | DataSource::Environment(_) => None,
            })
            .collect();
        files.sort();
        files.dedup();
        files
    }

    /// A digest of all that `context` draws from secrets and files.
    pub fn fingerprint(&self, context: &CommonTls) -> Fingerprint {
        let mut digest = digest::Context::new(&digest::SHA256);
        for name in names(context) {
            digest.update(format!("{name:?}={:?};", self.named.get(name)).as_bytes());
        }
        for source in self.sources(context) {
            let part = match source {
                DataSource::File(path) => self.file(path).digest,
                DataSource::Inline(_) | DataSource::Environment(_) => summary(&self.read(source)),
            };
            digest.update(part.as_ref());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        Fingerprint(bytes)
    }

    /// The content of `source`; the error says what to check.
    pub fn read(&self, source: &DataSource) -> Result<Arc<[u8]>, String> {
        match source {
            DataSource::Inline(bytes) => Ok(bytes.as_slice().into()),
            DataSource::Environment(variable) => match std::env::var_os(variable) {
                Some(value) => Ok(value.into_encoded_bytes().into()),
                None => Err(format!("the environment variable {variable} is not set")),
            },
            DataSource::File(path) => self.file(path).content,
        }
    }

    fn file(&self, path: &Path) -> FileContent {
        let read = || {
            let content = read_file(path);
            FileContent { digest: summary(&content), content }
        };
        self.files.lock().entry(path.to_owned()).or_insert_with(read).clone()
    }

    /// The bundle of roots in `source`. Contexts that trust the same bundle share it.
    pub(super) fn roots(&self, source: &DataSource) -> Result<Arc<Roots>, String> {
        let parse = || {
            let (content, place) = (self.read(source)?, place(source));
            let roots = Roots::parse(&content, &place);
            roots.map(Arc::new).map_err(|reason| format!("{place}: {reason}"))
        };
        self.roots.lock().entry(source.clone()).or_insert_with(parse).clone()
    }

    /// The certificate that `reference` means.
    pub(super) fn certificate<'a>(
        &'a self,
        reference: &'a SecretRef<TlsCertificate>,
    ) -> Result<&'a TlsCertificate, Invalid> {
        let name = match reference {
            SecretRef::Inline(certificate) => return Ok(certificate),
            SecretRef::Sds(name) => name,
        };
        match self.find(name)? {
            SecretKind::Certificate(certificate) => Ok(certificate),
            SecretKind::Validation(_) => Err(Invalid::new(
                "",
                format!("secret `{}` holds a validation context, not a certificate", text(name)),
            )),
        }
    }

    /// The validation context that `source` means, merged where two are combined.
    pub(super) fn validation(
        &self,
        source: &ValidationSource,
    ) -> Result<ValidationContext, Invalid> {
        match source {
            ValidationSource::Single(SecretRef::Inline(context)) => Ok(context.clone()),
            ValidationSource::Single(SecretRef::Sds(name)) => self.named_validation(name).cloned(),
            ValidationSource::Combined { default, sds } => {
                Ok(merge(default, self.named_validation(sds)?))
            }
        }
    }

    fn named_validation(&self, name: &SecretName) -> Result<&ValidationContext, Invalid> {
        match self.find(name)? {
            SecretKind::Validation(context) => Ok(context),
            SecretKind::Certificate(_) => Err(Invalid::new(
                "",
                format!("secret `{}` holds a certificate, not a validation context", text(name)),
            )),
        }
    }

    fn find(&self, name: &SecretName) -> Result<&SecretKind, Invalid> {
        self.named.get(name).ok_or_else(|| {
            let hint = match name {
                SecretName::Static(_) => "add it to static_resources.secrets".to_owned(),
                SecretName::Discovered(source) => match source.source.file() {
                    Some(file) => format!("look for it in {}", file.path.display()),
                    None => "its management server has not sent it".to_owned(),
                },
            };
            Invalid::new("", format!("there is no secret `{}`; {hint}", text(name)))
        })
    }

    /// Every place `context` reads from, as far as its secrets are known.
    fn sources<'a>(&'a self, context: &'a CommonTls) -> Vec<&'a DataSource> {
        let mut sources = Vec::new();
        for reference in &context.certificates {
            let known = match reference {
                SecretRef::Inline(certificate) => Some(certificate),
                SecretRef::Sds(name) => match self.named.get(name) {
                    Some(SecretKind::Certificate(certificate)) => Some(certificate),
                    _ => None,
                },
            };
            sources.extend(known.into_iter().flat_map(|known| [&known.chain, &known.key]));
        }
        let named = |name| match self.named.get(name) {
            Some(SecretKind::Validation(context)) => Some(context),
            _ => None,
        };
        let contexts = match &context.validation {
            None => [None, None],
            Some(ValidationSource::Single(SecretRef::Inline(inline))) => [Some(inline), None],
            Some(ValidationSource::Single(SecretRef::Sds(name))) => [named(name), None],
            Some(ValidationSource::Combined { default, sds }) => [Some(&**default), named(sds)],
        };
        for known in contexts.into_iter().flatten() {
            sources.extend(known.trusted_ca.iter().chain(&known.crl));
        }
        sources
    }
}

/// The secrets that `context` names.
fn names(context: &CommonTls) -> impl Iterator<Item = &SecretName> {
    let certificates = context.certificates.iter().filter_map(|reference| match reference {
        SecretRef::Sds(name) => Some(name),
        SecretRef::Inline(_) => None,
    });
    let validation = match &context.validation {
        Some(
            ValidationSource::Single(SecretRef::Sds(name))
            | ValidationSource::Combined { sds: name, .. },
        ) => Some(name),
        Some(ValidationSource::Single(SecretRef::Inline(_))) | None => None,
    };
    certificates.chain(validation)
}

/// Where `source` is, for messages and the admin API.
pub(super) fn place(source: &DataSource) -> String {
    match source {
        DataSource::File(path) => path.display().to_string(),
        DataSource::Inline(_) => "<inline>".to_owned(),
        DataSource::Environment(variable) => format!("<environment variable {variable}>"),
    }
}

fn text(name: &SecretName) -> &str {
    match name {
        SecretName::Static(name) => name,
        SecretName::Discovered(source) => &source.name,
    }
}

/// As protobuf merges `discovered` into `default`: lists are joined, set values win.
fn merge(default: &ValidationContext, discovered: &ValidationContext) -> ValidationContext {
    let ValidationContext {
        trusted_ca,
        crl,
        san,
        certificate_hashes,
        spki_hashes,
        allow_expired,
        accept_untrusted,
    } = discovered.clone();
    let mut merged = default.clone();
    merged.trusted_ca = trusted_ca.or(merged.trusted_ca);
    merged.crl = crl.or(merged.crl);
    merged.san.extend(san);
    merged.certificate_hashes.extend(certificate_hashes);
    merged.spki_hashes.extend(spki_hashes);
    merged.allow_expired |= allow_expired;
    merged.accept_untrusted |= accept_untrusted;
    merged
}

fn summary(content: &Content) -> Digest {
    match content {
        Ok(content) => sha256(content),
        Err(reason) => sha256(reason.as_bytes()),
    }
}

fn read_file(path: &Path) -> Content {
    use std::io::ErrorKind;
    match std::fs::read(path) {
        Ok(content) => Ok(content.into()),
        Err(error) => {
            let check = match error.kind() {
                ErrorKind::NotFound => "check the path and that the volume is mounted",
                ErrorKind::PermissionDenied => "let the proxy's user read it",
                _ => "check the file",
            };
            Err(format!("{} cannot be read ({error}); {check}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests;
