// The dashboard: it asks again and again and shows the answers. No library and no build step, and
// nothing streams: Caddy's admin endpoint waits for its requests at every reload.

import { $, ask, button, element, formats, query, setText, show, since } from "./parts.js";
import { showHubs, showSeries } from "./hubs.js";
import { showPolicies, showPresence } from "./presence.js";

const pollEvery = 2000;
const watchEvery = 1000;
const pageSize = 100; // rows that are ever shown of a list
const watched = 50; // messages

let selected = ""; // the hub of the detail
let all = []; // hubs, as they were last
const path = (rest) => `hubs/${encodeURIComponent(selected)}/${rest}`;

/* Polling */

let timer;
let rounds = 0;

// poll asks for all that is on the screen, and again a while after the answers came.
async function poll() {
  clearTimeout(timer);
  const mine = ++rounds;
  try {
    const { hubs } = await ask("hubs");
    if (mine !== rounds) return; // a newer round has begun
    all = hubs;
    showHubs(hubs, performance.now());
    setState("live", "Live");
    trouble("");
    showDetail();
    await Promise.all([clients.load(), topics.load(), answers.load()]);
  } catch (err) {
    if (mine !== rounds) return;
    setState("stale", "Out of reach");
    trouble(`${err.message} The numbers are those of ${clock.format(lastLive)}; asking again every ${pollEvery / 1000} s.`);
  }
  if (mine === rounds && !document.hidden) timer = setTimeout(poll, pollEvery);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
let lastLive = new Date();

function setState(state, text) {
  if (state === "live") lastLive = new Date();
  if ($("state").dataset.state === state) return;
  $("state").dataset.state = state;
  $("state-text").textContent = text;
}

function trouble(text, where = "trouble") {
  $(where).hidden = !text;
  if ($(where).textContent !== text) $(where).textContent = text;
}

/* The detail of one hub */

// select follows the address: #hub=name.
function select() {
  const name = new URLSearchParams(location.hash.slice(1)).get("hub") ?? "";
  if (name !== selected) {
    selected = name;
    stopWatching();
    $("clients-filter").reset();
    applied = {};
    for (const answer of document.querySelectorAll(".answer")) answer.textContent = "";
    clients.restart();
    answers.restart();
    topics.restart();
    showDetail();
    if (name) $("detail-title").focus({ preventScroll: false });
  }
  poll();
}

function showDetail() {
  const hub = all.find((one) => one.name === selected);
  $("detail").hidden = !hub;
  for (const card of $("hubs").children) card.toggleAttribute("data-selected", card.dataset.hub === selected);
  document.title = selected && hub ? `${selected} · caddy-sse` : "caddy-sse";
  if (!hub) return;
  $("detail-name").textContent = selected;
  showSeries(hub);
  showPolicies(hub);
}

// Pages shows one page of a list and goes back and forth between pages.
class Pages {
  #cursors = [""]; // where each page up to this one goes on after
  #next = "";
  #asked = 0;

  constructor(name, filter, keyOf, make, update) {
    Object.assign(this, { name, filter, keyOf, make, update });
    this.pager = document.querySelector(`[data-pager=${name}]`);
    this.empty = document.querySelector(`[data-empty=${name}]`);
    this.pager.addEventListener("click", (e) => this.#go(e.target.dataset.go));
  }

  restart() {
    this.#cursors = [""];
    this.#next = "";
    this.#asked++; // whatever is under way is too late
    $(this.name).tBodies[0].replaceChildren();
  }

  #go(direction) {
    if (direction === "next" && this.#next) {
      this.#cursors.push(this.#next);
      this.#next = ""; // one page at a time
    } else if (direction === "previous" && this.#cursors.length > 1) this.#cursors.pop();
    else return;
    $(this.name).parentElement.scrollTop = 0;
    this.load();
  }

  async load() {
    if (!selected) return;
    const mine = ++this.#asked;
    try {
      const after = this.#cursors.at(-1);
      const answer = await ask(path(this.name) + query({ ...this.filter(), limit: pageSize, after }));
      if (mine !== this.#asked) return;
      trouble("", `${this.name}-trouble`);
      this.#show(answer[this.name], answer.next);
    } catch (err) {
      if (mine === this.#asked) trouble(err.message, `${this.name}-trouble`);
    }
  }

  #show(items, next) {
    this.#next = next;
    const page = this.#cursors.length;
    show($(this.name).tBodies[0], items, this.keyOf, this.make, this.update);
    this.empty.hidden = items.length > 0;
    $(this.name).parentElement.hidden = items.length === 0;
    const [previous, forward] = this.pager.querySelectorAll("button");
    this.pager.hidden = page === 1 && !next;
    enable(previous, page > 1);
    enable(forward, next !== "");
    setText(this.pager.querySelector("[data-page]"), `Page ${formats.count(page)}`);
    const first = (page - 1) * pageSize;
    setText($(`${this.name}-range`), items.length ? `${formats.count(first + 1)} to ${formats.count(first + items.length)}` : "");
  }
}

// enable keeps the focus on a button that can no longer be used.
function enable(what, yes) {
  if (!yes && what === document.activeElement) what.parentElement.querySelector("button:enabled:not(:focus)")?.focus();
  what.disabled = !yes;
}

function cell(label, content, className = "") {
  const made = element("td", className);
  made.dataset.label = label;
  made.append(content);
  return made;
}

const clients = new Pages(
  "clients",
  () => applied,
  (client) => `${client.client_id} ${client.since}`,
  (client) => {
    const row = document.createElement("tr");
    row.dataset.client = client.client_id;
    const id = element("th", "");
    id.scope = "row";
    id.append(element("code", "", client.client_id));
    const close = button("Close", `Close client ${client.client_id}`, () => askToKick(client.client_id));
    close.dataset.kick = "";
    row.append(
      id,
      cell("User", client.user ?? ""),
      cell("Topics", (client.topics ?? []).join(", "), "topics"),
      cell("Connected", element("time", "")),
      cell("Waiting", "", "number"),
      cell("", close, "action"),
    );
    return row;
  },
  (row, client) => {
    const time = row.querySelector("time");
    time.dateTime = client.since;
    time.title = client.since;
    time.textContent = since(client.since);
    row.cells[4].textContent = formats.count(client.queued);
  },
);

const topics = new Pages(
  "topics",
  () => ({}),
  (topic) => `${topic.topic} ${topic.presence ?? false}`,
  ({ topic, presence }) => {
    const row = document.createElement("tr");
    row.dataset.topic = topic;
    const name = element("th", "");
    name.scope = "row";
    name.append(element("code", "", topic));
    const actions = element("div", "actions");
    actions.append(button("Clients", `Show clients of ${topic}`, () => filterByTopic(topic)));
    if (!isPattern(topic)) {
      const purge = button("Purge", `Purge ${topic}`, () => askToPurge(topic));
      purge.dataset.purge = "";
      actions.append(button("Watch", `Watch ${topic}`, () => startWatching(topic)), purge);
    }
    if (presence) actions.append(button("Who", `Who is at ${topic}`, () => showPresence(path("presence"), topic)));
    row.append(name, cell("Clients", "", "number"), cell("Kept", "", "number"), cell("", actions, "action"));
    return row;
  },
  (row, topic) => {
    row.cells[1].textContent = formats.count(topic.clients);
    row.cells[2].textContent = formats.count(topic.kept);
    const purge = row.querySelector("[data-purge]");
    if (purge) purge.disabled = topic.kept === 0;
  },
);

const answers = new Pages(
  "answers",
  () => ({}),
  (answer) => answer.id,
  (answer) => {
    const row = document.createElement("tr");
    row.dataset.answer = answer.id;
    const id = element("th", "");
    id.scope = "row";
    id.append(element("code", "", answer.id));
    const stop = button("Stop", `Stop answer ${answer.id}`, () => stopAnswer(answer.id));
    row.append(
      id,
      cell("State", ""),
      cell("Asked", element("time", "")),
      cell("Events", "", "number"),
      cell("Readers", "", "number"),
      cell("", stop, "action"),
    );
    return row;
  },
  (row, answer) => {
    row.cells[1].textContent = answer.state;
    const time = row.querySelector("time");
    time.dateTime = answer.since;
    time.title = answer.since;
    time.textContent = since(answer.since);
    row.cells[3].textContent = formats.count(answer.events);
    row.cells[4].textContent = formats.count(answer.readers);
  },
);

async function stopAnswer(id) {
  try {
    await ask(path(`answers/${id}`), { method: "DELETE" });
    tell("stop-answer", true, `Stopped ${id}`);
  } catch (err) {
    tell("stop-answer", false, err.message);
  }
  poll();
}

const field = (name) => $("clients-filter").elements[name];
let applied = {}; // the filter as it was when it was asked for
const isPattern = (topic) => topic.split("/").some((segment) => segment === "*" || segment === "**");

function filterByTopic(topic) {
  field("topic").value = topic;
  filterClients();
  $("clients-title").scrollIntoView({ block: "nearest" });
  field("topic").focus();
}

function filterClients() {
  applied = { topic: field("topic").value, user: field("user").value };
  clients.restart();
  clients.load();
}

/* Closing a client */

let toKick = "";

function askToKick(id) {
  toKick = id;
  $("kick-id").textContent = id;
  $("kick").showModal();
  $("kick-cancel").focus();
}

async function kick() {
  $("kick").close();
  // A path that ends with . or .. would be another one.
  const where = /^\.{1,2}$/.test(toKick) ? `clients?client_id=${toKick}` : `clients/${toKick}`;
  try {
    const { closed } = await ask(path(where), { method: "DELETE" });
    tell("kick-answer", true, `Closed ${toKick}: ${closed} ${closed === 1 ? "connection" : "connections"}`);
  } catch (err) {
    tell("kick-answer", false, err.message);
  }
  poll();
}

/* Purging a topic */

let toPurge = "";

function askToPurge(topic) {
  toPurge = topic;
  $("purge-topic").textContent = topic;
  $("purge").showModal();
  $("purge-cancel").focus();
}

async function purge() {
  $("purge").close();
  try {
    await ask(path(`topics${query({ topic: toPurge })}`), { method: "DELETE" });
    tell("purge-answer", true, `Purged ${toPurge}`);
  } catch (err) {
    tell("purge-answer", false, err.message);
  }
  poll();
}

function tell(where, ok, text) {
  $(where).dataset.ok = ok;
  $(where).textContent = text;
}

/* Publishing */

let publishes = 0;

async function publish(submit) {
  submit.preventDefault();
  const mine = ++publishes;
  const target = $("target").value;
  const message = { [target]: target === "broadcast" ? true : $("name").value, data: $("data").value };
  if ($("event").value) message.event = $("event").value;
  let ok = false;
  let text;
  try {
    const { id, receivers } = await ask(path("publish"), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(message),
    });
    ok = true;
    text = `Published to ${formats.count(receivers)} ${receivers === 1 ? "client" : "clients"}, id ${id}`;
  } catch (err) {
    text = err.message;
  }
  if (mine === publishes) tell("answer", ok, text);
}

function showTarget() {
  const choice = $("target").selectedOptions[0];
  const named = choice.value !== "broadcast";
  $("name-field").hidden = !named;
  $("name").disabled = !named; // so that an empty one does not hold up the form
  $("name-label").textContent = choice.value === "client_id" ? "Client ID" : choice.text;
}

/* Watching a topic */

let watching = null; // the topic
let watchTimer;

function startWatching(topic) {
  stopWatching();
  watching = topic;
  $("watch-topic").value = topic;
  $("watch-stop").disabled = false;
  setText($("watch-state"), `Watching ${topic}`);
  $("watch-topic").focus();
  $("watch-title").scrollIntoView({ block: "nearest" });
  watch();
}

function stopWatching() {
  clearTimeout(watchTimer);
  watching = null;
  $("watch-stop").disabled = true;
  $("watch-state").textContent = "Not watching";
  trouble("", "watch-trouble");
  $("messages").replaceChildren();
  document.querySelector("[data-empty=messages]").hidden = true;
  $("messages").hidden = true;
}

async function watch() {
  clearTimeout(watchTimer);
  const topic = watching;
  try {
    const { messages } = await ask(path("messages") + query({ topic, limit: watched }));
    if (topic !== watching) return;
    trouble("", "watch-trouble");
    document.querySelector("[data-empty=messages]").hidden = messages.length > 0;
    $("messages").hidden = messages.length === 0;
    show($("messages"), messages.reverse(), (m) => m.id, makeMessage);
  } catch (err) {
    if (topic !== watching) return;
    trouble(err.message, "watch-trouble");
  }
  if (!document.hidden) watchTimer = setTimeout(watch, watchEvery);
}

function makeMessage(m) {
  const item = element("li", "message");
  item.dataset.id = m.id;
  const head = element("div", "head");
  const time = element("time", "", clock.format(new Date(m.time)));
  time.dateTime = m.time;
  head.append(element("span", "name", m.event || "message"), time, element("code", "id", m.id));
  item.append(head, element("pre", "data", m.data));
  if (m.bytes > new TextEncoder().encode(m.data).length) {
    item.append(element("p", "small", `The beginning of ${formats.bytes(m.bytes)}.`));
  }
  return item;
}

/* Start */

$("clients-filter").addEventListener("submit", (e) => {
  e.preventDefault();
  filterClients();
});
$("clients-filter").addEventListener("reset", () => setTimeout(filterClients));
$("purge-confirm").addEventListener("click", purge);
$("purge-cancel").addEventListener("click", () => $("purge").close());
$("kick-confirm").addEventListener("click", kick);
$("kick-cancel").addEventListener("click", () => $("kick").close());
$("publish").addEventListener("submit", publish);
$("target").addEventListener("input", showTarget);
$("data").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) {
    e.preventDefault();
    $("publish").requestSubmit();
  }
});
$("watch").addEventListener("submit", (e) => {
  e.preventDefault();
  startWatching($("watch-topic").value);
});
$("watch-stop").addEventListener("click", () => {
  stopWatching();
  $("watch-topic").focus();
});
// A page nobody looks at asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  poll();
  if (watching !== null) watch();
});
addEventListener("hashchange", select);

showTarget();
stopWatching();
select();
