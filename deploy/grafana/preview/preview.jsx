// Draws each panel of the dashboard where its gridPos says, with Grafana's own components.
import React, { useLayoutEffect, useRef } from "react";
import { createRoot } from "react-dom/client";
import * as d3 from "d3-scale-chromatic";
import {
  FieldType, Registry, ThemeContext, VizOrientation, applyFieldOverrides, createTheme, dateTime,
  getFieldDisplayValues, standardFieldConfigEditorRegistry,
} from "@grafana/data";
import { BarGauge, BigValue, GlobalStyles, PanelChrome, TimeSeries, VizRepeater } from "@grafana/ui";

const GRID = { columns: 24, cell: 30, gap: 8, stacked: 769 }; // Grafana's own
const same = (value) => value;
const option = (id, custom) => ({
  id: custom ? `custom.${id}` : id, path: id, name: id, isCustom: custom, process: same, shouldApply: () => true,
});
// The application fills these in for a panel that does not say them; the packages do not.
const KNOWN = ["unit", "min", "max", "decimals", "color", "thresholds", "mappings", "displayName"];
const CUSTOM = ["lineWidth", "lineStyle", "fillOpacity", "fillBelowTo", "axisSoftMin", "axisSoftMax", "spanNulls"];
const STEPS = [{ value: -Infinity, color: "green" }, { value: 80, color: "red" }];
standardFieldConfigEditorRegistry.setInit(() => KNOWN.map((id) => option(id, false)));
const registry = new Registry(() => [...KNOWN.map((id) => option(id, false)), ...CUSTOM.map((id) => option(id, true))]);

const named = (text, labels) => text.replace(/\{\{(\w+)\}\}/g, (_, name) => labels[name] ?? "");

/** The answers to a panel's queries as frames, a point at each step, with nothing where there was none. */
function frames(panel, record, theme) {
  const data = panel.targets.flatMap(({ expr, legendFormat, refId }) => record.series[expr].map(({ metric, values }) => {
    const at = new Map(values.map(([t, value]) => [Math.round(t * 1000), Number(value)]));
    const times = [];
    for (let t = Math.round(record.from * 1000); t <= record.to * 1000; t += record.step * 1000) times.push(t);
    const numbers = times.map((t) => (Number.isFinite(at.get(t)) ? at.get(t) : null)); // as its panel does
    const config = { displayNameFromDS: named(legendFormat, metric) };
    return {
      refId, length: times.length, fields: [
        { name: "Time", type: FieldType.time, config: {}, values: times },
        { name: "Value", type: FieldType.number, config, labels: metric, values: numbers },
      ],
    };
  }));
  const { defaults, overrides } = panel.fieldConfig;
  const mode = panel.type === "timeseries" ? "palette-classic" : "thresholds";
  const thresholds = defaults.thresholds ?? { mode: "absolute", steps: STEPS };
  const fieldConfig = { defaults: { color: { mode }, ...defaults, thresholds }, overrides };
  return applyFieldOverrides({ data, fieldConfig, fieldConfigRegistry: registry, replaceVariables: same, theme, timeZone: "utc" });
}

const marked = new WeakSet();
/** The annotation's dashed lines. */
const mark = (changes, colour) => (config) => {
  if (marked.has(config)) return null;
  marked.add(config);
  config.addHook("draw", (u) => {
    u.ctx.save();
    u.ctx.strokeStyle = colour;
    u.ctx.setLineDash([5, 5]);
    for (const t of changes) {
      const x = u.valToPos(t * 1000, "x", true);
      u.ctx.beginPath();
      u.ctx.moveTo(x, u.bbox.top);
      u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
      u.ctx.stroke();
    }
    u.ctx.restore();
  });
  return null;
};

function Lines({ panel, data, record, width, height, theme }) {
  const range = { from: dateTime(record.from * 1000), to: dateTime(record.to * 1000) };
  const colour = theme.visualization.getColorByName("purple");
  return <TimeSeries frames={data} width={width} height={height} timeRange={{ ...range, raw: range }} timeZone="utc"
    legend={panel.options.legend} children={mark(record.changes, colour)} />;
}

function Values({ panel, data, width, height, theme }) {
  const values = () => getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: same, theme, data,
  });
  const orientation = panel.options.orientation === "auto" ? VizOrientation.Auto : panel.options.orientation;
  const one = ({ value, width, height, count }) => panel.type === "stat"
    ? <BigValue value={value.display} width={width} height={height} theme={theme} count={count} {...panel.options} />
    : <BarGauge value={value.display} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)}
        width={width} height={height} theme={theme} itemSpacing={10} {...panel.options} orientation={orientation} />;
  return <VizRepeater getValues={values} renderValue={one} width={width} height={height} source={data} renderCounter={1}
    orientation={orientation} itemSpacing={10} autoGrid={panel.type === "stat"} minVizWidth={8} minVizHeight={10} />;
}

// Grafana's heatmap and its state timeline are in none of its packages: these two are only like them.
function Painted({ width, height, paint }) {
  const canvas = useRef(null);
  useLayoutEffect(() => {
    const context = canvas.current.getContext("2d");
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, width, height);
    paint(context);
  });
  return <canvas ref={canvas} width={width * devicePixelRatio} height={height * devicePixelRatio} style={{ width, height }} />;
}

function Heat({ panel, data, width, height, theme }) {
  const { scheme, steps, reverse } = panel.options.color;
  const sorted = [...data].sort((a, b) => bound(a) - bound(b));
  const rates = sorted.map((frame, i) => frame.fields[1].values.map((v, t) => v - (i ? sorted[i - 1].fields[1].values[t] : 0)));
  const most = Math.max(...rates.flat());
  return <Painted width={width} height={height} paint={(context) => {
    const wide = (width - 40) / rates[0].length, tall = (height - 32) / rates.length;
    context.font = theme.typography.bodySmall.font ?? `12px ${theme.typography.fontFamily}`;
    rates.forEach((row, i) => {
      context.fillStyle = theme.colors.text.primary;
      if (i % 2 === 0) context.fillText(sorted[i].fields[1].labels.le, 0, height - 20 - i * tall, 36);
      row.forEach((rate, t) => {
        if (!(rate > 1e-9) || steps < 2) return;
        const share = Math.round((rate / most) * (steps - 1)) / (steps - 1);
        context.fillStyle = d3[`interpolate${scheme}`](reverse !== theme.isDark ? 1 - share : share);
        context.fillRect(40 + t * wide, height - 20 - (i + 1) * tall, wide + 0.5, tall - 1);
      });
    });
  }} />;
}
const bound = (frame) => Number(frame.fields[1].labels.le.replace("+Inf", "Infinity"));

function States({ data, width, height, theme }) {
  return <Painted width={width} height={height} paint={(context) => {
    const left = Math.min(width / 2, 180), tall = (height - 20) / data.length;
    context.font = `12px ${theme.typography.fontFamily}`;
    data.forEach(({ fields: [, field] }, i) => {
      const wide = (width - left) / field.values.length;
      context.fillStyle = theme.colors.text.primary;
      context.fillText(field.config.displayNameFromDS, 0, (i + 0.5) * tall + 4, left - 8);
      field.values.forEach((value, t) => {
        if (value === null) return;
        context.fillStyle = field.display(value).color;
        context.fillRect(left + t * wide, (i + 0.05) * tall, wide + 0.5, tall * 0.9);
      });
    });
  }} />;
}

const KINDS = { timeseries: Lines, stat: Values, bargauge: Values, heatmap: Heat, "state-timeline": States };

function Panel({ panel, record, width, height, theme }) {
  const data = frames(panel, record, theme);
  const Kind = KINDS[panel.type];
  return <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
    {(inner, tall) => data.length ? <Kind {...{ panel, data, record, theme }} width={inner} height={tall} />
      : <p style={{ textAlign: "center", paddingTop: tall / 3 }}>No data</p>}
  </PanelChrome>;
}

function Dashboard({ dashboard, record, theme }) {
  const { columns, cell, gap, stacked } = GRID;
  const whole = innerWidth - 32, column = (whole + gap) / columns, row = cell + gap;
  const phone = innerWidth < stacked; // one column
  let end = 0;
  const placed = dashboard.panels.map((panel) => {
    const { x, y, w, h } = panel.gridPos;
    const tall = h * row - gap, wide = phone ? whole : w * column - gap;
    const place = { position: "absolute", left: 16 + (phone ? 0 : x * column), top: 16 + (phone ? end : y * row) };
    end = Math.max(end, place.top - 16 + tall + gap);
    return <div key={`${x} ${y}`} style={place}>
      {panel.type === "row" ? <h6>{`\u2304 ${panel.title}`}</h6> : <Panel {...{ panel, record, theme }} width={wide} height={tall} />}
    </div>;
  });
  return <div style={{ position: "relative", height: end + 24 }}>{placed}</div>;
}

const [dashboard, record] = await Promise.all(["dashboard.json", "record.json"].map((name) => fetch(name).then((reply) => reply.json())));
record.changes = record.series[dashboard.annotations.list[0].expr].flatMap(({ values }) => values.map(([t]) => t))
  .filter((t, i, all) => i === 0 || t - all[i - 1] > 2 * record.step);
const theme = createTheme({ colors: { mode: new URLSearchParams(location.search).get("theme") } });
document.documentElement.style.overflow = "hidden";
document.body.style.background = theme.colors.background.canvas;
createRoot(document.getElementById("root")).render(
  <ThemeContext.Provider value={theme}><GlobalStyles /><Dashboard {...{ dashboard, record, theme }} /></ThemeContext.Provider>,
);
