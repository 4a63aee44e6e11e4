// What is known of the product that is shown: the last fifteen minutes, one point a second, alerts and spikes.

export const KEPT_MS = 15 * 60_000;
export const SILENCE_MS = 15_000; // longer without a tick is drawn as a hole
const SESSION_MS = 300_000; // after such a silence windows start anew
const SPIKE_MS = 60_000; // a spike at t is about the minute after t
const ALERTS = 50;
const FEATURE_POINTS = 300;

// Whether an alert opened, or one that was open closed.
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

  // The newest point of a second replaces the second's earlier ones; one from the past is left out.
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

  // An open alert's peak is the highest probability so far; what it was in the end is told when it closes.
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

  // Seconds until the longest window is full, by the feature names; null where nothing tells.
  secondsToWarm() {
    const windows = Object.keys(this.last?.features ?? {}).map((name) => Number(name.match(/_(\d+)s$/)?.[1] ?? 0));
    const longest = Math.max(0, ...windows);
    if (!longest) return null;
    let first = this.points.length - 1;
    while (first > 0 && this.points[first].time - this.points[first - 1].time <= SESSION_MS) first -= 1;
    const seen = (this.last.time - this.points[first].time) / 1000;
    return Math.max(1, Math.ceil(longest + 1 - seen));
  }

  // How many deviations the newest value stands from its own last minutes; 0 while too little is known.
  departure(name) {
    const values = (this.history.get(name) ?? []).filter((value) => value !== null);
    if (values.length < 60) return 0;
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
    return deviation > 1e-12 * Math.abs(mean) && deviation > 0 ? (values.at(-1) - mean) / deviation : 0;
  }
}
