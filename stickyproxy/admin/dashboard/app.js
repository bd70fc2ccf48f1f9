// The dashboard: follows the live stream, and shows what it says. Laws: nothing is shown that the stream or the history has
// not said; whatever is old is called old; text from outside is set as text and never as markup.

import { Charts, palette, quantile } from "./charts.js";
import { KINDS, agoOf, clock, count, counted, headline, letGo, long, rate, recently, size, span, stateOf, toneOf } from "./words.js";

const WINDOW_S = 600;
const STALE_MS = 4000;
const RATE_S = 5;
const FRESH_S = 120; // a backend that has gone stands out for so long
const MOST_ROWS = 100;
const FEW_EVENTS = 12;
const MOST_EVENTS = 500;

const $ = (id) => document.getElementById(id);

const state = {
  status: null,
  heard: 0, // when, by this browser's clock
  boot: "",
  points: [],
  events: new Map(), // by number
  colours: new Map(), // by name of the backend
  unreachable: new Set(),
  allEvents: false,
  orders: "",
};

const charts = new Charts();

// The stream.

let source = null;

function follow() {
  source?.close();
  source = new EventSource("api/v1/stream");
  source.addEventListener("status", (message) => onStatus(JSON.parse(message.data)));
  source.addEventListener("event", (message) => onEvent(JSON.parse(message.data), message.lastEventId.split("-")[0]));
  source.addEventListener("error", () => {
    // A browser reconnects by itself where a connection ends, and gives up for good at an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 2000);
    showLive();
  });
}

function begin(boot) {
  if (state.boot === boot) return;
  state.boot = boot;
  state.points = [];
  state.events.clear();
  state.unreachable.clear();
  remember();
}

async function remember() {
  const boot = state.boot;
  const answer = await fetch("api/v1/history").catch(() => null);
  if (!answer?.ok) return;
  const { samples } = await answer.json();
  if (boot !== state.boot) return;
  const first = state.points[0]?.at ?? Infinity;
  state.points.unshift(...samples.filter((s) => s.at < first));
  draw();
}

function onStatus(status) {
  begin(status.boot);
  state.status = status;
  state.heard = Date.now();
  const pages = Object.fromEntries(status.backends.map((b) => [b.name, b.pages]));
  state.points.push({
    at: status.at, totals: status.totals, pages,
    requests: Object.fromEntries(status.backends.map((b) => [b.identity, b.requests])),
  });
  while (state.points[0].at < status.at - WINDOW_S) state.points.shift();
  draw();
}

function onEvent(event, boot) {
  begin(boot);
  state.events.set(event.seq, event);
  while (state.events.size > MOST_EVENTS) state.events.delete(state.events.keys().next().value);
  if (event.kind === "unreachable") state.unreachable.add(event.backend);
  const back = event.kind === "reachable" || event.kind === "returned" || event.kind === "phase";
  if (back) state.unreachable.delete(event.backend);
  schedule();
}

// Drawing: once for all that comes within a moment, and not while nobody can see it.

let scheduled = false;

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(draw);
}

function draw() {
  scheduled = false;
  showLive();
  if (!state.status) return;
  showColours();
  showHeadline();
  showFigures();
  showReplicas();
  showParking();
  showEvents();
  charts.draw(state.points, state.colours);
}

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

function make(tag, className = "", value = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (value) element.textContent = value;
  return element;
}

function showLive() {
  const silent = Date.now() - state.heard;
  const live = state.status !== null && silent < STALE_MS;
  const cut = state.status !== null && !live;
  $("live").dataset.state = live ? "live" : cut ? "cut" : "waiting";
  text($("live-text"), live ? "live" : cut ? "cut off" : "connecting");
  showBanners(cut, silent);
}

function showBanners(cut, silentMs) {
  const { status } = state;
  const banners = [];
  if (cut) {
    const when = clock(state.heard / 1000);
    banners.push(["bad", "No word from the proxy.", `What you see is from ${when}, ${agoOf(silentMs / 1000)}. Trying to connect again …`]);
  }
  if (status && !status.discovery.healthy) {
    const age = status.discovery.age_s ? `, last confirmed ${agoOf(status.discovery.age_s)}` : "";
    banners.push(["warn", "The list of replicas may be out of date.", `${status.discovery.source}${age}: ${status.discovery.problem}`]);
  }
  if (status && status.backends.length && !status.backends.some((b) => b.phase === "ready")) {
    banners.push(["bad", "No replica is ready.", "New visitors go to one that drains or is not ready, or get an error."]);
  } else if (status && !status.backends.length) {
    banners.push(["bad", "No replica is known.", "Every visitor gets an error page that tries again by itself."]);
  } else if (status && status.backends.every((b) => stateOf(b, state.unreachable.has(b.name))[1] === "bad")) {
    banners.push(["bad", "No replica works.", "All that are listed fail or cannot be reached."]);
  }
  if (status && !status.ready) banners.push(["warn", "This proxy is not ready.", status.readiness]);
  if (status && status.workers.serving < status.workers.wanted) {
    banners.push(["warn", "A worker is missing.", `${status.workers.serving} of ${status.workers.wanted} serve; the others are being started.`]);
  }
  if (state.orders) banners.push(["bad", "Not done.", state.orders]);
  const key = JSON.stringify(banners);
  if ($("banners").dataset.key === key) return;
  $("banners").dataset.key = key;
  $("banners").replaceChildren(
    ...banners.map(([tone, title, detail]) => {
      const banner = make("p", `banner ${tone}`);
      banner.append(make("strong", "", title), ` ${detail}`);
      return banner;
    }),
  );
}

function showColours() {
  const colours = palette();
  const names = [...state.status.backends, ...state.status.gone].map((b) => b.name);
  for (const name of names) if (!state.colours.has(name)) state.colours.set(name, "");
  const known = new Set([...names, ...state.points.flatMap((p) => Object.keys(p.pages))]);
  for (const name of state.colours.keys()) if (!known.has(name)) state.colours.delete(name);
  [...state.colours.keys()].forEach((name, i) => state.colours.set(name, colours[i % 7]));
}

function showHeadline() {
  const { status } = state;
  const serving = status.backends.filter((b) => b.phase === "ready" && stateOf(b, state.unreachable.has(b.name))[1] !== "bad").length;
  const said = headline(status, serving);
  text($("headline"), said);
  document.title = `${counted(serving, "replica")}, ${counted(status.totals.pages, "page")} · stickyproxy`;
  const parts = recently(status.recent);
  const key = JSON.stringify(parts);
  if ($("recent").dataset.key !== key) {
    $("recent").dataset.key = key;
    $("recent").replaceChildren(...parts.map(([words, tone]) => (tone ? make("b", tone === "b" ? "" : tone, words) : words)));
  }
  text($("version"), status.version);
}

// The point that lies some seconds back, to compute a rate from.
function past() {
  const now = state.points[state.points.length - 1];
  return state.points.findLast((p) => p.at <= now.at - RATE_S + 0.5 && p.requests) ?? state.points.find((p) => p.requests);
}

function showFigures() {
  const { totals } = state.status;
  const now = state.points[state.points.length - 1];
  const then = past();
  const elapsed = now.at - then.at;
  text($("f-pages"), count(totals.pages));
  text($("f-tunnels"), count(totals.tunnels));
  text($("f-rate"), elapsed > 0 ? rate((totals.requests - then.totals.requests) / elapsed) : "–");
  const minute = state.points.find((p) => p.at >= now.at - 60);
  const counts = totals.seconds.counts.map((c, i) => c - minute.totals.seconds.counts[i]);
  measure("f-p50", span(quantile(0.5, totals.seconds.bounds, counts)));
  measure("f-p99", span(quantile(0.99, totals.seconds.bounds, counts)));
  const lost = sum(totals.lost);
  text($("f-lost"), count(lost));
  $("f-lost").className = lost ? "bad" : "";
}

function measure(id, [number, unit]) {
  if ($(id).dataset.key === number + unit) return;
  $(id).dataset.key = number + unit;
  $(id).replaceChildren(number, unit ? " " : "", make("small", "", unit));
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

// Parked pages; without --park nothing of it is there.
function showParking() {
  const { park_s: seconds, totals } = state.status;
  $("parking").hidden = $("parked-title").hidden = !seconds;
  if (!seconds) return;
  text($("parking-time"), `kept for up to ${long(seconds)} while their browsers are away`);
  text($("f-parked"), count(totals.parked));
  measure("f-parked-bytes", size(totals.parked_bytes));
  text($("f-parked-returned"), count(sum(totals.parked_returned)));
  text($("f-parked-released"), count(sum(totals.parked_released)));
  text($("parking-why"), letGo(totals.parked_ever, totals.parked_released));
}

// The table.

const rows = new Map();

function newRow(identity) {
  const row = make("tr");
  row.setAttribute("role", "row");
  const parts = {};
  const cell = (name, className, label = "") => {
    const td = make("td", className);
    td.setAttribute("role", "cell");
    if (label) td.dataset.label = label;
    parts[name] = td;
    return td;
  };
  const head = make("th");
  head.scope = "row";
  head.setAttribute("role", "rowheader");
  const name = make("span", "name");
  parts.swatch = make("span", "swatch");
  parts.name = make("span");
  parts.address = make("span", "address");
  const both = make("span");
  both.append(parts.name, parts.address);
  name.append(parts.swatch, both);
  head.append(name);
  row.append(
    head, cell("state", "state"), cell("pages", "number pages", "Pages"), cell("parked", "number", "Parked"), cell("tunnels", "number", "Sockets"),
    cell("rate", "number", "Requests/s"), cell("here", "number", "Moved in"), cell("away", "number", "Moved out"),
    cell("action", "action"),
  );
  parts.chip = make("span", "chip");
  parts.trouble = make("span", "trouble");
  parts.state.append(parts.chip, parts.trouble);
  const box = make("div", "pages-cell");
  parts.bar = make("div", "bar");
  parts.bar.setAttribute("aria-hidden", "true");
  parts.bar.append(make("span"));
  parts.count = make("span", "count");
  box.append(parts.bar, parts.count);
  parts.pages.append(box);
  parts.button = make("button", "plain");
  parts.button.type = "button";
  parts.button.addEventListener("click", () => ask(identity));
  parts.action.append(parts.button);
  return { row, parts };
}

function showReplicas() {
  const { status } = state;
  const moved = movedBy();
  const now = state.points[state.points.length - 1];
  const then = past();
  const elapsed = now.at - then.at;
  const most = Math.max(1, ...status.backends.map((b) => b.pages));
  const listed = status.backends.slice(0, MOST_ROWS).map((b) => ({ ...b, gone: false }));
  const gone = status.gone.slice(-20).map((b) => ({ ...b, gone: true, pages: 0, parked: 0, tunnels: 0 }));
  listed.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const wanted = [...listed, ...gone];
  const body = $("replicas").tBodies[0];
  for (const [identity, { row }] of rows) {
    if (wanted.some((b) => b.identity === identity)) continue;
    row.remove();
    rows.delete(identity);
  }
  wanted.forEach((b, index) => {
    if (!rows.has(b.identity)) rows.set(b.identity, newRow(b.identity));
    const { row, parts } = rows.get(b.identity);
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
    const unreachable = state.unreachable.has(b.name);
    const [words, tone] = b.gone ? ["gone", status.at - b.at < FRESH_S ? "bad" : "gone"] : stateOf(b, unreachable);
    const away = b.gone || unreachable;
    if (away && parts.chip.textContent && !row.classList.contains("away")) row.classList.add("fresh");
    row.classList.toggle("away", away);
    if (!away) row.classList.remove("fresh");
    row.style.setProperty("--swatch", state.colours.get(b.name) ?? "");
    text(parts.name, b.name);
    text(parts.address, b.address === b.name ? "" : b.address);
    text(parts.chip, words);
    parts.chip.className = `chip ${tone}`;
    text(parts.trouble, b.gone ? `not listed since ${clock(b.at)}` : b.trouble);
    parts.bar.style.setProperty("--share", `${(100 * b.pages) / most}%`);
    parts.bar.hidden = b.gone;
    number(parts.count, b.pages);
    parts.parked.hidden = !status.park_s;
    number(parts.parked, b.parked);
    number(parts.tunnels, b.tunnels);
    const before = then.requests?.[b.identity];
    if (b.gone || before === undefined || elapsed <= 0) text(parts.rate, b.gone ? "" : "–");
    else text(parts.rate, rate(Math.max(0, b.requests - before) / elapsed));
    number(parts.here, moved.here(b.name));
    number(parts.away, moved.away(b.name));
    const order = b.drained ? "Undrain" : "Drain";
    text(parts.button, order);
    parts.button.setAttribute("aria-label", `${order} ${b.name}`);
    parts.button.hidden = b.gone || !status.actions;
  });
  $("replicas-empty").hidden = wanted.length > 0;
  $("replicas-more").hidden = status.backends.length <= MOST_ROWS;
  text($("replicas-more"), `${count(status.backends.length - MOST_ROWS)} more are not shown; /api/v1/backends lists all.`);
  text($("source"), status.discovery.source);
}

function number(element, value) {
  text(element, count(value));
  element.classList.toggle("zero", value === 0);
}

// What moved in the last ten minutes, by backend: pages, or requests where there are no pages of NiceGUI.
function movedBy() {
  const here = new Map();
  const away = new Map();
  for (const event of state.events.values()) {
    if (event.kind !== "moved" || event.at < state.status.at - WINDOW_S) continue;
    for (const [sums, name] of [[here, event.to], [away, event.backend]]) {
      const sum = sums.get(name) ?? { pages: 0, count: 0 };
      sums.set(name, { pages: sum.pages + event.pages, count: sum.count + event.count });
    }
  }
  const told = (sums) => (name) => sums.get(name)?.pages || sums.get(name)?.count || 0;
  return { here: told(here), away: told(away) };
}

// Events.

function showEvents() {
  const events = [...state.events.values()].sort((a, b) => b.seq - a.seq);
  const shown = state.allEvents ? events : events.slice(0, FEW_EVENTS);
  $("events-empty").hidden = events.length > 0;
  $("events-more").hidden = state.allEvents || events.length <= FEW_EVENTS;
  const list = $("events");
  const key = `${state.boot} ${shown.map((e) => e.seq).join()}`;
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(
    ...shown.map((event) => {
      const item = make("li");
      const time = make("time", "", clock(event.at));
      time.dateTime = new Date(event.at * 1000).toISOString();
      const chip = make("span");
      chip.append(make("span", `chip ${toneOf(event)}`, (KINDS[event.kind] ?? [event.kind])[0]));
      item.append(time, chip, make("span", "text", event.text));
      return item;
    }),
  );
}

$("events-more").addEventListener("click", () => {
  state.allEvents = true;
  showEvents();
});

// Orders.

let asked = null;

function ask(identity) {
  const backend = state.status.backends.find((b) => b.identity === identity);
  if (!backend) return;
  asked = backend;
  const pages = counted(backend.pages, "open page");
  text($("confirm-title"), backend.drained ? `Take the drain of ${backend.name} back?` : `Drain ${backend.name}?`);
  text(
    $("confirm-text"),
    backend.drained
      ? "It gets new visitors again, as discovery says that it is ready."
      : `New visitors and new documents go to other replicas. Its ${pages} ${backend.pages === 1 ? "stays" : "stay"} until they are closed or reloaded; nothing is lost. This proxy alone is told; other replicas of the proxy have dashboards of their own.`,
  );
  text($("confirm-yes"), backend.drained ? "Take back" : "Drain");
  $("confirm").returnValue = "cancel";
  $("confirm").showModal();
}

$("confirm").addEventListener("close", async () => {
  if ($("confirm").returnValue !== "yes" || !asked) return;
  const order = asked.drained ? "undrain" : "drain";
  state.orders = "";
  const url = `api/v1/backends/${encodeURIComponent(asked.identity)}/${order}`;
  try {
    const answer = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
    if (!answer.ok) state.orders = (await answer.json()).error ?? `The proxy answered ${answer.status}.`;
  } catch {
    state.orders = "The proxy cannot be reached.";
  }
  draw();
});

setInterval(showLive, 1000);
follow();
