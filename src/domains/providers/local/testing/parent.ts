import { systemClock } from "../../../../kernel/clock.ts";
import { createLocalProvider } from "../local.ts";
import { CHAT_MODEL, collect, deploymentOf, dispatchOf, quiet, TEST_MODELS } from "./requests.ts";

/** A server in miniature for the tests that kill one: prints its child's process id at the first token, then keeps generating. */
const provider = createLocalProvider({ modelsDirectory: TEST_MODELS, clock: systemClock, log: quiet });
const response = await provider.dispatch(
  dispatchOf({ messages: [{ role: "user", content: "Tell a long story." }], stream: true, max_tokens: 1500 }, deploymentOf(CHAT_MODEL)),
);
process.stdout.write(`${provider.pids().join()}\n`);
await collect(response);
