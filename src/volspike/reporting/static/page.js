// The charts of a page: Bokeh draws and pans; this sets their colours and fills the timeline with the day selected.

"use strict";

const SHORTEST_VIEW_MS = 30_000;
const AROUND_MS = 600_000; // shown before and after an alert
const SILENCE_MS = 60_000; // breaks a line
const MOST_POINTS = 3_000; // drawn; more rows are drawn as the highest and lowest of each of so many groups

const json = (id) => JSON.parse(document.getElementById(id).textContent);

// A tag "property=variable" of a model sets one of its colours to a variable of the style sheet.
function setColours() {
  const style = getComputedStyle(document.documentElement);
  for (const opened of Bokeh.documents) {
    for (const model of opened.all_models) {
      const changes = {};
      for (const tag of model.tags) {
        const [property, variable] = tag.split("=");
        changes[property] = style.getPropertyValue(`--${variable}`).trim();
      }
      if (model.tags.length) model.setv(changes);
    }
  }
}

// Bokeh's tooltips are white and as wide as their text, which a phone is not.
const TOOLTIP = `:host { --background-color: var(--card); --tooltip-color: var(--card); --tooltip-text: var(--ink); --tooltip-border: var(--quiet);
  --tooltip-arrow-color: var(--card); max-width: min(24rem, 42vw); white-space: normal; overflow-wrap: normal; color: var(--ink); background: var(--card); }
  .bk-tooltip-row-label { color: var(--quiet); white-space: nowrap; }`;

function styleTooltips(view) {
  for (const tool of view.tool_views?.values() ?? []) {
    for (const tooltip of tool.ttmodels?.values() ?? []) tooltip.stylesheets = [TOOLTIP];
  }
}

const ARRAYS = { at: Uint32Array, low: Float64Array, high: Float64Array, close: Float64Array, probability: Float32Array, threshold: Float32Array };

function decode(name, text) {
  return new ARRAYS[name](Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

class Timeline {
  constructor(opened, days) {
    this.days = days;
    this.model = (name) => opened.get_model_by_name(name);
    this.time = this.model("time");
    this.element = document.getElementById("timeline");
    this.requested = false;
    for (const side of [this.time.properties.start, this.time.properties.end]) side.change.connect(() => this.request());
    const select = document.getElementById("day");
    select.addEventListener("change", () => this.show(Number(select.value)));
    for (const button of document.querySelectorAll("[data-move]")) {
      button.addEventListener("click", () => this.move(button.dataset.move));
    }
    this.show(Number(select.value));
  }

  show(number) {
    this.day = this.days[number];
    this.rows ??= {};
    this.columns = this.rows[number] ??= Object.fromEntries(Object.keys(ARRAYS).filter((name) => this.day.columns[name]).map((name) => [name, decode(name, this.day.columns[name])]));
    for (const name of ["alerts", "spikes", "missing"]) this.model(name).data = this.day[name];
    this.time.setv({ bounds: [this.day.start, this.day.end], max_interval: this.day.end - this.day.start });
    this.time.setv(this.evaluated());
    document.getElementById("day-note").textContent = this.day.note;
    this.alert = -1;
    this.request();
  }

  // The part of the day that was evaluated, with a margin; the complete day if it is most of it, or empty.
  evaluated() {
    const { start, end } = this.day;
    const { at, probability } = this.columns;
    const first = probability.findIndex((value) => !Number.isNaN(value));
    const last = probability.findLastIndex((value) => !Number.isNaN(value));
    const length = first < 0 ? 0 : at[last] - at[first];
    if (length === 0 || length > (end - start) / 2) return { start, end };
    const margin = Math.max(SHORTEST_VIEW_MS, length / 20);
    return { start: Math.max(start, start + at[first] - margin), end: Math.min(end, start + at[last] + margin) };
  }

  // The texts of the events around each of some times in order.
  events(times) {
    const texts = times.map(() => []);
    for (const name of ["alerts", "spikes", "missing"]) {
      const { start, end, text } = this.day[name];
      for (let i = 0; i < text.length; i++) {
        for (let j = lowerBound(times, start[i]); j < times.length && times[j] <= end[i]; j++) texts[j].push(text[i]);
      }
    }
    return texts.map((found) => found.join("; ") || "–");
  }

  move(to) {
    let { start, end } = this.time;
    const span = end - start;
    if (to === "day") [start, end] = [this.day.start, this.day.end];
    if (to === "in") [start, end] = [start + span / 4, end - span / 4];
    if (to === "out") [start, end] = [start - span / 2, end + span / 2];
    if (to === "earlier") [start, end] = [start - span / 2, end - span / 2];
    if (to === "later") [start, end] = [start + span / 2, end + span / 2];
    const { start: opened, end: closed } = this.day.alerts;
    if ((to === "next" || to === "previous") && opened.length) {
      const step = to === "next" ? 1 : -1;
      this.alert = this.alert < 0 && step < 0 ? opened.length - 1 : (this.alert + step + opened.length) % opened.length;
      [start, end] = [opened[this.alert] - AROUND_MS, closed[this.alert] + AROUND_MS];
    }
    const length = Math.min(this.day.end - this.day.start, Math.max(SHORTEST_VIEW_MS, end - start));
    start = Math.max(this.day.start, Math.min(this.day.end - length, (start + end - length) / 2));
    this.time.setv({ start, end: start + length });
  }

  request() {
    if (this.requested) return;
    this.requested = true;
    requestAnimationFrame(() => {
      this.requested = false;
      this.draw();
    });
  }

  // Fills the lines with the rows in view, and scales both axes to them.
  draw() {
    const { at, close, probability, threshold } = this.columns;
    const { low = close, high = close } = this.columns;
    const { start, end } = this.time;
    let first = lowerBound(at, start - this.day.start);
    let last = lowerBound(at, end - this.day.start);
    first = Math.max(0, first - 1);
    last = Math.min(at.length, last + 1);
    const size = Math.max(1, Math.ceil((2 * (last - first)) / MOST_POINTS));
    const shown = { time: [], price: [], probability: [], threshold: [] };
    const push = (time, price, chance, limit) => {
      shown.time.push(time);
      shown.price.push(price);
      shown.probability.push(chance);
      shown.threshold.push(limit);
    };
    let [bottom, top, most] = [Infinity, -Infinity, 0];
    let stop = first;
    for (let i = first; i < last; i = stop) {
      let [least, largest, chance] = [i, i, NaN];
      if (i > first && at[i] - at[i - 1] > SILENCE_MS) push(this.day.start + at[i - 1] + 1, NaN, NaN, NaN);
      for (stop = i; stop < Math.min(last, i + size); stop++) {
        if (stop > i && at[stop] - at[stop - 1] > SILENCE_MS) break; // a group is on one side of a silence
        if (low[stop] < low[least] || Number.isNaN(low[least])) least = stop;
        if (high[stop] > high[largest] || Number.isNaN(high[largest])) largest = stop;
        if (!(chance >= probability[stop]) && !Number.isNaN(probability[stop])) chance = probability[stop];
      }
      const limit = threshold[stop - 1];
      const isSingle = low[least] === high[largest];
      if (isSingle) push(this.day.start + at[i], low[least], chance, limit);
      else if (least <= largest) {
        push(this.day.start + at[least], low[least], chance, limit);
        push(this.day.start + at[largest], high[largest], chance, limit);
      } else {
        push(this.day.start + at[largest], high[largest], chance, limit);
        push(this.day.start + at[least], low[least], chance, limit);
      }
      bottom = Math.min(bottom, Number.isNaN(low[least]) ? Infinity : low[least]);
      top = Math.max(top, Number.isNaN(high[largest]) ? -Infinity : high[largest]);
      most = Math.max(most, chance || 0, limit || 0);
    }
    shown.event = this.events(shown.time);
    this.model("bars").data = shown;
    if (bottom <= top) {
      const margin = 0.06 * (top - bottom || Math.abs(top) * 1e-4 || 1);
      this.model("price").setv({ start: bottom - margin, end: top + margin });
    }
    this.model("probability").setv({ start: 0, end: Math.min(1.02, 1.08 * most || 1) });
    Object.assign(this.element.dataset, { start: Math.round(start), end: Math.round(end), rows: last - first, points: shown.time.length });
  }
}

function lowerBound(sorted, value) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

async function start() {
  for (const { id, item } of json("charts")) {
    const target = document.getElementById(id);
    const views = await Bokeh.embed.embed_item(item, target);
    for (const view of [...views].flatMap((each) => [each, ...(each.child_views ?? [])])) {
      const events = view.canvas_view?.shadow_el.querySelector(".bk-events");
      if (events) events.style.touchAction = "pan-y"; // a finger still scrolls the page
      styleTooltips(view);
    }
    if (id === "timeline") new Timeline(Bokeh.documents.at(-1), json("days"));
  }
  setColours();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", setColours);
  document.documentElement.dataset.drawn = "true";
}

start();
