// Questions and answers, in all tabs of this browser. Only where an answer is has to be remembered.

import { ask, follow, stop } from "./stream.js";

const $ = (id) => document.getElementById(id);
const away = 3000; // ms for which "Cut the line" cuts

// What is remembered: of each question its text, where its answer is, and that when it is whole.
const store = "caddy-sse.ai-proxy";
const remembered = () => JSON.parse(localStorage.getItem(store) ?? "[]");
const live = new Set(); // the turns that are under way
const shown = new Set(); // where the answers are that this tab shows

function remember(change) {
  localStorage.setItem(store, JSON.stringify(change(remembered())));
}

/* Asking */

async function send(question) {
  const turn = begin(question);
  const messages = remembered().flatMap((t) => [
    { role: "user", content: t.question },
    ...(t.text ? [{ role: "assistant", content: t.text }] : []),
  ]);
  messages.push({ role: "user", content: question });
  try {
    const first = await ask("/v1/chat/completions", { model: $("model").value, stream: true, messages }, turn.line.signal);
    remember((turns) => [...turns, { question, at: first.at }]);
    turn.at = first.at;
    shown.add(turn.at);
    listen(turn, first.response);
  } catch (error) {
    fail(turn, turn.line.signal.aborted ? "It was not asked." : `It could not be asked. ${error.message}`);
  }
}

function begin(question) {
  const item = element("li", "turn");
  item.append(element("p", "question", question), element("p", "answer"), element("p", "facts"));
  $("turns").append(item);
  const turn = { item, at: "", text: "", next: 1, cuts: 0, state: "open", line: new AbortController() };
  live.add(turn);
  draw(turn);
  return turn;
}

/* Listening */

async function listen(turn, response) {
  const state = await follow({
    at: turn.at,
    response,
    signal: turn.line.signal,
    take: (event) => take(turn, event),
    lost: () => {
      turn.cuts++;
      turn.away = true;
      draw(turn);
    },
    comeBack: async () => {
      await new Promise((done) => setTimeout(done, turn.line.signal.aborted ? away : 1000));
      turn.line = new AbortController();
      turn.away = false;
      draw(turn);
      return turn.line.signal;
    },
  });
  if (state === "unknown") fail(turn, "This answer is no longer kept.");
  else end(turn, state);
}

// take checks that each event has the number that is due: nothing is lost, and nothing comes twice.
function take(turn, { id, event, data }) {
  turn.away = false;
  const number = Number(id.split(".")[1]);
  if (number !== turn.next) turn.error = `event ${number} came when ${turn.next} was due`;
  turn.next = number + 1;
  if (event === "error") turn.error = JSON.parse(data).error.message;
  else if (data !== "[DONE]") turn.text += JSON.parse(data).choices?.[0]?.delta?.content ?? "";
  draw(turn);
}

function end(turn, state) {
  turn.state = state;
  live.delete(turn);
  remember((turns) => turns.map((t) => (t.at === turn.at ? { ...t, text: turn.text, state, cuts: turn.cuts, next: turn.next } : t)));
  draw(turn);
  $("announce").textContent = state === "done" ? "The answer is complete." : "The answer has ended.";
}

function fail(turn, error) {
  turn.error = error;
  turn.state = "aborted";
  live.delete(turn);
  if (turn.at) remember((turns) => turns.filter((t) => t.at !== turn.at));
  draw(turn);
}

/* Showing. Whatever comes from outside goes in as text, never as HTML. */

const states = { done: "complete", stopped: "stopped", aborted: "broken off" };

function draw(turn) {
  const { item } = turn;
  const atEnd = innerHeight + scrollY >= document.body.scrollHeight - 80;
  item.dataset.state = turn.away ? "away" : turn.state;
  item.dataset.events = turn.next - 1;
  item.querySelector(".answer").textContent = turn.text;
  const facts = [turn.next > 1 ? `${turn.next - 1} events` : "thinking…"];
  if (turn.away) facts.push("the line is cut");
  if (states[turn.state]) facts.push(states[turn.state]);
  if (turn.cuts && !turn.error && !turn.away) {
    facts.push(`cut ${turn.cuts === 1 ? "once" : `${turn.cuts} times`}, nothing lost, nothing twice`);
  }
  item.querySelector(".facts").replaceChildren(facts.join(" · "));
  if (turn.error) item.querySelector(".facts").append(" ", element("span", "error", turn.error));
  showControls();
  if (atEnd) scrollTo(0, document.body.scrollHeight);
}

function showControls() {
  $("stop").hidden = live.size === 0;
  $("send").hidden = live.size > 0;
  $("cut").disabled = live.size === 0;
  $("welcome").hidden = $("turns").childElementCount > 0;
  $("clear").hidden = !$("welcome").hidden;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// showAll shows what is remembered and not shown yet: after a reload, in a second tab, or when another tab asks.
function showAll() {
  for (const { question, at, ...rest } of remembered()) {
    if (shown.has(at)) continue;
    const turn = begin(question);
    turn.at = at;
    shown.add(at);
    if (!rest.state) {
      listen(turn);
      continue;
    }
    live.delete(turn);
    draw(Object.assign(turn, rest));
  }
}

/* Controls */

function stopOne(turn) {
  if (turn.at) stop(turn.at);
  else turn.line.abort(); // before the model has begun
}

$("ask").addEventListener("submit", (e) => {
  e.preventDefault();
  const question = $("prompt").value.trim();
  if (!question || live.size) return;
  $("prompt").value = "";
  send(question);
});
$("prompt").addEventListener("keydown", (e) => {
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  $("ask").requestSubmit();
});
for (const suggestion of document.querySelectorAll(".suggestion")) {
  suggestion.addEventListener("click", () => send(suggestion.textContent));
}
$("stop").addEventListener("click", () => live.forEach(stopOne));
$("cut").addEventListener("click", () => live.forEach((turn) => turn.line.abort()));
$("clear").addEventListener("click", () => {
  live.forEach(stopOne);
  localStorage.removeItem(store);
  location.reload();
});
$("model").value = localStorage.getItem(`${store}.model`) ?? "fake";
$("model").addEventListener("change", () => localStorage.setItem(`${store}.model`, $("model").value));
addEventListener("storage", (e) => e.key === store && showAll());

showAll();
showControls();
scrollTo(0, document.body.scrollHeight);
