//! A finding: its code, what it is about and where that stands, in words for people, with the fix.

use std::fmt;

use xds::yaml::Position;

use super::code::{Code, Level};
use crate::model::Mesh;
use crate::model::object::{Object, Origin};

/// With this annotation an object asks not to be told of some codes: a list with commas, or `*`.
const SUPPRESS: &str = "galley.istio.io/analyze-suppress";

/// Something that is wrong, or looks like a mistake.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Which kind of mistake.
    pub code: Code,
    /// The object it is about.
    pub subject: Subject,
    /// The field it is about; empty for the object as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: Option<String>,
}

/// An object, or what would be one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its kind.
    pub kind: String,
    /// `namespace/name`, or only a name.
    pub name: String,
    /// Where it was read.
    pub place: Place,
}

/// Where something stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// An object of a file.
    Object(Origin),
    /// A file, and perhaps where in it.
    File(String, Option<Position>),
    /// In no file.
    #[default]
    Nowhere,
}

impl Subject {
    /// This object.
    pub fn of(object: &Object) -> Self {
        let place = Place::Object(object.origin.clone());
        Self { kind: object.type_meta.kind.clone(), name: object.full_name(), place }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Finding {
    /// Adds what to do.
    pub fn fix(&mut self, fix: impl Into<String>) {
        self.fix = Some(fix.into());
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        self.code.level
    }

    /// The file it is in, if any.
    pub fn file(&self) -> Option<&str> {
        match &self.subject.place {
            Place::Object(origin) => Some(&origin.file.name),
            Place::File(name, _) => Some(name),
            Place::Nowhere => None,
        }
    }

    /// `file:line` of the field.
    pub fn reference(&self) -> Option<String> {
        match &self.subject.place {
            Place::Object(origin) => {
                Some(format!("{}:{}", origin.file.name, origin.locate(&self.path).line))
            }
            Place::File(name, Some(at)) => Some(format!("{name}:{}", at.line)),
            Place::File(name, None) => Some(name.clone()),
            Place::Nowhere => None,
        }
    }
}

/// All that was found.
#[derive(Debug, Clone, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding about the field `path` of an object; its fix may be added to it.
    pub fn report(
        &mut self,
        code: Code,
        object: &Object,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.add(Finding {
            code,
            subject: Subject::of(object),
            path: path.into(),
            message: message.into(),
            fix: None,
        })
    }

    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) -> &mut Finding {
        let at = self.0.len();
        self.0.push(finding);
        &mut self.0[at]
    }

    /// Keeps those for which this is true.
    pub fn retain(&mut self, wanted: impl FnMut(&Finding) -> bool) {
        self.0.retain(wanted);
    }

    /// Sorts them by file and line, the worst of a place first, and keeps one of equal ones.
    pub fn sort(&mut self) {
        self.0.sort_by(|a, b| a.order().cmp(&b.order()));
        self.0.dedup_by(|a, b| a.subject == b.subject && a.order().cmp(&b.order()).is_eq());
    }

    /// Leaves out what objects ask not to be told of.
    pub fn suppress_annotated(&mut self, mesh: &Mesh) {
        for object in mesh.objects() {
            let Some(codes) = object.metadata.annotations.get(SUPPRESS) else { continue };
            let subject = Subject::of(object);
            let codes: Vec<_> = codes.split(',').map(str::trim).collect();
            let unwanted = |id| codes.contains(&"*") || codes.contains(&id);
            self.0.retain(|finding| finding.subject != subject || !unwanted(finding.code.id));
        }
    }

    /// One by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all is well.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How bad the worst one is.
    pub fn worst(&self) -> Option<Level> {
        self.0.iter().map(Finding::level).max()
    }
}

impl<'f> IntoIterator for &'f Findings {
    type Item = &'f Finding;
    type IntoIter = std::slice::Iter<'f, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Finding {
    fn order(&self) -> impl Ord + '_ {
        let line = match &self.subject.place {
            Place::Object(origin) => origin.line,
            Place::File(_, at) => at.map_or(0, |at| at.line),
            Place::Nowhere => 0,
        };
        let level = std::cmp::Reverse(self.level());
        (self.file().is_none(), self.file(), line, level, self.code.id, &self.path, &self.message)
    }
}
