// The page remembers nothing. Whatever it shows has come as an event, and the newest of each job comes again.

import { subscribe } from "./caddy-sse.js";

const silentSeconds = 10; // after which a running job may be none any more

// Not relative to the page: that may have been opened with a password in its address, which fetch refuses.
const site = location.origin;

const $ = (id) => document.getElementById(id);

/* Listening */

let subscription;

function connect() {
  subscription = subscribe(`${site}/events`, {
    since: "latest", // begins with the newest report of each job
    event: ({ event, data }) => event === "job" && show(JSON.parse(data)),
    state: setState,
  });
}

/* Starting */

async function start(kind) {
  trouble("");
  try {
    const answer = await fetch(`${site}/jobs`, { method: "POST", body: new URLSearchParams({ kind }), signal: AbortSignal.timeout(10_000) });
    if (answer.status === 502) trouble("The backend does not answer. Is it running?");
    else if (!answer.ok) trouble(`${answer.status}: ${(await answer.text()).trim() || answer.statusText}`);
  } catch {
    trouble("No answer: whether the job was started will show.");
  }
}

/* Showing. Whatever comes from outside goes in as text, never as HTML. */

const labels = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", closed: "Closed" };
const states = { running: "Running", done: "Done", failed: "Failed" };
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const jobs = new Map(); // the latest report of each, by ID

function setState(state) {
  $("state").dataset.state = state;
  $("state-text").textContent = labels[state];
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

// show puts a report in place of the one before. Reports come in order; after a gap older ones may come
// again, and those that follow put it right.
function show(job) {
  const before = jobs.get(job.id);
  jobs.set(job.id, { ...job, heard: performance.now() });
  const item = before ? document.querySelector(`[data-job="${CSS.escape(job.id)}"]`) : add(job);
  const part = (name) => item.querySelector(`.${name}`);
  item.dataset.state = job.state;
  part("percent").textContent = `${job.percent} %`;
  part("progress").value = job.percent;
  [...part("stages").children].forEach((stage, n) => {
    const reached = n < job.stage || job.state === "done" ? "done" : n > job.stage ? "ahead" : job.state;
    stage.dataset.stage = reached;
    if (reached === "running") stage.setAttribute("aria-current", "step");
    else stage.removeAttribute("aria-current");
  });
  part("note").textContent = job.note;
  if (job.state !== "running" && before?.state === "running") $("announce").textContent = `${job.title}: ${states[job.state]}`;
  tick();
}

function add(job) {
  const item = element("li", "job card");
  item.dataset.job = job.id;
  item.dataset.started = job.started;
  const head = element("div", "head");
  head.append(element("h3", "", job.title), element("span", "tag"), element("span", "percent"));
  const progress = element("progress", "progress");
  progress.max = 100;
  progress.setAttribute("aria-label", job.title);
  const stages = element("ol", "stages");
  stages.setAttribute("role", "list");
  stages.append(...job.stages.map((name) => element("li", "", name)));
  const foot = element("p", "foot");
  foot.append(element("span", "note"), element("span", "time"));
  item.append(head, progress, stages, foot);
  // The newest stands first, in whatever order they come.
  const older = [...$("jobs").children].find((other) => Number(other.dataset.started) < job.started);
  $("jobs").insertBefore(item, older ?? null);
  $("empty").hidden = true;
  return item;
}

// tick shows what changes by itself: that nothing was heard of a job for long.
function tick() {
  let last;
  for (const item of $("jobs").children) {
    const job = jobs.get(item.dataset.job);
    const silence = performance.now() - job.heard;
    const silent = job.state === "running" && silence > silentSeconds * 1000;
    item.toggleAttribute("data-silent", silent);
    item.querySelector(".tag").textContent = silent ? `No news for ${duration(silence)}` : states[job.state];
    item.querySelector(".time").textContent = `${clock.format(job.started)}, ${duration(job.at - job.started)}`;
    if (job.state === "running" && !silent) last ??= job;
  }
  document.title = last ? `${last.percent} % · ${last.title}` : "caddy-sse progress";
}

function duration(ms) {
  const seconds = Math.round(ms / 1000);
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/* Start */

for (const button of document.querySelectorAll("[data-kind]")) {
  button.addEventListener("click", () => start(button.dataset.kind));
}
setInterval(tick, 1000);

// A page in the back/forward cache must not hold a connection.
addEventListener("pagehide", () => subscription.close());
addEventListener("pageshow", (e) => e.persisted && connect());

connect();
const me = await fetch(`${site}/me`, { cache: "no-store" });
$("me").textContent = me.ok ? await me.text() : "nobody";
