// Child processes of the interop check: started with their output kept, stopped by their own process id.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

const running = new Set();

/** Waits for `condition` to answer something, asking every `every` milliseconds; fails after `within`. */
export async function until(what, condition, { within = 10_000, every = 50 } = {}) {
  const end = Date.now() + within;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what}: not within ${within / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}

/** A port on loopback that was free a moment ago. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A running program and the lines it has written. */
export class Process {
  constructor(name, command, args, options = {}) {
    this.name = name;
    this.out = [];
    this.err = [];
    this.child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
    this.ended = new Promise((resolve) => {
      this.child.once('error', (error) => resolve({ error }));
      this.child.once('close', (code, signal) => resolve({ code, signal }));
    });
    this.ended.then((end) => {
      this.end = end;
      running.delete(this);
    });
    this.child.stdin.on('error', () => {});
    createInterface({ input: this.child.stdout }).on('line', (line) => this.out.push(line));
    createInterface({ input: this.child.stderr }).on('line', (line) => this.err.push(line));
    running.add(this);
  }

  /** The lines of standard output or error that are JSON, parsed. */
  json(stream = 'out') {
    return this[stream].flatMap((line) => {
      try {
        return [JSON.parse(line)];
      } catch {
        return [];
      }
    });
  }

  /** Waits for a JSON line with this `event` on standard output. */
  async event(name, within) {
    return until(`${this.name}: ${name}`, () => {
      if (this.end) throw new Error(`${this.name} ended early: ${JSON.stringify(this.end)}\n${this.tail()}`);
      return this.json().find((line) => line.event === name);
    }, { within });
  }

  /** The last of what it said, for a failure's report. */
  tail(lines = 30) {
    return [...this.out.slice(-lines), ...this.err.slice(-lines)].join('\n');
  }

  /** Waits for it to end by itself. */
  async finished(within = 30_000) {
    await until(`${this.name} to end`, () => this.end, { within });
    return this.end;
  }

  /** Asks it to stop and waits; kills it when it does not. */
  async stop(signal = 'SIGTERM', within = 15_000) {
    if (this.end) return this.end;
    this.child.kill(signal);
    try {
      return await this.finished(within);
    } catch {
      this.child.kill('SIGKILL');
      return { ...(await this.ended), killed: true };
    }
  }
}

/** Stops everything that still runs, the last started first. */
export async function stopAll() {
  for (const process of [...running].reverse()) await process.stop('SIGTERM', 5_000);
}
