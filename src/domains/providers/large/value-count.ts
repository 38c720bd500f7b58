/**
 * Whether JSON bytes hold more values than `atMost`: at least as many as they have commas and opening brackets outside strings. For bytes that are no
 * JSON the answer means nothing. A value may take hundreds of bytes of memory for two of text, and a thread that meets its heap's
 * limit inside JSON.parse takes the whole process with it (seen in 1 of 4 runs): so the limit must be out of reach.
 */
export function holdsMoreValues(bytes: Uint8Array, atMost: number): boolean {
  let values = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte === QUOTE) at = closingQuote(bytes, at);
    else if ((byte === COMMA || byte === OPEN_OBJECT || byte === OPEN_ARRAY) && ++values > atMost) return true;
  }
  return false;
}

function closingQuote(bytes: Uint8Array, opening: number): number {
  for (let at = bytes.indexOf(QUOTE, opening + 1); at !== -1; at = bytes.indexOf(QUOTE, at + 1)) {
    let backslashes = 0;
    while (bytes[at - 1 - backslashes] === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return at;
  }
  return bytes.length;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN_ARRAY = 0x5b;
const OPEN_OBJECT = 0x7b;
