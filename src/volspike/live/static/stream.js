// A connection to /stream that reconnects after errors, silence, and sleep.

const NAMES = ["snapshot", "tick", "alert", "spike", "health", "performance", "explanation", "markets", "snooze", "lost"];
const SILENT_MS = 20_000; // health comes every second, a heartbeat every 15 s
const LONGEST_WAIT_MS = 30_000;

export class Stream {
  #source = null;
  #receivedAt = 0;
  #failures = 0;
  #timer = 0;

  // onEvent(name, data) for each event; onState("live" | "lost") as the connection comes and goes; onUnknown(product)
  // if the server has no such product, before the stream of any product is opened
  constructor(onEvent, onState, onUnknown) {
    this.onEvent = onEvent;
    this.onState = onState;
    this.onUnknown = onUnknown;
    setInterval(() => this.#watch(), 5_000);
    document.addEventListener("visibilitychange", () => this.#watch()); // a phone wakes up
    addEventListener("online", () => this.#source && this.open(this.product));
  }

  open(product) {
    this.product = product;
    this.#source?.close();
    clearTimeout(this.#timer);
    const query = product ? `?${new URLSearchParams({ product, alerts: "all" })}` : "";
    const source = new EventSource(`stream${query}`);
    this.#source = source;
    this.#receivedAt = performance.now();
    for (const name of NAMES) source.addEventListener(name, (event) => this.#take(source, name, event.data));
    source.addEventListener("error", () => this.#fail(source));
  }

  #take(source, name, data) {
    if (source !== this.#source) return; // an event of a product that is no longer displayed
    this.#receivedAt = performance.now();
    this.#failures = 0;
    this.onState("live");
    this.onEvent(name, JSON.parse(data));
  }

  // The browser reconnects after a broken connection but not after a refused one, which is retried here.
  async #fail(source) {
    if (source !== this.#source) return;
    this.onState("lost");
    if (source.readyState !== EventSource.CLOSED) return;
    this.#failures += 1;
    const isUnknown = this.product ? await this.#isUnknown(this.product) : false;
    if (source !== this.#source) return;
    if (isUnknown) {
      this.onUnknown(this.product);
      this.open(null);
      return;
    }
    const wait = Math.min(LONGEST_WAIT_MS, 1_000 * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.open(this.product), wait);
  }

  // An event source does not say why it was refused.
  async #isUnknown(product) {
    try {
      return (await fetch(`history?${new URLSearchParams({ product, points: 10 })}`)).status === 404;
    } catch {
      return false;
    }
  }

  #watch() {
    if (this.#source?.readyState === EventSource.OPEN && performance.now() - this.#receivedAt > SILENT_MS) {
      this.onState("lost");
      this.open(this.product);
    }
  }
}
