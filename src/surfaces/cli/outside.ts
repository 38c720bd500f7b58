/**
 * Runs a command that works on a server from outside, or on files alone, to its exit code. What stops it is said on standard
 * error, with exit code 1.
 */
export async function exitWith(work: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await work();
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
