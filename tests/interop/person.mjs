// The person at our own pages: types a device's code, signs in, and decides.

/** No step takes this long on loopback, in milliseconds. */
const STEP = 15_000;
/** A device's code, sign-in, consent: more screens than this is going in circles. */
const SCREENS = 4;

/** Which of our pages with a form is open; nothing for a page without. */
export async function screen(page) {
  if (await page.locator('input[name=user_code]').count()) return 'device';
  if (await page.locator('input[name=password]').count()) return 'sign-in';
  if (await page.locator('button[name=decision]').count()) return 'consent';
  return undefined;
}

/** A page in a browser of its own. What the console says against us, and what can't be had, is kept in `complaints`. */
export async function open(browser, options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(STEP);
  context.setDefaultNavigationTimeout(STEP);
  const page = await context.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('requestfailed', (request) => complaints.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on('console', (message) => {
    // The status of a page that says what went wrong is meant so.
    const ofPage = message.text().startsWith('Failed to load resource') && message.location().url === page.url();
    if (['error', 'warning'].includes(message.type()) && !ofPage) complaints.push(message.text());
  });
  return { page, complaints, close: () => context.close() };
}

/** Fills in the form of the page that is open, and sends it. */
export async function submit(page, name, { person, code, decision = 'allow' }) {
  let button = page.locator('button[type=submit]');
  if (name === 'device') await page.locator('input[name=user_code]').fill(code);
  if (name === 'sign-in') {
    await page.locator('input[name=email]').fill(person.email);
    await page.locator('input[name=password]').fill(person.password);
  }
  if (name === 'consent') button = page.locator(`button[value=${decision}]`);
  const [response] = await Promise.all([page.waitForNavigation({ waitUntil: 'load' }), button.click()]);
  return response;
}

/** Opens `url` and goes on until no form is left: where the browser ends, and what it saw on the way. */
export async function walk(browser, url, { options, ...filled }) {
  const { page, complaints, close } = await open(browser, options);
  try {
    let response = await page.goto(String(url), { waitUntil: 'load' });
    const screens = [];
    for (let left = SCREENS; left > 0; left -= 1) {
      const name = await screen(page);
      if (!name) {
        return { url: new URL(page.url()), status: response.status(), title: await page.title(), screens, complaints };
      }
      screens.push(name);
      response = await submit(page, name, filled);
    }
    throw new Error(`still at a form after ${SCREENS} screens: ${screens.join(', ')}`);
  } finally {
    await close();
  }
}
