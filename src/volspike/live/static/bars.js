// The bars of one product: the range that the server sent, continued with the points of the stream.

const AIM = 900; // bars in view
const FEWEST = 300;
const MOST = 2_500;
const KEPT = 2 * MOST; // while the stream adds bars for days
const LONGEST_RANGE_MS = 31 * 86_400_000; // of one request
export const RETRY_MS = 5_000; // after a failed request

export class Bars {
  #request = null;
  #failedAt = -RETRY_MS;

  // onChange() after a range was loaded; onState("loading" | "loaded" | "failed")
  constructor(product, onChange, onState) {
    this.product = product;
    this.onChange = onChange;
    this.onState = onState;
    this.step = 1_000;
    this.list = [];
    this.gaps = [];
    this.from = null; // of the loaded range, ms
    this.to = null;
    this.earliest = null;
    this.isCurrent = true; // whether the stream continues the list
  }

  // Ends a request whose answer is no longer needed.
  abort() {
    this.#request?.abort.abort();
    this.#request = null;
  }

  get last() {
    return this.list.at(-1);
  }

  // Adds a point of the stream to its bar. Points before the newest bar are ignored.
  add(point) {
    if (!this.isCurrent || point.price === null) return;
    const start = Math.floor(point.time / this.step) * this.step;
    const last = this.last;
    if (last && start < last.time) return;
    if (!last || start > last.time) {
      this.list.push(barOf(start, point));
      this.from ??= start;
      if (this.list.length > KEPT) this.#drop(MOST);
    } else merge(last, point);
    this.to = Math.max(this.to ?? 0, point.time);
  }

  #drop(count) {
    this.list.splice(0, count);
    this.from = this.list[0].time;
  }

  // Whether the loaded bars show the view at a fitting resolution.
  fits(start, end, newest) {
    if (this.from === null) return false;
    const count = (end - start) / this.step;
    const isFine = this.step === 1_000 || count >= FEWEST;
    const first = Math.max(start, this.earliest ?? start);
    return isFine && count <= MOST && first >= this.from - this.step && Math.min(end, newest) <= this.to + Math.max(this.step, 2_000);
  }

  // Loads the view and half of its length on both sides, as far as one request may reach, unless it is there already.
  async load(start, end, points) {
    const newest = points.at(-1)?.time ?? end;
    if (this.fits(start, end, newest)) {
      if (!this.#request) return;
      this.abort(); // of a view that was left
      this.onState("loaded");
      return;
    }
    if (performance.now() - this.#failedAt < RETRY_MS) return;
    const margin = Math.min((end - start) / 2, (LONGEST_RANGE_MS - (end - start)) / 2);
    const to = Math.ceil(Math.min(end + margin, newest + 1));
    const from = Math.max(0, Math.floor(start - margin), to - LONGEST_RANGE_MS);
    if (to <= from) return;
    const key = `${from} ${to}`;
    if (this.#request?.key === key) return;
    this.abort();
    const abort = new AbortController();
    const request = { key, abort };
    this.#request = request;
    this.onState("loading");
    const query = new URLSearchParams({ product: this.product, from, to, points: 2 * AIM });
    try {
      const response = await fetch(`history?${query}`, { signal: abort.signal });
      if (!response.ok) throw new Error(`history: ${response.status}`);
      const loaded = await response.json();
      if (this.#request !== request) return;
      this.#take(loaded, points);
      this.onState("loaded", loaded);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#failedAt = performance.now();
      this.onState("failed");
    } finally {
      if (this.#request === request) this.#request = null;
    }
  }

  #take(loaded, points) {
    this.step = loaded.step_ms;
    this.list = loaded.time.map((time, i) => ({
      time,
      open: loaded.open[i],
      high: loaded.high[i],
      low: loaded.low[i],
      close: loaded.close[i],
      spread: loaded.spread_bps[i],
      probability: loaded.probability[i],
      threshold: loaded.threshold[i],
      expected: loaded.expected_bp[i],
    }));
    this.gaps = loaded.gaps;
    this.from = loaded.from;
    this.to = loaded.to;
    this.earliest = loaded.earliest;
    const newest = points.at(-1);
    // points that came while the server answered; the newest loaded second may not have been complete
    this.isCurrent = !newest || newest.time - loaded.to < Math.max(60_000, this.step);
    for (const point of points) if (point.time > loaded.to - 1_000) this.add(point);
    this.onChange();
  }

  // Bars of a longer step, for candles.
  grouped(step) {
    const groups = [];
    for (const bar of this.list) {
      if (bar.close === null) continue;
      const start = Math.floor(bar.time / step) * step;
      const last = groups.at(-1);
      if (last?.time === start) {
        last.high = Math.max(last.high, bar.high);
        last.low = Math.min(last.low, bar.low);
        last.close = bar.close;
      } else groups.push({ time: start, open: bar.open, high: bar.high, low: bar.low, close: bar.close });
    }
    return groups;
  }

  // The bar nearest to a time; null without bars.
  nearest(time) {
    const { list } = this;
    let [low, high] = [0, list.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle].time < time) low = middle + 1;
      else high = middle;
    }
    const [before, after] = [list[low - 1], list[low]];
    if (!before || !after) return before ?? after ?? null;
    return time - before.time <= after.time - time ? before : after;
  }
}

function barOf(time, point) {
  return {
    time,
    open: point.price,
    high: point.price,
    low: point.price,
    close: point.price,
    spread: point.spread_bps,
    probability: point.probability,
    threshold: point.threshold ?? null,
    expected: point.expected_volatility_bp ?? null,
  };
}

function merge(bar, point) {
  bar.open ??= point.price;
  bar.high = Math.max(bar.high ?? point.price, point.price);
  bar.low = Math.min(bar.low ?? point.price, point.price);
  bar.close = point.price;
  bar.spread = point.spread_bps;
  if (point.probability !== null) bar.probability = Math.max(bar.probability ?? 0, point.probability);
  bar.threshold = point.threshold ?? bar.threshold;
  bar.expected = point.expected_volatility_bp ?? bar.expected;
}
