import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";

/** PEM. */
export interface Certified {
  readonly cert: string;
  readonly key: string;
}

/** A certificate authority for one test; node:crypto reads certificates but makes none, so `openssl` does. */
export interface Authority {
  readonly ca: string;
  /** `names`: as openssl's subjectAltName, `DNS:localhost,IP:127.0.0.1`. Expires in `days`; a negative number has expired. */
  issue(subject: string, options?: { readonly names?: string; readonly days?: number }): Certified;
}

/** Null, and the test is skipped with the reason, where there is no `openssl` to make one. */
export function createAuthority(t: TestContext, subject: string): Authority | null {
  const directory = mkdtempSync(path.join(tmpdir(), "atrium-certificates-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const openssl = (...args: string[]): void => void execFileSync("openssl", args, { cwd: directory, stdio: "pipe" });
  try {
    openssl("version");
  } catch {
    t.skip("openssl, which makes the certificates, is not installed");
    return null;
  }
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const read = (name: string): string => readFileSync(path.join(directory, name), "utf8");
  openssl("req", "-x509", ...newKey, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", `/CN=${subject}`);
  return {
    ca: read("ca.pem"),
    issue: (name, { names = "DNS:localhost,IP:127.0.0.1", days = 1 } = {}) => {
      openssl("req", ...newKey, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", `/CN=${name}`);
      writeFileSync(path.join(directory, "leaf.cnf"), `subjectAltName=${names}\n`);
      const signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", String(days), "-extfile", "leaf.cnf"];
      openssl("x509", "-req", "-in", "leaf.csr", "-out", "leaf.pem", ...signing);
      return { cert: read("leaf.pem"), key: read("leaf.key") };
    },
  };
}
