//! Which statistics are shown (Envoy `config.metrics.v3.StatsMatcher`).

use super::matcher::StringMatcher;

/// The statistics that the admin API shows. All are counted: that costs nothing worth a choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ShownStats {
    /// All of them.
    #[default]
    All,
    /// Those whose name matches one of these (`inclusion_list`; none for `reject_all`).
    Only(Vec<StringMatcher>),
    /// Those whose name matches none of these (`exclusion_list`).
    AllBut(Vec<StringMatcher>),
}

impl ShownStats {
    /// Whether the statistic with this name, as `/stats` spells it, is shown.
    pub fn has(&self, name: &str) -> bool {
        let matches = |list: &[StringMatcher]| list.iter().any(|it| it.matches(name.as_bytes()));
        match self {
            Self::All => true,
            Self::Only(list) => matches(list),
            Self::AllBut(list) => !matches(list),
        }
    }
}
