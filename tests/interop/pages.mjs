// Our own pages as people have them: on a phone and on a desk, light and dark, without JavaScript, by keyboard alone.
// Pictures of all of them are left in target/interop-shots for somebody to look at.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as oidc from 'openid-client';
import { check, equal } from './checks.mjs';
import { open, submit, walk } from './person.mjs';

const SHOTS = fileURLToPath(new URL('../../target/interop-shots', import.meta.url));
const SIZES = { phone: { width: 360, height: 740 }, desktop: { width: 1280, height: 800 } };
/** Nothing may have to be scrolled sideways down to this width (WCAG 2.2, 1.4.10). */
const NARROWEST = { width: 320, height: 640 };

/** What is wrong with the page that is open, a line each. Runs in the browser. */
function faults() {
  const found = [];
  const wrong = (fact, text) => { if (fact) found.push(text); };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const name = (element) => `${element.tagName.toLowerCase()} ${(element.textContent.trim() || element.id).slice(0, 30)}`;

  wrong(!document.documentElement.lang, 'the document says no language');
  wrong(!document.title.trim(), 'no title');
  wrong(all('h1').length !== 1, `${all('h1').length} h1`);
  wrong(all('main').length !== 1, `${all('main').length} main`);
  const levels = all('h1, h2, h3, h4').map((heading) => Number(heading.tagName[1]));
  wrong(levels.some((level, index) => level > (levels[index - 1] ?? 0) + 1), `headings skip a level: ${levels}`);
  const ids = all('[id]').map((element) => element.id);
  wrong(new Set(ids).size !== ids.length, `an id is there twice: ${ids}`);
  for (const element of all('[aria-describedby], [aria-labelledby]')) {
    const meant = `${element.getAttribute('aria-describedby') ?? ''} ${element.getAttribute('aria-labelledby') ?? ''}`.trim();
    for (const id of meant.split(/\s+/)) wrong(!document.getElementById(id), `${name(element)} is described by ${id}, which is not there`);
  }
  for (const input of all('input:not([type=hidden])')) {
    wrong(![...input.labels].some((label) => label.textContent.trim()), `${input.name} has no label`);
    wrong(!input.autocomplete, `${input.name} does not say what fills it in`);
  }
  for (const button of all('button')) wrong(!button.textContent.trim(), 'a button without a name');
  for (const svg of all('svg, img')) wrong(!svg.closest('[aria-hidden=true]') && !svg.hasAttribute('aria-label') && !svg.alt, 'a picture without words');
  for (const target of all('button, input:not([type=hidden])')) {
    const { height } = target.getBoundingClientRect();
    wrong(height < 44, `${name(target)} is ${height} px high`);
  }

  // Contrast (WCAG 2.2, 1.4.3 and 1.4.11), of the colours that the browser came to.
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((value, index) => value * a + under[index] * (1 - a));
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const own = parts(getComputedStyle(element).backgroundColor);
    return (own[3] ?? 1) === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const least = (element, property, under, ratio) => {
    const got = contrast(over(parts(getComputedStyle(element)[property]), under), under);
    wrong(got < ratio, `${name(element)}: ${property} has a contrast of ${got.toFixed(2)}`);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (texts.currentNode.data.trim()) least(element, 'color', behind(element), 4.5);
  }
  for (const input of all('input:not([type=hidden])')) {
    least(input, 'color', behind(input), 4.5);
    least(input, 'borderTopColor', behind(input.parentElement), 3);
  }
  for (const button of all('button')) least(button, 'borderTopColor', behind(button.parentElement), 3);

  const { scrollWidth, clientWidth } = document.documentElement;
  wrong(scrollWidth > clientWidth, `${scrollWidth} px wide in ${clientWidth}`);
  return found;
}

/** Looks at the page that is open, at its own width and at the narrowest. */
async function look(page, name, where) {
  const size = page.viewportSize();
  await page.screenshot({ path: join(SHOTS, `${name}-${where.replaceAll(' ', '-')}.png`), fullPage: true });
  const found = await page.evaluate(faults);
  await page.setViewportSize(NARROWEST);
  found.push(...(await page.evaluate(faults)).filter((fault) => !found.includes(fault)).map((fault) => `at ${NARROWEST.width} px: ${fault}`));
  await page.setViewportSize(size);
  return found.map((fault) => `${name}: ${fault}`);
}

class Pages {
  constructor(stage, browser) {
    this.stage = stage;
    this.browser = browser;
  }

  async start() {
    const grants = ['AUTHORIZATION_CODE', 'REFRESH_TOKEN'];
    this.site = await this.stage.register('NONE', grants);
    // As long as it gets, and with no place to break a line.
    this.long = await this.stage.register('NONE', grants, { name: 'W'.repeat(255), description: 'm'.repeat(1_000), homepage_url: `https://${'w'.repeat(60)}.example` });
    this.tv = await this.stage.register('NONE', ['DEVICE_CODE'], { name: 'Acme TV' });
    this.config = await this.stage.discover(this.tv, oidc.None());
  }

  /** A link as the third party makes it. */
  async link(more = {}) {
    const parameters = {
      response_type: 'code',
      client_id: this.site.id,
      redirect_uri: this.stage.redirectUri,
      scope: 'openid profile email offline_access workflows.read workflows.run',
      resource: this.stage.resource,
      state: oidc.randomState(),
      code_challenge: await oidc.calculatePKCECodeChallenge(oidc.randomPKCECodeVerifier()),
      code_challenge_method: 'S256',
      ...more,
    };
    return `${this.stage.broker.publicUrl}/oauth2/authorize?${new URLSearchParams(parameters)}`;
  }

  /** A device that has begun. */
  device() {
    return oidc.initiateDeviceAuthorization(this.config, { scope: 'workflows.read' });
  }

  /** Every page once. */
  async gallery(where, options, person) {
    const { page, complaints, close } = await open(this.browser, options);
    const found = [];
    const shown = async (name, status, response) => {
      if (response.status() !== status) found.push(`${name}: status ${response.status()}`);
      found.push(...await look(page, name, where));
    };
    const root = this.stage.broker.publicUrl;
    const wrong = { person: { ...person, password: 'not the password' }, code: 'ZZZZ-ZZZZ' };
    try {
      await shown('error', 400, await page.goto(await this.link({ scope: 'everything' })));
      await shown('unknown', 403, await page.goto(`${root}/oauth2/sign-in/areq_00000000000000000000000000`));
      await shown('sign-in', 200, await page.goto(await this.link()));
      await shown('sign-in-error', 403, await submit(page, 'sign-in', wrong));
      await shown('consent', 200, await submit(page, 'sign-in', { person }));
      await submit(page, 'consent', {});
      await shown('long-sign-in', 200, await page.goto(await this.link({ client_id: this.long.id })));
      await shown('long-consent', 200, await submit(page, 'sign-in', { person }));
      const { user_code: code, verification_uri_complete: complete } = await this.device();
      await shown('device', 200, await page.goto(`${root}/device`));
      await shown('device-error', 400, await submit(page, 'device', wrong));
      await shown('device-link', 200, await page.goto(complete));
      await shown('device-sign-in', 200, await submit(page, 'device', { code }));
      await shown('device-consent', 200, await submit(page, 'sign-in', { person }));
      await shown('device-done', 200, await submit(page, 'consent', {}));
      const other = await this.device();
      await page.goto(other.verification_uri);
      await submit(page, 'device', { code: other.user_code });
      await submit(page, 'sign-in', { person });
      await shown('device-denied', 200, await submit(page, 'consent', { decision: 'deny' }));
    } finally {
      await close();
    }
    equal(`${where}: every page has its status, its labels, its contrast and no sideways scrolling`, found, []);
    equal(`${where}: the console has nothing against them`, complaints, []);
  }

  /** There and back without a script. */
  async withoutScripts(person) {
    const options = { javaScriptEnabled: false, viewport: SIZES.phone };
    const yes = await walk(this.browser, await this.link(), { person, options });
    check('without JavaScript: a yes', yes.url.searchParams.has('code') && !yes.complaints.length, yes);
    const no = await walk(this.browser, await this.link(), { person, options, decision: 'deny' });
    equal('without JavaScript: a no', no.url.searchParams.get('error'), 'access_denied');
    const { verification_uri: url, user_code: code } = await this.device();
    const device = await walk(this.browser, url, { person, options, code });
    equal('without JavaScript: a device', device.title, 'Your device is connected');
  }

  /** What has the focus, and whether that can be seen. */
  focus(page) {
    return page.evaluate(() => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      const seen = outlineStyle !== 'none' && Number.parseFloat(outlineWidth) >= 2;
      const name = element.name === 'decision' ? element.value : element.name || element.id || element.textContent.trim();
      return seen ? name : `${name}, unseen`;
    });
  }

  /** Presses Tab, typing into what gets the focus, until one of the names is reached: all that had it. */
  async tab(page, until, typed = {}) {
    const order = [await this.focus(page)];
    for (let left = 8; left > 0 && order.at(-1) !== until; left -= 1) {
      const text = typed[order.at(-1)];
      if (text) await page.keyboard.type(text);
      await page.keyboard.press('Tab');
      order.push(await this.focus(page));
    }
    return order;
  }

  /** Enter, and the page that comes of it. */
  async enter(page) {
    await Promise.all([page.waitForNavigation({ waitUntil: 'load' }), page.keyboard.press('Enter')]);
  }

  async byKeyboard(person) {
    const { page, complaints, close } = await open(this.browser, { viewport: SIZES.desktop });
    const shot = (name) => page.screenshot({ path: join(SHOTS, `${name}-keyboard.png`), fullPage: true });
    try {
      await page.goto(await this.link());
      const asked = await this.tab(page, 'Sign in', { email: person.email, password: 'not the password' });
      equal('by keyboard: the address has the focus, then password and button', asked, ['email', 'password', 'Sign in']);
      await shot('sign-in');
      await this.enter(page);
      await shot('sign-in-error');
      const again = await this.tab(page, 'password');
      equal('by keyboard: what is wrong has the focus, then the form', again, ['problem', 'email', 'password']);
      await page.keyboard.type(person.password);
      await this.enter(page);
      const consent = await this.tab(page, 'deny');
      equal('by keyboard: allow, then deny; neither has the focus before', consent.slice(1), ['allow', 'deny']);
      await page.keyboard.press('Shift+Tab');
      await shot('consent');
      await this.enter(page);
      check('by keyboard: back with a code', new URL(page.url()).searchParams.has('code'), page.url());

      const { verification_uri: url, user_code: code } = await this.device();
      await page.goto(url);
      const device = await this.tab(page, 'Go on', { user_code: code.replace('-', '').toLowerCase() });
      equal('by keyboard: the code has the focus, then the button', device, ['user_code', 'Go on']);
      await shot('device');
      await this.enter(page);
      equal('by keyboard: the code leads to sign-in', await this.focus(page), 'email');
    } finally {
      await close();
    }
    equal('by keyboard: the console has nothing against it', complaints, []);
  }
}

export async function lookAtPages(stage, browser) {
  mkdirSync(SHOTS, { recursive: true });
  const pages = new Pages(stage, browser);
  await pages.start();
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ['light', 'dark']) {
      // Somebody else each time: a wrong password makes the next try wait.
      const person = await stage.person(`${size}-${colorScheme}`);
      await pages.gallery(`${size} ${colorScheme}`, { viewport, colorScheme }, person);
    }
  }
  await pages.withoutScripts(await stage.person('unscripted'));
  await pages.byKeyboard(await stage.person('keyboard'));
}
