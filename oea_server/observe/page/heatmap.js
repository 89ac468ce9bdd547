import { clock, count, number } from "./words.js";
import { colour, onTheme } from "./theme.js";
import { Plot, drawChanges, overTime } from "./plot.js";
import { roomy } from "./charts.js";

const SHADES = 64;
const ROW = 14; // pixels of a layer, where there are few
const TALLEST = 280;
const FRAME = 40; // of the plot's height: its axis and padding

/** Time by layer, colour = T. */
export class Heatmap {
  constructor(history, experts) {
    this.history = history;
    this.experts = experts;
    this.layers = 1;
    this.top = 1;
    this.strip = document.createElement("canvas");
    this.strip.width = 1;
    this.figure = document.getElementById("chart-layers");
    const series = [{ name: "", line: "", text: (_, i) => (i === null ? "" : this.#spread(i)), uplot: { show: false } }];
    this.plot = new Plot(this.figure, series, overTime(history, {
      height: 110,
      y: { range: () => [0, this.layers], dir: -1 },
      yAxis: {
        splits: () => this.#labelled(),
        values: (u, places) => places.map((place) => `${place - 0.5}`),
        grid: { show: false },
      },
      at: (t, i) => `${clock(t)} \u00b7 ${this.#spread(i)}`,
      hooks: { drawAxes: [(u) => this.#paint(u)], draw: [drawChanges(history, false)] },
      cursor: { sync: { key: "time" }, y: true },
    }));
    this.scale = scale(this.figure.querySelector(".legend"));
    onTheme(() => (this.shades = null));
  }

  draw(layers) {
    const { points, rows } = this.history;
    this.layers = Math.max(1, layers);
    // The scale of the chart above: what vanilla would read is its darkest.
    const highest = points.reduce((most, point) => Math.max(most, point.vanilla ?? 0, ...point.layers), 0);
    this.top = Math.min(this.experts, roomy(highest || this.experts));
    this.scale.textContent = number(this.top, 0);
    this.plot.resize(FRAME + Math.min(TALLEST, Math.max(56, this.layers * ROW)));
    this.rows = rows;
    this.plot.show([rows.map((row) => row.t), rows.map(() => null)]);
  }

  #paint(u) {
    if (!this.rows) return;
    const { ctx } = u;
    const { left, top, width, height } = u.bbox;
    const context = this.strip.getContext("2d");
    this.strip.height = this.layers;
    this.shades ??= shades();
    ctx.save();
    ctx.imageSmoothingEnabled = false;
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    let before = -Infinity;
    for (const { t, layers } of this.rows) {
      const from = u.valToPos(Math.max(before, t - 1.5), "x", true);
      const to = u.valToPos(t, "x", true);
      before = t;
      if (!layers.length) continue;
      layers.slice(0, this.layers).forEach((value, layer) => {
        const share = Math.min(1, Math.max(0, (value ?? 0) / this.top));
        context.fillStyle = this.shades[Math.round(share * (SHADES - 1))];
        context.fillRect(0, layer, 1, 1);
      });
      ctx.drawImage(this.strip, Math.floor(from), top, Math.ceil(to) - Math.floor(from), height);
    }
    ctx.restore();
  }

  #labelled() {
    const space = Math.ceil(this.layers / Math.max(1, (this.plot?.height ?? 110) - FRAME) * 14);
    const step = [1, 2, 5, 10, 20, 50, 100].find((one) => one >= space) ?? 200;
    return Array.from({ length: Math.ceil(this.layers / step) }, (_, i) => i * step + 0.5);
  }

  #spread(i) {
    const layers = this.rows?.[i]?.layers ?? [];
    if (!layers.length) return "no step";
    const { top } = this.plot.plot.cursor;
    const place = top >= 0 && !this.plot.keyed ? Math.floor(this.plot.plot.posToVal(top, "y")) : -1;
    const low = layers.indexOf(Math.min(...layers));
    const high = layers.indexOf(Math.max(...layers));
    const here = place >= 0 && place < layers.length ? `layer ${place}: ${count(layers[place])} \u00b7 ` : "";
    return `${here}lowest ${count(layers[low])} (layer ${low}), highest ${count(layers[high])} (layer ${high})`;
  }
}

function shades() {
  const ends = [colour("heat-low"), colour("heat-mid"), colour("heat-high")].map((text) => text.match(/[\d.]+/g).map(Number));
  return Array.from({ length: SHADES }, (_, i) => {
    const place = (i / (SHADES - 1)) * 2;
    const [from, to] = place < 1 ? [ends[0], ends[1]] : [ends[1], ends[2]];
    const mixed = from.slice(0, 3).map((value, band) => Math.round(value + (to[band] - value) * (place - (place < 1 ? 0 : 1))));
    return `rgb(${mixed})`;
  });
}

function scale(place) {
  const entry = document.createElement("span");
  const ramp = document.createElement("i");
  const most = document.createElement("span");
  ramp.className = "ramp";
  entry.className = "scale";
  entry.append("0 ", ramp, " ", most, " experts");
  place.prepend(entry);
  return most;
}
