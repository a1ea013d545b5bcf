//! The target file, with all that it names.

use std::fs;
use std::io;
use std::path::Path;

use countersign_conformance::key::pem;
use countersign_conformance::pki::Credential;

use crate::world::{OTHER_SCOPE, Parties, SCOPE, World};

/// Writes target.toml and the certificates and keys beside it.
///
/// # Errors
/// Where the directory cannot be written to.
pub(crate) fn write(directory: &Path, world: &World, parties: &Parties) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let write = |name: &str, content: &str| fs::write(directory.join(name), content);
    let credential = |name: &str, credential: &Credential| {
        write(&format!("{name}.pem"), &credential.chain_pem())?;
        write(&format!("{name}.key.pem"), &credential.key.to_pem())
    };
    write("server-ca.pem", &parties.server_authority.to_pem())?;
    write("client-ca.pem", &parties.client_authority.to_pem())?;
    write("client-ca.key.pem", &parties.client_authority.key.to_pem())?;
    write("assertion.key.pem", &pem("PRIVATE KEY", parties.jwt_key.pkcs8()))?;
    credential("client", &parties.client)?;
    credential("client2", &parties.client2)?;
    credential("client-jwt", &parties.jwt)?;
    credential("client-self-signed", &parties.self_signed)?;
    credential("introspection", &parties.introspector)?;
    credential("judge", &parties.judge)?;
    write("target.toml", &target(world, parties))
}

fn target(world: &World, parties: &Parties) -> String {
    let (issuer, resource) = (&world.issuer, &world.resource);
    let kid = parties.jwt_key.jwk_thumbprint();
    let forged = &world.forged;
    format!(
        r#"# A server that is broken on purpose, or not: written by broken-server.

issuer = "{issuer}"
roots = "server-ca.pem"
scope = "{SCOPE}"
other_scope = "{OTHER_SCOPE}"
resource = "{resource}"

[client]
id = "client-a"
certificate = "client.pem"
key = "client.key.pem"

[client2]
id = "client-b"
certificate = "client2.pem"
key = "client2.key.pem"

[client_jwt]
id = "client-j"
key = "assertion.key.pem"
kid = "{kid}"
alg = "ES256"
certificate = "client-jwt.pem"
certificate_key = "client-jwt.key.pem"

[client_self_signed]
id = "client-s"
certificate = "client-self-signed.pem"
key = "client-self-signed.key.pem"

[ca]
certificate = "client-ca.pem"
key = "client-ca.key.pem"

[introspection]
id = "accounts"
certificate = "introspection.pem"
key = "introspection.key.pem"

[protected_resource]
url = "{resource}"
method = "GET"
roots = "server-ca.pem"
metadata = "{issuer}/.well-known/oauth-protected-resource/accounts"

[forged]
url = "{forged_resource}"
audience = "{forged_resource}"
scope = "{SCOPE}"
issuer = "{forged_issuer}"
listen = "{listen}"
certificate = "judge.pem"
key = "judge.key.pem"
wait_seconds = 2
"#,
        forged_resource = forged.resource,
        forged_issuer = forged.issuer,
        listen = forged.listen,
    )
}
