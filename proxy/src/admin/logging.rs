//! `/logging`: shows and changes log levels.

use super::AdminState;
use super::parameters::Parameters;
use super::reply::Reply;
use crate::telemetry::logging::Logging;

pub(super) const PARAMETERS: &[(&str, &str)] = &[
    (
        "paths",
        "Change multiple logging levels by setting to \
         <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>.",
    ),
    (
        "level",
        "desired logging level, this will change all loggers's level; One of (, trace, debug, info, \
         warning, error, critical, off)",
    ),
];

const USAGE: &str = "\
usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
levels: trace debug info warning error critical off
";

pub(super) fn answer(state: &AdminState, parameters: &Parameters) -> Reply {
    match change(&state.logging, parameters) {
        Ok(()) => Reply::text(levels(&state.logging)),
        Err(reason) => {
            let levels = levels(&state.logging);
            Reply::bad_request(format!("error: {reason}\n\n{USAGE}{levels}"))
        }
    }
}

fn change(logging: &Logging, parameters: &Parameters) -> Result<(), String> {
    match parameters.pairs().collect::<Vec<_>>().as_slice() {
        [] | [("level", "")] => Ok(()),
        [("level", level)] => {
            logging.set_all(level.parse()?);
            Ok(())
        }
        [("paths", list)] => logging.set_from_list(list),
        [(name, level)] => logging.set(&[(name, level.parse()?)]),
        _ => Err("only one parameter is allowed".to_owned()),
    }
}

fn levels(logging: &Logging) -> String {
    let lines = logging.levels().into_iter().map(|(name, level)| format!("  {name}: {level}\n"));
    format!("active loggers:\n{}\n", lines.collect::<String>())
}
