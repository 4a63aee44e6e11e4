// Numbers and times as text. An unknown value is an en dash, never 0.

export const UNKNOWN = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

export function fixed(value, digits) {
  return known(value) ? value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : UNKNOWN;
}

// A price with about seven significant digits: 64,123.45 or 0.00001234.
export function price(value) {
  if (!known(value)) return UNKNOWN;
  const size = Math.abs(value);
  return fixed(value, size >= 100 ? 2 : size >= 1 ? 4 : 8);
}

// Any quantity in four significant digits.
export function quantity(value) {
  if (!known(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace("e", " e").replace("e+", "e");
  return value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

// Two decimals, or two significant digits for very tight spreads: 1.25, 0.0044
export function basisPoints(value) {
  const isTiny = known(value) && value !== 0 && Math.abs(value) < 0.095;
  return isTiny ? value.toLocaleString("en-US", { maximumSignificantDigits: 2 }) : fixed(value, 2);
}

export function count(value) {
  return known(value) ? Math.round(value).toLocaleString("en-US") : UNKNOWN;
}

export function probability(value) {
  return known(value) ? `${(100 * value).toFixed(1)} %` : UNKNOWN;
}

let isLocal = false;

// Shows times in the browser's zone, or in UTC.
export function setLocal(value) {
  isLocal = value;
}

// What a selected zone adds to UTC at a time, in ms.
export function offset(ms) {
  return isLocal ? -60_000 * new Date(ms).getTimezoneOffset() : 0;
}

// The first time from ms on whose clock in the selected zone shows a multiple of step, also across a change of the clock.
export function nextRound(ms, step) {
  const local = Math.ceil((ms + offset(ms)) / step) * step;
  const time = local - offset(ms);
  if ((time + offset(time)) % step === 0) return time;
  const moved = local - offset(time); // the clock changes in between
  return moved + offset(moved) === local ? moved : time;
}

export function zone() {
  return isLocal ? Intl.DateTimeFormat().resolvedOptions().timeZone : "UTC";
}

const iso = (ms) => new Date(ms + offset(ms)).toISOString();

export function clock(ms) {
  return known(ms) ? iso(ms).slice(11, 19) : UNKNOWN;
}

// The day of a time, as 2025-12-06.
export function day(ms) {
  return known(ms) ? iso(ms).slice(0, 10) : UNKNOWN;
}

export function moment(ms) {
  return known(ms) ? iso(ms).slice(0, 16).replace("T", " ") : UNKNOWN;
}

export function lasting(ms) {
  if (!known(ms)) return UNKNOWN;
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Why the receivers have no message of an alert; empty if they have one.
export function suppression(alert) {
  return { quiet_hours: "not sent: quiet hours", snoozed: "not sent: snoozed" }[alert.suppressed] ?? "";
}

// "live", "replay", "simulated" or "simulated replay" → what the page shows it as; empty for a live market.
export function label(mode) {
  return mode === "live" ? "" : mode.toUpperCase();
}

const FAMILIES = {
  log_return: "Return",
  realized_volatility: "Volatility",
  price_velocity: "Price velocity",
  spread_mean: "Mean spread",
  order_book_imbalance: "Book imbalance",
  trade_intensity: "Ticks",
  volume_velocity: "Volume",
};

// "spread_mean_60s" → ["Mean spread", "60 s"]
export function feature(name) {
  const [, family, window] = name.match(/^(.*?)(?:_(\d+)s)?$/);
  return [FAMILIES[family] ?? family.replaceAll("_", " "), window ? `${window} s` : ""];
}

// What followed an alert.
export function outcome(alert) {
  if (alert.outcome === "hit") return typeof alert.lead_s === "number" && alert.lead_s > 0 ? `hit, ${lasting(1000 * alert.lead_s)} before the spike` : "hit";
  if (alert.outcome === "false") return "false alarm";
  return "outcome not known";
}
