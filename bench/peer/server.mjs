// npm's oidc-provider as a token endpoint like ours: tls_client_auth, client_credentials, certificate-bound JWTs by ES256,
// on the benchmark's own certificates. Nothing of it is slowed down: state is in memory, nothing is logged, and a
// connection's certificate is read once.
//
//   node server.mjs POPULATION PORT CLIENTS

import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';

import Provider from 'oidc-provider';

const [population, port, clients] = process.argv.slice(2);
const file = (name) => readFileSync(join(population, name));

const RESOURCE = 'https://api.bench.example';
const SCOPE = 'accounts:read';

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const certificates = new WeakMap();

function certificateOf(ctx) {
  const { socket } = ctx.req;
  let certificate = certificates.get(socket);
  if (!certificate) {
    certificate = socket.getPeerX509Certificate();
    if (certificate) {
      certificates.set(socket, certificate);
    }
  }
  return certificate;
}

const provider = new Provider(`https://localhost:${port}`, {
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
  scopes: [SCOPE],
  clientAuthMethods: ['tls_client_auth'],
  // As population.rs numbers them.
  clients: Array.from({ length: Number(clients) }, (_, number) => ({
    client_id: `bench-${number}`,
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    scope: SCOPE,
    id_token_signed_response_alg: 'ES256',
    token_endpoint_auth_method: 'tls_client_auth',
    tls_client_auth_san_dns: `c${number}.partner-${Math.floor(number / 1000)}.bench.example`,
    tls_client_certificate_bound_access_tokens: true,
  })),
  ttl: { ClientCredentials: 300 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    mTLS: {
      enabled: true,
      tlsClientAuth: true,
      certificateBoundAccessTokens: true,
      getCertificate: certificateOf,
      certificateAuthorized: (ctx) => ctx.req.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) =>
        property === 'tls_client_auth_san_dns' && certificateOf(ctx).subjectAltName === `DNS:${expected}`,
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => RESOURCE,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        audience: RESOURCE,
        scope: SCOPE,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 300,
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
});

const server = createServer(
  {
    cert: file('server.pem'),
    key: file('server.key'),
    ca: file('clients-ca.pem'),
    requestCert: true,
    rejectUnauthorized: false,
    ALPNProtocols: ['http/1.1'],
    keepAliveTimeout: 60_000,
  },
  provider.callback(),
);
server.keepAliveTimeout = 60_000;
server.listen(Number(port), '127.0.0.1');
