//! From `%REQ(X?Y):20%` to [`Operator`]: the grammar and the parameters.

use std::fmt::Display;

use http::header::HeaderName;

use super::MetadataPath;
use super::names::{EMPTY, NOT_HERE, TAKES_LIMIT, plain, time_point};
use super::{
    Format, GrpcStatusStyle, HeaderChoice, Operator, PathOf, Peer, Piece, TimeFormat, TimeUnit,
};
use crate::config::expression::Expression;
use crate::config::matcher::HeaderRef;
use crate::config::metadata::MetadataOf;

pub(super) fn format(text: &str) -> Result<Format, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let Some((command, after)) = Command::read(after) else {
            let position = text.len() - after.len() - 1;
            return Err(format!(
                "no command operator at position {position} of `{text}` (`%%` writes a percent sign)"
            ));
        };
        rest = after;
        match command.meaning()? {
            Meaning::Literal(value) => literal.push_str(&value),
            Meaning::Operator(operator) => {
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                }
                pieces.push(Piece::Operator(operator, command.limit));
            }
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(Format { pieces })
}

/// `NAME`, `NAME(parameter)`, `NAME:limit` or `NAME(parameter):limit`, as it stands between two `%`.
struct Command<'a> {
    name: &'a str,
    /// Without parentheses; empty parentheses count as none.
    parameter: Option<&'a str>,
    limit: Option<usize>,
}

/// The parameter of `COALESCE`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Choices {
    operators: Vec<Choice>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Choice {
    Name(String),
    Command { command: String, param: Option<String>, max_length: Option<usize> },
}

/// What stands before the first closing parenthesis that ends a command, and what stands after it.
fn parameter_end(text: &str) -> Option<(&str, &str)> {
    text.match_indices(')').find_map(|(at, _)| {
        let (inside, after) = (text.get(..at)?, text.get(at + 1..)?);
        let length =
            after.strip_prefix(':').map(|it| it.trim_start_matches(|c: char| c.is_ascii_digit()));
        length.unwrap_or(after).starts_with('%').then_some((inside, after))
    })
}

/// What a command stands for.
enum Meaning {
    /// A value known already.
    Literal(String),
    /// A value each request has of its own.
    Operator(Operator),
}

impl<'a> Command<'a> {
    /// Reads a command from behind its first `%`; also returns what follows its last.
    fn read(text: &'a str) -> Option<(Self, &'a str)> {
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let name_end = text.find(|c| !is_name(c)).filter(|end| *end > 0)?;
        let (name, mut rest) = text.split_at(name_end);
        let mut parameter = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let (inside, after) = parameter_end(inner)?;
            parameter = Some(inside).filter(|inside| !inside.is_empty());
            rest = after;
        }
        let mut limit = None;
        if let Some(number) = rest.strip_prefix(':') {
            let (digits, _) = number.split_once('%')?;
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            limit = Some(digits.parse().ok().filter(|_| plain)?);
            rest = number.get(digits.len()..)?;
        }
        Some((Self { name, parameter, limit }, rest.strip_prefix('%')?))
    }

    fn meaning(&self) -> Result<Meaning, String> {
        match self.name {
            "ENVIRONMENT" => return self.environment(),
            // What these speak of is nothing here, which is empty and not absent.
            name if self.parameter.is_none() && EMPTY.contains(&name) => {
                return Ok(Meaning::Literal(String::new()));
            }
            _ => {}
        }
        let operator = match plain(self.name) {
            Some(operator) => {
                if let Some(parameter) = self.parameter {
                    return Err(format!("%{}% takes no parameter `{parameter}`", self.name));
                }
                operator
            }
            None => self.with_parameter()?,
        };
        if self.limit.is_some() && !TAKES_LIMIT.contains(&self.name) {
            return Err(format!("%{}% takes no length", self.name));
        }
        Ok(Meaning::Operator(operator))
    }

    fn with_parameter(&self) -> Result<Operator, String> {
        Ok(match self.name {
            "REQ" | "REQUEST_HEADER" => Operator::Req(self.header_choice()?),
            // The status is no header here.
            "RESP" | "RESPONSE_HEADER"
                if self.parameter.is_some_and(|name| name.eq_ignore_ascii_case(":status")) =>
            {
                Operator::ResponseCode
            }
            "RESP" | "RESPONSE_HEADER" => Operator::Resp(self.header_choice()?),
            "TRAILER" | "RESPONSE_TRAILER" => Operator::Trailer(self.trailer()?),
            "PATH" => self.path()?,
            "QUERY_PARAM" => Operator::QueryParam(self.required()?.into()),
            "QUERY_PARAMS" => self.choice("ORIG", &[("ORIG", Operator::QueryParams)])?,
            "START_TIME" => Operator::StartTime(self.time()?),
            "EMIT_TIME" => Operator::EmitTime(self.time()?),
            "DOWNSTREAM_PEER_CERT_V_START" => {
                Operator::PeerCertStart(Peer::Downstream, self.time()?)
            }
            "DOWNSTREAM_PEER_CERT_V_END" => Operator::PeerCertEnd(Peer::Downstream, self.time()?),
            "UPSTREAM_PEER_CERT_V_START" => Operator::PeerCertStart(Peer::Upstream, self.time()?),
            "UPSTREAM_PEER_CERT_V_END" => Operator::PeerCertEnd(Peer::Upstream, self.time()?),
            "COMMON_DURATION" => self.common_duration()?,
            "GRPC_STATUS" => self.choice(
                "CAMEL_STRING",
                &[
                    ("CAMEL_STRING", Operator::GrpcStatus(GrpcStatusStyle::Camel)),
                    ("SNAKE_STRING", Operator::GrpcStatus(GrpcStatusStyle::Snake)),
                    ("NUMBER", Operator::GrpcStatus(GrpcStatusStyle::Number)),
                ],
            )?,
            "REQUESTED_SERVER_NAME" => {
                self.choice("SNI_ONLY", &[("SNI_ONLY", Operator::RequestedServerName)])?
            }
            // Any parameter lets white space stand, of which these details have none.
            "RESPONSE_CODE_DETAILS" => Operator::ResponseCodeDetails,
            "DYNAMIC_METADATA" => self.metadata(MetadataOf::Dynamic)?,
            "CLUSTER_METADATA" => self.metadata(MetadataOf::Cluster)?,
            "UPSTREAM_METADATA" => self.metadata(MetadataOf::UpstreamHost)?,
            "METADATA" => self.any_metadata()?,
            "FILTER_STATE" => self.filter_state()?,
            "UPSTREAM_FILTER_STATE" => {
                Operator::Absent(format!("{}({})", self.name, self.required()?).into())
            }
            "COALESCE" => self.coalesce()?,
            "CEL" | "TYPED_CEL" => {
                let expression = Expression::parse(self.required()?)
                    .map_err(|reason| format!("%{}%: {reason}", self.name))?;
                Operator::Cel { expression, typed: self.name == "TYPED_CEL" }
            }
            name if NOT_HERE.contains(&name) => {
                return Err(format!("%{name}% is not supported by this proxy"));
            }
            name => return Err(format!("%{name}% is not a command operator")),
        })
    }

    fn required(&self) -> Result<&'a str, String> {
        self.parameter.ok_or_else(|| format!("%{}% needs a parameter in parentheses", self.name))
    }

    /// The operator that the parameter chooses among `choices`.
    fn choice(&self, default: &str, choices: &[(&str, Operator)]) -> Result<Operator, String> {
        let wanted = self.parameter.unwrap_or(default);
        let found = choices.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, operator)| operator.clone()).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            format!("%{}({wanted})%: this proxy knows {}", self.name, names.join(", "))
        })
    }

    /// `X` or `X?Y`; Envoy takes an empty side for an absent one.
    fn header_choice(&self) -> Result<HeaderChoice, String> {
        let parameter = self.required()?;
        let (first, second) = parameter.split_once('?').unwrap_or((parameter, ""));
        if second.contains('?') {
            return Err(format!("%{}({parameter})%: only one alternative is allowed", self.name));
        }
        let header = |name: &str| {
            HeaderRef::parse(name)
                .ok_or_else(|| format!("%{}({parameter})%: `{name}` is no header name", self.name))
        };
        match (first, second) {
            (name, "") | ("", name) => Ok(HeaderChoice { first: header(name)?, second: None }),
            _ => Ok(HeaderChoice { first: header(first)?, second: Some(header(second)?) }),
        }
    }

    fn metadata(&self, of: MetadataOf) -> Result<Operator, String> {
        Ok(Operator::Metadata(MetadataPath::parse(of, self.required()?)))
    }

    /// `TYPE:NAMESPACE:KEY:…`
    fn any_metadata(&self) -> Result<Operator, String> {
        let parameter = self.required()?;
        let (kind, path) = parameter.split_once(':').unwrap_or((parameter, ""));
        let of = match kind {
            "DYNAMIC" => MetadataOf::Dynamic,
            "CLUSTER" => MetadataOf::Cluster,
            "ROUTE" => MetadataOf::Route,
            "UPSTREAM_HOST" => MetadataOf::UpstreamHost,
            "LISTENER" => MetadataOf::Listener,
            "VIRTUAL_HOST" => MetadataOf::VirtualHost,
            "LISTENER_FILTER_CHAIN" => MetadataOf::ListenerFilterChain,
            other => return Err(format!("%METADATA({parameter})%: no metadata is called {other}")),
        };
        Ok(Operator::Metadata(MetadataPath::parse(of, path)))
    }

    /// `KEY`, `KEY:TYPED` or `KEY:PLAIN`
    fn filter_state(&self) -> Result<Operator, String> {
        let parameter = self.required()?;
        let (key, form) = parameter.split_once(':').unwrap_or((parameter, "TYPED"));
        let plain = match form {
            "TYPED" => false,
            "PLAIN" => true,
            other => {
                return Err(format!(
                    "%FILTER_STATE({parameter})%: this proxy knows PLAIN and TYPED, not {other}"
                ));
            }
        };
        Ok(Operator::FilterState { key: key.into(), plain })
    }

    fn trailer(&self) -> Result<HeaderName, String> {
        let name = self.required()?;
        HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())
            .map_err(|_| format!("%TRAILER({name})%: `{name}` is no trailer name"))
    }

    /// `WQ` or `NQ` (with or without query), then `ORIG`, `PATH` or `ORIG_OR_PATH`.
    fn path(&self) -> Result<Operator, String> {
        let parameter = self.parameter.unwrap_or("WQ");
        let (query, of) = parameter.split_once(':').unwrap_or((parameter, "ORIG_OR_PATH"));
        let query = match query {
            "WQ" => true,
            "NQ" => false,
            other => return Err(format!("%PATH({parameter})%: `{other}` is not WQ or NQ")),
        };
        let of = match of {
            "ORIG_OR_PATH" => PathOf::OriginalOrPath,
            "ORIG" => PathOf::Original,
            "PATH" => PathOf::Path,
            other => {
                return Err(format!(
                    "%PATH({parameter})%: `{other}` is not ORIG, PATH or ORIG_OR_PATH"
                ));
            }
        };
        Ok(Operator::Path { query, of })
    }

    fn time(&self) -> Result<TimeFormat, String> {
        match self.parameter {
            None => Ok(TimeFormat::default()),
            Some(pattern) => TimeFormat::parse(pattern)
                .map_err(|reason| format!("%{}({pattern})%: {reason}", self.name)),
        }
    }

    /// The process's environment does not change, so its values are part of the text.
    fn environment(&self) -> Result<Meaning, String> {
        let name = self.required()?;
        Ok(match std::env::var(name) {
            Ok(value) => {
                let limit = value.floor_char_boundary(self.limit.unwrap_or(usize::MAX));
                Meaning::Literal(value.get(..limit).unwrap_or(&value).to_owned())
            }
            // As Envoy writes it everywhere, whatever is said of absent values.
            Err(_) => Meaning::Literal("-".to_owned()),
        })
    }

    /// `{"operators": […]}`, each a name, or an object of `command`, `param` and `max_length`.
    fn coalesce(&self) -> Result<Operator, String> {
        let parameter = self.required()?;
        let refuse = |reason: &dyn Display| format!("%COALESCE({parameter})%: {reason}");
        let read: Choices = serde_json::from_str(parameter).map_err(|error| refuse(&error))?;
        if read.operators.is_empty() {
            return Err(refuse(&"`operators` must not be empty"));
        }
        let pieces = read.operators.iter().map(|choice| {
            let (name, parameter, limit) = match choice {
                Choice::Name(name) => (name, None, None),
                Choice::Command { command, param, max_length } => {
                    (command, param.as_deref(), *max_length)
                }
            };
            match (Command { name, parameter, limit }).meaning()? {
                Meaning::Literal(text) => Ok(Piece::Literal(text.into())),
                Meaning::Operator(operator) => Ok(Piece::Operator(operator, limit)),
            }
        });
        let pieces = pieces.collect::<Result<_, String>>().map_err(|reason| refuse(&reason))?;
        Ok(Operator::Coalesce(pieces))
    }

    /// `FROM:TO` or `FROM:TO:UNIT`.
    fn common_duration(&self) -> Result<Operator, String> {
        let parameter = self.required()?;
        let fail = |what| format!("%COMMON_DURATION({parameter})%: {what}");
        let mut parts = parameter.split(':');
        let mut point = || {
            let name = parts.next().ok_or_else(|| fail("two points in time are needed"))?;
            time_point(name).ok_or_else(|| fail("unknown point in time"))
        };
        let (from, to) = (point()?, point()?);
        let unit = match (parts.next(), parts.next()) {
            (None | Some("ms"), None) => TimeUnit::Milliseconds,
            (Some("us"), None) => TimeUnit::Microseconds,
            (Some("ns"), None) => TimeUnit::Nanoseconds,
            _ => return Err(fail("the unit must be ms, us or ns")),
        };
        Ok(Operator::CommonDuration { from, to, unit })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Peer, TimePoint};
    use super::*;

    fn one(text: &str) -> (Operator, Option<usize>) {
        match format(text).unwrap().pieces.as_slice() {
            [Piece::Operator(operator, limit)] => (operator.clone(), *limit),
            other => panic!("{text} is {other:?}"),
        }
    }

    fn refusal(text: &str) -> String {
        format(text).unwrap_err()
    }

    #[test]
    fn istios_default_line_is_understood() {
        let line = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
            %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
            %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
            %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
            \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
            \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
            %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
            %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";
        let format = format(line).unwrap();
        let operators = format.pieces.iter().filter(|piece| matches!(piece, Piece::Operator(..)));
        assert_eq!(operators.count(), 24);
    }

    #[test]
    fn parameters_and_lengths_are_read() {
        let (operator, limit) = one("%REQ(X-A?:PATH):20%");
        let choice =
            HeaderChoice { first: HeaderRef::parse("x-a").unwrap(), second: Some(HeaderRef::Path) };
        assert_eq!((operator, limit), (Operator::Req(choice), Some(20)));
        assert_eq!(one("%RESP(:STATUS)%").0, Operator::ResponseCode);
        assert_eq!(one("%DURATION()%").0, Operator::Duration);
        let path = Operator::Path { query: false, of: PathOf::Original };
        assert_eq!(one("%PATH(NQ:ORIG)%").0, path);
        assert_eq!(
            one("%COMMON_DURATION(DS_RX_BEG:US_CX_BEG:us)%").0,
            Operator::CommonDuration {
                from: TimePoint::DownstreamRxBegin,
                to: TimePoint::UpstreamConnectBegin,
                unit: TimeUnit::Microseconds,
            }
        );
        assert_eq!(one("%DOWNSTREAM_PEER_URI_SAN%").0, Operator::PeerUriSan(Peer::Downstream));
        assert!(matches!(one("%DYNAMIC_METADATA(a:b):3%"), (Operator::Metadata(_), Some(3))));
        assert!(matches!(one("%CEL(size(request.path)):3%"), (Operator::Cel { .. }, Some(3))));
    }

    #[test]
    fn doubled_percent_signs_are_text() {
        assert_eq!(format("100%%").unwrap().literal(), Some("100%"));
        assert_eq!(format("a%%b%%%DURATION%").unwrap().pieces.len(), 2);
        assert_eq!(format("").unwrap().literal(), Some(""));
    }

    #[test]
    fn the_environment_is_read_once() {
        let path = std::env::var("PATH").unwrap();
        assert_eq!(format("<%ENVIRONMENT(PATH)%>").unwrap().literal(), Some(&*format!("<{path}>")));
        assert_eq!(format("%ENVIRONMENT(NOT_SET_ANYWHERE)%").unwrap().literal(), Some("-"));
    }

    #[test]
    fn what_envoy_refuses_is_refused_with_a_reason() {
        for (text, reason) in [
            ("%NOPE%", "%NOPE% is not a command operator"),
            ("%METHOD%", "%METHOD% is not a command operator"),
            ("%UPSTREAM_PEER_SERIAL%", "%UPSTREAM_PEER_SERIAL% is not a command operator"),
            ("%TLS_JA3_FINGERPRINT%", "%TLS_JA3_FINGERPRINT% is not supported by this proxy"),
            ("%REQ%", "%REQ% needs a parameter in parentheses"),
            ("%REQ()%", "%REQ% needs a parameter in parentheses"),
            ("%REQ(X?Y?Z)%", "%REQ(X?Y?Z)%: only one alternative is allowed"),
            ("%REQ(X Y)%", "%REQ(X Y)%: `X Y` is no header name"),
            ("%DURATION(3)%", "%DURATION% takes no parameter `3`"),
            ("%RESPONSE_CODE:3%", "%RESPONSE_CODE% takes no length"),
            ("%START_TIME:3%", "%START_TIME% takes no length"),
            ("%PATH(x)%", "%PATH(x)%: `x` is not WQ or NQ"),
        ] {
            assert_eq!(refusal(text), reason, "{text}");
        }
        for (text, position) in [
            ("%", 0),
            ("50% x", 2),
            ("%REQ(A", 0),
            ("%DURATION", 0),
            ("a %req(x)%", 2),
            ("%:3%", 0),
        ] {
            let wanted = format!("no command operator at position {position} of `{text}`");
            assert!(refusal(text).starts_with(&wanted), "{}", refusal(text));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[%A-Z_()a-z:?0-9 é]{0,60}") {
            let _ = format(&text);
        }

        #[test]
        fn text_comes_back_as_it_was(text in ".*") {
            let escaped = text.replace('%', "%%");
            let parsed = format(&escaped).unwrap();
            prop_assert_eq!(parsed.literal(), Some(&*text));
        }
    }
}
