//! Changes to headers that are made one after the other, so that each sees what those before it have done.

use http::HeaderMap;
use http::header::{Entry, HeaderName};

use super::{Current, Message, append};
use crate::config::format::Facts;
use crate::config::header::{AppendAction, HeaderChange, HeaderToAdd};
use crate::route::inline;

/// Makes `changes` to the headers of a request; `%REQ(…)%` reads `headers`, every other operator asks `facts`.
pub fn change_request(changes: &[HeaderChange], headers: &mut HeaderMap, facts: &dyn Facts) {
    change(changes, Message::Request, headers, facts);
}

/// Makes `changes` to the headers of a response; `%RESP(…)%` reads `headers`, every other operator asks `facts`.
pub fn change_response(changes: &[HeaderChange], headers: &mut HeaderMap, facts: &dyn Facts) {
    change(changes, Message::Response, headers, facts);
}

fn change(changes: &[HeaderChange], message: Message, headers: &mut HeaderMap, facts: &dyn Facts) {
    for change in changes {
        match change {
            HeaderChange::Remove(name) => {
                headers.remove(name);
            }
            HeaderChange::RemoveMatching(matcher) => {
                let matches = |name: &&HeaderName| matcher.matches(name.as_str().as_bytes());
                let names: Vec<_> = headers.keys().filter(matches).cloned().collect();
                for name in names {
                    headers.remove(name);
                }
            }
            HeaderChange::Add(header) => add(header, message, headers, facts),
        }
    }
}

fn add(header: &HeaderToAdd, message: Message, headers: &mut HeaderMap, facts: &dyn Facts) {
    let HeaderToAdd { name, action, .. } = header;
    let Some(value) = header.value(&Current { message, headers, facts }) else { return };
    match headers.entry(name) {
        Entry::Vacant(_) if *action == AppendAction::OverwriteIfExists => {}
        Entry::Vacant(place) => drop(place.insert(value)),
        Entry::Occupied(mut held) => match action {
            AppendAction::AddIfAbsent => {}
            AppendAction::OverwriteIfExistsOrAdd | AppendAction::OverwriteIfExists => {
                held.insert(value);
            }
            AppendAction::AppendIfExistsOrAdd => {
                let inline = match message {
                    Message::Request => inline::of_requests(name),
                    Message::Response => inline::of_responses(name),
                };
                append(name, value, inline, headers);
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;
    use http::HeaderValue;

    use crate::config::format::{Format, Operator};
    use crate::config::header::HeaderText;
    use crate::config::matcher::{StringMatcher, StringPattern};

    struct NoFacts;

    impl Facts for NoFacts {
        fn write(&self, _: &Operator, _: &mut Vec<u8>) -> bool {
            false
        }
    }

    fn add(name: &'static str, value: &str, action: AppendAction) -> HeaderChange {
        HeaderChange::Add(HeaderToAdd {
            name: HeaderName::from_static(name),
            value: HeaderText::new(Format::parse(value).unwrap()).unwrap(),
            action,
            keep_empty: false,
        })
    }

    #[test]
    fn each_change_sees_those_before_it() {
        use AppendAction::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists};
        let changes = [
            add("x-a", "1", AddIfAbsent),
            add("x-b", "%REQ(x-a)%2", AppendIfExistsOrAdd),
            add("x-a", "3", AddIfAbsent),
            add("x-c", "%REQ(x-none)%", AppendIfExistsOrAdd),
            add("x-d", "4", OverwriteIfExists),
            HeaderChange::Remove(HeaderName::from_static("x-a")),
            add("x-e", "%REQ(x-a?x-b)%", OverwriteIfExists),
            HeaderChange::RemoveMatching(StringMatcher::new(
                StringPattern::Prefix("x-old".into()),
                false,
            )),
            add("accept", "b", AppendIfExistsOrAdd),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-e", "0"), ("x-old-1", "a"), ("x-old-2", "b"), ("accept", "a")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        change_request(&changes, &mut headers, &NoFacts);
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        assert_eq!(lines, ["accept: a,b", "x-b: 12", "x-e: 12"]);
    }
}
