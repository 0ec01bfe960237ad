// Our own authorisation server against clients that nobody here wrote: the npm package openid-client and Python's
// authlib (issuer.py), with a real browser between them; then its pages, looked at by pages.mjs.
// Prints a line a check and ends with "N passed, M failed". Started by run.sh.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { createRemoteJWKSet, exportJWK, generateKeyPair, jwtVerify } from 'jose';
import * as oidc from 'openid-client';
import { launch } from './browser.mjs';
import { Broker } from './broker.mjs';
import * as checks from './checks.mjs';
import { check, equal } from './checks.mjs';
import { lookAtPages } from './pages.mjs';
import { walk } from './person.mjs';
import { Process, freePort, stopAll } from './processes.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const RESOURCE = 'https://api.example.test/workflows';
const SCOPES = ['openid', 'profile', 'email', 'offline_access', 'workflows.read', 'workflows.run'];
/** Without the scopes of OpenID Connect, which need a person. */
const OWN_SCOPES = ['workflows.read', 'workflows.run'];

/** What a refused call was answered; `none` where it was not refused. */
async function refusal(call) {
  try {
    await call;
    return 'none';
  } catch (error) {
    // A challenge to prove who one is has the error in the body, one to bring a token in the header.
    const told = error.error ?? error.cause?.[0]?.parameters?.error;
    return told ?? (await error.response?.json().catch(() => undefined))?.error ?? String(error);
  }
}

/** The third party: browsers come back to its page. */
async function thirdParty() {
  const server = createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/html' });
    response.end('<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>Acme</title><h1>Acme</h1></html>');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, redirectUri: `http://127.0.0.1:${server.address().port}/callback` };
}

/** The broker with its endpoints on, the clients registered there, and the people. */
class Stage {
  static async start(redirectUri) {
    const stage = new Stage();
    const listen = `127.0.0.1:${await freePort()}`;
    stage.issuer = `http://${listen}`;
    stage.redirectUri = redirectUri;
    stage.resource = RESOURCE;
    stage.broker = await Broker.start({
      'issuer.listen': listen,
      'issuer.url': stage.issuer,
      'issuer.scopes.workflows.read': 'See your workflows',
      'issuer.scopes.workflows.run': 'Run your workflows in your name',
      'issuer.resources': JSON.stringify([RESOURCE]),
      'issuer.device_interval': '1s',
      // Clients have to take a nonce and ask again.
      'issuer.require_dpop_nonce': 'true',
    });
    return stage;
  }

  /** Registers a client and approves it. */
  async register(method, grants, more = {}) {
    const made = await this.broker.call('CreateClient', {
      client: {
        name: 'Acme Automation',
        description: 'Connects your apps and runs your workflows while you sleep.',
        homepage_url: 'https://acme.example',
        auth_method: `CLIENT_AUTH_METHOD_${method}`,
        grant_types: grants.map((grant) => `CLIENT_GRANT_TYPE_${grant}`),
        redirect_uris: grants.includes('AUTHORIZATION_CODE') ? [this.redirectUri] : [],
        allowed_scopes: SCOPES,
        ...more,
      },
    });
    const { id } = made.client;
    await this.broker.call('ApproveClient', { client_id: id, reason: 'interop' });
    return { id, secret: made.client_secret };
  }

  /** Makes somebody who can sign in. */
  async person(name) {
    const person = { name, email: `${name}@example.test`, password: `an uncommon phrase ${randomUUID()}` };
    const { user } = await this.broker.call('CreateUser', {
      email: person.email, email_verified: true, display_name: `Person ${name}`, password: person.password,
    });
    return { ...person, id: user.id };
  }

  /** openid-client's view of this server, as one of the clients. */
  async discover(client, authentication, metadata) {
    const config = await oidc.discovery(new URL(this.issuer), client.id, metadata, authentication, {
      execute: [oidc.allowInsecureRequests],
    });
    // Signatures of ID tokens are checked, although they come straight from here.
    oidc.enableNonRepudiationChecks(config);
    return config;
  }
}

/** What openid-client asks for, and how it then judges the answer. */
async function request(config, stage, more = {}) {
  const pkceCodeVerifier = oidc.randomPKCECodeVerifier();
  const expected = { pkceCodeVerifier, expectedState: oidc.randomState(), expectedNonce: oidc.randomNonce(), idTokenExpected: true };
  const parameters = {
    redirect_uri: stage.redirectUri,
    scope: 'openid profile email workflows.read',
    code_challenge: await oidc.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
    state: expected.expectedState,
    nonce: expected.expectedNonce,
    ...more,
  };
  return { parameters, expected };
}

/** Code and PKCE, ID token, user info, refreshing, introspection, revocation. */
async function code(stage, browser, person) {
  const client = await stage.register('CLIENT_SECRET_BASIC', ['AUTHORIZATION_CODE', 'REFRESH_TOKEN']);
  const config = await stage.discover(client, oidc.ClientSecretBasic(client.secret));
  equal('discovery answers the issuer', config.serverMetadata().issuer, stage.issuer);
  check('and says that PKCE with S256 is there', config.serverMetadata().supportsPKCE());

  const { parameters, expected } = await request(config, stage);
  const seen = await walk(browser, oidc.buildAuthorizationUrl(config, parameters), { person });
  equal('the browser went through sign-in and consent', seen.screens, ['sign-in', 'consent']);
  equal('and had nothing to complain of', seen.complaints, []);
  equal('it came back with code, state and issuer', [...seen.url.searchParams.keys()].sort(), ['code', 'iss', 'state']);
  const tokens = await oidc.authorizationCodeGrant(config, seen.url, expected);
  const claims = tokens.claims();
  equal('the ID token is of the person', [claims.sub, claims.email, claims.name], [person.id, person.email, `Person ${person.name}`]);
  check('it says when they signed in', Math.abs(claims.auth_time - Date.now() / 1000) < 60, claims);
  equal('no more was granted than asked for', tokens.scope, parameters.scope);
  const info = await oidc.fetchUserInfo(config, tokens.access_token, claims.sub);
  equal('user info knows them', [info.email, info.email_verified, info.name], [person.email, true, `Person ${person.name}`]);

  const second = await oidc.refreshTokenGrant(config, tokens.refresh_token);
  check('a refresh answers new tokens', second.access_token !== tokens.access_token && second.refresh_token !== tokens.refresh_token);
  const third = await oidc.refreshTokenGrant(config, second.refresh_token);
  const known = await oidc.tokenIntrospection(config, third.access_token);
  equal('introspection knows the new one',
    [known.active, known.sub, known.client_id, known.iss, known.scope], [true, person.id, client.id, stage.issuer, parameters.scope]);
  const less = await oidc.refreshTokenGrant(config, third.refresh_token, { scope: 'workflows.read' });
  equal('a refresh can ask for less', less.scope, 'workflows.read');
  equal('an old refresh token is refused', await refusal(oidc.refreshTokenGrant(config, tokens.refresh_token)), 'invalid_grant');
  equal('and takes the new ones along', (await oidc.tokenIntrospection(config, less.access_token)).active, false);
  equal('user info is refused then', await refusal(oidc.fetchUserInfo(config, less.access_token, claims.sub)), 'invalid_token');

  const again = await request(config, stage);
  const back = (await walk(browser, oidc.buildAuthorizationUrl(config, again.parameters), { person })).url;
  const fresh = await oidc.authorizationCodeGrant(config, back, again.expected);
  await oidc.tokenRevocation(config, fresh.refresh_token, { token_type_hint: 'refresh_token' });
  equal('revoking ends all of it', (await oidc.tokenIntrospection(config, fresh.access_token)).active, false);
  equal('and nothing is refreshed', await refusal(oidc.refreshTokenGrant(config, fresh.refresh_token)), 'invalid_grant');
  equal('a code is good once', await refusal(oidc.authorizationCodeGrant(config, back, again.expected)), 'invalid_grant');

  const declined = await request(config, stage);
  const no = await walk(browser, oidc.buildAuthorizationUrl(config, declined.parameters), { person, decision: 'deny' });
  equal('a no comes back as such', await refusal(oidc.authorizationCodeGrant(config, no.url, declined.expected)), 'access_denied');
}

/** Tokens of a client's own, by each method of proving who it is. */
async function clientCredentials(stage) {
  const { publicKey, privateKey } = await generateKeyPair('ES256');
  const jwk = { ...await exportJWK(publicKey), kid: 'interop', alg: 'ES256', use: 'sig' };
  const methods = [
    ['CLIENT_SECRET_BASIC', {}, ({ secret }) => oidc.ClientSecretBasic(secret)],
    ['CLIENT_SECRET_POST', {}, ({ secret }) => oidc.ClientSecretPost(secret)],
    ['PRIVATE_KEY_JWT', { jwks: JSON.stringify({ keys: [jwk] }) }, () => oidc.PrivateKeyJwt({ key: privateKey, kid: 'interop' })],
  ];
  for (const [method, more, authentication] of methods) {
    const name = method.toLowerCase();
    const client = await stage.register(method, ['CLIENT_CREDENTIALS'], { allowed_scopes: OWN_SCOPES, ...more });
    const config = await stage.discover(client, authentication(client));
    const tokens = await oidc.clientCredentialsGrant(config, { scope: 'workflows.read', resource: RESOURCE });
    const known = await oidc.tokenIntrospection(config, tokens.access_token);
    equal(`${name}: a token of the client's own`, [known.active, known.sub, known.aud], [true, client.id, [RESOURCE]]);
    await oidc.tokenRevocation(config, tokens.access_token);
    equal(`${name}: revoked`, (await oidc.tokenIntrospection(config, tokens.access_token)).active, false);
    equal(`${name}: a resource that is not ours is refused`,
      await refusal(oidc.clientCredentialsGrant(config, { resource: 'https://other.example' })), 'invalid_target');
  }
  const wrong = await stage.register('CLIENT_SECRET_BASIC', ['CLIENT_CREDENTIALS']);
  const config = await stage.discover(wrong, oidc.ClientSecretBasic('tbc_nothing'));
  equal('a wrong secret is refused', await refusal(oidc.clientCredentialsGrant(config)), 'invalid_client');
}

/** JWT access tokens (RFC 9068), which a resource server judges by the published keys. */
async function selfContained(stage) {
  const client = await stage.register('CLIENT_SECRET_POST', ['CLIENT_CREDENTIALS'], {
    allowed_scopes: OWN_SCOPES, access_token_format: 'ACCESS_TOKEN_FORMAT_JWT',
  });
  const config = await stage.discover(client, oidc.ClientSecretPost(client.secret));
  const tokens = await oidc.clientCredentialsGrant(config, { scope: 'workflows.read', resource: RESOURCE });
  const keys = createRemoteJWKSet(new URL(config.serverMetadata().jwks_uri));
  const { payload } = await jwtVerify(tokens.access_token, keys, {
    issuer: stage.issuer, audience: RESOURCE, typ: 'at+jwt', algorithms: ['ES256'], requiredClaims: ['iat', 'exp', 'jti', 'client_id'],
  });
  equal('jose verifies a JWT access token', [payload.sub, payload.scope], [client.id, 'workflows.read']);
}

/** A device without a browser: Chromium, elsewhere, types its code. */
async function device(stage, browser, person) {
  const client = await stage.register('NONE', ['DEVICE_CODE', 'REFRESH_TOKEN'], { name: 'Acme TV' });
  const config = await stage.discover(client, oidc.None());
  const begun = await oidc.initiateDeviceAuthorization(config, { scope: 'openid workflows.read' });
  // It asks from now on, and is told to wait.
  const polling = oidc.pollDeviceAuthorizationGrant(config, begun);
  const seen = await walk(browser, begun.verification_uri, { person, code: begun.user_code.toLowerCase() });
  equal('the device: a code, sign-in and consent', [seen.screens, seen.title], [['device', 'sign-in', 'consent'], 'Your device is connected']);
  const tokens = await polling;
  equal('the device got tokens', [tokens.claims().sub, tokens.scope], [person.id, 'openid workflows.read']);
  check('and refreshes them', (await oidc.refreshTokenGrant(config, tokens.refresh_token)).access_token !== tokens.access_token);
  const other = await oidc.initiateDeviceAuthorization(config, { scope: 'workflows.read' });
  const no = walk(browser, other.verification_uri_complete, { person, code: other.user_code, decision: 'deny' });
  equal('a device is told of a no', [await refusal(oidc.pollDeviceAuthorizationGrant(config, other)), (await no).title],
    ['access_denied', 'The device was not connected']);
}

/** Tokens bound to a key (RFC 9449), of an app that can keep no secret. */
async function bound(stage, browser, person) {
  const client = await stage.register('NONE', ['AUTHORIZATION_CODE', 'REFRESH_TOKEN'], { dpop_bound_access_tokens: true });
  const config = await stage.discover(client, oidc.None());
  const holder = () => oidc.randomDPoPKeyPair('ES256').then((pair) => oidc.getDPoPHandle(config, pair));
  const DPoP = await holder();
  const { parameters, expected } = await request(config, stage, { dpop_jkt: await DPoP.calculateThumbprint() });
  const { url } = await walk(browser, oidc.buildAuthorizationUrl(config, parameters), { person });
  const thief = await holder();
  equal('DPoP: another key gets nothing for the code',
    await refusal(oidc.authorizationCodeGrant(config, url, expected, undefined, { DPoP: thief })), 'invalid_grant');
  const tokens = await oidc.authorizationCodeGrant(config, url, expected, undefined, { DPoP });
  equal('DPoP: a code', tokens.token_type, 'dpop');
  equal('DPoP: user info', (await oidc.fetchUserInfo(config, tokens.access_token, person.id, { DPoP })).email, person.email);
  check('DPoP: without the key a token is of no use',
    await refusal(oidc.fetchUserInfo(config, tokens.access_token, person.id)) !== 'none');
  equal('DPoP: another key does not refresh',
    await refusal(oidc.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP: thief })), 'invalid_grant');
  const fresh = await oidc.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP });
  equal('DPoP: a refresh', (await oidc.fetchUserInfo(config, fresh.access_token, person.id, { DPoP })).sub, person.id);
}

/** Pushed requests (RFC 9126). */
async function pushed(stage, browser, person) {
  const client = await stage.register('CLIENT_SECRET_POST', ['AUTHORIZATION_CODE'], { require_pushed_authorization_requests: true });
  const config = await stage.discover(client, oidc.ClientSecretPost(client.secret));
  const { parameters, expected } = await request(config, stage, { resource: RESOURCE });
  const url = await oidc.buildAuthorizationUrlWithPAR(config, parameters);
  equal('PAR: the browser carries a reference alone', [...url.searchParams.keys()].sort(), ['client_id', 'request_uri']);
  const back = (await walk(browser, url, { person })).url;
  const tokens = await oidc.authorizationCodeGrant(config, back, expected);
  equal('PAR: a code', tokens.claims().sub, person.id);
  equal('PAR: the reference is good once', (await walk(browser, url, { person })).status, 400);
  const open = await walk(browser, oidc.buildAuthorizationUrl(config, parameters), { person });
  equal('PAR: no way around it', [open.status, open.screens], [400, []]);
}

/** Python's authlib. */
async function authlib(stage, person) {
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const jwk = { ...await exportJWK(publicKey), kid: 'authlib', alg: 'ES256', use: 'sig' };
  const all = ['AUTHORIZATION_CODE', 'REFRESH_TOKEN', 'CLIENT_CREDENTIALS'];
  const given = {
    issuer: stage.issuer,
    redirect_uri: stage.redirectUri,
    person,
    basic: await stage.register('CLIENT_SECRET_BASIC', all),
    post: await stage.register('CLIENT_SECRET_POST', all),
    public: await stage.register('NONE', ['AUTHORIZATION_CODE', 'REFRESH_TOKEN']),
    signing: {
      ...await stage.register('PRIVATE_KEY_JWT', ['CLIENT_CREDENTIALS'], { jwks: JSON.stringify({ keys: [jwk] }), allowed_scopes: OWN_SCOPES }),
      key: { ...await exportJWK(privateKey), kid: 'authlib' },
    },
  };
  const python = new Process('issuer.py', process.env.PYTHON ?? 'python3', [here('issuer.py')]);
  python.child.stdin.end(JSON.stringify(given));
  const { code: status } = await python.finished(60_000);
  for (const { what, got, wanted } of python.json()) equal(`authlib: ${what}`, got, wanted);
  check('authlib comes to its end', status === 0, python.tail(15));
}

async function main(redirectUri) {
  const stage = await Stage.start(redirectUri);
  const browser = await launch();
  try {
    const ada = await stage.person('ada');
    await code(stage, browser, ada);
    await clientCredentials(stage);
    await selfContained(stage);
    await device(stage, browser, ada);
    await bound(stage, browser, ada);
    await pushed(stage, browser, ada);
    await authlib(stage, ada);
    await lookAtPages(stage, browser);
  } catch (error) {
    check('the authorisation server is checked to the end', false, String(error?.stack ?? error));
    process.stdout.write(`--- broker\n${stage.broker.process.tail()}\n`);
  } finally {
    await browser.close().catch(() => {});
    const { code: status } = await stage.broker.stop();
    equal('the broker stops when asked', status, 0);
    stage.broker.remove();
  }
}

const limit = setTimeout(() => {
  process.stdout.write('FAIL  the authorisation server took more than five minutes\n');
  stopAll().finally(() => process.exit(1));
}, 300_000);
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stopAll().finally(() => process.exit(1)));
const acme = await thirdParty();
try {
  await main(acme.redirectUri);
} catch (error) {
  check('the authorisation server starts', false, String(error?.stack ?? error));
} finally {
  clearTimeout(limit);
  await stopAll();
  acme.server.close();
  acme.server.closeAllConnections();
}
// Those before have counted their own; run.sh hands them over so that the last line counts all.
const [before, failures] = process.argv.slice(2).map(Number);
process.stdout.write(`\n${checks.passed + (before || 0)} passed, ${checks.failed + (failures || 0)} failed\n`);
process.exitCode = checks.failed || failures ? 1 : 0;
