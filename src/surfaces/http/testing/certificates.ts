import { execFileSync, spawnSync } from "node:child_process";
import path from "node:path";

/** Why no certificate can be made here; false where one can. */
export const noOpenssl: string | false =
  spawnSync("openssl", ["version"]).status === 0 ? false : "there is no `openssl` to make a certificate with";

export interface CertificateFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

/** A self-signed certificate for localhost and 127.0.0.1 with the common name given, in files named after it. */
export function makeCertificate(directory: string, name: string, keyOptions: readonly string[] = ["-nodes"]): CertificateFiles {
  const files = { certFile: path.join(directory, `${name}.crt`), keyFile: path.join(directory, `${name}.key`) };
  const made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2", ...keyOptions];
  const named = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  execFileSync("openssl", [...made, ...named, "-out", files.certFile, "-keyout", files.keyFile], { stdio: "pipe" });
  return files;
}
