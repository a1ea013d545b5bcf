// A rehearsal of what the OpenID Foundation's suite does with a plan's configuration under the client credentials profile:
// its modules by name, each reduced to the requests it makes and the answers it takes. It reads nothing but the plan, as the
// suite does, so it shows that the plan is whole. It is not the suite, and passing it certifies nothing.
//
//   node rehearse.mjs PLAN.json SERVERS-CA.pem

import { createPrivateKey, randomUUID, sign, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';

const [planFile, rootsFile] = process.argv.slice(2);
const plan = JSON.parse(readFileSync(planFile, 'utf8'));
const ca = readFileSync(rootsFile, 'utf8');
const assertions = plan.alias.endsWith('private-key-jwt');

const clients = [
  { ...plan.client, tls: plan.mtls },
  { ...plan.client2, tls: plan.mtls2 },
];
const [first, second] = clients;

/** One request on a connection of its own; `tls` is whose certificate. An alert counts as an answer. */
function ask(url, { tls, method = 'GET', form, headers = {} } = {}) {
  const body = form && new URLSearchParams(form).toString();
  return new Promise((resolve, reject) => {
    const sent = request(url, {
      method,
      ca,
      agent: false,
      // A name that only containers know stands for this machine.
      lookup: (_name, options, done) =>
        options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4),
      cert: tls && tls.cert + tls.ca,
      key: tls?.key,
      headers: body ? { 'Content-Type': 'application/x-www-form-urlencoded', ...headers } : headers,
    });
    sent.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part) => (text += part));
      response.on('end', () => {
        const json = /^application\/(?:[\w.-]+\+)?json/.test(response.headers['content-type'] ?? '');
        resolve({ status: response.statusCode, headers: response.headers, body: json ? JSON.parse(text) : text });
      });
    });
    sent.on('error', (error) =>
      /alert|EPROTO|ECONNRESET/.test(`${error.code} ${error.message}`) ? resolve({ refused: true }) : reject(error),
    );
    sent.end(body);
  });
}

function assertion(client, audience, change = {}, header = {}, key = client.jwks.keys[0]) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = { iss: client.client_id, sub: client.client_id, aud: audience, jti: randomUUID(), iat: now, exp: now + 60 };
  const input = `${part({ alg: key.alg, kid: key.kid, ...header })}.${part({ ...claims, ...change })}`;
  const signature = sign('sha256', Buffer.from(input), {
    key: createPrivateKey({ key, format: 'jwk' }),
    dsaEncoding: 'ieee-p1363',
  });
  return `${input}.${signature.toString('base64url')}`;
}

const proof = (client, audience, ...rest) =>
  assertions
    ? {
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: assertion(client, audience, ...rest),
      }
    : { client_id: client.client_id };

let failed = 0;
function check(holds, what) {
  console.log(`  ${holds ? 'ok  ' : 'FAIL'} ${what}`);
  failed += holds ? 0 : 1;
}
const refusal = (answer, ...codes) =>
  answer.refused || (answer.status >= 400 && answer.status < 500 && codes.includes(answer.body?.error));
const said = (answer) => (answer.refused ? 'TLS' : `${answer.status} ${answer.body?.error ?? ''}`);

console.log(`${plan.description}\nconfiguration`);
for (const { client_id: id, jwks, tls } of clients) {
  check(new X509Certificate(tls.cert).checkPrivateKey(createPrivateKey(tls.key)), `${id}: the key is the certificate's`);
  check(new X509Certificate(tls.cert).verify(new X509Certificate(tls.ca).publicKey), `${id}: the certificate is the CA's`);
  check(jwks.keys.every((key) => key.d && key.kid && key.alg), `${id}: every JWK has d, kid and alg`);
}
const kids = clients.flatMap(({ jwks }) => jwks.keys.map(({ kid }) => kid));
check(new Set(kids).size === kids.length, 'every kid once');
check(first.jwks.keys[0].x !== second.jwks.keys[0].x && first.tls.key !== second.tls.key, 'the clients have different keys');

console.log('fapi2-security-profile-final-discovery-end-point-verification');
const { status, headers, body: server } = await ask(plan.server.discoveryUrl);
check(status === 200 && headers['content-type'].startsWith('application/json'), '200, application/json');
check(plan.server.discoveryUrl.startsWith(`${new URL(server.issuer).origin}/.well-known/`), 'the issuer is where it was found');
check(server.tls_client_certificate_bound_access_tokens === true, 'tls_client_certificate_bound_access_tokens');
check(server.grant_types_supported.includes('client_credentials'), 'client_credentials');
const methods = server.token_endpoint_auth_methods_supported;
check(assertions ? methods.includes('private_key_jwt') : methods.includes('tls_client_auth'), 'the way to prove oneself');
const algorithms = server.token_endpoint_auth_signing_alg_values_supported ?? [];
check(algorithms.some((name) => ['PS256', 'ES256', 'EdDSA'].includes(name)), 'one of PS256, ES256, EdDSA for assertions');

const token = server.mtls_endpoint_aliases?.token_endpoint ?? server.token_endpoint;
const grant = (client) => ({ grant_type: 'client_credentials', scope: client.scope });
const issue = (client, tls, form) => ask(token, { tls, method: 'POST', form: { ...grant(client), ...form } });
const call = (tls, accessToken, more = {}, scheme = 'Bearer', query = '') =>
  ask(plan.resource.resourceUrl + query, { tls, headers: { ...(scheme && { Authorization: `${scheme} ${accessToken}` }), ...more } });

console.log('fapi2-security-profile-final-happy-flow');
const issued = [];
for (const client of clients) {
  const answer = await issue(client, client.tls, proof(client, server.issuer));
  check(answer.status === 200, `${client.client_id}: a token (${said(answer)})`);
  check(answer.body.token_type?.toLowerCase() === 'bearer' && answer.body.expires_in > 0, 'token_type, expires_in');
  check(!('refresh_token' in answer.body) && !('id_token' in answer.body), 'no refresh token, no ID token');
  issued.push(answer.body.access_token);
  const interaction = { 'x-fapi-interaction-id': randomUUID(), 'x-fapi-customer-ip-address': '198.51.100.1' };
  const called = await call(client.tls, answer.body.access_token, interaction);
  check(called.status === 200 && 'date' in called.headers, `the resource, with a Date (${said(called)})`);
}
for (const accept of ['application/json;charset=UTF-8', 'application/json, application/*+json, */*']) {
  check((await call(first.tls, issued[0], { Accept: accept })).status === 200, `Accept: ${accept}`);
}
const inQuery = await call(first.tls, '', {}, '', `?access_token=${issued[0]}`);
check(inQuery.status >= 400, `a token in the query is refused (${inQuery.status})`);
const stolen = await call(first.tls, issued[1]);
check(stolen.status === 401, `the second client's token with the first's certificate is refused (${stolen.status})`);

console.log('fapi2-security-profile-final-access-token-type-header-case-sensitivity');
check((await call(first.tls, issued[0], {}, 'bEARER')).status === 200, 'bEARER');

console.log('fapi2-security-profile-final-ensure-client-id-in-token-endpoint');
const swapped = assertions
  ? { client_id: second.client_id, ...proof(second, server.issuer, {}, {}, first.jwks.keys[0]) }
  : { client_id: second.client_id };
let answer = await issue(first, first.tls, swapped);
check(refusal(answer, 'invalid_client', 'invalid_grant'), `the other's client_id (${said(answer)})`);

console.log('fapi2-security-profile-final-ensure-holder-of-key-required');
answer = await issue(first, undefined, { client_id: first.client_id, ...proof(first, server.issuer) });
check(refusal(answer, 'invalid_client', 'invalid_request', 'invalid_grant'), `no certificate (${said(answer)})`);

if (assertions) {
  const now = Math.floor(Date.now() / 1000);
  const wrong = async (module, what, form) => {
    console.log(`fapi2-security-profile-final-${module}`);
    const given = await issue(first, first.tls, form);
    check(refusal(given, 'invalid_client', 'invalid_request'), `${what} (${said(given)})`);
  };
  await wrong('ensure-client-assertion-in-token-endpoint', 'no assertion', { client_id: first.client_id });
  await wrong(
    'ensure-client-assertion-with-exp-is-5-minutes-in-past-fails',
    'expired five minutes ago',
    proof(first, server.issuer, { iat: now - 360, exp: now - 300 }),
  );
  await wrong('ensure-client-assertion-with-wrong-aud-fails', "another server's", proof(first, 'https://other.example'));
  await wrong('ensure-client-assertion-with-no-sub-fails', 'no sub', {
    client_id: first.client_id,
    ...proof(first, server.issuer, { sub: undefined }),
  });
  await wrong('ensure-signed-client-assertion-with-RS256-fails', 'RS256', proof(first, server.issuer, {}, { alg: 'RS256' }));
}

console.log(failed ? `${failed} failed` : 'all of it held');
process.exit(failed ? 1 : 0);
