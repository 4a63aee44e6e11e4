// The chart on a canvas: price above, probability with its threshold below, one time axis.

import * as words from "./words.js";

const STEPS_S = [10, 15, 30, 60, 120, 180, 300];
const AXIS_PX = 20;
const STRIP_PX = 9; // the strip of spikes under the price
const TOPS = [0.1, 0.2, 0.5, 1];

export class Chart {
  #market = null;
  #cursor = null; // ms, or null
  #requested = false;

  constructor(canvas, readout) {
    this.canvas = canvas;
    this.readout = readout;
    this.spanMs = 15 * 60_000;
    this.brush = canvas.getContext("2d");
    new ResizeObserver(() => this.#resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#recolour());
    canvas.addEventListener("pointermove", (event) => this.#point(this.#timeAt(event.offsetX)));
    canvas.addEventListener("pointerdown", (event) => this.#point(this.#timeAt(event.offsetX)));
    canvas.addEventListener("pointerleave", () => this.#point(null));
    canvas.addEventListener("blur", () => this.#point(null));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    this.#recolour();
  }

  show(market) {
    this.#market = market;
    this.draw();
  }

  // Draws at most once per animation frame.
  draw() {
    if (this.#requested) return;
    this.#requested = true;
    requestAnimationFrame(() => {
      this.#requested = false;
      this.#paint();
    });
  }

  #recolour() {
    const style = getComputedStyle(document.documentElement);
    const names = ["ink", "quiet", "price", "chance", "alert", "alert-wash", "spike", "grid", "void", "card"];
    this.colour = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.font = `11px ${style.fontFamily}`;
    this.draw();
  }

  #resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    this.brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#paint();
  }

  #layout() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const right = width < 480 ? 62 : 76;
    const plot = height - AXIS_PX - 30;
    const end = this.#market.last.time;
    const upper = { top: 8, height: Math.round(plot * 0.64) };
    const lower = { top: upper.top + upper.height + STRIP_PX + 14, height: 0 };
    lower.height = height - AXIS_PX - lower.top;
    return { left: 6, width: width - right - 6, start: end - this.spanMs, end, upper, lower };
  }

  #paint() {
    const { brush, canvas } = this;
    brush.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    if (!this.#market?.last || canvas.clientWidth < 50) return;
    const at = this.#layout();
    this.at = at;
    this.x = (ms) => at.left + ((ms - at.start) / (at.end - at.start)) * at.width;
    const seen = this.#market.points.filter((point) => point.time >= at.start);
    brush.font = this.font;
    brush.textBaseline = "middle";
    if (this.#market.mode !== "live") this.#watermark(at, words.label(this.#market.mode));
    this.#times(at);
    this.#holes(at, seen);
    this.#alerts(at);
    this.#prices(at, seen);
    this.#chances(at, seen);
    if (this.#cursor !== null) this.#cross(at, seen);
    this.#describe(seen);
  }

  // A text description of the chart for screen readers.
  #describe(seen) {
    const known = (name) => seen.map((point) => point[name]).filter((value) => value !== null);
    const [prices, chances] = [known("price"), known("probability")];
    const most = chances.length ? words.probability(Math.max(...chances)) : "not known";
    const text =
      `Chart of ${this.#market.product}, the last ${this.spanMs / 60_000} minutes: price from ` +
      `${words.price(Math.min(...prices))} to ${words.price(Math.max(...prices))}, probability at most ${most}.`;
    if (this.canvas.getAttribute("aria-label") !== text) this.canvas.setAttribute("aria-label", text);
  }

  #watermark({ left, width, upper }, text) {
    const { brush } = this;
    brush.save();
    brush.globalAlpha = 0.1;
    brush.fillStyle = this.colour.ink;
    brush.textAlign = "center";
    brush.font = `700 ${Math.round(Math.min((1.3 * width) / text.length, 72))}px ${this.font.slice(5)}`;
    brush.fillText(text, left + width / 2, upper.top + upper.height / 2);
    brush.restore();
  }

  #times(at) {
    const { brush } = this;
    const wanted = (at.end - at.start) / 1000 / Math.max(2, at.width / 90);
    const step = 1000 * (STEPS_S.find((each) => each >= wanted) ?? 300);
    const foot = at.lower.top + at.lower.height;
    let first = at.left + 16;
    if (this.#market.isReplay) {
      const days = [...new Set([at.start, at.end].map(words.day))].join(" – "); // a tape is of another day than the clock's
      brush.textAlign = "left";
      brush.fillStyle = this.colour.quiet;
      brush.fillText(days, at.left, foot + AXIS_PX / 2 + 2);
      first = at.left + brush.measureText(days).width + 24;
    }
    brush.textAlign = "center";
    for (let ms = Math.ceil(at.start / step) * step; ms <= at.end; ms += step) {
      const x = Math.round(this.x(ms)) + 0.5;
      this.#line(this.colour.grid, [[x, at.upper.top], [x, foot]]);
      brush.fillStyle = this.colour.quiet;
      const text = words.clock(ms).slice(0, step % 60_000 ? 8 : 5);
      if (x > first && x < at.left + at.width + 20) brush.fillText(text, x, foot + AXIS_PX / 2 + 2);
    }
  }

  #holes(at, seen) {
    seen.forEach((point, i) => {
      if (i && point.time - seen[i - 1].time > this.#market.silenceMs) this.#band(at, seen[i - 1].time, point.time, this.colour.void);
    });
  }

  #alerts(at) {
    for (const alert of this.#market.alerts.values()) {
      if (alert.product !== this.#market.product) continue;
      const end = alert.closed ?? at.end;
      if (end < at.start || alert.opened > at.end) continue;
      this.#band(at, alert.opened, end, this.colour["alert-wash"]);
      const x = this.x(Math.max(alert.opened, at.start));
      if (alert.opened >= at.start) this.#line(this.colour.alert, [[x, at.upper.top], [x, at.lower.top + at.lower.height]], 1.5);
    }
  }

  #band(at, start, end, colour) {
    const [from, to] = [this.x(Math.max(start, at.start)), this.x(Math.min(end, at.end))];
    this.brush.fillStyle = colour;
    this.brush.fillRect(from, at.upper.top, Math.max(1, to - from), at.lower.top + at.lower.height - at.upper.top);
  }

  #prices(at, seen) {
    const { upper } = at;
    const values = seen.map((point) => point.price).filter((value) => value !== null);
    if (!values.length) return;
    let [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = (high - low || Math.abs(high) * 1e-4 || 1) * 0.08;
    [low, high] = [low - margin, high + margin];
    const y = (value) => upper.top + upper.height * (1 - (value - low) / (high - low));
    const newest = y(values.at(-1));
    for (const value of ticks(low, high, upper.height / 55)) this.#rule(at, y(value), axisPrice(value, high - low), newest);
    this.#trace(seen, "price", y, this.colour.price, 1.6);
    const strip = upper.top + upper.height + 3;
    for (const [start, end] of this.#market.spikes) {
      if (end < at.start) continue;
      this.#clipped(start, Math.min(end, at.end), at, () => this.#trace(seen, "price", y, this.colour.spike, 2.6));
      const from = this.x(Math.max(start, at.start));
      this.brush.fillStyle = this.colour.spike;
      this.brush.fillRect(from, strip, Math.max(2, this.x(Math.min(end, at.end)) - from), STRIP_PX - 3);
    }
    this.#tag(at, newest, axisPrice(values.at(-1), high - low), this.colour.price);
  }

  #chances(at, seen) {
    const { lower } = at;
    const threshold = this.#market.last.threshold ?? this.#market.model.threshold ?? null;
    const values = seen.map((point) => point.probability).filter((value) => value !== null);
    const most = Math.max(0, ...values, threshold !== null && threshold <= 1 ? threshold : 0);
    const top = TOPS.find((each) => each >= most * 1.08) ?? 1;
    const y = (value) => lower.top + lower.height * (1 - value / top);
    const newest = this.#market.last.probability === null ? null : y(this.#market.last.probability);
    for (const value of [0, top / 2, top]) this.#rule(at, y(value), `${+(100 * value).toFixed(1)} %`, newest);
    if (threshold !== null && threshold <= top) {
      this.brush.setLineDash([5, 4]);
      this.#line(this.colour.ink, [[at.left, y(threshold)], [at.left + at.width, y(threshold)]], 1.2);
      this.brush.setLineDash([]);
      this.brush.fillStyle = this.colour.quiet;
      this.brush.textAlign = "left";
      this.brush.fillText(`alert threshold ${words.probability(threshold)}`, at.left + 4, y(threshold) - 8);
    }
    this.#trace(seen, "probability", y, this.colour.chance, 1.6);
    if (newest !== null) this.#tag(at, newest, words.probability(this.#market.last.probability), this.colour.chance);
  }

  // A line through the known values, with breaks at gaps.
  #trace(seen, name, y, colour, width) {
    const { brush } = this;
    brush.beginPath();
    let before = null;
    for (const point of seen) {
      const value = point[name];
      if (value === null || value === undefined) {
        before = null;
        continue;
      }
      const broken = before === null || point.time - before > this.#market.silenceMs;
      brush[broken ? "moveTo" : "lineTo"](this.x(point.time), y(value));
      before = point.time;
    }
    brush.strokeStyle = colour;
    brush.lineWidth = width;
    brush.lineJoin = "round";
    brush.stroke();
  }

  #clipped(start, end, at, paint) {
    const { brush } = this;
    brush.save();
    brush.beginPath();
    brush.rect(this.x(start), at.upper.top, this.x(end) - this.x(start), at.upper.height);
    brush.clip();
    paint();
    brush.restore();
  }

  // A grid line with its number, which is hidden behind the tag of the newest value.
  #rule(at, y, text, newest) {
    this.#line(this.colour.grid, [[at.left, Math.round(y) + 0.5], [at.left + at.width, Math.round(y) + 0.5]]);
    if (newest !== null && Math.abs(y - newest) < 15) return;
    this.brush.fillStyle = this.colour.quiet;
    this.brush.textAlign = "left";
    this.brush.fillText(text, at.left + at.width + 7, y);
  }

  #tag(at, y, text, colour) {
    const { brush } = this;
    const x = at.left + at.width + 3;
    brush.fillStyle = colour;
    brush.fillRect(x, y - 9, brush.measureText(text).width + 8, 18);
    brush.fillStyle = this.colour.card;
    brush.textAlign = "left";
    brush.fillText(text, x + 4, y);
  }

  #line(colour, [[fromX, fromY], [toX, toY]], width = 1) {
    const { brush } = this;
    brush.strokeStyle = colour;
    brush.lineWidth = width;
    brush.beginPath();
    brush.moveTo(fromX, fromY);
    brush.lineTo(toX, toY);
    brush.stroke();
  }

  #cross(at, seen) {
    const point = nearest(seen, this.#cursor);
    if (!point) return;
    const x = this.x(point.time);
    this.#line(this.colour.quiet, [[x, at.upper.top], [x, at.lower.top + at.lower.height]]);
    const spike = this.#market.spikes.some(([start, end]) => start <= point.time && point.time <= end);
    this.readout.textContent =
      `${this.#market.clock(point.time)} · ${words.price(point.price)} · spread ${words.basisPoints(point.spread_bps)} bps · ` +
      `probability ${words.probability(point.probability)}${spike ? " · really moved" : ""}`;
  }

  #timeAt(offset) {
    return this.at ? this.at.start + ((offset - this.at.left) / this.at.width) * (this.at.end - this.at.start) : null;
  }

  #point(ms) {
    this.#cursor = ms;
    if (ms === null) this.readout.textContent = "\u00a0";
    this.draw();
  }

  #key(event) {
    if (event.key === "Escape") this.#point(null);
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 }[event.key];
    if (!steps || !this.#market?.last) return;
    event.preventDefault();
    const points = this.#market.points;
    const here = this.#cursor === null ? points.length - 1 : points.indexOf(nearest(points, this.#cursor));
    this.#point(points[Math.min(points.length - 1, Math.max(0, here + steps))].time);
  }
}

function nearest(points, ms) {
  let best = null;
  for (const point of points) if (!best || Math.abs(point.time - ms) < Math.abs(best.time - ms)) best = point;
  return best;
}

// About ``count`` round numbers between low and high.
function ticks(low, high, about) {
  const rough = (high - low) / Math.max(2, about);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k += 1) found.push(k * step);
  return found;
}

function axisPrice(value, range) {
  return words.fixed(value, Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(range)))));
}
