/**
 * Reads JSON values, one a line, from chunks cut anywhere.
 * @param atMostBytes the bound of one line: a longer one throws a RangeError.
 */
export function lineReader(atMostBytes: number, receive: (value: unknown) => void): (chunk: Buffer) => void {
  let parts: Buffer[] = [];
  let held = 0;
  return (chunk) => {
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      const line = Buffer.concat([...parts, chunk.subarray(from, end)]);
      parts = [];
      held = 0;
      from = end + 1;
      receive(JSON.parse(line.toString("utf8")));
    }
    if (from === chunk.length) return;
    parts.push(chunk.subarray(from));
    held += chunk.length - from;
    if (held > atMostBytes) throw new RangeError(`a message is longer than ${atMostBytes} bytes`);
  };
}

const NEWLINE = 0x0a;

/** The line of one value, terminator included. */
export function line(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}
