//! The tests each back end passes.
