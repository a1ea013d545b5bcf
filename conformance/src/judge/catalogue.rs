//! The cases built in, or those of a directory.

use std::path::Path;

use super::case::{self, Case, CaseError, Words};
use super::expectation;

/// The files, in the order they are asked.
const FILES: &[(&str, &str)] = &[
    ("metadata.toml", include_str!("../../cases/metadata.toml")),
    ("keys.toml", include_str!("../../cases/keys.toml")),
    ("token-endpoint.toml", include_str!("../../cases/token-endpoint.toml")),
    ("client-authentication.toml", include_str!("../../cases/client-authentication.toml")),
    ("assertions.toml", include_str!("../../cases/assertions.toml")),
    ("binding.toml", include_str!("../../cases/binding.toml")),
    ("access-tokens.toml", include_str!("../../cases/access-tokens.toml")),
    ("best-practice.toml", include_str!("../../cases/best-practice.toml")),
    ("introspection.toml", include_str!("../../cases/introspection.toml")),
    ("revocation.toml", include_str!("../../cases/revocation.toml")),
    ("resource.toml", include_str!("../../cases/resource.toml")),
    ("transport.toml", include_str!("../../cases/transport.toml")),
    ("forged.toml", include_str!("../../cases/forged.toml")),
];

const WORDS: &str = include_str!("../../cases/words.toml");

/// All cases and the words they use.
#[derive(Debug)]
pub struct Catalogue {
    pub(crate) cases: Vec<Case>,
    pub(crate) words: Words,
}

/// Why the cases could not be read.
#[derive(Debug)]
pub struct CatalogueError(String);

impl std::fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CatalogueError {}

impl From<CaseError> for CatalogueError {
    fn from(error: CaseError) -> Self {
        Self(error.0)
    }
}

impl Catalogue {
    /// The cases built in.
    ///
    /// # Errors
    /// Never for the files of this crate: its tests read them all.
    pub fn built_in() -> Result<Self, CatalogueError> {
        Self::of(FILES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())), WORDS)
    }

    /// The cases of a directory: every `.toml` in it, in order of name, with the words of its `words.toml`.
    ///
    /// # Errors
    /// Where a file cannot be read or says what no case can say.
    pub fn of_directory(directory: &Path) -> Result<Self, CatalogueError> {
        let unreadable = |path: &Path, error: std::io::Error| CatalogueError(format!("{}: {error}", path.display()));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(|error| unreadable(directory, error))? {
            let path = entry.map_err(|error| unreadable(directory, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
                files.push((name, text));
            }
        }
        files.sort();
        let words = files.iter().position(|(name, _)| name == "words.toml").map(|at| files.remove(at).1);
        Self::of(files.into_iter(), &words.unwrap_or_else(|| WORDS.to_owned()))
    }

    fn of(files: impl Iterator<Item = (String, String)>, words: &str) -> Result<Self, CatalogueError> {
        let words = case::parse_words(words)?;
        let mut cases: Vec<Case> = Vec::new();
        for (name, text) in files {
            cases.extend(case::parse(&name, &text)?);
        }
        for case in &cases {
            check(case, &cases, &words).map_err(|why| CatalogueError(format!("{}: {why}", case.id)))?;
        }
        for (name, expected) in &words.expect {
            expectation::check(expected, &words).map_err(|why| CatalogueError(format!("expect.{name}: {why}")))?;
        }
        Ok(Self { cases, words })
    }

    /// The id of every case, in the order they are asked.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.cases.iter().map(|case| case.id.as_str())
    }

    /// The cases that have to pass before this one is asked, the nearest first.
    pub(crate) fn controls<'a>(&'a self, case: &'a Case) -> impl Iterator<Item = &'a Case> {
        std::iter::successors(Some(case), |case| self.case(case.control.as_deref()?)).skip(1)
    }

    /// The case of this id.
    pub(crate) fn case(&self, id: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.id == id)
    }
}

/// What one file cannot know of itself.
fn check(case: &Case, all: &[Case], words: &Words) -> Result<(), String> {
    if all.iter().filter(|other| other.id == case.id).count() > 1 {
        return Err("two cases of this id".to_owned());
    }
    if case.id.is_empty() || !case.id.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet)) {
        return Err("an id is made of letters, digits, '-', '.' and '_'".to_owned());
    }
    let mut controls = vec![case.id.as_str()];
    let mut control = case.control.as_deref();
    while let Some(id) = control {
        let Some(other) = all.iter().find(|other| other.id == id) else {
            return Err(format!("its control {id:?} is no case"));
        };
        if controls.contains(&id) {
            return Err(format!("its control {id:?} is its own control"));
        }
        controls.push(id);
        control = other.control.as_deref();
    }
    if let Some(need) = case.needs.iter().find(|need| !is_need(need.trim_start_matches('!'))) {
        return Err(format!("nothing that a target has is called {need:?}"));
    }
    let mut expects = false;
    for step in &case.steps {
        step.upon(words)?;
        for token in step.forge.values().filter_map(|forge| forge.from.as_ref()) {
            if !token.contains("${") && !words.token.contains_key(token) {
                return Err(format!("no token {token:?} in words.toml"));
            }
        }
        if let Some(expected) = &step.expect {
            expects = true;
            expectation::check(expected, words)?;
        }
    }
    if expects { Ok(()) } else { Err("it expects nothing".to_owned()) }
}

/// Whether a target can have it. What is misspelt would skip the case for ever.
fn is_need(need: &str) -> bool {
    const TABLES: &[&str] = &[
        "ca",
        "client_jwt",
        "client_self_signed",
        "introspection",
        "protected_resource",
        "forged",
        "resource",
        "other_scope",
        "token.jwt",
        "metadata",
    ];
    const ENDPOINTS: &[&str] = &["introspection", "revocation", "jwks", "resource_metadata"];
    let endpoint = need.strip_prefix("endpoint.").is_some_and(|name| ENDPOINTS.contains(&name));
    TABLES.contains(&need) || endpoint || need.strip_prefix("metadata.").is_some_and(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_cases_is_built_in_and_can_be_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        let built_in = Catalogue::built_in().unwrap();
        let read = Catalogue::of_directory(&directory).unwrap();
        let ids = |catalogue: &Catalogue| {
            let mut ids: Vec<String> = catalogue.cases.iter().map(|case| case.id.clone()).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&built_in), ids(&read));
    }

    const CASE: &str = "[[case]]\nid = \"ID\"\nspecification = \"RFC 1\"\nsection = \"1\"\nlevel = \"MUST\"\n\
        title = \"t\"\nsentence = \"s\"\nEXTRA\n[[case.step]]\nexpect = { status = 200 }\n";

    fn of(cases: &[(&str, &str)]) -> Result<Catalogue, CatalogueError> {
        with_words(cases, "")
    }

    fn with_words(cases: &[(&str, &str)], words: &str) -> Result<Catalogue, CatalogueError> {
        let text = cases.iter().map(|(id, extra)| CASE.replace("ID", id).replace("EXTRA", extra)).collect();
        Catalogue::of([("f".to_owned(), text)].into_iter(), words)
    }

    #[test]
    fn expectations_come_in_a_row_and_never_in_a_circle() {
        assert!(with_words(&[("a", "")], "expect.b = \"c\"\nexpect.c = { status = 200 }").is_ok());
        assert!(with_words(&[("a", "")], "expect.b = { is = [\"b\"] }").is_err());
        assert!(with_words(&[("a", "")], "expect.b = \"c\"\nexpect.c = [{ status = 200 }, \"b\"]").is_err());
    }

    #[test]
    fn controls_come_in_a_row_and_never_in_a_circle() {
        let catalogue = of(&[("c", "control = \"b\""), ("b", "control = \"a\""), ("a", "")]).unwrap();
        let case = catalogue.case("c").unwrap();
        assert_eq!(catalogue.controls(case).map(|case| case.id.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert!(of(&[("a", "control = \"b\""), ("b", "control = \"a\"")]).is_err());
        assert!(of(&[("a", "control = \"a\"")]).is_err());
        assert!(of(&[("a", "control = \"b\"")]).is_err());
    }

    #[test]
    fn what_no_run_could_meet_is_refused() {
        assert!(of(&[("a", ""), ("a", "")]).is_err());
        assert!(of(&[("a b", "")]).is_err());
        assert!(of(&[("a", "needs = [\"cat\"]")]).is_err());
        assert!(of(&[("a", "needs = [\"!metadata.x=y\", \"endpoint.jwks\"]")]).is_ok());
    }
}
