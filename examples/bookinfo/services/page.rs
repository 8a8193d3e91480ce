//! The pages, as HTML.

use std::fmt::Write as _;

use serde_json::Value;

pub(super) const TITLE: &str = "The Comedy of Errors";

const STYLE: &str = "body{font-family:system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;line-height:1.5}\
    section{border-top:1px solid #ccc;padding:1rem 0}blockquote{margin:0 0 1rem}small{color:#555}\
    .black{color:#000}.red{color:#c00}.missing{color:#a60}dt{float:left;clear:left;width:9rem;color:#555}";

/// What leads to the book.
pub(super) fn front() -> String {
    document("<p>A book shop of four services.</p><p><a href=\"/productpage\">To the book</a></p>")
}

/// The book's page; of what is not there it says so.
pub(super) fn product(
    user: Option<&str>,
    details: Option<&Value>,
    reviews: Option<&Value>,
) -> String {
    let mut body = who(user);
    body.push_str("<section id=\"details\"><h2>Book details</h2>");
    match details {
        Some(details) => write_details(details, &mut body),
        None => body.push_str("<p class=\"missing\">Sorry, product details are currently unavailable for this book.</p>"),
    }
    body.push_str("</section><section id=\"reviews\"><h2>Book reviews</h2>");
    match reviews {
        Some(reviews) => write_reviews(reviews, &mut body),
        None => body.push_str("<p class=\"missing\">Sorry, product reviews are currently unavailable for this book.</p>"),
    }
    body.push_str("</section>");
    document(&body)
}

fn document(body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{TITLE}</title>\
         <style>{STYLE}</style></head><body><h1>{TITLE}</h1>{body}</body></html>\n"
    )
}

fn who(user: Option<&str>) -> String {
    match user {
        Some(user) => format!("<p>{} (<a href=\"/logout\">sign out</a>)</p>", escaped(user)),
        None => "<form method=\"post\" action=\"/login\"><input name=\"username\" placeholder=\"name\" required> \
                 <button>Sign in</button></form>"
            .to_owned(),
    }
}

fn write_details(details: &Value, out: &mut String) {
    out.push_str("<dl>");
    for (name, value) in details.as_object().into_iter().flatten().filter(|(name, _)| *name != "id")
    {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(&value));
    }
    out.push_str("</dl>");
}

fn write_reviews(reviews: &Value, out: &mut String) {
    let text = |value: &Value| escaped(value.as_str().unwrap_or_default());
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let (words, reviewer) = (text(&review["text"]), text(&review["reviewer"]));
        let _ = write!(out, "<blockquote><p>{words}</p><small>{reviewer}</small> ");
        write_rating(&review["rating"], out);
        out.push_str("</blockquote>");
    }
    let _ = write!(out, "<p><small>Reviews served by {}</small></p>", text(&reviews["podname"]));
}

fn write_rating(rating: &Value, out: &mut String) {
    if let Some(stars) = rating["stars"].as_u64() {
        let color = if rating["color"] == "red" { "red" } else { "black" };
        let stars: String = (1..=5).map(|star| if star <= stars { '★' } else { '☆' }).collect();
        let _ = write!(out, "<span class=\"{color}\">{stars}</span>");
    } else if let Some(error) = rating["error"].as_str() {
        let _ = write!(out, "<span class=\"missing\">{}</span>", escaped(error));
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
