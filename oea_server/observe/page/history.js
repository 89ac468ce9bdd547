const SPAN = 600;
const WINDOWS = [60, 120, 210, 330, 450, SPAN];
const RECENT = 60;
export const GAP = 5; // seconds without a point that a busy server may take; longer, and it was away
const MEANS = ["batch", "step_ms", "unique", "vanilla", "busiest", "vanilla_busiest", "mass_kept", "shadow_unique", "shadow_busiest", "shadow_mass_kept"];

/** The points of the last ten minutes, whatever the server and its clock do. */
export class History {
  points = [];
  now = 0;

  get since() {
    return this.points.at(-1)?.t ?? null;
  }

  take(stats) {
    this.now = stats.t;
    // A clock that was set back would leave points in the future, after which nothing is ever new.
    this.points = this.points.filter((point) => point.t > this.now - SPAN && point.t <= this.now + 2);
    const last = this.since ?? -Infinity;
    this.points.push(...stats.points.filter((point) => point.t > Math.max(last, this.now - SPAN)));
  }

  /** [from, to] of the time axes: the shortest window that shows everything there is. */
  get range() {
    const age = this.points.length ? this.now - this.points[0].t : 0;
    return [this.now - (WINDOWS.find((seconds) => seconds >= age) ?? SPAN), this.now];
  }

  /** Points with an empty one in each hole, so that no line bridges a restart. */
  get rows() {
    const rows = [];
    for (const point of this.points) {
      const before = rows.at(-1);
      if (before && point.t - before.t > GAP) rows.push({ t: before.t + 1, layers: [] });
      rows.push(point);
    }
    return rows;
  }

  /** Where the configuration changed: [{t, version}]. */
  get changes() {
    return this.points.filter((point, i) => i > 0 && point.version !== this.points[i - 1].version);
  }

  /** Means over the steps of the last minute since the last change, so that two policies never mix. */
  summary(version) {
    let points = this.points.filter((point) => point.t > this.now - RECENT && point.version === version);
    const changed = points.length > 1 && this.changes.includes(points[0]);
    if (changed) points = points.slice(1); // the second of the change may hold steps of both
    const busy = points.filter((point) => point.steps > 0);
    const result = { steps: busy.reduce((sum, point) => sum + point.steps, 0), seconds: points.length, busy: busy.length };
    for (const name of MEANS) result[name] = mean(busy, name);
    return result;
  }
}

function mean(points, name) {
  const known = points.filter((point) => Number.isFinite(point[name]));
  const steps = known.reduce((sum, point) => sum + point.steps, 0);
  return steps ? known.reduce((sum, point) => sum + point[name] * point.steps, 0) / steps : null;
}
