// A real OpenID provider for the interop check: the npm package `oidc-provider`, on loopback, with rotating
// refresh tokens, reuse detection and the package's own sign-in and consent screens.
//
//   node provider.mjs PORT [REDIRECT_URI]
//
// PORT 0 takes a free one. Environment:
//   ACCESS_TOKEN_TTL   seconds an access token lives (20)
//   CLIENT_SECRET      the secret of the client `tokenbroker` ("tokenbroker-interop-secret")
//   REDIRECT_URI       where REDIRECT_URI is not an argument
//   ANY_LOOPBACK_REDIRECT=1   for playing (`make playground`): takes every redirect URI on http://127.0.0.1, so that no
//                      broker needs to tell its own, has a page /product that shows what a return URL received, and
//                      does not end with its input
//
// Standard output: one line of JSON when ready ({"event":"ready","issuer":…,"client_id":…,"client_secret":…}).
// Standard error: one line of JSON an event, of which `reuse.detected` and `grant.revoked` matter most.
// Standard input: a line {"redirect_uri":"…"} replaces the client's redirect URI and is answered by an event
// `client.updated` on standard output; the broker only knows its callback once the app is made there. The end
// of the input ends the provider.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const port = Number(process.argv[2] ?? 0);
const ttl = Number(process.env.ACCESS_TOKEN_TTL ?? 20);
const clientId = 'tokenbroker';
const clientSecret = process.env.CLIENT_SECRET ?? 'tokenbroker-interop-secret';
const redirectUri = process.argv[3] ?? process.env.REDIRECT_URI ?? 'http://127.0.0.1:1/not-set';
const anyLoopbackRedirect = process.env.ANY_LOOPBACK_REDIRECT === '1';

const say = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
const log = (event, fields = {}) => process.stderr.write(`${JSON.stringify({ event, at: Date.now(), ...fields })}\n`);

/** What the provider keeps, in memory: one map for all its models, as its adapter interface wants it. */
const kept = new Map();
class Memory {
  constructor(model) {
    this.model = model;
  }
  key(id) {
    return `${this.model}:${id}`;
  }
  async upsert(id, payload) {
    kept.set(this.key(id), payload);
  }
  async find(id) {
    return kept.get(this.key(id));
  }
  async findBy(field, value) {
    for (const [key, payload] of kept) {
      if (key.startsWith(`${this.model}:`) && payload[field] === value) return payload;
    }
    return undefined;
  }
  async findByUid(uid) {
    return this.findBy('uid', uid);
  }
  async findByUserCode(userCode) {
    return this.findBy('userCode', userCode);
  }
  async consume(id) {
    const payload = kept.get(this.key(id));
    // The second use of a rotated refresh token is what this check exists to rule out.
    if (payload?.consumed) log('consumed.twice', { model: this.model });
    if (payload) payload.consumed = Math.floor(Date.now() / 1000);
  }
  async destroy(id) {
    kept.delete(this.key(id));
  }
  async revokeByGrantId(grantId) {
    for (const [key, payload] of kept) {
      if (payload.grantId === grantId) kept.delete(key);
    }
  }
}

/** Stands in for the page of the product behind `return_url`: shows what it received. */
function showReturn(response, parameters) {
  const escape = (text) => text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
  const lines = [...parameters].map(([name, value]) => `<dt>${escape(name)}<dd><code>${escape(value)}</code>`);
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
  response.end(`<!doctype html><title>Product</title><h1>Back in the product</h1><dl>${lines.join('')}</dl>`);
}

function registerClient(redirect) {
  kept.set(`Client:${clientId}`, {
    client_id: clientId,
    client_secret: clientSecret,
    client_name: 'tokenbroker interop',
    redirect_uris: [redirect],
    // A web client may use plain http on a name only; loopback addresses are for native ones.
    application_type: 'native',
    token_endpoint_auth_method: 'client_secret_basic',
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    scope: 'openid offline_access email profile',
  });
}

const server = createServer();
server.listen(port, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  registerClient(redirectUri);

  const provider = new Provider(issuer, {
    adapter: Memory,
    cookies: { keys: ['tokenbroker-interop'] },
    // Its default lets a token live on past its end, which the check would take for a bug.
    clockTolerance: 0,
    claims: {
      openid: ['sub'],
      email: ['email', 'email_verified'],
      profile: ['name', 'preferred_username', 'picture'],
    },
    clientDefaults: { id_token_signed_response_alg: 'RS256' },
    features: {
      devInteractions: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      userinfo: { enabled: true },
    },
    findAccount: (_ctx, sub) => ({
      accountId: sub,
      claims: () => ({
        sub,
        name: `Person ${sub}`,
        preferred_username: sub,
        picture: `${issuer}/avatars/${encodeURIComponent(sub)}.png`,
        email: `${sub}@example.test`,
        email_verified: true,
      }),
    }),
    issueRefreshToken: async (_ctx, client, code) =>
      client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    pkce: { required: () => true },
    rotateRefreshToken: true,
    ttl: { AccessToken: ttl, IdToken: 600, RefreshToken: 86400, Grant: 86400, Session: 3600, Interaction: 600 },
  });

  if (anyLoopbackRedirect) {
    const known = provider.Client.prototype.redirectUriAllowed;
    provider.Client.prototype.redirectUriAllowed = function redirectUriAllowed(uri) {
      const url = URL.canParse(uri) ? new URL(uri) : undefined;
      return (url?.protocol === 'http:' && url.hostname === '127.0.0.1') || known.call(this, uri);
    };
  }

  provider.on('grant.success', (ctx) => {
    log('grant.success', { grant_type: ctx.oidc.params.grant_type, rotated: Boolean(ctx.oidc.entities.RotatedRefreshToken) });
  });
  provider.on('grant.error', (ctx, error) => {
    const detail = error.error_detail;
    log('grant.error', { grant_type: ctx.oidc?.params?.grant_type, error: error.error, detail });
    if (detail === 'refresh token already used') log('reuse.detected', { grant_type: 'refresh_token' });
  });
  provider.on('grant.revoked', (ctx, grantId) => {
    log('grant.revoked', { grant_id: grantId, endpoint: ctx.oidc?.route });
  });
  provider.on('revocation.error', (_ctx, error) => log('revocation.error', { error: error.error, detail: error.error_detail }));
  provider.on('refresh_token.destroyed', () => log('refresh_token.destroyed'));
  provider.on('access_token.destroyed', () => log('access_token.destroyed'));
  provider.on('authorization.success', () => log('authorization.success'));
  provider.on('authorization.error', (_ctx, error) => log('authorization.error', { error: error.error, detail: error.error_description }));
  provider.on('server_error', (_ctx, error) => log('server_error', { detail: String(error?.stack ?? error) }));

  const answer = provider.callback();
  server.on('request', (request, response) => {
    const url = new URL(request.url, issuer);
    if (anyLoopbackRedirect && url.pathname === '/product') showReturn(response, url.searchParams);
    else answer(request, response);
  });
  say('ready', { issuer, client_id: clientId, client_secret: clientSecret, access_token_ttl: ttl });
});

function stop() {
  server.close();
  server.closeAllConnections();
}

const input = createInterface({ input: process.stdin });
input.on('line', (line) => {
  const { redirect_uri: redirect } = JSON.parse(line);
  registerClient(redirect);
  say('client.updated', { redirect_uri: redirect });
});
input.on('close', () => {
  if (!anyLoopbackRedirect) stop();
});
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    input.close();
    stop();
  });
}
