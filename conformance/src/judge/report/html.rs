//! The report as one page that needs nothing else.
//!
//! Everything that a target can say is escaped; and the page's policy lets no script run but its own, by its hash.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::junit::escaped;
use super::{Judged, Outcome, Report, moment};

const STYLE: &str = include_str!("page.css");

const SCRIPT: &str = include_str!("page.js");

impl Report {
    /// The page.
    pub fn to_html(&self) -> String {
        let hash = STANDARD.encode(Sha256::digest(SCRIPT));
        let name = escaped(self.subject.shown());
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
             script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Conformance of {name}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        );
        self.head(&mut out, &name);
        self.summary(&mut out);
        self.filter(&mut out);
        for (specification, section, cases) in self.sections() {
            let place = escaped(&format!("{specification} §{section}"));
            out.push_str(&format!("<section id=\"{}\">\n<h2>{place}</h2>\n", anchor(specification, section)));
            for judged in cases {
                case(judged, &mut out);
            }
            out.push_str("</section>\n");
        }
        out.push_str(&format!("<script>{SCRIPT}</script>\n</body>\n</html>\n"));
        out
    }

    fn head(&self, out: &mut String, name: &str) {
        let verdict =
            if self.failed() { ("fail", "A MUST failed") } else { ("pass", "Every MUST that was asked holds") };
        out.push_str(&format!(
            "<header>\n<h1>Conformance of {name}</h1>\n<p class=\"verdict {}\">{}</p>\n\
             <p>Issuer <code>{}</code>. Judged {} by countersign-conformance {}, profile {}, in {:.1} s.</p>\n",
            verdict.0,
            verdict.1,
            escaped(&self.subject.issuer),
            moment(self.began),
            env!("CARGO_PKG_VERSION"),
            escaped(&self.profile),
            self.seconds,
        ));
        if !self.clients.is_empty() {
            let clients =
                self.clients.iter().map(|client| format!("{} {}", escaped(&client.name), escaped(&client.version)));
            out.push_str(&format!(
                "<p>Real clients that its own tests run against it: {}.</p>\n",
                clients.collect::<Vec<_>>().join(", ")
            ));
        }
        out.push_str("</header>\n");
    }

    fn summary(&self, out: &mut String) {
        out.push_str("<table>\n<thead><tr><th>specification</th>");
        for outcome in Outcome::ALL {
            out.push_str(&format!("<th>{}</th>", outcome.as_str()));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        let row = |out: &mut String, first: String, cells: [usize; 5]| {
            out.push_str(&format!("<tr><th>{first}</th>"));
            for (outcome, count) in Outcome::ALL.into_iter().zip(cells) {
                let class = if count == 0 { "none" } else { outcome.as_str() };
                out.push_str(&format!("<td class=\"{class}\">{count}</td>"));
            }
            out.push_str("</tr>\n");
        };
        for (specification, section, cases) in self.sections() {
            let link = format!(
                "<a href=\"#{}\">{} §{}</a>",
                anchor(specification, section),
                escaped(specification),
                escaped(section)
            );
            let cells = Outcome::ALL.map(|outcome| cases.iter().filter(|judged| judged.outcome == outcome).count());
            row(out, link, cells);
        }
        out.push_str("</tbody>\n<tfoot>\n");
        row(out, "in all".to_owned(), Outcome::ALL.map(|outcome| self.count(outcome)));
        out.push_str("</tfoot>\n</table>\n");
    }

    fn filter(&self, out: &mut String) {
        out.push_str("<nav>\n<input id=\"words\" type=\"search\" placeholder=\"filter by words\" aria-label=\"filter by words\">\n");
        for outcome in Outcome::ALL {
            let word = outcome.as_str();
            out.push_str(&format!(
                "<label><input type=\"checkbox\" name=\"outcome\" value=\"{word}\" checked> {word} ({})</label>\n",
                self.count(outcome)
            ));
        }
        out.push_str("</nav>\n");
    }
}

fn case(judged: &Judged, out: &mut String) {
    let (case, word) = (&judged.case, judged.outcome.as_str());
    out.push_str(&format!(
        "<details class=\"case {word}\" data-outcome=\"{word}\" id=\"{}\">\n<summary><span class=\"outcome\">{word}</span> \
         <span class=\"title\">{}</span> <code>{}</code></summary>\n\
         <blockquote>{} <cite>{} §{}, {}</cite></blockquote>\n",
        escaped(&case.id),
        escaped(&case.title),
        escaped(&case.id),
        escaped(&case.sentence),
        escaped(&case.specification),
        escaped(&case.section),
        case.level.as_str(),
    ));
    if !judged.why.is_empty() {
        out.push_str(&format!("<p class=\"why\">{}</p>\n", escaped(&judged.why)));
    }
    for exchange in &judged.exchanges {
        out.push_str(&format!(
            "<p class=\"who\">on a connection with the certificate of: {} ({} ms)</p>\n",
            escaped(&exchange.party),
            exchange.milliseconds
        ));
        for made in &exchange.made {
            out.push_str(&format!("<pre class=\"made\">{}</pre>\n", escaped(made)));
        }
        out.push_str(&format!(
            "<pre class=\"sent\">{}</pre>\n<pre class=\"received\">{}</pre>\n",
            escaped(&exchange.sent),
            escaped(&exchange.received)
        ));
    }
    out.push_str("</details>\n");
}

fn anchor(specification: &str, section: &str) -> String {
    let text = format!("{specification}-{section}");
    text.chars()
        .map(|character| if character.is_ascii_alphanumeric() || character == '.' { character } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn what_a_target_says_never_becomes_markup() {
        let hostile = "</pre><script>alert(1)</script><img src=x onerror='alert(1)'>\"";
        let page = sample(hostile).to_html();
        assert_eq!(page.matches("<script>").count(), 1);
        assert!(!page.contains("<img"));
        assert!(page.contains("&lt;script&gt;alert(1)"));
        // Nothing is loaded from anywhere.
        assert!(!page.contains("src=\"") && !page.contains("@import") && !page.contains("url("));
    }

    #[test]
    fn the_policy_names_the_hash_of_the_script_that_is_there() {
        let page = sample("x").to_html();
        let script = page.split("<script>").nth(1).and_then(|rest| rest.split("</script>").next()).unwrap();
        assert!(page.contains(&format!("'sha256-{}'", STANDARD.encode(Sha256::digest(script)))));
    }
}
