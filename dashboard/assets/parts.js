// What the page is made of. Whatever comes from outside goes in as text, never as HTML.

export const $ = (id) => document.getElementById(id);

export function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

// setText leaves alone what says so already, which some may be reading, or hear.
export function setText(where, text) {
  if (where.textContent !== text) where.textContent = text; // or a screen reader repeats it
}

export function button(text, label, onClick) {
  const made = element("button", "quiet", text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", onClick);
  return made;
}

/* Asking the server. The page lives at /sse/, and all it asks for beside it. */

export class Refusal extends Error {}

// ask returns the decoded answer. Any other is an error that says what the server said.
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(10_000), ...options });
  } catch (err) {
    throw new Error(err.name === "TimeoutError" ? "No answer within 10 s." : "Caddy's admin endpoint does not answer.");
  }
  let body;
  try {
    body = await answer.json();
  } catch {
    body = {};
  }
  if (!answer.ok) {
    const reason = body.detail || body.error || answer.statusText || "the server gave no reason";
    throw new Refusal(`${answer.status}: ${reason}`);
  }
  return body;
}

// query writes parameters, without those that are empty.
export function query(values) {
  const filled = Object.entries(values).filter(([, value]) => value !== "" && value !== undefined);
  return filled.length ? `?${new URLSearchParams(filled)}` : "";
}

/* Numbers */

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });

export const formats = {
  count: (n) => whole.format(n),
  bytes(n) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let i = 0;
    for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
    return `${fine.format(n)} ${units[i]}`;
  },
  below(seconds) {
    if (seconds === undefined) return "–";
    if (seconds === Infinity) return "over 10 s";
    return seconds < 1 ? `≤ ${fine.format(seconds * 1000)} ms` : `≤ ${fine.format(seconds)} s`;
  },
  rate: (n) => `${n < 1000 ? fine.format(n) : whole.format(n)}/s`,
};

// since says how long ago a time is, shortly.
export function since(time, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/* Lists that change under the reader's hands */

// show makes the children of a list those of items, in their order. An element whose item stays is
// updated where it is, so that focus and selection stay too.
export function show(list, items, keyOf, make, update) {
  const old = new Map();
  for (const child of list.children) old.set(child.dataset.key, child);
  const wanted = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, child] of old) {
    if (!wanted.has(key)) removeKeepingFocus(child);
  }
  let at = list.firstElementChild;
  for (const [key, item] of wanted) {
    let child = old.get(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    update?.(child, item);
    if (child === at) at = at.nextElementSibling;
    else list.insertBefore(child, at);
  }
}

// removeKeepingFocus hands the focus of a removed row to its neighbour.
function removeKeepingFocus(child) {
  if (child.contains(document.activeElement)) {
    const next = (child.nextElementSibling ?? child.previousElementSibling)?.querySelector("button");
    next?.focus();
  }
  child.remove();
}

/* Charts */

const width = 120;
const height = 32;

// Chart draws the last samples of a rate as a line.
export class Chart {
  #name;
  #values = [];
  #line = svg("path", { class: "line" });
  #area = svg("path", { class: "area" });
  #root = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" });
  #text;

  constructor(figure, name) {
    this.#name = name;
    this.#root.append(this.#area, this.#line);
    this.#text = figure.querySelector("b");
    figure.append(this.#root);
    this.#draw();
  }

  add(value, keep) {
    this.#values.push(value);
    if (this.#values.length > keep) this.#values.shift();
    this.#draw(keep);
  }

  #draw(keep = 2) {
    const values = this.#values;
    const top = Math.max(1, ...values);
    const x = (i) => (((keep - values.length + i) / (keep - 1)) * width).toFixed(1);
    const y = (v) => (height - 1 - (v / top) * (height - 3)).toFixed(1);
    // A single sample is drawn as a dot.
    const line = values.length === 1 ? `M${x(0)} ${y(values[0])}h0` : values.map((v, i) => `${i ? "L" : "M"}${x(i)} ${y(v)}`).join("");
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", line && `${line}V${height}H${x(0)}Z`);
    const now = values.length ? formats.rate(values.at(-1)) : "…";
    this.#text.textContent = now;
    this.#root.setAttribute("aria-label", `${this.#name}: ${now} now, at most ${formats.rate(Math.max(0, ...values))} lately`);
  }
}

function svg(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
