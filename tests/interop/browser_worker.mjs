// What `tokenbroker work` runs for each job of jobs.mjs: a person's part, done by a program in a real Chromium.
//
//   tokenbroker work … --credentials --exec node browser_worker.mjs
//
// Standard input: the job as one line of JSON, with the link of its authorisation, its account's credentials, and what
// those must hash to: the provider takes any.
// Standard output: how far it is, a line of JSON each. The callback completes the job, so that there is no more to say
// at the end than what went wrong.
import { createHash } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { setTimeout as pause } from 'node:timers/promises';
import { launch, visit } from './browser.mjs';

/** Long enough for a report to be told by itself, not together with the next. */
const REPORT = 1_000;
/** How long a one-time code is good, in milliseconds. */
const STEP = 30_000;
const PERCENT = { 'sign-in': 30, consent: 70 };

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const job = JSON.parse(await text(process.stdin));
const { username, password = '', totp_code: code = '' } = job.credentials ?? {};
const sha256 = (secret) => createHash('sha256').update(secret).digest('hex');

/** Why these are not the credentials of the job's account; nothing where they are. */
function fault() {
  const { password_sha256: wanted, code_sha256: codes } = job.payload;
  if (sha256(password) !== wanted) return 'WRONG_PASSWORD';
  // It was made when the job was claimed, which may have been in the step before.
  const step = Math.floor(Date.now() / STEP);
  return [step, step - 1].some((one) => codes[one] === sha256(code)) ? undefined : 'WRONG_CODE';
}

async function seen(step) {
  say({ step, percent: PERCENT[step] });
  if (step !== 'sign-in' || !job.payload.captcha) return;
  // As if there had been one: what a worker does about it is its own matter.
  say({ captcha: 'detected' });
  await pause(REPORT);
  say({ captcha: 'resolved' });
  await pause(REPORT);
}

async function work() {
  const reason = fault();
  if (reason) return { fail: { reason, permanent: true } };
  const browser = await launch();
  try {
    const done = await visit(browser, job.connect_url, { login: username, password, seen });
    if (done.status === 200 && done.title.includes('is connected')) return { message: done.title, percent: 100 };
    return { fail: { reason: 'NOT_CONNECTED', message: `${done.status} ${done.title}` } };
  } finally {
    await browser.close();
  }
}

say(await work());
