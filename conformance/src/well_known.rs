//! Where metadata is (RFC 8414 §3.1, RFC 9728 §3.1).

/// The URL for what is called so: the well-known segment goes between host and path.
pub fn url(identifier: &str, suffix: &str) -> String {
    let identifier = identifier.trim_end_matches('/');
    let (scheme, rest) = identifier.split_once("://").unwrap_or(("https", identifier));
    let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
    format!("{scheme}://{host}/.well-known/{suffix}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_goes_between_host_and_path() {
        let of = |issuer| url(issuer, "x");
        assert_eq!(of("https://as.example"), "https://as.example/.well-known/x");
        assert_eq!(of("https://as.example/"), "https://as.example/.well-known/x");
        assert_eq!(of("https://as.example:8443/a/b"), "https://as.example:8443/.well-known/x/a/b");
        assert_eq!(of("http://as.example/a/"), "http://as.example/.well-known/x/a");
    }
}
