// The main job against the real world: a real OpenID provider, a real browser, real gRPC clients in three languages.
// Prints one line a check and ends with "N passed, M failed". Start it with run.sh, which sets up what it needs.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { launch, visit } from './browser.mjs';
import { Broker, struct } from './broker.mjs';
import { Process, stopAll } from './processes.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
/** Seconds an access token lives at the provider: short enough to wait for, long enough for a page to load. */
const TTL = Number(process.env.ACCESS_TOKEN_TTL ?? 20);
const CALLERS = 200;
const SCOPES = ['openid', 'offline_access', 'email', 'profile'];

let passed = 0;
let failed = 0;

/** One check. A failed one is reported and the run goes on, as far as later steps can do without it. */
function check(what, fact, detail = '') {
  if (fact) passed += 1;
  else failed += 1;
  process.stdout.write(`${fact ? 'ok  ' : 'FAIL'}  ${what}${fact || detail === '' ? '' : `: ${typeof detail === 'string' ? detail : JSON.stringify(detail)}`}\n`);
}

function equal(what, got, wanted) {
  check(what, JSON.stringify(got) === JSON.stringify(wanted), { got, wanted });
}

/** The refusal of a call that must not succeed. */
async function refusal(call) {
  try {
    await call;
    return { code: 'OK', reason: '' };
  } catch (error) {
    return error;
  }
}

/** The product that uses the broker: its page behind `return_url` keeps what the browser brings. */
async function product() {
  const visits = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://product');
    if (url.pathname === '/return') visits.push(Object.fromEntries(url.searchParams));
    response.writeHead(url.pathname === '/return' ? 200 : 404, { 'content-type': 'text/html' });
    response.end('<!doctype html><title>Product</title><p>Back in the product.</p>');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { visits, server, returnUrl: `http://127.0.0.1:${server.address().port}/return` };
}

async function userinfo(issuer, token) {
  const answer = await fetch(`${issuer}/me`, { headers: { authorization: `Bearer ${token}` } });
  return { status: answer.status, body: answer.status === 200 ? await answer.json() : await answer.text() };
}

async function main(shop) {
  const provider = new Process('provider', process.execPath, [here('provider.mjs'), '0'], {
    env: { ...process.env, ACCESS_TOKEN_TTL: String(TTL) },
  });
  const { issuer, client_id: clientId, client_secret: clientSecret } = await provider.event('ready');
  const events = (name) => provider.json('err').filter((line) => line.event === name);
  const refreshes = () => events('grant.success').filter((line) => line.grant_type === 'refresh_token').length;

  const broker = await Broker.start();
  const browser = await launch();
  try {
    equal('the first API key is in a file for its owner only', broker.keyMode, 0o600);
    equal('a call without a key is refused', (await refusal(broker.call('ListApps', {}, { key: '' }))).code, 'UNAUTHENTICATED');

    // Provider and app.
    const discovered = (await broker.call('CreateProvider', {
      provider_id: 'interop',
      issuer,
      definition: struct({
        display_name: 'Interop ID',
        // offline_access is given for an explicit consent only (OpenID Connect Core 1.0 section 11).
        authorization_params: { prompt: 'consent' },
        rotation: 'always',
        refresh_margin: '2s',
      }),
    })).provider;
    const endpoint = discovered.definition.fields.token_endpoint?.stringValue;
    equal('discovery found the token endpoint', endpoint, `${issuer}/token`);
    const app = (await broker.call('CreateApp', {
      app: { provider: 'interop', client_id: clientId, external_key: 'branch-7', default_scopes: SCOPES, allowed_return_urls: [shop.returnUrl] },
      client_secret: clientSecret,
    })).app;
    check('the app has its own callback', app.callback_url.startsWith(`${broker.publicUrl}/callback/`), app.callback_url);
    provider.child.stdin.write(`${JSON.stringify({ redirect_uri: app.callback_url })}\n`);
    await provider.event('client.updated');

    // Connect through the consent screens, and confirm.
    const start = (owner, more = {}) => broker.call('StartAuthorization', {
      app: 'branch-7', owner, return_url: shop.returnUrl, refresh_policy: 'REFRESH_POLICY_ON_DEMAND', ...more,
    });
    const started = await start('owner-1');
    const seen = await visit(browser, started.connect_url, { login: 'ada' });
    equal('the browser went through sign-in and consent', seen.screens, ['sign-in', 'consent']);
    const back = shop.visits.at(-1) ?? {};
    equal('the browser came back to the product', [back.authorization_id, back.outcome], [started.authorization.id, 'success']);
    const waiting = await refusal(broker.call('GetAccessToken', { app: 'branch-7', owner: 'owner-1' }));
    equal('an unconfirmed connection serves no token', [waiting.code, waiting.reason], ['FAILED_PRECONDITION', 'CONNECTION_PENDING']);
    const confirm = (owner) => broker.call('ConfirmAuthorization', {
      authorization_id: back.authorization_id, confirmation_code: back.confirmation_code, owner,
    });
    equal('another owner can not confirm', (await refusal(confirm('owner-2'))).code, 'FAILED_PRECONDITION');
    const { connection } = await confirm('owner-1');
    equal('the owner confirms', connection.state, 'CONNECTION_STATE_ACTIVE');
    equal('the account is known', [connection.account_id, connection.display_name, connection.email], ['ada', 'Person ada', 'ada@example.test']);
    equal('a finished link is gone', (await visit(browser, started.connect_url)).status, 410);

    // A token, in JavaScript and in Python.
    const get = (more = {}) => broker.call('GetAccessToken', { connection_id: connection.id, min_validity: { seconds: 1 }, ...more });
    const first = (await get()).token;
    equal('the provider accepts the token', (await userinfo(issuer, first.access_token)).body.sub, 'ada');
    const python = new Process('client.py', process.env.PYTHON ?? 'python3', [
      here('client.py'), '--target', broker.target, '--connection', connection.id, '--events', '3', '--timeout', String(TTL + 40),
    ], { env: { ...process.env, TOKENBROKER_API_KEY: broker.key } });
    await python.event('watching', 30_000);
    check('the Python client got a token', python.json().find((line) => line.event === 'token')?.characters > 0);

    // Expiry under load: one refresh, whatever the number of callers, and no refresh token sent twice.
    const before = refreshes();
    const expiry = Number(first.expire_time?.seconds ?? 0) * 1000;
    check('the token says when it ends', expiry > 0 && expiry < Date.now() + TTL * 1000 + 1000, first.expire_time);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, expiry - Date.now()) + 1_500));
    equal('the old token is dead at the provider', (await userinfo(issuer, first.access_token)).status, 401);
    const answers = await Promise.allSettled(Array.from({ length: CALLERS }, () => get()));
    const refused = answers.filter((answer) => answer.status === 'rejected');
    equal(`${CALLERS} callers at once all get a token`, refused.length, 0);
    if (refused.length) process.stdout.write(`      ${refused[0].reason.message}\n`);
    const tokens = new Set(answers.flatMap((answer) => (answer.value ? [answer.value.token.access_token] : [])));
    equal('it is one token, and a new one', [tokens.size, tokens.has(first.access_token)], [1, false]);
    equal('the provider saw one refresh', refreshes() - before, 1);
    const [second] = tokens;
    equal('the provider accepts the new token', (await userinfo(issuer, second)).body.sub, 'ada');

    // Forced refreshes, one after the other and at once: the rotated refresh token is the one that is sent.
    await broker.call('RefreshAccessToken', { connection_id: connection.id });
    await Promise.all(Array.from({ length: 20 }, () => broker.call('RefreshAccessToken', { connection_id: connection.id })));
    equal('no refresh token was sent twice', [events('reuse.detected').length, events('consumed.twice').length], [0, 0]);
    equal('the provider revoked nothing', events('grant.revoked').length, 0);
    const { attempts } = await broker.call('ListRefreshAttempts', { connection_id: connection.id });
    equal('the refresh log agrees with the provider',
      attempts.filter((attempt) => attempt.outcome === 'REFRESH_OUTCOME_SUCCEEDED').length, refreshes());

    const end = await python.finished(60_000);
    equal('the Python client heard all events', end.code, 0);
    if (end.code !== 0) process.stdout.write(`      ${python.tail(5)}\n`);
    const heard = python.json().filter((line) => line.event === 'received');
    equal('in order', heard.map((line) => line.type),
      ['TOKEN_EVENT_TYPE_CREATED', 'TOKEN_EVENT_TYPE_ACTIVATED', 'TOKEN_EVENT_TYPE_REFRESHED']);
    equal('once each, without tokens', [new Set(heard.map((line) => line.id)).size, heard.some((line) => line.has_token)], [3, false]);

    // grpcurl, by reflection.
    const curl = new Process('grpcurl', process.env.GRPCURL ?? 'grpcurl', [
      '-plaintext', '-H', `authorization: Bearer ${broker.key}`, '-d', JSON.stringify({ connection_id: connection.id }),
      broker.target, 'tokenbroker.v1.TokenBroker/GetConnection',
    ]);
    curl.child.stdin.end();
    equal('grpcurl answers', (await curl.finished()).code, 0);
    check('and shows the connection, without a token', curl.out.join('').includes(connection.id) && !curl.out.join('').includes(second), curl.tail(5));

    // A person who declines.
    const declined = await start('owner-3');
    await visit(browser, declined.connect_url, { login: 'bob', decline: true });
    equal('a refusal comes back to the product', shop.visits.at(-1)?.outcome, 'failure');
    const { authorization } = await broker.call('GetAuthorization', { authorization_id: declined.authorization.id });
    equal('and is told by GetAuthorization', [authorization.state, authorization.failure?.provider_error],
      ['AUTHORIZATION_STATE_FAILED', 'access_denied']);

    // A link by e-mail ends on our own page.
    const mailed = await start('owner-4', { return_url: '', mode: 'AUTHORIZATION_MODE_LINK_ONLY' });
    const done = await visit(browser, mailed.connect_url, { login: 'eve' });
    check('a mailed link ends on our page', done.status === 200 && done.title.includes('is connected'), done);
    check('which allows no script and no storing', /default-src 'none'/.test(done.headers['content-security-policy'] ?? '')
      && done.headers['cache-control'] === 'no-store', done.headers);
    equal('a link nobody made leads nowhere', (await visit(browser, `${broker.publicUrl}/connect/nothing`)).status, 404);

    // The owner signs in through the provider: by the connection that is theirs.
    await broker.call('CreateUser', { email: 'ada@example.test', owner: 'owner-1' });
    const signIn = await broker.call('StartSignIn', { app: 'branch-7', return_url: shop.returnUrl });
    await visit(browser, signIn.sign_in_url, { login: 'ada' });
    const { authorization_id: signedIn, code: proof } = shop.visits.at(-1) ?? {};
    const provided = { provider: { authorization_id: signedIn, code: proof } };
    const session = await broker.call('CreateSession', provided, { key: '' });
    equal('a code of a sign-in is good once', (await refusal(broker.call('CreateSession', provided, { key: '' }))).reason, 'SIGN_IN_FAILED');
    const own = await broker.call('ListConnections', {}, { key: session.session_token });
    equal('a signed-in person sees their own connections alone', own.connections.map((one) => one.owner), ['owner-1']);
    equal('and gets no tokens', (await refusal(broker.call('GetAccessToken', { connection_id: connection.id }, { key: session.session_token }))).code, 'PERMISSION_DENIED');
    const stranger = await broker.call('StartSignIn', { app: 'branch-7', return_url: shop.returnUrl });
    await visit(browser, stranger.sign_in_url, { login: 'mallory' });
    const { authorization_id: strange, code } = shop.visits.at(-1) ?? {};
    equal('a stranger at the provider is nobody here',
      (await refusal(broker.call('CreateSession', { provider: { authorization_id: strange, code } }, { key: '' }))).reason, 'SIGN_IN_FAILED');

    // Revoke.
    const held = (await get()).token.access_token;
    const revoked = await broker.call('RevokeConnection', { connection_id: connection.id, reason: 'interop' });
    equal('revoked here and at the provider', [revoked.connection.state, revoked.provider_revocation],
      ['CONNECTION_STATE_REVOKED', 'PROVIDER_REVOCATION_DONE']);
    equal('the provider refuses the revoked token', (await userinfo(issuer, held)).status, 401);
    equal('and the broker serves it no more', (await refusal(get())).code, 'FAILED_PRECONDITION');

    await browser.close();
    const stopped = await broker.stop();
    equal('the broker stops cleanly', [stopped.code, stopped.killed ?? false], [0, false]);
    const said = [...broker.process.out, ...broker.process.err].join('\n');
    check('its log holds no secret', ![broker.key, clientSecret, first.access_token, second, held].some((secret) => said.includes(secret)));
    equal('the provider had no error of its own', events('server_error').length, 0);
  } catch (error) {
    check('the run reaches its end', false, String(error?.stack ?? error));
    process.stdout.write(`--- broker\n${broker.process.tail()}\n--- provider\n${provider.tail()}\n`);
  } finally {
    await browser.close().catch(() => {});
    await broker.stop();
    broker.remove();
    provider.child.stdin.end();
    await provider.finished(5_000).catch(() => provider.stop());
  }
}

const limit = setTimeout(() => {
  process.stdout.write('FAIL  the run took more than five minutes\n');
  stopAll().finally(() => process.exit(1));
}, 300_000);
const shop = await product();
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stopAll().finally(() => process.exit(1)));
try {
  await main(shop);
} catch (error) {
  check('the run begins', false, String(error?.stack ?? error));
} finally {
  clearTimeout(limit);
  await stopAll();
  shop.server.close();
  shop.server.closeAllConnections();
}
process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
process.exitCode = failed ? 1 : 0;
