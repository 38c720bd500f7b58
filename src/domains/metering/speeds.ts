import type { DeploymentId } from "../../kernel/ids.ts";

/** How fast each deployment writes, learnt from what it completed: output tokens per second of a whole response, smoothed. */
export class Speeds {
  readonly #perSecond = new Map<DeploymentId, number>();

  of(deployment: DeploymentId): number {
    return this.#perSecond.get(deployment) ?? DEFAULT_TOKENS_PER_SECOND;
  }

  observe(deployment: DeploymentId, outputTokens: number, latencyMs: number): void {
    if (outputTokens === 0) return;
    const seen = Math.min((outputTokens * 1000) / Math.max(1, latencyMs), FASTEST_TOKENS_PER_SECOND);
    const known = this.#perSecond.get(deployment);
    if (known === undefined && this.#perSecond.size >= MAX_DEPLOYMENTS) this.#perSecond.clear();
    this.#perSecond.set(deployment, known === undefined ? seen : known + (seen - known) * WEIGHT);
  }
}

/** A hosted model's usual speed, for a deployment that has completed nothing in this process. */
const DEFAULT_TOKENS_PER_SECOND = 100;
const FASTEST_TOKENS_PER_SECOND = 10_000;
const WEIGHT = 0.1;
const MAX_DEPLOYMENTS = 10_000;
