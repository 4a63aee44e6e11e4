// The text panels of the page; each function updates only what changed.

import * as words from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const OWN_TIME_MS = 60_000;
const LOW_DISK_BYTES = 2e9;
const NOT_ENOUGH = "not enough yet";
const FAR = 2; // deviations
const EWMA = "EWMA is an exponentially weighted moving average of volatility.";
const BASELINES = {
  persistence: "Persistence predicts the volatility of the last minute.",
  ewma: EWMA,
  ewma_10: EWMA,
  ewma_30: EWMA,
  ewma_60: EWMA,
  ewma_300: EWMA,
  har: "HAR is a weighted mean of volatilities from half a minute to an hour.",
  garch: "GARCH is the mean variance of the next minute from past squared returns.",
  seasonal: "Seasonal predicts from the time of day only.",
  baseline: "The baseline is the mean of standardised features.",
};

export const byId = (id) => document.getElementById(id);

export function write(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

export function made(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function drawn(tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

// [name, text, state?] → dl. The elements are kept, so that a selection or a screen reader's place is not lost.
function facts(id, rows) {
  const list = byId(id);
  if (list.children.length !== 2 * rows.length) list.replaceChildren(...rows.flatMap(() => [made("dt", ""), made("dd", "")]));
  rows.forEach(([name, text, state = ""], i) => {
    const [term, value] = [list.children[2 * i], list.children[2 * i + 1]];
    if (term.textContent !== name) term.textContent = name;
    if (value.textContent !== text) value.textContent = text;
    value.dataset.state = state;
  });
}

export function showProducts(products, product) {
  const select = byId("product");
  if ([...select.options].map((option) => option.value).join() !== products.join()) {
    const hasVenues = products.some((name) => name.includes(":")); // a product without a venue is Coinbase's
    const label = (name) => (hasVenues && !name.includes(":") ? `coinbase:${name}` : name);
    select.replaceChildren(...products.map((name) => made("option", label(name), { value: name })));
  }
  select.value = product;
}

const STATES = { calm: "volatility calm", elevated: "volatility elevated", high: "volatility high" };
const ADAPTIVE = /^(jump|level)/;

export function showNow(tick, model) {
  write("price", words.price(tick?.price));
  write("bid", words.price(tick?.best_bid));
  write("ask", words.price(tick?.best_ask));
  write("spread-bps", words.basisPoints(tick?.spread_bps));
  write("spread", words.quantity(tick?.spread));
  write("probability", words.probability(tick?.probability));
  const threshold = tick?.threshold ?? model.threshold;
  const uncalibrated = tick?.is_calibrated === false ? "UNCALIBRATED · " : "";
  write("threshold", `${uncalibrated}${threshold > 1 ? "no alerts" : `alert threshold ${words.probability(threshold)}`}`);
  for (const place of document.querySelectorAll(".horizon")) place.textContent = words.lasting(1000 * (model.horizon_s ?? 60));
  const others = Object.entries(tick?.horizons ?? {}).map(([seconds, chance]) => `${words.lasting(1000 * seconds)} ${words.probability(chance)}`);
  byId("horizons").hidden = others.length === 0;
  write("horizons", others.join(" · "));
  write("expected", words.basisPoints(tick?.expected_volatility_bp));
  const band = `10–90 %: ${words.basisPoints(tick?.volatility_low_bp)} to ${words.basisPoints(tick?.volatility_high_bp)}`;
  write("band", typeof tick?.expected_volatility_bp === "number" ? [band, STATES[tick.state]].filter(Boolean).join(" · ") : words.UNKNOWN);
  const percent = (value) => `${100 * Math.min(1, Math.max(0, value ?? 0))}%`;
  byId("meter-fill").style.width = percent(tick?.probability);
  byId("meter-mark").style.left = percent(threshold);
}

// The current state; the most severe condition wins.
export function verdict(market, link, staleMs) {
  const tick = market.last;
  if (!tick) return ["wait", "Waiting for data", "no data received yet"];
  if (staleMs !== null) return ["stale", link === "live" ? "Stale" : "Not connected", `last update ${words.lasting(staleMs)} ago`];
  if (market.replay?.is_ended) return ["wait", "Replay ended", `the tape ends at ${market.clock(market.replay.now)}`];
  const alert = market.openAlert;
  if (alert) return ["alert", "ALERT", `since ${market.clock(alert.opened)}, peak ${words.probability(alert.peak_probability)}`];
  if (tick.probability === null) {
    const seconds = market.warmUp?.seconds;
    const first = market.warmUp?.missing?.[0];
    const more = first ? `no probability yet; ${inputs(first)}: ${first.reason}` : "no probability yet";
    if (tick.is_warm) return ["unsure", "No probability", more];
    return ["unsure", typeof seconds === "number" ? `Warming up (${seconds} s)` : "Warming up", more];
  }
  if (!tick.is_whole) return ["unsure", "Data loss", "messages are missing in the feature windows"];
  const threshold = tick.threshold ?? market.model.threshold;
  if (tick.probability >= threshold) return ["unsure", "Above the threshold", "no alert is open"];
  return ["quiet", "No alert", "below the alert threshold"];
}

// Missing inputs of the model: one by its name, several by their number.
function inputs({ inputs: names }) {
  return names.length === 1 ? words.feature(names[0]).filter(Boolean).join(" ") : `${names.length} inputs`;
}

// What the model still waits for, under the table of its features.
export function showMissing(warmUp) {
  const missing = warmUp?.missing ?? [];
  byId("missing").hidden = missing.length === 0;
  byId("missing").replaceChildren(
    ...missing.map((each) => {
      const left = typeof each.seconds === "number" ? `, ${words.lasting(1000 * each.seconds)} left` : "";
      const item = made("li", `${inputs(each)} without a value: ${each.reason}${left}`);
      item.title = each.inputs.join(", ");
      return item;
    }),
  );
}

export function showVerdict([state, text, more]) {
  write("verdict", text);
  write("verdict-more", more);
  byId("verdict").dataset.state = state;
  byId("now").toggleAttribute("data-alert", state === "alert");
}

export function showFeatures(market) {
  const features = Object.entries(market.last?.features ?? {});
  const body = byId("features");
  const names = features.map(([name]) => name).join();
  if (body.dataset.names !== names) {
    body.dataset.names = names;
    body.replaceChildren(...features.map(([name]) => featureRow(name)));
  }
  features.forEach(([name, value], i) => {
    const row = body.children[i];
    const far = market.departure(name);
    row.toggleAttribute("data-far", Math.abs(far) > FAR);
    const mark = far > FAR ? "▲ " : far < -FAR ? "▼ " : "";
    row.lastChild.textContent = mark + words.quantity(value);
    row.querySelector("polyline").setAttribute("points", sparkline(market.history.get(name) ?? []));
  });
}

function featureRow(name) {
  const [family, window] = words.feature(name);
  const head = made("th", `${family} `, { scope: "row", title: name });
  head.append(made("small", window));
  const trend = made("td", "");
  trend.append(sparkPicture());
  const row = made("tr", "");
  row.append(head, trend, made("td", words.UNKNOWN, { class: "number" }));
  return row;
}

function sparkPicture() {
  const picture = drawn("svg", { class: "spark", viewBox: "0 0 100 22", preserveAspectRatio: "none", "aria-hidden": "true" });
  picture.append(drawn("polyline", { points: "" }));
  return picture;
}

function sparkline(values) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return "";
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const y = (value) => (high > low ? 20 - (18 * (value - low)) / (high - low) : 11);
  const points = values.map((value, i) => [value, (100 * i) / (values.length - 1)]).filter(([value]) => value !== null);
  return points.map(([value, x]) => `${x.toFixed(1)},${y(value).toFixed(1)}`).join(" ");
}

export function showModel(model) {
  const ours = model.metrics?.model ?? {};
  const name = model.baseline ?? "persistence";
  const baseline = model.metrics?.[name] ?? {};
  write("model-name", [model.name, model.version].filter(Boolean).join(" · ") || "No model");
  byId("figures").replaceChildren(intervals(ours, baseline, name, model.has_evidence === false ? "NO EVIDENCE" : "out of sample"));
  byId("limitations").hidden = !(model.limitations ?? []).length;
  byId("limitations").replaceChildren(...(model.limitations ?? []).map((limitation) => made("li", limitation)));
  write("model-verdict", model.has_evidence === false ? "NO EVIDENCE: these figures are not out of sample." : name === model.name ? `This model is the best baseline itself. ${BASELINES[name] ?? ""}` : comparison(ours, name));
  facts("model", [
    ...(model.simulated ? [["Training data", "a SIMULATED market", "unsure"]] : []),
    ["Alert threshold", `${words.probability(model.threshold)}${model.threshold_name ? ` (${model.threshold_name})` : ""}`],
    ["A spike is", model.spike_text ?? words.UNKNOWN],
    model.is_product_in_training ? ["This product", "in the training data"] : ["This product", "not in the training data", "unsure"],
    ...(model.learns ? [["Calibration", "continued on this product's own outcomes"]] : []),
    [ADAPTIVE.test(model.spike ?? "") ? "τ in training" : "τ (1 s returns)", words.quantity(model.tau)],
    ...(name === model.name ? [] : headline(model.metrics ?? {}, name)),
    ["Rows", [model.profile, model.every].filter(Boolean).join(", every ") || words.UNKNOWN],
    ["Split", model.split_method || words.UNKNOWN, model.has_evidence === false ? "unsure" : ""],
    ["Venues in training", (model.venues ?? []).join(", ") || "not stated"],
    ["Trained until", words.moment(instant(model.trained_until))],
  ]);
}

// The ms of a time that is a number or a text.
const instant = (time) => (typeof time === "string" ? Date.parse(time) : time);

// What a warning is worth: the ranking of rows whose last minute was no spike, and the onsets caught within a budget.
function headline({ calm, minutes_30_per_day: budget }, baseline) {
  const rows = [];
  if (typeof calm?.ratio === "number") {
    const between = typeof calm.ratio_low === "number" ? ` (${calm.ratio_low.toFixed(2)} to ${calm.ratio_high.toFixed(2)})` : "";
    rows.push(["PR-AUC in calm rows", `×${calm.ratio.toFixed(2)} of ${baseline}${between}`]);
  }
  if (typeof budget?.recall_model === "number") {
    const theirs = typeof budget.recall_baseline === "number" ? `; ${baseline} ${words.probability(budget.recall_baseline)}` : "";
    rows.push(["Onsets caught, 30 min alarm/day", `${words.probability(budget.recall_model)}${theirs}`]);
  }
  return rows;
}

// Two confidence intervals on one axis, to see whether they overlap.
function intervals(ours, baseline, baselineName, evidence) {
  const maximum = Math.max(0.2, ...[ours, baseline].flatMap((each) => [each.pr_auc ?? 0, each.pr_auc_high ?? 0]));
  const x = (value) => 4 + (312 * value) / Math.min(1, maximum * 1.1);
  const label = `PR-AUC ${evidence}: model ${spoken(ours)}, ${baselineName} ${spoken(baseline)}`;
  const picture = drawn("svg", { viewBox: "0 0 320 104", role: "img", "aria-label": label });
  [["Model", ours, "model", 14], [baselineName, baseline, "baseline", 58]].forEach(([name, each, kind, y]) => {
    picture.append(drawn("text", { x: 4, y }, name));
    picture.append(drawn("text", { x: 316, y, "text-anchor": "end" }, spoken(each)));
    picture.append(drawn("line", { x1: 4, x2: 316, y1: y + 16, y2: y + 16, class: "axis" }));
    if (typeof each.pr_auc !== "number") return;
    const [low, high] = [each.pr_auc_low ?? each.pr_auc, each.pr_auc_high ?? each.pr_auc];
    picture.append(drawn("line", { x1: x(low), x2: x(high), y1: y + 16, y2: y + 16, class: kind, "stroke-width": 4, "stroke-linecap": "round" }));
    picture.append(drawn("circle", { cx: x(each.pr_auc), cy: y + 16, r: 6, class: kind }));
  });
  if (typeof ours.base_rate === "number") {
    const at = x(ours.base_rate);
    picture.append(drawn("line", { x1: at, x2: at, y1: 20, y2: 86, class: "base" }));
    picture.append(drawn("text", { x: Math.min(at, 240), y: 99, class: "quiet" }, `base rate ${ours.base_rate.toFixed(2)}`));
  }
  return picture;
}

function spoken(figures) {
  if (typeof figures.pr_auc !== "number") return "PR-AUC not known";
  const between = typeof figures.pr_auc_low === "number" ? ` (${figures.pr_auc_low.toFixed(2)} to ${figures.pr_auc_high.toFixed(2)})` : "";
  return `${figures.pr_auc.toFixed(3)}${between}`;
}

function comparison({ pr_auc_gain: gain, pr_auc_gain_low: low, pr_auc_gain_high: high, spike_events: events }, baseline) {
  const about = BASELINES[baseline] ?? "";
  if (typeof events === "number" && events < 5) return `PR-AUC out of sample: ${events} spike event${events === 1 ? "" : "s"}, too few to compare it with ${baseline}.`;
  if (![gain, low, high].every((value) => typeof value === "number")) return `Out of sample, 95 % intervals. ${about}`;
  const figures = `${signed(gain)}, ${signed(low)} to ${signed(high)}`;
  if (low > 0) return `PR-AUC out of sample: better than ${baseline} (${figures}). ${about}`;
  if (high < 0) return `PR-AUC out of sample: worse than ${baseline} (${figures}). ${about}`;
  return `PR-AUC out of sample: not shown to be better than ${baseline} (${figures}). ${about}`;
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

// What alerts and spikes were so far, in the terms of a user; metrics of single rows are in the diagnostics.
export function showRecord(market) {
  const { performance: figures, isReplay } = market;
  byId("performance-note").hidden = !isReplay;
  const alerts = [...market.alerts.values()].filter((alert) => alert.product === market.product);
  const hits = alerts.filter((alert) => alert.outcome === "hit");
  const misses = alerts.filter((alert) => alert.outcome === "false");
  const known = hits.length + misses.length;
  const leads = hits.map((alert) => alert.lead_s).filter((lead) => typeof lead === "number" && lead > 0).sort((a, b) => a - b);
  const total = Math.max(market.counts.alerts ?? 0, alerts.length);
  const one = (text, isKnown) => (isKnown ? [text] : [NOT_ENOUGH, "none"]);
  facts("record", [
    ["Alerts", words.count(total)],
    ["Followed by a spike", ...one(`${words.count(hits.length)} of ${words.count(known)}`, known > 0)],
    ["False alarms", ...one(`${words.count(misses.length)} of ${words.count(known)}`, known > 0)],
    ["Warning time, median", ...one(words.lasting(1000 * leads[leads.length >> 1]), leads.length > 0)],
    ["Time within a minute of a spike, 24 h", ...one(words.probability(figures.base_rate), typeof figures.base_rate === "number")],
    ["Alerts since", words.moment(Math.min(...alerts.map((alert) => alert.opened), market.health.started ?? Infinity))],
  ]);
}

export function showPerformance(market) {
  const { performance: figures, isReplay } = market;
  byId("performance").hidden = isReplay;
  const row = (name, value, say) => (typeof value === "number" ? [name, say(value)] : [name, NOT_ENOUGH, "none"]);
  const three = (value) => value.toFixed(3);
  facts("performance", [
    row("Precision", figures.precision, words.probability),
    row("Recall", figures.recall, words.probability),
    row("Brier score", figures.brier, three),
    row("PR-AUC", figures.pr_auc, three),
    row("Rows with outcome", figures.rows, words.count),
    row("Rows above the threshold", figures.alert_rows, words.count),
  ]);
}

// U+2060 and a no-break space keep it on one line
const percents = (bin) => `${words.quantity(100 * bin.low)}–\u2060${words.quantity(100 * bin.high)}\u00a0%`;

function followed(bin) {
  const scored = `scored ${percents(bin)}`;
  if (bin.minutes === 0) return `No minute ${scored} has a known outcome yet.`;
  if (bin.minutes === 1) return `The only minute ${scored} so far had ${bin.spikes ? "a spike" : "no spike"}.`;
  return `Of the last ${words.count(bin.minutes)} minutes ${scored}, ${words.count(bin.spikes)} had a spike.`;
}

// What followed when the model stated such a probability before.
export function showExplanation(market) {
  const bins = market.explanation?.bins ?? [];
  const chance = market.last?.probability;
  const bin = typeof chance === "number" ? bins.find((each) => each.low <= chance && (chance < each.high || each.high === 1)) : undefined;
  write("explanation", bin ? followed(bin) : "");
  const shown = bins.filter((each) => each.minutes > 0);
  const rows = byId("bins");
  const key = JSON.stringify(shown);
  if (rows.dataset.key === key) return;
  rows.dataset.key = key;
  rows.replaceChildren(
    ...shown.map((each) => {
      const row = made("tr", "");
      const share = `${words.count(each.spikes)} (${words.probability(each.spikes / each.minutes)})`;
      row.append(made("th", percents(each), { scope: "row" }), made("td", words.count(each.minutes), { class: "number" }), made("td", share, { class: "number" }));
      return row;
    }),
  );
}

const MARKET_STATES = {
  alert: "ALERT",
  above: "Above the threshold",
  calm: "No alert",
  warming_up: "Warming up",
  data_loss: "Data loss",
  stale: "Stale",
  no_data: "No data",
};

// One row for each market; the elements are kept, so that focus and selection are not lost.
export function showMarkets(market, onOpen) {
  const { markets } = market;
  byId("overview").hidden = markets.length < 2;
  if (markets.length < 2) return;
  const body = byId("markets");
  const names = markets.map((each) => each.product).join();
  if (body.dataset.names !== names) {
    body.dataset.names = names;
    body.replaceChildren(...markets.map((each) => marketRow(each, onOpen)));
  }
  markets.forEach((each, i) => {
    const row = body.children[i];
    const isShown = each.product === market.product;
    row.toggleAttribute("data-shown", isShown);
    row.dataset.state = each.state;
    const [, , price, change, chance, state, data] = row.children;
    if (isShown) row.querySelector("a").setAttribute("aria-current", "true");
    else row.querySelector("a").removeAttribute("aria-current");
    price.textContent = words.price(each.price);
    change.textContent = typeof each.change_pct === "number" ? `${each.change_pct < 0 ? "−" : "+"}${Math.abs(each.change_pct).toFixed(2)} %` : words.UNKNOWN;
    chance.textContent = words.probability(each.probability);
    const until = typeof each.snoozed_until === "number" ? ` · snoozed until ${words.clock(each.snoozed_until).slice(0, 5)}` : "";
    const uncalibrated = each.is_calibrated === false && each.probability !== null ? " · uncalibrated" : "";
    state.textContent = `${MARKET_STATES[each.state] ?? each.state}${uncalibrated}${until}`;
    data.textContent = each.gaps ? `${words.count(each.gaps)} gap${each.gaps === 1 ? "" : "s"} in 1 h` : "complete";
    row.querySelector("polyline").setAttribute("points", sparkline(each.spark ?? []));
  });
}

function marketRow({ product }, onOpen) {
  const head = made("th", "", { scope: "row" });
  const link = made("a", product, { href: `?${new URLSearchParams({ product })}` });
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab
    event.preventDefault();
    onOpen(product);
  });
  head.append(link);
  const trend = made("td", "");
  trend.append(sparkPicture());
  const row = made("tr", "");
  const cells = ["number", "number", "number", "", ""].map((name) => made("td", words.UNKNOWN, { class: name }));
  row.append(head, trend, ...cells);
  return row;
}

// The label of the mode, its meaning, and whether the model knows the displayed data already.
export function showMode(market) {
  const label = words.label(market.mode);
  byId("mode").hidden = label === "";
  byId("mode").dataset.mode = market.mode;
  write("mode-label", label);
  const day = market.isReplay && market.last ? ` of ${words.day(market.last.time)}` : "";
  const texts = { simulated: "This market is simulated. ", replay: `A recorded tape${day}. `, "simulated replay": `A recorded tape${day} of a simulated market. ` };
  write("mode-more", texts[market.mode] ?? "");
  write("mode-text", market.simulated ? "No price here is real." : "No price here is current.");
  const known = market.last?.is_in_sample === true;
  byId("in-sample").hidden = !known;
  if (known) {
    const [from, until] = [market.model.trained_from, market.model.trained_until].map((time) => words.day(instant(time)));
    write("in-sample-more", `The model's own data (${from} to ${until}) includes this market and time. `);
  }
}

export function showHealth(health, source, lost) {
  const { replay } = health;
  const pair = (both, digits) => (both ? `${words.fixed(both.p50, digits)} / ${words.fixed(both.p99, digits)}` : words.UNKNOWN);
  // a tape, or a simulated market at another speed, is not in real time
  const hasOwnTime = Math.abs(health.latency_ms?.p50 ?? 0) > OWN_TIME_MS;
  const latency = hasOwnTime || replay ? "none: not in real time" : `${pair(health.latency_ms, 1)} ms`;
  const bad = (value) => (value > 0 ? "bad" : "");
  const recording = health.recorder_fault ? [`no: ${health.recorder_fault}`, "bad"] : health.is_recording ? ["yes", "good"] : ["no", "none"];
  const sessions = health.sessions?.length > 1 ? health.sessions : [health];
  const exchanges = sessions.map((session) => [
    session.feed ? `Exchange ${session.feed}` : "Exchange",
    session.is_connected ? "connected" : `not connected${session.reason ? `: ${session.reason}` : ""}`,
    session.is_connected ? "good" : "bad",
  ]);
  facts("health", [
    ...(replay ? progress(replay) : exchanges),
    ["Source", health.source ?? source ?? words.UNKNOWN],
    ...(health.refused_products?.length ? [["Refused by the exchange", health.refused_products.join(", "), "bad"]] : []),
    ["Recording", ...recording],
    ...(health.disk_free_bytes == null ? [] : [["Free disk space", `${words.fixed(health.disk_free_bytes / 1e9, 1)} GB`, health.disk_free_bytes < LOW_DISK_BYTES ? "bad" : ""]]),
    ...(health.outcomes_fault ? [["Predictions not stored", health.outcomes_fault, "bad"]] : []),
    ["Latency p50 / p99", latency],
    ["Tick to score p50 / p99", `${pair(health.score_us, 0)} µs`],
    ["Gaps", words.count(health.gaps), bad(health.gaps)],
    ...(health.unverifiable?.length ? [["Losses cannot be noticed", health.unverifiable.join(", "), "none"]] : []),
    ["Reconnections", words.count(health.reconnects)],
    ["Malformed frames", words.count(health.malformed), bad(health.malformed)],
    ["Frames", words.count(health.frames)],
    ["Ticks", words.count(health.ticks)],
    ["Last frame", replay ? words.moment(health.last_received) : words.clock(health.last_received)],
    ["Running since", words.moment(health.started)],
    ...(lost ? [["Updates lost by this page", words.count(lost), "bad"]] : []),
  ]);
}

function progress(replay) {
  const share = `${(100 * replay.fraction).toFixed(0)} %`;
  const skipped = replay.skipped_s ? `, ${words.lasting(1000 * replay.skipped_s)} between them skipped` : "";
  return [
    ["Replay", replay.is_ended ? "ended" : `${share} read, ${replay.speed ? `speed ×${words.quantity(replay.speed)}` : "without a pace"}`],
    ["Tape from", words.moment(replay.start)],
    ["Tape time", words.moment(replay.now)],
    ["Sessions", `${words.count(replay.sessions)}${skipped}`],
  ];
}
