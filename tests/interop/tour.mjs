// The tour of README.md, line by line: runs every `$ ` line of its console blocks in bash, with a broker and a
// provider of its own in place of those that the tour has started, and a headless Chromium in place of the reader.
// Each line must succeed, and answer the same JSON keys, in the same order, as the README shows. Then every line of
// the `sh` blocks of docs/automation-jobs.md, which shows no answers: each must succeed.
//
// What the README shows is also what later lines are given: an id, link or code in them stands for the one that was
// really answered in that place. Where no answer is shown, `job_…` stands for the last job that was answered, and so on.
// Prints a line a check and ends with "N passed, M failed". Started by run.sh.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch, visit } from './browser.mjs';
import { Broker } from './broker.mjs';
import { Process, stopAll, until } from './processes.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
/** Shorter than the playground's: the tour waits for a refresh. */
const TTL = 20;
const ID = /^[a-z]+_[0-9a-z]{26}$/;
/** What the tour says that it has been started at. */
const README = { grpc: '127.0.0.1:7480', web: 'http://127.0.0.1:7481', provider: 'http://127.0.0.1:9400', data: 'tokenbroker-data' };

let passed = 0;
let failed = 0;

function check(what, fact, detail = '') {
  if (fact) passed += 1;
  else failed += 1;
  process.stdout.write(`${fact ? 'ok  ' : 'FAIL'}  tour: ${what}${fact || detail === '' ? '' : `: ${detail}`}\n`);
}

/** A line goes on where a quote is open or a backslash ends it. */
const goesOn = (line) => line.endsWith('\\') || (line.match(/'/g)?.length ?? 0) % 2 === 1;

/**
 * The steps of the tour, in order: `{ line, shown }` of a console block, or `{ landing }`, the address that the
 * browser comes back to.
 */
function steps(markdown) {
  const found = [];
  for (const [, kind, block] of markdown.matchAll(/^```(console|text)\n(.*?)^```$/gms)) {
    if (kind === 'text') {
      found.push({ landing: block.trim() });
      continue;
    }
    let open = false;
    for (const text of block.trimEnd().split('\n')) {
      const step = found.at(-1);
      if (text.startsWith('$ ')) found.push({ line: text.slice(2), shown: '' });
      else if (open) step.line += `\n${text}`;
      else if (step && 'line' in step) step.shown += `${text}\n`;
      else throw new Error(`README.md shows an answer before any line: ${text}`);
      open = goesOn(found.at(-1).line);
    }
  }
  return found;
}

/** The steps of a document that shows no answers, in order: `{ line }` of an `sh` block. */
function lines(markdown) {
  const found = [];
  for (const [, block] of markdown.matchAll(/^```sh\n(.*?)^```$/gms)) {
    let open = false;
    for (const text of block.trimEnd().split('\n')) {
      if (open) found.at(-1).line += `\n${text}`;
      else found.push({ line: text });
      open = goesOn(found.at(-1).line);
    }
  }
  return found;
}

/** The JSON of an answer as pairs in their order: key, and value where that is a string. */
function pairs(text) {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)":(?: "((?:[^"\\]|\\.)*)")?/g)].map(([, key, value]) => ({ key, value }));
}

/** The documents of a stream that hold an event: how many heartbeats come between is a matter of time. */
function events(text) {
  return text.split(/^(?=\{)/m).filter((document) => /^\}$/m.test(document) && document.includes('"event"')).join('');
}

class Tour {
  constructor(broker, issuer, browser) {
    this.browser = browser;
    this.broker = broker;
    /** From what the README shows to what stands for it here; longer ones first, for one may begin another. */
    this.meant = new Map([
      [README.grpc, broker.target], [README.web, broker.publicUrl], [README.provider, issuer], [README.data, broker.folder],
    ]);
    /** The variables set so far, as bash lines. */
    this.variables = '';
  }

  real(text) {
    const shown = [...this.meant.keys()].sort((a, b) => b.length - a.length);
    return shown.reduce((done, one) => done.replaceAll(one, this.meant.get(one)), text);
  }

  bash(line) {
    const script = `${this.variables}\nexec 0</dev/null\n${line}`;
    const started = new Process('bash', 'bash', ['-euo', 'pipefail', '-c', script], { cwd: this.broker.folder });
    started.child.stdin.end();
    return started;
  }

  async run({ line, shown, landing }) {
    if (landing) return this.consent(landing);
    const command = this.real(line);
    if (/^[A-Z][A-Z0-9_]*=/.test(command)) {
      this.variables += `${command}\n`;
      return undefined;
    }
    const name = line.match(/(?:tokenbroker\.v1\.|\$)\w+\/(\w+)/)?.[1] ?? line;
    const stream = name.startsWith('Watch');
    const started = this.bash(stream ? `exec ${command}` : command);
    const wanted = shown === undefined ? [] : pairs(stream ? events(shown) : shown);
    const enough = Math.max(wanted.length, 1);
    const answer = () => (stream ? events(started.out.join('\n')) : started.out.join('\n'));
    if (stream) {
      await until(`${name} to answer`, () => started.end || pairs(answer()).length >= enough, { within: 60_000 });
      check(`${name} streams`, !started.end, started.tail(10));
      await started.stop('SIGINT');
    } else {
      const { code } = await started.finished();
      check(`${name} succeeds`, code === 0, started.tail(10));
    }
    const got = pairs(answer());
    if (shown === undefined) {
      for (const { value } of got) if (ID.test(value)) this.meant.set(value.replace(/_.*/, '_…'), value);
      return undefined;
    }
    const keys = (of) => of.map(({ key }) => key).join(' ');
    check(`${name} answers what README.md shows`, keys(got) === keys(wanted), `\n      README ${keys(wanted)}\n      answer ${keys(got)}`);
    wanted.forEach(({ value }, index) => this.learn(value, got[index]?.value));
    return undefined;
  }

  /** `shown` in the README stands for `real`, unless it stands for something already. */
  learn(shown, real) {
    const distinct = shown !== undefined && real !== undefined && shown !== real && this.real(shown) !== real;
    if (distinct && (ID.test(shown) || shown.includes('…'))) this.meant.set(shown, real);
  }

  /** The lines of a document about jobs, with the key and the file that it speaks of. */
  async follow(markdown) {
    this.variables += `TOKENBROKER_API_KEY=${this.broker.key}\n`;
    const [, credentials] = markdown.match(/`credentials\.json` is `(\{.*?\})`/);
    const found = lines(markdown);
    const wanted = markdown.match(/^grpcurl /gm).length;
    check('there are lines about jobs', found.filter(({ line }) => line.startsWith('grpcurl ')).length === wanted, `${found.length} lines, ${wanted} of grpcurl`);
    for (const step of found) {
      writeFileSync(join(this.broker.folder, 'credentials.json'), this.real(credentials));
      await this.run(step);
    }
  }

  /** The reader's part: opens the link that the tour has shown last. */
  async consent(landing) {
    const link = [...this.meant].findLast(([shown]) => shown.includes('/connect/'))?.[1];
    const seen = await visit(this.browser, link, { login: 'ada' });
    const wanted = new URL(landing);
    const got = new URL(seen.url);
    const names = (url) => [...url.searchParams.keys()].join(' ');
    check('the browser comes back to the address shown', got.pathname === wanted.pathname && names(got) === names(wanted), seen.url);
    check('and the product receives a code', seen.status === 200 && seen.text.includes(got.searchParams.get('confirmation_code')), seen.text);
    for (const [name, value] of wanted.searchParams) this.learn(value, got.searchParams.get(name));
  }
}

async function main() {
  const tour = steps(readFileSync(here('../../README.md'), 'utf8'));
  check('it is there', tour.length >= 8 && tour.some(({ landing }) => landing), `${tour.length} steps`);
  const provider = new Process('provider', process.execPath, [here('provider.mjs'), '0'], {
    env: { ...process.env, ACCESS_TOKEN_TTL: String(TTL), ANY_LOOPBACK_REDIRECT: '1' },
  });
  const { issuer } = await provider.event('ready');
  const broker = await Broker.start();
  const browser = await launch();
  try {
    const reader = new Tour(broker, issuer, browser);
    for (const step of tour) await reader.run(step);
    await reader.follow(readFileSync(here('../../docs/automation-jobs.md'), 'utf8'));
  } catch (error) {
    check('it reaches its end', false, String(error?.stack ?? error));
    process.stdout.write(`--- broker\n${broker.process.tail()}\n--- provider\n${provider.tail()}\n`);
  } finally {
    await browser.close().catch(() => {});
    await broker.stop();
    broker.remove();
    await provider.stop();
  }
}

const limit = setTimeout(() => {
  process.stdout.write('FAIL  the tour took more than three minutes\n');
  stopAll().finally(() => process.exit(1));
}, 180_000);
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stopAll().finally(() => process.exit(1)));
try {
  await main();
} catch (error) {
  check('it begins', false, String(error?.stack ?? error));
} finally {
  clearTimeout(limit);
  await stopAll();
}
// run.mjs has counted its own; run.sh hands them over so that the last line counts all.
const [before, failures] = process.argv.slice(2).map(Number);
process.stdout.write(`\n${passed + (before || 0)} passed, ${failed + (failures || 0)} failed\n`);
process.exitCode = failed || failures ? 1 : 0;
