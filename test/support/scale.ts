/** A property's usual number of runs, times ATRIUM_TEST_SCALE, which `npm run soak` sets. */
export function scaled(runs: number): number {
  return runs * SCALE;
}

/** Whether this is `npm run soak`: only there may a test assert milliseconds; elsewhere it prints them. */
export const IS_SOAK = process.env["ATRIUM_TEST_SCALE"] !== undefined;

const SCALE = Number(process.env["ATRIUM_TEST_SCALE"] ?? 1);
if (!(Number.isInteger(SCALE) && SCALE >= 1)) throw new Error("ATRIUM_TEST_SCALE must be a whole number of at least 1");
