// The page: the stream feeds the market, and the panels and the chart display it.

import { Alerts } from "./alerts.js";
import { Chart } from "./chart.js";
import { isNews, Market } from "./market.js";
import * as panels from "./panels.js";
import { load, store } from "./settings.js";
import { Stream } from "./stream.js";
import * as words from "./words.js";

const STALE_MS = 10_000; // the silence that the gap ledger records as a gap
const RESYNC_MS = 30_000; // minimum interval of new snapshots after lost updates

const parts = ["chart", "readout", "tooltip", "watermark", "range", "loading", "follow"];
const chart = new Chart(Object.fromEntries(parts.map((id) => [id, panels.byId(id)])));
const alerts = new Alerts(open);
let market = null;
let link = "wait";
let ticked = 0; // performance.now() of the newest tick
let lost = 0;
let resynced = -RESYNC_MS;
let resync = null; // timer

const handlers = {
  snapshot(data) {
    if (!stream.product && data.products.length > 1) {
      const wanted = productInAddress(); // which the server may have refused while it was not ready
      stream.open(data.products.includes(wanted) ? wanted : data.product); // one at a time: fifty would be too much for a phone
      return;
    }
    const known = market?.product === data.product ? new Map(market.alerts) : new Map();
    const changed = market?.product !== data.product;
    market = new Market(data);
    ticked = performance.now() - ageOf(market);
    lost = 0;
    if (!changed) for (const [name, alert] of market.alerts) if (isNews(known.get(name), alert)) announce(alert);
    panels.showProducts(market.products, market.product);
    panels.showModel(market.model);
    panels.showRecord(market);
    panels.showPerformance(market);
    panels.showHealth(market.health, market.source, lost);
    panels.showMarkets(market, open);
    alerts.show(market);
    chart.show(market);
    remember(market.product);
    if (going?.product === market.product) chart.ready.then(() => requestAnimationFrame(() => chart.go(going.time)));
    refresh();
  },
  tick(data) {
    const peak = market.openAlert?.peak_probability;
    if (!market.tick(data)) return;
    if (market.openAlert?.peak_probability !== peak) alerts.show(market);
    ticked = performance.now();
    chart.add(data);
    refresh();
  },
  alert(data) {
    const isNew = !market.alerts.has(`${data.product}/${data.id}`);
    if (market.alert(data)) announce(data);
    if (isNew && data.product === market.product) market.counts.alerts = (market.counts.alerts ?? 0) + 1;
    alerts.show(market);
    panels.showRecord(market);
    chart.draw();
    refresh();
  },
  spike(data) {
    market.spike(data);
    chart.draw();
  },
  health(data) {
    market.health = data;
    panels.showHealth(data, market.source, lost);
    alerts.showSnooze(market);
    settle();
  },
  performance(data) {
    if ((data.product ?? market.product) !== market.product) return;
    market.performance = data;
    panels.showRecord(market);
    panels.showPerformance(market);
  },
  explanation(data) {
    if (data.product !== market.product) return;
    market.explanation = data;
    panels.showExplanation(market);
  },
  markets(data) {
    market.markets = data.markets;
    panels.showMarkets(market, open);
  },
  snooze(data) {
    market.snoozes = data.snoozes;
    alerts.showSnooze(market);
  },
  lost(data) {
    lost = data.lost;
    resync ??= setTimeout(
      () => {
        resync = null;
        resynced = performance.now();
        stream.open(stream.product);
      },
      Math.max(0, resynced + RESYNC_MS - performance.now()),
    );
  },
};

const stream = new Stream(
  (name, data) => (market || name === "snapshot") && handlers[name](data),
  (state) => {
    if (state === link) return;
    link = state;
    settle();
  },
  (product) => {
    panels.write("unknown", `${product} is not served here; choose a market of the list.`);
    panels.byId("unknown").hidden = false;
  },
);

// The age of a snapshot's newest point, if the source is in real time.
function ageOf({ health, last }) {
  if (!last || !(health.last_received >= health.started)) return 0;
  const age = Date.now() - last.received;
  return age > STALE_MS ? age : 0;
}

let requested = false;

function refresh() {
  if (requested) return;
  requested = true;
  requestAnimationFrame(() => {
    requested = false;
    panels.showMode(market);
    panels.showNow(market.last, market.model);
    panels.showFeatures(market);
    panels.showMissing(market.warmUp);
    panels.showExplanation(market);
    settle();
  });
}

// Everything that depends on the age of the data.
function settle() {
  const age = performance.now() - ticked;
  const isEnded = link === "live" && market?.replay?.is_ended === true;
  const staleMs = !isEnded && market?.last && (link !== "live" || age > STALE_MS) ? age : null;
  document.body.toggleAttribute("data-stale", staleMs !== null);
  const mode = market?.mode ?? "live";
  const state = isEnded ? "ended" : link !== "live" ? link : staleMs !== null ? "stale" : mode;
  const now = market?.last ? ` · ${market.clock(market.last.time)}` : "";
  const texts = {
    wait: "Connecting…",
    live: "Live",
    simulated: "Simulated",
    replay: `Replay${now}`,
    "simulated replay": `Simulated replay${now}`,
    ended: "Replay ended",
    stale: market?.isReplay ? `Replay · silent for ${words.lasting(age)}` : `${words.lasting(age)} old`,
    lost: market?.last ? `Reconnecting… ${words.lasting(age)} old` : "Cannot connect, trying again…",
  };
  panels.byId("link").dataset.state = state;
  panels.write("link-text", texts[state]);
  if (!market) return;
  const verdict = panels.verdict(market, link, staleMs);
  panels.showVerdict(verdict);
  const price = `${words.price(market.last?.price)} ${market.product}`;
  document.title = `${verdict[0] === "alert" ? "ALERT · " : ""}${mode === "live" ? "" : `${words.label(mode)} · `}${isEnded ? "ended · " : ""}${price} · volspike`;
}

function announce(alert) {
  const label = words.label(market.mode);
  const mode = label && `${label[0]}${label.slice(1).toLowerCase()}. `;
  const text =
    alert.state === "open"
      ? `${mode}Alert: ${alert.product}, a spike is likely within ${words.lasting(1000 * (market.model.horizon_s ?? 60))}, probability ${words.probability(alert.peak_probability)}.`
      : `${mode}The alert for ${alert.product} has closed.`;
  panels.write("say", text);
  alerts.announce(alert, text);
}

let going = null; // { product, time } of an alert that is to be shown

// Shows a market, at a time of its past if one is given.
function open(product, time = null) {
  panels.byId("unknown").hidden = true;
  going = time === null ? null : { product, time };
  if (product !== market.product) {
    isOpened = true;
    stream.open(product);
  } else if (going) chart.go(time);
}

function productInAddress() {
  return new URL(location.href).searchParams.get("product");
}

let isOpened = false; // whether the user has opened another market

// The product is in the URL, so that the page can be shared and reloaded, and the browser can go back.
function remember(product) {
  const address = new URL(location.href);
  const isOther = productInAddress() !== product;
  address.searchParams.set("product", product);
  if (isOpened && isOther) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
  isOpened = false;
}

addEventListener("popstate", () => {
  going = null;
  const product = productInAddress();
  if (market && product && product !== market.product) stream.open(product);
});

function setZone(isLocal) {
  words.setLocal(isLocal);
  panels.write("zone", words.zone());
  chart.setZone();
  if (!market) return;
  alerts.show(market);
  panels.showModel(market.model);
  panels.showMarkets(market, open);
  panels.showHealth(market.health, market.source, lost);
  panels.showRecord(market);
}

panels.byId("product").addEventListener("change", (event) => open(event.target.value));
for (const input of document.querySelectorAll("input[name=span]")) {
  input.addEventListener("change", () => chart.ready.then(() => chart.follow(60_000 * Number(input.value))));
  input.addEventListener("click", () => chart.ready.then(() => chart.follow(60_000 * Number(input.value)))); // again
  if (input.checked) chart.ready.then(() => chart.follow(60_000 * Number(input.value)));
}
for (const input of document.querySelectorAll("input[name=drawing]")) {
  input.addEventListener("change", () => chart.setDrawing(input.value));
  if (input.checked) chart.setDrawing(input.value);
}
const localTime = panels.byId("local-time");
localTime.checked = load("local-time") === "yes";
localTime.addEventListener("change", () => {
  store("local-time", localTime.checked ? "yes" : "no");
  setZone(localTime.checked);
});
setZone(localTime.checked);
setInterval(settle, 1_000);
stream.open(productInAddress());
