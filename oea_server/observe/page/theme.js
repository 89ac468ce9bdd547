const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);
const resolved = new Map();
const watchers = [];
const dark = matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("theme");

/** A colour of the style sheet as a canvas takes it, in the theme that is shown. */
export function colour(name) {
  if (!resolved.has(name)) {
    probe.style.color = `var(--${name})`;
    resolved.set(name, getComputedStyle(probe).color);
  }
  return resolved.get(name);
}

export const onTheme = (watcher) => watchers.push(watcher);

export const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";

function settle() {
  resolved.clear();
  button.textContent = isDark() ? "Light theme" : "Dark theme";
  for (const watcher of watchers) watcher();
}

button.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  settle();
});
dark.addEventListener("change", settle);
settle();
