// Counts checks and prints a line for each, as run.mjs does.

export let passed = 0;
export let failed = 0;

/** One check. A failed one is reported and the run goes on, as far as later steps can do without it. */
export function check(what, fact, detail = '') {
  if (fact) passed += 1;
  else failed += 1;
  const why = fact || detail === '' ? '' : `: ${typeof detail === 'string' ? detail : JSON.stringify(detail)}`;
  process.stdout.write(`${fact ? 'ok  ' : 'FAIL'}  ${what}${why}\n`);
}

export function equal(what, got, wanted) {
  check(what, JSON.stringify(got) === JSON.stringify(wanted), { got, wanted });
}
