import { Refusal } from "./api.js";

/** What became of a change, in the arguments of `answer`. */
export function refusal(error) {
  if (!(error instanceof Refusal)) return [`No answer (${error.message}). Whether it was taken shows above.`, ""];
  const hint = error.status === 401 ? " Is the admin key right?" : "";
  return [`Refused (${error.status}): `, error.message, hint];
}

/** The server's own words stand apart from ours. */
export function answer(where, kind, ours, theirs = "", more = "") {
  const quote = document.createElement("q");
  quote.textContent = theirs;
  where.dataset.kind = kind;
  where.replaceChildren(ours, ...(theirs ? [quote] : []), more);
}
