//! Everything on one machine, nothing to prepare.

/// Certificates for one machine.
mod development_pki;
