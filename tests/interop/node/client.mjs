// openid-client discovers the server (RFC 8414), authenticates by tls_client_auth and calls the API, all over one
// undici agent that holds the certificate.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import * as oauth from 'openid-client'
import { Agent, fetch } from 'undici'

const require = createRequire(import.meta.url)
const version = (name) => JSON.parse(readFileSync(require.resolve(name).replace(new RegExp(`(node_modules/${name})/.*`), '$1/package.json'))).version
console.log(`node ${process.version}, openid-client ${version('openid-client')}, undici ${version('undici')}`)

const env = (name) => process.env[`COUNTERSIGN_${name}`]
const dispatcher = new Agent({
  connect: {
    ca: readFileSync(env('CA')),
    cert: readFileSync(env('CERTIFICATE')),
    key: readFileSync(env('KEY')),
  },
})

const config = await oauth.discovery(
  new URL(env('ISSUER')),
  env('CLIENT_ID'),
  { use_mtls_endpoint_aliases: true },
  oauth.TlsClientAuth(),
  { algorithm: 'oauth2', [oauth.customFetch]: (url, options) => fetch(url, { ...options, dispatcher }) },
)
const tokens = await oauth.clientCredentialsGrant(config, { scope: env('SCOPE'), resource: env('RESOURCE') })
const answer = await oauth.fetchProtectedResource(config, tokens.access_token, new URL(env('API')), 'GET')
await answer.text()
console.log(`API ${answer.status}`)
await dispatcher.close()
