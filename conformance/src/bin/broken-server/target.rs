//! The target file, with all that it names.

use std::fs;
use std::io;
use std::path::Path;

use countersign_conformance::cast::{write_credential, write_private};

use crate::world::{OTHER_SCOPE, Parties, SCOPE, World};

/// Writes target.toml and the certificates and keys beside it.
///
/// # Errors
/// Where the directory cannot be written to.
pub(crate) fn write(directory: &Path, world: &World, parties: &Parties) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let write = |name: &str, content: &str| fs::write(directory.join(name), content);
    write("server-ca.pem", &parties.server_authority.to_pem())?;
    write("client-ca.pem", &parties.client_authority.to_pem())?;
    write_private(&directory.join("client-ca.key"), &parties.client_authority.key.to_pem())?;
    write_private(&directory.join("assertion.key"), &parties.jwt_key.to_pem())?;
    write_credential(directory, "client", &parties.client)?;
    write_credential(directory, "client2", &parties.client2)?;
    write_credential(directory, "client-jwt", &parties.jwt)?;
    write_credential(directory, "client-self-signed", &parties.self_signed)?;
    write_credential(directory, "introspection", &parties.introspector)?;
    write_credential(directory, "judge", &parties.judge)?;
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
key = "client.key"

[client2]
id = "client-b"
certificate = "client2.pem"
key = "client2.key"

[client_jwt]
id = "client-j"
key = "assertion.key"
kid = "{kid}"
alg = "ES256"
certificate = "client-jwt.pem"
certificate_key = "client-jwt.key"

[client_self_signed]
id = "client-s"
certificate = "client-self-signed.pem"
key = "client-self-signed.key"

[ca]
certificate = "client-ca.pem"
key = "client-ca.key"

[introspection]
id = "accounts"
certificate = "introspection.pem"
key = "introspection.key"

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
key = "judge.key"
wait_seconds = 2
"#,
        forged_resource = forged.resource,
        forged_issuer = forged.issuer,
        listen = forged.listen,
    )
}
