import { place, put } from "./dom.js";
import { Refusal, readStats } from "./api.js";
import { Key } from "./keys.js";
import { History } from "./history.js";
import { clock } from "./words.js";
import { Charts } from "./charts.js";
import { Heatmap } from "./heatmap.js";
import { Distribution } from "./distribution.js";
import { showOverview } from "./overview.js";
import { showBypassed, showLayers, showTiers } from "./tables.js";
import { Control } from "./control.js";
import { Steering } from "./steering.js";

const INTERVAL_MS = 1000;
const SLOWEST_MS = 5000;

const history_ = new History();
const reading = new Key("oea-api-key", place("gate-key"), place("gate-keep"));
const admin = new Key("oea-admin-key", place("key"), place("keep"));
let readKey = reading.value; // what was sent off, not what is being typed
// A server with one key takes it for both.
const changing = () => admin.value || readKey;
const control = new Control(changing, (config) => control.show(config));
const steering = new Steering(changing);
let charts = null;
let timer = 0;
let polling = false;
let failures = 0;
let answered = null;

function show(stats) {
  const { config } = stats;
  const { layers, num_experts: experts = 1, top_k: k, ranks } = config.model;
  history_.take(stats);
  place("gate").hidden = true;
  place("content").hidden = false;
  place("chart-busiest").hidden = !(ranks > 1);
  place("small").classList.toggle("four", ranks > 1);
  // uPlot measures its place, so it is made once that is on the screen.
  charts ??= {
    time: new Charts(history_, experts, experts / ranks),
    layers: new Heatmap(history_, experts),
    distribution: new Distribution(),
  };
  put(place("model"), `${layers} MoE layers, ${experts} experts, top ${k}${ranks > 1 ? `, ${ranks} ranks` : ""}`);
  showLimits(config, stats.missing);
  showOverview(stats, history_.summary(config.version));
  control.show(config);
  steering.show(stats.controller);
  charts.time.draw();
  charts.layers.draw(layers);
  charts.distribution.draw(stats.distribution, experts, config.settings.policy === "shadow");
  showBypassed(place("bypassed"), stats.bypassed);
  showTiers(place("tiers-card"), place("tiers"), stats.tiers);
  showLayers(place("layers-table"), stats.layers);
}

/** Why routing is not ours, unless that is what the policy asks for, which the headline says. */
function showLimits({ active, reason, settings }, missing) {
  const notable = reason && reason !== `the policy is ${settings.policy}`;
  const why = notable ? `${active ? "Some layers run" : "Every layer runs"} the model's own top k: ${reason}` : "";
  const nothing = missing && missing !== reason ? `No numbers: ${missing}` : "";
  const text = [why, nothing].filter(Boolean).join(". ");
  put(place("limits"), text);
  place("limits").hidden = !text;
}

function say(state, text, trouble = "") {
  place("link").dataset.state = state;
  put(place("link-text"), text);
  put(place("trouble"), trouble);
  place("trouble").hidden = !trouble;
  place("content").classList.toggle("stale", state !== "live");
}

function fail(error) {
  failures += 1;
  if (error instanceof Refusal && error.status === 401) {
    place("gate").hidden = false;
    place("content").hidden = true;
    say("locked", "Key needed");
    if (readKey) put(place("gate-answer"), `Refused (401): ${error.message}`);
    return;
  }
  const since = answered === null ? "" : ` What is shown is from ${clock(answered)}.`;
  if (error instanceof Refusal) say("lost", "No statistics", `The server answers ${error.status}: ${error.message}${since}`);
  else say("lost", "Not connected", `Not connected: ${error.message}.${since} Trying again.`.replace("..", "."));
}

function succeed(stats) {
  failures = 0;
  answered = Date.now() / 1000;
  put(place("gate-answer"), "");
  say("live", "Live");
  try {
    show(stats);
  } catch (error) {
    console.error(error);
    say("lost", "Not drawn", `This page could not draw what the server sent: ${error.message}`);
  }
}

async function poll() {
  clearTimeout(timer);
  if (polling || document.hidden) return;
  polling = true;
  const stats = await readStats(history_.since, readKey).catch(fail);
  polling = false;
  if (stats) succeed(stats);
  timer = setTimeout(poll, Math.min(SLOWEST_MS, INTERVAL_MS * (1 + failures)));
}

document.addEventListener("visibilitychange", poll);
place("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  readKey = reading.value;
  poll();
});
place("layers-table").closest("details").addEventListener("toggle", poll);
poll();
