// The whole client: EventSource listens, fetch publishes. No library and no build step.

const endpoint = new URL("/events", location.href);
const keepShown = 200; // messages in the list
const keepSeen = 5000; // IDs remembered to tell a repeated message
const retrySeconds = 5; // after an answer that EventSource gives up on, but that will pass

// A browser delivers a named event only to a listener of that name.
const names = new Set(["update", "alert", "progress"]);
const builtIn = new Set(["", "message", "open", "error", "connected", "gap", "closed", "expired"]);

const $ = (id) => document.getElementById(id);

let topics = load("topics") ?? ["news"];
// Our own client_id in the URL stays the same over reconnects and reloads of this tab.
// It is a capability: whoever knows it can listen under it.
let clientID = load("client_id") ?? randomID();
save("client_id", clientID);

let source; // the EventSource in use
let diagnosis; // AbortController of the request that asks why it gave up
let retryTimer;
// The browser resumes by itself when it reconnects, but a new EventSource (other topics, Reconnect)
// starts without a position: we hand ours over in the URL.
let lastID = "";

/* Listening */

function connect() {
  disconnect();
  setState("connecting");
  setResume("");
  source = new EventSource(streamURL(lastID));
  // A message may itself be named open or error; only those carry data.
  source.onopen = (e) => ("data" in e ? show(e) : setState("live"));
  source.onerror = (e) => ("data" in e ? show(e) : lost());
  source.onmessage = show;
  source.addEventListener("connected", connected);
  source.addEventListener("gap", gap);
  source.addEventListener("closed", (e) => {
    passed(e);
    notice("closed", `The server closed this connection${because(e)}.`);
  });
  source.addEventListener("expired", (e) => {
    passed(e);
    notice("expired", `The token of this connection has expired${because(e)}.`);
  });
  for (const name of names) source.addEventListener(name, show);
}

function disconnect() {
  source?.close();
  diagnosis?.abort();
  clearTimeout(retryTimer);
  trouble("");
}

function streamURL(position) {
  const url = new URL(endpoint);
  const query = topics.map((topic) => ["topic", topic]);
  query.push(["client_id", clientID]);
  if (position) query.push(["last_event_id", position]);
  url.search = encode(query);
  return url.href;
}

function connected(e) {
  passed(e);
  const hello = JSON.parse(e.data);
  clientID = hello.client_id; // the server may have its own idea of it
  $("client-id").textContent = clientID;
  setResume(hello.resume);
  if (hello.resume === "complete") notice("resumed", "Resumed. Nothing was missed.");
  if (hello.resume === "gap") notice("gap", "Gap. The server cannot prove that nothing was missed before this point.");
  showCommands();
}

function gap(e) {
  passed(e);
  setResume("gap");
  notice("gap", `Gap${because(e)}. Messages before this point may be missing.`);
}

// lost is called whenever the stream ends. Mostly the browser is reconnecting already; after an
// answer other than 200 it has given up for good, and does not say why.
function lost() {
  setResume("");
  if (source.readyState === EventSource.CONNECTING) {
    setState("reconnecting");
    return;
  }
  setState("closed");
  giveUp(source.url);
}

async function giveUp(url) {
  const mine = (diagnosis = new AbortController());
  let reason = "The server cannot be reached.";
  let wait = retrySeconds;
  try {
    const answer = await fetch(url, {
      cache: "no-store",
      headers: { Accept: "text/event-stream" },
      signal: AbortSignal.any([mine.signal, AbortSignal.timeout(10_000)]),
    });
    if (!answer.ok) {
      reason = `${answer.status}: ${await problem(answer)}`;
      const passing = answer.status === 429 || answer.status === 503;
      wait = passing ? Number(answer.headers.get("Retry-After")) || retrySeconds : 0;
    } else if (answer.headers.get("Content-Type")?.startsWith("text/event-stream")) {
      reason = "The server refused the connection, but would take it now.";
    } else {
      reason = `${endpoint.pathname} is not an event stream on this server.`;
      wait = 0;
    }
  } catch {
    // Not reachable, or too slow: the first reason stands.
  }
  if (mine.signal.aborted) return; // meanwhile connected anew
  mine.abort(); // the answer may be an endless stream
  trouble(wait ? `${reason} Next try in ${wait} s.` : reason);
  if (wait) retryTimer = setTimeout(connect, wait * 1000);
}

// passed notes the position; it tells whether this event had an ID of its own.
function passed(e) {
  const own = e.lastEventId !== lastID; // without its own ID an event repeats the last one
  lastID = e.lastEventId;
  return own;
}

function because(e) {
  try {
    const { reason } = JSON.parse(e.data);
    return reason ? ` (${String(reason).replaceAll("_", " ")})` : "";
  } catch {
    return "";
  }
}

/* Publishing */

function publishURL() {
  const target = $("target").value;
  const query = [];
  if (target === "topic") query.push(["topic", $("topic").value]);
  if (target === "client_id") query.push(["client_id", clientID]);
  if (target === "broadcast") query.push(["broadcast"]);
  if ($("event").value) query.push(["event", $("event").value]);
  const url = new URL(endpoint);
  url.search = encode(query);
  return url.href;
}

let publishes = 0;

async function publish(submit) {
  submit.preventDefault();
  listenFor($("event").value);
  const mine = ++publishes;
  let ok = false;
  let text;
  try {
    const answer = await fetch(publishURL(), {
      method: "POST",
      body: $("data").value,
      signal: AbortSignal.timeout(15_000),
    });
    if (answer.ok) {
      const { id, receivers } = await answer.json();
      ok = true;
      text = `Published to ${receivers} ${receivers === 1 ? "client" : "clients"}, id ${id}`;
    } else {
      text = `${answer.status}: ${await problem(answer)}`;
    }
  } catch (err) {
    text =
      err.name === "TimeoutError"
        ? "No answer within 15 s. Over plain HTTP a browser opens six connections to a server: are there more tabs?"
        : "No answer: whether this was published is unknown.";
  }
  if (mine !== publishes) return; // a later one has been sent
  $("answer").dataset.ok = ok;
  $("answer").textContent = text;
}

// problem reads the explanation in an RFC 9457 body.
async function problem(answer) {
  try {
    const { detail, title } = await answer.json();
    return detail || title || answer.statusText;
  } catch {
    return answer.statusText || "the server gave no reason";
  }
}

function listenFor(name) {
  if (builtIn.has(name) || names.has(name)) return;
  names.add(name);
  source.addEventListener(name, show);
  showNames();
}

/* Showing. Whatever comes from outside goes in as text, never as HTML. */

const labels = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", closed: "Closed" };
const resumes = {
  none: "none (new client)",
  complete: "complete",
  gap: "gap",
};
const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hourCycle: "h23",
});
const seen = new Set();
let count = 0;

function setState(state) {
  $("state").dataset.state = state;
  $("state-text").textContent = labels[state];
  document.title = state === "live" ? "caddy-sse quickstart" : `${labels[state]} · caddy-sse quickstart`;
}

function setResume(resume) {
  $("resume").dataset.resume = resume;
  $("resume").textContent = resumes[resume] ?? "…";
}

function trouble(text) {
  $("trouble-text").textContent = text;
  $("trouble").hidden = !text;
}

function show(e) {
  const id = passed(e) ? e.lastEventId : "";
  const item = element("li", "message");
  item.dataset.id = id;
  item.dataset.event = e.type;

  const head = element("div", "head");
  head.append(element("span", "name", e.type));
  if (id && seen.has(id)) {
    item.dataset.repeat = "";
    head.append(element("span", "tag", "seen before"));
  }
  const now = new Date();
  const time = element("time", "", clock.format(now));
  time.dateTime = now.toISOString();
  head.append(time, element("code", "id", id || "not kept, no ID"));

  item.append(head, element("pre", "data", e.data));
  prepend(item);

  if (id) seen.add(id);
  if (seen.size > keepSeen) seen.delete(seen.values().next().value);
  $("count").textContent = ++count;
}

function notice(kind, text) {
  const item = element("li", "notice", text);
  item.dataset.kind = kind;
  prepend(item);
  $("announce").textContent = text;
}

function prepend(item) {
  $("messages").prepend(item);
  while ($("messages").childElementCount > keepShown) {
    $("messages").lastElementChild.remove();
    $("trimmed").hidden = false;
  }
  $("empty").hidden = true;
}

function showTopics() {
  $("topics").replaceChildren(
    ...topics.map((topic, i) => {
      const chip = element("li", "chip");
      chip.dataset.topic = topic;
      const remove = element("button", "", "×");
      remove.type = "button";
      remove.setAttribute("aria-label", `Unsubscribe from ${topic}`);
      remove.addEventListener("click", () => {
        setTopics(topics.filter((t) => t !== topic));
        // The button is gone; the keyboard goes on with its neighbour.
        const left = $("topics").querySelectorAll("button");
        (left[Math.min(i, left.length - 1)] ?? $("new-topic")).focus();
      });
      chip.append(element("span", "", topic), remove);
      return chip;
    }),
  );
  $("no-topics").hidden = topics.length > 0;
}

function setTopics(next) {
  topics = next;
  save("topics", topics);
  showTopics();
  showCommands();
  connect();
}

function showNames() {
  $("listening").textContent = ["message", ...names].join(", ");
  $("names").replaceChildren(...[...names].map((name) => new Option(name)));
}

function showCommands() {
  const listen = new URL(endpoint);
  listen.search = encode(topics.map((topic) => ["topic", topic]));
  $("curl-listen").textContent = `curl -N ${quote(listen.href)}`;

  const byTopic = $("target").value === "topic";
  $("topic-field").hidden = !byTopic;
  $("topic").disabled = !byTopic; // so that an empty one does not hold up the form
  const data = $("data").value;
  const flag = data.startsWith("@") ? "--data-raw" : "-d"; // -d @x would send the file x
  $("curl").textContent = `curl ${flag} ${quote(data)} ${quote(publishURL())}`;
}

/* Small things */

function encode(query) {
  const part = (text) => encodeURIComponent(text.toWellFormed?.() ?? text).replaceAll("%2F", "/");
  return query.map((pair) => pair.map(part).join("=")).join("&");
}

function quote(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function randomID() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// Storage may be blocked; then this tab forgets when it is reloaded.
function load(key) {
  try {
    return JSON.parse(sessionStorage.getItem(`caddy-sse.${key}`));
  } catch {
    return null;
  }
}

function save(key, value) {
  try {
    sessionStorage.setItem(`caddy-sse.${key}`, JSON.stringify(value));
  } catch {
    // see load
  }
}

async function copy(button) {
  const from = $(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(from.textContent);
    button.textContent = "Copied";
    $("announce").textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  } catch {
    getSelection().selectAllChildren(from); // not allowed here: leave it to Ctrl+C
  }
}

/* Start */

$("subscribe").addEventListener("submit", (e) => {
  e.preventDefault();
  const topic = $("new-topic").value.trim();
  $("new-topic").value = "";
  if (topic && !topics.includes(topic)) setTopics([...topics, topic]);
});
$("publish").addEventListener("submit", publish);
$("publish").addEventListener("input", showCommands);
$("data").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) {
    e.preventDefault();
    $("publish").requestSubmit();
  }
});
$("reconnect").addEventListener("click", connect);
$("clear").addEventListener("click", () => {
  $("messages").replaceChildren();
  $("trimmed").hidden = true;
  $("empty").hidden = false;
});
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));

// A page in the back/forward cache must not hold a connection.
addEventListener("pagehide", disconnect);
addEventListener("pageshow", (e) => e.persisted && connect());

$("client-id").textContent = clientID;
showTopics();
showNames();
showCommands();
connect();
