import { place, put } from "./dom.js";
import { writeConfig } from "./api.js";
import { answer, refusal } from "./answers.js";
import { describe } from "./schema.js";
import { Knobs } from "./knobs.js";
import { showByBatch } from "./tables.js";

/** The panel that changes how the server routes. */
export class Control {
  /**
   * @param key the key to send; `taken` gets the configuration that a change led to.
   */
  constructor(key, taken) {
    this.key = key;
    this.taken = taken;
    this.config = null;
    this.busy = false;
    this.knobs = new Knobs(place("fields"));
    place("knobs-details").open = matchMedia("(min-width: 60rem)").matches;
    place("switch").addEventListener("click", () => this.#switch());
    place("knobs").addEventListener("submit", (event) => this.#apply(event));
    place("reset").addEventListener("click", () => this.knobs.fill(this.config.settings));
    place("initial").addEventListener("click", () => this.knobs.fill(this.config.started_with));
    place("key-form").addEventListener("submit", (event) => event.preventDefault());
  }

  show(config) {
    const { settings, policies, fixed, version } = config;
    const elsewhere = this.config && version !== this.config.version && Object.keys(this.knobs.changes).length > 0;
    this.config = config;
    this.knobs.follow(settings, policies);
    put(place("serving"), settings.policy);
    place("serving").dataset.policy = settings.policy;
    put(place("serving-text"), describe(settings.policy));
    put(place("version"), `version ${version}`);
    put(place("fixed"), fixed ?? "");
    place("fixed").hidden = !fixed;
    place("fields").disabled = !policies.length;
    for (const id of ["apply", "reset", "initial"]) place(id).disabled = !policies.length;
    if (elsewhere) put(place("elsewhere"), `The server's settings changed meanwhile (version ${version}); your edits are kept.`);
    this.#showSwitch();
    showByBatch(place("k0-by-batch"), config);
  }

  get #target() {
    return ["vanilla", "shadow"].includes(this.config.settings.policy) ? "oea" : "vanilla";
  }

  #showSwitch() {
    const off = this.#target === "vanilla";
    const possible = this.config.policies.includes(this.#target);
    const button = place("switch");
    put(button, off ? "Turn OEA off" : "Turn OEA on");
    button.classList.toggle("off", off);
    button.disabled = !possible;
    if (!possible) put(place("switch-hint"), "This server cannot change it while it runs.");
    else put(place("switch-hint"), off ? "Serves the model's own top k from the next step on." : "With the knobs below, from the next step on.");
  }

  #switch() {
    this.#send({ policy: this.#target }, place("switch-answer"));
  }

  #apply(event) {
    event.preventDefault();
    const { changes } = this.knobs;
    if (Object.keys(changes).length) this.#send(changes, place("knobs-answer"), this.config?.version);
    else answer(place("knobs-answer"), "", "Nothing was edited.");
  }

  // without a version it is taken whatever others changed: to turn OEA off must not fail for that
  async #send(changes, where, version) {
    if (this.busy || !this.config) return;
    this.busy = true;
    for (const id of ["switch-answer", "knobs-answer", "elsewhere"]) answer(place(id), "", "");
    answer(where, "", "Sending\u2026");
    try {
      const config = await writeConfig(changes, this.key(), version);
      this.taken(config);
      answer(where, "good", `In force: version ${config.version}.`);
    } catch (error) {
      answer(where, "bad", ...refusal(error));
      if (error.status === 401) place("key").focus();
    } finally {
      this.busy = false;
    }
  }
}
