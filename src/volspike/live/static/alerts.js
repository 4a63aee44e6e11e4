// Alerts of all markets: the list with its filters, notifications, sound, and snoozing.

import { byId, made, write } from "./panels.js";
import { load, store } from "./settings.js";
import * as words from "./words.js";

const SHOWN = 200;
const TONE_HZ = 880;

// onOpen(product, time) when an alert of the list is selected
export class Alerts {
  #market = null;
  #audio = null;
  #items = new Map(); // product and id → element
  #refusal = ""; // of the last request to snooze

  constructor(onOpen) {
    this.onOpen = onOpen;
    for (const id of ["filter-market", "filter-outcome"]) byId(id).addEventListener("change", () => this.show(this.#market));
    byId("notify").addEventListener("change", (event) => this.#requestNotifications(event.target));
    byId("sound").addEventListener("change", (event) => this.#enableSound(event.target));
    byId("snooze").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#snooze("POST", { product: this.#market.product, minutes: Number(byId("snooze-minutes").value) });
    });
    byId("wake").addEventListener("click", async () => {
      for (const { product } of this.#snoozes(this.#market)) await this.#snooze("DELETE", { product });
    });
    const isGranted = "Notification" in window && Notification.permission === "granted";
    byId("notify").checked = isGranted && load("notify") === "yes";
  }

  show(market) {
    if (!market) return;
    this.#market = market;
    const all = [...market.alerts.values()].sort((a, b) => b.opened - a.opened);
    this.#showMarkets(all);
    const [product, outcome] = [byId("filter-market").value, byId("filter-outcome").value];
    const chosen = all.filter((alert) => (!product || alert.product === product) && (!outcome || (alert.outcome ?? "pending") === outcome));
    byId("no-alerts").hidden = chosen.length > 0;
    byId("alerts").hidden = chosen.length === 0;
    write("no-alerts", all.length ? "None with this market and outcome." : "None yet.");
    write("alert-count", all.length ? `${words.count(chosen.length)} of ${words.count(all.length)}` : "");
    this.#arrange(chosen.slice(0, SHOWN).map((alert) => this.#item(alert)));
    this.showSnooze(market);
  }

  // The elements stay in place, so that focus and a screen reader's place are not lost.
  #arrange(items) {
    const list = byId("alerts");
    const shown = new Set(items);
    for (const item of [...list.children]) if (!shown.has(item)) item.remove();
    items.forEach((item, i) => {
      if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
    });
    for (const [name, item] of this.#items) if (!shown.has(item)) this.#items.delete(name);
  }

  #showMarkets(alerts) {
    const select = byId("filter-market");
    const products = [...new Set([...this.#market.products, ...alerts.map((alert) => alert.product)])];
    if (select.dataset.names === products.join()) return;
    select.dataset.names = products.join();
    const selected = select.value;
    select.replaceChildren(made("option", "All markets", { value: "" }), ...products.map((name) => made("option", name, { value: name })));
    select.value = products.includes(selected) ? selected : "";
  }

  #item(alert) {
    const market = this.#market;
    const open = alert.state === "open";
    const name = `${alert.product}/${alert.id}`;
    const item = this.#items.get(name) ?? this.#made(name, alert);
    Object.assign(item.dataset, { state: alert.state, outcome: alert.outcome ?? "pending" });
    const when = `${market.clock(alert.opened)} – ${open ? "now" : words.clock(alert.closed)}`;
    const marks = [words.label(alert.mode ?? market.mode), alert.is_in_sample ? "IN-SAMPLE" : "", words.suppression(alert)].filter(Boolean).join(", ");
    const length = open ? "open" : words.lasting(alert.closed - alert.opened);
    const texts = [
      `${alert.product} · ${when}${marks ? ` · ${marks}` : ""}`,
      `${length} · peak ${words.probability(alert.peak_probability)}, threshold ${words.probability(alert.threshold)} · ${words.outcome(alert)}`,
    ];
    texts.forEach((text, i) => {
      if (item.childNodes[i].textContent !== text) item.childNodes[i].textContent = text;
    });
    return item;
  }

  #made(name, alert) {
    const item = made("li", "");
    const button = made("button", "", { type: "button", title: "Show in the chart" });
    button.addEventListener("click", () => this.onOpen(alert.product, alert.opened));
    item.append(button, document.createTextNode(""));
    this.#items.set(name, item);
    return item;
  }

  // A notification and a sound for an alert that opened, if the user switched them on.
  announce(alert, text) {
    if (alert.state !== "open") return;
    const mode = words.label(this.#market?.mode ?? "live");
    if (byId("notify").checked && "Notification" in window && Notification.permission === "granted") {
      this.#notify(alert, `${mode ? `${mode} · ` : ""}Alert: ${alert.product}`, text);
    }
    if (byId("sound").checked) this.#beep();
  }

  #notify(alert, title, body) {
    try {
      const notification = new Notification(title, { body, tag: `${alert.product}/${alert.id}` });
      notification.addEventListener("click", () => {
        window.focus();
        this.onOpen(alert.product, alert.opened);
      });
    } catch {
      byId("notify").checked = false; // Chrome on Android makes none for a page
      write("say", `${body} This browser shows no notifications of a page.`);
    }
  }

  async #requestNotifications(box) {
    if (box.checked && !("Notification" in window)) {
      box.checked = false;
      write("say", "This browser has no notifications.");
    } else if (box.checked && (await Notification.requestPermission()) !== "granted") {
      box.checked = false;
      write("say", "The browser does not allow notifications of this page.");
    }
    store("notify", box.checked ? "yes" : "no");
  }

  // Browsers allow sound only after the user's own action, which this is.
  #enableSound(box) {
    if (!box.checked) return;
    this.#audio ??= new AudioContext();
    this.#beep();
  }

  #beep() {
    if (!this.#audio) return;
    this.#audio.resume(); // a browser may have suspended it in the background
    const [tone, volume] = [this.#audio.createOscillator(), this.#audio.createGain()];
    const now = this.#audio.currentTime;
    tone.frequency.value = TONE_HZ;
    volume.gain.setValueAtTime(0.2, now);
    volume.gain.exponentialRampToValueAtTime(0.001, now + 0.5);
    tone.connect(volume).connect(this.#audio.destination);
    tone.start(now);
    tone.stop(now + 0.5);
    byId("sound").dataset.played = Number(byId("sound").dataset.played ?? 0) + 1;
  }

  async #snooze(method, body) {
    // without a product, DELETE ends the snooze of all markets
    const query = method === "DELETE" && body.product !== null ? `?${new URLSearchParams(body)}` : "";
    const sent = method === "POST" ? { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) } : {};
    try {
      const response = await fetch(`alerts/snooze${query}`, { method, ...sent });
      const answer = response.status === 204 ? {} : await response.json();
      if (response.ok && answer.snoozes) this.#market.snoozes = answer.snoozes;
      this.#refusal = response.ok ? "" : (answer.detail ?? `refused (${response.status})`);
    } catch {
      this.#refusal = "The server cannot be reached.";
    }
    this.showSnooze(this.#market);
  }

  // The snoozes that apply to the market: its own, and that of all markets.
  #snoozes(market) {
    return market.snoozes.filter((each) => each.product === null || each.product === market.product);
  }

  // Called again now and then, as a snooze ends by itself.
  showSnooze(market) {
    const until = Math.max(0, ...this.#snoozes(market).map((each) => each.until));
    const isOn = until > Date.now();
    byId("wake").hidden = !isOn;
    write("snooze-market", market.product);
    write("snooze-state", this.#refusal || (isOn ? `No messages until ${words.moment(until)} ${words.zone()}. Alerts are still recorded here.` : ""));
  }
}
