//! What the reader takes, notes and refuses.

use std::collections::BTreeMap;

use serde::Deserialize;
use xds::yaml::tree::parse_all;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    hosts: Vec<String>,
    max_age: Option<u32>,
    ratio: f64,
    signed: i32,
    labels: BTreeMap<String, String>,
    mode: Mode,
    uri: Option<Match>,
    free: Option<serde_json::Value>,
    item: Option<Item>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Item {
    name: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Mode {
    #[default]
    Unset,
    AllowAny,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Match {
    Exact(String),
    Prefix(String),
    #[serde(rename = "")]
    Open,
}

fn reading(text: &str) -> Reading<Spec> {
    read(&parse_all(text).unwrap()[0], "spec", &["kept"])
}

fn refused(text: &str) -> String {
    reading(text).value.unwrap_err().to_string()
}

#[test]
fn both_spellings_and_nulls_are_taken() {
    let text =
        "{hosts: [a], max_age: 3, ratio: 1, mode: ALLOW_ANY, uri: {exact: /x}, item: null, kept: 1,
        free: {a: [1, yes, null, 1.5]}, labels: {\"a.b/c\": d}}";
    let reading = reading(text);
    let spec = reading.value.unwrap();
    assert_eq!(spec.max_age, Some(3));
    assert_eq!((spec.ratio, spec.mode, spec.item), (1.0, Mode::AllowAny, None));
    assert_eq!(spec.uri, Some(Match::Exact("/x".into())));
    assert_eq!(spec.free.unwrap().to_string(), r#"{"a":[1,"yes",null,1.5]}"#);
    assert_eq!(reading.unknown, []);
}

#[test]
fn unknown_fields_are_noted_with_their_path_and_a_guess() {
    let reading = reading("{host: a, item: {name: x, nmae: y}, uri: {}}");
    assert_eq!(reading.value.unwrap().uri, Some(Match::Open));
    let unknown: Vec<_> = reading.unknown.iter().map(ToString::to_string).collect();
    assert_eq!(
        unknown,
        [
            r#"spec.host: unknown field "spec.host"; did you mean "hosts"?"#,
            r#"spec.item.nmae: unknown field "spec.item.nmae"; did you mean "name"?"#
        ]
    );
}

#[test]
fn what_is_refused_names_its_field() {
    assert_eq!(refused("item: {}"), "spec.item.name: Required value");
    assert_eq!(
        refused("mode: BLAH"),
        r#"spec.mode: Unsupported value: "BLAH": supported values: "UNSET", "ALLOW_ANY""#
    );
    assert!(refused("uri: {exact: a, prefix: b}").contains("exactly one of exact, prefix"));
    assert!(refused("maxAge: -1").contains("spec.maxAge in body should be greater than or equal"));
    assert!(refused("maxAge: '1'").contains("must be of type integer"));
    assert!(refused("hosts: [a, 1.0]").starts_with("spec.hosts[1]: Invalid value: 1.0"));
    assert!(refused("labels: {\"a.b/c\": true}").starts_with("spec.labels[a.b/c]: "));
    assert!(refused("signed: 99999999999").starts_with("spec.signed: invalid value"));
    assert!(refused("hosts: a").contains("must be of type array"));
}

proptest::proptest! {
    #[test]
    fn no_value_panics(text in "[a-z]{0,4}: [ -~]{0,30}") {
        for node in parse_all(&text).unwrap_or_default() {
            let _ = read::<Spec>(&node, "", &[]);
        }
    }
}
