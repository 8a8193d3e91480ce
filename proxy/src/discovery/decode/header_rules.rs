//! Which headers somebody else may change.

use xds::envoy::config::common::mutation_rules::v3::HeaderMutationRules;

use super::errors::{Result, optional};
use super::matcher::regex;
use crate::config::header_rules::HeaderRules;

/// See the module.
pub(super) fn header_rules(proto: &HeaderMutationRules) -> Result<HeaderRules> {
    let HeaderMutationRules {
        allow_all_routing,
        allow_envoy,
        disallow_system,
        disallow_all,
        allow_expression,
        disallow_expression,
        disallow_is_error,
    } = proto;
    let is = |flag: &Option<bool>| flag.unwrap_or(false);
    Ok(HeaderRules {
        allow_all_routing: is(allow_all_routing),
        allow_envoy: is(allow_envoy),
        disallow_system: is(disallow_system),
        disallow_all: is(disallow_all),
        allow: optional("allow_expression", allow_expression, regex)?,
        disallow: optional("disallow_expression", disallow_expression, regex)?,
        is_error: is(disallow_is_error),
    })
}
