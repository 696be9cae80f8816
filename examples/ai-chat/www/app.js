// A chat with a model. The prompt goes out with fetch, the answer comes as events, token by token.

import { subscribe } from "./caddy-sse.js";
import { markdown } from "./markdown.js";

const retrySeconds = 1; // before the backend is asked again
const silentSeconds = 10; // after which we ask what has become of an answer

const $ = (id) => document.getElementById(id);

// What this tab remembers when it is reloaded, be it in the middle of an answer. The position belongs to
// the tokens: they are kept together.
let { clientID, lastID, turns } = load() ?? { clientID: "", lastID: "", turns: [] };

/* Listening */

let subscription;
let cutTimer;
let away = false; // the line is broken

function connect() {
  clearTimeout(cutTimer);
  subscription?.close();
  subscription = subscribe("/events", {
    clientId: clientID || undefined, // made up, the first time
    lastEventId: lastID,
    connected() {
      clientID = subscription.clientId; // from now on nothing is missed
      lastID = subscription.lastEventId;
      away = false;
      showControls();
    },
    event({ event, data, id }) {
      lastID = id;
      // The events of an answer have its ID for a name. So what comes of an earlier one, which was stopped, is nobody's.
      const turn = openTurn();
      if (event === turn?.id) receive(turn, data);
    },
    gap: () => catchUp(openTurn()),
    state(state, { why }) {
      setState(state);
      if (state === "waiting") broken();
      if (state === "closed") trouble(`The server refuses the connection: ${why}`);
    },
  });
}

function broken() {
  const turn = openTurn();
  if (!away && turn) turn.cuts++;
  away = true;
}

function cutTheLine() {
  clearTimeout(cutTimer);
  subscription.close();
  broken();
  setState("cut");
  cutTimer = setTimeout(connect, 3000);
}

/* Answers */

// openTurn returns the answer that is not yet at its end, if there is one.
function openTurn() {
  const last = turns.at(-1);
  return last?.state === "open" ? last : undefined;
}

function receive(turn, data) {
  heard(turn);
  if (data === "[DONE]") {
    end(turn, "done");
    return;
  }
  const { n, text, error } = JSON.parse(data);
  if (error) {
    end(turn, "failed", error);
    return;
  }
  const next = turn.tokens.length;
  turn.tokens[n] = text; // maybe one that we have: after a gap the hub sends all it has
  if (n > next) catchUp(turn); // or one too far: it has less than we need
  show(turn);
}

// heard restarts the clock of an answer. A dead line may look alive for minutes, so after a silence we
// ask the backend.
let silence;
function heard(turn) {
  clearTimeout(silence);
  if (turn.state === "open") silence = setTimeout(() => doubt(turn), silentSeconds * 1000);
}

async function doubt(turn) {
  const had = turn.tokens.length;
  await catchUp(turn);
  if (turn.state === "open") heard(turn);
  if (turn.tokens.length > had) connect(); // it has been speaking, and we did not hear
}

// catchUp takes an answer from the backend as far as it has come.
async function catchUp(turn) {
  if (!turn?.asked) return; // the backend cannot have it yet
  const answer = await deliver(turn, "GET");
  if (!answer || turn.state !== "open") return;
  if (!answer.ok) {
    end(turn, "failed", "The backend has lost this answer. Ask again.");
    return;
  }
  const { tokens, done, error } = await answer.json();
  tokens.forEach((text, n) => {
    if (turn.tokens[n] == null) turn.fetched++;
    turn.tokens[n] = text;
  });
  if (error) end(turn, "failed", error);
  else if (done) end(turn, "done");
  show(turn);
}

function end(turn, state, error = "") {
  if (turn.state !== "open") return;
  clearTimeout(silence);
  Object.assign(turn, { state, error, took: Date.now() - turn.began });
  show(turn);
  showControls();
  save();
  $("announce").textContent = error || (state === "done" ? "The answer is complete." : "Stopped.");
}

/* Asking */

let asking; // the request under way, if any

function ask(prompt) {
  turns.push({ role: "user", text: prompt });
  const turn = { role: "assistant", id: randomID(), state: "open", tokens: [], cuts: 0, fetched: 0, began: Date.now() };
  turns.push(turn);
  showTurns();
  scrollTo(0, document.body.scrollHeight);
  save();
  asking = request(turn);
}

// request sends the conversation. The page makes up the ID of the answer, so it can send it twice.
async function request(turn) {
  heard(turn);
  const messages = turns.slice(0, turns.indexOf(turn)).map((t) => ({ role: t.role, content: t.text ?? t.tokens.join("") }));
  const answer = await deliver(turn, "PUT", JSON.stringify({ client_id: clientID, messages }));
  if (answer && !answer.ok) end(turn, "failed", `${answer.status}: ${(await answer.text()).trim()}`);
  turn.asked = true;
  show(turn);
  save();
}

async function stop() {
  const turn = openTurn();
  if (!turn) return;
  end(turn, "stopped");
  await asking; // or what is to be stopped might begin afterwards
  await deliver(turn, "DELETE");
}

// deliver makes a request about an answer, again and again until it is heard or no longer needed.
async function deliver(turn, method, body) {
  const wasOpen = turn.state === "open";
  for (;;) {
    try {
      const answer = await fetch(`/answers/${turn.id}`, { method, body, cache: "no-store", signal: AbortSignal.timeout(10_000) });
      if (answer.status < 500) {
        trouble("");
        return answer;
      }
      trouble("The backend does not answer. Is it running? The page goes on asking.");
    } catch {
      trouble("There is no connection. The page goes on trying.");
    }
    await new Promise((done) => setTimeout(done, retrySeconds * 1000));
    if (wasOpen && turn.state !== "open") return undefined;
  }
}

/* Showing. Whatever comes from outside goes in as text, never as HTML. */

const labels = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", closed: "Closed", cut: "Cut off" };
const ends = { stopped: "stopped", failed: "broken off" };

function setState(state) {
  $("state").dataset.state = state;
  $("state-text").textContent = labels[state];
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function showControls() {
  const open = openTurn();
  $("send").hidden = Boolean(open);
  $("stop").hidden = !open;
  $("send").disabled = !clientID || !$("prompt").value.trim();
  $("new").hidden = turns.length === 0;
}

function showTurns() {
  $("welcome").hidden = turns.length > 0;
  while ($("turns").childElementCount > turns.length) $("turns").lastElementChild.remove();
  for (const turn of turns.slice($("turns").childElementCount)) {
    const item = element("li", turn.role);
    if (turn.role === "user") item.append(element("p", "bubble", turn.text));
    else item.append(element("div", "answer"), element("p", "facts"));
    $("turns").append(item);
    if (turn.role === "assistant") show(turn);
  }
  showControls();
}

// show has an answer drawn before the next frame, however many tokens come until then.
const drawing = new Set();
function show(turn) {
  if (drawing.has(turn)) return;
  drawing.add(turn);
  requestAnimationFrame(() => {
    drawing.delete(turn);
    draw(turn);
  });
}

function draw(turn) {
  const item = $("turns").children[turns.indexOf(turn)];
  if (!item) return; // a new chat has begun
  const atEnd = innerHeight + scrollY >= document.body.scrollHeight - 60;
  item.dataset.state = turn.state;
  item.dataset.tokens = turn.tokens.length;
  item.dataset.fetched = turn.fetched; // those that did not come as events
  item.querySelector(".answer").replaceChildren(markdown(turn.tokens.join("")));
  item.querySelector(".facts").replaceChildren(...facts(turn));
  if (atEnd) scrollTo(0, document.body.scrollHeight);
}

function facts(turn) {
  const count = turn.tokens.length;
  const all = [element("span", "", `${count} ${count === 1 ? "token" : "tokens"}`)];
  if (turn.state === "open" && count === 0) all[0].textContent = turn.asked ? "thinking…" : "sending…";
  if (ends[turn.state]) all.push(element("span", turn.state, ends[turn.state]));
  else if (turn.took) all.push(element("span", "", `${(turn.took / 1000).toFixed(1)} s`));
  if (turn.cuts) {
    const whole = turn.state === "done" && !turn.tokens.some((token) => token == null);
    const times = turn.cuts === 1 ? "the line was cut once" : `the line was cut ${turn.cuts} times`;
    all.push(element("span", whole ? "good" : "cuts", whole ? `${times}, not one token lost` : times));
  }
  if (turn.error) all.push(element("span", "error", turn.error));
  if (turn.state !== "open" && count) {
    const copy = element("button", "quiet", "Copy");
    copy.type = "button";
    copy.addEventListener("click", () => copyText(copy, turn.tokens.join("")));
    all.push(copy);
  }
  return all;
}

/* Small things */

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

async function copyText(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

// randomID is one that nobody guesses: whoever knows it can stop the answer.
function randomID() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// Storage may be blocked; then this tab forgets when it is reloaded.
function load() {
  try {
    return JSON.parse(sessionStorage.getItem("caddy-sse.ai-chat"));
  } catch {
    return null;
  }
}

function save() {
  try {
    sessionStorage.setItem("caddy-sse.ai-chat", JSON.stringify({ clientID, lastID, turns }));
  } catch {
    // see load
  }
}

/* Start */

$("ask").addEventListener("submit", (e) => {
  e.preventDefault();
  const prompt = $("prompt").value.trim();
  if (!prompt || !clientID || openTurn()) return;
  $("prompt").value = "";
  ask(prompt);
});
$("prompt").addEventListener("input", showControls);
$("prompt").addEventListener("keydown", (e) => {
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  $("ask").requestSubmit();
});
for (const suggestion of document.querySelectorAll(".suggestion")) {
  suggestion.addEventListener("click", () => clientID && ask(suggestion.textContent));
}
$("stop").addEventListener("click", stop);
$("cut").addEventListener("click", cutTheLine);
$("new").addEventListener("click", () => {
  stop();
  turns = [];
  showTurns();
  save();
  $("prompt").focus();
});
document.addEventListener("visibilitychange", save);

// A page in the back/forward cache must not hold a connection.
addEventListener("pagehide", () => {
  save();
  clearTimeout(cutTimer);
  subscription.close();
});
addEventListener("pageshow", (e) => e.persisted && connect());

showTurns();
connect();
const left = openTurn(); // when the page was reloaded
if (left?.asked) heard(left);
else if (left) asking = request(left);
const unfinished = openTurn();
if (unfinished?.tokens.length) heard(unfinished);
else if (unfinished) asking = request(unfinished); // it may not have been heard
scrollTo(0, document.body.scrollHeight);
