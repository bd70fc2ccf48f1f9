// The four charts of the last ten minutes, drawn by uPlot from points {at, totals, pages}.

import { CAUSES, DROPS, count, span } from "./words.js";

/* global uPlot */

const WINDOW_S = 600;
const SHORTEST_S = 120;
const BIN_S = 10;
const MOST_LINES = 8;

const LIGHT = ["#2456c8", "#c2570c", "#1a7f4b", "#8a3fc7", "#b3246d", "#0c7489", "#7d5a12", "#55606e"];
const DARK = ["#8fb3ff", "#ffab70", "#74d69b", "#cda2ff", "#ff95c4", "#6fd3e6", "#e0bd72", "#aab4c2"];

const dark = window.matchMedia("(prefers-color-scheme: dark)");

export const palette = () => (dark.matches ? DARK : LIGHT);

const inks = () => {
  const style = getComputedStyle(document.documentElement);
  return { quiet: style.getPropertyValue("--quiet").trim(), line: style.getPropertyValue("--line").trim() };
};

// A colour thinned by the card's own, so that what is stacked does not shine through.
function faint(colour) {
  const card = getComputedStyle(document.documentElement).getPropertyValue("--card").trim();
  const part = (hex, i) => parseInt(hex.length === 4 ? hex[i + 1].repeat(2) : hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  return `rgb(${[0, 1, 2].map((i) => Math.round(0.34 * part(colour, i) + 0.66 * part(card, i))).join()})`;
}

// What fell into each bin: `read` gives a counter of a point; a counter that went backwards began anew.
function increments(points, read, bins) {
  const found = bins.map(() => 0);
  for (let i = 1; i < points.length; i += 1) {
    const bin = Math.floor((points[i].at - bins[0]) / BIN_S);
    if (bin >= 0 && bin < found.length) found[bin] += Math.max(0, read(points[i]) - read(points[i - 1]));
  }
  return found;
}

// The duration below which a share of a histogram's observations stay, in seconds, as Prometheus estimates it.
export function quantile(share, bounds, counts) {
  const all = counts.reduce((a, b) => a + b, 0);
  if (all === 0) return null;
  let rank = share * all;
  for (let i = 0; i < bounds.length; i += 1) {
    if (rank <= counts[i] && counts[i] > 0) {
      const low = i ? bounds[i - 1] : 0;
      return low + ((bounds[i] - low) * rank) / counts[i];
    }
    rank -= counts[i];
  }
  return bounds[bounds.length - 1];
}

const whole = (value) => (Number.isInteger(value) ? count(value) : "");

const duration = (ms) => span(ms === null ? null : ms / 1000).join(" ").trim();

class Chart {
  constructor(id) {
    this.figure = document.getElementById(id);
    this.title = this.figure.querySelector("h2").textContent;
    this.plot = document.createElement("div");
    this.plot.className = "plot";
    this.plot.setAttribute("role", "img");
    this.none = document.createElement("p");
    this.none.className = "none";
    this.legend = document.createElement("ul");
    this.legend.className = "legend";
    this.figure.append(this.plot, this.legend);
    this.key = "";
    this.uplot = null;
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  resize() {
    if (this.uplot && this.plot.clientWidth) this.uplot.setSize({ width: this.plot.clientWidth, height: 190 });
  }

  // series: [{name, colour, values, shown}], where `values` are drawn and `shown` are told; bars: as bars.
  draw(times, series, { bars = false, empty = "", since = 0, tick = whole, format = count } = {}) {
    const key = JSON.stringify([series.map((s) => [s.name, s.colour]), dark.matches]);
    if (key !== this.key) {
      this.key = key;
      this.build(series, bars, tick);
    }
    this.series = series;
    this.format = format;
    const now = Date.now() / 1000;
    this.uplot.setData([times, ...series.map((s) => s.values)], false);
    this.uplot.batch(() => {
      this.uplot.setScale("x", { min: Math.max(now - WINDOW_S, Math.min(since, now - SHORTEST_S)), max: now });
      const top = Math.max(0, ...series.flatMap((s) => s.values.filter((v) => v !== null)));
      this.uplot.setScale("y", { min: 0, max: top ? top * 1.08 : 1 });
    });
    this.none.textContent = empty;
    this.tell(null);
  }

  tell(index) {
    if (!this.series) return;
    const at = (values) => {
      if (index !== null) return values[index];
      for (let i = values.length - 1; i >= 0; i -= 1) if (values[i] !== null) return values[i];
      return null;
    };
    const words = [];
    this.series.forEach((s, i) => {
      const told = s.total !== undefined && index === null ? s.total : at(s.shown);
      const text = told === null || told === undefined ? "–" : this.format(told);
      this.values[i].textContent = text;
      words.push(`${s.name} ${text}`);
    });
    this.plot.setAttribute("aria-label", `${this.title}: ${words.join(", ") || "nothing"}`);
  }

  build(series, bars, tick) {
    this.uplot?.destroy();
    const { quiet, line } = inks();
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: quiet, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    this.uplot = new uPlot(
      {
        width: this.plot.clientWidth || 400,
        height: 190,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { show: !bars } },
        scales: { x: { time: true }, y: { auto: false } },
        axes: [
          {
            ...axis,
            grid: { show: false },
            size: 26,
            space: 60,
            incrs: [60, 120, 300, 600],
            values: (_, splits) => splits.map((s) => new Date(s * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })),
          },
          { ...axis, size: 54, gap: 6, space: 36, values: (_, splits) => splits.map(tick) },
        ],
        series: [
          {},
          ...series.map((s) => ({
            stroke: s.colour,
            width: bars ? 0 : 1.75,
            fill: bars ? s.colour : s.filled ? faint(s.colour) : undefined,
            points: { show: false },
            spanGaps: false,
            paths: bars ? uPlot.paths.bars({ size: [0.8, 14], align: 1 }) : undefined,
          })),
        ],
        hooks: { setCursor: [(u) => this.tell(u.cursor.idx ?? null)] },
      },
      [[], ...series.map(() => [])],
      this.plot,
    );
    this.plot.append(this.none);
    this.values = [];
    this.legend.replaceChildren(
      ...series.map((s) => {
        const item = document.createElement("li");
        const swatch = document.createElement("span");
        swatch.className = "swatch";
        swatch.style.setProperty("--swatch", s.colour);
        const value = document.createElement("b");
        this.values.push(value);
        item.append(swatch, `${s.name} `, value);
        return item;
      }),
    );
  }
}

// Puts series one upon another; the topmost is drawn first, so that each shows its own part.
function stacked(series) {
  const sums = [];
  const done = series.map((s) => ({
    ...s,
    filled: true,
    shown: s.values,
    values: s.values.map((v, i) => (sums[i] = (sums[i] ?? 0) + (v ?? 0))),
  }));
  return done.reverse();
}

export class Charts {
  constructor() {
    this.pages = new Chart("chart-pages");
    this.drops = new Chart("chart-drops");
    this.moves = new Chart("chart-moves");
    this.latency = new Chart("chart-latency");
    this.last = null;
    dark.addEventListener("change", () => this.last && this.draw(...this.last));
  }

  // colours: a Map from names of backends to their colours, in the order in which they are stacked.
  draw(points, colours) {
    this.last = [points, colours];
    const times = points.map((p) => p.at);
    const since = times[0] ?? 0;
    const names = [...colours.keys()].filter((name) => points.some((p) => p.pages[name])).slice(0, MOST_LINES);
    const lines = names.map((name) => ({ name, colour: colours.get(name), values: points.map((p) => p.pages[name] ?? 0) }));
    const others = points.map((p) => p.totals.pages - names.reduce((sum, name) => sum + (p.pages[name] ?? 0), 0));
    if (others.some((v) => v > 0)) lines.push({ name: "others", colour: palette()[7], values: others });
    this.pages.draw(times, stacked(lines), { since, empty: lines.length ? "" : "No page is open" });

    const start = Math.floor((Date.now() / 1000 - WINDOW_S) / BIN_S) * BIN_S;
    const bins = Array.from({ length: WINDOW_S / BIN_S + 1 }, (_, i) => start + i * BIN_S);
    this.bars(this.drops, points, bins, DROPS, (p) => p.totals.closed, "No socket was dropped");
    this.bars(this.moves, points, bins, CAUSES, (p) => p.totals.moves, "No session was moved");
    this.quantiles(points, bins);
  }

  bars(chart, points, bins, words, read, empty) {
    const colours = palette();
    const found = Object.entries(words)
      .map(([key, name], i) => ({ name, colour: colours[(i + 1) % 8], values: increments(points, (p) => read(p)[key] ?? 0, bins) }))
      .map((s) => ({ ...s, total: s.values.reduce((a, b) => a + b, 0) }))
      .filter((s) => s.total > 0);
    chart.draw(bins, stacked(found), { bars: true, since: points[0]?.at ?? 0, empty: found.length ? "" : empty });
  }

  quantiles(points, bins) {
    const bounds = points.length ? points[points.length - 1].totals.seconds.bounds : [];
    const counts = Array.from({ length: bounds.length + 1 }, (_, b) => increments(points, (p) => p.totals.seconds.counts[b], bins));
    const colours = palette();
    const series = [
      ["median", 0.5, colours[0]],
      ["99 % within", 0.99, colours[1]],
    ].map(([name, share, colour]) => {
      const values = bins.map((_, i) => {
        const seconds = quantile(share, bounds, counts.map((c) => c[i]));
        return seconds === null ? null : seconds * 1000;
      });
      return { name, colour, values, shown: values };
    });
    const quiet = series[0].values.every((v) => v === null);
    this.latency.draw(bins, series, { since: points[0]?.at ?? 0, tick: (ms) => (ms ? duration(ms) : "0"), empty: quiet ? "No request in this time" : "", format: duration });
  }
}
