import type { ChatRequest } from "../../../kernel/chat.ts";
import type { JsonObject, ModelRequest } from "../../../kernel/request.ts";
import { PARSERS } from "./parsers.ts";
import type { LargeBody, RequestHead } from "./protocol.ts";

/**
 * A request that was parsed on the reading thread, of which this one has the head. Whoever asks for its fields all the same gets them, at the
 * price that the thread is there to save: the body is parsed again, here.
 */
export class LargeRequest implements ModelRequest {
  readonly kind: ModelRequest["kind"];
  readonly dialect: ModelRequest["dialect"];
  readonly model: string;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly attribution: ModelRequest["attribution"];
  readonly body: Buffer;
  readonly source: LargeBody;
  #parsed: ModelRequest | null = null;

  constructor(source: LargeBody, head: RequestHead) {
    this.kind = head.kind;
    this.dialect = head.dialect;
    this.model = head.model;
    this.stream = head.stream;
    this.includeUsage = head.includeUsage;
    this.attribution = head.attribution;
    this.body = Buffer.from(source.memory);
    this.source = source;
  }

  get fields(): JsonObject {
    return this.#here().fields;
  }

  chat(): ChatRequest {
    return this.#here().chat();
  }

  #here(): ModelRequest {
    return (this.#parsed ??= PARSERS[this.source.parser](this.body, this.source.attribution));
  }
}
