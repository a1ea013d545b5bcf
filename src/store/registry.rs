//! The registry's storage, in SQL that both engines accept.
