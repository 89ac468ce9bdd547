import { place, put } from "./dom.js";
import { bytes, count, headline, number, percent, scope } from "./words.js";

export function showOverview(stats, now) {
  const { config } = stats;
  const shadow = config.settings.policy === "shadow";
  put(place("scope"), scope(config, now));
  put(place("headline"), headline(config, now, stats.total));
  showExperts(config, now, shadow);
  showFigures(config, now, shadow);
  showLatency(stats.latency);
  const title = now.unique === null ? "OEA" : `${count(now.unique)} / ${count(now.vanilla)} experts \u00b7 OEA`;
  if (document.title !== title) document.title = title;
}

function showExperts(config, now, shadow) {
  const marks = place("experts");
  const all = config.model.num_experts;
  while (marks.childElementCount < all) marks.append(document.createElement("i"));
  while (marks.childElementCount > all) marks.lastElementChild.remove();
  const [read, vanilla] = [(shadow ? now.shadow_unique : null) ?? now.unique ?? 0, now.vanilla ?? 0].map(Math.round);
  [...marks.children].forEach((mark, i) => {
    const name = i < read ? "mark read" : i < vanilla ? "mark saved" : "mark";
    if (mark.className !== name) mark.className = name;
  });
  put(place("experts-read-text"), shadow ? "OEA would read" : "read");
  put(place("experts-saved-text"), shadow ? "read now besides" : "what vanilla would read besides");
  place("experts-saved").hidden = vanilla <= read;
  marks.setAttribute("aria-label", `${read} of ${all} experts, vanilla ${vanilla}`);
}

function showFigures(config, now, shadow) {
  const { layers, expert_bytes: size } = config.model;
  const fewer = (now.vanilla ?? NaN) - ((shadow ? now.shadow_unique : now.unique) ?? NaN);
  const kept = shadow ? now.shadow_mass_kept : now.mass_kept;
  const figures = [
    ["Tokens in a step", count(now.batch ?? NaN)],
    ["Decode step", now.step_ms === null ? "\u2013" : `${number(now.step_ms, 1)}\u00a0ms`],
    ["Steps a second", count(now.steps ? now.steps / now.busy : NaN)],
    [shadow ? "Not read, if OEA" : "Not read, per step", size ? bytes(fewer * layers * size) : "\u2013"],
    [shadow ? "Mass kept, if OEA" : "Router mass kept", percent(kept ?? NaN)],
  ];
  if (Number.isFinite(now.accepted)) figures.push(
    ["Requests in a step", count(now.requests)],
    ["Tokens a step gives each", number(now.accepted, 2)],
    ["Read for rejected drafts", `${number(now.rejected, 1)} experts`],
  );
  const list = place("figures");
  while (list.childElementCount > figures.length) list.lastElementChild.remove();
  while (list.childElementCount < figures.length) {
    const pair = document.createElement("div");
    pair.append(document.createElement("dt"), document.createElement("dd"));
    list.append(pair);
  }
  figures.forEach(([name, value], i) => {
    put(list.children[i].firstChild, name);
    put(list.children[i].lastChild, value);
  });
}

function showLatency(latency) {
  const line = place("latency");
  line.hidden = !latency || !Number.isFinite(latency.oea_us);
  if (line.hidden) return;
  const change = `${latency.change > 0 ? "+" : "\u2212"}${percent(Math.abs(latency.change))}`;
  put(line, `Predicted time of one MoE layer at ${latency.batch} tokens: ${number(latency.vanilla_us, 0)} \u2192 ` +
    `${number(latency.oea_us, 0)} \u00b5s (${change}), by the line measured in ${latency.source}.`);
}
