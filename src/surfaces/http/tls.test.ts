import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type CertificateFiles, makeCertificate, noOpenssl } from "./testing/certificates.ts";
import { type Certificate, CertificateProblem, openCertificate } from "./tls.ts";

const NEVER_MS = 1_000_000;

function directoryOf(t: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), "atrium-tls-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

interface Opened {
  readonly certificate: Certificate;
  /** Common names of the certificates that came into use. */
  readonly used: string[];
  readonly errors: string[];
}

async function open(t: TestContext, files: CertificateFiles, pollMs = NEVER_MS): Promise<Opened> {
  const errors: string[] = [];
  const log = { error: (facts: { err: Error }) => void errors.push(facts.err.message), warn() {}, info() {}, debug() {} };
  const certificate = await openCertificate({ ...files, pollMs, log });
  t.after(() => certificate.close());
  const used: string[] = [];
  certificate.onRenewal(({ cert }) => void used.push(nameIn(cert)));
  return { certificate, used, errors };
}

function nameIn(cert: Buffer): string {
  return new X509Certificate(cert).subject.replace("CN=", "");
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let look = 0; !condition(); look++) {
    if (look === 600) assert.fail(`it did not happen: ${what}`);
    await sleep(5);
  }
}

function copy(from: CertificateFiles, to: CertificateFiles): void {
  copyFileSync(from.certFile, to.certFile);
  copyFileSync(from.keyFile, to.keyFile);
}

test("files that cannot be used stop the start with a sentence that names them", { skip: noOpenssl }, async (t) => {
  const directory = directoryOf(t);
  const [one, two] = [makeCertificate(directory, "one"), makeCertificate(directory, "two")];
  const locked = makeCertificate(directory, "locked", ["-passout", "pass:secret"]);
  const garbage = path.join(directory, "garbage");
  writeFileSync(garbage, "no PEM");
  for (const [files, sentence] of [
    [{ ...one, certFile: path.join(directory, "absent") }, /^TLS_CERT: .*absent cannot be read \(ENOENT\)\.$/],
    [{ ...one, keyFile: directory }, /^TLS_KEY: .* cannot be read \(EISDIR\)\.$/],
    [{ ...one, keyFile: two.keyFile }, /^TLS_CERT \(.*one\.crt\) and TLS_KEY \(.*two\.key\) must be .* own private key.*mismatch/],
    [{ ...one, certFile: garbage }, /must be a PEM certificate/],
    [{ ...one, keyFile: garbage }, /must be a PEM certificate/],
    [locked, /without a passphrase/],
  ] as const)
    await assert.rejects(
      open(t, files),
      (error: Error) => error instanceof CertificateProblem && sentence.test(error.message),
      String(sentence),
    );
});

test(
  "a renewed pair is used soon, however it came: written anew, renamed over, or behind links that move",
  { skip: noOpenssl },
  async (t) => {
    const directory = directoryOf(t);
    const [one, two] = [makeCertificate(directory, "one"), makeCertificate(directory, "two")];

    await t.test("written anew, then renamed over as certbot's hooks do", async (t) => {
      const live = path.join(directory, "live");
      mkdirSync(live);
      const files = { certFile: path.join(live, "tls.crt"), keyFile: path.join(live, "tls.key") };
      copy(one, files);
      const { used, certificate } = await open(t, files);
      copy(two, files);
      await until(() => used.length === 1, "written");
      const next = { certFile: `${files.certFile}.new`, keyFile: `${files.keyFile}.new` };
      copy(one, next);
      renameSync(next.keyFile, files.keyFile);
      renameSync(next.certFile, files.certFile);
      await until(() => used.length === 2, "renamed");
      assert.deepEqual(used, ["two", "one"]);
      assert.deepEqual(certificate.current.cert, readFileSync(one.certFile));
    });

    await t.test("behind the link that Kubernetes moves", async (t) => {
      const mount = path.join(directory, "mount");
      mkdirSync(mount);
      for (const [version, pair] of [
        ["v1", one],
        ["v2", two],
      ] as const) {
        mkdirSync(path.join(mount, version));
        copy(pair, { certFile: path.join(mount, version, "tls.crt"), keyFile: path.join(mount, version, "tls.key") });
      }
      symlinkSync("v1", path.join(mount, "..data"));
      const files = { certFile: path.join(mount, "tls.crt"), keyFile: path.join(mount, "tls.key") };
      for (const file of ["tls.crt", "tls.key"]) symlinkSync(path.join("..data", file), path.join(mount, file));
      const { used } = await open(t, files);
      symlinkSync("v2", path.join(mount, "..data_tmp"));
      renameSync(path.join(mount, "..data_tmp"), path.join(mount, "..data"));
      await until(() => used.length === 1, "moved");
      assert.deepEqual(used, ["two"]);
    });

    await t.test("where nothing tells of a change, at the next look", async (t) => {
      const elsewhere = path.join(directory, "elsewhere");
      const pointed = path.join(directory, "pointed");
      for (const each of [elsewhere, pointed]) mkdirSync(each);
      const real = { certFile: path.join(elsewhere, "tls.crt"), keyFile: path.join(elsewhere, "tls.key") };
      copy(one, real);
      const files = { certFile: path.join(pointed, "tls.crt"), keyFile: path.join(pointed, "tls.key") };
      symlinkSync(real.certFile, files.certFile);
      symlinkSync(real.keyFile, files.keyFile);
      // The files change in a directory that nobody watches.
      const { used } = await open(t, files, 50);
      copy(two, real);
      await until(() => used.includes("two"), "polled");
    });
  },
);

test(
  "a pair that does not work is one error in the log each time and changes nothing; the next one that works is used",
  { skip: noOpenssl },
  async (t) => {
    const directory = directoryOf(t);
    const [one, two] = [makeCertificate(directory, "one"), makeCertificate(directory, "two")];
    const files = { certFile: path.join(directory, "tls.crt"), keyFile: path.join(directory, "tls.key") };
    copy(one, files);
    const { certificate, used, errors } = await open(t, files, 30);
    copyFileSync(two.certFile, files.certFile);
    await until(() => errors.length > 0, "the mismatch is logged");
    await sleep(300);
    assert.equal(errors.length, 1, "the same files are complained of once");
    assert.match(String(errors[0]), /own private key/);
    assert.deepEqual([used, nameIn(certificate.current.cert)], [[], "one"]);
    copyFileSync(two.keyFile, files.keyFile);
    await until(() => used.length === 1, "mended");
    assert.deepEqual([used, nameIn(certificate.current.cert)], [["two"], "two"]);
    rmSync(files.certFile);
    await until(() => errors.some((each) => each.includes("ENOENT")), "the absence is logged");
    await sleep(150);
    assert.equal(errors.length, 2, "the same absence is complained of once");
    copyFileSync(two.certFile, files.certFile);
    await sleep(300);
    rmSync(files.certFile);
    await until(() => errors.length > 2, "a later absence is another one");
    assert.equal(nameIn(certificate.current.cert), "two");
  },
);
