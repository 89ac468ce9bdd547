import { place, put } from "./dom.js";
import { switchController } from "./api.js";
import { answer, refusal } from "./answers.js";
import { number, percent } from "./words.js";

/** What the controller does, where a server has one, and its switch. */
export class Steering {
  /** @param key the key to send. */
  constructor(key) {
    this.key = key;
    this.state = null;
    this.busy = false;
    place("steering-switch").addEventListener("click", () => this.#switch());
  }

  show(state) {
    this.state = state;
    place("steering").hidden = !state;
    if (!state) return;
    const { mode, rung, saturated } = state;
    put(place("steering-mode"), mode === "on" ? rung : mode);
    put(place("steering-text"), mode === "on" ? `${goal(state)}${missed(state)}.` : `Would hold ${goal(state)}.`);
    put(place("steering-why"), `${state.reason[0].toUpperCase()}${state.reason.slice(1)}. ${ladder(state)}`);
    place("steering").dataset.trouble = saturated;
    put(place("steering-switch"), mode === "on" ? "Turn the controller off" : "Turn the controller on");
  }

  async #switch() {
    if (this.busy) return;
    this.busy = true;
    const where = place("steering-answer");
    answer(where, "", "Sending\u2026");
    try {
      this.show(await switchController(this.state.mode !== "on", this.key()));
      answer(where, "", "");
    } catch (error) {
      answer(where, "bad", ...refusal(error));
      if (error.status === 401) place("key").focus();
    } finally {
      this.busy = false;
    }
  }
}

function goal({ target_ms: target, percentile }) {
  const of = percentile === null ? "" : `${number(100 * percentile, 0)}\u00a0% of tokens within `;
  return `${of}${number(target, target < 10 ? 1 : 0)}\u00a0ms${percentile === null ? " per token" : ""}`;
}

function missed({ error }) {
  return error === null ? "" : `: ${percent(Math.abs(error))} ${error > 0 ? "over" : "below"}`;
}

function ladder({ rungs, allowed, rung, mode }) {
  const names = allowed.map((name) => (mode === "on" && name === rung ? `[${name}]` : name)).join(" \u2192 ");
  const barred = rungs.slice(allowed.length).join(", ");
  return `Rungs: ${names}${barred ? `; below the quality floor: ${barred}` : ""}.`;
}
