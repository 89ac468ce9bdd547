import { GAP } from "./history.js";
import { clock, count, number } from "./words.js";
import { colour, onTheme } from "./theme.js";
import { Plot, drawChanges, overTime } from "./plot.js";
import { roomy } from "./charts.js";

const SHADES = 64;
const ROW = 14; // pixels of a layer, where there are few
const TALLEST = 280;
const FRAME = 44; // of the plot's height: its axis and padding

/** Time by layer, colour = T. */
export class Heatmap {
  constructor(history, experts) {
    this.history = history;
    this.experts = experts;
    this.layers = 1;
    this.top = 1;
    this.columns = document.createElement("canvas");
    this.figure = document.getElementById("chart-layers");
    onTheme(() => (this.shades = null)); // before the plot's own, which draws
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

  /** One column of pixels per second, all of them written at once, then each laid where its second is. */
  #paint(u) {
    if (!this.rows?.length) return;
    const { ctx } = u;
    const { left, top, width, height } = u.bbox;
    this.#fill();
    ctx.save();
    ctx.imageSmoothingEnabled = false;
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    let before = -Infinity;
    this.rows.forEach(({ t, layers }, i) => {
      const from = Math.floor(u.valToPos(Math.max(before, t - GAP), "x", true));
      const to = Math.ceil(u.valToPos(t, "x", true));
      before = t;
      if (layers.length) ctx.drawImage(this.columns, i, 0, 1, this.layers, from, top, to - from, height);
    });
    ctx.restore();
  }

  #fill() {
    this.shades ??= shades();
    this.columns.width = this.rows.length;
    this.columns.height = this.layers;
    const context = this.columns.getContext("2d");
    const image = context.createImageData(this.rows.length, this.layers);
    const pixels = new Uint32Array(image.data.buffer);
    this.rows.forEach(({ layers }, i) => {
      for (let layer = 0; layer < Math.min(layers.length, this.layers); layer++) {
        const share = Math.min(1, Math.max(0, layers[layer] / this.top));
        pixels[layer * this.rows.length + i] = this.shades[Math.round(share * (SHADES - 1))];
      }
    });
    context.putImageData(image, 0, 0);
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

/** From the lowest to the highest T, as pixels of an image. */
function shades() {
  const ends = ["heat-low", "heat-mid", "heat-high"].map((name) => colour(name).match(/[\d.]+/g).slice(0, 3).map(Number));
  const bytes = new Uint8ClampedArray(4 * SHADES);
  for (let i = 0; i < SHADES; i++) {
    const place = (i / (SHADES - 1)) * 2;
    const [from, to, share] = place < 1 ? [ends[0], ends[1], place] : [ends[1], ends[2], place - 1];
    bytes.set([...from.map((value, band) => value + (to[band] - value) * share), 255], 4 * i);
  }
  return new Uint32Array(bytes.buffer);
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
