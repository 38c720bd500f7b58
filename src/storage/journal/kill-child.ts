import { systemClock } from "../../kernel/clock.ts";
import { type AttemptId, createIdMaker, type Uuid } from "../../kernel/ids.ts";
import { systemRandom } from "../../kernel/random.ts";
import { type Durability, openJournal, RECORD } from "./index.ts";

/**
 * Started by kill.test.ts to be killed: `node kill-child.ts DIRECTORY DURABILITY`. Appends without end and tells on
 * standard output, one sequence a line, what was reported durable. A record's payload is its attempt id, repeated.
 */
const [directory = "", durability = "process"] = process.argv.slice(2);
const makeId = createIdMaker(systemClock, systemRandom);
const log = { info: () => undefined, error: (_fields: object, message: string) => process.stderr.write(message) };
const { journal } = await openJournal({
  directory,
  durability: durability as Durability,
  clock: systemClock,
  makeId: () => makeId<Uuid>(),
  log,
  limits: { segmentBytes: 256 * 1024 },
});

function turn(): void {
  for (let count = 0; count < 20; count++) {
    const attempt = makeId<AttemptId>();
    const sequence = journal.append(RECORD.admit, attempt, attempt.repeat(count));
    journal.whenDurable(sequence, (fault) => {
      if (fault === null) process.stdout.write(`${sequence}\n`);
    });
  }
  setTimeout(turn, 1);
}

turn();
