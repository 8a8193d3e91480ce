//! `/`: a page with a link or a button for every endpoint.

use super::endpoints::ENDPOINTS;
use super::reply::Reply;

pub(super) fn page() -> Reply {
    let rows = ENDPOINTS.iter().filter(|endpoint| endpoint.path != "/").map(|endpoint| {
        let (path, help) = (endpoint.path, endpoint.help);
        let action = if endpoint.changes {
            format!("<form method=\"post\" action=\"{path}\"><button>{path}</button></form>")
        } else {
            format!("<a href=\"{path}\">{path}</a>")
        };
        format!("<tr><td>{action}</td><td>{help}</td></tr>\n")
    });
    Reply::html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Outrigger admin</title>\n\
         <h1>Outrigger admin</h1>\n<table>\n{}</table>\n</html>\n",
        rows.collect::<String>()
    ))
}
