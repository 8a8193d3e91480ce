//! A file of accepted tokens in the form of the API server's `--token-auth-file`:
//! `TOKEN,system:serviceaccount:NAMESPACE:ACCOUNT` and whatever more, one a line.

use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;

/// Begins the user name of a service account.
pub(super) const USER: &str = "system:serviceaccount:";

/// The namespace and service account that `token` belongs to, if it is in the file. The file is read each time: it is
/// small, and a token that was taken out is refused at once.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn owner(file: &Path, token: &str) -> Result<Option<(String, String)>, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{}: {error}; check --token-file", file.display()))?;
    Ok(find(&text, token))
}

fn find(text: &str, token: &str) -> Option<(String, String)> {
    let mut found = None;
    // All lines are compared, and each in the same time wherever it differs.
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
        let (Some(known), Some(user)) = (fields.next(), fields.next()) else { continue };
        let same = verify_slices_are_equal(known.as_bytes(), token.as_bytes()).is_ok();
        if same && !known.is_empty() && found.is_none() {
            found = service_account(user);
        }
    }
    found
}

/// The namespace and service account in a user name of Kubernetes.
pub(super) fn service_account(user: &str) -> Option<(String, String)> {
    let (namespace, account) = user.strip_prefix(USER)?.split_once(':')?;
    let filled = !namespace.is_empty() && !account.is_empty() && !account.contains(':');
    filled.then(|| (namespace.to_owned(), account.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_the_account_on_its_line() {
        let text = "# for tests\nabc,system:serviceaccount:shop:cart,1\n\
                    \"def\", \"system:serviceaccount:shop:web\",2,\"a,b\"\nghi,admin,3\n,system:serviceaccount:a:b\n";
        let owner =
            |token| find(text, token).map(|(namespace, account)| namespace + "/" + &account);
        assert_eq!(owner("abc").as_deref(), Some("shop/cart"));
        assert_eq!(owner("def").as_deref(), Some("shop/web"));
        for token in ["ghi", "ab", "abcd", "", "# for tests"] {
            assert_eq!(owner(token), None, "{token}");
        }
    }
}
