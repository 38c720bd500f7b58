import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

/** What came over a caller's connection: the bytes, in pieces, and whether the connection broke instead of ending. */
export interface Received {
  readonly pieces: readonly Buffer[];
  readonly broke: boolean;
}

/** What an official client made of a stream. */
export interface Reading {
  /** Whether the client took the stream for a whole answer. */
  readonly clean: boolean;
  /** The answer's text, as far as it was read. */
  readonly text: string;
  readonly error: unknown;
}

/** What OpenAI's SDK makes of the bytes of a `chat.completion.chunk` stream. */
export async function readAsOpenAI(received: Received): Promise<Reading> {
  const client = new OpenAI({ apiKey: "k", maxRetries: 0, logLevel: "off", fetch: answering(received) });
  let text = "";
  let finished = false;
  try {
    for await (const chunk of await client.chat.completions.create({ model: "m", messages: [], stream: true })) {
      text += chunk.choices[0]?.delta.content ?? "";
      finished ||= typeof chunk.choices[0]?.finish_reason === "string";
    }
    return { clean: finished, text, error: null };
  } catch (error) {
    return { clean: false, text, error };
  }
}

/** What Anthropic's SDK makes of the bytes of a message stream: its `MessageStream`, which puts the message together. */
export async function readAsAnthropic(received: Received): Promise<Reading & { readonly message: Anthropic.Message | null }> {
  const client = new Anthropic({ apiKey: "k", maxRetries: 0, logLevel: "off", fetch: answering(received) });
  let text = "";
  try {
    const stream = client.messages.stream({ model: "m", max_tokens: 1, messages: [] });
    stream.on("text", (delta) => (text += delta));
    return { clean: true, message: await stream.finalMessage(), text, error: null };
  } catch (error) {
    return { clean: false, message: null, text, error };
  }
}

function answering({ pieces, broke }: Received): () => Promise<Response> {
  return async () => {
    const left = [...pieces];
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        const piece = left.shift();
        if (piece !== undefined) controller.enqueue(new Uint8Array(piece));
        else if (broke) controller.error(new Error("the connection broke"));
        else controller.close();
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
}
