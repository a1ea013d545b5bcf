//! What a scope is and how it is written (RFC 6749 §3.3).
//!
//! Takes the text of a `scope` parameter or claim, gives a [`Scope`]: a set of tokens, in the order given. It knows
//! nothing of who may have which.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One scope token: one or more of `%x21 / %x23-5B / %x5D-7E` (RFC 6749 §3.3, appendix A.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ScopeToken(String);

impl ScopeToken {
    /// Reads one scope token.
    ///
    /// # Errors
    /// [`MalformedScope`] if the text is empty or has a character outside the grammar.
    pub fn parse(text: &str) -> Result<Self, MalformedScope> {
        if text.is_empty() || !text.bytes().all(is_nqchar) {
            return Err(MalformedScope);
        }
        Ok(Self(text.to_owned()))
    }

    /// The token as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScopeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ScopeToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A set of scope tokens. Compared without regard to order, as RFC 6749 §3.3 has it ("their order does not matter").
#[derive(Clone, Debug, Default)]
pub struct Scope(Vec<ScopeToken>);

impl Scope {
    /// Reads space-delimited scope tokens; a token named twice counts once.
    ///
    /// # Errors
    /// [`MalformedScope`] unless the text is `scope-token *( SP scope-token )`.
    pub fn parse(text: &str) -> Result<Self, MalformedScope> {
        let mut tokens = Vec::new();
        for part in text.split(' ') {
            let token = ScopeToken::parse(part)?;
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        Ok(Self(tokens))
    }

    /// The tokens, in the order given.
    pub fn tokens(&self) -> impl Iterator<Item = &ScopeToken> {
        self.0.iter()
    }

    /// Whether `token` is among them.
    pub fn contains(&self, token: &str) -> bool {
        self.0.iter().any(|own| own.as_str() == token)
    }

    /// Whether every token of `other` is among them.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|token| self.contains(token.as_str()))
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<ScopeToken> for Scope {
    fn from_iter<I: IntoIterator<Item = ScopeToken>>(tokens: I) -> Self {
        let mut scope = Self::default();
        for token in tokens {
            if !scope.0.contains(&token) {
                scope.0.push(token);
            }
        }
        scope
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.includes(other) && other.includes(self)
    }
}

impl Eq for Scope {}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, token) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(token.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The text does not follow the grammar of RFC 6749 §3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a scope by RFC 6749 section 3.3")]
pub struct MalformedScope;

// RFC 6749 appendix A: NQCHAR = %x21 / %x23-5B / %x5D-7E
const fn is_nqchar(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_holds_over_all_of_ascii() {
        for byte in 0..=127_u8 {
            let text = char::from(byte).to_string();
            let allowed = byte > 0x20 && byte < 0x7F && byte != b'"' && byte != b'\\';
            assert_eq!(ScopeToken::parse(&text).is_ok(), allowed, "{byte:#04x}");
        }
        assert!(ScopeToken::parse("é").is_err());
    }

    #[test]
    fn only_single_spaces_separate() {
        for wrong in ["", " ", " a", "a ", "a  b", "a\tb", "a\u{a0}b"] {
            assert_eq!(Scope::parse(wrong), Err(MalformedScope), "{wrong:?}");
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        assert_eq!(Scope::parse("a b").unwrap(), Scope::parse("b a b").unwrap());
        assert_ne!(Scope::parse("a b").unwrap(), Scope::parse("a").unwrap());
        assert_eq!(Scope::parse("b a b").unwrap().to_string(), "b a");
    }
}
