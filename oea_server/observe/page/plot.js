import { clock } from "./words.js";
import { colour, onTheme } from "./theme.js";

const AXIS_WIDTH = 44; // the same for all, so that times stand one above the other
const STEPS = [5, 10, 15, 30, 60, 120, 180, 300]; // seconds between two times on an axis
const FONT = "12px Inter, system-ui, sans-serif";
const readout = document.getElementById("readout");

const axis = (more) => ({
  stroke: () => colour("muted"),
  grid: { stroke: () => colour("grid"), width: 1 },
  ticks: { show: false },
  font: FONT,
  ...more,
});

/** An uPlot in a figure, with a legend that says the values at the cursor, or the latest ones. */
export class Plot {
  /**
   * @param series [{name, line, value(v)}], drawn as CSS's class `line` says; `options` are uPlot's.
   */
  constructor(figure, series, { height, x = {}, y = {}, xAxis = {}, yAxis = {}, at, ...options }) {
    this.figure = figure;
    this.host = figure.querySelector(".plot");
    this.series = series;
    this.at = at;
    this.height = height;
    this.keyed = false;
    this.values = legend(figure.querySelector(".legend"), series);
    const { width, ...rest } = options;
    this.plot = new uPlot(
      {
        width: Math.max(this.host.clientWidth, 120),
        height,
        padding: [18, 28, 0, 0], // room for half of the last time
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 }, ...(options.cursor ?? {}) },
        scales: { x, y },
        axes: [axis({ size: 26, gap: 6, space: 72, ...xAxis }), axis({ size: AXIS_WIDTH, gap: 6, space: 28, ...yAxis })],
        ...rest,
        series: [{}, ...series.map((one) => one.uplot)],
        hooks: { ...(options.hooks ?? {}), setCursor: [() => this.say()] },
      },
      [[], ...series.map(() => [])],
      this.host,
    );
    this.#byKeyboard();
    new ResizeObserver(() => this.resize()).observe(this.host);
    onTheme(() => this.plot.redraw(false));
  }

  show(data) {
    this.plot.setData(data);
    this.say();
  }

  resize(height = this.height) {
    const width = this.host.clientWidth;
    const { width: before, height: tall } = this.plot;
    this.height = height;
    if (width && (width !== before || height !== tall)) this.plot.setSize({ width, height });
  }

  say() {
    if (!this.plot) return; // uPlot sets its cursor while it is being made
    const { idx } = this.plot.cursor;
    const chosen = idx !== null && idx !== undefined;
    const words = this.series.map((one, i) => {
      const text = one.text(this.plot.data[i + 1], chosen ? idx : null);
      if (this.values[i].textContent !== text) this.values[i].textContent = text;
      return `${one.name} ${text}`;
    });
    const where = chosen ? this.at(this.plot.data[0][idx], idx) : "";
    this.values.at(-1).textContent = where;
    this.host.setAttribute("aria-label", [this.figure.querySelector("h2").textContent, ...words, where].filter(Boolean).join(", "));
    if (this.keyed) readout.textContent = [where, ...words].join(", ");
  }

  #byKeyboard() {
    const { host } = this;
    Object.assign(host, { tabIndex: 0, role: "img" });
    host.setAttribute("aria-describedby", "plot-help");
    host.addEventListener("keydown", (event) => {
      const last = this.plot.data[0].length - 1;
      const from = this.plot.cursor.idx ?? last + 1;
      const to = { ArrowLeft: from - 1, ArrowRight: from + 1, PageUp: from - 10, PageDown: from + 10, Home: 0, End: last }[event.key];
      if (event.key === "Escape") return this.#leave();
      if (to === undefined || last < 0) return;
      event.preventDefault();
      this.keyed = true;
      const left = this.plot.valToPos(this.plot.data[0][Math.max(0, Math.min(last, to))], "x");
      this.plot.setCursor({ left, top: this.plot.bbox.height / devicePixelRatio / 2 }, true, true);
    });
    host.addEventListener("blur", () => this.keyed && this.#leave());
  }

  #leave() {
    this.keyed = false;
    this.plot.setCursor({ left: -10, top: -10 }, true, true);
  }
}

/** Options of a plot over time: one window and one cursor for all. */
export const overTime = (history, more) => ({
  x: { time: true, range: () => history.range },
  xAxis: { incrs: STEPS, splits: roundTimes, values: (u, times, _, __, step) => times.map((t) => clock(t, step < 60)) },
  at: (t, i) => clock(t) + versionAt(history, t),
  cursor: { sync: { key: "time" } },
  ...more,
});

/** uPlot's own may lie beyond the end. */
function roundTimes(u, axis, from, to, step) {
  const times = [];
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) times.push(t);
  return times;
}

function versionAt(history, t) {
  const point = history.points.find((one) => one.t === t);
  return point ? ` \u00b7 version ${point.version}` : "";
}

/** Upright lines where the configuration changed. */
export function drawChanges(history, labels) {
  return (u) => {
    const { ctx } = u;
    const { left, top, width, height } = u.bbox;
    let free = left;
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px Inter, system-ui, sans-serif`;
    ctx.lineWidth = devicePixelRatio;
    ctx.strokeStyle = ctx.fillStyle = colour("ink");
    for (const { t, version } of history.changes) {
      const x = Math.round(u.valToPos(t, "x", true)) + 0.5;
      if (x < left || x > left + width) continue;
      ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(x, top);
      ctx.lineTo(x, top + height);
      ctx.stroke();
      const text = `v${version}`;
      const wide = ctx.measureText(text).width;
      if (!labels || x - wide / 2 < free) continue; // they would lie on each other
      ctx.textAlign = "center";
      ctx.fillText(text, x, top - 4 * devicePixelRatio);
      free = x + wide / 2 + 4 * devicePixelRatio;
    }
    ctx.restore();
  };
}

function legend(place, series) {
  const values = series.map(({ name, line }) => {
    const entry = document.createElement("span");
    const sample = document.createElement("i");
    const value = document.createElement("b");
    sample.className = `line ${line}`;
    entry.append(sample, `${name} `, value);
    entry.hidden = name === "";
    place.append(entry);
    return value;
  });
  const where = document.createElement("span");
  where.className = "where";
  place.append(where);
  return [...values, where];
}
