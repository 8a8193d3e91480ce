//! Times in format strings: strftime patterns with Envoy's fractions of a second, in UTC.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// What Envoy writes when no pattern is given.
const DEFAULT: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";

/// A parsed time pattern. The default is Envoy's, `%Y-%m-%dT%H:%M:%S.%3fZ`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeFormat(Option<Box<[Part]>>);

/// One piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// Digits of the fraction of a second, 1 to 9.
    Fraction(usize),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Year,
    Century,
    YearOfCentury,
    Month,
    MonthName,
    MonthShort,
    Day,
    DaySpaced,
    DayOfYear,
    Hour,
    Hour12,
    Minute,
    Second,
    AmPm,
    WeekdayName,
    WeekdayShort,
    /// Monday is 1.
    WeekdayFromMonday,
    /// Sunday is 0.
    WeekdayFromSunday,
    IsoWeek,
    IsoYear,
    Epoch,
}

impl TimeFormat {
    /// Reads a strftime pattern; `%3f` writes three digits of the second's fraction.
    /// The error is text for the operator.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        if pattern == DEFAULT {
            return Ok(Self::default());
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = pattern.chars();
        while let Some(next) = rest.next() {
            if next != '%' {
                literal.push(next);
                continue;
            }
            let Some(specifier) = rest.next() else {
                return Err("a time pattern ends in `%`".to_owned());
            };
            let part = match specifier {
                '%' => {
                    literal.push('%');
                    continue;
                }
                'f' => Part::Fraction(9),
                '1'..='9' if rest.as_str().starts_with('f') => {
                    rest.next();
                    Part::Fraction(specifier.to_digit(10).map_or(9, |digits| digits as usize))
                }
                shorthand if expansion(shorthand).is_some() => {
                    flush(&mut literal, &mut parts);
                    let expanded = Self::parse(expansion(shorthand).unwrap_or_default())?;
                    parts.extend(expanded.0.into_iter().flatten());
                    continue;
                }
                other => Part::Field(
                    field(other)
                        .ok_or_else(|| format!("`%{other}` in a time pattern is not supported"))?,
                ),
            };
            flush(&mut literal, &mut parts);
            parts.push(part);
        }
        flush(&mut literal, &mut parts);
        Ok(Self(Some(parts.into())))
    }

    /// Appends `time`. Times before 1970 are written as 1970.
    pub fn write(&self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let Some(parts) = &self.0 else {
            return write_default(since, out);
        };
        let mut text = String::new();
        let date = date(since);
        for part in parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Fraction(digits) => {
                    let nanos = format!("{:09}", since.subsec_nanos());
                    text.push_str(nanos.get(..*digits).unwrap_or(&nanos));
                }
                Part::Field(field) => field.write(date, &mut text),
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
}

fn flush(literal: &mut String, parts: &mut Vec<Part>) {
    if !literal.is_empty() {
        parts.push(Part::Literal(std::mem::take(literal).into()));
    }
}

fn date(since: Duration) -> OffsetDateTime {
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The default pattern costs no calendar arithmetic but in the first line of each second.
fn write_default(since: Duration, out: &mut Vec<u8>) {
    thread_local! {
        static SECOND: Cell<(u64, [u8; 20])> = const { Cell::new((u64::MAX, [0; 20])) };
    }
    let (mut second, mut text) = SECOND.get();
    if second != since.as_secs() {
        second = since.as_secs();
        let date = date(since);
        let (day, time) = (date.date(), date.time());
        let written = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.",
            day.year(),
            u8::from(day.month()),
            day.day(),
            time.hour(),
            time.minute(),
            time.second(),
        );
        for (slot, byte) in text.iter_mut().zip(written.bytes()) {
            *slot = byte;
        }
        SECOND.set((second, text));
    }
    out.extend_from_slice(&text);
    let millis = since.subsec_millis();
    let digit = |divisor: u32| b'0' + u8::try_from(millis / divisor % 10).unwrap_or(0);
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b'Z']);
}

/// Specifiers that stand for several others.
fn expansion(specifier: char) -> Option<&'static str> {
    Some(match specifier {
        'F' => "%Y-%m-%d",
        'T' | 'X' => "%H:%M:%S",
        'R' => "%H:%M",
        'D' | 'x' => "%m/%d/%y",
        'c' => "%a %b %e %H:%M:%S %Y",
        'r' => "%I:%M:%S %p",
        'z' => "+0000",
        'Z' => "UTC",
        'n' => "\n",
        't' => "\t",
        _ => return None,
    })
}

fn field(specifier: char) -> Option<Field> {
    Some(match specifier {
        'Y' => Field::Year,
        'C' => Field::Century,
        'y' => Field::YearOfCentury,
        'm' => Field::Month,
        'B' => Field::MonthName,
        'b' | 'h' => Field::MonthShort,
        'd' => Field::Day,
        'e' => Field::DaySpaced,
        'j' => Field::DayOfYear,
        'H' => Field::Hour,
        'I' => Field::Hour12,
        'M' => Field::Minute,
        'S' => Field::Second,
        'p' => Field::AmPm,
        'A' => Field::WeekdayName,
        'a' => Field::WeekdayShort,
        'u' => Field::WeekdayFromMonday,
        'w' => Field::WeekdayFromSunday,
        'V' => Field::IsoWeek,
        'G' => Field::IsoYear,
        's' => Field::Epoch,
        _ => return None,
    })
}

impl Field {
    fn write(self, date: OffsetDateTime, out: &mut String) {
        let short = |name: String| name.chars().take(3).collect::<String>();
        let hour12 = (date.hour() + 11) % 12 + 1;
        // Writing to a string cannot fail.
        let _ = match self {
            Self::Year => write!(out, "{:04}", date.year()),
            Self::Century => write!(out, "{:02}", date.year() / 100),
            Self::YearOfCentury => write!(out, "{:02}", date.year().rem_euclid(100)),
            Self::Month => write!(out, "{:02}", u8::from(date.month())),
            Self::MonthName => write!(out, "{}", date.month()),
            Self::MonthShort => write!(out, "{}", short(date.month().to_string())),
            Self::Day => write!(out, "{:02}", date.day()),
            Self::DaySpaced => write!(out, "{:2}", date.day()),
            Self::DayOfYear => write!(out, "{:03}", date.ordinal()),
            Self::Hour => write!(out, "{:02}", date.hour()),
            Self::Hour12 => write!(out, "{hour12:02}"),
            Self::Minute => write!(out, "{:02}", date.minute()),
            Self::Second => write!(out, "{:02}", date.second()),
            Self::AmPm => write!(out, "{}", if date.hour() < 12 { "AM" } else { "PM" }),
            Self::WeekdayName => write!(out, "{}", date.weekday()),
            Self::WeekdayShort => write!(out, "{}", short(date.weekday().to_string())),
            Self::WeekdayFromMonday => write!(out, "{}", date.weekday().number_from_monday()),
            Self::WeekdayFromSunday => write!(out, "{}", date.weekday().number_days_from_sunday()),
            Self::IsoWeek => write!(out, "{:02}", date.iso_week()),
            Self::IsoYear => write!(out, "{:04}", date.to_iso_week_date().0),
            Self::Epoch => write!(out, "{}", date.unix_timestamp()),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Monday 23 November 2026, 05:07:09.004560708 UTC.
    fn moment() -> SystemTime {
        UNIX_EPOCH + Duration::new(1_795_410_429, 4_560_708)
    }

    fn written(pattern: &str) -> String {
        let mut out = Vec::new();
        TimeFormat::parse(pattern).unwrap().write(moment(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_default_is_rfc_3339_with_milliseconds() {
        let mut out = Vec::new();
        for millis in [0, 1, 999, 1_000] {
            TimeFormat::default().write(moment() + Duration::from_millis(millis), &mut out);
            out.push(b'\n');
        }
        let wanted = "2026-11-23T05:07:09.004Z\n2026-11-23T05:07:09.005Z\n\
                      2026-11-23T05:07:10.003Z\n2026-11-23T05:07:10.004Z\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
        assert_eq!(TimeFormat::parse(DEFAULT), Ok(TimeFormat::default()));
        assert_eq!(written("%Y-%m-%d/%H:%M:%S.%3fZ"), "2026-11-23/05:07:09.004Z");
    }

    #[test]
    fn every_specifier_is_written() {
        assert_eq!(written("%s.%6f"), "1795410429.004560");
        assert_eq!(written("%f|%1f"), "004560708|0");
        assert_eq!(written("%a %A %b %B %e %j"), "Mon Monday Nov November 23 327");
        assert_eq!(written("%F %T %D %R %r"), "2026-11-23 05:07:09 11/23/26 05:07 05:07:09 AM");
        assert_eq!(written("%C %y %I %p %u %w %V %G"), "20 26 05 AM 1 1 48 2026");
        assert_eq!(written("%c"), "Mon Nov 23 05:07:09 2026");
        assert_eq!(written("%z %Z 100%%"), "+0000 UTC 100%");
    }

    #[test]
    fn unknown_specifiers_are_refused() {
        assert!(TimeFormat::parse("%q").unwrap_err().contains("`%q`"));
        assert!(TimeFormat::parse("%").unwrap_err().contains("ends"));
        assert!(TimeFormat::parse("%3S").is_err());
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[%a-zA-Z0-9é]{0,30}", seconds in any::<u64>()) {
            if let Ok(format) = TimeFormat::parse(&pattern) {
                let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
                format.write(time.unwrap_or(UNIX_EPOCH), &mut Vec::new());
            }
        }
    }
}
