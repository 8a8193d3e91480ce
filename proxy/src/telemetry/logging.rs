//! The proxy's own log: levels by component with Envoy's names, changeable while it runs.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

/// The components whose level can be set, by Envoy's logger names, with the modules they cover.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("admin", &["proxy::admin"]),
    ("config", &["proxy::discovery", "proxy::config", "proxy::snapshot", "xds"]),
    ("conn_handler", &["proxy::listener", "proxy::filter_chain", "proxy::worker"]),
    ("file", &["proxy::telemetry"]),
    ("http", &["proxy::http"]),
    ("main", &["proxy::server", "proxy::drain", "outrigger"]),
    ("pool", &["proxy::pool"]),
    ("router", &["proxy::route"]),
    ("secret", &["proxy::tls"]),
    ("upstream", &["proxy::cluster", "proxy::upstream"]),
];

/// How much is logged. Envoy's levels; `critical` is the same as `error` here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everything.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What an operator should look at.
    Warning,
    /// What went wrong.
    Error,
    /// What went wrong.
    Critical,
    /// Nothing.
    Off,
}

/// A level's names; the first is the one it is printed by.
const LEVELS: &[(Level, &[&str])] = &[
    (Level::Trace, &["trace"]),
    (Level::Debug, &["debug"]),
    (Level::Info, &["info"]),
    (Level::Warning, &["warning", "warn"]),
    (Level::Error, &["error"]),
    (Level::Critical, &["critical"]),
    (Level::Off, &["off"]),
];

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = LEVELS.iter().find(|(_, names)| names.contains(&text));
        found.map(|(level, _)| *level).ok_or_else(|| {
            format!(
                "`{text}` is no log level: use trace, debug, info, warning, error, critical or off"
            )
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = LEVELS.iter().find(|(level, _)| level == self).map(|(_, names)| *names);
        f.write_str(names.and_then(|names| names.first()).unwrap_or(&"off"))
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::TRACE,
            Level::Debug => Self::DEBUG,
            Level::Info => Self::INFO,
            Level::Warning => Self::WARN,
            Level::Error | Level::Critical => Self::ERROR,
            Level::Off => Self::OFF,
        }
    }
}

/// What a log line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogStyle {
    /// For people; coloured when standard error is a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogStyle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is no log format: use text or json")),
        }
    }
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log file cannot be opened.
    #[error("cannot open the log file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something in this process logs already.
    #[error(transparent)]
    Taken(#[from] TryInitError),
}

fn append(path: &Path) -> Result<File, StartError> {
    let open = File::options().append(true).create(true).open(path);
    open.map_err(|source| StartError::File { path: path.to_owned(), source })
}

/// The levels in force. Cloning gives another handle to the same levels.
#[derive(Debug, Clone)]
pub struct Logging {
    levels: Arc<Mutex<Vec<Level>>>,
    handle: Option<reload::Handle<Targets, Registry>>,
}

impl Logging {
    /// Starts logging to standard error, or to the end of the file at `path`.
    ///
    /// # Errors
    /// The file cannot be opened, or something in this process logs already.
    pub fn start(level: Level, style: LogStyle, path: Option<&Path>) -> Result<Self, StartError> {
        let (filter, handle) = reload::Layer::new(Targets::new());
        let writer = match path {
            Some(path) => BoxMakeWriter::new(Arc::new(append(path)?)),
            None => BoxMakeWriter::new(std::io::stderr),
        };
        let coloured = path.is_none() && std::io::stderr().is_terminal();
        let lines = tracing_subscriber::fmt::layer().with_writer(writer);
        let output = match style {
            LogStyle::Text => lines.with_ansi(coloured).boxed(),
            LogStyle::Json => lines.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(output).try_init()?;
        let logging = Self { handle: Some(handle), ..Self::detached(level) };
        logging.apply(&logging.levels.lock());
        Ok(logging)
    }

    /// Levels that nothing logs by, for tests and for programs with a log of their own.
    pub fn detached(level: Level) -> Self {
        Self { levels: Arc::new(Mutex::new(vec![level; COMPONENTS.len()])), handle: None }
    }

    /// Every component with its level.
    pub fn levels(&self) -> Vec<(&'static str, Level)> {
        let names = COMPONENTS.iter().map(|(name, _)| *name);
        names.zip(self.levels.lock().iter().copied()).collect()
    }

    /// Sets the level of every component.
    pub fn set_all(&self, level: Level) {
        let mut levels = self.levels.lock();
        levels.fill(level);
        self.apply(&levels);
    }

    /// Sets the levels of some components, all or none; fails with the name that is unknown.
    pub fn set(&self, changes: &[(&str, Level)]) -> Result<(), String> {
        let mut levels = self.levels.lock();
        let mut changed = levels.clone();
        for (component, level) in changes {
            let index = COMPONENTS.iter().position(|(name, _)| name == component);
            let slot = index.and_then(|index| changed.get_mut(index));
            *slot.ok_or_else(|| format!("unknown logger name `{component}`"))? = *level;
        }
        self.apply(&changed);
        *levels = changed;
        Ok(())
    }

    /// Sets levels from `name:level,name:level` (Envoy `--component-log-level`).
    pub fn set_from_list(&self, list: &str) -> Result<(), String> {
        let pair = |pair: &'_ str| -> Result<(String, Level), String> {
            let (name, level) = pair
                .split_once(':')
                .ok_or_else(|| format!("`{pair}` is not of the form component:level"))?;
            Ok((name.to_owned(), level.parse()?))
        };
        let pairs = list.split(',').map(pair).collect::<Result<Vec<_>, _>>()?;
        let changes: Vec<_> = pairs.iter().map(|(name, level)| (name.as_str(), *level)).collect();
        self.set(&changes)
    }

    /// Other crates log as `main` does, but nothing below warnings that nobody asked for.
    fn apply(&self, levels: &[Level]) {
        let Some(handle) = &self.handle else { return };
        let of_component = |((_, modules), level): (&(_, &'static [&'static str]), &Level)| {
            modules.iter().map(|module| (*module, LevelFilter::from(*level))).collect::<Vec<_>>()
        };
        let main = COMPONENTS.iter().zip(levels).find(|((name, _), _)| *name == "main");
        let others = main.map_or(LevelFilter::WARN, |(_, level)| LevelFilter::from(*level));
        let targets = Targets::new()
            .with_default(others.min(LevelFilter::WARN))
            .with_targets(COMPONENTS.iter().zip(levels).flat_map(of_component));
        // Fails only if the subscriber is gone, and then there is nothing to set.
        let _ = handle.reload(targets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_envoys_names() {
        for (level, names) in LEVELS {
            for name in *names {
                assert_eq!(name.parse(), Ok(*level));
            }
            assert_eq!(level.to_string(), names[0]);
        }
        assert!("loud".parse::<Level>().unwrap_err().contains("trace, debug"));
    }

    #[test]
    fn levels_change_all_or_none() {
        let logging = Logging::detached(Level::Info);
        logging.set_from_list("http:debug,pool:off").unwrap();
        assert!(logging.levels().contains(&("http", Level::Debug)));
        assert!(logging.levels().contains(&("pool", Level::Off)));
        let before = logging.levels();
        assert!(logging.set_from_list("http:trace,nope:debug").unwrap_err().contains("nope"));
        assert!(logging.set_from_list("http:loud").is_err());
        assert!(logging.set_from_list("http").is_err());
        assert_eq!(logging.levels(), before);
        logging.set_all(Level::Warning);
        assert!(logging.levels().iter().all(|(_, level)| *level == Level::Warning));
    }
}
