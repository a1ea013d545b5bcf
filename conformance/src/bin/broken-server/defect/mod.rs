//! What can be broken, by name. Each defect is asked for at the line that it breaks.
//!
//! The cases of the judge that have to notice one are in `cases.toml`, one folder up.

use std::collections::BTreeSet;

/// Names the defects, with what each does.
macro_rules! defects {
    ($($(#[doc = $what:literal])+ $variant:ident = $flag:literal,)+) => {
        /// A defect.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Defect {
            $($(#[doc = $what])+ $variant,)+
        }

        impl Defect {
            /// Every one.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name on the command line.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $flag,)+ }
            }

            /// What it does, in one line.
            pub(crate) const fn what(self) -> &'static str {
                match self { $(Self::$variant => concat!($($what),+).trim_ascii(),)+ }
            }
        }
    };
}

/// Every one.
mod list;

pub(crate) use list::Defect;

impl Defect {
    /// The one of this name.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|defect| defect.as_str() == name)
            .ok_or_else(|| format!("no defect is called {name}; --list tells them"))
    }
}

/// Which defects a server has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Broken(BTreeSet<Defect>);

impl Broken {
    /// These.
    pub(crate) fn of(defects: impl IntoIterator<Item = Defect>) -> Self {
        Self(defects.into_iter().collect())
    }

    /// Whether this is one of them.
    pub(crate) fn is(&self, defect: Defect) -> bool {
        self.0.contains(&defect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defect_is_found_by_its_name_and_says_where_the_rule_is() {
        for defect in Defect::ALL {
            assert_eq!(Defect::named(defect.as_str()), Ok(*defect));
        }
        assert!(Defect::named("none").is_err());
    }
}
