//! What decoders return when they refuse a message: one or more fields, each with its path.

use crate::config::Invalid;

/// At least one refused field.
#[derive(Debug)]
pub(super) struct Errors(Vec<Invalid>);

/// What a decoder returns.
pub(super) type Result<T> = std::result::Result<T, Errors>;

impl Errors {
    /// The refused fields.
    pub(super) fn into_vec(self) -> Vec<Invalid> {
        self.0
    }

    /// Both.
    fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl From<Invalid> for Errors {
    fn from(invalid: Invalid) -> Self {
        Self(vec![invalid])
    }
}

/// A reason that concerns the message as a whole, until [`At::at`] says where it stands.
impl From<String> for Errors {
    fn from(reason: String) -> Self {
        Invalid::new("", reason).into()
    }
}

/// Refuses `field`; an empty field means the message as a whole.
pub(super) fn refuse<T>(field: &str, reason: impl Into<String>) -> Result<T> {
    Err(Invalid::new(field, reason).into())
}

/// Says which field of the message an error is about.
pub(super) trait At<T> {
    /// The same result, with `field` in front of every path.
    fn at(self, field: &str) -> Result<T>;
}

impl<T, E: Into<Errors>> At<T> for std::result::Result<T, E> {
    fn at(self, field: &str) -> Result<T> {
        self.map_err(|error| {
            Errors(error.into().0.into_iter().map(|invalid| invalid.under(field)).collect())
        })
    }
}

/// Decodes every item of the list in `field`; the errors of all items are kept.
pub(super) fn each<P, T>(
    field: &str,
    protos: &[P],
    mut decode: impl FnMut(&P) -> Result<T>,
) -> Result<Vec<T>> {
    let mut items = Vec::with_capacity(protos.len());
    let mut errors: Option<Errors> = None;
    for (index, proto) in protos.iter().enumerate() {
        match decode(proto).at(&format!("{field}[{index}]")) {
            Ok(item) => items.push(item),
            Err(error) => {
                errors = Some(match errors {
                    Some(before) => before.and(error),
                    None => error,
                });
            }
        }
    }
    errors.map_or(Ok(items), Err)
}

/// Both results, or the errors of both.
pub(super) fn both<A, B>(a: Result<A>, b: Result<B>) -> Result<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(a.and(b)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

/// The message in `field`, which must be there.
pub(super) fn required<'a, T>(field: &str, proto: &'a Option<T>) -> Result<&'a T> {
    proto.as_ref().map_or_else(|| refuse(field, "required"), Ok)
}

/// Decodes the message in `field`, if it is there.
pub(super) fn optional<P, T>(
    field: &str,
    proto: &Option<P>,
    decode: impl FnOnce(&P) -> Result<T>,
) -> Result<Option<T>> {
    proto.as_ref().map(decode).transpose().at(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_of_all_items_are_kept_with_their_paths() {
        let error = each("ports", &[1_u32, 0, 70_000], |port| match port {
            0 => refuse("", "zero"),
            1..=65_535 => Ok(()),
            _ => Err(String::from("too large")).at("value"),
        })
        .at("socket")
        .unwrap_err();
        let texts: Vec<_> = error.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["socket.ports[1]: zero", "socket.ports[2].value: too large"]);
    }
}
