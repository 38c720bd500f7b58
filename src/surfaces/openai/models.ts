import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Model } from "../../domains/catalog/index.ts";
import type { Allow, Authenticate, Principal } from "../../domains/identity/index.ts";
import { PLATFORM_TENANT } from "../../kernel/ids.ts";
import { credentialOf } from "../http/credential.ts";

export interface ModelsNeeds {
  readonly authenticate: Authenticate;
  readonly allow: Allow;
  /** What the principal may call, by name. */
  readonly modelsFor: (principal: Principal) => readonly Model[];
  /** @throws Problem model_not_found */
  readonly modelFor: (principal: Principal, name: string) => Model;
}

/** `GET /v1/models` and `GET /v1/models/{model}`: names may hold slashes, so the rest of the path is the name. */
export function mountModels(app: FastifyInstance, needs: ModelsNeeds): void {
  const caller = async (request: FastifyRequest): Promise<Principal> => {
    const principal = await needs.authenticate(credentialOf(request.headers));
    needs.allow(principal, "models:call", principal.tenant);
    return principal;
  };
  app.get("/v1/models", async (request) => ({ object: "list", data: needs.modelsFor(await caller(request)).map(render) }));
  app.get("/v1/models/*", async (request) => {
    const principal = await caller(request);
    return render(needs.modelFor(principal, (request.params as { "*": string })["*"]));
  });
}

function render(model: Model) {
  return {
    id: model.name,
    object: "model",
    created: Math.floor(model.createdAt / 1000),
    owned_by: model.owner === PLATFORM_TENANT ? "platform" : "organization",
  };
}
