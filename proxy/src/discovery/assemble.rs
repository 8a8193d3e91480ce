//! Owns all current resources and publishes each change as one whole snapshot, or refuses it and leaves
//! everything as it was.
//!
//! Files that changed together are tried together. Those that errors point at are refused and the rest is
//! tried again, so that one bad file holds back nothing but itself.

mod adopt;
mod asked;
mod candidates;
mod check;
mod contexts;
mod endpoints;
mod extensions;
mod kept;
mod link;
mod notice;
mod rates;
mod run;
mod servers;
mod startup;
pub(in crate::discovery) mod state;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use xds::yaml::Error as Located;

pub(super) use self::asked::Needed;
use self::candidates::{Candidates, Fault};
pub(super) use self::candidates::{Refusal, Source};
use self::link::{Linked, link, unchanged};
use self::state::State;
use self::stats::Stats;
use super::Unpublished;
use super::dns::Found;
use super::dump::ConfigDump;
use super::file::bootstrap::{self, Sources};
use super::file::watch::Watch;
use super::file::{self, Undecodable};
use super::kept::Keeper;
use super::own::{Identity, OwnSecrets};
use crate::cluster::Clusters;
use crate::config::source::ResourceSource;
use crate::config::{HashMap, Invalid};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Metrics;

/// Hands a snapshot to those who serve it: opens sockets, then stores it.
pub type Publish<'a> = dyn FnMut(&Arc<Snapshot>) -> Result<(), Unpublished> + Send + 'a;

/// A resource by kind and name.
#[derive(Debug, Clone, Copy)]
pub enum Written<'a> {
    /// A listener.
    Listener(&'a str),
    /// A cluster.
    Cluster(&'a str),
    /// A discovered route table.
    Routes(&'a ResourceSource),
}

/// All current resources, and what was made of them.
pub struct Assembler {
    sources: Sources,
    state: State,
    refused: BTreeMap<Source, Refusal>,
    linked: Linked,
    /// The version of the last published snapshot.
    version: u64,
    /// What was published last.
    published: Arc<Snapshot>,
    /// Whether no listener is opened yet.
    withheld: bool,
    found: Found,
    stats: Stats,
    dump: Arc<ConfigDump>,
    /// The directory in which what is sent is kept, and who keeps it there once this runs.
    kept_in: Option<PathBuf>,
    keeper: Option<Keeper>,
    /// What is known of the hosts of published clusters; nothing in a program that only looks.
    live: Option<Arc<Clusters>>,
}

impl Assembler {
    /// Reads and links everything without publishing it. A discovered file that is bad is left out for now,
    /// as in Envoy: see [`Assembler::problems`].
    ///
    /// # Errors
    /// What is wrong with the bootstrap and all that is static, including its certificates.
    pub fn load(sources: Sources, metrics: Arc<Metrics>) -> Result<Self, Vec<Located>> {
        Self::load_with(sources, metrics, None)
    }

    /// As [`Assembler::load`], where secrets whose source is the cluster `sds-grpc` come from an agent in this
    /// process.
    ///
    /// # Errors
    /// As there.
    pub fn load_with(
        sources: Sources,
        metrics: Arc<Metrics>,
        agent: Option<watch::Receiver<Option<Identity>>>,
    ) -> Result<Self, Vec<Located>> {
        let own = Arc::new(agent.map(OwnSecrets::of_agent).unwrap_or_default());
        let text = bootstrap::read(&sources).map_err(|error| vec![error])?;
        let bootstrap = Arc::new(bootstrap::decode(text, None)?);
        let mut assembler = Self {
            sources,
            state: State { bootstrap, files: BTreeMap::new(), served: HashMap::default(), own },
            refused: BTreeMap::new(),
            linked: Linked::default(),
            version: 0,
            published: Arc::default(),
            withheld: false,
            found: Found::default(),
            stats: Stats::new(metrics),
            dump: Arc::default(),
            kept_in: None,
            keeper: None,
            live: None,
        };
        match assembler.settle(Candidates::default(), None) {
            Ok(()) => Ok(assembler),
            Err(errors) => Err(errors.into_iter().chain(assembler.problems()).collect()),
        }
    }

    /// The bootstrap as loaded, for what cannot change while the program runs: node and admin address.
    pub fn bootstrap(&self) -> &crate::config::bootstrap::Bootstrap {
        &self.state.bootstrap.config
    }

    /// An error of the bootstrap with file, line and column.
    pub fn locate(&self, error: Invalid) -> Located {
        self.state.bootstrap.locate(error)
    }

    /// Why the present content of some files is not in use.
    pub fn problems(&self) -> Vec<Located> {
        self.refused.values().flat_map(|refusal| refusal.errors.iter().cloned()).collect()
    }

    /// Where it is written that a listener cannot be served.
    pub fn locate_in_listener(&self, unpublished: Unpublished) -> Located {
        self.state.locate(unpublished)
    }

    /// Everything as it was linked last, published or not.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.linked.snapshot
    }

    /// Where a resource is written, as `file:line:column`; `path` leads from the resource's root to a part
    /// of it.
    pub fn place(&self, resource: Written<'_>, path: &str) -> String {
        let state = &self.state;
        let origin = match resource {
            Written::Listener(name) => {
                let mut all = state.listeners().into_iter();
                all.find(|placed| &*placed.value.name == name).map(|placed| placed.origin)
            }
            Written::Cluster(name) => {
                let mut all = state.clusters().into_iter();
                all.find(|placed| &*placed.value.name == name).map(|placed| placed.origin)
            }
            Written::Routes(source) => state.routes(source).map(|(_, origin)| origin.clone()),
        };
        let Some(origin) = origin else { return String::new() };
        let located = origin.locate(Invalid::new(path, ""));
        let at = located.at.map(|at| format!(":{at}")).unwrap_or_default();
        format!("{}{at}", located.file)
    }

    /// What `/config_dump` shows, kept up to date.
    pub fn dump(&self) -> Arc<ConfigDump> {
        Arc::clone(&self.dump)
    }

    /// Keeps hosts of `clusters` that are no longer listed for as long as they pass their checks.
    #[must_use]
    pub fn keeping_hosts_of(self, clusters: Arc<Clusters>) -> Self {
        Self { live: Some(clusters), ..self }
    }

    /// Looks at every source and certificate, and publishes what changed.
    pub(super) fn refresh(&mut self, publish: &mut Publish<'_>) {
        let candidates = self.changed();
        if !candidates.is_empty() || self.certificates_changed() {
            self.publish(candidates, publish);
        }
    }

    fn publish(&mut self, candidates: Candidates, publish: &mut Publish<'_>) {
        if let Err(errors) = self.settle(candidates, Some(publish)) {
            notice::errors(
                "the configuration cannot be published, the last good one stays",
                &errors,
            );
        }
    }

    /// Decodes every source whose content is not the one in use. One refused before is tried again: what
    /// it lacked may be there now.
    fn changed(&mut self) -> Candidates {
        let mut candidates = Candidates::default();
        match bootstrap::read(&self.sources) {
            Ok(text) if text.digest != self.state.bootstrap.digest => {
                let digest = text.digest;
                if !self.is_undecodable(&Source::Bootstrap, digest) {
                    match bootstrap::decode(text, Some(&self.state.bootstrap)) {
                        Ok(file) => candidates.bootstrap = Some(Arc::new(file)),
                        Err(errors) => {
                            self.refuse_undecodable(Source::Bootstrap, digest, errors.into());
                        }
                    }
                }
            }
            Ok(_) => self.forgive(&Source::Bootstrap),
            // Between two versions a file may be gone for a moment.
            Err(error) => tracing::debug!("{error}"),
        }
        for key in self.state.wanted().into_keys() {
            let Ok(content) = file::read(&key.path) else { continue };
            let last = self.state.files.get(&key).map(Arc::clone);
            let source = Source::File(key.clone());
            if last.as_ref().is_some_and(|last| last.digest == content.digest) {
                self.forgive(&source);
                continue;
            }
            if self.is_undecodable(&source, content.digest) {
                continue;
            }
            match file::decode_resources(&key, &content, last.as_deref()) {
                Ok(file) => drop(candidates.files.insert(key, Arc::new(file))),
                Err(why) => self.refuse_undecodable(source, content.digest, why),
            }
        }
        candidates
    }

    /// Links the current state with as many of `candidates` as fit, and publishes the outcome.
    ///
    /// # Errors
    /// If not even the current state can be linked or published. Nothing has changed then.
    fn settle(
        &mut self,
        mut candidates: Candidates,
        mut publish: Option<&mut Publish<'_>>,
    ) -> Result<(), Vec<Located>> {
        loop {
            let errors = match self.attempt(&mut candidates, publish.as_deref_mut()) {
                Ok((state, linked)) => {
                    self.adopt(state, linked, &candidates);
                    return Ok(());
                }
                Err(errors) => errors,
            };
            let blamed = self.blamed(&candidates, &errors);
            if blamed.is_empty() {
                return Err(errors);
            }
            for (source, refusal) in blamed {
                candidates.remove(&source);
                self.refuse(source, refusal);
            }
        }
    }

    /// The candidates that errors point at. Once something is in use, errors that point elsewhere are the
    /// fault of all candidates: without them it worked.
    fn blamed(&self, candidates: &Candidates, errors: &[Located]) -> Vec<(Source, Refusal)> {
        let refusal = |source: Source, digest, errors: Vec<Located>| {
            (source, Refusal { digest, errors, fault: Fault::Fit, at: SystemTime::now() })
        };
        let mut blamed = Vec::new();
        for (source, digest) in candidates.sources() {
            let own = |error: &&Located| match &source {
                Source::File(key) => *error.file == *key.path.display().to_string(),
                Source::Bootstrap => self.state.bootstrap.is_written_in(&error.file),
            };
            let own: Vec<Located> = errors.iter().filter(own).cloned().collect();
            if !own.is_empty() {
                blamed.push(refusal(source, digest, own));
            }
        }
        if blamed.is_empty() && self.version > 0 {
            let all = candidates.sources();
            return all.map(|(it, digest)| refusal(it, digest, errors.to_vec())).collect();
        }
        blamed
    }

    /// Links the current state with all of `candidates`, to which the files they newly want are added.
    fn attempt(
        &mut self,
        candidates: &mut Candidates,
        publish: Option<&mut Publish<'_>>,
    ) -> Result<(State, Linked), Vec<Located>> {
        let mut next = self.state.clone();
        next.files.extend(candidates.files.iter().map(|(key, it)| (key.clone(), Arc::clone(it))));
        next.bootstrap = Arc::clone(candidates.bootstrap.as_ref().unwrap_or(&next.bootstrap));
        self.complete(&mut next, candidates)?;
        let linked = self.link(&next)?;
        self.show(next, linked, publish)
    }

    fn link(&self, state: &State) -> Result<Linked, Vec<Located>> {
        link(state, &self.found, self.live.as_deref(), &self.linked, self.version + 1)
    }

    /// Publishes what was linked of `next`.
    fn show(
        &mut self,
        next: State,
        mut linked: Linked,
        publish: Option<&mut Publish<'_>>,
    ) -> Result<(State, Linked), Vec<Located>> {
        let Some(publish) = publish else { return Ok((next, linked)) };
        let shown = match self.withheld {
            true => Arc::new(linked.snapshot.without_listeners()),
            false => Arc::clone(&linked.snapshot),
        };
        if self.version > 0 && unchanged(&shown, &self.published) {
            if !self.withheld {
                linked.snapshot = Arc::clone(&self.published);
            }
            return Ok((next, linked));
        }
        publish(&shown).map_err(|unpublished| vec![next.locate(unpublished)])?;
        self.version = shown.version;
        self.published = shown;
        Ok((next, linked))
    }

    /// Reads files that are wanted and not there yet, and those that these want in turn.
    fn complete(
        &mut self,
        next: &mut State,
        candidates: &mut Candidates,
    ) -> Result<(), Vec<Located>> {
        let mut looked_at = BTreeSet::new();
        loop {
            let mut missing = next.wanted();
            missing.retain(|key, _| !next.files.contains_key(key) && looked_at.insert(key.clone()));
            if missing.is_empty() {
                return Ok(());
            }
            for (key, wanted) in missing {
                let content = file::read(&key.path).map_err(|error| {
                    let reason = format!("{} cannot be read: {error}", key.path.display());
                    vec![wanted.origin.locate(Invalid::new("", reason))]
                })?;
                let source = Source::File(key.clone());
                // What was refused a moment ago fits no better the second time.
                if self.refused.get(&source).is_some_and(|it| it.digest == content.digest) {
                    continue;
                }
                match file::decode_resources(&key, &content, None) {
                    Ok(file) => {
                        let file = Arc::new(file);
                        next.files.insert(key.clone(), Arc::clone(&file));
                        candidates.files.insert(key, file);
                    }
                    Err(why) => self.refuse_undecodable(source, content.digest, why),
                }
            }
        }
    }

    /// Whether this very content was refused for what is in it alone.
    fn is_undecodable(&self, source: &Source, digest: u64) -> bool {
        self.refused.get(source).is_some_and(|it| it.digest == digest && it.fault != Fault::Fit)
    }

    fn refuse_undecodable(&mut self, source: Source, digest: u64, why: Undecodable) {
        let (fault, errors) = match why {
            Undecodable::Text(errors) => (Fault::Text, errors),
            Undecodable::Content(errors) => (Fault::Content, errors),
        };
        self.refuse(source, Refusal { digest, errors, fault, at: SystemTime::now() });
    }

    /// Remembers why a source is not used, and says so unless it was said before.
    fn refuse(&mut self, source: Source, refusal: Refusal) {
        let known = self.refused.get(&source);
        if known.is_some_and(|it| it.digest == refusal.digest && it.errors == refusal.errors) {
            return;
        }
        notice::errors(&format!("{source} is refused, the last good one stays"), &refusal.errors);
        self.stats.refused(&source, &self.state, refusal.fault);
        self.refused.insert(source, refusal);
        self.dump.update(&self.state, &self.refused);
    }

    /// The present content of a source is the one in use again.
    fn forgive(&mut self, source: &Source) {
        if self.refused.remove(source).is_some() {
            self.dump.update(&self.state, &self.refused);
        }
    }

    fn adopt(&mut self, mut state: State, linked: Linked, taken: &Candidates) {
        let wanted = state.wanted();
        state.files.retain(|key, _| wanted.contains_key(key));
        let is_wanted = |source: &Source| match source {
            Source::Bootstrap => true,
            Source::File(key) => wanted.contains_key(key),
        };
        for (source, _) in taken.sources().filter(|(source, _)| is_wanted(source)) {
            self.refused.remove(&source);
            tracing::info!("{source} is in use");
            self.stats.taken(&source, &state);
        }
        self.refused.retain(|source, _| is_wanted(source));
        if let Some(bootstrap) = &taken.bootstrap {
            notice::fixed_parts(&self.state.bootstrap, bootstrap);
        }
        for file in taken.files.values() {
            notice::shadowed(&state.bootstrap, file);
        }
        if linked.waiting != self.linked.waiting {
            notice::errors("not served until its secret is there", &linked.waiting);
        }
        if linked.kept != self.linked.kept {
            notice::errors("a certificate is refused, the last good one stays", &linked.kept);
        }
        self.stats.published(&self.linked.snapshot, &linked.snapshot);
        self.state = state;
        self.linked = linked;
        self.dump.update(&self.state, &self.refused);
    }

    fn certificates_changed(&self) -> bool {
        let mut files = self.linked.certificate_files.iter();
        files.any(|(path, digest)| file::read(path).ok().map(|it| it.digest) != *digest)
    }

    /// Watches everything whose change may change anything.
    fn follow(&self, watch: &mut Watch) {
        let mut files: BTreeSet<PathBuf> = self.linked.certificate_files.keys().cloned().collect();
        let mut directories = BTreeSet::new();
        files.extend(self.sources.config_path.clone());
        for (key, wanted) in self.state.wanted() {
            files.insert(key.path);
            directories.extend(wanted.directories);
        }
        watch.follow(&files, &directories);
    }
}
