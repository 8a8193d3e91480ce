//! Which headers somebody else may change (Envoy `config.common.mutation_rules.v3.HeaderMutationRules`).

use super::matcher::Regex;

/// See the module. Names are in lower case, those of pseudo headers as in HTTP/2.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderRules {
    /// `allow_all_routing`: also `host`, `:authority`, `:scheme` and `:method`.
    pub allow_all_routing: bool,
    /// `allow_envoy`: also `x-envoy-*`.
    pub allow_envoy: bool,
    /// `disallow_system`: not even `:path`.
    pub disallow_system: bool,
    /// `disallow_all`: only those of `allow_expression`.
    pub disallow_all: bool,
    /// `allow_expression`
    pub allow: Option<Regex>,
    /// `disallow_expression`, whatever is allowed.
    pub disallow: Option<Regex>,
    /// `disallow_is_error`: whether a change that is not allowed fails the whole, rather than being left out.
    pub is_error: bool,
}

impl HeaderRules {
    /// Whether the header called `name` may be set.
    pub fn may_set(&self, name: &str) -> bool {
        let matches = |regex: &Option<Regex>| {
            regex.as_ref().is_some_and(|regex| regex.is_match(name.as_bytes()))
        };
        if matches(&self.disallow) {
            return false;
        }
        if matches(&self.allow) {
            return true;
        }
        let is_routing = matches!(name, "host" | ":authority" | ":scheme" | ":method");
        !(self.disallow_all
            || (self.disallow_system && name.starts_with(':'))
            || (!self.allow_all_routing && is_routing)
            || (!self.allow_envoy && name.starts_with("x-envoy-")))
    }

    /// Whether the header called `name` may be removed.
    pub fn may_remove(&self, name: &str) -> bool {
        !name.starts_with(':') && name != "host" && self.may_set(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_routes_requests_is_left_alone_by_default() {
        let rules = HeaderRules::default();
        for name in ["x-a", ":path", "authorization"] {
            assert!(rules.may_set(name), "{name}");
        }
        for name in ["host", ":authority", ":method", ":scheme", "x-envoy-a"] {
            assert!(!rules.may_set(name), "{name}");
        }
        assert!(!rules.may_remove(":path"));
        let lenient =
            HeaderRules { allow_all_routing: true, allow_envoy: true, ..HeaderRules::default() };
        assert!(lenient.may_set("host") && lenient.may_set("x-envoy-a"));
        assert!(!lenient.may_remove("host"));
    }

    #[test]
    fn expressions_come_first() {
        let regex = |source| Some(Regex::new(source).unwrap());
        let rules = HeaderRules {
            disallow_all: true,
            disallow_system: true,
            allow: regex("x-.*|:path"),
            disallow: regex("x-no"),
            ..HeaderRules::default()
        };
        assert!(rules.may_set("x-yes") && rules.may_set(":path"));
        assert!(!rules.may_set("x-no") && !rules.may_set("y"));
    }
}
