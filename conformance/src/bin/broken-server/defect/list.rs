//! The defects, in the order of the specifications, with what each does.

defects! {
    // RFC 6749: requests.
    /// GET works at the token endpoint, parameters in the query (RFC 6749 §3.2).
    AcceptsGetAtToken = "accepts-get-at-token",
    /// The token endpoint reads its query beside the body (RFC 6749 §3.2: POST, §4.4.2: in the body).
    QueryReadAtToken = "query-read-at-token",
    /// A parameter that comes twice counts once (RFC 6749 §3.2).
    DuplicateParametersAccepted = "duplicate-parameters-accepted",
    /// A parameter without a value is not the same as none (RFC 6749 §3.2).
    EmptyParameterNotOmitted = "empty-parameter-not-omitted",
    /// An unknown parameter is an error (RFC 6749 §3.2).
    UnknownParameterRefused = "unknown-parameter-refused",
    /// Any method will do at the token endpoint (RFC 6749 §3.2).
    AnyMethodAtToken = "any-method-at-token",
    /// A form is one only if its type is written as here (RFC 9110 §8.3.1).
    ContentTypeComparedAsText = "content-type-compared-as-text",
    /// A body of another media type is read all the same (RFC 6749 §4.4.2).
    ContentTypeIgnored = "content-type-ignored",
    /// Without grant_type it is client_credentials (RFC 6749 §4.4.2).
    GrantTypeOptional = "grant-type-optional",
    /// Any grant type is client_credentials (RFC 6749 §5.2).
    AnyGrantType = "any-grant-type",
    /// An unknown grant type is invalid_request (RFC 6749 §5.2).
    UnsupportedGrantTypeAsInvalidRequest = "unsupported-grant-type-as-invalid-request",

    // RFC 6749: answers.
    /// The token answer may be stored (RFC 6749 §5.1).
    TokenWithoutCacheControl = "token-without-cache-control",
    /// no-store stands in a quoted string of the token answer's Cache-Control, where it means nothing (RFC 6749 §5.1).
    TokenNoStoreQuoted = "token-no-store-quoted",
    /// The token answer has no Pragma (RFC 6749 §5.1).
    TokenWithoutPragma = "token-without-pragma",
    /// The token answer is text/html (RFC 6749 §5.1).
    TokenAsHtml = "token-as-html",
    /// The token answer is application/jsonp (RFC 6749 §5.1).
    TokenAsJsonp = "token-as-jsonp",
    /// The token answer is a form, as in the drafts of OAuth 2 (RFC 6749 §5.1).
    TokenAsForm = "token-as-form",
    /// The token answer has no token_type (RFC 6749 §5.1).
    TokenTypeMissing = "token-type-missing",
    /// token_type is one that nobody can use (RFC 6749 §5.1, §7.1).
    TokenTypeOther = "token-type-other",
    /// The token answer has no access_token but a token (RFC 6749 §5.1).
    AccessTokenMissing = "access-token-missing",
    /// The token answer has status 201 (RFC 6749 §5.1).
    TokenAsCreated = "token-as-created",
    /// expires_in is missing (RFC 6749 §5.1).
    ExpiresInMissing = "expires-in-missing",
    /// expires_in is a string (RFC 6749 §5.1).
    ExpiresInAsString = "expires-in-as-string",
    /// A refresh token comes with the access token (RFC 6749 §4.4.3).
    RefreshTokenIssued = "refresh-token-issued",
    /// The same token comes again (RFC 6749 §10.10).
    TokenRepeated = "token-repeated",
    /// A token with characters that no header can hold (RFC 6749 §5.1, RFC 6750 §2.1).
    TokenOutsideGrammar = "token-outside-grammar",
    /// The scope is told as an array (RFC 6749 §3.3).
    ScopeToldAsArray = "scope-told-as-array",
    /// Without a scope the request is no request (RFC 6749 §3.3).
    ScopeNeeded = "scope-needed",
    /// What is not known of a scope is left out, and the answer does not say so (RFC 6749 §3.3, §5.1).
    ScopeNotTold = "scope-not-told",
    /// A scope nobody knows is granted (RFC 6749 §3.3, §5.2).
    UnknownScopeGranted = "unknown-scope-granted",
    /// A scope the client may not have is granted (RFC 6749 §5.2).
    OtherScopeGranted = "other-scope-granted",
    /// Any scope is granted, and told in another order and with the default (RFC 6749 §3.3).
    AnyScopeToldAnew = "any-scope-told-anew",
    /// Scopes of characters that the grammar forbids pass (RFC 6749 §3.3).
    MalformedScopeGranted = "malformed-scope-granted",
    /// A refused scope is invalid_request (RFC 6749 §5.2).
    InvalidScopeAsInvalidRequest = "invalid-scope-as-invalid-request",
    /// An error is plain text (RFC 6749 §5.2).
    ErrorWithoutJson = "error-without-json",
    /// An error is JSON that says it is HTML (RFC 6749 §5.2).
    ErrorAsHtml = "error-as-html",
    /// An error comes with status 200 (RFC 6749 §5.2).
    ErrorAsOk = "error-as-ok",
    /// A client's mistake is a server's error (RFC 6749 §5.2).
    ErrorAsServerError = "error-as-server-error",
    /// A code nobody registered (RFC 6749 §5.2).
    ErrorCodeUnknown = "error-code-unknown",
    /// A number where the code belongs (RFC 6749 §5.2).
    ErrorCodeMissing = "error-code-missing",
    /// A description with quotation marks and umlauts (RFC 6749 §5.2).
    ErrorDescriptionOutsideGrammar = "error-description-outside-grammar",
    /// An error repeats what was sent, whatever it is (RFC 6749 §5.2).
    ErrorTellsRequest = "error-tells-request",
    /// An unknown client is told by another code (RFC 6749 §5.2).
    UnknownClientAsInvalidRequest = "unknown-client-as-invalid-request",
    /// An unknown client is told so in plain text (RFC 6749 §5.2).
    UnknownClientAsText = "unknown-client-as-text",
    /// A client that used the Authorization header gets no challenge (RFC 6749 §5.2).
    BasicWithoutChallenge = "basic-without-challenge",
    /// A client that used Basic is challenged to use Bearer, in a realm called Basic (RFC 6749 §5.2).
    BasicChallengedByBearer = "basic-challenged-by-bearer",
    /// Two methods of authentication in one request (RFC 6749 §2.3).
    TwoMethodsAccepted = "two-methods-accepted",

    // RFC 8705 §2: client authentication.
    /// A client needs no certificate (RFC 8705 §2).
    CertificateOptional = "certificate-optional",
    /// The certificate need not lead to an authority (RFC 8705 §2.1).
    AcceptsAnyCertificate = "accepts-any-certificate",
    /// The first certificate of the chain need not have signed the leaf (RFC 8705 §2.1, RFC 5280 §6.1).
    AcceptsTwinAuthority = "accepts-twin-authority",
    /// A leaf may vouch for others (RFC 5280 §6.1.4 (k)).
    AcceptsLeafAsAuthority = "accepts-leaf-as-authority",
    /// An expired certificate counts (RFC 5280 §6.1.3 (a) (2)).
    AcceptsExpiredCertificate = "accepts-expired-client-certificate",
    /// No date of a certificate is looked at (RFC 5280 §6.1.3 (a) (2)).
    CertificateDatesIgnored = "certificate-dates-ignored",
    /// A certificate counts before its time (RFC 5280 §6.1.3 (a) (2)).
    AcceptsFutureCertificate = "accepts-future-client-certificate",
    /// A server's certificate authenticates a client (RFC 5280 §4.2.1.12).
    AcceptsServerCertificate = "accepts-server-certificate",
    /// A certificate that may not sign signs (RFC 5280 §4.2.1.3).
    KeyUsageIgnored = "key-usage-ignored",
    /// A critical extension that nobody knows is passed over (RFC 5280 §4.2).
    CriticalExtensionIgnored = "critical-extension-ignored",
    /// What stands behind the end of a certificate is passed over (RFC 5280 §4.1).
    TrailingOctetIgnored = "trailing-octet-ignored",
    /// An extension may come twice (RFC 5280 §4.2).
    ExtensionTwiceAccepted = "extension-twice-accepted",
    /// The signature of the certificate is not looked at (RFC 5280 §6.1.3 (a) (1)).
    CertificateSignatureNotChecked = "certificate-signature-not-checked",
    /// Whose certificate it is does not matter (RFC 8705 §2.1).
    ClientIdNotCompared = "client-id-not-compared-with-certificate",
    /// A subject that begins like the registered one will do (RFC 8705 §2.1).
    SubjectComparedByPrefix = "subject-compared-by-prefix",
    /// The common name alone is compared (RFC 8705 §2.1.2).
    CommonNameAlone = "common-name-alone",
    /// The client is found by its certificate, whatever client_id says (RFC 8705 §2).
    ClientByCertificate = "client-by-certificate",
    /// client_id is tidied up before the client is looked for (RFC 6749 §2.2).
    ClientIdNormalized = "client-id-normalized",
    /// A certificate out of a request header counts (RFC 9440 §4).
    CertificateHeaderBelieved = "certificate-header-believed",
    /// Any certificate with the name of the registered one will do (RFC 8705 §2.2).
    SelfSignedByName = "self-signed-by-name",
    /// Any certificate will do for a client with a self-signed one (RFC 8705 §2.2).
    SelfSignedNotCompared = "self-signed-not-compared",

    // RFC 8705 §3: binding, at the authorization server.
    /// Tokens are bound to nothing (RFC 8705 §3).
    CnfMissing = "cnf-missing",
    /// Tokens are bound to the server's certificate (RFC 8705 §3.1).
    CnfOfOtherCertificate = "cnf-of-other-certificate",
    /// Tokens are bound to the key, not to the certificate (RFC 8705 §3.1).
    CnfOfKey = "cnf-of-key",
    /// The thumbprint is written in hex (RFC 8705 §3.1).
    CnfHex = "cnf-hex",
    /// The thumbprint is padded (RFC 8705 §3.1).
    CnfPadded = "cnf-padded",
    /// The thumbprint is SHA-1 (RFC 8705 §3.1).
    CnfSha1 = "cnf-sha1",

    // RFC 8414.
    /// The metadata names another issuer (RFC 8414 §3.3).
    MetadataIssuerDiffers = "metadata-issuer-differs",
    /// The issuer in the metadata ends with a slash more (RFC 8414 §3.3).
    MetadataIssuerWithSlash = "metadata-issuer-with-slash",
    /// The issuer in the metadata is http (RFC 8414 §2).
    MetadataIssuerWithoutTls = "metadata-issuer-without-tls",
    /// The metadata is text/plain (RFC 8414 §3.2).
    MetadataAsText = "metadata-as-text",
    /// No token_endpoint in the metadata (RFC 8414 §2).
    MetadataWithoutTokenEndpoint = "metadata-without-token-endpoint",
    /// No jwks_uri in the metadata (RFC 9068 §4).
    MetadataWithoutJwksUri = "metadata-without-jwks-uri",
    /// No response_types_supported in the metadata (RFC 8414 §2).
    MetadataWithoutResponseTypes = "metadata-without-response-types",
    /// Grant types are a string (RFC 8414 §2).
    MetadataGrantTypesAsString = "metadata-grant-types-as-string",
    /// client_credentials is not among the grant types (RFC 8414 §2).
    MetadataWithoutGrantTypes = "metadata-without-grant-types",
    /// The methods of authentication are not told (RFC 8705 §2.1.1).
    MetadataWithoutMethods = "metadata-without-methods",
    /// Algorithms for assertions are not told (RFC 8414 §2).
    MetadataWithoutSigningAlgorithms = "metadata-without-signing-algorithms",
    /// none is among the algorithms for assertions (RFC 8414 §2).
    MetadataWithAlgorithmNone = "metadata-with-algorithm-none",
    /// tls_client_certificate_bound_access_tokens is missing (RFC 8705 §3.3).
    MetadataWithoutBoundFlag = "metadata-without-bound-flag",
    /// The keys are found by http (RFC 8414 §2).
    MetadataJwksUriWithoutTls = "metadata-jwks-uri-without-tls",
    /// Introspection and revocation endpoints are http (RFC 8414 §2).
    MetadataEndpointsWithoutTls = "metadata-endpoints-without-tls",
    /// Metadata for whatever issuer is asked for (RFC 8414 §3.3).
    MetadataForAnyIssuer = "metadata-for-any-issuer",
    /// The password grant is offered (FAPI 2.0 §5.3.2.1).
    MetadataWithPasswordGrant = "metadata-with-password-grant",
    /// The implicit grant is offered (RFC 9700 §2.1.2).
    MetadataWithImplicitGrant = "metadata-with-implicit-grant",
    /// none is among the algorithms of signed introspection (RFC 9701 §7).
    MetadataIntrospectionNone = "metadata-introspection-none",
    /// An alias for mutual TLS that is not https (RFC 8705 §5).
    AliasWithoutTls = "alias-without-tls",
    /// Empty members among the metadata (RFC 8414 §3.2).
    MetadataWithEmptyMember = "metadata-with-empty-member",
    /// The token endpoint in the metadata has a fragment (RFC 6749 §3.2).
    TokenEndpointWithFragment = "token-endpoint-with-fragment",

    // RFC 7517.
    /// The published keys are private (RFC 7517 §9.2, RFC 8414 §2).
    JwksWithPrivateMembers = "jwks-with-private-members",
    /// A shared secret among the keys (RFC 7517 §9.2).
    JwksWithSymmetricKey = "jwks-with-symmetric-key",
    /// Two keys of one kid (RFC 7517 §4.5).
    JwksWithDuplicateKids = "jwks-with-duplicate-kids",
    /// Keys without kid where there are several (RFC 7517 §4.5).
    JwksWithoutKid = "jwks-without-kid",
    /// A key without kty (RFC 7517 §4.1).
    JwksWithoutKty = "jwks-without-kty",
    /// An array, not a set (RFC 7517 §5).
    JwksAsArray = "jwks-as-array",
    /// kid is a number, and use an array (RFC 7517 §4.2, §4.5).
    JwksMemberTypes = "jwks-member-types",
    /// A key for the algorithm none (RFC 8725 §3.2).
    JwksWithAlgorithmNone = "jwks-with-algorithm-none",
    /// A key on P-192 (FAPI 2.0 §5.4.1).
    JwksWithWeakCurve = "jwks-with-weak-curve",
    /// Numbers of keys are padded (RFC 7518 §6.2.1.2, §6.3.1.2).
    JwksPadded = "jwks-padded",
    /// An RSA key of 1,024 bits (RFC 7518 §3.3).
    JwksWithWeakKey = "jwks-with-weak-key",
    /// A coordinate a octet short (RFC 7518 §6.2.1.2).
    JwksCoordinateCut = "jwks-coordinate-cut",
    /// The key that signs is not published (RFC 9068 §4).
    SigningKeyNotPublished = "signing-key-not-published",

    // RFC 9068 §2.
    /// Access tokens have typ JWT (RFC 9068 §2.1).
    TypJwt = "typ-jwt",
    /// Access tokens have no typ (RFC 9068 §2.1).
    TypMissing = "typ-missing",
    /// Access tokens are not signed (RFC 9068 §2.1).
    TokenUnsigned = "token-unsigned",
    /// Access tokens are signed with a shared secret (RFC 9068 §2.1, FAPI 2.0 §5.4.1).
    TokenHs256 = "token-hs256",
    /// Access tokens point to their key by jku and x5u (FAPI 2.0 §5.4.3).
    TokenWithJku = "token-with-jku",
    /// Access tokens name no key (RFC 9068 §4, RFC 7515 §4.1.4).
    TokenWithoutKid = "token-without-kid",
    /// Access tokens have no iss (RFC 9068 §2.2).
    IssMissing = "iss-missing",
    /// Access tokens name another issuer (RFC 9068 §2.2).
    IssDiffers = "iss-differs",
    /// Access tokens have no exp (RFC 9068 §2.2).
    ExpMissing = "exp-missing",
    /// exp is a string (RFC 7519 §4.1.4).
    ExpString = "exp-string-in-token",
    /// Access tokens have no aud (RFC 9068 §2.2).
    AudMissing = "aud-missing",
    /// The audience is the client (RFC 9068 §2.2, §3).
    AudIsClient = "aud-is-client",
    /// The audience is not the resource asked for (RFC 9068 §3, RFC 8707 §2).
    AudDiffers = "aud-differs",
    /// Access tokens have no sub (RFC 9068 §2.2).
    SubMissing = "sub-missing",
    /// The subject is somebody else (RFC 9068 §2.2, §5).
    SubDiffers = "sub-differs",
    /// Access tokens have no client_id (RFC 9068 §2.2).
    ClientIdClaimMissing = "client-id-claim-missing",
    /// client_id is another client's (RFC 9068 §2.2).
    ClientIdClaimDiffers = "client-id-claim-differs",
    /// Access tokens have no iat (RFC 9068 §2.2).
    IatMissing = "iat-missing",
    /// Access tokens have no jti (RFC 9068 §2.2).
    JtiMissing = "jwt-without-jti",
    /// Every token has the same jti (RFC 7519 §4.1.7).
    JtiRepeated = "jti-repeated",
    /// Access tokens have no scope although one was asked for (RFC 9068 §2.2.3).
    ScopeClaimMissing = "scope-claim-missing",
    /// Scope is an array (RFC 9068 §2.2.3, RFC 8693 §4.2).
    ScopeClaimAsArray = "scope-claim-as-array",

    // RFC 8707.
    /// Any resource is taken (RFC 8707 §2).
    UnknownResourceAccepted = "unknown-resource-accepted",
    /// A resource that is refused is invalid_request (RFC 8707 §2).
    InvalidTargetAsInvalidRequest = "invalid-target-as-invalid-request",
    /// The fragment of a resource is cut off (RFC 8707 §2).
    ResourceFragmentCut = "resource-fragment-cut",
    /// A resource that begins like a known one is known (RFC 8707 §2).
    ResourceByPrefix = "resource-by-prefix",
    /// A relative resource is completed (RFC 8707 §2).
    RelativeResourceAccepted = "relative-resource-accepted",

    // RFC 7523 and rfc7523bis.
    /// The signature of an assertion is not looked at (RFC 7523 §3 (9)).
    AssertionSignatureNotChecked = "assertion-signature-not-checked",
    /// An assertion counts more than once (RFC 7523 §3 (7)).
    AssertionReplayed = "assertion-replayed",
    /// The token endpoint is an audience (rfc7523bis §4).
    AssertionAudTokenEndpoint = "assertion-aud-token-endpoint-accepted",
    /// The issuer may stand in an array of audiences (rfc7523bis §4, FAPI 2.0 §5.3.2.1).
    AssertionAudArray = "assertion-aud-array-accepted",
    /// Whom an assertion is for does not matter (RFC 7523 §3 (3)).
    AssertionAudNotChecked = "assertion-aud-not-checked",
    /// An assertion that has expired counts (RFC 7523 §3 (4)).
    AssertionExpiredAccepted = "assertion-expired-accepted",
    /// An assertion that never expires counts (RFC 7523 §3 (4)).
    AssertionWithoutExpAccepted = "assertion-without-exp-accepted",
    /// An assertion counts before its time (RFC 7523 §3 (5)).
    AssertionNotYetValidAccepted = "assertion-not-yet-valid-accepted",
    /// An assertion issued in the far future counts (FAPI 2.0 §5.3.2.1).
    AssertionIssuedInFutureAccepted = "assertion-issued-in-future-accepted",
    /// A clock a few seconds ahead is refused (FAPI 2.0 §5.3.2.1).
    AssertionWithoutLeeway = "assertion-without-leeway",
    /// Who issued an assertion does not matter (RFC 7523 §3 (1)).
    AssertionIssNotChecked = "assertion-iss-not-checked",
    /// Whom an assertion is about does not matter (RFC 7523 §3 (2)).
    AssertionSubNotChecked = "assertion-sub-not-checked",
    /// The client is found by the key of its assertion (RFC 7523 §3 (2)).
    AssertionClientByKey = "assertion-client-by-key",
    /// A time of an assertion that is no number counts as none (RFC 7519 §2).
    AssertionMalformedTime = "assertion-malformed-time-ignored",
    /// An assertion that cannot be read is a server's error (RFC 6749 §5.2).
    AssertionMalformedAsServerError = "assertion-malformed-as-server-error",
    /// client_id need not be the subject (RFC 7521 §4.2).
    AssertionClientIdNotCompared = "assertion-client-id-not-compared",
    /// client_id beside an assertion is an error, also where it is the subject (RFC 7521 §4.2).
    AssertionClientIdRefused = "assertion-client-id-refused",
    /// client_assertion_type does not matter (RFC 7521 §4.2).
    AssertionTypeIgnored = "assertion-type-ignored",
    /// An access token authenticates its client (RFC 8725 §3.11).
    AccessTokenAsAssertion = "access-token-as-assertion",
    /// Any kind of JWT authenticates a client (RFC 8725 §3.11).
    AssertionTypNotChecked = "assertion-typ-not-checked",
    /// An assertion that names its kind is refused (rfc7523bis §4).
    AssertionTypRefused = "assertion-typ-refused",

    // RFC 8725: forging.
    /// alg none (RFC 8725 §3.2).
    AlgNoneAccepted = "alg-none-accepted",
    /// alg none if written otherwise (RFC 8725 §3.2).
    AlgNoneByCase = "alg-none-by-case",
    /// HS256 with the public key as secret (RFC 8725 §2.1).
    Hs256WithPublicKey = "hs256-with-public-key-accepted",
    /// The signature of a token is not looked at (RFC 9068 §4).
    SignatureNotChecked = "signature-not-checked",
    /// A token without its signature counts (RFC 7515 §5.2).
    SignatureStrippedAccepted = "signature-stripped-accepted",
    /// kid is a file's name (RFC 8725 §3.10).
    KidPath = "kid-path",
    /// kid goes into a query (RFC 8725 §3.10).
    KidInQuery = "kid-in-query",
    /// The key is fetched from where jku says (RFC 8725 §3.10).
    JkuFollowed = "jku-followed",
    /// The key is fetched from where x5u says (RFC 8725 §3.10).
    X5uFollowed = "x5u-followed",
    /// The key out of the header counts (RFC 7515 §4.1.3).
    EmbeddedJwkUsed = "embedded-jwk-used",
    /// The certificate out of the header counts (RFC 7515 §4.1.6).
    EmbeddedX5cUsed = "embedded-x5c-used",
    /// crit is passed over (RFC 7515 §4.1.11).
    CritIgnored = "crit-ignored",
    /// An empty crit is passed over (RFC 7515 §4.1.11).
    EmptyCritIgnored = "empty-crit-ignored",
    /// Of two members of one name the first counts (RFC 7515 §4, RFC 7519 §4).
    DuplicateMembersFirstWins = "duplicate-members-first-wins",
    /// What follows the third part of a token is passed over (RFC 7515 §7.1).
    FurtherPartsIgnored = "further-parts-ignored",
    /// Numbers that JSON does not have pass in a token (RFC 7519 §7.2).
    LenientJson = "lenient-json",
    /// RS256 by a key that is for PS256 (RFC 8725 §3.1).
    Rs256ByAnyRsaKey = "rs256-by-any-rsa-key",
    /// Base64 with padding, or of the other alphabet (RFC 7515 §2).
    LenientBase64 = "lenient-base64",
    /// What kind of token it is does not matter (RFC 9068 §4).
    TypNotChecked = "typ-not-checked",
    /// A token with typ JWT is an access token (RFC 9068 §4).
    TypJwtAccepted = "typ-jwt-accepted",

    /// The long form of the type is refused (RFC 9068 §4).
    TypLongRefused = "typ-long-refused",

    // RFC 9068 §4: claims, at the resource.
    /// A token that cannot be read is a server's error (RFC 6750 §3.1).
    UnreadableTokenAsServerError = "unreadable-token-as-server-error",
    /// A claim that nobody knows is refused (RFC 7519 §4).
    UnknownClaimRefused = "unknown-claim-refused",
    /// An audience has to be a string (RFC 7519 §4.1.3).
    AudArrayRefused = "aud-array-refused",
    /// An odd number in a token, or one that is not there, is a server's error (RFC 7519 §2).
    OddNumberAsServerError = "odd-number-as-server-error",
    /// Who issued a token does not matter (RFC 9068 §4).
    IssNotChecked = "iss-not-checked",
    /// An issuer that begins with ours is ours (RFC 9068 §4).
    IssPrefixMatch = "iss-prefix-match",
    /// A slash at the end of the issuer, or the case of its letters, does not matter (RFC 9068 §4).
    IssNormalized = "iss-normalized",
    /// Whom a token is for does not matter (RFC 9068 §4).
    AudNotChecked = "aud-not-checked",
    /// An audience that begins with ours is ours (RFC 9068 §4).
    AudPrefixMatch = "aud-prefix-match",
    /// A slash at the end of the audience, or the case of its letters, does not matter (RFC 9068 §4).
    AudNormalized = "aud-normalized",
    /// An audience that is part of ours is ours (RFC 9068 §4).
    AudPartMatch = "aud-part-match",
    /// An expired token counts (RFC 9068 §4).
    ExpNotChecked = "exp-not-checked",
    /// A token that never expires counts (RFC 9068 §2.2).
    ExpMissingAccepted = "exp-missing-accepted",
    /// exp as a string counts (RFC 7519 §4.1.4).
    ExpAsStringAccepted = "exp-as-string-accepted",
    /// A time that is no number counts as none (RFC 7519 §4.1.4).
    MalformedTimeIgnored = "malformed-time-ignored",
    /// A token counts before its time (RFC 7519 §4.1.5).
    NbfNotChecked = "nbf-not-checked",
    /// Seconds are kept in 32 bits (RFC 7519 §2).
    TimeWraps = "time-wraps",

    // RFC 8705 §3 at the resource.
    /// Whoever holds a token may use it (RFC 8705 §3).
    BindingNotChecked = "binding-not-checked",
    /// A token without a binding counts (RFC 8705 §3, FAPI 2.0 §5.3.4).
    UnboundTokenAccepted = "unbound-token-accepted",
    /// A bound token counts where no certificate came (RFC 8705 §3).
    BindingOnlyWithCertificate = "binding-only-with-certificate",
    /// A thumbprint that begins like the right one is right (RFC 8705 §3.1).
    ThumbprintByPrefix = "thumbprint-compared-by-prefix",
    /// The case of a thumbprint does not matter (RFC 8705 §3.1).
    ThumbprintCaseIgnored = "thumbprint-case-ignored",
    /// A thumbprint in hex counts (RFC 8705 §3.1).
    HexThumbprintAccepted = "hex-thumbprint-accepted",
    /// A padded thumbprint counts, or one in the other alphabet (RFC 8705 §3.1).
    PaddedThumbprintAccepted = "padded-thumbprint-accepted",
    /// A thumbprint by SHA-1 counts (RFC 8705 §3.1).
    Sha1ThumbprintAccepted = "sha1-thumbprint-accepted",
    /// A token bound to a DPoP key counts as bound to a certificate (RFC 8705 §3, RFC 9449 §6).
    JktTakenForBinding = "jkt-taken-for-binding",
    /// A thumbprint that is no string counts (RFC 8705 §3.1).
    ThumbprintOfAnyType = "thumbprint-of-any-type",
    /// The resource asks who issued the certificate (RFC 8705 §6.2).
    CertificateJudgedAtResource = "certificate-judged-at-resource",
    /// A certificate out of a request header counts at the resource (RFC 8705 §3).
    HeaderBelievedAtResource = "certificate-header-believed-at-resource",
    /// A token of another certificate is 403 (RFC 8705 §3).
    BindingMismatchAsForbidden = "binding-mismatch-as-forbidden",

    // RFC 6750.
    /// A refusal has no WWW-Authenticate (RFC 6750 §3).
    ChallengeMissing = "401-without-www-authenticate",
    /// The challenge is of another scheme (RFC 6750 §3).
    ChallengeBasic = "challenge-basic",
    /// The challenge of a refused token has no error (RFC 6750 §3).
    ChallengeWithoutError = "challenge-without-error",
    /// The challenge has an error although no token came (RFC 6750 §3.1).
    ChallengeWithErrorWithoutToken = "challenge-with-error-without-token",
    /// A refused token is 400 (RFC 6750 §3.1).
    InvalidTokenAsBadRequest = "invalid-token-as-bad-request",
    /// A bad token or assertion ends the connection without an answer (RFC 6750 §3.1).
    DropsTheConnectionOnABadToken = "drops-the-connection-on-a-bad-token",
    /// A refused token is 200 with an error in its body (RFC 6750 §3.1).
    InvalidTokenAsOk = "invalid-token-as-ok",
    /// A token in the query counts (RFC 6750 §2.3, FAPI 2.0 §5.3.4).
    TokenInQueryAccepted = "token-in-query-accepted",
    /// The scheme has to be written Bearer (RFC 9110 §11.1).
    SchemeCaseSensitive = "scheme-case-sensitive",
    /// A token of another scheme counts (RFC 6750 §2.1).
    AnySchemeAccepted = "any-scheme-accepted",
    /// A token that comes twice counts (RFC 6750 §2, §3.1).
    TokenTwiceAccepted = "token-twice-accepted",
    /// Without the scope it is 401 (RFC 6750 §3.1).
    InsufficientScopeAs401 = "insufficient-scope-as-401",
    /// Without the scope it is served (RFC 6750 §3.1).
    ScopeNotChecked = "scope-not-checked",
    /// A scope that begins like the needed one will do (RFC 6749 §3.3).
    ScopeByPart = "scope-by-part",
    /// The needed scope has to be all the scope (RFC 6749 §3.3).
    ScopeComparedWhole = "scope-compared-whole",
    /// Credentials that cannot be read are a server's error (RFC 6750 §3.1).
    MalformedHeaderAsServerError = "malformed-header-as-server-error",
    /// No token is needed (RFC 6750 §3).
    NoTokenNeeded = "no-token-needed",

    // RFC 7009.
    /// Nothing is revoked (RFC 7009 §2.1).
    RevokedTokenStillActive = "revoked-token-still-active",
    /// A revoked token is inactive but the protected resource does not hear of it (FAPI 2.0 §5.3.4).
    RevokedTokenStillServed = "revoked-token-still-served",
    /// An unknown token is an error (RFC 7009 §2.2).
    RevocationOfUnknownRefused = "revocation-of-unknown-refused",
    /// Whose token it is does not matter (RFC 7009 §2.1).
    RevocationOfOthers = "revocation-of-others",
    /// Whoever asks may revoke (RFC 7009 §2.1).
    RevocationWithoutAuthentication = "revocation-without-authentication",
    /// A wrong hint leaves the token alive (RFC 7009 §2.1).
    RevocationHintBelieved = "revocation-hint-believed",
    /// An unknown hint is an error (RFC 7009 §2.1).
    RevocationUnknownHintRefused = "revocation-unknown-hint-refused",
    /// Any hint is an error (RFC 7009 §2.1).
    RevocationHintRefused = "revocation-hint-refused",
    /// Without a token it is 200 (RFC 7009 §2.1, §2.2.1).
    RevocationWithoutToken = "revocation-without-token",
    /// GET revokes (RFC 7009 §2.1).
    RevocationByGet = "revocation-by-get",

    // RFC 7662 and RFC 9701.
    /// Whoever asks is told (RFC 7662 §2.1).
    IntrospectionWithoutAuthentication = "introspection-without-authentication",
    /// An inactive token's claims are told (RFC 7662 §2.2).
    InactiveTellsMore = "inactive-tells-more",
    /// An unknown token is an error (RFC 7662 §2.2).
    InactiveAsError = "inactive-as-error",
    /// Every token is active (RFC 7662 §2.2, §4).
    EverythingActive = "everything-active",
    /// active is a string (RFC 7662 §2.2).
    ActiveAsString = "active-as-string",
    /// The binding is not told (RFC 8705 §3.2).
    IntrospectionWithoutCnf = "introspection-without-cnf",
    /// The introspected scope is an array (RFC 7662 §2.2).
    IntrospectionScopeAsArray = "introspection-scope-as-array",
    /// Members of the wrong types (RFC 7662 §2.2, RFC 7519 §4.1).
    IntrospectionTypes = "introspection-types",
    /// What is told is not what the token says (RFC 7662 §2.2).
    IntrospectionTellsOther = "introspection-tells-other",
    /// A hint that is not access_token hides the token (RFC 7662 §2.1).
    IntrospectionHintBelieved = "introspection-hint-believed",
    /// GET introspects (RFC 7662 §2.1).
    IntrospectionByGet = "introspection-by-get",
    /// Without a token it is inactive, not an error (RFC 7662 §2.1).
    IntrospectionWithoutToken = "introspection-without-token",
    /// Introspection answers are text/plain (RFC 7662 §2.2).
    IntrospectionAsText = "introspection-as-text",
    /// A signed answer has typ JWT (RFC 9701 §5).
    SignedIntrospectionTyp = "signed-introspection-typ",
    /// A signed answer is another issuer's (RFC 9701 §5).
    SignedIntrospectionIss = "signed-introspection-iss",
    /// Every answer is signed, asked for or not (RFC 9701 §4).
    SignedIntrospectionAlways = "signed-introspection-always",
    /// A signed answer has no audience (RFC 9701 §5).
    SignedIntrospectionWithoutAud = "signed-introspection-without-aud",
    /// A signed answer has no iat (RFC 9701 §5).
    SignedIntrospectionWithoutIat = "signed-introspection-without-iat",
    /// A signed answer is not signed (RFC 9701 §5).
    SignedIntrospectionUnsigned = "signed-introspection-unsigned",
    /// A signed answer has its members at the top (RFC 9701 §5).
    SignedIntrospectionFlat = "signed-introspection-flat",
    /// A signed answer has sub and exp at the top (RFC 9701 §5).
    SignedIntrospectionWithSubAndExp = "signed-introspection-with-sub-and-exp",
    /// A signed answer is application/jwt (RFC 9701 §5).
    SignedIntrospectionMediaType = "signed-introspection-media-type",
    /// JSON although a signed answer was asked for (RFC 9701 §4).
    SignedIntrospectionAsJson = "signed-introspection-as-json",
    /// A signed answer is taken for an access token (RFC 9701 §8, RFC 9068 §4).
    SignedIntrospectionAsToken = "signed-introspection-as-token",

    // RFC 9728.
    /// The resource's metadata is another resource's (RFC 9728 §3.3).
    ResourceMetadataDiffers = "resource-metadata-differs",
    /// The resource's metadata is text/plain (RFC 9728 §3.2).
    ResourceMetadataAsText = "resource-metadata-as-text",
    /// The resource's metadata wants tokens in the query (RFC 9728 §2, FAPI 2.0 §5.3.4).
    ResourceMetadataWithQuery = "resource-metadata-with-query",
    /// The resource's keys are found by http (RFC 9728 §2).
    ResourceMetadataJwksWithoutTls = "resource-metadata-jwks-without-tls",
    /// none is among the algorithms of the resource (RFC 9728 §2).
    ResourceMetadataWithAlgorithmNone = "resource-metadata-with-algorithm-none",
    /// The resource's metadata does not name the issuer (RFC 9728 §2).
    ResourceMetadataOtherIssuer = "resource-metadata-other-issuer",
    /// The resource's metadata does not say that tokens are bound (RFC 9728 §2).
    ResourceMetadataWithoutBoundFlag = "resource-metadata-without-bound-flag",
    /// An empty member among the resource's metadata (RFC 9728 §3.2).
    ResourceMetadataWithEmptyMember = "resource-metadata-with-empty-member",
    /// The challenge points at other metadata (RFC 9728 §5.1).
    ChallengeMetadataDiffers = "challenge-metadata-differs",

    // TLS: RFC 9325, FAPI 2.0 §5.2.
    /// TLS 1.0 is spoken (RFC 9325 §3.1.1).
    Tls10 = "tls-1.0",
    /// TLS 1.0 is spoken, a warning in front of the ServerHello (RFC 5246 §7.2).
    Tls10AfterWarning = "tls-1.0-after-warning",
    /// TLS 1.0 is spoken, the ServerHello in one record with the Certificate (RFC 5246 §6.2.1).
    Tls10Coalesced = "tls-1.0-coalesced",
    /// TLS 1.0 is spoken, the ServerHello in two records (RFC 5246 §6.2.1).
    Tls10Split = "tls-1.0-split",
    /// TLS 1.1 is spoken (RFC 9325 §3.1.1).
    Tls11 = "tls-1.1",
    /// TLS 1.2 is all there is (RFC 9325 §3.1.1).
    Tls12Only = "tls-1.2-only",
    /// The first suite is taken, however weak (RFC 9325 §4.2.1).
    WeakSuitesPreferred = "weak-suites-preferred",
    /// Suites without authenticated encryption or forward secrecy are taken (RFC 9325 §4.1).
    WeakSuites = "weak-suites",
    /// Client certificates are not asked for (RFC 8705 §2).
    CertificateNotAskedFor = "certificate-not-asked-for",
}
