//! Passwords never reach a log.

/// `url` with the password replaced by `***`: in the authority (`postgres://user:password@host`) and in a `password`
/// parameter.
pub fn redact_url(url: &str) -> String {
    redact_parameter(&redact_authority(url))
}

/// Whether a librdkafka setting holds a secret. In whatever case it is written: librdkafka refuses another one than its
/// own, and the password stands there all the same.
pub(super) fn is_secret(key: &str) -> bool {
    const SECRETS: &[&str] = &["password", "secret", "oauthbearer.config", "key.pem", "private.key"];
    let key = key.to_ascii_lowercase();
    SECRETS.iter().any(|word| key.contains(word))
}

fn redact_authority(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password may hold an unescaped `/` or `@`: the last `@` before the query is where the host begins, and showing
    // too little of the URL is better than showing a part of the password.
    let end = rest.find('?').unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else { return url.to_owned() };
    match rest[..at].split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{}", &rest[at..]),
        None => url.to_owned(),
    }
}

fn redact_parameter(url: &str) -> String {
    let Some((base, query)) = url.split_once('?') else { return url.to_owned() };
    let shown: Vec<String> = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}=***"),
            _ => parameter.to_owned(),
        })
        .collect();
    format!("{base}?{}", shown.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_replaced_and_the_rest_is_kept() {
        let cases = [
            ("postgres://shop:secret@db:5432/orders", "postgres://shop:***@db:5432/orders"),
            ("postgres://shop:a@b/c@db/orders", "postgres://shop:***@db/orders"),
            ("postgres://shop:secret@db/orders?sslmode=require", "postgres://shop:***@db/orders?sslmode=require"),
            ("postgres://db/orders?user=shop&password=secret", "postgres://db/orders?user=shop&password=***"),
            ("postgres://shop@db/orders", "postgres://shop@db/orders"),
            ("postgres:///orders?host=/run/postgresql", "postgres:///orders?host=/run/postgresql"),
            ("sqlite:orders.db?mode=rwc", "sqlite:orders.db?mode=rwc"),
            ("nonsense", "nonsense"),
        ];
        for (url, expected) in cases {
            assert_eq!(redact_url(url), expected);
        }
    }
}
