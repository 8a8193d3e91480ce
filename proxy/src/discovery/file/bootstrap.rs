//! The bootstrap: the file named by `--config-path`, with the text of `--config-yaml` merged over it.

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use prost::Message;
use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use xds::yaml::{Document, Error as Located};

use super::{MAX_REPORTED, NO_TEXT_FORMAT, Origin, binary};
use crate::config::{self, Invalid};
use crate::discovery::decode;

/// Where the bootstrap comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config-path`: watched for changes of its static resources.
    pub config_path: Option<PathBuf>,
    /// `--config-yaml`: merged over the file as protobuf merges messages: lists are joined, values replaced.
    pub config_yaml: Option<String>,
}

/// The bootstrap, decoded.
#[derive(Debug)]
pub(in crate::discovery) struct BootstrapFile {
    pub(in crate::discovery) digest: u64,
    pub(in crate::discovery) updated: SystemTime,
    /// The message, encoded: it is looked at seldom, and several times larger when it is not.
    encoded: Vec<u8>,
    pub(in crate::discovery) config: config::bootstrap::Bootstrap,
    parts: Vec<Part>,
}

/// One of the texts the bootstrap is merged from.
#[derive(Debug)]
struct Part {
    origin: Origin,
    /// How many of each list it holds.
    counts: Counts,
}

/// Items in the lists that are joined.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    listeners: usize,
    clusters: usize,
    secrets: usize,
}

impl Counts {
    fn of(proto: &Bootstrap) -> Self {
        proto.static_resources.as_ref().map_or_else(Self::default, |it: &StaticResources| Self {
            listeners: it.listeners.len(),
            clusters: it.clusters.len(),
            secrets: it.secrets.len(),
        })
    }

    fn of_list(self, list: &str) -> usize {
        match list {
            "listeners" => self.listeners,
            "clusters" => self.clusters,
            "secrets" => self.secrets,
            _ => 0,
        }
    }
}

/// The texts of a bootstrap as they are now.
#[derive(Debug)]
pub(in crate::discovery) struct BootstrapText {
    pub(in crate::discovery) digest: u64,
    texts: Vec<Text>,
}

#[derive(Debug)]
enum Text {
    /// YAML or JSON.
    Document(Document),
    /// Protobuf: a file whose name ends in `.pb`.
    Binary { file: Arc<str>, bytes: Vec<u8> },
}

impl Text {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Document(document) => {
                document.text().map(|text| text.as_bytes().to_vec()).unwrap_or_default()
            }
            Self::Binary { bytes, .. } => bytes.clone(),
        }
    }

    fn read(self) -> Result<(Bootstrap, Origin), Vec<Located>> {
        let document = match self {
            Self::Binary { file, bytes } => return binary(&file, &bytes),
            Self::Document(document) => document,
        };
        if document.text().unwrap_or_default().trim().is_empty() {
            // What a program leaves behind that was stopped before it wrote.
            let reason = "the file is empty; write `{}` for a bootstrap without anything";
            return Err(vec![document.error_at("", reason)]);
        }
        Ok((document.read()?, Origin::in_document(&document, "")))
    }
}

/// Reads the texts without looking into them.
pub(in crate::discovery) fn read(sources: &Sources) -> Result<BootstrapText, Located> {
    let mut texts = Vec::new();
    if let Some(path) = &sources.config_path {
        texts.push(read_file(path)?);
    }
    if let Some(text) = sources.config_yaml.as_ref().filter(|text| !text.is_empty()) {
        texts.push(Text::Document(Document::new("--config-yaml", text.as_str())));
    }
    let mut hasher = DefaultHasher::new();
    for text in &texts {
        hasher.write(&text.bytes());
    }
    Ok(BootstrapText { digest: hasher.finish(), texts })
}

fn read_file(path: &Path) -> Result<Text, Located> {
    let file: Arc<str> = path.display().to_string().into();
    let refuse =
        |reason: String| Located { file: Arc::clone(&file), at: None, path: String::new(), reason };
    let unreadable = |error| refuse(format!("cannot be read: {error}; check --config-path"));
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("pb") => {
            let bytes = std::fs::read(path).map_err(unreadable)?;
            Ok(Text::Binary { file, bytes })
        }
        Some("pb_text") => Err(refuse(NO_TEXT_FORMAT.to_owned())),
        _ => {
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            Ok(Text::Document(Document::of_file(path, text)))
        }
    }
}

/// Merges and decodes the texts; `last` is the bootstrap they are to replace.
pub(in crate::discovery) fn decode(
    text: BootstrapText,
    last: Option<&BootstrapFile>,
) -> Result<BootstrapFile, Vec<Located>> {
    let mut merged: Option<Bootstrap> = None;
    let mut parts = Vec::new();
    for text in text.texts {
        let (part, origin) = text.read()?;
        parts.push(Part { origin, counts: Counts::of(&part) });
        let Some(proto) = &mut merged else {
            merged = Some(part);
            continue;
        };
        // What protobuf calls merging is decoding onto what is there.
        proto.merge(part.encode_to_vec().as_slice()).map_err(|error| {
            vec![Located {
                file: "bootstrap".into(),
                at: None,
                path: String::new(),
                reason: error.to_string(),
            }]
        })?;
    }
    let proto = merged.unwrap_or_default();
    let mut file = BootstrapFile {
        digest: text.digest,
        updated: SystemTime::now(),
        config: config::bootstrap::Bootstrap::default(),
        encoded: proto.encode_to_vec(),
        parts,
    };
    file.config = decode::bootstrap(&proto).map_err(|errors| {
        let reported = errors.into_iter().take(MAX_REPORTED);
        reported.map(|error| file.locate(error)).collect::<Vec<_>>()
    })?;
    for part in &mut file.parts {
        part.origin = part.origin.at_rest();
    }
    if let Some(last) = last.filter(|last| last.proto() == proto) {
        file.updated = last.updated;
    }
    Ok(file)
}

impl BootstrapFile {
    /// The message.
    pub(in crate::discovery) fn proto(&self) -> Bootstrap {
        // Our own bytes: they decode.
        Bootstrap::decode(self.encoded.as_slice()).unwrap_or_default()
    }

    /// The error with file, line and column.
    pub(in crate::discovery) fn locate(&self, error: Invalid) -> Located {
        let Invalid { path, reason } = error;
        let (origin, rest) = self.split(&path);
        origin.locate(Invalid::new(rest, reason))
    }

    /// Where item `index` of the merged list `static_resources.LIST` is written.
    pub(in crate::discovery) fn origin(&self, list: &str, index: usize) -> Origin {
        let mut index = index;
        for part in &self.parts {
            let count = part.counts.of_list(list);
            if index < count {
                let prefix = format!("static_resources.{list}[{index}]");
                return part.origin.below(&prefix);
            }
            index -= count;
        }
        self.root("")
    }

    /// Where the value at `path` is written, if it is in none of the joined lists.
    pub(in crate::discovery) fn root(&self, path: &str) -> Origin {
        let first = path.split(['.', '[']).next().unwrap_or_default();
        // A value in the later text replaces the earlier one's. The first text is not searched: it may be
        // large, and has whatever the others do not have.
        let mut later = self.parts.iter().skip(1).rev();
        let holder = later.find(|part| part.origin.contains(first)).or_else(|| self.parts.first());
        match holder {
            Some(part) => part.origin.below(path),
            None => Origin::in_document(&Document::new("bootstrap", ""), path),
        }
    }

    /// Whether one of the bootstrap's texts is called `file`.
    pub(in crate::discovery) fn is_written_in(&self, file: &str) -> bool {
        self.parts.iter().any(|part| *part.origin.file == *file)
    }

    fn split<'p>(&self, path: &'p str) -> (Origin, &'p str) {
        let item = || {
            let (list, rest) = path.strip_prefix("static_resources.")?.split_once('[')?;
            let (index, rest) = rest.split_once(']')?;
            let origin = self.origin(list, index.parse().ok()?);
            Some((origin, rest.strip_prefix('.').unwrap_or(rest)))
        };
        item().unwrap_or_else(|| (self.root(path), ""))
    }
}
