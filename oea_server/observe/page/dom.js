export const place = (id) => document.getElementById(id);

/** A text that is only touched when it changes. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
