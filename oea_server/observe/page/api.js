// The page may stand behind a proxy that adds a prefix.
const BASE = location.pathname.replace(/\/+$/, "");
const PATIENCE_MS = 10_000;

/** The server answered, and said no. */
export class Refusal extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export const readStats = (since, key) => call("GET", `/stats${since === null ? "" : `?since=${since}`}`, key);

// refused if somebody has changed the knobs since the version that is shown
export const writeConfig = (changes, key, version) => call("PUT", "/config", key, changes, version);

export const switchController = (on, key) => call("PUT", "/controller", key, { on });

async function call(method, path, key, body, version) {
  if (!/^[\x21-\x7e]*$/.test(key)) throw new Error("A key has no spaces and no accents.");
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  if (Number.isInteger(version)) headers["If-Match"] = `"${version}"`;
  const reply = await fetch(BASE + path, {
    method, headers, body: body && JSON.stringify(body), cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const text = await reply.text();
  const answer = parsed(text);
  if (!reply.ok) throw new Refusal(reply.status, answer?.error ? String(answer.error) : text.slice(0, 300) || reply.statusText);
  if (answer === null || typeof answer !== "object") throw new Error("The answer is not JSON; is this path the server's own?");
  return answer;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
