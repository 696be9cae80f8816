// The page asks for nothing but "/events": who it is for is known from the session, so the same address
// brings everybody their own messages.

const $ = (id) => document.getElementById(id);
const keepShown = 100; // messages in the inbox
const retrySeconds = 5; // after an answer that EventSource gives up on, but that will pass

let me; // who is signed in
let source; // the EventSource in use
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
    setState("reconnecting");
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
  source?.close();
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
  source?.close();
  setState("connecting");
  // The browser resumes by itself when a connection breaks. For a new EventSource we hand over the last
  // ID that this person has seen, so what came while they were signed out comes now.
  const url = new URL("/events", location.href);
  if (lastID()) url.searchParams.set("last_event_id", lastID());
  source = new EventSource(url);
  source.onopen = () => {
    refusals = 0;
    setState("live");
  };
  source.onerror = (e) => "data" in e || lost(); // a message may be called error: it has data
  source.addEventListener("connected", (e) => {
    seen(e);
    if (JSON.parse(e.data).resume === "gap") notice("Some messages may be missing: the server no longer has them.");
  });
  source.addEventListener("gap", (e) => {
    seen(e);
    notice("Some messages may be missing.");
  });
  source.addEventListener("you", (e) => show(e, "for you"));
  source.addEventListener("team", (e) => show(e, `to team ${me.team}`));
  source.addEventListener("everybody", (e) => show(e, "to everybody"));
}

// lost is called whenever the stream ends. Mostly the browser is reconnecting already; after an answer
// other than 200 it has given up, and we look why: perhaps nobody is signed in any more.
function lost() {
  setState("reconnecting");
  if (source.readyState === EventSource.CLOSED) retryTimer = setTimeout(start, refusals++ ? retrySeconds * 1000 : 500);
}

// Each person has their own place in the log, and each tab: a new one goes on from where the last one was.
let position;
const key = () => `caddy-sse.forward-auth.${me.name}`;
const lastID = () => position ?? localStorage.getItem(key());
function seen(e) {
  if (!e.lastEventId) return;
  position = e.lastEventId;
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

const labels = { "signed-out": "Signed out", connecting: "Connecting", live: "Live", reconnecting: "Reconnecting" };
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

function setState(state) {
  $("state").dataset.state = state;
  $("state-text").textContent = labels[state];
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function show(e, kind) {
  seen(e);
  const { from, text } = JSON.parse(e.data);
  const item = element("li", "message");
  item.dataset.kind = e.type;
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
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (e) => e.persisted && start());

start();
