const SCHEMA = JSON.parse(document.getElementById("knob-schema").textContent);
const BOUNDS = { exclusiveMinimum: "above", minimum: "from", maximum: "to", exclusiveMaximum: "to below" };

/** The knobs that the server lets change: of each what its field holds, and what is said of it. */
export const KNOBS = Object.entries(SCHEMA.properties).map(([name, knob]) => told(name, knob));

/** What a policy does, in the server's words. */
export const describe = (policy) => SCHEMA.properties.policy.choices[policy] ?? "";

function told(name, knob) {
  const ways = knob.anyOf ?? [knob];
  const types = new Set(ways.map(({ type }) => type));
  return {
    name,
    title: knob.title,
    help: [knob.description, ...ways.map(within).filter(Boolean)].map(sentence).join(" "),
    options: knob.enum ?? (types.has("boolean") ? ["true", "false"] : undefined),
    empty: types.has("null") ? knob.unset ?? "none" : undefined,
    // where a text will do it is sent as it is typed
    text: types.has("string"),
    truth: types.has("boolean"),
  };
}

function within(way) {
  const said = Object.entries(BOUNDS).filter(([bound]) => bound in way);
  return said.map(([bound, word]) => `${word} ${way[bound]}`).join(" ");
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}
