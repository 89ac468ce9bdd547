const NBSP = "\u00a0";
const NONE = "\u2013";

export function number(value, digits) {
  if (!Number.isFinite(value)) return NONE;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export const count = (value) => number(value, value < 20 ? 1 : 0);

export const percent = (share, digits = 0) => (Number.isFinite(share) ? number(100 * share, digits) + NBSP + "%" : NONE);

export function bytes(value) {
  if (!Number.isFinite(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; Math.abs(value) >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return number(value, value < 10 && unit ? 1 : 0) + NBSP + units[unit];
}

const clocks = new Map();

export function clock(seconds, withSeconds = true) {
  if (!clocks.has(withSeconds)) {
    const style = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(withSeconds && { second: "2-digit" }) };
    clocks.set(withSeconds, new Intl.DateTimeFormat("en-GB", style));
  }
  return clocks.get(withSeconds).format(new Date(seconds * 1000));
}

/** What the page is about, in one or two sentences. */
export function headline(config, now, total) {
  const { policy } = config.settings;
  const all = `${config.model.num_experts} experts per layer`;
  if (!now.steps || now.unique === null) return "No decode step in the last minute." + sinceStart(total, all);
  const read = `A decode step reads ${count(now.unique)} of ${all}`;
  if (policy === "shadow") {
    if (now.shadow_unique === null) return `Serving vanilla: ${lower(read)}.`;
    return `Serving vanilla. With these knobs OEA would read ${count(now.shadow_unique)} of ${all} instead of ` +
      `${count(now.vanilla)}: ${difference(now.shadow_unique, now.vanilla)}.`;
  }
  if (policy === "vanilla") return `OEA is off. ${read}.`;
  const without = policy === "oea" ? "without batch-aware routing" : "with the model's own top k";
  return `${read}; ${without} it would read ${count(now.vanilla)}: ${difference(now.unique, now.vanilla)}.`;
}

function sinceStart(total, all) {
  if (!total?.steps) return "";
  return ` Since the start a step read ${count(total.unique_experts)} of ${all}; the model's own top k would have read ` +
    `${count(total.vanilla_unique_experts)}.`;
}

function difference(read, vanilla) {
  const share = 1 - read / vanilla;
  if (!Number.isFinite(share) || Math.abs(share) < 0.005) return "no difference";
  return `${percent(Math.abs(share))} ${share > 0 ? "less" : "more"} to read`;
}

const lower = (text) => text[0].toLowerCase() + text.slice(1);

/** What the numbers above the charts are means over. */
export function scope(config, now) {
  const { policy } = config.settings;
  const seconds = `${now.seconds} second${now.seconds === 1 ? "" : "s"}`;
  return now.steps ? `Last ${seconds}, policy ${policy}` : `Policy ${policy}`;
}
