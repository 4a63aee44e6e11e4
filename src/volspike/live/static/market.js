// The state of the displayed product: fifteen minutes of one-second points, alerts and spikes.

export const KEPT_MS = 15 * 60_000;
export const SILENCE_MS = 15_000; // a longer time without ticks is drawn as a gap
const SESSION_MS = 300_000; // windows start again after such a silence
const SPIKE_MS = 60_000; // a spike at t covers the minute after t
const ALERTS = 50;
const FEATURE_POINTS = 300;

// Whether an alert opened, or an open one closed.
export function isNews(before, after) {
  return (before?.state === "open") !== (after.state === "open");
}

export class Market {
  constructor(snapshot) {
    this.product = snapshot.product;
    this.products = snapshot.products ?? [];
    this.source = snapshot.source;
    this.simulated = Boolean(snapshot.simulated);
    this.model = snapshot.model ?? {};
    this.health = snapshot.health ?? {};
    this.performance = snapshot.performance ?? {};
    this.points = [];
    this.history = new Map(); // feature → its newest values, one a second
    this.alerts = new Map(); // product and id → alert, the oldest first
    this.spikes = []; // [start, end] in ms, merged, ascending
    for (const point of snapshot.points ?? []) this.tick(point);
    for (const alert of (snapshot.alerts ?? []).toSorted((a, b) => a.opened - b.opened)) this.alert(alert);
    for (const spike of (snapshot.spikes ?? []).toSorted((a, b) => a.time - b.time)) this.spike(spike);
  }

  get last() {
    return this.points.at(-1);
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
    this.#raise(tick.probability);
    const oldest = tick.time - KEPT_MS;
    let stale = 0;
    while (this.points[stale].time < oldest) stale += 1;
    if (stale) this.points.splice(0, stale);
    while (this.spikes.length && this.spikes[0][1] < oldest) this.spikes.shift();
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
    return [...this.alerts.values()].find((alert) => alert.state === "open" && alert.product === this.product);
  }

  spike(spike) {
    if (spike.product !== undefined && spike.product !== this.product) return;
    const [start, end] = [spike.time, spike.time + SPIKE_MS];
    const last = this.spikes.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else this.spikes.push([start, end]);
  }

  // Seconds until the longest window in the feature names is full; null without windows.
  secondsToWarm() {
    const windows = Object.keys(this.last?.features ?? {}).map((name) => Number(name.match(/_(\d+)s$/)?.[1] ?? 0));
    const longest = Math.max(0, ...windows);
    if (!longest) return null;
    let first = this.points.length - 1;
    while (first > 0 && this.points[first].time - this.points[first - 1].time <= SESSION_MS) first -= 1;
    const seen = (this.last.time - this.points[first].time) / 1000;
    return Math.max(1, Math.ceil(longest + 1 - seen));
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
