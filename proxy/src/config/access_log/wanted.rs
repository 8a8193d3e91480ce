//! What access logs need of response headers: only this is kept until a line is written.

use http::HeaderMap;
use http::header::HeaderName;

use super::{Entry, Extras, JsonFormat, LogFilter, ResponseHeader};
use crate::config::expression::Expression;
use crate::config::format::{Format, HeaderChoice, Operator, Piece};
use crate::config::matcher::HeaderRef;
use crate::config::tracing::TagValue;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What access logs need of response headers.
#[derive(Debug, Clone, Default)]
pub struct LoggedHeaders {
    /// The headers, each once.
    pub names: Vec<HeaderName>,
    /// How large all headers are together.
    pub size: bool,
}

/// What was found to be needed so far.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    names: HeaderMap<()>,
    size: bool,
}

impl From<Wanted> for LoggedHeaders {
    fn from(wanted: Wanted) -> Self {
        Self { names: wanted.names.keys().cloned().collect(), size: wanted.size }
    }
}

impl Wanted {
    /// What `format` prints.
    pub fn format(&mut self, format: &Format) {
        format.operators().for_each(|operator| self.operator(operator));
    }

    /// What `format` prints.
    pub fn json(&mut self, format: &JsonFormat) {
        match format {
            JsonFormat::Text(format) => self.format(format),
            JsonFormat::Constant(_) => {}
            JsonFormat::Object(members) => {
                members.iter().for_each(|(_, member)| self.json(member));
            }
            JsonFormat::List(items) => items.iter().for_each(|item| self.json(item)),
        }
    }

    /// What `entry` tells.
    pub fn entry(&mut self, entry: &Entry) {
        self.size = true;
        for header in &entry.response_headers {
            if let ResponseHeader::Named(name) = header {
                self.header(name);
            }
        }
        self.extras(&entry.extras);
    }

    /// What `extras` tell.
    pub fn extras(&mut self, extras: &Extras) {
        for tag in &extras.custom_tags {
            if let TagValue::Format(format) = &tag.value {
                self.format(format);
            }
        }
    }

    /// What `filter` reads.
    pub fn filter(&mut self, filter: &LogFilter) {
        match filter {
            LogFilter::GrpcStatus { .. } => self.header(&GRPC_STATUS),
            LogFilter::Expression(expression) => self.expression(expression),
            LogFilter::And(parts) | LogFilter::Or(parts) => {
                parts.iter().for_each(|part| self.filter(part));
            }
            _ => {}
        }
    }

    /// The header called `name`.
    pub fn header(&mut self, name: &HeaderName) {
        self.names.insert(name, ());
    }

    fn operator(&mut self, operator: &Operator) {
        match operator {
            Operator::Resp(HeaderChoice { first, second }) => {
                for header in std::iter::once(first).chain(second) {
                    if let HeaderRef::Named(name) = header {
                        self.header(name);
                    }
                }
            }
            Operator::GrpcStatus(_) => self.header(&GRPC_STATUS),
            Operator::ResponseHeadersBytes => self.size = true,
            Operator::Coalesce(pieces) => {
                for piece in pieces {
                    if let Piece::Operator(operator, _) = piece {
                        self.operator(operator);
                    }
                }
            }
            Operator::Cel { expression, .. } => self.expression(expression),
            _ => {}
        }
    }

    fn expression(&mut self, expression: &Expression) {
        expression.operators().for_each(|operator| self.operator(operator));
    }
}
