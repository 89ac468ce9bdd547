import { count, percent } from "./words.js";
import { colour } from "./theme.js";
import { Plot } from "./plot.js";
import { roomy } from "./charts.js";

const MOST_BINS = 64;

/** How often which T: what was read (or, in shadow mode, would be), against vanilla, as shares. */
export class Distribution {
  constructor() {
    this.experts = 1;
    this.width = 1;
    this.means = [null, null];
    const value = (which) => (values, i) => (i === null ? this.#mean(which) : percent(values[i] ?? 0));
    const series = [
      {
        name: "read", line: "block", text: value(0),
        uplot: {
          paths: uPlot.paths.bars({ size: [1, Infinity], align: 1 }), fill: () => colour("bars"), stroke: () => colour("read"),
          width: 1, points: { show: false },
        },
      },
      {
        name: "vanilla would", line: "vanilla", text: value(1),
        uplot: {
          paths: uPlot.paths.stepped({ align: 1 }), stroke: () => colour("vanilla"), width: 1.75, dash: [7, 4], points: { show: false },
        },
      },
    ];
    this.figure = document.getElementById("chart-distribution");
    this.plot = new Plot(this.figure, series, {
      height: 190,
      x: { time: false, range: () => [0, this.experts] },
      y: { range: (u, low, high) => [0, Math.min(1, roomy(high))] },
      xAxis: { space: 40 },
      yAxis: { values: (u, shares) => shares.map((share) => percent(share)) },
      at: (t) => (this.width === 1 ? `T ${t}` : `T ${t}\u2013${t + this.width - 1}`),
    });
  }

  draw(distribution, experts, shadow) {
    this.experts = experts;
    this.width = 2 ** Math.max(0, Math.ceil(Math.log2((experts + 1) / MOST_BINS) - 0.05));
    const chosen = shadow ? distribution.shadow : distribution.unique;
    this.plot.values[0].previousSibling.textContent = shadow ? "OEA would " : "read ";
    const starts = Array.from({ length: Math.ceil((experts + 1) / this.width) }, (_, i) => i * this.width);
    const columns = [chosen, distribution.vanilla].map((counts, i) => this.#shares(counts ?? {}, starts.length, i));
    this.plot.show([starts, ...columns]);
  }

  #shares(counts, bins, which) {
    const shares = new Array(bins).fill(0);
    let [total, sum] = [0, 0];
    for (const [read, times] of Object.entries(counts)) {
      total += times;
      sum += read * times;
      shares[Math.min(bins - 1, Math.floor(read / this.width))] += times;
    }
    this.means[which] = total ? sum / total : null;
    // An empty bin is drawn only where it bounds a full one.
    const drawn = (i) => shares[i] || (which === 1 && (shares[i - 1] || shares[i + 1]));
    return shares.map((times, i) => (drawn(i) ? times / total : null));
  }

  #mean(which) {
    const mean = this.means[which];
    return mean === null ? "no step" : `mean ${count(mean)}`;
  }
}
