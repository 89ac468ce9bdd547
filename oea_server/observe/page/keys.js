/** A key that was typed: kept in memory, and in sessionStorage only while its box is ticked. Never in an address. */
export class Key {
  constructor(name, input, box) {
    this.name = name;
    this.input = input;
    this.box = box;
    input.value = stored(name);
    box.checked = input.value !== "";
    for (const element of [input, box]) element.addEventListener("input", () => this.#keep());
  }

  get value() {
    return this.input.value.trim();
  }

  #keep() {
    try {
      if (this.box.checked && this.value) sessionStorage.setItem(this.name, this.value);
      else sessionStorage.removeItem(this.name);
    } catch {
      this.box.checked = false; // the browser stores nothing for this page
    }
  }
}

function stored(name) {
  try {
    return sessionStorage.getItem(name) ?? "";
  } catch {
    return "";
  }
}
