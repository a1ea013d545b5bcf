//! Is this server the bundle endpoint it should be? (SPIFFE Federation §5.2.2, `https_spiffe`)
//!
//! Takes the SPIFFE ID that the operator configured and the trust domain that vouches for it, gives a TLS client that
//! believes exactly that server. The host name plays no part: who can answer for an address has no say in whose bundle it
//! is. It knows nothing of bundles that come back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime as PathTime};

use super::super::anchor::Anchors;
use super::super::certificate::LONGEST_CERTIFICATE_BYTES;
use super::super::chain::{self, Effort, Naming, Terms};
use super::super::crl::Lists;
use super::super::presented::MOST_INTERMEDIATES;
use super::super::spiffe::{SpiffeId, check_svid};
use super::super::{Handshake, PeerRefusal, PresentedChain};
use crate::registry::GrantedAnchor;
use crate::registry::trust_anchor::{AnchorMaterial, EkuPolicy, NameSpace, RevocationSources, TrustAnchor, Unknown};

/// A TLS client that believes the server with an X509-SVID of `id`, vouched for by `held`, which is the trust domain that
/// the id resides in, with the latest bundle there is.
///
/// # Errors
/// Whatever rustls makes of its own provider.
pub(super) fn client_config(id: &SpiffeId, held: &TrustAnchor, now: UnixTime) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = EndpointVerifier::new(id, held, now, provider.signature_verification_algorithms);
    // The verifier is as strict as the one for clients, and asks for one server more exactly than a host name could.
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth()) // §5.2.2.3: a server MUST NOT ask for a certificate
}

#[derive(Debug)]
struct EndpointVerifier {
    id: SpiffeId,
    anchors: Anchors,
    granted: [GrantedAnchor; 1],
    now: UnixTime,
    algorithms: WebPkiSupportedAlgorithms,
}

impl EndpointVerifier {
    fn new(id: &SpiffeId, held: &TrustAnchor, now: UnixTime, algorithms: WebPkiSupportedAlgorithms) -> Self {
        let anchors = match &held.material {
            AnchorMaterial::TrustDomain { trust_domain, bundle, .. } => {
                Anchors::of_bundle(trust_domain, bundle, &held.id)
            }
            AnchorMaterial::X509 { .. } => Anchors::default(),
        };
        let anchor = TrustAnchor {
            eku_policy: EkuPolicy::Any, // judged here: it is a server
            // A bundle that takes an authority back must get through: the lists of that authority are not asked first.
            revocation: RevocationSources::default(),
            unknown_revocation: Unknown::Accept,
            ..held.clone()
        };
        let name_space = NameSpace { any: true, ..NameSpace::default() };
        Self {
            id: id.clone(),
            anchors,
            granted: [GrantedAnchor { anchor: Arc::new(anchor), name_space }],
            now,
            algorithms,
        }
    }

    /// §5.2.2.4: "a valid X509-SVID for the bundle endpoint SPIFFE ID".
    fn judge(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), PeerRefusal> {
        let certificates: Vec<_> =
            std::iter::once(leaf).chain(intermediates).map(|der| der.clone().into_owned()).collect();
        // Within the bounds of a handshake the other way round.
        if intermediates.len() > MOST_INTERMEDIATES
            || certificates.iter().map(|der| der.len()).sum::<usize>() > LONGEST_CERTIFICATE_BYTES
        {
            return Err(PeerRefusal::PathTooComplex);
        }
        let remote = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)); // nobody asks
        let presented = PresentedChain::new(Handshake { remote, protocol: "TLS", resumed: false }, certificates);
        let leaf = presented.leaf().ok_or(PeerRefusal::Malformed)?;
        chain::check_end_entity(leaf)?;
        chain::check_dates(leaf, self.now)?;
        if *check_svid(leaf)? != self.id {
            return Err(PeerRefusal::NotRegistered);
        }
        // X509-SVID §4.4: serverAuth, where the extension is there.
        if !leaf.may_serve() {
            return Err(PeerRefusal::PurposeMissing);
        }
        let (granted, lists) = (&self.granted, Lists::default());
        let effort = Effort::after_reading(&presented, leaf);
        let terms = Terms { naming: Naming::Svid, granted, lists: &lists, now: self.now };
        chain::build(&presented, leaf, &self.anchors, &effort, &terms).map(drop)
    }
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: PathTime, // the caller's `now` counts, as everywhere
    ) -> Result<ServerCertVerified, Error> {
        match self.judge(end_entity, intermediates) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(refusal) => Err(Error::General(format!("the endpoint is not {}: {}", self.id, refusal.reason()))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use countersign_conformance::KeyKind;
    use countersign_conformance::pki::{Authority, Credential, Name, Template, purpose};
    use countersign_conformance::spiffe::Domain;

    use super::*;
    use crate::pki::scene::{NOW, Scene, now};

    /// The endpoint of `a.example`, whose bundle is held.
    fn judge(domain: &Domain, credential: &Credential) -> Result<(), PeerRefusal> {
        let held = Arc::clone(&Scene::new("partner-a").trusting_domain(domain).record.anchors[0].anchor);
        let id = SpiffeId::parse("spiffe://a.example/bundle").unwrap();
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let verifier = EndpointVerifier::new(&id, &held, now(), algorithms);
        let chain: Vec<_> = credential.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        verifier.judge(&chain[0], &chain[1..])
    }

    #[test]
    fn exactly_the_configured_workload() {
        let domain = Domain::new("a.example", NOW);
        assert_eq!(judge(&domain, &domain.svid("/bundle")), Ok(()));
        assert_eq!(judge(&domain, &domain.svid("/other")), Err(PeerRefusal::NotRegistered));
        assert_eq!(judge(&domain, &domain.svid("/bundle/x")), Err(PeerRefusal::NotRegistered));
        let other = Domain::new("b.example", NOW);
        assert_eq!(judge(&domain, &other.svid("/bundle")), Err(PeerRefusal::NotRegistered));
        // The right name, vouched for by another trust domain, by itself, or by nobody.
        let forged = other.authority.issue(&domain.template("/bundle"), KeyKind::P256);
        assert_eq!(judge(&domain, &forged), Err(PeerRefusal::SignatureInvalid));
        let named = Template { subject: Name::common("bundle"), ..domain.template("/bundle") };
        let own = Credential::self_signed(&named, KeyKind::P256);
        assert_eq!(judge(&domain, &own), Err(PeerRefusal::IssuerUnknown));
        let web = Authority::root("A public CA", NOW).issue(&domain.template("/bundle"), KeyKind::P256);
        assert_eq!(judge(&domain, &web), Err(PeerRefusal::IssuerUnknown));
    }

    #[test]
    fn an_intermediate_of_the_trust_domain() {
        let domain = Domain::new("a.example", NOW);
        let under = |template: &Template| {
            let issuing = domain.authority.intermediate_with(template);
            judge(&domain, &issuing.issue(&domain.template("/bundle"), KeyKind::P256))
        };
        assert_eq!(under(&Template::authority(Name::common("Issuing"), NOW)), Ok(()));
        assert_eq!(under(&Domain::authority_template("b.example", NOW)), Err(PeerRefusal::IssuerSpiffeIdWrong));
    }

    #[test]
    fn one_defect_of_its_certificate() {
        let domain = Domain::new("a.example", NOW);
        let with = |change: &dyn Fn(&mut Template)| judge(&domain, &domain.svid_with("/bundle", change));
        assert_eq!(
            with(&|template| template.purposes = vec![purpose::CLIENT_AUTH.to_vec()]),
            Err(PeerRefusal::PurposeMissing)
        );
        assert_eq!(with(&|template| template.purposes = vec![purpose::SERVER_AUTH.to_vec()]), Ok(()));
        assert_eq!(with(&|template| template.purposes = Vec::new()), Ok(()));
        assert_eq!(with(&|template| template.not_after = NOW - 1), Err(PeerRefusal::Expired));
        assert_eq!(with(&|template| template.not_after = NOW), Ok(()));
        assert_eq!(with(&|template| template.not_before = NOW + 1), Err(PeerRefusal::NotYetValid));
        assert_eq!(with(&|template| template.alt_names.clear()), Err(PeerRefusal::SpiffeIdMissing));
        assert_eq!(with(&|template| template.key_usage = None), Err(PeerRefusal::SvidExtensionWrong));
        let mut many = domain.svid("/bundle");
        many.chain.extend(vec![domain.authority.certificate.clone(); MOST_INTERMEDIATES + 1]);
        assert_eq!(judge(&domain, &many), Err(PeerRefusal::PathTooComplex));
    }
}
