import { KNOBS, describe } from "./schema.js";

/** The knobs' fields, and what differs in them from what the server has. */
export class Knobs {
  constructor(fields) {
    this.settings = null;
    this.inputs = Object.fromEntries(KNOBS.map((knob) => [knob.name, field(fields, knob)]));
    fields.addEventListener("input", () => this.#mark());
  }

  /** Follow the server; fields that were edited stay as they are. */
  follow(settings, policies) {
    const edited = this.settings ? this.changes : {};
    offer(this.inputs.policy, policies, settings.policy);
    for (const { name, options } of KNOBS) if (options && name !== "policy") offer(this.inputs[name], options, shown(settings[name]));
    this.settings = settings;
    for (const { name } of KNOBS) if (!(name in edited)) this.inputs[name].value = shown(settings[name]);
    this.#mark();
  }

  fill(settings) {
    for (const { name } of KNOBS) this.inputs[name].value = shown(settings[name]);
    this.#mark();
  }

  get changes() {
    const entries = KNOBS.map((knob) => [knob, this.inputs[knob.name].value.trim()]);
    return Object.fromEntries(
      entries.filter(([knob, text]) => text !== shown(this.settings[knob.name])).map(([knob, text]) => [knob.name, meant(knob, text)]),
    );
  }

  #mark() {
    const edited = this.changes;
    for (const { name, empty } of KNOBS) {
      const note = this.inputs[name].parentElement.querySelector(".now");
      note.textContent = name in edited ? `now ${shown(this.settings[name]) || empty}` : "";
    }
    const hint = this.inputs.policy.parentElement.querySelector(".small");
    hint.textContent = describe(this.inputs.policy.value);
  }
}

const shown = (value) => (value === null || value === undefined ? "" : String(value));

/** What is no number goes to the server as it was typed: it refuses better than a page can. */
function meant(knob, text) {
  if (text === "" && knob.empty) return null;
  if (knob.truth) return text === "true";
  return !knob.text && /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
}

function field(fields, { name, title, help, empty, options }) {
  const box = document.createElement("div");
  const head = document.createElement("label");
  const note = document.createElement("span");
  const hint = document.createElement("p");
  const input = document.createElement(options ? "select" : "input");
  box.className = "knob";
  note.className = "now";
  hint.className = "small";
  hint.id = `knob-${name}-help`;
  hint.textContent = name === "policy" ? "" : help; // it says what the chosen one is
  input.name = name;
  head.htmlFor = input.id = `knob-${name}`;
  head.textContent = title;
  if (!options) Object.assign(input, { type: "text", autocomplete: "off", spellcheck: false, placeholder: empty ?? "" });
  input.setAttribute("aria-describedby", hint.id);
  // the whole of a long help, for good: were it cut again, Apply would move away under the mouse
  input.addEventListener("focus", () => box.classList.add("used"), { once: true });
  box.append(head, note, input, hint);
  fields.append(box);
  return input;
}

function offer(select, policies, current) {
  const names = policies.includes(current) ? policies : [current, ...policies];
  const text = names.join();
  if (select.dataset.shown === text) return;
  const chosen = select.value;
  select.dataset.shown = text;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.value = names.includes(chosen) ? chosen : current;
}
