import { count, number, percent } from "./words.js";
import { colour } from "./theme.js";
import { Plot, drawChanges, overTime } from "./plot.js";

const STYLES = {
  read: { width: 2 },
  vanilla: { width: 1.75, dash: [7, 4] },
  shadow: { width: 2, dash: [2, 3] },
};

/** One line over time. `line` is its colour, its dashes, and its class in the legend. */
function line(name, line, format, pick) {
  const latest = (values) => values.findLast((value) => Number.isFinite(value));
  return {
    name, line, pick,
    text: (values, i) => format((i === null ? latest(values) : values[i]) ?? NaN),
    uplot: { stroke: () => colour(line), points: { width: 0, size: 5, fill: () => colour(line) }, ...STYLES[line] },
  };
}

/** From 0 to a round number; where there is nothing yet, to `empty`; never beyond `most`. */
const fromZero = (empty, most = Infinity) => ({ range: (u, low, high) => [0, Math.min(most, roomy(high ?? empty))] });

/** A round number somewhat above. */
export function roomy(value) {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((steps) => steps * unit >= value * 1.04 || steps === 10);
}

export class Charts {
  /** @param experts what a layer, and a rank's part of it, has at most */
  constructor(history, experts, perRank) {
    this.history = history;
    this.plots = [
      this.#plot("chart-read", 250, [
        line("read", "read", count, (point) => point.unique),
        line("vanilla would", "vanilla", count, (point) => point.vanilla),
        line("OEA would", "shadow", count, (point) => point.shadow_unique),
      ], { bands: [{ series: [2, 1], fill: () => colour("saved") }], y: fromZero(experts, experts) }, true),
      this.#plot("chart-batch", 150, [line("mean", "read", count, (point) => point.batch)], { y: fromZero(16) }),
      this.#plot("chart-step", 150, [line("mean", "read", (value) => number(value, 1), (point) => point.step_ms)], { y: fromZero(10) }),
      this.#plot("chart-mass", 150, [
        line("kept", "read", percent, (point) => point.mass_kept),
        line("OEA would", "shadow", percent, (point) => point.shadow_mass_kept),
      ], {
        y: { range: (u, low, high) => [0, Math.max(1, high ?? 1) * 1.04] },
        yAxis: { values: (u, shares) => shares.map((share) => percent(share)) },
      }),
      this.#plot("chart-busiest", 150, [
        line("read", "read", count, (point) => point.busiest),
        line("vanilla would", "vanilla", count, (point) => point.vanilla_busiest),
        line("OEA would", "shadow", count, (point) => point.shadow_busiest),
      ], { y: fromZero(perRank, perRank) }),
    ];
  }

  draw() {
    const rows = this.history.rows;
    const times = rows.map((row) => row.t);
    for (const plot of this.plots) {
      if (plot.figure.hidden) continue;
      const columns = plot.series.map(({ pick }) => rows.map((row) => pick(row) ?? null));
      plot.series.forEach(({ line }, i) => {
        if (line === "shadow") plot.values[i].parentElement.hidden = columns[i].every((value) => value === null);
      });
      plot.show([times, ...columns]);
    }
  }

  #plot(id, height, series, options, labels = false) {
    const draw = [drawChanges(this.history, labels)];
    return new Plot(document.getElementById(id), series, overTime(this.history, { height, hooks: { draw }, ...options }));
  }
}
