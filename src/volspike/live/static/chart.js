// The chart: Bokeh draws, pans and zooms; this fills its sources, scales its axes and reads its values.

import { Bars, RETRY_MS } from "./bars.js";
import * as words from "./words.js";

const SECOND = 1_000;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800].map((s) => s * SECOND);
const LABEL_PX = 84;
const CANDLES = 110; // in view
const TOPS = [0.05, 0.1, 0.2, 0.5, 1];
const SHORTEST_MS = 15 * SECOND;
const LONGEST_MS = 31 * DAY;
const LOAD_AFTER_MS = 120; // of rest, while the view moves
const LONGEST_MOVE_STEP_MS = 60_000; // with longer bars an expected move of a minute would be invisible

// model → property → variable of the style sheet
const COLOURS = {
  close: { line_color: "price" },
  wick: { line_color: "price" },
  body: { line_color: "price" },
  chance: { line_color: "chance" },
  limit: { line_color: "ink" },
  "move-fill": { fill_color: "move" },
  last: { line_color: "price" },
  "price-plot": { background_fill_color: "card", border_fill_color: "card" },
  "probability-plot": { background_fill_color: "card", border_fill_color: "card" },
  cursor: { line_color: "quiet" },
  "price-cursor": { line_color: "quiet" },
  "probability-cursor": { line_color: "quiet" },
};
for (const plot of ["price", "probability"]) {
  COLOURS[`${plot}-alerts`] = { fill_color: "alert-wash" };
  COLOURS[`${plot}-gaps`] = { fill_color: "void" };
  COLOURS[`${plot}-spikes`] = { fill_color: "spike-wash", hatch_color: "spike-hatch" };
}

export class Chart {
  #document = null;
  #plots = [];
  #market = null;
  #bars = null;
  #span = 15 * 60_000;
  #isFollowing = true;
  #cursor = null; // ms
  #isMoving = false; // while this class changes the range
  #stale = { data: true, view: true };
  #requested = false;
  #timer = 0;
  #colours = {};

  // elements: chart, readout, tooltip, watermark, range, loading, follow
  constructor(elements) {
    this.elements = elements;
    this.drawing = "line";
    const { chart, follow } = elements;
    chart.addEventListener("pointermove", (event) => this.#point(event));
    chart.addEventListener("pointerdown", (event) => this.#point(event));
    chart.addEventListener("pointerleave", () => this.#read(null));
    chart.addEventListener("blur", () => this.#read(null));
    chart.addEventListener("keydown", (event) => this.#key(event));
    follow.addEventListener("click", () => this.follow());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#recolour());
    this.ready = this.#embed();
  }

  async #embed() {
    const item = await this.#fetch();
    if (!window.Bokeh) {
      this.elements.loading.textContent = "The chart could not be loaded. Reload the page.";
      return;
    }
    const views = await Bokeh.embed.embed_item(item, this.elements.chart);
    const [root] = [...views];
    this.#plots = root.child_views;
    this.#document = Bokeh.documents.at(-1);
    for (const plot of this.#plots) {
      const events = plot.canvas_view.shadow_el.querySelector(".bk-events");
      events.style.touchAction = "pan-y"; // a finger still scrolls the page
    }
    const time = this.#model("time");
    for (const side of [time.properties.start, time.properties.end]) side.change.connect(() => this.#moved());
    new ResizeObserver(() => this.#change({ view: true })).observe(this.elements.chart);
    this.#recolour();
  }

  // The chart without data, as soon as the server sends it.
  async #fetch() {
    for (;;) {
      try {
        const response = await fetch("static/chart.json");
        if (response.ok) return await response.json();
      } catch {
        // tried again
      }
      this.elements.loading.textContent = "The chart could not be loaded. Trying again…";
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      this.elements.loading.textContent = "";
    }
  }

  #model(name) {
    return this.#document.get_model_by_name(name);
  }

  get view() {
    const { start, end } = this.#model("time");
    return [start, end];
  }

  // Shows a market. The view is kept if the product is the same, as after a reconnection.
  show(market) {
    const isSame = this.#market?.product === market.product;
    this.#market = market;
    if (!isSame) this.#isFollowing = true;
    // also after a reconnection, since points were missed
    this.#bars?.abort();
    this.#bars = new Bars(market.product, () => this.#change({ data: true, view: true }), (state, loaded) => this.#loaded(state, loaded));
    for (const point of market.points) this.#bars.add(point);
    if (this.#document) this.elements.loading.textContent = ""; // of the request that has ended
    this.#loadSoon();
    this.elements.watermark.textContent = market.mode === "live" ? "" : words.label(market.mode);
    this.draw();
  }

  add(point) {
    this.#bars?.add(point);
    this.draw();
  }

  draw() {
    this.#change({ data: true, view: true });
  }

  // Shows the last ``span`` ms and follows the newest data.
  follow(span = this.#span) {
    this.#span = span;
    this.#isFollowing = true;
    if (this.#document && this.#market?.last) this.#keepUp();
    this.draw();
  }

  // Moves a time into the middle of the view.
  go(time) {
    if (!this.#document) return;
    const [start, end] = this.view;
    const span = Math.min(end - start, HOUR);
    this.#isFollowing = false;
    this.#move(time - span / 2, time + span / 2);
    this.#read(time);
  }

  setDrawing(drawing) {
    this.drawing = drawing;
    this.draw();
  }

  setZone() {
    this.draw();
  }

  #change(what) {
    this.#stale.data ||= Boolean(what.data);
    this.#stale.view ||= Boolean(what.view);
    if (this.#requested) return;
    this.#requested = true;
    requestAnimationFrame(() => {
      this.#requested = false;
      if (!this.#document || !this.#market?.last || !this.#bars) return;
      if (this.#isFollowing) this.#keepUp();
      if (this.#stale.data) this.#fill();
      this.#scale();
      this.#stale = { data: false, view: false };
    });
  }

  // Ends the view a little after the newest point, where the expected move ends.
  #keepUp() {
    const newest = this.#market.last.time;
    const end = newest + Math.max(0.02 * this.#span, Math.min(this.#market.horizonMs, 0.12 * this.#span));
    this.#move(end - this.#span, end);
  }

  #move(start, end) {
    const time = this.#model("time");
    const span = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, end - start));
    if (time.start === end - span && time.end === end) return;
    this.#isMoving = true;
    time.setv({ start: end - span, end });
    this.#isMoving = false;
    this.#change({ view: true });
    this.#loadSoon();
  }

  // The user moved or zoomed with the pointer. A view that still ends at the newest data keeps following it.
  #moved() {
    if (this.#isMoving || !this.#market?.last) return;
    const [start, end] = this.view;
    const newest = this.#market.last.time;
    const slack = 0.02 * (end - start);
    this.#isFollowing = end >= newest - slack && start < newest;
    if (this.#isFollowing) this.#span = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, end - start));
    this.#change({ view: true });
    this.#loadSoon();
  }

  // While the view follows the market it moves all the time, but needs other bars only now and then.
  #loadSoon() {
    if (this.#isFollowing && this.#timer) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#load();
    }, LOAD_AFTER_MS);
  }

  #load() {
    if (!this.#bars || !this.#document || !this.#market?.last) return;
    const [start, end] = this.view;
    this.#bars.load(start, end, this.#market.points);
  }

  #loaded(state, loaded) {
    const texts = { loading: "Loading…", loaded: "", failed: "Older data could not be loaded." };
    this.elements.loading.textContent = texts[state];
    if (state === "failed") setTimeout(() => this.#load(), RETRY_MS);
    if (loaded && this.#market.product === loaded.product) this.#market.addHistory(loaded);
    if (loaded) this.#loadSoon(); // the view may have moved on meanwhile
    this.draw();
  }

  #fill() {
    const market = this.#market;
    const columns = { time: [], close: [], probability: [], threshold: [] };
    const holes = [];
    const silence = Math.max(market.silenceMs, 2 * this.#bars.step);
    let before = null;
    for (const bar of this.#bars.list) {
      if (before && bar.time - before.time > silence) {
        holes.push([before.time + this.#bars.step, bar.time]);
        push(columns, before.time + this.#bars.step, {}); // breaks the lines
      }
      push(columns, bar.time, bar);
      before = bar;
    }
    this.#model("bars").data = columns;
    this.#fillMove(silence);
    this.#fillCandles();
    this.#model("gaps").data = bands(holes);
    const newest = market.last.time;
    const alerts = market.alertsHere.map((alert) => [alert.opened, Math.max(alert.closed ?? newest, alert.opened + this.#bars.step)]);
    this.#model("alerts").data = bands(alerts);
    this.#model("spikes").data = bands(market.spikes);
    this.#model("last").location = market.last.price ?? Number.NaN;
    this.elements.chart.dataset.bars = this.#bars.list.length;
    this.elements.chart.dataset.step = this.#bars.step;
    this.elements.chart.dataset.earliest = this.#bars.earliest ?? "";
  }

  // One area for each run of bars: the price one horizon earlier, plus and minus the move expected then.
  #fillMove(silence) {
    const xs = [];
    const ys = [];
    const horizon = this.#market.horizonMs;
    let run = [];
    const close = () => {
      if (run.length > 1) {
        xs.push([...run.map(([x]) => x), ...run.map(([x]) => x).reverse()]);
        ys.push([...run.map(([, low]) => low), ...run.map(([, , high]) => high).reverse()]);
      }
      run = [];
    };
    if (this.#bars.step <= LONGEST_MOVE_STEP_MS) {
      let before = null;
      for (const bar of this.#bars.list) {
        const isKnown = typeof bar.expected === "number" && bar.close !== null;
        if (!isKnown || (before !== null && bar.time - before > silence)) close();
        if (isKnown) {
          const move = (bar.close * bar.expected) / 1e4;
          run.push([bar.time + horizon, bar.close - move, bar.close + move]);
          before = bar.time;
        }
      }
      close();
    }
    this.#model("move").data = { xs, ys };
  }

  #fillCandles() {
    const isOn = this.drawing === "candles";
    this.#model("line").visible = !isOn;
    this.#model("wicks").visible = isOn;
    this.#model("bodies").visible = isOn;
    const columns = { time: [], open: [], high: [], low: [], close: [], fill: [] };
    if (isOn) {
      const step = this.#candleStep();
      this.#model("body").width = 0.7 * step;
      for (const each of this.#bars.grouped(step)) {
        columns.time.push(each.time + step / 2);
        for (const name of ["open", "high", "low", "close"]) columns[name].push(each[name]);
        columns.fill.push(each.close >= each.open ? this.#colours.card : this.#colours.price); // hollow: it rose
      }
    }
    this.#model("candles").data = columns;
  }

  #candleStep() {
    const [start, end] = this.view;
    const wanted = (end - start) / CANDLES;
    return Math.max(this.#bars.step, STEPS.find((step) => step >= wanted) ?? DAY);
  }

  // Axes, labels and the description of what is in view.
  #scale() {
    const [start, end] = this.view;
    if (this.drawing === "candles" && !this.#stale.data) this.#fillCandles();
    let [low, high, most] = [Infinity, -Infinity, 0];
    const withMove = this.#bars.step <= LONGEST_MOVE_STEP_MS;
    const threshold = this.#market.last.threshold ?? this.#market.model.threshold ?? null;
    for (const bar of this.#bars.list) {
      if (bar.time < start - this.#bars.step || bar.time > end) continue;
      if (bar.low !== null) low = Math.min(low, bar.low);
      if (bar.high !== null) high = Math.max(high, bar.high);
      if (withMove && bar.expected) {
        low = Math.min(low, bar.close * (1 - bar.expected / 1e4));
        high = Math.max(high, bar.close * (1 + bar.expected / 1e4));
      }
      most = Math.max(most, bar.probability ?? 0);
    }
    const seen = low <= high;
    if (seen) {
      const margin = 0.06 * (high - low || Math.abs(high) * 1e-4 || 1);
      this.#model("price").setv({ start: low - margin, end: high + margin });
      const digits = Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(high - low + 2 * margin))));
      this.#model("price-numerals").format = `0,0${digits ? "." : ""}${"0".repeat(digits)}`;
    }
    if (threshold !== null && threshold <= 1) most = Math.max(most, threshold);
    this.#model("probability").setv({ start: 0, end: TOPS.find((top) => top >= 1.08 * most) ?? 1 });
    this.#labelTimes(start, end);
    const { chart, range, follow } = this.elements;
    const text = `${words.moment(start)} – ${words.moment(end)} ${words.zone()}`;
    if (range.textContent !== text) range.textContent = text;
    follow.hidden = this.#isFollowing;
    Object.assign(chart.dataset, { start: Math.round(start), end: Math.round(end), follows: this.#isFollowing });
    const most100 = words.probability(most);
    const label = seen
      ? `Chart of ${this.#market.product} from ${words.moment(start)} to ${words.moment(end)}: price from ${words.price(low)} to ${words.price(high)}, probability at most ${most100}.`
      : `Chart of ${this.#market.product}: no data from ${words.moment(start)} to ${words.moment(end)}.`;
    if (!this.#isFollowing || !chart.dataset.labelled || Date.now() - chart.dataset.labelled > 10_000) {
      chart.setAttribute("aria-label", label);
      chart.dataset.labelled = Date.now();
    }
  }

  // Round times of the selected zone, as many as fit.
  #labelTimes(start, end) {
    const width = this.#plots[0].frame.bbox.width || 600;
    const wanted = ((end - start) * LABEL_PX) / width;
    const step = STEPS.find((each) => each >= wanted) ?? 14 * DAY;
    const ticks = [];
    const labels = new Map();
    let time = start;
    for (let i = 0; i < 100; i += 1) {
      time = words.nextRound(time, step);
      if (time > end) break;
      ticks.push(time);
      const clock = words.clock(time);
      labels.set(time, clock === "00:00:00" ? words.day(time).slice(5) : clock.slice(0, step < 60_000 ? 8 : 5));
      time += 1;
    }
    this.#model("times").ticks = ticks;
    this.#model("time-axis").major_label_overrides = labels;
  }

  #recolour() {
    if (!this.#document) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.#colours = { card: colour("card"), price: colour("price") };
    for (const [name, properties] of Object.entries(COLOURS)) {
      const values = Object.entries(properties).map(([property, variable]) => [property, colour(variable)]);
      this.#model(name).setv(Object.fromEntries(values));
    }
    const font = { major_label_text_color: colour("quiet"), major_label_text_font: style.fontFamily, major_tick_line_color: colour("edge") };
    for (const name of ["price-axis", "probability-axis", "time-axis"]) this.#model(name).setv(font);
    for (const plot of this.#plots) for (const grid of plot.model.center) if (grid.type === "Grid") grid.grid_line_color = colour("grid");
    this.draw();
  }

  #point(event) {
    const plot = this.#plots[0];
    if (!plot) return;
    const x = event.clientX - plot.el.getBoundingClientRect().left;
    const { left, right } = plot.frame.bbox;
    this.#read(x < left || x > right ? null : plot.frame.x_scale.invert(x), { x, y: event.clientY - this.elements.chart.getBoundingClientRect().top });
  }

  // Shows the values at a time, and what happened then next to the pointer.
  #read(time, place = null) {
    this.#cursor = time;
    const { readout, tooltip } = this.elements;
    const bar = time === null ? null : this.#bars?.nearest(time);
    const here = bar && Math.abs(bar.time - time) <= Math.max(this.#market.silenceMs, 2 * this.#bars.step) ? bar : null;
    readout.textContent = time === null ? "\u00a0" : here ? this.#values(here) : `${words.day(time)} ${words.clock(time)} · no data`;
    const text = time === null ? "" : this.#events(time);
    tooltip.hidden = text === "";
    if (tooltip.textContent !== text) tooltip.textContent = text;
    if (place && text) {
      const width = this.elements.chart.clientWidth;
      tooltip.style.left = `${Math.min(place.x + 14, Math.max(0, width - 250))}px`;
      tooltip.style.top = `${Math.max(0, place.y - 20)}px`;
    }
    const isKey = time !== null && place === null;
    if (this.#document && (isKey || time === null)) this.#model("cursor").setv({ location: time, visible: time !== null });
  }

  #values(bar) {
    const time = `${words.day(bar.time)} ${words.clock(bar.time)}`;
    const isBar = this.#bars.step > SECOND;
    const price = isBar ? `O ${words.price(bar.open)} H ${words.price(bar.high)} L ${words.price(bar.low)} C ${words.price(bar.close)}` : words.price(bar.close);
    const threshold = bar.threshold === null || bar.threshold > 1 ? "" : ` (threshold ${words.probability(bar.threshold)})`;
    const move = typeof bar.expected === "number" ? ` · expected move ±${words.basisPoints(bar.expected)} bps` : "";
    return `${time} · ${price} · spread ${words.basisPoints(bar.spread)} bps · ${isBar ? "highest " : ""}probability ${words.probability(bar.probability)}${threshold}${move}`;
  }

  #events(time) {
    const found = [];
    const market = this.#market;
    for (const alert of market.alertsHere) {
      if (alert.opened <= time && time <= (alert.closed ?? market.last.time)) {
        const length = `${words.clock(alert.opened)} – ${alert.closed === null ? "now" : words.clock(alert.closed)}`;
        found.push([`Alert ${length}`, `peak ${words.probability(alert.peak_probability)}`, words.outcome(alert)].join(" · "));
      }
    }
    for (const [start, end, peak] of market.spikes) {
      if (start <= time && time <= end) found.push(`Spike ${words.clock(start)} – ${words.clock(end)}${peak ? ` · ${words.basisPoints(peak)} bps` : ""}`);
    }
    for (const { start, end, cause } of this.#bars?.gaps ?? []) if (start <= time && time <= end) found.push(`No data: ${cause.replaceAll("_", " ")}`);
    return found.join("\n");
  }

  #key(event) {
    if (!this.#document || !this.#market?.last || event.ctrlKey || event.metaKey || event.altKey) return;
    const [start, end] = this.view;
    const span = end - start;
    const pan = (share) => {
      this.#isFollowing = false;
      this.#move(start + share * span, end + share * span);
    };
    const zoom = (factor) => {
      const fixed = this.#cursor ?? (this.#isFollowing ? end : (start + end) / 2);
      if (this.#isFollowing) this.follow(Math.min(LONGEST_MS, Math.max(SHORTEST_MS, span * factor)));
      else this.#move(fixed - (fixed - start) * factor, fixed + (end - fixed) * factor);
    };
    const actions = {
      ArrowLeft: () => (event.shiftKey ? pan(-0.2) : this.#stepCursor(-1)),
      ArrowRight: () => (event.shiftKey ? pan(0.2) : this.#stepCursor(1)),
      PageUp: () => pan(-0.9),
      PageDown: () => pan(0.9),
      "+": () => zoom(0.5),
      "=": () => zoom(0.5),
      "-": () => zoom(2),
      Home: () => this.go((this.#bars.earliest ?? this.#bars.from ?? start) + span / 2),
      End: () => this.follow(),
      Escape: () => this.#read(null),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  #stepCursor(step) {
    const { list } = this.#bars;
    if (!list.length) return;
    const [start, end] = this.view;
    const bar = this.#cursor === null ? null : this.#bars.nearest(this.#cursor);
    const inView = list.findLast((each) => each.time <= end) ?? list.at(-1);
    const next = bar === null ? inView : list[Math.min(list.length - 1, Math.max(0, list.indexOf(bar) + step))];
    if (next.time < start || next.time > end) {
      this.#isFollowing = false;
      this.#move(next.time - (end - start) / 2, next.time + (end - start) / 2);
    }
    this.#read(next.time);
  }
}

function push(columns, time, bar) {
  columns.time.push(time);
  for (const name of ["close", "probability", "threshold"]) columns[name].push(bar[name] ?? Number.NaN);
  const threshold = columns.threshold;
  if (threshold.at(-1) > 1) threshold[threshold.length - 1] = Number.NaN; // no alerts
}

function bands(ranges) {
  return { start: ranges.map(([start]) => start), end: ranges.map(([, end]) => end) };
}
