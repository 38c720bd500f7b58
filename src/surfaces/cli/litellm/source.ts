/** A place in the configuration: `["model_list", 0, "litellm_params", "model"]`. */
export type Path = readonly (string | number)[];

/** Something that the result does not hold, and why. `path` stands for everything below it. */
export interface Unmapped {
  readonly path: string;
  readonly reason: string;
}

/** A LiteLLM configuration being read. What is not taken is reported: nothing goes missing in silence. */
export interface Source {
  /** The value at a path, and undefined where there is none. Marks nothing. */
  at(path: Path): unknown;
  /** As `at`; everything at and below the path counts as carried over. */
  take(path: Path): unknown;
  /** Everything at and below the path stays behind, for this reason. */
  refuse(path: Path, reason: string): void;
  /** What was neither taken nor refused is refused by these rules, the first that matches, or the last resort. */
  report(rules: readonly (readonly [pattern: RegExp, reason: string])[], lastResort: string): Unmapped[];
}

export function createSource(root: unknown): Source {
  const taken: Path[] = [];
  const refused: { readonly path: Path; readonly reason: string }[] = [];
  const at = (path: Path): unknown => path.reduce<unknown>((value, step) => childOf(value, step), root);
  return {
    at,
    take(path) {
      const value = at(path);
      if (value !== undefined) taken.push(path);
      return value;
    },
    refuse: (path, reason) => void (at(path) === undefined || refused.push({ path, reason })),
    report(rules, lastResort) {
      const takenPaths = new Set(taken.map(keyOf));
      const reasons = new Map(refused.map(({ path, reason }) => [keyOf(path), reason]));
      const reasonOf = (path: Path) => rules.find(([pattern]) => pattern.test(render(path)))?.[1] ?? lastResort;
      const visit = (value: unknown, path: Path): Unmapped[] => {
        if (takenPaths.has(keyOf(path))) return [];
        const reason = reasons.get(keyOf(path));
        if (reason !== undefined) return [{ path: render(path), reason }];
        const children = childrenOf(value);
        if (children.length === 0) return [{ path: render(path), reason: reasonOf(path) }];
        const below = children.map(([step, child]) => visit(child, [...path, step]));
        return isOne(below, reasonOf(path)) ? [{ path: render(path), reason: reasonOf(path) }] : below.flat();
      };
      return childrenOf(root).flatMap(([step, child]) => visit(child, [step]));
    },
  };
}

/** Whether a whole subtree stays behind for one reason. */
function isOne(below: readonly (readonly Unmapped[])[], reason: string): boolean {
  return below.every((each) => each.length > 0 && each.every((unmapped) => unmapped.reason === reason));
}

/** Every value that holds no other, with its path: what must be accounted for. */
export function leavesOf(value: unknown, path: Path = []): Path[] {
  const children = childrenOf(value);
  return children.length === 0 ? [path] : children.flatMap(([step, child]) => leavesOf(child, [...path, step]));
}

/** `model_list[0].litellm_params.model` */
export function render(path: Path): string {
  return path
    .map((step, index) => {
      if (typeof step === "number") return `[${step}]`;
      if (!/^[\w-]+$/.test(step)) return `[${JSON.stringify(step)}]`;
      return index === 0 ? step : `.${step}`;
    })
    .join("");
}

function childrenOf(value: unknown): (readonly [string | number, unknown])[] {
  if (Array.isArray(value)) return value.map((child, index) => [index, child] as const);
  return typeof value === "object" && value !== null ? Object.entries(value) : [];
}

function childOf(value: unknown, step: string | number): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) return undefined;
  return (value as Record<string | number, unknown>)[step];
}

function keyOf(path: Path): string {
  return JSON.stringify(path);
}
