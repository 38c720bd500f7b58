export const SMALL = Buffer.from('{"model":"m","messages":[{"role":"user","content":"hi"}]}');

/** About 100 bytes a message. */
export function manyMessages(count: number): Buffer {
  const messages = Array.from({ length: count }, (_, index) => ({ role: "user", content: `message ${index} ${"word ".repeat(12)}` }));
  return Buffer.from(JSON.stringify({ model: "m", messages }));
}
