// The person at the browser: opens a connect link in a real headless Chromium, signs in at the provider, gives
// consent, and stops where the provider and the broker lead.
//
//   node browser.mjs CONNECT_URL [LOGIN]
//
// Prints one line of JSON: {"url":…,"status":…,"title":…,"screens":[…]}. Exits with 1 when it gets nowhere within a
// minute. CHROMIUM names the browser's binary (/usr/bin/chromium).
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
/** No step takes this long on loopback, in milliseconds. */
const STEP = 15_000;
/** Sign-in, consent, perhaps a confirmation: more screens than this is going in circles. */
const SCREENS = 6;

export function findChromium() {
  const places = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
  const found = places.find((place) => place && existsSync(place));
  if (!found) throw new Error('no Chromium found: install the package chromium or set CHROMIUM');
  return found;
}

/** Starts a browser; close it with `.close()`. Each visit has its own cookies. */
export function launch() {
  return chromium.launch({ executablePath: findChromium(), args: FLAGS, timeout: 30_000 });
}

/**
 * Follows `url` through the provider's screens until a page has no form left to fill in.
 * `decline` presses the provider's "cancel" link instead of giving consent; `seen` is told of each screen.
 */
export async function visit(browser, url, { login = 'ada', password = 'any password does', decline = false, seen = () => {} } = {}) {
  const context = await browser.newContext();
  context.setDefaultTimeout(STEP);
  context.setDefaultNavigationTimeout(STEP);
  try {
    const page = await context.newPage();
    let response = await page.goto(url, { waitUntil: 'domcontentloaded' });
    const screens = [];
    for (let left = SCREENS; left > 0; left -= 1) {
      const name = await page.locator('input[name=login]').count() ? 'sign-in'
        : await page.locator('input[name=prompt][value=consent]').count() ? 'consent'
          : undefined;
      if (!name) {
        return {
          url: page.url(),
          status: response?.status(),
          headers: response?.headers() ?? {},
          title: await page.title(),
          text: await page.locator('body').innerText(),
          screens,
        };
      }
      screens.push(name);
      await seen(name);
      let next;
      if (name === 'consent' && decline) {
        next = page.locator('a[href$="/abort"]');
      } else {
        if (name === 'sign-in') {
          await page.locator('input[name=login]').fill(login);
          await page.locator('input[name=password]').fill(password);
        }
        next = page.locator('button[type=submit]');
      }
      [response] = await Promise.all([page.waitForNavigation({ waitUntil: 'domcontentloaded' }), next.click()]);
    }
    throw new Error(`still at a form after ${SCREENS} screens: ${screens.join(', ')}`);
  } finally {
    await context.close();
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [url, login] = process.argv.slice(2);
  if (!url) {
    process.stderr.write('usage: node browser.mjs CONNECT_URL [LOGIN]\n');
    process.exit(2);
  }
  const deadline = setTimeout(() => {
    process.stderr.write('browser.mjs: nothing after 60 seconds\n');
    process.exit(1);
  }, 60_000);
  const browser = await launch();
  try {
    const { url: final, status, title, screens } = await visit(browser, url, { login });
    process.stdout.write(`${JSON.stringify({ url: final, status, title, screens })}\n`);
  } finally {
    await browser.close();
    clearTimeout(deadline);
  }
}
