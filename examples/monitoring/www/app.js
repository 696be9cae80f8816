// One stream brings the figures of all hosts, which nobody misses, and the alerts, which nobody may miss.

import { subscribe } from "./caddy-sse.js";

const $ = (id) => document.getElementById(id);
const keepAlerts = 100; // in the list
const keepPoints = 60; // of a host's line
const silentAfter = 5; // seconds

let subscription;
const hosts = new Map(); // cards by name
const firing = new Set(); // "host what"

/* Listening */

function connect() {
  subscription = subscribe("/events", {
    since: "all", // begins with the alerts until now
    connected({ resume }) {
      if (resume !== "complete") forgetAlerts(); // what is kept comes from its beginning
    },
    event({ event, data }) {
      if (event === "metrics") metrics(JSON.parse(data));
      if (event === "alert") alert(JSON.parse(data));
    },
    state: setState,
  });
}

/* Hosts. Whatever comes from outside goes in as text, never as HTML. */

function metrics({ host, cpu, memory, disk, load, cores, uptime }) {
  const card = hosts.get(host) ?? newHost(host);
  card.heard = performance.now();
  for (const [what, value] of Object.entries({ cpu, memory, disk })) {
    card[what].value.textContent = `${Math.round(value)} %`;
    card[what].bar.style.width = `${Math.min(value, 100)}%`;
    card[what].bar.dataset.level = value >= 90 ? "bad" : value >= 75 ? "warn" : "good";
  }
  card.points.push(cpu);
  if (card.points.length > keepPoints) card.points.shift();
  const from = keepPoints - card.points.length;
  card.line.setAttribute("points", card.points.map((p, i) => `${from + i},${(31 - p * 0.3).toFixed(1)}`).join(" "));
  card.facts.textContent = `load ${load.toFixed(2)} on ${cores} ${cores === 1 ? "core" : "cores"} · up ${duration(uptime)}`;
  showSilence();
}

function newHost(name) {
  const card = { item: element("li", "card host"), state: element("span", "pill"), facts: element("p", "small"), points: [] };
  card.item.dataset.host = name;
  const head = element("div", "bar");
  head.append(element("h3", "", name), card.state);

  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${keepPoints - 1} 32`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  card.line = svg.appendChild(document.createElementNS(svg.namespaceURI, "polyline"));

  const meters = element("dl", "meters");
  for (const what of ["cpu", "memory", "disk"]) {
    card[what] = { value: element("dd"), bar: element("span", "fill") };
    const track = element("span", "track");
    track.append(card[what].bar);
    const meter = element("div");
    meter.dataset.meter = what;
    meter.append(element("dt", "", label(what)), card[what].value, track);
    meters.append(meter);
  }
  card.item.append(head, card.facts, svg, meters);
  hosts.set(name, card);
  const after = [...$("hosts").children].find((other) => other.dataset.host > name);
  $("hosts").insertBefore(card.item, after ?? null);
  $("no-hosts").hidden = true;
  return card;
}

// showSilence tells which hosts have not been heard of. While we are cut off ourselves, nobody is blamed.
function showSilence() {
  const live = $("state").dataset.state === "live";
  for (const card of hosts.values()) {
    const seconds = Math.floor((performance.now() - card.heard) / 1000);
    const silent = live && seconds >= silentAfter;
    card.item.dataset.silent = silent;
    card.state.textContent = silent ? `silent for ${seconds} s` : live ? "up" : "unknown";
  }
}

/* Alerts */

function alert({ host, what, state, value, limit, at }) {
  const text = state === "firing" ? `${label(what)} at ${value} %, limit ${limit} %` : `${label(what)} fine again, at ${value} %`;
  const item = element("li", "alert");
  item.dataset.state = state;
  const time = element("time", "", new Date(at * 1000).toLocaleTimeString());
  time.dateTime = new Date(at * 1000).toISOString();
  item.append(element("strong", "", host), element("span", "", text), time);
  $("alerts").prepend(item);
  if ($("alerts").childElementCount > keepAlerts) $("alerts").lastElementChild.remove();
  if (state === "firing") firing.add(`${host} ${what}`);
  else firing.delete(`${host} ${what}`);
  $("announce").textContent = `${host}: ${text}`;
  showFiring();
}

function forgetAlerts() {
  $("alerts").replaceChildren();
  firing.clear();
  showFiring();
}

function showFiring() {
  $("no-alerts").hidden = $("alerts").childElementCount > 0;
  $("firing").hidden = firing.size === 0;
  $("firing").textContent = `${firing.size} firing`;
  document.title = `${firing.size ? `(${firing.size}) ` : ""}caddy-sse monitoring`;
}

/* Small things */

function setState(state, { why }) {
  const labels = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", closed: "Closed" };
  $("state").dataset.state = state;
  $("state-text").textContent = labels[state];
  $("trouble").hidden = state !== "closed";
  $("trouble").textContent = `The server refuses the connection: ${why}`;
  // Its silence, until now, was not the hosts'.
  if (state === "live") for (const card of hosts.values()) card.heard = performance.now();
  showSilence();
}

function duration(seconds) {
  const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
  return days ? `${days} d ${hours} h` : hours ? `${hours} h ${minutes} min` : `${minutes} min`;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

const label = (what) => ({ cpu: "CPU", memory: "Memory", disk: "Disk" })[what] ?? what;

/* Start */

setInterval(showSilence, 1000);

// A page in the back/forward cache must not hold a connection.
addEventListener("pagehide", () => subscription.close());
addEventListener("pageshow", (e) => e.persisted && connect());

connect();
