// The page asks for nothing but "/events": who it is for is known from the session, so the same address
// brings everybody their own messages.

import { subscribe } from "./caddy-sse.js";

const $ = (id) => document.getElementById(id);
const keepShown = 100; // messages in the inbox
const retrySeconds = 5; // after the application did not answer

let me; // who is signed in
let subscription;
let retryTimer;
let refusals = 0; // one after the other

/* Signing in and out */

async function whoAmI() {
  const answer = await fetch("/session", { cache: "no-store" });
  if (answer.status === 401) return undefined;
  if (!answer.ok) throw new Error(`the application answers ${answer.status}`);
  return answer.json();
}

async function signIn(submit) {
  submit.preventDefault();
  const answer = await ask("/session", { method: "POST", body: new URLSearchParams(new FormData($("sign-in"))) });
  if (answer) await start();
}

async function signOut() {
  if (await ask("/session", { method: "DELETE" })) end();
}

// start shows who is signed in and listens, or asks to sign in.
async function start() {
  clearTimeout(retryTimer);
  const before = me?.name;
  try {
    me = await whoAmI();
    if (me?.name !== before) position = undefined;
  } catch (err) {
    setState("waiting");
    trouble(`The application can't be reached: ${err.message}. Is it running? Next try in ${retrySeconds} s.`);
    retryTimer = setTimeout(start, retrySeconds * 1000);
    return;
  }
  trouble("");
  if (!me) {
    end();
    return;
  }
  const name = capital(me.name);
  $("me").textContent = name;
  $("me-avatar").textContent = name[0];
  $("me-avatar").dataset.person = me.name;
  $("team").textContent = me.team;
  $("signed-out").hidden = true;
  $("signed-in").hidden = false;
  document.title = `${name} · caddy-sse forward-auth`;
  listen();
}

function end() {
  me = undefined;
  subscription?.close();
  clearTimeout(retryTimer);
  $("inbox").replaceChildren();
  $("empty").hidden = false;
  $("signed-in").hidden = true;
  $("signed-out").hidden = false;
  document.title = "caddy-sse forward-auth";
  setState("signed-out");
}

/* Listening */

function listen() {
  subscription?.close();
  const kinds = { you: "for you", team: `to team ${me.team}`, everybody: "to everybody" };
  subscription = subscribe("/events", {
    clientId: false, // it belongs to the user, and the next one in this tab may be another
    lastEventId: lastID(), // the last that this person has seen: what came while they were signed out comes now
    connected() {
      refusals = 0;
      seen(subscription.lastEventId);
    },
    event(message) {
      seen(message.id);
      if (kinds[message.event]) show(message, kinds[message.event]);
    },
    gap: () => notice("Some messages may be missing: the server no longer has them."),
    state(state, { why, status }) {
      setState(state);
      if (state === "live") trouble("");
      if (state === "waiting" && status >= 500) trouble(`The application can't be reached: ${why}. Is it running?`);
      // Refused: we look why. Perhaps nobody is signed in any more.
      if (state === "closed" && status) retryTimer = setTimeout(start, refusals++ ? retrySeconds * 1000 : 0);
    },
  });
}

// Each person has their own place in the log, and each tab: a new one goes on from where the last one was.
let position;
const key = () => `caddy-sse.forward-auth.${me.name}`;
const lastID = () => position ?? localStorage.getItem(key()) ?? "";
function seen(id) {
  if (!id) return;
  position = id;
  localStorage.setItem(key(), position);
}

/* Sending. The application passes it on, and says who it is from. */

async function send(submit) {
  submit.preventDefault();
  const answer = await ask("/messages", { method: "POST", body: new URLSearchParams(new FormData($("send"))) });
  if (!answer) return;
  $("text").value = "";
  $("text").focus();
}

// ask makes a request, and shows what went wrong if it fails.
async function ask(path, options) {
  trouble("");
  try {
    const answer = await fetch(path, { ...options, signal: AbortSignal.timeout(10_000) });
    if (answer.ok) return answer;
    if (answer.status === 401) await start();
    trouble(`${answer.status}: ${(await answer.text()).trim() || answer.statusText}`);
  } catch {
    trouble("No answer. Are Caddy and the application running?");
  }
  return undefined;
}

/* Showing. Whatever comes from outside goes in as text, never as HTML. */

const labels = { "signed-out": "Signed out", connecting: "Connecting", live: "Live", waiting: "Reconnecting", closed: "Closed" };
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

function setState(state) {
  $("state").dataset.state = state;
  $("state-text").textContent = labels[state];
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function show({ event, data }, kind) {
  const { from, text } = JSON.parse(data);
  const item = element("li", "message");
  item.dataset.kind = event;
  const avatar = element("span", "avatar", capital(from)[0]);
  avatar.dataset.person = from;
  avatar.setAttribute("aria-hidden", "true");
  const head = element("p", "head");
  head.append(element("strong", "from", capital(from)), element("span", "tag", kind), element("time", "", clock.format(new Date())));
  const body = element("div", "body");
  body.append(head, element("p", "text", text));
  item.append(avatar, body);
  prepend(item);
  $("announce").textContent = `${capital(from)}, ${kind}: ${text}`;
}

function notice(text) {
  const item = element("li", "notice", text);
  prepend(item);
  $("announce").textContent = text;
}

function prepend(item) {
  $("inbox").prepend(item);
  while ($("inbox").childElementCount > keepShown) $("inbox").lastElementChild.remove();
  $("empty").hidden = true;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

const capital = (name) => name.charAt(0).toUpperCase() + name.slice(1);

/* Start */

$("sign-in").addEventListener("submit", signIn);
$("sign-out").addEventListener("click", signOut);
$("send").addEventListener("submit", send);

// A page in the back/forward cache must not hold a connection.
addEventListener("pagehide", () => subscription?.close());
addEventListener("pageshow", (e) => e.persisted && start());

start();
