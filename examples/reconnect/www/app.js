// Two clients of the same stream, side by side. The page publishes numbers; what is acknowledged must come
// to each of them, once and in order, whatever is broken.

import { subscribe } from "./caddy-sse.js";

const keepCells = 180; // of a tape
const keepLines = 30; // of a log
const refuseSeconds = 5;

/* What each client has got */

class Column {
  constructor(id) {
    this.root = document.getElementById(id);
    this.path = `/${id}/events`;
    this.clientID = ""; // "" = not connected
    this.last = 0; // the highest number it has got; 0 = none yet
    this.count = { received: 0, missing: 0, twice: 0, resumes: 0 };
    this.figures = {};
    for (const name of Object.keys(this.count)) {
      const figure = (this.figures[name] = element("dd", "", "0"));
      figure.dataset.figure = name;
      const pair = element("div");
      pair.append(element("dt", "", name), figure);
      this.find("dl").append(pair);
    }
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  connected({ client_id, resume }) {
    this.clientID = client_id;
    if (resume !== "none") this.count.resumes++;
    this.state("live", "Live");
    const says = { none: "Connected.", complete: "Back. Resume complete: nothing was missed.", gap: "Back. Gap: the server no longer knows." };
    this.log(resume === "gap" ? "warn" : "good", says[resume]);
    this.show();
  }

  lost(why) {
    if (this.clientID) this.log("bad", `The connection ended${why ? `: ${why}` : ""}.`);
    this.clientID = "";
  }

  tick(data) {
    const { from, n, at } = JSON.parse(data);
    if (from !== me) return; // another tab's
    if (this.last && n <= this.last) this.count.twice++;
    else {
      if (this.last) this.count.missing += n - this.last - 1;
      this.last = n;
      this.count.received++;
    }
    this.cell(n).dataset.how = Date.now() - at < 1000 ? "live" : "late";
    this.show();
  }

  // cell returns the cell of a number, with all before it.
  cell(n) {
    const tape = this.find(".tape");
    for (let next = Number(tape.lastElementChild?.dataset.n ?? n - 1) + 1; next <= n; next++) {
      tape.append(element("span", "cell"));
      tape.lastElementChild.dataset.n = next;
      if (tape.childElementCount > keepCells) tape.firstElementChild.remove();
    }
    return tape.querySelector(`[data-n="${n}"]`) ?? element("span");
  }

  show() {
    for (const [name, figure] of Object.entries(this.figures)) figure.textContent = this.count[name];
  }

  state(state, label) {
    this.find(".state").dataset.state = state;
    this.find(".label").textContent = label;
  }

  log(kind, text) {
    const line = element("li", "", text);
    line.dataset.kind = kind;
    line.prepend(element("time", "", new Date().toLocaleTimeString(undefined, { hourCycle: "h23" })));
    this.find(".log").prepend(line);
    if (this.find(".log").childElementCount > keepLines) this.find(".log").lastElementChild.remove();
  }
}

const me = crypto.getRandomValues(new Uint32Array(2)).join("-");
const columns = { browser: new Column("browser"), own: new Column("own") };

/* The browser's own */

let source;
let lastID = "";

function eventSource() {
  source?.close();
  const column = columns.browser;
  document.getElementById("anew").hidden = true;
  column.state("connecting", "Connecting");
  // The browser resumes by itself when it reconnects, but a new EventSource starts without a position.
  source = new EventSource(column.path + (lastID ? `?last_event_id=${encodeURIComponent(lastID)}` : ""));
  source.addEventListener("connected", (e) => {
    lastID = e.lastEventId;
    column.connected(JSON.parse(e.data));
  });
  source.onmessage = (e) => {
    lastID = e.lastEventId;
    column.tick(e.data);
  };
  source.onerror = (e) => {
    if ("data" in e) return; // a message may be called error: it has data
    column.lost();
    if (source.readyState === EventSource.CONNECTING) {
      column.state("reconnecting", "The browser tries again");
      return;
    }
    column.state("closed", "Given up");
    column.log("bad", "EventSource has given up for good. It does not say why.");
    document.getElementById("anew").hidden = false;
  };
}

/* Our client for JavaScript */

let subscription;

function ownClient() {
  const column = columns.own;
  subscription = subscribe(column.path, {
    clientId: false,
    lastEventId: subscription?.lastEventId,
    connected: (hello) => column.connected(hello),
    event: ({ event, data }) => event === "message" && column.tick(data),
    state(state, { why, wait }) {
      if (state !== "waiting") return;
      column.lost();
      column.state("reconnecting", `Next try in ${(wait / 1000).toFixed(1)} s`);
      column.log("warn", `Waits ${(wait / 1000).toFixed(1)} s: ${why}.`);
    },
    token(renew) {
      if (renew) {
        column.lost();
        column.log("warn", "The server answered 401. Signing in again.");
        refuse(column.path, ""); // what a page would do here: fetch a new token
      }
      return ""; // none: a cookie is all that this example has
    },
  });
}

/* Breaking it */

// refuse makes the server answer with a status, for a while; see the Caddyfile.
function refuse(path, status) {
  document.cookie = `answer=${status}; path=${path}; max-age=${status ? refuseSeconds : 0}; samesite=strict`;
}

// Our client stops for good when an operator closes it. So its line is cut as a network would: what it fetches fails.
let line = new AbortController();
const fetchWhole = window.fetch;
window.fetch = (url, options) =>
  fetchWhole(url, { ...options, signal: AbortSignal.any([line.signal, options?.signal].filter(Boolean)) });

async function breakIt(status) {
  if (status) for (const column of Object.values(columns)) refuse(column.path, status);
  line.abort(new Error("the line was cut"));
  line = new AbortController();
  const { clientID } = columns.browser;
  if (clientID) await fetch(`/sse/hubs/default/clients/${clientID}`, { method: "DELETE" }).catch(() => {});
}

/* Publishing */

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function publishForever() {
  for (let n = 1; ; n++) {
    const body = JSON.stringify({ from: me, n, at: Date.now() });
    // Sent again under the same key until it is acknowledged, so it is published once.
    while (!(await publish(body, `${me}-${n}`))) await sleep(500);
    for (const column of Object.values(columns)) if (column.last) column.cell(n);
    await sleep(500);
  }
}

async function publish(body, key) {
  const options = { method: "POST", body, headers: { "Idempotency-Key": key }, signal: AbortSignal.timeout(5000) };
  const ok = await fetch("/events?topic=ticks", options).then((answer) => answer.ok, () => false);
  document.getElementById("publishing").textContent = ok ? "publishing, two a second" : "Caddy does not answer; the page tries again";
  return ok;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/* Start */

function start() {
  eventSource();
  ownClient();
}

for (const button of document.querySelectorAll("[data-break]")) button.addEventListener("click", () => breakIt(button.dataset.break));
document.getElementById("anew").addEventListener("click", eventSource);

// A page in the back/forward cache must not hold a connection.
addEventListener("pagehide", () => {
  source.close();
  subscription.close();
});
addEventListener("pageshow", (e) => e.persisted && start());

for (const column of Object.values(columns)) refuse(column.path, ""); // of an earlier page
start();
publishForever();
