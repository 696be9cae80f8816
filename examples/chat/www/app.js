// A chat room. It listens and speaks at the same address; there is nothing else.

import { subscribe } from "./caddy-sse.js";
import { Presence } from "./presence.js";

const retrySeconds = 2; // before a message is sent again
const keepShown = 500; // messages

const $ = (id) => document.getElementById(id);

const room = decodeURIComponent(location.pathname.split("/")[2]);
const address = `/room/${encodeURIComponent(room)}`;
const me = load() ?? { id: randomID(), name: aName() }; // each tab is somebody else
me.client = randomID(); // nobody else learns it

/* Listening */

let subscription;

function connect() {
  const lastEventId = subscription?.lastEventId;
  subscription?.close();
  // What the others see of us goes with it. Under the same client_id we are the same when the line was cut.
  subscription = subscribe(`${address}/events?info=${encodeURIComponent(`${me.id} ${me.name}`)}`, {
    clientId: me.client,
    lastEventId,
    since: "all", // begins with all that is kept of this room
    connected: () => presence.ask(),
    event(message) {
      if (message.event === "said") said(message);
      if (message.event === "presence") presence.heard(JSON.parse(message.data));
      if (message.event === "announcement") announcement(message);
    },
    gap: () => notice("Something may be missing here."),
    state(state, { why }) {
      setState(state);
      if (state === "closed") trouble(`The server refuses the connection: ${why}`);
    },
  });
}

const seen = new Set(); // after a gap a message may come twice

function said(e) {
  const message = parse(e);
  if (!message.text || seen.has(message.key)) return;
  seen.add(message.key);
  show(message);
}

// parse reads what a page like this one has sent. Others may send what they like: that is said by nobody.
function parse(e) {
  let sent;
  try {
    sent = JSON.parse(e.data);
  } catch {
    // not JSON
  }
  if (typeof sent?.id !== "string") sent = { id: "nobody", name: "Nobody", text: e.data };
  const { id, name, text, key, at } = sent;
  return {
    id,
    name: String(name ?? "").slice(0, 30) || "?",
    text: String(text ?? ""),
    key: String(key ?? e.id),
    time: new Date(Number.isFinite(at) ? at : Date.now()),
  };
}

/* Speaking */

const outbox = []; // in order, until each is acknowledged
let sending = false;

function say(submit) {
  submit.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  outbox.push({ id: me.id, name: me.name, text, key: randomID(), at: Date.now() });
  send();
}

async function send() {
  if (sending) return;
  sending = true;
  while (outbox.length) {
    const wait = await trySending(outbox[0]);
    if (wait) await new Promise((done) => setTimeout(done, wait * 1000));
    else outbox.shift();
  }
  sending = false;
}

// trySending returns how many seconds to wait before the next try, 0 when there is none to be. The key
// sees to it that a message that is sent twice is said once.
async function trySending(message) {
  try {
    const answer = await fetch(`${address}/events`, {
      method: "POST",
      headers: { "Idempotency-Key": message.key },
      body: JSON.stringify(message),
      signal: AbortSignal.timeout(10_000),
    });
    if (answer.ok) {
      trouble("");
      return 0;
    }
    const { detail } = await answer.json();
    trouble(`${answer.status}: ${detail}`);
    if (answer.status !== 429 && answer.status < 500) return 0;
    return Number(answer.headers.get("Retry-After")) || retrySeconds;
  } catch {
    trouble("There is no connection. The page goes on trying.");
    return retrySeconds;
  }
}

/* Who is here */

const presence = new Presence({
  url: `${address}/events?presence=${encodeURIComponent(`room/${room}`)}`,
  changed: showPeople,
});

function showPeople() {
  const people = [...presence.people()].sort(([, a], [, b]) => a.localeCompare(b));
  $("people").replaceChildren(
    ...people.map(([id, name]) => {
      const item = element("li", "person");
      item.append(avatar(id, name), element("span", "", name));
      if (id === me.id) item.append(element("span", "muted", "(you)"));
      return item;
    }),
  );
  const others = presence.nameless();
  const count = people.length + others;
  $("count").dataset.count = count;
  $("count").textContent = count;
  $("others").hidden = others === 0;
  $("others").textContent = others === 1 ? "and one who only listens" : `and ${others} who only listen`;
}

function rename() {
  const name = $("name").value.trim();
  if (name && name !== me.name) {
    me.name = name;
    me.client = randomID(); // of one client the first info counts
    save();
    connect();
  }
  $("name").value = me.name;
}

/* Showing. Whatever comes from outside goes in as text, never as HTML. */

const labels = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", closed: "Closed" };
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

function setState(state) {
  $("state").dataset.state = state;
  $("state-text").textContent = labels[state];
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function show({ id, name, text, time }) {
  const item = element("li", id === me.id ? "message mine" : "message");
  const before = $("messages").lastElementChild;
  item.dataset.from = id;
  if (before?.dataset.from === id) item.classList.add("goes-on");
  const body = element("div", "body");
  const head = element("p", "head");
  head.append(element("strong", "", name), element("time", "", clock.format(time)));
  body.append(head, element("p", "text", text));
  item.append(avatar(id, name), body);
  append(item);
}

function announcement({ data }) {
  const item = element("li", "announcement");
  item.append(element("strong", "", "Announcement"), element("span", "", data));
  append(item);
  $("announce").textContent = data;
}

function notice(text) {
  append(element("li", "notice", text));
}

function append(item) {
  const atEnd = innerHeight + scrollY >= document.body.scrollHeight - 60;
  $("messages").append(item);
  while ($("messages").childElementCount > keepShown) $("messages").firstElementChild.remove();
  $("empty").hidden = true;
  if (atEnd || item.classList.contains("mine")) scrollTo(0, document.body.scrollHeight);
}

function avatar(id, name) {
  const made = element("span", "avatar", [...name][0].toUpperCase());
  made.dataset.color = [...id].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 6;
  made.setAttribute("aria-hidden", "true");
  return made;
}

function showRooms() {
  const names = new Set(["lobby", "kitchen", "garden", room]);
  $("rooms").append(
    ...[...names].map((name) => {
      const link = element("a", "", `# ${name}`);
      link.href = `/room/${encodeURIComponent(name)}`;
      if (name === room) link.setAttribute("aria-current", "page");
      const item = element("li");
      item.append(link);
      return item;
    }),
  );
  $("title").textContent = `# ${room}`;
  $("text").placeholder = `Message to ${room}`;
  document.title = `${room} · caddy-sse chat`;
}

/* Small things */

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function randomID() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function aName() {
  const names = ["Ada", "Alan", "Barbara", "Claude", "Dennis", "Edsger", "Frances", "Grace", "Hedy", "Ken", "Margaret", "Niklaus"];
  return names[Math.floor(Math.random() * names.length)];
}

// Storage may be blocked; then this tab is somebody new when it is reloaded.
function load() {
  try {
    return JSON.parse(sessionStorage.getItem("caddy-sse.chat"));
  } catch {
    return null;
  }
}

function save() {
  try {
    sessionStorage.setItem("caddy-sse.chat", JSON.stringify(me));
  } catch {
    // see load
  }
}

/* Start */

$("say").addEventListener("submit", say);
$("name").addEventListener("change", rename);
$("go").addEventListener("submit", (e) => {
  e.preventDefault();
  location.href = `/room/${encodeURIComponent($("room").value.trim())}`;
});

// A page in the back/forward cache must not hold a connection, or it would still be here.
addEventListener("pagehide", () => subscription.close());
addEventListener("pageshow", (e) => e.persisted && connect());

save();
$("name").value = me.name;
showRooms();
connect();
