// The broker under test: `tokenbroker serve` on its embedded defaults in a temporary folder, and gRPC clients for it.
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { Process, freePort, until } from './processes.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const DEADLINE = 20_000;

const services = ['token_broker', 'client_registry', 'administration', 'automation_jobs'];
const definition = protoLoader.loadSync(services.map((name) => `tokenbroker/v1/${name}.proto`), {
  includeDirs: [join(ROOT, 'proto')],
  keepCase: true,
  enums: String,
  longs: Number,
  defaults: true,
});
const { TokenBroker, ClientRegistry, Administration, AutomationJobs } = grpc.loadPackageDefinition(definition).tokenbroker.v1;

/** A plain object as `google.protobuf.Struct`, which the loader knows no short form for. */
export function struct(object) {
  return { fields: Object.fromEntries(Object.entries(object).map(([key, one]) => [key, value(one)])) };
}

function value(one) {
  if (one === null) return { nullValue: 'NULL_VALUE' };
  if (Array.isArray(one)) return { listValue: { values: one.map(value) } };
  switch (typeof one) {
    case 'boolean': return { boolValue: one };
    case 'number': return { numberValue: one };
    case 'object': return { structValue: struct(one) };
    default: return { stringValue: String(one) };
  }
}

/** A refused call: the status' name, and the reason of its `ErrorInfo`. */
export class Refused extends Error {
  constructor(method, error) {
    // google.rpc.Status in a trailer; the reason is the one UPPER_SNAKE_CASE text in it, and no
    // other part of this check needs the message's schema.
    const details = error.metadata?.get('grpc-status-details-bin')[0]?.toString('latin1') ?? '';
    const reason = details.match(/google\.rpc\.ErrorInfo[^A-Z]*([A-Z][A-Z_]+[A-Z])/)?.[1] ?? '';
    const code = grpc.status[error.code] ?? String(error.code);
    super(`${method}: ${code} ${reason}: ${error.details}`);
    this.code = code;
    this.reason = reason;
  }
}

/** A broker process with its data folder. */
export class Broker {
  /** Starts it and waits until it answers. `settings` are `section.key` → value. */
  static async start(settings = {}) {
    const broker = new Broker();
    broker.folder = mkdtempSync(join(tmpdir(), 'tokenbroker-interop-'));
    broker.target = `127.0.0.1:${await freePort()}`;
    const web = `127.0.0.1:${await freePort()}`;
    broker.publicUrl = `http://${web}`;
    const config = {
      data_dir: broker.folder,
      'grpc.listen': broker.target,
      'web.listen': web,
      'web.public_url': broker.publicUrl,
      // The provider of this check is on loopback.
      'providers.allow_private_networks': 'true',
      ...settings,
    };
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('TOKENBROKER'));
    const set = Object.entries(config).map(([key, one]) => [`TOKENBROKER__${key.toUpperCase().replaceAll('.', '__')}`, one]);
    const binary = process.env.TOKENBROKER_BIN ?? join(ROOT, 'target/debug/tokenbroker');
    broker.process = new Process('tokenbroker', binary, ['serve'], { env: Object.fromEntries([...inherited, ...set]), cwd: broker.folder });
    try {
      broker.key = await until('the first API key', () => {
        if (broker.process.end) throw new Error(`tokenbroker ended early\n${broker.process.tail()}`);
        return broker.findKey();
      }, { within: 20_000 });
      broker.connect();
      await until('the broker to answer', () => broker.call('ListProviders', { page_size: 1 }).catch((error) => {
        if (error.code === 'UNAVAILABLE') return undefined;
        throw error;
      }), { within: 20_000, every: 100 });
    } catch (error) {
      await broker.stop();
      broker.remove();
      throw error;
    }
    return broker;
  }

  /** The first API key, from the file of mode 0600 that `serve` writes when it has no terminal. */
  findKey() {
    for (const name of readdirSync(this.folder)) {
      const path = join(this.folder, name);
      const stat = statSync(path);
      if (!stat.isFile() || stat.size > 4096) continue;
      const key = readFileSync(path, 'latin1').match(/\btbk_[A-Za-z0-9_-]{20,}/)?.[0];
      if (key) {
        this.keyMode = stat.mode & 0o777;
        return key;
      }
    }
    return undefined;
  }

  /** Four connections, as four consumers would have. */
  connect() {
    this.clients = Array.from({ length: 4 }, (_, index) => {
      const options = { 'grpc.use_local_subchannel_pool': 1, 'tokenbroker.interop': index };
      const credentials = grpc.credentials.createInsecure();
      return [TokenBroker, ClientRegistry, Administration, AutomationJobs].map((Service) => new Service(this.target, credentials, options));
    });
    this.next = 0;
  }

  /** Whatever client has the method, by turns over the connections, and the metadata of a call by `key`. */
  caller(method, key) {
    const client = this.clients[this.next++ % this.clients.length].find((one) => typeof one[method] === 'function');
    const metadata = new grpc.Metadata();
    if (key) metadata.set('authorization', `Bearer ${key}`);
    return { client, metadata };
  }

  /** Calls a method of any service. */
  call(method, request = {}, { key = this.key } = {}) {
    const { client, metadata } = this.caller(method, key);
    return new Promise((resolve, reject) => {
      client[method](request, metadata, { deadline: Date.now() + DEADLINE }, (error, answer) => {
        if (error) reject(new Refused(method, error));
        else resolve(answer);
      });
    });
  }

  /** Calls a method that takes a stream of messages. */
  send(method, messages, { key = this.key } = {}) {
    const { client, metadata } = this.caller(method, key);
    return new Promise((resolve, reject) => {
      const stream = client[method](metadata, { deadline: Date.now() + DEADLINE }, (error, answer) => {
        if (error) reject(new Refused(method, error));
        else resolve(answer);
      });
      for (const message of messages) stream.write(message);
      stream.end();
    });
  }

  /** Follows a stream of answers until `cancel`: `answers` grows, and `error` is why it ended before. */
  follow(method, request, { key = this.key } = {}) {
    const { client, metadata } = this.caller(method, key);
    const stream = client[method](request, metadata);
    const followed = { answers: [], cancel: () => stream.cancel() };
    stream.on('data', (answer) => followed.answers.push(answer));
    stream.on('error', (error) => { followed.error = new Refused(method, error); });
    return followed;
  }

  /** Stops it by its process id and returns how it ended. */
  async stop() {
    for (const connection of this.clients ?? []) for (const client of connection) client.close();
    this.clients = [];
    return this.process.stop();
  }

  /** Removes its data. */
  remove() {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
