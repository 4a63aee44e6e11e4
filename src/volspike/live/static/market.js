// The state of the displayed product: fifteen minutes of one-second points, alerts and spikes.

import * as words from "./words.js";

export const KEPT_MS = 15 * 60_000;
const SILENCE_MS = 15_000;
const PAUSE_MS = 1_500; // the longest usual time between two updates of the page
const ALERTS = 500;
const FEATURE_POINTS = 300;
const SECOND_MS = 1_000;

// Whether an alert opened, or an open one closed; not that its outcome became known.
export function isNews(before, after) {
  return (before?.state === "open") !== (after.state === "open");
}

export class Market {
  constructor(snapshot) {
    this.product = snapshot.product;
    this.products = snapshot.products ?? [];
    this.source = snapshot.source;
    this.simulated = Boolean(snapshot.simulated);
    this.mode = snapshot.mode ?? (this.simulated ? "simulated" : "live");
    this.warmUp = snapshot.warm_up ?? null;
    this.model = snapshot.model ?? {};
    this.health = snapshot.health ?? {};
    this.performance = snapshot.performance ?? {};
    this.explanation = snapshot.explanation ?? null;
    this.markets = snapshot.markets ?? [];
    this.snoozes = snapshot.snoozes ?? [];
    this.counts = snapshot.counts ?? {};
    this.points = [];
    this.history = new Map(); // feature → its newest values, one a second
    this.alerts = new Map(); // product and id → alert, the oldest first
    this.past = new Map(); // the same for older alerts, which only the chart shows
    this.spikeRows = []; // [first, last, peak in bps or null] of rows in ms that a spike follows, disjoint, ascending
    for (const point of snapshot.points ?? []) this.tick(point);
    for (const alert of (snapshot.alerts ?? []).toSorted((a, b) => a.opened - b.opened)) this.alert(alert);
    for (const spike of (snapshot.spikes ?? []).toSorted((a, b) => a.time - b.time)) this.spike(spike);
  }

  get last() {
    return this.points.at(-1);
  }

  get horizonMs() {
    return 1_000 * (this.model.horizon_s ?? 60);
  }

  get alertsHere() {
    return [...this.past.values(), ...this.alerts.values()].filter((alert) => alert.product === this.product);
  }

  // The progress of a replayed tape; null for other sources.
  get replay() {
    return this.health.replay ?? null;
  }

  get isReplay() {
    return this.mode.endsWith("replay");
  }

  // A longer time between two points is drawn as a gap. A fast replay sends points that are further apart.
  get silenceMs() {
    const speed = this.replay ? this.replay.speed || Infinity : 1;
    return Math.max(SILENCE_MS, PAUSE_MS * speed);
  }

  // A time of the market: of a replay with its day.
  clock(ms) {
    return this.isReplay ? `${words.day(ms)} ${words.clock(ms)}` : words.clock(ms);
  }

  // The newest point of a second replaces earlier ones of that second; older points are ignored.
  tick(tick) {
    if (tick.product !== undefined && tick.product !== this.product) return false;
    const last = this.last;
    if (last && tick.time < last.time) return false;
    const same = last && Math.floor(last.time / 1000) === Math.floor(tick.time / 1000);
    if (same) this.points.pop();
    this.points.push(tick);
    if (tick.features) this.#remember(tick.features, same);
    if (tick.warm_up) this.warmUp = tick.warm_up;
    this.#raise(tick.probability);
    const oldest = tick.time - KEPT_MS;
    let stale = 0;
    while (this.points[stale].time < oldest) stale += 1;
    if (stale) this.points.splice(0, stale);
    return true;
  }

  // An open alert's peak is the highest probability so far; the final one is sent when it closes.
  #raise(probability) {
    const alert = this.openAlert;
    if (alert && probability > alert.peak_probability) alert.peak_probability = probability;
  }

  #remember(features, same) {
    for (const [name, value] of Object.entries(features)) {
      if (!this.history.has(name)) this.history.set(name, []);
      const values = this.history.get(name);
      if (same) values.pop();
      values.push(value);
      if (values.length > FEATURE_POINTS) values.shift();
    }
  }

  alert(alert) {
    const name = `${alert.product}/${alert.id}`;
    const before = this.alerts.get(name);
    this.alerts.set(name, alert);
    if (this.alerts.size > ALERTS) this.alerts.delete(this.alerts.keys().next().value);
    return isNews(before, alert);
  }

  get openAlert() {
    return this.alertsHere.find((alert) => alert.state === "open");
  }

  spike(spike) {
    if (spike.product !== undefined && spike.product !== this.product) return;
    this.#addSpike([spike.time, spike.time, 1e4 * spike.future_volatility * Math.sqrt(this.horizonMs / 1_000) || null]);
  }

  // Spikes as [start, end, peak]. A spike begins one horizon after the first row that it follows: only then its horizon is complete.
  get spikes() {
    return this.spikeRows.map(([first, last, peak]) => [first + this.horizonMs, Math.max(last, first + this.horizonMs + SECOND_MS), peak]);
  }

  // Alerts and spikes of a range of the past.
  addHistory({ alerts, spikes }) {
    for (const alert of alerts) {
      const name = `${alert.product}/${alert.id}`;
      if (!this.alerts.has(name)) this.past.set(name, alert);
    }
    for (const { first, last, peak_bp: peak } of spikes) this.#addSpike([first, last, peak]);
  }

  // Keeps the runs of rows disjoint and in order; rows less than a horizon apart are one run.
  #addSpike([start, end, peak]) {
    const spikes = this.spikeRows;
    let first = spikes.findIndex((each) => start - each[1] < this.horizonMs);
    if (first < 0) first = spikes.length;
    let after = first;
    while (after < spikes.length && spikes[after][0] - end < this.horizonMs) after += 1;
    const joined = spikes.slice(first, after);
    const all = [[start, end, peak], ...joined];
    const merged = [Math.min(...all.map((each) => each[0])), Math.max(...all.map((each) => each[1])), Math.max(...all.map((each) => each[2] ?? 0)) || null];
    spikes.splice(first, after - first, merged);
  }

  // Standard deviations of the newest value from its mean of the last minutes; 0 with under a minute of values.
  departure(name) {
    const values = (this.history.get(name) ?? []).filter((value) => value !== null);
    if (values.length < 60) return 0;
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
    return deviation > 1e-12 * Math.abs(mean) && deviation > 0 ? (values.at(-1) - mean) / deviation : 0;
  }
}
