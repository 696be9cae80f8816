// The whole application: it listens to what is followed, and each message changes one card.

import { subscribe } from "./caddy-sse.js";

const $ = (id) => document.getElementById(id);
const keepPoints = 60; // of a price's line

const groups = [
  ["Metals", "prices/metals/*"],
  ["Energy", "prices/energy/*"],
  ["Harvest", "prices/harvest/*"],
  ["Football", "scores/football/*"],
  ["Basketball", "scores/basketball/*"],
];
const following = new Set(load() ?? groups.map(([, pattern]) => pattern)); // patterns and topics

let subscription;
let count = 0;
let cards = new Map(); // by topic

/* Listening */

function connect() {
  subscription?.close();
  clear();
  const topics = [...following];
  $("curl").textContent = `curl -N '${location.origin}/events?${topics.map((topic) => `topic=${encode(topic)}`).join("&")}'`;
  subscription = subscribe("/events?format=envelope", { // which says by which topic a message came
    topics,
    since: "latest", // begins with the newest of each topic, so the page is full at once
    event(message) {
      const { topic, event, data } = JSON.parse(message.data);
      if (event === "price") price(topic, JSON.parse(data));
      if (event === "score") score(topic, JSON.parse(data));
    },
    gap: clear, // what is kept comes from its beginning
    state: setState,
  });
}

/* Showing. Whatever comes from outside goes in as text, never as HTML. */

function price(topic, { price }) {
  const card = cardOf(topic, "prices", priceCard);
  const before = card.points.at(-1) ?? price;
  card.points.push(price);
  if (card.points.length > keepPoints) card.points.shift();
  const change = (price / card.points[0] - 1) * 100;
  card.value.textContent = price.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  card.change.textContent = `${change < 0 ? "▼" : "▲"} ${Math.abs(change).toFixed(2)} %`;
  card.item.dataset.trend = change < 0 ? "down" : "up";
  card.line.setAttribute("points", polyline(card.points));
  if (price !== before) flash(card.value, price < before ? "down" : "up");
}

function score(topic, { minute, home, away }) {
  const card = cardOf(topic, "scores", scoreCard);
  card.minute.textContent = `${minute}′`;
  for (const [element, points] of [[card.home, home], [card.away, away]]) {
    if (element.textContent && element.textContent !== String(points)) flash(element, "up");
    element.textContent = points;
  }
}

function cardOf(topic, list, make) {
  count++;
  $("count").textContent = count.toLocaleString();
  if (!cards.has(topic)) {
    const card = { item: element("li", "card"), ...make(topic) };
    card.item.dataset.topic = topic;
    card.item.append(...card.parts, star(topic));
    cards.set(topic, card);
    const after = [...$(list).children].find((other) => other.dataset.topic > topic);
    $(list).insertBefore(card.item, after ?? null);
    $(`no-${list}`).hidden = true;
  }
  return cards.get(topic);
}

function priceCard(topic) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = svg.appendChild(document.createElementNS(svg.namespaceURI, "polyline"));
  const value = element("span", "value");
  const change = element("span", "change");
  const figures = element("p", "figures");
  figures.append(value, change);
  return { line, value, change, points: [], parts: [...titles(topic), figures, svg] };
}

function scoreCard(topic) {
  const home = element("span", "value");
  const away = element("span", "value");
  const minute = element("span", "minute");
  const figures = element("p", "figures");
  figures.append(home, element("span", "muted", ":"), away, minute);
  return { home, away, minute, parts: [...titles(topic), figures] };
}

function titles(topic) {
  const name = topic.split("/").at(-1).split("-").map(capital).join(" – ");
  return [element("h3", "", name), element("code", "topic", topic)];
}

// star follows one topic.
function star(topic) {
  const button = element("button", "star", "★");
  button.type = "button";
  button.setAttribute("aria-label", `Follow ${topic}`);
  button.setAttribute("aria-pressed", following.has(topic));
  button.addEventListener("click", () => {
    toggle(topic);
    button.setAttribute("aria-pressed", following.has(topic));
  });
  return button;
}

function polyline(points) {
  const low = Math.min(...points);
  const height = Math.max(...points) - low || 1;
  const step = 100 / Math.max(points.length - 1, 1);
  return points.map((p, i) => `${(i * step).toFixed(1)},${(28 - ((p - low) / height) * 26).toFixed(1)}`).join(" ");
}

function flash(target, how) {
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
    target.animate([{ color: `var(--${how === "up" ? "good" : "bad"})` }, {}], 700);
  }
}

function clear() {
  cards = new Map();
  for (const list of ["prices", "scores"]) {
    $(list).replaceChildren();
    $(`no-${list}`).hidden = false;
  }
}

function setState(state, { why }) {
  const labels = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", closed: "Closed" };
  $("state").dataset.state = state;
  $("state-text").textContent = labels[state];
  $("trouble").hidden = state !== "closed";
  $("trouble").textContent = `The server refuses the connection: ${why}`;
}

/* Following */

function toggle(topic) {
  if (!following.delete(topic)) following.add(topic);
  try {
    sessionStorage.setItem("caddy-sse.live-data", JSON.stringify([...following]));
  } catch {
    // Storage may be blocked; then this tab forgets when it is reloaded.
  }
  connect();
}

function load() {
  try {
    return JSON.parse(sessionStorage.getItem("caddy-sse.live-data"));
  } catch {
    return null;
  }
}

/* Small things */

const encode = (text) => encodeURIComponent(text).replaceAll("%2F", "/");

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

/* Start */

for (const [name, pattern] of groups) {
  const button = element("button", "group");
  button.type = "button";
  button.dataset.pattern = pattern;
  button.append(element("span", "", name), element("code", "", pattern));
  button.setAttribute("aria-pressed", following.has(pattern));
  button.addEventListener("click", () => {
    toggle(pattern);
    button.setAttribute("aria-pressed", following.has(pattern));
  });
  const item = element("li");
  item.append(button);
  $("groups").append(item);
}

// A page in the back/forward cache must not hold a connection.
addEventListener("pagehide", () => subscription.close());
addEventListener("pageshow", (e) => e.persisted && connect());

connect();
