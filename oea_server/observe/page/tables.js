import { bytes, count, number, percent } from "./words.js";

const REASONS = {
  policy: "the policy is vanilla, or shadow",
  schedule: "too few requests to share (k0 of that size, min_batch)",
  rows: "more rows than our launch on a GPU takes, a graph's padding included",
  router: "a router that cannot be handled",
  prefill: "reading a prompt",
  mixed: "a prompt together with decode",
  other: "anything else",
};

/** Replaces a table by rows of texts; the first cell of each names it. */
export function fill(place, head, rows) {
  const text = JSON.stringify([head, rows]);
  if (place.dataset.shown === text) return;
  place.dataset.shown = text;
  const table = document.createElement("table");
  if (head.length) table.createTHead().append(row(head, ["col"]));
  const body = table.createTBody();
  for (const cells of rows) body.append(row(cells, ["row"]));
  place.replaceChildren(table);
}

function row(cells, [scope]) {
  const line = document.createElement("tr");
  cells.forEach((text, i) => {
    const cell = document.createElement(scope === "col" || i === 0 ? "th" : "td");
    if (cell.tagName === "TH") cell.scope = scope;
    cell.textContent = text;
    line.append(cell);
  });
  return line;
}

export function showBypassed(place, bypassed) {
  const rows = Object.entries(bypassed ?? {}).filter(([, times]) => times > 0).sort(([, a], [, b]) => b - a);
  if (!rows.length) {
    delete place.dataset.shown;
    place.textContent = "None since the start.";
    return;
  }
  fill(place, [], rows.map(([name, times]) => [name, REASONS[name] ?? "", number(times, 0)]));
}

export function showLayers(place, layers) {
  if (!place.closest("details").open) return; // 94 rows that nobody sees
  const head = ["layer", "read", "vanilla", "less", "mass kept", "not read"];
  fill(place, head, layers.map((one) => {
    const [read, vanilla] = [one.unique_experts ?? NaN, one.vanilla_unique_experts ?? NaN];
    return [`${one.layer}`, count(read), count(vanilla), percent(1 - read / vanilla), percent(one.mass_kept ?? NaN), bytes(one.bytes_saved ?? NaN)];
  }));
}

/** A row for each tier; nothing where there are none. */
export function showTiers(card, place, tiers) {
  card.hidden = !tiers?.length;
  if (card.hidden) return;
  const head = ["tier", "promise", "mass kept", "promises broken", "time per token", "tokens", "answers"];
  fill(place, head, tiers.map((one) => [
    `${one.tier}${one.default ? " (default)" : ""}`,
    one.promise ?? "gone",
    percent(one.mass_kept ?? NaN),
    number(one.broken, 0),
    one.tpot_ms === null ? "–" : `${number(one.tpot_ms, 1)} ms`,
    number(one.tokens, 0),
    number(one.requests, 0),
  ]));
}

/** What is in force by tokens in a step; share and mix where they change anything. */
export function showByBatch(body, config) {
  const rows = [["k0", config.k0_by_batch], ["share", config.share_by_batch, 0], ["mix", config.mix_by_batch, 1]];
  const sizes = Object.keys(config.k0_by_batch ?? {}).sort((a, b) => a - b);
  const told = rows.filter(([, values, nothing]) => values && sizes.some((size) => values[size] !== nothing));
  const text = JSON.stringify(told);
  if (body.dataset.shown === text) return;
  body.dataset.shown = text;
  const lines = told.map(([name, values]) => row([name, ...sizes.map((size) => `${values[size]}`)], ["row"]));
  body.replaceChildren(row(["tokens", ...sizes], ["row"]), ...lines);
}
