// A page that must not miss a message. It listens and publishes, all through the front.

import { subscribe } from "./caddy-sse.js";

const events = new URL("/events?topic=cluster", location.href);
const keepShown = 100; // lines of what happened
const keepCells = 240; // of the tape
const retrySeconds = 1; // before a number is published again

const $ = (id) => document.getElementById(id);

/* Listening */

let subscription;
let lostAt = 0; // 0 = connected, or never yet
let reconnects = 0;

function connect() {
  subscription = subscribe(events, {
    clientId: false, // the instances make it up, and begin it with their names; see instance.caddyfile
    lastEventId: subscription?.lastEventId,
    connected,
    event: ({ event, data }) => event === "message" && received(data),
    gap(reason) {
      setResume("gap");
      if (reason !== "resume") happened("warn", `Gap (${reason}): something may be missed.`);
    },
    state(state, why) {
      setState(state);
      if (state === "waiting" || state === "closed") lost(why);
    },
  });
}

function connected({ client_id, resume }) {
  const instance = client_id.split(".")[0];
  if (resume !== "none") $("reconnects").textContent = ++reconnects;
  setInstance(instance);
  setResume(resume);
  const after = lostAt ? ` after ${((performance.now() - lostAt) / 1000).toFixed(1)} s` : "";
  if (resume === "none") happened("good", `Connected to ${instance}${after}.`);
  if (resume === "complete") happened("good", `Connected to ${instance}${after}. Resume complete: nothing is missed.`);
  if (resume === "gap") happened("warn", `Connected to ${instance}${after}. Gap: something may be missed.`);
  lostAt = 0;
  trouble("");
  for (const id of ["once", "toggle"]) $(id).disabled = false;
}

// lost is called when the stream ends, and again whenever a reconnect fails. The front answers 502 while both instances
// are dead.
function lost({ why, status }) {
  if (!lostAt) {
    lostAt = performance.now();
    happened("bad", here ? `Lost the connection to ${here}.` : "There is no connection.");
  }
  setInstance("");
  if (status === 502 || status === 503) trouble("No instance answers. The page goes on asking.");
  else if (status) trouble(`The server refuses the connection: ${why}`);
}

/* Counting */

const me = crypto.getRandomValues(new Uint32Array(2)).join("-");

// By sender: the highest number received, and the lower ones that were not. A sender publishes a
// number only once the one before has been acknowledged, so a number that arrives proves that
// all before it were in the log.
const senders = new Map([[me, { highest: 0, missing: new Set() }]]);
const count = { received: 0, others: 0, missing: 0, twice: 0 };

function received(data) {
  const { from, n } = parse(data);
  if (!from) {
    happened("note", `Message: ${data}`);
    return;
  }
  if (!senders.has(from)) senders.set(from, { highest: n - 1, missing: new Set() });
  const sender = senders.get(from);
  if (n <= sender.highest && !sender.missing.delete(n)) {
    count.twice++;
    cell(n).dataset.twice = "";
    happened("bad", `#${n} came twice.`);
  } else {
    for (let skipped = sender.highest + 1; skipped < n; skipped++) {
      sender.missing.add(skipped);
      cell(skipped).dataset.missing = "";
      happened("bad", `#${skipped} is missing.`);
    }
    sender.highest = Math.max(sender.highest, n);
    count[from === me ? "received" : "others"]++;
    cell(n).dataset.instance = here;
  }
  count.missing = [...senders.values()].reduce((sum, { missing }) => sum + missing.size, 0);
  showCounts();
}

// parse returns what a page like this one has published. Anything else is a message from elsewhere.
function parse(data) {
  try {
    const { from, n } = JSON.parse(data);
    if (typeof from === "string" && Number.isSafeInteger(n)) return { from, n };
  } catch {
    // not JSON
  }
  return {};
}

/* Publishing */

let wanted = 0; // numbers that are to be published
let published = 0; // those acknowledged
let publishing = false;
let ticker;
const took = {}; // by instance, the publishes it acknowledged

function want() {
  wanted++;
  publishWaiting();
}

// publishWaiting publishes one number after the other until none waits.
async function publishWaiting() {
  showCounts();
  if (publishing) return;
  publishing = true;
  while (published < wanted) {
    if (await publish(published + 1)) published++;
    else stop();
    showCounts();
  }
  publishing = false;
}

// publish returns once the number is in the log for certain, however long that takes. It is false if
// that will never be.
async function publish(n) {
  for (let tries = 1; ; tries++) {
    const { instance, failure, wait } = await tryToPublish(n);
    if (!failure) {
      took[instance] = (took[instance] ?? 0) + 1;
      if (tries > 1) happened("good", `#${n} is acknowledged by ${instance || "an instance"}, at try ${tries}.`);
      return true;
    }
    if (wait === undefined) {
      happened("bad", `#${n} is refused. ${failure}`);
      return false;
    }
    if (tries === 1) happened("warn", `#${n} is not acknowledged; trying again. ${failure}`);
    await new Promise((done) => setTimeout(done, wait * 1000));
  }
}

// tryToPublish tells how long to wait before the next try, if one makes sense. The key makes sure that
// a try of which we do not know what became of it, and the next, publish once.
async function tryToPublish(n) {
  let answer;
  try {
    answer = await fetch(events, {
      method: "POST",
      headers: { "Idempotency-Key": `${me}-${n}` },
      body: JSON.stringify({ from: me, n }),
      signal: AbortSignal.timeout(10_000),
    });
    if (answer.ok) {
      await answer.json();
      return { instance: answer.headers.get("X-Instance") ?? "" };
    }
  } catch {
    return { failure: "No answer.", wait: retrySeconds };
  }
  const failure = `${answer.status}: ${await problem(answer)}`;
  if (answer.status < 500 && answer.status !== 429) return { failure };
  return { failure, wait: Number(answer.headers.get("Retry-After")) || retrySeconds };
}

// problem reads the explanation in an RFC 9457 body. The front's own answers have none.
async function problem(answer) {
  try {
    return (await answer.json()).detail;
  } catch {
    return answer.status === 502 ? "the instance went away" : answer.statusText;
  }
}

function tick(on) {
  clearInterval(ticker);
  ticker = on ? setInterval(want, $("interval").value) : undefined;
  $("toggle").textContent = on ? "Stop" : "Publish every";
}

function stop() {
  tick(false);
  wanted = published;
}

/* Showing. Whatever comes from outside goes in as text, never as HTML. */

const labels = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", closed: "Closed" };
const resumes = { none: "none, a new client", complete: "complete", gap: "gap" };
const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 1,
  hourCycle: "h23",
});
let here = ""; // the instance this page is on

function setState(state) {
  $("state").dataset.state = state;
  $("state-text").textContent = labels[state];
}

function setInstance(name) {
  here = name;
  $("instance").dataset.instance = name;
  $("instance").textContent = name || "none";
  document.title = name ? `${name} · caddy-sse cluster` : "Reconnecting · caddy-sse cluster";
  for (const part of document.querySelectorAll(".part[data-instance]")) {
    part.querySelector(".here").hidden = part.dataset.instance !== name;
  }
}

function setResume(resume) {
  $("resume").dataset.resume = resume;
  $("resume").textContent = resumes[resume] ?? resume;
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function showCounts() {
  const waiting = wanted - published;
  $("published").textContent = published;
  $("waiting").dataset.waiting = waiting;
  $("waiting").textContent = waiting > 1 ? `${waiting} waiting` : "none waiting";
  $("received").textContent = count.received;
  $("others").textContent = count.others ? `and ${count.others} of other pages` : "";
  for (const name of ["missing", "twice"]) {
    $(name).textContent = count[name];
    $(name).classList.toggle("wrong", count[name] > 0);
  }
  for (const part of document.querySelectorAll(".part[data-instance]")) {
    part.querySelector(".took").textContent = took[part.dataset.instance] ?? 0;
  }
}

function cell(n) {
  const made = document.createElement("li");
  made.className = "cell";
  made.title = `#${n}`;
  $("tape").append(made);
  while ($("tape").childElementCount > keepCells) $("tape").firstElementChild.remove();
  return made;
}

function happened(kind, text) {
  const item = document.createElement("li");
  item.dataset.kind = kind;
  const now = new Date();
  const time = document.createElement("time");
  time.dateTime = now.toISOString();
  time.textContent = clock.format(now);
  const what = document.createElement("span");
  what.textContent = text;
  item.append(time, what);
  $("events").prepend(item);
  while ($("events").childElementCount > keepShown) $("events").lastElementChild.remove();
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

$("once").addEventListener("click", want);
$("toggle").addEventListener("click", () => tick(!ticker));
$("interval").addEventListener("change", () => ticker && tick(true));
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));

// A page in the back/forward cache must not hold a connection.
addEventListener("pagehide", () => subscription.close());
addEventListener("pageshow", (e) => e.persisted && connect());

connect();
