//! What was sent and what came back, for a report: secrets masked, sizes bounded.
//!
//! A report may be published: nobody may use what stands in it. Tokens and assertions are shortened, `Authorization` keeps
//! its scheme alone, cookies keep nothing, and no private key ever comes here.

use serde::Serialize;
use serde_json::Value;

use super::expectation::told;
use super::template;
use super::wire::{Answer, Request};

/// How much of a body a report shows.
const SHOWN: usize = 4_000;

/// A run of characters from here on may be a token.
const LONG: usize = 60;

/// What is shorter than this is no secret that could be told from other words.
const SECRET: usize = 8;

/// One request and its answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Exchange {
    /// Whose certificate.
    pub(crate) party: String,
    /// What was made for it: certificates in words, tokens as header and claims without a signature.
    pub(crate) made: Vec<String>,
    pub(crate) sent: String,
    pub(crate) received: String,
    pub(crate) milliseconds: u64,
}

/// A request as text.
pub(crate) fn request(request: &Request, secrets: &[String]) -> String {
    let mut text = format!("{} {}\n", request.method, request.url);
    for (name, value) in &request.headers {
        text.push_str(&header(name, value));
    }
    if let Some(body) = &request.body {
        text.push('\n');
        text.push_str(body);
    }
    bounded(&masked(&text, secrets))
}

/// An answer as text.
pub(crate) fn answer(answer: &Answer, secrets: &[String]) -> String {
    let Answer::Response(response) = answer else { return bounded(&masked(&told(answer), secrets)) };
    let mut text = format!("{}\n", response.status);
    for (name, value) in &response.headers {
        text.push_str(&header(name, value));
    }
    if !response.body.is_empty() {
        text.push('\n');
        text.push_str(&response.body);
    }
    bounded(&masked(&text, secrets))
}

/// What has to be masked wherever it comes again: tokens that are not recognised by their length.
pub(crate) fn secrets(answer: &Answer) -> Vec<String> {
    let Answer::Response(response) = answer else { return Vec::new() };
    let Ok(body) = serde_json::from_str::<Value>(&response.body) else { return Vec::new() };
    ["access_token", "refresh_token", "id_token", "client_secret"]
        .iter()
        .filter_map(|member| body[*member].as_str())
        .filter(|secret| secret.len() >= SECRET)
        .flat_map(written)
        .collect()
}

/// Every way in which a secret may stand in a request or an answer: itself, bent as a case may bend it, and each of these
/// encoded for a form, a URL or JSON.
pub(crate) fn written(secret: &str) -> Vec<String> {
    let mut ways: Vec<String> = vec![secret.to_owned()];
    ways.extend(template::bent(secret));
    for way in ways.clone() {
        let form = super::bench::encoded(&way);
        ways.extend([form.replace('+', "%20"), form.to_lowercase(), way.replace('/', "\\/"), form]);
        // What a server writes that encodes the octets in small letters.
        ways.push(way.replace('/', "%2f").replace('+', "%2b").replace('=', "%3d").replace('~', "%7e"));
    }
    ways.retain(|way| way.len() >= SECRET);
    ways.sort();
    ways.dedup();
    ways
}

fn header(name: &str, value: &str) -> String {
    if name.eq_ignore_ascii_case("authorization") {
        let scheme = value.split_once(' ').map_or("", |(scheme, _)| scheme);
        return format!("{name}: {scheme} … ({} characters)\n", value.chars().count());
    }
    // What lets somebody in, and has no scheme to keep, or none that says anything here.
    if ["cookie", "proxy-authorization", "set-cookie"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return format!("{name}: … ({} characters)\n", value.chars().count());
    }
    format!("{name}: {value}\n")
}

/// Shortens every secret, and every run of characters that is long enough to be one.
pub(crate) fn masked(text: &str, secrets: &[String]) -> String {
    let text = without(text, secrets);
    let mut out = String::new();
    let mut run = String::new();
    for character in text.chars().chain(['\n']) {
        if character.is_ascii_alphanumeric() || "-_.~+".contains(character) {
            run.push(character);
            continue;
        }
        if run.len() > LONG {
            out.push_str(&shortened(&run));
        } else {
            out.push_str(&run);
        }
        run.clear();
        out.push(character);
    }
    out.pop();
    out
}

/// The text with each secret shortened; where several begin, the longest.
fn without(text: &str, secrets: &[String]) -> String {
    let mut secrets: Vec<&str> = secrets.iter().map(String::as_str).filter(|secret| !secret.is_empty()).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut out = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some((secret, after)) = secrets.iter().find_map(|secret| Some((secret, rest.strip_prefix(secret)?))) {
            out.push_str(&shortened(secret));
            rest = after;
        } else {
            out.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    out
}

fn shortened(secret: &str) -> String {
    let kept: String = secret.chars().take(8.min(secret.chars().count() / 2)).collect();
    format!("{kept}…({} characters)", secret.chars().count())
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}\n… ({} characters in all)", &text[..end], text.chars().count()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::wire::Response;

    #[test]
    fn tokens_and_authorization_are_masked() {
        let token = format!("eyJ{}.{}.{}", "a".repeat(40), "b".repeat(40), "c".repeat(40));
        let sent = request(
            &Request {
                method: "POST".to_owned(),
                url: "https://as.example/revoke".to_owned(),
                headers: vec![("Authorization".to_owned(), format!("Bearer {token}"))],
                body: Some(format!("token={token}&client_id=a")),
            },
            &[],
        );
        assert!(!sent.contains(&token) && !sent.contains("bbbb"), "{sent}");
        assert!(sent.contains("Authorization: Bearer … (") && sent.contains("&client_id=a"), "{sent}");
        for name in ["Set-Cookie", "cookie", "Proxy-Authorization"] {
            let headers = vec![(name.to_owned(), "session=0123".to_owned())];
            let came = Answer::Response(Response { status: 200, headers, body: String::new() });
            assert_eq!(answer(&came, &[]), format!("200\n{name}: … (12 characters)\n"));
        }
    }

    #[test]
    fn an_opaque_token_is_masked_wherever_it_comes_again() {
        let body = r#"{"access_token":"0123456789abcdef","token_type":"Bearer"}"#;
        let came = Answer::Response(Response { status: 200, headers: Vec::new(), body: body.to_owned() });
        let secrets = secrets(&came);
        assert!(secrets.iter().any(|secret| secret == "0123456789abcdef"));
        assert!(!answer(&came, &secrets).contains("0123456789abcdef"));
        assert_eq!(masked("token=0123456789abcdef", &secrets), "token=01234567…(16 characters)");
    }

    #[test]
    fn a_token_is_masked_however_it_is_encoded_or_bent() {
        // Both shorter than what is masked for its length alone.
        let tokens = ["mF_9-B5f-4~1JqMkT2wXyZaBcDeFgHiJkLmNoPqRsTu", "q83v/Ze+mX0fPl7R/YkNs2+Tq9uLwB1cHdEg5aJ4oVs="];
        for token in tokens {
            let body = serde_json::json!({ "access_token": token }).to_string();
            let came = Answer::Response(Response { status: 200, headers: Vec::new(), body });
            let secrets = secrets(&came);
            let mut bent = template::bent(token);
            assert!(bent.len() > 8, "{bent:?}");
            bent.push(token.to_owned());
            for value in bent {
                let form = super::super::bench::form([("token", value.as_str()), ("client_id", "a")].into_iter());
                let json = format!("{{\"echo\":\"{}\"}}", value.replace('/', "\\/"));
                for text in [value.clone(), form, json] {
                    let shown = masked(&text, &secrets);
                    // What is left of it: eight characters, as they were or encoded.
                    let runs = shown
                        .split(|character: char| !(character.is_ascii_alphanumeric() || "%_-+/.".contains(character)));
                    let longest = runs.map(str::len).max().unwrap_or(0);
                    assert!(shown.contains('…') && longest <= 10, "{text}: {shown}");
                }
            }
        }
    }

    #[test]
    fn a_long_answer_is_cut() {
        let body = "a b ".repeat(10_000);
        let came = Answer::Response(Response { status: 200, headers: Vec::new(), body });
        assert!(answer(&came, &[]).len() < 5_000);
    }
}
