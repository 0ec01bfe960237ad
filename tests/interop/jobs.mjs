// Automation jobs against the real world: `tokenbroker work` drives a real Chromium through the sign-in and consent of
// the npm package oidc-provider, for a batch of accounts; then the workers of examples/, a shell script and one in
// Python over gRPC.
// Prints a line a check and ends with "N passed, M failed". Started by run.sh.
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Broker, struct } from './broker.mjs';
import * as checks from './checks.mjs';
import { check, equal } from './checks.mjs';
import { Process, stopAll, until } from './processes.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const PYTHON = process.env.PYTHON ?? 'python3';
const ACCOUNTS = 20;
/** Processes that work, and browsers of each. */
const WORKERS = 2;
const BROWSERS = 2;
const BATCH = 'branch-7-2026';
const SCOPES = ['openid', 'offline_access', 'email', 'profile'];
/** All browsers together; a machine of CI is slow. */
const PATIENCE = 180_000;
/** How long a one-time code is good, in milliseconds. */
const STEP = 30_000;
const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

const sha256 = (text) => createHash('sha256').update(text).digest('hex');

/** A seed of one-time codes as sites show it, Base32 in groups of four. The bytes are so many that none is left over. */
function shown(key) {
  const bits = [...key].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  const letters = bits.match(/.{5}/g).map((five) => BASE32[Number.parseInt(five, 2)]).join('');
  return letters.match(/.{4}/g).join(' ');
}

/** The one-time code of a step (RFC 6238: SHA-1, six digits). */
function oneTimeCode(key, step) {
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(step));
  const mac = createHmac('sha1', key).update(counter).digest();
  const number = mac.readUInt32BE(mac.at(-1) & 0xf) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, '0');
}

/** What the right credentials hash to: by step the codes, for as long as there is patience. */
function proof({ password, key }) {
  const first = Math.floor(Date.now() / STEP);
  const steps = Array.from({ length: PATIENCE / STEP + 2 }, (_, index) => first + index);
  const codes = steps.map((step) => [step, sha256(oneTimeCode(key, step))]);
  return { password_sha256: sha256(password), code_sha256: Object.fromEntries(codes) };
}

/** Everything of what a list answers by pages. */
async function all(broker, method, field, request = {}) {
  const found = [];
  let token = '';
  do {
    const answer = await broker.call(method, { ...request, page_size: 7, page_token: token });
    found.push(...answer[field]);
    token = answer.next_page_token;
  } while (token);
  return found;
}

async function register(broker, provider) {
  const { issuer, client_id: clientId, client_secret: clientSecret } = await provider.event('ready');
  const authorizationParams = { prompt: 'consent' };
  await broker.call('CreateProvider', {
    provider_id: 'interop',
    issuer,
    definition: struct({ display_name: 'Interop ID', authorization_params: authorizationParams, rotation: 'always', refresh_margin: '2s' }),
  });
  const { app } = await broker.call('CreateApp', {
    app: { provider: 'interop', client_id: clientId, external_key: 'branch-7', default_scopes: SCOPES },
    client_secret: clientSecret,
  });
  provider.child.stdin.write(`${JSON.stringify({ redirect_uri: app.callback_url })}\n`);
  await provider.event('client.updated');
  return issuer;
}

/** Accounts with their credentials and a browser profile each; every password and seed is of its own. */
async function accounts(broker) {
  const made = [];
  for (let number = 1; number <= ACCOUNTS; number += 1) {
    const username = `person-${number}`;
    const password = `an uncommon phrase ${crypto.randomUUID()}`;
    const key = randomBytes(20);
    const seed = shown(key);
    // Half of them as older systems export them.
    const credentials = number % 2 ? { password, totp_secret: seed } : { text: `CSV_PASSWORD:${password}|2FA_SECRET:${seed}` };
    const { account } = await broker.call('CreateAccount', { account: { app: 'branch-7', username }, credentials });
    const { profile } = await broker.call('CreateProfile', {
      profile: { external_id: `profile-${number}`, execution_mode: 'EXECUTION_MODE_LOCAL', account_id: account.id },
    });
    made.push({ username, password, key, seed, account, profile });
  }
  return made;
}

async function workerKey(broker) {
  const { secret } = await broker.call('CreateApiKey', { name: 'workers', role: 'ROLE_WORKER' });
  return secret;
}

/** `tokenbroker work` with these options. */
function hire(broker, key, name, options) {
  const binary = process.env.TOKENBROKER_BIN ?? here('../../target/debug/tokenbroker');
  const inherited = Object.entries(process.env).filter(([variable]) => !variable.startsWith('TOKENBROKER'));
  return new Process(name, binary, ['work', '--address', `http://${broker.target}`, '--worker', name, ...options], {
    env: { ...Object.fromEntries(inherited), TOKENBROKER_API_KEY: key },
  });
}

/** A batch, worked on by browsers until it is finished. */
async function browsers(broker, key, people, issuer) {
  const watched = broker.follow('WatchJobs', { cursor: 'START', batch_ids: [BATCH] });
  const jobs = people.map((person, index) => ({
    kind: 'connect', account_id: person.account.id, payload: struct({ captcha: index === 0, ...proof(person) }), authorization: {},
  }));
  const asked = await broker.send('CreateBatch', [
    { batch_id: BATCH, display_name: 'Branch 7', jobs: jobs.slice(0, 12) },
    { jobs: jobs.slice(12) },
  ]);
  equal('a batch of jobs with authorisations waits', asked.batch.counts.pending, ACCOUNTS);
  const workers = Array.from({ length: WORKERS }, (_, number) => hire(broker, key, `worker-${number}`, [
    '--concurrency', String(BROWSERS), '--kind', 'connect', '--credentials', '--exec', process.execPath, here('browser_worker.mjs'),
  ]));
  const get = async () => (await broker.call('GetBatch', { batch_id: BATCH })).batch;
  let batch = asked.batch;
  try {
    await until('the batch to be finished', async () => {
      const ended = workers.find((worker) => worker.end);
      if (ended) throw new Error(`${ended.name} ended early`);
      batch = await get();
      return batch.finish_time;
    }, { within: PATIENCE, every: 250 });
  } catch (error) {
    check('the browsers finish the batch', false, `${error}\n${workers.map((worker) => worker.tail(15)).join('\n')}`);
  }
  const { total, completed } = batch.counts;
  equal('all of its jobs are completed', [total, completed, batch.percent], [ACCOUNTS, ACCOUNTS, 100]);

  const done = await all(broker, 'ListJobs', 'jobs', { batch_id: BATCH });
  const unhappy = done.filter((job) => job.state !== 'JOB_STATE_COMPLETED');
  equal('none of them failed', unhappy.map((job) => [job.failure_reason, job.failure_message]), []);
  check('their progress was told', done.every((job) => job.progress?.step && job.progress.percent > 0), done[0]?.progress);
  const first = done.find((job) => job.account_id === people[0].account.id);
  const { profile } = await broker.call('GetProfile', { profile: 'profile-1' });
  const solved = 'CAPTCHA_STATE_RESOLVED';
  equal('a captcha is recorded, on job and profile', [first?.progress?.captcha, profile.captcha], [solved, solved]);
  check('more than one worker worked', new Set(done.map((job) => job.worker)).size > 1);

  const connected = await all(broker, 'ListAccounts', 'accounts', { connected: 'CONNECTED_FILTER_CONNECTED' });
  equal('all accounts are connected', connected.length, ACCOUNTS);
  const open = await broker.call('ListAccounts', { connected: 'CONNECTED_FILTER_NOT_CONNECTED' });
  equal('and none is not', open.accounts.length, 0);
  const byJob = new Map(done.map((job) => [job.account_id, job.connection_id]));
  equal('each by the connection of its job', connected.filter((one) => one.connection_id !== byJob.get(one.id)), []);
  equal('which is its own', new Set(connected.map((one) => one.connection_id)).size, ACCOUNTS);
  const wrong = [];
  for (const { id, username, connection_id: connectionId } of connected) {
    const { token } = await broker.call('GetAccessToken', { connection_id: connectionId });
    const answer = await fetch(`${issuer}/me`, { headers: { authorization: `Bearer ${token.access_token}` } });
    const person = answer.status === 200 ? (await answer.json()).sub : answer.status;
    if (person !== username) wrong.push([id, username, person]);
  }
  equal('a token of each is its person\'s at the provider', wrong, []);

  const told = () => watched.answers.flatMap(({ event }) => (event ? [event] : []));
  const ended = (event) => event.type === 'JOB_EVENT_TYPE_BATCH_FINISHED';
  await until('the end of the batch to be told', () => told().some(ended)).catch(() => {});
  watched.cancel();
  const count = (type) => told().filter((event) => event.type === `JOB_EVENT_TYPE_${type}`).length;
  equal('all of it was told live', [count('PENDING') >= ACCOUNTS, count('COMPLETED'), count('FAILED'), count('BATCH_FINISHED')],
    [true, ACCOUNTS, 0, 1]);

  const ends = await Promise.all(workers.map((worker) => worker.stop()));
  equal('the workers stop when asked', ends.map((end) => end.code), workers.map(() => 0));
  return workers;
}

/** Compiles the protos for Python into a folder, as examples/README.md says. */
async function stubs(folder) {
  const protos = here('../../proto');
  const names = readdirSync(join(protos, 'tokenbroker/v1')).map((name) => `tokenbroker/v1/${name}`);
  const compiler = new Process('protoc', PYTHON, [
    '-m', 'grpc_tools.protoc', '-I', protos, `--python_out=${folder}`, `--grpc_python_out=${folder}`, ...names,
  ]);
  const { code } = await compiler.finished();
  if (code !== 0) throw new Error(`the protos do not compile: ${compiler.tail()}`);
}

/** A job for a worker that `begin` starts, until it is done; the worker is stopped. */
async function greeting(broker, name, step, begin) {
  const { job } = await broker.call('CreateJob', { job: { kind: 'greet', payload: struct({ name }) } });
  const worker = begin();
  let done = job;
  await until('the job to be finished', async () => {
    done = (await broker.call('GetJob', { job_id: job.id })).job;
    return done.finish_time || worker.end;
  }, { within: 60_000, every: 100 }).catch(() => {});
  const greeted = done.result?.fields.greeted?.stringValue;
  check(`${worker.name} completes its job`, done.state === 'JOB_STATE_COMPLETED' && greeted === name, `${JSON.stringify(done)}\n${worker.tail(15)}`);
  equal('having told how far it was', [done.progress?.step, done.progress?.percent], [step, 100]);
  await worker.stop();
  return worker;
}

/** examples/worker.sh, a command of `tokenbroker work`. */
function shell(broker, key) {
  const options = ['--kind', 'greet', '--exec', here('../../examples/worker.sh')];
  return greeting(broker, 'Grace', 'greeting', () => hire(broker, key, 'worker.sh', options));
}

/** examples/worker.py, which speaks gRPC itself. */
async function python(broker, key) {
  const folder = mkdtempSync(join(tmpdir(), 'tokenbroker-stubs-'));
  try {
    await stubs(folder);
    return await greeting(broker, 'Ada', 'opening', () => new Process('worker.py', PYTHON, [here('../../examples/worker.py')], {
      env: { ...process.env, PYTHONPATH: folder, TOKENBROKER_ADDRESS: broker.target, TOKENBROKER_API_KEY: key },
    }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function main() {
  const provider = new Process('provider', process.execPath, [here('provider.mjs'), '0'], {
    env: { ...process.env, ACCESS_TOKEN_TTL: '600' },
  });
  const broker = await Broker.start();
  try {
    const issuer = await register(broker, provider);
    const people = await accounts(broker);
    const key = await workerKey(broker);
    const workers = await browsers(broker, key, people, issuer);
    workers.push(await shell(broker, key), await python(broker, key));
    const said = [broker.process, ...workers].flatMap((one) => [...one.out, ...one.err]).join('\n');
    const jobs = JSON.stringify(await all(broker, 'ListJobs', 'jobs'));
    const secrets = ({ password, seed }) => [password, seed, seed.replaceAll(' ', '')];
    const leaked = people.filter((person) => secrets(person).some((secret) => said.includes(secret) || jobs.includes(secret)));
    equal('no password or seed is in a log or a job', leaked.map((one) => one.username), []);
    const link = /\/connect\/[\w-]{20,}/;
    check('nor is a link or a key', ![said, jobs].some((one) => link.test(one) || one.includes(key)));
  } catch (error) {
    check('automation is checked to the end', false, String(error?.stack ?? error));
    process.stdout.write(`--- broker\n${broker.process.tail()}\n`);
  } finally {
    const { code } = await broker.stop();
    equal('the broker stops when asked', code, 0);
    broker.remove();
  }
}

const limit = setTimeout(() => {
  process.stdout.write('FAIL  automation took more than five minutes\n');
  stopAll().finally(() => process.exit(1));
}, 300_000);
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stopAll().finally(() => process.exit(1)));
try {
  await main();
} catch (error) {
  check('automation starts', false, String(error?.stack ?? error));
} finally {
  clearTimeout(limit);
  await stopAll();
}
// Those before have counted their own; run.sh hands them over so that the last line counts all.
const [before, failures] = process.argv.slice(2).map(Number);
process.stdout.write(`\n${checks.passed + (before || 0)} passed, ${checks.failed + (failures || 0)} failed\n`);
process.exitCode = checks.failed || failures ? 1 : 0;
