import { open, realpath, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Problem } from "../../../kernel/problem.ts";

/** A GGUF file that may be loaded. */
export interface ModelFile {
  /** Absolute, without links. */
  readonly path: string;
  readonly bytes: number;
  /** Changes when another file takes the name. */
  readonly identity: string;
}

/**
 * Finds `upstream_model` in the models directory.
 * @throws Problem `invalid_request` with param `upstream_model`, saying what to do: for the administrator, not for callers.
 */
export async function findModelFile(modelsDirectory: string | null, name: string): Promise<ModelFile> {
  checkModelName(name);
  if (modelsDirectory === null)
    throw refused("No models directory is set. Set ATRIUM_MODELS_DIR to the folder that holds your GGUF files.");
  const directory = await realpath(modelsDirectory).catch((cause: unknown) => {
    throw refused("The folder that ATRIUM_MODELS_DIR names cannot be read.", cause);
  });
  const path = await realpath(join(directory, name)).catch((cause: unknown) => {
    throw refused(`There is no file '${name}' in ATRIUM_MODELS_DIR.`, cause);
  });
  if (dirname(path) !== directory) throw refused(`'${name}' is a link that leaves ATRIUM_MODELS_DIR; put the file itself there.`);
  const facts = await stat(path);
  if (!facts.isFile()) throw refused(`'${name}' is not a file.`);
  if (!(await beginsAsGguf(path))) throw refused(`'${name}' is not a GGUF file, or its download was cut off.`);
  return { path, bytes: facts.size, identity: `${facts.dev}:${facts.ino}:${facts.size}:${facts.mtimeMs}` };
}

/** @throws Problem where the name is anything but a plain file name that ends in `.gguf`. */
export function checkModelName(name: string): void {
  if (!MODEL_NAME.test(name) || Buffer.byteLength(name) > NAME_BYTES)
    throw refused("For provider 'local', upstream_model is the name of a .gguf file inside ATRIUM_MODELS_DIR, without any folder.");
}

// No separators of any system, no control characters, no leading dot; the end is what llama.cpp's tools write.
const MODEL_NAME = /^[^./\\:\p{Cc}][^/\\:\p{Cc}]*\.gguf$/u;
const NAME_BYTES = 255;

async function beginsAsGguf(path: string): Promise<boolean> {
  const file = await open(path).catch((cause: unknown) => {
    throw refused("The model's file cannot be opened by this server.", cause);
  });
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
    return bytesRead === 4 && buffer.toString("latin1") === "GGUF";
  } finally {
    await file.close();
  }
}

function refused(message: string, cause?: unknown): Problem {
  return new Problem("invalid_request", { message, param: "upstream_model", cause });
}
