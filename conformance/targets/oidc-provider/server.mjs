// npm's oidc-provider as a party that the judge can look at: RFC 8705 in both its ways, private_key_jwt, JWT access tokens
// bound to certificates for one resource and opaque ones for another, introspection and revocation. It is set up by its own
// documentation as strictly as it allows (FAPI 2.0 profile), so that what fails is its own.
//
//   node server.mjs DIRECTORY PORT
//
// DIRECTORY is what `cast` writes. State is in memory.

import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';

import Provider, { errors } from 'oidc-provider';

const [directory, port] = process.argv.slice(2);
const file = (name) => readFileSync(join(directory, name), 'utf8');

const SCOPE = 'accounts:read';
const OTHER_SCOPE = 'payments:write';
const DOMAIN = 'judge.example';
/** Tokens for this one are JWTs (RFC 9068). */
const JWT_RESOURCE = `https://api.${DOMAIN}`;
/** Tokens for this one are opaque: oidc-provider answers no questions about JWTs. */
const OPAQUE_RESOURCE = `https://opaque.${DOMAIN}`;

const certificateOf = (ctx) => ctx.req.socket.getPeerX509Certificate();

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const { privateKey: edwards } = generateKeyPairSync('ed25519');

const machine = (id, scope, rest) => ({
  client_id: id,
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
  scope,
  id_token_signed_response_alg: 'ES256',
  introspection_signed_response_alg: 'ES256',
  tls_client_certificate_bound_access_tokens: true,
  ...rest,
});
const byName = (name) => ({
  token_endpoint_auth_method: 'tls_client_auth',
  tls_client_auth_san_dns: `${name}.${DOMAIN}`,
});

const provider = new Provider(`https://localhost:${port}`, {
  jwks: {
    keys: [
      { ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig', kid: 'es256' },
      { ...edwards.export({ format: 'jwk' }), alg: 'EdDSA', use: 'sig', kid: 'eddsa' },
    ],
  },
  scopes: [SCOPE, OTHER_SCOPE],
  clientAuthMethods: ['tls_client_auth', 'self_signed_tls_client_auth', 'private_key_jwt'],
  enabledJWA: {
    clientAuthSigningAlgValues: ['ES256', 'EdDSA', 'PS256'],
    introspectionSigningAlgValues: ['ES256'],
    idTokenSigningAlgValues: ['ES256'],
  },
  clients: [
    machine('client', SCOPE, byName('client')),
    machine('client2', `${SCOPE} ${OTHER_SCOPE}`, byName('client2')),
    machine('introspection', undefined, byName('introspection')),
    machine('client_self_signed', SCOPE, {
      token_endpoint_auth_method: 'self_signed_tls_client_auth',
      jwks: JSON.parse(file('client_self_signed.jwks.json')),
    }),
    machine('client_jwt', SCOPE, {
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      jwks: JSON.parse(file('client_jwt.jwks.json')),
    }),
  ],
  ttl: { ClientCredentials: 300 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    fapi: { enabled: true, profile: '2.0' },
    introspection: {
      enabled: true,
      allowedPolicy: (_ctx, client, token) => client.clientId === 'introspection' || client.clientId === token.clientId,
    },
    jwtIntrospection: { enabled: true },
    revocation: { enabled: true },
    mTLS: {
      enabled: true,
      tlsClientAuth: true,
      selfSignedTlsClientAuth: true,
      certificateBoundAccessTokens: true,
      getCertificate: certificateOf,
      certificateAuthorized: (ctx) => ctx.req.socket.authorized,
      // Node quotes a name that has a comma or a quote in it, so that none can be taken for two.
      certificateSubjectMatches: (ctx, property, expected) =>
        property === 'tls_client_auth_san_dns' &&
        (certificateOf(ctx).subjectAltName ?? '').split(', ').includes(`DNS:${expected}`),
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => JWT_RESOURCE,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => {
        if (resource !== JWT_RESOURCE && resource !== OPAQUE_RESOURCE) {
          throw new errors.InvalidTarget();
        }
        return {
          audience: resource,
          scope: `${SCOPE} ${OTHER_SCOPE}`,
          accessTokenTTL: 300,
          ...(resource === JWT_RESOURCE
            ? { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256', kid: 'es256' } } }
            : { accessTokenFormat: 'opaque' }),
        };
      },
    },
  },
});

const server = createServer(
  {
    cert: file('server.pem'),
    key: file('server.key'),
    ca: [file('ca.pem'), file('ca2.pem')],
    requestCert: true,
    rejectUnauthorized: false,
    minVersion: 'TLSv1.2',
    // RFC 9325 §4.2: Node's own list has more.
    ciphers: [
      'TLS_AES_128_GCM_SHA256',
      'TLS_AES_256_GCM_SHA384',
      'TLS_CHACHA20_POLY1305_SHA256',
      'ECDHE-ECDSA-AES128-GCM-SHA256',
      'ECDHE-ECDSA-AES256-GCM-SHA384',
      'ECDHE-RSA-AES128-GCM-SHA256',
      'ECDHE-RSA-AES256-GCM-SHA384',
    ].join(':'),
    ALPNProtocols: ['http/1.1'],
  },
  provider.callback(),
);
server.listen(Number(port), '127.0.0.1', () => console.log(`ready: https://localhost:${port}`));
