// The figures of the last hour come from the server (history.json), then every few seconds those that are new.
// Nothing is kept here that the server does not have: a page that is loaded anew shows the same.

const STEP_SECONDS = 5;
const KEPT = 720;
const SVG = "http://www.w3.org/2000/svg";

const data = { time: [], figures: {} };
let range = 900;
let cursor = null; // the moment that is pointed at, in Unix seconds
let lostSince = null;

// --- Formats

function scaled(value, steps, base) {
  let i = 0;
  while (Math.abs(value) >= base && i < steps.length - 1) { value /= base; i += 1; }
  const digits = Math.abs(value) >= 100 || value === Math.round(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return `${Number(value.toFixed(digits))}${steps[i]}`;
}
const none = "–";
const count = (v) => v == null ? none : scaled(v, ["", "k", "M", "G"], 1000);
const perSecond = (v) => v == null ? none : `${scaled(v, ["", "k", "M", "G"], 1000)}/s`;
const bytes = (v) => v == null ? none : scaled(v, [" B", " KiB", " MiB", " GiB", " TiB"], 1024);
const percent = (v) => v == null ? none : `${Number((v * 100).toFixed(v > 0.1 && v < 0.9 ? 0 : 1))} %`;
const exactPercent = (v) => v == null ? none : `${(v * 100).toFixed(1)} %`;
const micro = (v) => v == null ? none : scaled(v, [" µs", " ms", " s"], 1000);
const cores = (v) => v == null ? none : `${v.toFixed(2)} cores`;
const clock = (t) => new Date(t * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const clockShort = (t) => new Date(t * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
function duration(s) {
  if (s == null) return none;
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  return d > 0 ? `${d} d ${h} h` : h > 0 ? `${h} h ${m} min` : m > 0 ? `${m} min` : `${Math.floor(s)} s`;
}

// --- Figures

const figure = (name) => (i) => data.figures[name]?.[i] ?? null;
const sumOf = (...names) => (i) => {
  const values = names.map((name) => data.figures[name]?.[i]).filter((v) => v != null);
  return values.length ? values.reduce((a, b) => a + b, 0) : null;
};
const reads = sumOf("hot_hits", "cold_hits", "misses");
const ratio = (name) => (i) => {
  const all = reads(i);
  return all ? (data.figures[name]?.[i] ?? 0) / all : null;
};
const hasCold = () => data.figures.file_limit?.some((v) => v != null) ?? false;

const charts = [
  { id: "hits", title: "Hit ratio by tier", stacked: true, top: 1, format: exactPercent, tick: percent, series: [
    { name: "RAM", color: "hot", value: ratio("hot_hits") },
    { name: "file", color: "cold", value: ratio("cold_hits"), needsCold: true },
    { name: "miss", color: "miss", value: ratio("misses") }] },
  { id: "latency", title: "Latency by tier", log: true, keep: Math.max, format: micro, series: [
    { name: "RAM, median", color: "hot", value: figure("hot_p50") },
    { name: "RAM, p99", color: "hot", dashed: true, value: figure("hot_p99") },
    { name: "file, median", color: "cold", value: figure("cold_p50"), needsCold: true },
    { name: "file, p99", color: "cold", dashed: true, value: figure("cold_p99"), needsCold: true },
    { name: "set, p99", color: "third", dashed: true, value: figure("set_p99") }] },
  { id: "load", title: "Commands", stacked: true, format: perSecond, tick: count, series: [
    { name: "hits in RAM", color: "hot", value: figure("hot_hits") },
    { name: "hits in the file", color: "cold", value: figure("cold_hits"), needsCold: true },
    { name: "misses", color: "miss", value: figure("misses") },
    { name: "sets", color: "third", value: figure("sets") }] },
  { id: "flow", title: "Between the tiers", mirrored: true, format: perSecond, tick: (v) => count(Math.abs(v)), series: [
    { name: "promoted to RAM", color: "hot", value: figure("promotions") },
    { name: "demoted to the file", color: "cold", value: figure("demotions") }] },
  { id: "memory", title: "Memory", stacked: true, binary: true, format: bytes, limit: figure("hot_memory_limit"), limitName: "hot tier's limit", series: [
    { name: "hot tier", color: "hot", value: figure("hot_memory") },
    { name: "index of the file", color: "cold", value: figure("cold_index"), needsCold: true }] },
  { id: "file", title: "File", stacked: true, binary: true, format: bytes, limit: figure("file_limit"), limitName: "limit", series: [
    { name: "in use", color: "cold", value: figure("file_used") },
    { name: "free pages", color: "miss", value: (i) => {
      const file = data.figures.file?.[i], used = data.figures.file_used?.[i];
      return file == null ? null : Math.max(file - (used ?? 0), 0);
    } },
    { name: "log", color: "third", value: figure("wal") }] },
  { id: "dirty", title: "Not yet in the file", binary: true, keep: Math.max, format: bytes, series: [
    { name: "dirty", color: "third", area: true, value: figure("dirty") }],
    extra: { name: "waits for", format: (v) => v == null ? none : micro(v * 1e6), value: figure("flush_lag") } },
  { id: "process", title: "Processor", stacked: true, format: cores, tick: (v) => Number(v.toFixed(2)), series: [
    { name: "program", color: "hot", value: figure("cpu_user") },
    { name: "kernel", color: "miss", value: figure("cpu_system") }],
    extra: { name: "connections", format: count, value: figure("connections") } },
];

// --- Drawing

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function shape(name, attributes = {}, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text != null) made.textContent = text;
  return made;
}

// Round steps that divide 0...top into at most four.
function steps(top, binary) {
  if (!(top > 0)) return [0, 1];
  const base = binary ? 1024 ** Math.floor(Math.log(top) / Math.log(1024)) : 1;
  const rough = top / base / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough - 1e-12) * base;
  const list = [];
  for (let v = 0; v < top + step * 0.999; v += step) list.push(v);
  return list;
}
function decades(low, high) {
  const list = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) list.push(10 ** e);
  return list.length > 1 ? list : [list[0], list[0] * 10];
}

// The samples in view as columns of at most `most` points: of those that fall together the mean, or what `keep` keeps.
function inView(from, most, series, keep) {
  const begin = data.time.findIndex((t) => t >= from);
  if (begin < 0) return { time: [], values: series.map(() => []) };
  const size = Math.max(1, Math.ceil((data.time.length - begin) / most));
  const time = [], values = series.map(() => []);
  // Groups begin at multiples of their size since 1970, so that they do not change when the window moves.
  let i = begin;
  while (i < data.time.length) {
    const group = Math.floor(data.time[i] / STEP_SECONDS / size);
    let j = i;
    while (j < data.time.length && Math.floor(data.time[j] / STEP_SECONDS / size) === group) j += 1;
    time.push(data.time[j - 1]);
    series.forEach((one, k) => {
      const some = [];
      for (let n = i; n < j; n += 1) { const v = one.value(n); if (v != null) some.push(v); }
      values[k].push(some.length === 0 ? null : keep ? some.reduce((a, b) => keep(a, b)) : some.reduce((a, b) => a + b) / some.length);
    });
    i = j;
  }
  return { time, values };
}

// Runs of points without a gap. A gap: a value that is not there, or a time without samples.
function runs(time, ...columns) {
  const list = [];
  let run = null, before = null;
  const usual = time.length > 2 ? (time[time.length - 1] - time[0]) / (time.length - 1) : STEP_SECONDS;
  time.forEach((t, i) => {
    const isThere = columns.every((column) => column[i] != null);
    if (isThere && (run === null || t - before > Math.max(usual, STEP_SECONDS) * 3)) { run = []; list.push(run); }
    if (isThere) run.push(i); else run = null;
    before = t;
  });
  return list;
}

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.figure = document.getElementById(spec.id);
    this.when = element("span", { class: "when" });
    this.figure.append(element("figcaption", {}, element("h2", {}, spec.title), this.when));
    this.svg = shape("svg", { class: "plot", height: 180, role: "img", tabindex: 0 });
    this.legend = element("ul", { class: "legend" });
    this.spoken = element("p", { class: "hidden-text", "aria-live": "polite" });
    this.figure.append(this.svg, this.legend, this.spoken);
    this.svg.addEventListener("pointermove", (event) => point(this.timeAt(event.offsetX)));
    this.svg.addEventListener("pointerleave", () => point(null));
    this.svg.addEventListener("blur", () => point(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.figure);
  }

  series() { return this.spec.series.filter((one) => !one.needsCold || hasCold()); }

  timeAt(x) {
    if (!this.time?.length) return null;
    const t = this.from + (x - this.left) / (this.right - this.left) * (this.to - this.from);
    return this.time.reduce((best, one) => Math.abs(one - t) < Math.abs(best - t) ? one : best);
  }

  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -12, PageDown: 12, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") point(null);
    if (move === undefined || !this.time?.length) return;
    event.preventDefault();
    const last = this.time.length - 1;
    const at = cursor === null ? last + (move < 0 ? 1 : 0) : this.index();
    point(this.time[Math.min(Math.max(at + move, 0), last)]);
    this.spoken.textContent = this.words();
  }

  // The point that is shown in words: the one that is pointed at, or the last.
  index() {
    if (cursor === null) return this.time.length - 1;
    let best = 0;
    this.time.forEach((t, i) => { if (Math.abs(t - cursor) < Math.abs(this.time[best] - cursor)) best = i; });
    return best;
  }

  words() {
    const i = this.index();
    if (i < 0) return `${this.spec.title}: no figures yet`;
    const parts = this.series().map((one, k) => `${one.name} ${this.spec.format(this.values[k][i])}`);
    if (this.spec.extra) parts.push(`${this.spec.extra.name} ${this.spec.extra.format(this.extra[i])}`);
    return `${this.spec.title}, ${clock(this.time[i])}: ${parts.join(", ")}`;
  }

  draw() {
    const { spec } = this;
    const width = this.svg.clientWidth, height = 180;
    if (width < 50) return;
    const series = this.series();
    this.to = data.time.length ? data.time[data.time.length - 1] : 0;
    this.from = Math.max(this.to - range, Math.min(data.time[0] ?? 0, this.to - 60));
    const columns = [...series, ...(spec.limit ? [{ value: spec.limit }] : []), ...(spec.extra ? [spec.extra] : [])];
    const view = inView(this.from, Math.min(240, Math.floor(width / 3)), columns, spec.keep);
    this.time = view.time;
    this.values = view.values.slice(0, series.length);
    const limit = spec.limit ? view.values[series.length] : null;
    this.extra = spec.extra ? view.values[view.values.length - 1] : null;

    this.left = 52; this.right = width - 6;
    const top = 8, bottom = height - 20;
    const all = this.values.flat().filter((v) => v != null);
    const totals = spec.stacked ? this.time.map((_, i) => this.values.reduce((sum, column) => sum + (column[i] ?? 0), 0)) : all;
    const highest = Math.max(0, ...totals, ...(limit ?? []).filter((v) => v != null));
    const ticks = spec.log ? (all.length ? decades(Math.max(Math.min(...all), 0.1), Math.max(highest, 1)) : [1, 10, 100, 1000]) :
      spec.top ? [0, 0.25, 0.5, 0.75, 1] : steps(highest, spec.binary);
    const low = spec.log ? ticks[0] : spec.mirrored ? -ticks[ticks.length - 1] : 0;
    const high = ticks[ticks.length - 1];
    const y = spec.log
      ? (v) => bottom - Math.log(Math.max(v, low) / low) / Math.log(high / low) * (bottom - top)
      : (v) => bottom - (v - low) / (high - low) * (bottom - top);
    const x = (t) => this.left + (t - this.from) / (this.to - this.from || 1) * (this.right - this.left);

    const parts = [];
    const shown = spec.mirrored ? [...new Set([...ticks.filter((_, i) => i % 2 === 0 || ticks.length < 4), high].flatMap((v) => [v, -v]))] : ticks;
    for (const tick of shown) {
      const at = Math.round(y(tick)) + 0.5;
      parts.push(shape("line", { class: tick === 0 && spec.mirrored ? "zero" : "grid", x1: this.left, x2: this.right, y1: at, y2: at }));
      parts.push(shape("text", { x: this.left - 7, y: at + 4, "text-anchor": "end" }, (spec.tick ?? spec.format)(tick)));
    }
    const span = this.to - this.from;
    const every = [15, 30, 60, 120, 300, 600, 900].find((s) => span / s <= Math.max(2, (width - 60) / 90)) ?? 1800;
    for (let t = Math.ceil(this.from / every) * every; t <= this.to; t += every) {
      const anchor = x(t) > this.right - 18 ? "end" : x(t) < this.left + 18 ? "start" : "middle";
      parts.push(shape("text", { x: x(t), y: height - 4, "text-anchor": anchor }, every < 60 ? clock(t) : clockShort(t)));
    }
    if (all.length === 0) {
      parts.push(shape("text", { class: "empty", x: (this.left + this.right) / 2, y: (top + bottom) / 2, "text-anchor": "middle" }, "nothing in this time"));
    }

    const floor = this.time.map(() => 0);
    series.forEach((one, k) => {
      const column = spec.mirrored && k === 1 ? this.values[k].map((v) => v == null ? null : -v) : this.values[k];
      const upper = spec.stacked ? column.map((v, i) => v == null ? null : floor[i] + v) : column;
      for (const run of runs(this.time, upper)) {
        const line = run.map((i) => `${x(this.time[i]).toFixed(1)},${y(upper[i]).toFixed(1)}`);
        if (spec.stacked || spec.mirrored || one.area) {
          const back = run.slice().reverse().map((i) => `${x(this.time[i]).toFixed(1)},${y(spec.stacked ? floor[i] : 0).toFixed(1)}`);
          parts.push(shape("path", { class: `area ${one.color}`, d: `M${line.join("L")}L${back.join("L")}Z` }));
        }
        if (!spec.stacked) {
          // A point without neighbours is a dot: a line with round ends and no length.
          if (line.length === 1) line.push(line[0]);
          parts.push(shape("path", { class: `line ${one.color}${one.dashed ? " dashed" : ""}`, d: `M${line.join("L")}` }));
        }
      }
      if (spec.stacked) upper.forEach((v, i) => { if (v != null) floor[i] = v; });
    });
    if (limit) {
      for (const run of runs(this.time, limit)) {
        const line = run.map((i) => `${x(this.time[i]).toFixed(1)},${y(limit[i]).toFixed(1)}`);
        parts.push(shape("path", { class: "limit", d: `M${line.join("L")}` }));
      }
    }
    const i = this.index();
    if (cursor !== null && i >= 0) {
      const at = Math.round(x(this.time[i])) + 0.5;
      parts.push(shape("line", { class: "cursor", x1: at, x2: at, y1: top, y2: bottom }));
    }
    this.svg.replaceChildren(...parts);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", this.words());
    this.when.textContent = cursor !== null && i >= 0 ? clock(this.time[i]) : "";
    this.drawLegend(series, limit, i);
  }

  drawLegend(series, limit, i) {
    const { spec } = this;
    const entries = series.map((one, k) => this.entry(one, spec.stacked || spec.mirrored || one.area, one.name, spec.format(this.values[k][i])));
    if (limit) entries.push(this.entry({ limit: true }, false, spec.limitName, spec.format(limit[i])));
    if (spec.extra) entries.push(element("li", {}, spec.extra.name, element("b", {}, ` ${spec.extra.format(this.extra[i])}`)));
    this.legend.replaceChildren(...entries);
  }

  entry(one, isArea, name, value) {
    const key = shape("svg", { width: 14, height: 10, "aria-hidden": "true" });
    key.append(isArea ? shape("rect", { class: `area ${one.color}`, width: 14, height: 10, rx: 2 }) :
      shape("path", { class: one.limit ? "limit" : `line ${one.color}${one.dashed ? " dashed" : ""}`, d: "M0 5H14" }));
    const item = element("li", {}, name, element("b", {}, ` ${value}`));
    item.prepend(key);
    return item;
  }
}

let drawn = [];
function point(time) {
  if (time === cursor) return;
  cursor = time;
  for (const chart of drawn) chart.draw();
}

// --- What is so now

function lately(value, seconds = 60) {
  const from = (data.time[data.time.length - 1] ?? 0) - seconds;
  const some = [];
  for (let i = data.time.length - 1; i >= 0 && data.time[i] > from; i -= 1) { const v = value(i); if (v != null) some.push(v); }
  return some.length ? some.reduce((a, b) => a + b) / some.length : null;
}
const latest = (name) => { const list = data.figures[name] ?? []; return list.length ? list[list.length - 1] : null; };

function tile(title, value, detail, fill) {
  const made = element("div", {}, element("dt", {}, title), element("dd", { class: "value" }, value));
  if (fill) {
    const bar = shape("svg", { class: `meter ${fill.color}`, width: "100%", height: 6, "aria-hidden": "true" });
    bar.append(shape("rect", { width: `${Math.min(100, Math.max(0, fill.share * 100)).toFixed(1)}%`, height: 6 }));
    made.append(element("dd", {}, bar));
  }
  made.append(element("dd", { class: "detail" }, detail));
  return made;
}

function drawTiles() {
  const cold = hasCold();
  const hot = lately(figure("hot_hits")), inFile = lately(figure("cold_hits")), missed = lately(figure("misses"));
  const all = hot == null ? null : hot + (inFile ?? 0) + missed;
  const share = (v) => all ? v / all : null;
  const tiles = [
    tile("Hit ratio, last minute", exactPercent(share((hot ?? 0) + (inFile ?? 0))),
      cold ? `RAM ${exactPercent(share(hot))}, file ${exactPercent(share(inFile ?? 0))}` : "of all reads"),
    tile("Commands, last minute", perSecond(all == null ? null : all + (lately(figure("sets")) ?? 0)),
      `${count(all)} reads, ${count(lately(figure("sets")))} sets`),
    tile("p99 from RAM", micro(lately(figure("hot_p99"))), `median ${micro(lately(figure("hot_p50")))}`),
  ];
  if (cold) tiles.push(tile("p99 from the file", micro(lately(figure("cold_p99"))), `median ${micro(lately(figure("cold_p50")))}`));
  const memory = latest("hot_memory"), memoryLimit = latest("hot_memory_limit");
  tiles.push(tile("RAM", bytes(memory), `of ${bytes(memoryLimit)}, ${count(latest("hot_items"))} items`,
    { color: "hot", share: memory / memoryLimit }));
  if (cold) {
    const file = (latest("file_used") ?? 0) + (latest("wal") ?? 0), limit = latest("file_limit");
    tiles.push(tile("File", bytes(file), `of ${bytes(limit)}, ${count(latest("cold_items"))} items`, { color: "cold", share: file / limit }));
  }
  document.getElementById("tiles").replaceChildren(...tiles);
  document.body.classList.toggle("without-cold", !cold);
}

function drawStatus(status) {
  document.getElementById("version").textContent = `${status.version}, up for ${duration(latest("uptime"))}`;
  document.getElementById("checks").replaceChildren(...status.checks.map((check) =>
    element("li", check.isPassed ? {} : { class: "failed" }, check.name,
      element("span", { class: "hidden-text" }, check.isPassed ? ": yes" : ": no"))));
  const most = Math.max(...status.prefixes.map((one) => one.share), 0.0001);
  const rows = status.prefixes.map((one) => {
    const bar = shape("svg", { width: 90, height: 10, "aria-hidden": "true" });
    bar.append(shape("rect", { width: (one.share / most * 90).toFixed(1), height: 10, rx: 2 }));
    const share = element("td", { class: "share" });
    share.append(bar, exactPercent(one.share));
    return element("tr", {}, element("th", { scope: "row" }, element("code", {}, one.prefix)), share,
      element("td", { class: "number" }, one.reads ? exactPercent(one.hits / one.reads) : none),
      element("td", { class: "number" }, exactPercent(one.writes / Math.max(one.reads + one.writes, 1))));
  });
  if (!rows.length) rows.push(element("tr", {}, element("td", { colspan: 4, class: "note" }, "No key with a prefix was seen yet.")));
  document.querySelector("#prefixes tbody").replaceChildren(...rows);
  const word = document.getElementById("filter").value.trim().toLowerCase();
  document.querySelector("#settings tbody").replaceChildren(...status.settings
    .filter((one) => `${one.name} ${one.value}`.toLowerCase().includes(word))
    .map((one) => element("tr", {}, element("th", { scope: "row" }, element("code", {}, one.name)),
      element("td", {}, element("code", {}, one.value)), element("td", {}, one.origin ?? ""))));
}

// The estimated hit ratio over the memory, with the place where the server is.
function drawAdvice(advice) {
  const box = document.getElementById("curve");
  box.hidden = !advice?.curve?.length;
  if (!advice) return;
  const sentences = advice.advice ?? [];
  document.getElementById("advice").replaceChildren(...sentences.map((one) => element("li", {}, one)));
  if (box.hidden) return;
  const width = box.clientWidth || 400, height = 190, left = 46, right = width - 10, top = 10, bottom = height - 22;
  const curve = advice.curve.slice().sort((a, b) => a.memory - b.memory);
  const least = curve[0].memory, most = curve[curve.length - 1].memory;
  const x = (m) => left + (most > least ? Math.log(m / least) / Math.log(most / least) : 0.5) * (right - left);
  const y = (r) => bottom - r * (bottom - top);
  const parts = [];
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    const at = Math.round(y(tick)) + 0.5;
    parts.push(shape("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
    parts.push(shape("text", { x: left - 7, y: at + 4, "text-anchor": "end" }, percent(tick)));
  }
  for (const share of width < 420 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]) {
    const memory = least * (most / least) ** share;
    parts.push(shape("text", { x: x(memory), y: height - 5, "text-anchor": share === 0 ? "start" : share === 1 ? "end" : "middle" },
      bytes(memory)));
  }
  parts.push(shape("path", { class: "line hot", d: `M${curve.map((one) => `${x(one.memory).toFixed(1)},${y(one.hitRatio).toFixed(1)}`).join("L")}` }));
  if (advice.memory >= least && advice.memory <= most) {
    parts.push(shape("circle", { class: "here", cx: x(advice.memory), cy: y(advice.hitRatio), r: 5 }));
  }
  const plot = shape("svg", { class: "plot", height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Estimated hit ratio in RAM: now ${exactPercent(advice.hitRatio)} with ${bytes(advice.memory)}; ` +
      curve.filter((_, i) => i % Math.ceil(curve.length / 8) === 0).map((one) => `${exactPercent(one.hitRatio)} with ${bytes(one.memory)}`).join(", ") });
  plot.append(...parts);
  box.replaceChildren(element("figcaption", {}, element("span", { class: "note" },
    `Estimated hit ratio in RAM by its size; the ring is now: ${exactPercent(advice.hitRatio)} with ${bytes(advice.memory)}`)), plot);
}

// --- Taking it in

function append(columns) {
  data.time.push(...columns.time);
  for (const [name, values] of Object.entries(columns.figures)) (data.figures[name] ??= []).push(...values);
  const tooMany = data.time.length - KEPT;
  if (tooMany > 0) {
    data.time.splice(0, tooMany);
    for (const values of Object.values(data.figures)) values.splice(0, tooMany);
  }
}

async function take(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

let shown = null; // the status that is shown
let isAsking = false;
async function refresh() {
  if (isAsking) return;
  isAsking = true;
  const lost = document.getElementById("lost");
  try {
    const [columns, now, advice] = await Promise.all(
      [take(`history.json?after=${data.time[data.time.length - 1] ?? 0}`), take("status.json"), take("advice")]);
    append(columns);
    shown = now;
    drawTiles();
    drawStatus(now);
    drawAdvice(advice);
    for (const chart of drawn) chart.draw();
    lostSince = null;
    lost.hidden = true;
    document.getElementById("updated").textContent = `As of ${clock(Date.now() / 1000)}.`;
    document.body.dataset.ready = "yes";
  } catch (error) {
    lostSince ??= Date.now() / 1000;
    const text = `No answer from the server since ${clock(lostSince)}; what is shown is from before. It is asked again every ${STEP_SECONDS} seconds.`;
    if (lost.textContent !== text) lost.textContent = text;
    lost.hidden = false;
  } finally {
    isAsking = false;
  }
}

drawn = charts.map((spec) => new Chart(spec));
for (const input of document.querySelectorAll("#range input")) {
  input.addEventListener("change", () => { range = Number(input.value); for (const chart of drawn) chart.draw(); });
  if (input.checked) range = Number(input.value);
}
document.getElementById("filter").addEventListener("input", () => { if (shown) drawStatus(shown); });
refresh();
setInterval(() => { if (!document.hidden) refresh(); }, STEP_SECONDS * 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
