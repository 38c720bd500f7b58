import {
  AliasNode,
  AndNode,
  BinaryOperationNode,
  ColumnNode,
  type CommonTableExpressionNode,
  type DeleteQueryNode,
  IdentifierNode,
  type InsertQueryNode,
  type JoinNode,
  type KyselyPlugin,
  type MergeQueryNode,
  type OperationNode,
  OperationNodeTransformer,
  OperatorNode,
  ParensNode,
  type PluginTransformQueryArgs,
  type PluginTransformResultArgs,
  PrimitiveValueListNode,
  type QueryId,
  type QueryResult,
  type RawNode,
  ReferenceNode,
  type RootOperationNode,
  SelectAllNode,
  SelectionNode,
  SelectQueryNode,
  TableNode,
  type UnknownRow,
  type UpdateQueryNode,
  ValueListNode,
  ValueNode,
  ValuesNode,
  WhereNode,
  type WithNode,
} from "kysely";
import type { TenantId } from "../../kernel/ids.ts";
import { GLOBAL_TABLES } from "./schema.ts";

export type PredicateVerb = "select" | "insert" | "update" | "delete";

/** Which predicate is left out. Only the mutation test supplies one. */
export type PredicateOmission = (table: string, verb: PredicateVerb) => boolean;

/**
 * The second wall, beside row security: every query of a tenant transaction names the tenant. A table read becomes
 * `(select * from t where tenant_id = $1) as t` — right under every kind of join, and PostgreSQL flattens it — a table
 * changed gets the predicate in its WHERE, an inserted row gets the tenant, and another tenant's is refused.
 * Text that could name a table where no predicate can be put is refused too.
 */
export class TenantPredicate implements KyselyPlugin {
  readonly #transformer: TenantPredicateTransformer;

  constructor(tenant: TenantId, omits: PredicateOmission = () => false) {
    this.#transformer = new TenantPredicateTransformer(tenant, omits);
  }

  transformQuery(args: PluginTransformQueryArgs): RootOperationNode {
    return this.#transformer.transformNode(args.node, args.queryId);
  }

  async transformResult(args: PluginTransformResultArgs): Promise<QueryResult<UnknownRow>> {
    return args.result;
  }
}

class TenantPredicateTransformer extends OperationNodeTransformer {
  readonly #tenant: TenantId;
  readonly #omits: PredicateOmission;
  /** Names that stand for a query of this statement, whose own tables have their predicates. */
  readonly #queryNames = new Set<string>();

  constructor(tenant: TenantId, omits: PredicateOmission) {
    super();
    this.#tenant = tenant;
    this.#omits = omits;
  }

  protected override transformSelectQuery(node: SelectQueryNode, id?: QueryId): SelectQueryNode {
    const query = super.transformSelectQuery(node, id);
    return query.from === undefined ? query : { ...query, from: { ...query.from, froms: this.#readAll(query.from.froms) } };
  }

  protected override transformJoin(node: JoinNode, id?: QueryId): JoinNode {
    const join = super.transformJoin(node, id);
    return { ...join, table: this.#read(join.table) };
  }

  protected override transformUpdateQuery(node: UpdateQueryNode, id?: QueryId): UpdateQueryNode {
    const query = super.transformUpdateQuery(node, id);
    const where = this.#changed(query.table, "update", query.where);
    return {
      ...query,
      ...(query.from === undefined ? {} : { from: { ...query.from, froms: this.#readAll(query.from.froms) } }),
      ...(where === undefined ? {} : { where }),
    };
  }

  protected override transformDeleteQuery(node: DeleteQueryNode, id?: QueryId): DeleteQueryNode {
    const query = super.transformDeleteQuery(node, id);
    if (query.from.froms.length !== 1) throw refused("a delete names one table");
    const where = this.#changed(query.from.froms[0], "delete", query.where);
    return {
      ...query,
      ...(query.using === undefined ? {} : { using: { ...query.using, tables: this.#readAll(query.using.tables) } }),
      ...(where === undefined ? {} : { where }),
    };
  }

  protected override transformInsertQuery(node: InsertQueryNode, id?: QueryId): InsertQueryNode {
    const query = super.transformInsertQuery(node, id);
    const table = query.into?.table.identifier.name;
    if (table === undefined || GLOBAL_TABLES.has(table) || this.#omits(table, "insert")) return query;
    if (query.values === undefined || !ValuesNode.is(query.values)) throw refused(`an insert into ${table} lists its rows`);
    return withTenant(query, query.values, this.#tenant);
  }

  protected override transformMergeQuery(_node: MergeQueryNode): MergeQueryNode {
    throw refused("MERGE is not used here");
  }

  protected override transformRaw(node: RawNode, id?: QueryId): RawNode {
    const text = node.sqlFragments.join(" ? ");
    if (NAMES_TABLE.test(text) || CHANGES_TENANT.test(text) || node.parameters.some((parameter) => TableNode.is(parameter))) {
      throw refused(`raw SQL may not name tables or settings: ${text}`);
    }
    return super.transformRaw(node, id);
  }

  override transformNodeImpl<T extends OperationNode>(node: T, id?: QueryId): T {
    if (!STATEMENTS.has(node.kind)) return super.transformNodeImpl(node, id);
    const outer = new Set(this.#queryNames);
    try {
      const queries = (node as { with?: WithNode }).with;
      if (queries === undefined) return super.transformNodeImpl(node, id);
      // First, whatever the order of the node's parts: the rest of the statement refers to these names.
      const transformed = this.#nameQueries(queries, id);
      return { ...super.transformNodeImpl({ ...node, with: undefined }, id), with: transformed };
    } finally {
      this.#queryNames.clear();
      for (const name of outer) this.#queryNames.add(name);
    }
  }

  /** Unless the WITH is recursive, a query does not see its own name: `with t as (select * from t)` reads the table. */
  #nameQueries(queries: WithNode, id: QueryId | undefined): WithNode {
    const nameOf = (query: CommonTableExpressionNode) => query.name.table.table.identifier.name;
    if (queries.recursive === true) for (const query of queries.expressions) this.#queryNames.add(nameOf(query));
    const expressions: CommonTableExpressionNode[] = [];
    for (const query of queries.expressions) {
      expressions.push(this.transformNode(query, id));
      this.#queryNames.add(nameOf(query));
    }
    return { ...queries, expressions };
  }

  #readAll(tables: readonly OperationNode[]): OperationNode[] {
    return tables.map((table) => this.#read(table));
  }

  #read(source: OperationNode): OperationNode {
    const { table, alias } = namedTable(source);
    if (table === null || alias === null) return source;
    if (table.table.schema === undefined && this.#queryNames.has(table.table.identifier.name)) return source;
    if (GLOBAL_TABLES.has(table.table.identifier.name) || this.#omits(table.table.identifier.name, "select")) return source;
    const rows: SelectQueryNode = {
      ...SelectQueryNode.createFrom([table]),
      selections: [SelectionNode.create(SelectAllNode.create())],
      where: WhereNode.create(this.#is(table)),
    };
    return AliasNode.create(rows, IdentifierNode.create(alias));
  }

  #changed(target: OperationNode | undefined, verb: "update" | "delete", where: WhereNode | undefined): WhereNode | undefined {
    const { table, alias } = target === undefined ? NO_TABLE : namedTable(target);
    if (table === null || alias === null) throw refused(`an ${verb} names one table`);
    const name = table.table.identifier.name;
    if (GLOBAL_TABLES.has(name) || this.#omits(name, verb)) return where;
    const predicate = this.#is(TableNode.create(alias));
    return WhereNode.create(where === undefined ? predicate : AndNode.create(ParensNode.create(where.where), predicate));
  }

  #is(table: TableNode): BinaryOperationNode {
    const column = ReferenceNode.create(ColumnNode.create(TENANT_COLUMN), table);
    return BinaryOperationNode.create(column, OperatorNode.create("="), ValueNode.create(this.#tenant));
  }
}

/** The table a FROM item names and the name it goes by; nulls where it is a query of its own. */
function namedTable(source: OperationNode): { table: TableNode | null; alias: string | null } {
  if (TableNode.is(source)) return { table: source, alias: source.table.identifier.name };
  if (!AliasNode.is(source)) {
    if (OPAQUE.has(source.kind)) throw refused("tables are named one by one, not in raw SQL or lists");
    return NO_TABLE;
  }
  if (OPAQUE.has(source.node.kind)) throw refused("a table is not named in raw SQL");
  if (!TableNode.is(source.node)) return NO_TABLE;
  if (!IdentifierNode.is(source.alias)) throw refused("a table goes by a plain name");
  return { table: source.node, alias: source.alias.name };
}

function withTenant(query: InsertQueryNode, values: ValuesNode, tenant: TenantId): InsertQueryNode {
  const columns = query.columns ?? [];
  const at = columns.findIndex((column) => column.column.name === TENANT_COLUMN);
  if (at < 0) {
    const rows = values.values.map((row) =>
      PrimitiveValueListNode.is(row)
        ? PrimitiveValueListNode.create([...row.values, tenant])
        : ValueListNode.create([...row.values, ValueNode.create(tenant)]),
    );
    return { ...query, columns: [...columns, ColumnNode.create(TENANT_COLUMN)], values: ValuesNode.create(rows) };
  }
  const isOurs = (row: ValuesNode["values"][number]): boolean => {
    const value = row.values[at];
    return PrimitiveValueListNode.is(row) ? value === tenant : isTenantValue(value, tenant);
  };
  if (!values.values.every(isOurs)) throw refused("a row of another tenant");
  return query;
}

function isTenantValue(value: unknown, tenant: TenantId): boolean {
  const node = value as OperationNode | undefined;
  return node !== undefined && ValueNode.is(node) && node.value === tenant;
}

function refused(why: string): Error {
  return new Error(`refused in a tenant transaction: ${why}`);
}

const TENANT_COLUMN = "tenant_id";
const NO_TABLE = { table: null, alias: null } as const;
const OPAQUE: ReadonlySet<string> = new Set(["RawNode", "ListNode"]);
const STATEMENTS: ReadonlySet<string> = new Set(["SelectQueryNode", "InsertQueryNode", "UpdateQueryNode", "DeleteQueryNode"]);
/** `extract(month from x)` names no table, so a FROM counts only beside SELECT or DELETE. */
const NAMES_TABLE = /\b(select|delete|join|update|into|using|table|merge|copy|truncate)\b/i;
const CHANGES_TENANT = /app\.tenant_id|set_config|\bset\s+(local|session|role)\b|\breset\b|\bcommit\b|\brollback\b/i;
