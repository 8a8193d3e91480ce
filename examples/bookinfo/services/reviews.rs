//! `reviews`: what reviewers say of a book. Version 1 shows no stars, version 2 black ones, version 3 red ones.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use super::outbound::{Outbound, passed_on};
use super::{Answer, Stars, in_json, not_found, product};

/// How long it waits for ratings: longer than the page waits for reviews, for operators to find out.
const PATIENCE: Duration = Duration::from_secs(10);

const REVIEWS: [(&str, &str); 2] = [
    ("Reviewer1", "I laughed until the last act, and then once more at the play within the play."),
    (
        "Reviewer2",
        "Less thoughtful than the tragedies, but nobody falls asleep who is not enchanted.",
    ),
];

pub(super) async fn answer(
    workload: &str,
    stars: Stars,
    others: &Outbound,
    request: &Request<Incoming>,
) -> Answer {
    let Some(id) = product(request.uri().path(), "reviews") else { return not_found() };
    let color = match stars {
        Stars::None => None,
        Stars::Black => Some("black"),
        Stars::Red => Some("red"),
    };
    let ratings = match color {
        Some(_) => {
            let url = format!("http://ratings:9080/ratings/{id}");
            others.get(&url, passed_on(request.headers()), PATIENCE).await.ok()
        }
        None => None,
    };
    let reviews: Vec<Value> = REVIEWS
        .iter()
        .map(|(reviewer, text)| {
            let mut review = json!({"reviewer": reviewer, "text": text});
            if let Some(color) = color {
                let stars = ratings.as_ref().map(|it| &it["ratings"][reviewer]);
                review["rating"] = match stars {
                    Some(stars) => json!({"stars": stars, "color": color}),
                    None => json!({"error": "Ratings service is currently unavailable"}),
                };
            }
            review
        })
        .collect();
    let body = json!({"id": id.to_string(), "podname": workload, "reviews": reviews});
    in_json(StatusCode::OK, &body)
}
