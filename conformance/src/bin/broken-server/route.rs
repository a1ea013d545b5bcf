//! Which endpoint a request is for.

use hyper::Method;

use crate::defect::Defect;
use crate::http::{Answer, Asked, Refusal, wrong_method};
use crate::world::World;
use crate::{introspection, metadata, resource, revocation, token};

/// The answer of the endpoint that the path names.
pub(crate) async fn answer(world: &World, asked: &Asked, now: i64) -> Answer {
    let broken = &world.broken;
    let (get, post) = (asked.method == Method::GET || asked.method == Method::HEAD, asked.method == Method::POST);
    match asked.path.as_str() {
        path if path.starts_with("/.well-known/oauth-auth") && broken.is(Defect::MetadataForAnyIssuer) => {
            metadata::of_server(world)
        }
        "/.well-known/oauth-authorization-server" if get => metadata::of_server(world),
        "/.well-known/oauth-protected-resource/accounts" if get => metadata::of_resource(world, &world.resource),
        "/.well-known/oauth-protected-resource/forged" if get => metadata::of_resource(world, &world.forged.resource),
        "/jwks" if get => metadata::keys(world),
        // RFC 6749 §3.2: the client MUST use POST. RFC 7009 §2.1 and RFC 7662 §2.1: by POST.
        "/token" if post || get && broken.is(Defect::AcceptsGetAtToken) || broken.is(Defect::AnyMethodAtToken) => {
            token::answer(world, asked, now).await
        }
        "/revoke" if post || get && broken.is(Defect::RevocationByGet) => revocation::answer(world, asked, now).await,
        "/introspect" if post || get && broken.is(Defect::IntrospectionByGet) => {
            introspection::answer(world, asked, now).await
        }
        "/token" | "/revoke" | "/introspect" => wrong_method(asked, broken, "POST"),
        "/accounts" => resource::accounts(world, asked, now).await,
        "/forged" => resource::forged(world, asked, now).await,
        _ => Refusal::INVALID_REQUEST.with_status(404).into_answer(asked, broken),
    }
}
