/** A property's usual number of runs, times ATRIUM_TEST_SCALE, which `npm run soak` sets. */
export function scaled(runs: number): number {
  return runs * SCALE;
}

const SCALE = Number(process.env["ATRIUM_TEST_SCALE"] ?? 1);
if (!(Number.isInteger(SCALE) && SCALE >= 1)) throw new Error("ATRIUM_TEST_SCALE must be a whole number of at least 1");
