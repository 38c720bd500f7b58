import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Model } from "../../domains/catalog/index.ts";
import type { Allow, Authenticate, Principal } from "../../domains/identity/index.ts";
import type { Refusal } from "../../domains/records/index.ts";
import { PLATFORM_TENANT } from "../../kernel/ids.ts";
import { credentialOf } from "../http/credential.ts";

export interface ModelsNeeds {
  readonly authenticate: Authenticate;
  readonly allow: Allow;
  /** What the principal may call, by name. */
  readonly modelsFor: (principal: Principal) => readonly Model[];
  /** @throws Problem model_not_found */
  readonly modelFor: (principal: Principal, name: string) => Model;
  /** Takes what authorization refused: for the record, on no account for the caller. */
  readonly refused: (refusal: Refusal) => void;
}

/** `GET /v1/models` and `GET /v1/models/{model}`: names may hold slashes, so the rest of the path is the name. */
export function mountModels(app: FastifyInstance, needs: ModelsNeeds): void {
  const answer = async <T>(request: FastifyRequest, work: (principal: Principal) => T): Promise<T> => {
    const credential = credentialOf(request.headers);
    try {
      const principal = await needs.authenticate(credential, { family: "models", address: request.remoteAddress });
      needs.allow(principal, "models:call", principal.tenant);
      return work(principal);
    } catch (problem) {
      needs.refused({ route: "openai.models", principal: null, credential, remoteAddress: request.remoteAddress, problem });
      throw problem;
    }
  };
  app.get("/v1/models", (request) => answer(request, (principal) => ({ object: "list", data: needs.modelsFor(principal).map(render) })));
  app.get("/v1/models/*", (request) =>
    answer(request, (principal) => render(needs.modelFor(principal, (request.params as { "*": string })["*"]))),
  );
}

function render(model: Model) {
  return {
    id: model.name,
    object: "model",
    created: Math.floor(model.createdAt / 1000),
    owned_by: model.owner === PLATFORM_TENANT ? "platform" : "organization",
  };
}
