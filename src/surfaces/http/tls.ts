import { X509Certificate } from "node:crypto";
import { type FSWatcher, watch } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { createSecureContext } from "node:tls";
import type { Log } from "../../telemetry/index.ts";

/** A certificate (with its chain) and its private key, PEM. */
export interface KeyPair {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** The key pair in two files, followed as they change. */
export interface Certificate {
  readonly current: KeyPair;
  /** Calls back with each new pair that works. */
  onRenewal(use: (pair: KeyPair) => void): void;
  close(): void;
}

export interface CertificateNeeds {
  readonly certFile: string;
  readonly keyFile: string;
  readonly log: Log;
  /** Between two looks at the files where nothing told of a change, ms. */
  readonly pollMs?: number;
}

/** The start stops with this: a sentence for the operator. */
export class CertificateProblem extends Error {
  constructor(message: string) {
    super(message);
    this.name = "CertificateProblem";
  }
}

/** A network file system tells nobody of a change. */
const POLL_MS = 10_000;
/** Certificate and key are renewed one after the other: a look between the two would find a pair that does not match. */
const SETTLE_MS = 200;

/**
 * Opens a key pair and keeps it current. The files are compared by content, so every way of renewing them counts: written
 * anew, renamed over, or reached by a symbolic link that is moved. A pair that does not work is an error in the log, once, and
 * the one before it stays in use. @throws CertificateProblem
 */
export async function openCertificate(needs: CertificateNeeds): Promise<Certificate> {
  const { log } = needs;
  const users: ((pair: KeyPair) => void)[] = [];
  let current = await readPair(needs);
  usable(current, needs);
  let seen = current;
  let complaint = "";
  let closed = false;
  const look = async (): Promise<void> => {
    try {
      const found = await readPair(needs);
      complaint = "";
      if (closed || same(found, seen)) return;
      seen = found;
      const certificate = usable(found, needs);
      current = found;
      for (const use of users) use(found);
      log.info({ subject: certificate.subject, validTo: certificate.validTo }, "the renewed TLS certificate is in use");
    } catch (error) {
      const { message } = error as Error;
      if (message !== complaint)
        log.error({ err: error }, "the TLS files have changed and cannot be used: the certificate before them stays in use");
      complaint = message;
    }
  };
  const stop = follow(needs, look);
  return {
    get current() {
      return current;
    },
    onRenewal: (use) => void users.push(use),
    close() {
      closed = true;
      stop();
    },
  };
}

/** Looks at every interval, and soon after something happened in the files' directories: links are moved there. */
function follow({ certFile, keyFile, pollMs = POLL_MS, log }: CertificateNeeds, look: () => Promise<void>): () => void {
  let settling: NodeJS.Timeout | undefined;
  let looking = Promise.resolve();
  const lookNext = (): void => void (looking = looking.then(look));
  const soon = (): void => {
    clearTimeout(settling);
    settling = setTimeout(lookNext, SETTLE_MS).unref();
  };
  const watchers = [...new Set([path.dirname(certFile), path.dirname(keyFile)])].flatMap((directory) => watcherOf(directory, soon, log));
  const poll = setInterval(lookNext, pollMs).unref();
  return () => {
    clearInterval(poll);
    clearTimeout(settling);
    for (const watcher of watchers) watcher.close();
  };
}

/** None where the machine has no more to give: then the interval is what is left. */
function watcherOf(directory: string, changed: () => void, log: Log): FSWatcher[] {
  const unwatched = (error: unknown): void => log.debug({ err: error }, "the TLS files are looked at from time to time only");
  try {
    return [watch(directory, { persistent: false }, changed).on("error", unwatched)];
  } catch (error) {
    unwatched(error);
    return [];
  }
}

async function readPair({ certFile, keyFile }: CertificateNeeds): Promise<KeyPair> {
  const [cert, key] = await Promise.all([readPem("TLS_CERT", certFile), readPem("TLS_KEY", keyFile)]);
  return { cert, key };
}

async function readPem(setting: string, file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new CertificateProblem(`${setting}: ${file} cannot be read (${(error as NodeJS.ErrnoException).code}).`);
  }
}

/** @throws CertificateProblem where TLS could not be spoken with the pair */
function usable({ cert, key }: KeyPair, { certFile, keyFile }: CertificateNeeds): X509Certificate {
  try {
    createSecureContext({ cert, key });
    return new X509Certificate(cert);
  } catch (error) {
    const { reason, message } = error as Error & { readonly reason?: string };
    throw new CertificateProblem(
      `TLS_CERT (${certFile}) and TLS_KEY (${keyFile}) must be a PEM certificate and its own private key without a passphrase (${reason ?? message}).`,
    );
  }
}

function same(left: KeyPair, right: KeyPair): boolean {
  return left.cert.equals(right.cert) && left.key.equals(right.key);
}
