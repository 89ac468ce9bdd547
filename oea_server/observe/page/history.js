const SPAN = 600;
const WINDOWS = [60, 120, 210, 330, 450, SPAN];
const RECENT = 60;
const JUMP = 2; // seconds by which the server's clock may part from this page's steady one before it was set
export const GAP = 5; // seconds without a point that a busy server may take; longer, and it was away
const MEANS = ["batch", "requests", "accepted", "rejected", "step_ms", "unique", "vanilla", "busiest", "vanilla_busiest", "mass_kept", "shadow_unique", "shadow_busiest", "shadow_mass_kept"];

/** The points of the last ten minutes, whatever the server and its clock do. */
export class History {
  points = [];
  now = 0;
  #heard = 0; // when `now` was, by the page's steady clock
  #renew = false; // the server's clock was set, and with it the times of its points: ours are of the old clock

  get since() {
    return this.#renew ? null : this.#last ?? null;
  }

  take(stats, heard = performance.now() / 1000) {
    const parted = stats.t - this.now - (heard - this.#heard);
    if (this.#renew) this.points = [];
    this.#renew = !this.#renew && this.points.length > 0 && Math.abs(parted) > JUMP;
    [this.now, this.#heard] = [stats.t, heard];
    // Points in the future would be the last for long: nothing would be new.
    this.points = this.points.filter((point) => point.t > this.now - SPAN && point.t <= this.now + JUMP);
    const last = this.#last ?? -Infinity;
    this.points.push(...stats.points.filter((point) => point.t > Math.max(last, this.now - SPAN)));
  }

  get #last() {
    return this.points.at(-1)?.t;
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
