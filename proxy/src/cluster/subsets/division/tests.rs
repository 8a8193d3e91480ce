//! Which endpoints a request may go to, by hand and at random.

use std::collections::HashSet;

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use serde_json::{Map, Value, json};

use super::*;
use crate::config::subset::{LOAD_BALANCING, MetadataMatch, Selector};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

pub(in super::super) fn criteria(value: Value) -> Criteria {
    Criteria::new(&object(value))
}

fn labels(value: Value) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.set(LOAD_BALANCING, object(value));
    metadata
}

pub(in super::super) fn selector(keys: &[&str], fallback: Option<SelectorFallback>) -> Selector {
    let keys = keys.iter().map(|key| (*key).into()).collect();
    Selector { keys, fallback, single_host: false }
}

pub(in super::super) fn config(selectors: Vec<Selector>) -> SubsetLb {
    SubsetLb {
        selectors,
        redundant_keys: false,
        fallback: Fallback::Any,
        default_subset: Criteria::default(),
        panic_mode_any: false,
        list_as_any: false,
        locality_weight_aware: false,
        scale_locality_weight: false,
        fallback_list: false,
    }
}

fn division(config: &SubsetLb, endpoints: &[Value]) -> Division {
    let endpoints: Vec<Metadata> = endpoints.iter().cloned().map(labels).collect();
    Division::new(config, endpoints.iter().map(|metadata| (0, Some(metadata))))
}

fn find(division: &Division, config: &SubsetLb, wanted: Value) -> Target {
    division.find(config, &criteria(wanted), &mut String::new())
}

/// The members of the subset that `wanted` leads to.
fn members<'a>(division: &'a Division, config: &SubsetLb, wanted: Value) -> &'a [usize] {
    match find(division, config, wanted) {
        Target::Subset(part) => &division.part(part).unwrap().members,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_subset_is_a_combination_of_values_of_a_selectors_keys() {
    let config = config(vec![selector(&["v"], None), selector(&["stage", "v"], None)]);
    let division = division(
        &config,
        &[
            json!({"v": "1", "stage": "prod"}),
            json!({"v": "2", "stage": "prod"}),
            json!({"v": "1"}),
            json!({"stage": "prod"}),
            json!({"v": 1}),
        ],
    );
    assert_eq!(members(&division, &config, json!({"v": "1"})), [0, 2]);
    assert_eq!(members(&division, &config, json!({"v": 1})), [4], "a number is no text");
    assert_eq!(members(&division, &config, json!({"v": "1", "stage": "prod"})), [0]);
    assert_eq!(division.part(ANY).unwrap().members, [0, 1, 2, 3, 4]);
    assert_eq!(division.part(DEFAULT).unwrap().members, [0, 1, 2, 3, 4], "all that is wanted");
    for nothing in [json!({}), json!({"v": "3"}), json!({"stage": "prod"}), json!({"x": "1"})] {
        assert_eq!(find(&division, &config, nothing), Target::Fallback);
    }
    assert_eq!(division.names().count(), 5);
}

#[test]
fn the_default_subset_has_all_its_values() {
    let mut config = config(vec![selector(&["v"], None)]);
    config.default_subset = criteria(json!({"v": "1", "x": true}));
    let endpoints = [json!({"v": "1", "x": true}), json!({"v": "1"}), json!({"v": "1", "x": 1})];
    let division = division(&config, &endpoints);
    assert_eq!(division.part(DEFAULT).unwrap().members, [0]);
    let bare = Division::new(&config, [(0, None), (0, Some(&Metadata::default()))].into_iter());
    assert!(bare.part(DEFAULT).unwrap().members.is_empty());
    assert_eq!(bare.part(ANY).unwrap().members, [0, 1]);
}

#[test]
fn a_selector_may_have_its_own_fallback() {
    let fewer =
        |keys: &[&str]| SelectorFallback::Keys(keys.iter().map(|key| (*key).into()).collect());
    let config = config(vec![
        selector(&["a", "b", "c"], Some(fewer(&["a", "b"]))),
        selector(&["a", "b"], Some(fewer(&["b"]))),
        selector(&["b"], Some(SelectorFallback::To(Fallback::None))),
        selector(&["c"], Some(fewer(&["c"]))),
    ]);
    let division = division(&config, &[json!({"a": 1, "b": 1}), json!({"b": 2})]);
    let wanted = |a: u8, b: u8| json!({"a": a, "b": b, "c": 1});
    assert_eq!(members(&division, &config, wanted(1, 1)), [0]);
    assert_eq!(members(&division, &config, wanted(1, 2)), [1], "b alone");
    assert_eq!(find(&division, &config, wanted(1, 3)), Target::Selector(Fallback::None));
    assert_eq!(find(&division, &config, json!({"a": 1})), Target::Fallback, "no selector");
}

#[test]
fn redundant_keys_may_be_left_out() {
    let none = || Some(SelectorFallback::To(Fallback::None));
    let mut config = config(vec![selector(&["a", "b"], none()), selector(&["a"], None)]);
    let division = division(&config, &[json!({"a": 1, "b": 1}), json!({"a": 2})]);
    assert_eq!(find(&division, &config, json!({"a": 2, "x": 1})), Target::Fallback);
    config.redundant_keys = true;
    assert_eq!(members(&division, &config, json!({"a": 2, "x": 1})), [1]);
    assert_eq!(members(&division, &config, json!({"a": 1, "b": 1, "x": 1})), [0]);
    assert_eq!(
        find(&division, &config, json!({"a": 2, "b": 1, "x": 1})),
        Target::Selector(Fallback::None),
        "the longest selector decides, even if it has no such subset"
    );
    assert_eq!(find(&division, &config, json!({"b": 1, "x": 1})), Target::Fallback);
}

#[test]
fn a_list_may_be_one_value_or_several() {
    let mut config = config(vec![selector(&["v", "w"], None)]);
    let endpoints = [json!({"v": ["1", "2", "2"], "w": ["x", "y"]}), json!({"v": "2", "w": "x"})];
    let whole = division(&config, &endpoints);
    assert_eq!(members(&whole, &config, endpoints[0].clone()), [0]);
    config.list_as_any = true;
    let parts = division(&config, &endpoints);
    assert_eq!(members(&parts, &config, json!({"v": "2", "w": "x"})), [0, 1]);
    assert_eq!(members(&parts, &config, json!({"v": "1", "w": "y"})), [0]);
    assert_eq!(find(&parts, &config, endpoints[0].clone()), Target::Fallback);
}

#[test]
fn a_single_host_is_the_first_of_the_highest_priority() {
    let mut config = config(vec![selector(&["v"], None)]);
    config.selectors[0].single_host = true;
    let metadata = labels(json!({"v": 1}));
    let endpoints = [2, 1, 1, 2].map(|priority| (priority, Some(&metadata)));
    let division = Division::new(&config, endpoints.into_iter());
    assert_eq!(members(&division, &config, json!({"v": 1})), [1]);
}

#[test]
fn names_are_as_different_as_criteria() {
    let names = [
        json!({"a": "1\n\"b\"=2"}),
        json!({"a": "1", "b": 2}),
        json!({"a=\"1\"\nb": 2}),
        json!({"a": "1", "b": "2"}),
        json!({"a": ["1", 2]}),
        json!({"a": {"b": 2}}),
    ];
    let names: HashSet<String> = names.map(|it| criteria(it).name().to_owned()).into();
    assert_eq!(names.len(), 6);
}

#[test]
fn criteria_may_be_a_list_to_try() {
    let wanted = object(json!({"v": 1, "fallback_list": [{"w": 2}, {"v": 3}]}));
    let MetadataMatch { criteria: all, fallbacks } = MetadataMatch::new(&wanted);
    assert_eq!(all, Criteria::new(&wanted));
    assert_eq!(fallbacks.unwrap(), [criteria(json!({"v": 1, "w": 2})), criteria(json!({"v": 3}))]);
    let empty = object(json!({"v": 1, "fallback_list": []}));
    assert_eq!(MetadataMatch::new(&empty).fallbacks.unwrap(), [criteria(json!({"v": 1}))]);
    assert_eq!(MetadataMatch::new(&object(json!({"v": 1}))).fallbacks, None);
}

/// Values of some of the keys `a` to `d`.
fn values() -> impl Strategy<Value = Map<String, Value>> {
    let value =
        proptest::prop_oneof![(0_u8..3).prop_map(Value::from), any::<bool>().prop_map(Value::from)];
    prop::collection::btree_map("[a-d]", value, 0..=4).prop_map(|map| map.into_iter().collect())
}

fn keys() -> impl Strategy<Value = Vec<Box<str>>> {
    prop::collection::btree_set("[a-d]", 1..=4)
        .prop_map(|keys| keys.into_iter().map(String::into_boxed_str).collect())
}

/// A selector with this choice of fallback; `KEYS_SUBSET` drops the first key.
fn any_selector() -> impl Strategy<Value = Selector> {
    (keys(), 0..5).prop_map(|(keys, kind)| {
        let fallback = match kind {
            0 => None,
            1 => Some(SelectorFallback::To(Fallback::None)),
            2 => Some(SelectorFallback::To(Fallback::Default)),
            _ if keys.len() > 1 => Some(SelectorFallback::Keys(keys[1..].to_vec())),
            _ => Some(SelectorFallback::To(Fallback::Any)),
        };
        Selector { keys, fallback, single_host: false }
    })
}

proptest! {
    #[test]
    fn nobody_lands_outside_a_subset_unless_the_fallback_says_so(
        selectors in prop::collection::vec(any_selector(), 0..5),
        endpoints in prop::collection::vec(values(), 0..8),
        wanted in values(),
        default in values(),
    ) {
        let mut config = config(selectors);
        config.default_subset = Criteria::new(&default);
        let endpoints: Vec<Value> = endpoints.into_iter().map(Value::Object).collect();
        let division = division(&config, &endpoints);
        let has = |endpoint: &Value, values: &Map<String, Value>| {
            values.iter().all(|(key, value)| endpoint.get(key) == Some(value))
        };
        let those = |values: &Map<String, Value>| -> Vec<usize> {
            (0..endpoints.len()).filter(|at| has(&endpoints[*at], values)).collect()
        };
        prop_assert_eq!(&division.part(DEFAULT).unwrap().members, &those(&default));

        // The same again, step by step.
        let mut left = wanted.clone();
        let expected = loop {
            let keys: Vec<Box<str>> = left.keys().map(|key| key.as_str().into()).collect();
            let Some(selector) = config.selectors.iter().find(|it| it.keys == keys) else {
                break Err(Target::Fallback);
            };
            let members = those(&left);
            if !members.is_empty() {
                break Ok(members);
            }
            match &selector.fallback {
                None => break Err(Target::Fallback),
                Some(SelectorFallback::To(fallback)) => break Err(Target::Selector(*fallback)),
                Some(SelectorFallback::Keys(fewer)) => left.retain(|key, _| fewer.contains(&key.as_str().into())),
            }
        };
        let found = division.find(&config, &Criteria::new(&wanted), &mut String::new());
        match (found, expected) {
            (Target::Subset(part), Ok(members)) => {
                prop_assert_eq!(&division.part(part).unwrap().members, &members);
            }
            (other, expected) => prop_assert_eq!(Err(other), expected),
        }
        prop_assert!(division.names().all(|name| division.has(name)));
    }
}
