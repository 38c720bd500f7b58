import { existsSync } from "node:fs";
import path from "node:path";

/** The small real model of the end-to-end tests. */
export const LOCAL_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf";
export const modelsDirectory = process.env["ATRIUM_TEST_MODELS"];
const plugin = path.join(import.meta.dirname, "..", "..", "plugins", "local", "node_modules");

/** Why the model cannot run here; false where it can. */
export const noLocalModel: string | false =
  modelsDirectory === undefined
    ? "ATRIUM_TEST_MODELS does not name a folder of models"
    : !existsSync(path.join(modelsDirectory, LOCAL_MODEL))
      ? `${LOCAL_MODEL} is not in ATRIUM_TEST_MODELS`
      : !existsSync(plugin)
        ? "the local plug-in is not installed (npm run setup:local)"
        : false;
