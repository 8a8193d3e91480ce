//! Which fields of the subset are accepted without effect, and why: what the marks in the .proto files say.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use prost::Name;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};
use prost_types::Any;

use crate::{DESCRIPTOR_POOL, typed_struct};

/// A field that is accepted without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ignored {
    /// Full name of its message.
    pub message: &'static str,
    /// Its name.
    pub field: &'static str,
    /// Why it has no effect.
    pub reason: &'static str,
}

/// One line for each: message, field and reason, with tabs between them.
const TABLE: &str = include_str!(concat!(env!("OUT_DIR"), "/ignored.tsv"));

static BY_NAME: LazyLock<HashMap<(&str, &str), &str>> =
    LazyLock::new(|| ignored().map(|it| ((it.message, it.field), it.reason)).collect());

/// All fields that are accepted without effect, by message.
pub fn ignored() -> impl Iterator<Item = Ignored> {
    TABLE.lines().filter_map(|line| {
        let mut parts = line.splitn(3, '\t');
        Some(Ignored { message: parts.next()?, field: parts.next()?, reason: parts.next()? })
    })
}

/// What is set in `any`, and all it holds, that has no effect: the paths, without the numbers of list items, how often,
/// and why.
pub fn ignored_in(any: &Any) -> BTreeMap<String, (usize, &'static str)> {
    let mut found = BTreeMap::new();
    packed(any, "", &mut found);
    found
}

type Found = BTreeMap<String, (usize, &'static str)>;

fn packed(any: &Any, path: &str, found: &mut Found) {
    if typed_struct::is_typed_struct(any) {
        if let Ok(any) = typed_struct::unpack(any) {
            packed(&any, path, found);
        }
        return;
    }
    let name = any.type_url.rsplit_once('/').map_or(any.type_url.as_str(), |(_, name)| name);
    let Some(descriptor) = DESCRIPTOR_POOL.get_message_by_name(name) else { return };
    let short = name.rsplit('.').next().unwrap_or(name);
    let path = if path.is_empty() { short.to_owned() } else { format!("{path}<{short}>") };
    if let Ok(message) = DynamicMessage::decode(descriptor, any.value.as_slice()) {
        walk(&message, &path, found);
    }
}

fn walk(message: &DynamicMessage, path: &str, found: &mut Found) {
    let descriptor = message.descriptor();
    if descriptor.full_name() == Any::full_name() {
        if let Ok(any) = message.transcode_to::<Any>() {
            packed(&any, path, found);
        }
        return;
    }
    for (field, value) in message.fields() {
        let path = format!("{path}.{}", field.name());
        match BY_NAME.get(&(descriptor.full_name(), field.name())) {
            Some(reason) => found.entry(path).or_insert((0, reason)).0 += 1,
            None => values(&field, value, &path, found),
        }
    }
}

fn values(field: &FieldDescriptor, value: &Value, path: &str, found: &mut Found) {
    match value {
        Value::Message(message) => walk(message, path, found),
        Value::List(items) => {
            for item in items.iter().filter_map(Value::as_message) {
                walk(item, &format!("{path}[]"), found);
            }
        }
        Value::Map(entries) if matches!(field.kind(), Kind::Message(_)) => {
            for item in entries.values().filter_map(Value::as_message) {
                walk(item, &format!("{path}{{}}"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::cluster::v3::Cluster;
    use crate::yaml::Document;

    #[test]
    fn every_mark_has_a_message_and_a_reason() {
        let all: Vec<_> = ignored().collect();
        assert!(all.len() > 50, "{} marks", all.len());
        for Ignored { message, field, reason } in all {
            let descriptor = DESCRIPTOR_POOL.get_message_by_name(message).unwrap();
            assert!(descriptor.get_field_by_name(field).is_some(), "{message}.{field}");
            assert!(!reason.is_empty(), "{message}.{field}");
        }
    }

    #[test]
    fn what_has_no_effect_is_found_where_it_is_set() {
        let text = "{name: a, track_cluster_stats: {}, type: EDS, eds_cluster_config: \
                    {eds_config: {ads: {}}}, common_lb_config: {update_merge_window: 1s}}";
        let cluster: Cluster = Document::new("x", text).read().unwrap();
        let found = ignored_in(&Any::from_msg(&cluster).unwrap());
        let paths: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            ["Cluster.common_lb_config.update_merge_window", "Cluster.track_cluster_stats",]
        );
    }
}
