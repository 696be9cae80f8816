// The overview: a card for each hub, with its numbers and how fast they grow.

import { $, Chart, element, formats, setText, show } from "./parts.js";

const keepSamples = 60;
const rates = { messages_published: "Messages published", messages_sent: "Messages sent", connections: "Connections" };
const before = new WeakMap(); // card -> { hub, at, charts }

export function showHubs(hubs, at) {
  $("no-hubs").hidden = hubs.length > 0;
  show(
    $("hubs"),
    hubs,
    (hub) => hub.name,
    makeCard,
    (card, hub) => updateCard(card, hub, at),
  );
}

function makeCard(hub) {
  const card = $("hub-card").content.firstElementChild.cloneNode(true);
  card.dataset.hub = hub.name;
  const link = card.querySelector(".open");
  link.textContent = hub.name;
  link.href = `#hub=${encodeURIComponent(hub.name)}`;
  const charts = {};
  for (const figure of card.querySelectorAll("[data-rate]")) {
    charts[figure.dataset.rate] = new Chart(figure, rates[figure.dataset.rate]);
  }
  before.set(card, { charts });
  return card;
}

function updateCard(card, hub, at) {
  const broker = card.querySelector(".broker");
  broker.dataset.up = hub.up;
  broker.querySelector(".broker-text").textContent = `${hub.broker || "broker"} ${hub.up ? "up" : "down"}`;
  card.dataset.up = hub.up;
  showTrouble(card.querySelector(".broker-trouble"), hub);

  const values = { ...hub, p99: quantile(hub.delivery, 0.99) };
  for (const shown of card.querySelectorAll("[data-metric]")) {
    const value = values[shown.dataset.metric];
    shown.parentElement.hidden = value === undefined && shown.dataset.metric !== "p99"; // a hub without a file, say
    if (shown.parentElement.hidden) continue;
    const text = formats[shown.dataset.unit ?? "count"](value);
    setText(shown, text);
    shown.dataset.value = value ?? "";
    if ("bad" in shown.dataset) shown.dataset.bad = value > 0;
  }

  for (const shown of card.querySelectorAll("[data-why]")) {
    const text = reasons(hub[shown.dataset.why]);
    shown.hidden = !text;
    if (text) setText(shown, `${shown.dataset.title}: ${text}`);
  }

  const last = before.get(card);
  const seconds = (at - last.at) / 1000;
  for (const [name, chart] of Object.entries(last.charts)) {
    const grown = last.hub && hub[name] - last.hub[name];
    // Less than before: Caddy has started anew. The next sample will tell.
    if (grown >= 0 && seconds > 0) chart.add(grown / seconds, keepSamples);
  }
  last.hub = hub;
  last.at = at;
}

// showTrouble says why the broker is down, and since when.
function showTrouble(where, hub) {
  where.hidden = hub.up;
  if (hub.up) return;
  const when = hub.broker_since ? ` since ${clock.format(new Date(hub.broker_since))}` : "";
  setText(where, `Down${when}: ${hub.broker_error || "no reason is known"}`);
}

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

// reasons tells how often each reason was one, the most frequent first.
function reasons(counts = {}) {
  return Object.entries(counts)
    .filter(([, n]) => n > 0)
    .sort(([, a], [, b]) => b - a)
    .map(([name, n]) => `${name} ${formats.count(n)}`)
    .join(", ");
}

// quantile returns the bound that a part of all deliveries stayed below.
function quantile(delivery, part) {
  if (!delivery?.count) return undefined;
  return delivery.buckets.find((bucket) => bucket.count >= part * delivery.count)?.le ?? Infinity;
}

/* Every number, named as in a scrape */

export function showSeries(hub) {
  const rows = [...series(hub)].map(([name, value]) => ({ name, value }));
  show(
    $("series").querySelector("tbody"),
    rows,
    (row) => row.name,
    (row) => {
      const made = document.createElement("tr");
      made.dataset.series = row.name;
      const head = element("th", "");
      head.scope = "row";
      head.append(element("code", "", row.name));
      made.append(head, element("td", "number"));
      return made;
    },
    (made, row) => {
      made.lastElementChild.textContent = row.value;
    },
  );
}

function* series(hub) {
  const name = JSON.stringify(hub.name);
  const one = (metric, value, label, of) => [
    `caddy_sse_${metric}{hub=${name}${label ? `,${label}=${JSON.stringify(String(of))}` : ""}}`,
    value,
  ];
  yield one("clients", hub.clients);
  yield one("connections_total", hub.connections, "result", "accepted");
  yield one("connections_total", hub.limited, "result", "limited");
  yield one("connections_total", hub.refused, "result", "refused");
  yield one("resumes_total", hub.reconnects - hub.gaps, "result", "complete");
  yield one("resumes_total", hub.gaps, "result", "gap");
  yield one("messages_published_total", hub.messages_published);
  yield one("messages_sent_total", hub.messages_sent);
  yield one("messages_conflated_total", hub.messages_conflated ?? 0);
  for (const [reason, n] of Object.entries(hub.dropped_by_reason)) yield one("messages_dropped_total", n, "reason", reason);
  for (const [reason, n] of Object.entries(hub.disconnects)) yield one("disconnects_total", n, "reason", reason);
  for (const [reason, n] of Object.entries(hub.gaps_by_reason ?? {})) yield one("gaps_total", n, "reason", reason);
  for (const [status, n] of Object.entries(hub.publish_refused ?? {})) yield one("publish_refused_total", n, "status", status);
  yield one("topics", hub.topics);
  yield one("broker_up", hub.up ? 1 : 0);
  yield one("history_bytes", hub.history_bytes);
  if (hub.broker_file_bytes !== undefined) yield one("broker_file_bytes", hub.broker_file_bytes);
  if (hub.broker_lag_seconds !== undefined) yield one("broker_lag_seconds", hub.broker_lag_seconds);
  if (hub.answers) {
    const { states, results, resumes, attached, claims_local, bytes } = hub.answers;
    for (const [state, n] of Object.entries(states)) yield one("answers", n, "state", state);
    for (const [result, n] of Object.entries(results)) yield one("answers_total", n, "result", result);
    for (const [result, n] of Object.entries(resumes)) yield one("answer_resumes_total", n, "result", result);
    yield one("answer_attached_total", attached);
    yield one("answer_claims_local_total", claims_local);
    yield one("answer_bytes", bytes);
  }
  yield one("delivery_seconds_count", hub.delivery.count);
  yield one("delivery_seconds_sum", hub.delivery.sum_seconds);
  for (const bucket of hub.delivery.buckets) yield one("delivery_seconds_bucket", bucket.count, "le", bucket.le);
  yield one("delivery_seconds_bucket", hub.delivery.count, "le", "+Inf");
}
