/** Says when a JSON object or list that comes in pieces is whole, without keeping it. Other JSON values never count as whole. */
export class JsonEnd {
  #depth = 0;
  #begun = false;
  #inString = false;
  #escaped = false;

  get isWhole(): boolean {
    return this.#begun && this.#depth === 0;
  }

  take(text: string): void {
    for (let at = 0; at < text.length; at++) this.#step(text[at] as string);
  }

  #step(character: string): void {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false;
      else if (character === "\\") this.#escaped = true;
      else if (character === '"') this.#inString = false;
    } else if (character === '"') this.#inString = true;
    else if (character === "{" || character === "[") {
      this.#begun = true;
      this.#depth++;
    } else if (character === "}" || character === "]") this.#depth--;
  }
}
