"use strict";
/* The console's pages. No innerHTML anywhere: whatever is shown is text, whoever chose it. */

// ---------------------------------------------------------------- small things

const $ = (id) => document.getElementById(id);
const STATES = ["enabled", "failing", "draining", "maintenance", "suspect", "invalid"];
const TROUBLE = { failing: 0, invalid: 1, suspect: 2, maintenance: 3, draining: 4, enabled: 5 };
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function draw(tag, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
}

let ahead = 0; // seconds of the server's clock before ours
const now = () => Date.now() / 1000 + ahead;

function age(seconds) {
  const whole = Math.max(Math.floor(seconds), 0);
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["m", 60]]) if (whole >= size) return `${Math.min(Math.floor(whole / size), 99999)}${unit}`;
  return `${whole}s`;
}

function when(seconds, full = true) {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return "?";
  const pad = (number, digits = 2) => String(number).padStart(digits, "0");
  const clock = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return full ? `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${clock}` : clock;
}

function toInput(seconds) {
  return when(seconds).replace(" ", "T");
}

function fromInput(text) {
  const moment = new Date(text).getTime() / 1000;
  return Number.isNaN(moment) ? null : moment;
}

function say(text) {
  $("said").textContent = text;
}

function later(milliseconds, action) {
  let timer = null;
  return (...rest) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...rest), milliseconds);
  };
}

async function ask(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== null && value !== undefined && value !== "") query.set(name, value);
  const answer = await fetch(`/api/${path}?${query}`, { headers: { accept: "application/json" } });
  return read(answer);
}

// Answers may overtake one another: only the one to the last question of its kind may be shown.
function lastOnly() {
  let last = 0;
  return () => {
    const number = ++last;
    return () => number === last;
  };
}

async function tell(path, fields) {
  const headers = { "content-type": "application/json", "x-csrf-token": document.body.dataset.csrf };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(fields) });
  return read(answer);
}

async function read(answer) {
  if (answer.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    throw new Error("You have to log in again.");
  }
  let content = null;
  try {
    content = await answer.json();
  } catch {
    throw new Error(`The console answered with ${answer.status}.`);
  }
  if (!answer.ok) throw new Error(content.error || `The console answered with ${answer.status}.`);
  return content;
}

const WARM_UP = Number(document.body.dataset.warmUp);

function warming(since) {
  const seconds = since === null || since === undefined ? Infinity : Math.max(now() - since, 0);
  return seconds < WARM_UP ? `warming up, new for ${age(seconds)} of ${age(WARM_UP)}` : "";
}

function stateMark(state, words = state) {
  return make("span", { class: `state ${STATES.includes(state) ? state : ""}` }, words);
}

// ---------------------------------------------------------------- lists of which only what is seen exists

class List {
  /* element: role grid, focusable. columns: [title, class]. render(row) gives the cells' contents; key(row) its name. */
  constructor(element, columns, { render, key, open, link }) {
    Object.assign(this, { element, columns, render, key, open, link, rows: [], chosen: null, drawn: new Map() });
    this.head = make("div", { class: "head", role: "row", "aria-rowindex": "1" });
    for (const [title, kind] of columns) this.head.append(make("div", { class: `cell ${kind || ""}`, role: "columnheader" }, title));
    this.pad = make("div", { class: "pad", role: "rowgroup" });
    this.none = make("div", { class: "empty" });
    const heads = make("div", { role: "rowgroup" }, this.head);
    element.append(heads, this.pad);
    element.after(this.none);
    element.setAttribute("aria-colcount", String(columns.length));
    element.addEventListener("scroll", () => this.draw(), { passive: true });
    element.addEventListener("keydown", (event) => this.pressed(event));
    element.addEventListener("click", (event) => this.clicked(event));
    new ResizeObserver(() => this.resized()).observe(element);
    this.resized();
  }

  resized() {
    const narrow = matchMedia("(max-width: 760px)").matches;
    this.height = narrow ? 100 : 36;
    for (const row of this.drawn.values()) row.element.remove();
    this.drawn.clear();
    this.draw();
  }

  show(rows, none) {
    this.rows = rows;
    this.none.textContent = rows.length ? "" : none;
    this.none.hidden = rows.length > 0;
    this.element.hidden = rows.length === 0;
    this.element.setAttribute("aria-rowcount", String(rows.length + 1));
    this.draw();
  }

  draw() {
    if (this.element.hidden || !this.element.clientHeight) return;
    this.pad.style.height = `${this.rows.length * this.height}px`;
    const first = Math.max(Math.floor(this.element.scrollTop / this.height) - 4, 0);
    const last = Math.min(first + Math.ceil(this.element.clientHeight / this.height) + 9, this.rows.length);
    const kept = new Map();
    for (let index = first; index < last; index++) {
      const row = this.rows[index];
      const key = this.key(row);
      kept.set(key, this.place(row, key, index));
    }
    for (const [key, row] of this.drawn) if (!kept.has(key)) row.element.remove();
    this.drawn = kept;
    const active = this.chosen !== null && kept.has(this.chosen) ? kept.get(this.chosen).element.id : null;
    if (active) this.element.setAttribute("aria-activedescendant", active);
    else this.element.removeAttribute("aria-activedescendant");
  }

  place(row, key, index) {
    const cells = this.render(row);
    const print = JSON.stringify(cells.map((cell) => (cell instanceof Node ? cell.outerHTML : cell)));
    let known = this.drawn.get(key);
    if (!known) {
      known = { element: make("div", { class: "row", role: "row", id: `row-${List.count++}` }), print: null, index: -1 };
      known.element.style.height = `${this.height}px`;
      this.pad.append(known.element);
    }
    if (known.print !== print) {
      known.print = print;
      known.element.replaceChildren(...cells.map((cell, column) => this.cell(row, cell, column)));
    }
    if (known.index !== index) {
      known.index = index;
      known.element.style.transform = "";
      known.element.style.top = `${index * this.height}px`;
      known.element.setAttribute("aria-rowindex", String(index + 2));
    }
    known.element.setAttribute("aria-selected", String(key === this.chosen));
    known.element.key = key;
    return known;
  }

  cell(row, content, column) {
    const [title, kind] = this.columns[column];
    const isZero = kind === "number" && content === "0";
    const cell = make("div", { class: `cell ${kind || ""} ${isZero ? "zero" : ""}`, role: "gridcell" });
    if (kind === "number") cell.dataset.word = title.toLowerCase();
    if (column === 0 && this.link) cell.append(make("a", { href: this.link(row), tabindex: "-1" }, content));
    else cell.append(content);
    if (typeof content === "string" && content.length > 12) cell.title = content;
    return cell;
  }

  clicked(event) {
    const row = event.target.closest(".row");
    if (!row || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    this.choose(row.key, false);
    this.opened();
  }

  opened() {
    const row = this.rows.find((each) => this.key(each) === this.chosen);
    if (row && this.open) this.open(row);
  }

  pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(Math.floor(this.element.clientHeight / this.height) - 2, 1);
    const at = this.rows.findIndex((row) => this.key(row) === this.chosen);
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.rows.length - 1 };
    if (event.key in steps && this.rows.length) {
      event.preventDefault();
      const index = Math.min(Math.max(steps[event.key], 0), this.rows.length - 1);
      this.choose(this.key(this.rows[index]), true);
    } else if ((event.key === "Enter" || event.key === " ") && at >= 0) {
      event.preventDefault();
      this.opened();
    }
  }

  choose(key, scroll) {
    this.chosen = key;
    const index = this.rows.findIndex((row) => this.key(row) === key);
    if (scroll && index >= 0) {
      const head = this.head.offsetHeight;
      const top = index * this.height;
      const seen = this.element.clientHeight - head;
      if (top < this.element.scrollTop) this.element.scrollTop = top;
      else if (top + this.height > this.element.scrollTop + seen) this.element.scrollTop = top + this.height - seen;
    }
    this.draw();
  }
}
List.count = 0;

// ---------------------------------------------------------------- what is known, by server-sent events

const known = { services: new Map(), instances: new Map(), watched: null, isKnown: null, status: null, heard: null };
let source = null;

function follow(service) {
  if (source) source.close();
  known.watched = service;
  known.instances = new Map();
  known.isKnown = null;
  const query = service === null ? "" : `?${new URLSearchParams({ service })}`;
  const own = new EventSource(`/api/follow${query}`);
  source = own;
  own.addEventListener("status", (event) => {
    known.status = JSON.parse(event.data);
    ahead = known.status.now - Date.now() / 1000;
    showStatus();
  });
  own.addEventListener("services", (event) => {
    const news = JSON.parse(event.data);
    if (news.all) known.services = new Map(news.all.map((row) => [row[0], row]));
    for (const row of news.changed || []) known.services.set(row[0], row);
    for (const name of news.gone || []) known.services.delete(name);
    known.heard = Date.now();
    changed();
  });
  own.addEventListener("instances", (event) => {
    const news = JSON.parse(event.data);
    if (news.service !== known.watched) return;
    known.isKnown = news.known;
    for (const row of news.changed) known.instances.set(row[0], row);
    for (const id of news.gone) known.instances.delete(id);
    changed();
  });
  own.addEventListener("open", () => {
    known.lost = null;
    known.instances = new Map();
    showStatus();
  });
  own.addEventListener("error", () => {
    known.lost = known.lost || now();
    showStatus();
    if (own.readyState === EventSource.CLOSED && source === own) {
      source = null;
      // The console refused: it may want a login, which the next question finds out.
      setTimeout(() => ask("search", { q: "\u0001" }).then(() => follow(known.watched), () => setTimeout(() => follow(known.watched), 3000)), 1000);
    }
  });
}

// A page that nobody sees is sent nothing.
let hiding = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => { if (source) source.close(); source = null; }, 30000);
  else if (source === null) follow(known.watched);
});

function showStatus() {
  const status = known.status;
  const bar = $("status");
  let text = "Waiting for news …";
  let wrong = false;
  if (known.lost) {
    text = `No answer from the console since ${when(known.lost)}. The page shows the state of that time.`;
    wrong = true;
  } else if (status) {
    const parts = [];
    if (status.failure) parts.push(`Nothing can be followed any more: ${status.failure}`);
    else if (status.outage) {
      const reason = status.outage.reason ? `: ${status.outage.reason}` : "";
      parts.push(`No connection to ZooKeeper since ${when(status.outage.since)}${reason}. The page shows the state of that time.`);
    } else parts.push(`Connected to ${status.server || "ZooKeeper"}, ${status.base}`);
    wrong = Boolean(status.failure || status.outage);
    if (status.unread) parts.push(`${status.unread} services are still being read`);
    if (status.beyond) parts.push(`${status.beyond} more services are not followed`);
    if (status.history) {
      parts.push(`Nothing is recorded since ${when(status.history_since)}: the history ${status.history}`);
      wrong = true;
    }
    text = parts.join(" · ");
  }
  if (bar.textContent !== text) bar.textContent = text;
  bar.dataset.kind = wrong ? "wrong" : "well";
}

let dirty = false;
function changed() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(() => {
    dirty = false;
    if (page.refresh) page.refresh();
  });
}
setInterval(() => { if (page.refresh && !document.hidden) page.refresh(); }, 5000); // ages

// ---------------------------------------------------------------- pages and their addresses

let page = {};

function go(path, parameters = {}, replace = false) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== null && value !== undefined && value !== "") query.set(name, value);
  const address = query.size ? `${path}?${query}` : path;
  if (address !== location.pathname + location.search) history[replace ? "replaceState" : "pushState"](null, "", address);
  open();
}

function address(path, parameters) {
  return `${path}?${new URLSearchParams(parameters)}`;
}

function wanted() {
  return new URLSearchParams(location.search);
}

function open() {
  const asked = wanted();
  const name = location.pathname === "/timeline" ? "timeline" : location.pathname === "/compare" ? "compare" : asked.has("service") ? "service" : "services";
  const moved = page.name !== name;
  for (const each of document.querySelectorAll("main > section")) each.hidden = each.id !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === (name === "service" ? "services" : name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  page = pages[name];
  page.name = name;
  page.enter(asked, moved);
  const title = $(`${name}-title`).textContent;
  document.title = `${title} · aioregistry`;
  const watched = name === "service" ? asked.get("service") : null;
  if (source === null || known.watched !== watched) follow(watched);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey || event.button || link.origin !== location.origin) return;
  if (!["/", "/timeline", "/compare"].includes(link.pathname) || link.hash) return;
  event.preventDefault();
  history.pushState(null, "", link.pathname + link.search);
  open();
  $("main").focus({ preventScroll: true });
});
addEventListener("popstate", open);

function field(form, name) {
  return form.elements.namedItem(name);
}

function fill(form, asked, names) {
  for (const name of names) {
    const input = field(form, name);
    const value = asked.get(name) ?? (input.tagName === "SELECT" ? input.options[0].value : "");
    if (input.value !== value && document.activeElement !== input) input.value = value;
  }
}

for (const form of document.querySelectorAll("form.filters")) form.addEventListener("submit", (event) => event.preventDefault());

// ---------------------------------------------------------------- services

const servicesForm = document.querySelector("#services .filters");
const servicesList = new List($("services-list"),
  [["Service"], ["Instances", "number"], ...STATES.map((state) => [state[0].toUpperCase() + state.slice(1), "number"]), ["Known", "soft"]],
  {
    key: (row) => row[0],
    link: (row) => address("/", { service: row[0] }),
    open: (row) => go("/", { service: row[0] }),
    render: (row) => [
      row[1],
      row[2] === null ? "…" : row[11] && warming(row[12]) ? `${row[2]}, ${row[11]} new` : String(row[2]),
      ...STATES.map((state, index) => (row[3 + index] && state !== "enabled" ? stateMark(state, String(row[3 + index])) : String(row[3 + index]))),
      row[10] ? `not: ${row[10]}` : row[9] === null ? (row[2] === null ? "being read" : "now") : `${age(now() - row[9])} ago`,
    ],
  });

const troubleOf = (row) => row[4] + row[8] + row[7] + row[6] + row[5] + (row[10] ? 1 : 0);

const pages = {
  services: {
    enter(asked) {
      fill(servicesForm, asked, ["q", "state", "sort"]);
      this.refresh();
    },
    refresh() {
      const asked = wanted();
      const text = (asked.get("q") || "").toLowerCase();
      const state = asked.get("state") || "";
      const sort = asked.get("sort") || "name";
      let rows = [...known.services.values()];
      const all = rows.length;
      const instances = rows.reduce((sum, row) => sum + (row[2] || 0), 0);
      if (text) rows = rows.filter((row) => row[0].toLowerCase().includes(text) || row[1].toLowerCase().includes(text));
      if (state === "empty") rows = rows.filter((row) => row[2] === 0);
      else if (state) rows = rows.filter((row) => row[3 + STATES.indexOf(state)] > 0);
      const byName = (a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0);
      const orders = { name: byName, trouble: (a, b) => troubleOf(b) - troubleOf(a) || byName(a, b), size: (a, b) => (b[2] || 0) - (a[2] || 0) || byName(a, b) };
      rows.sort(orders[sort] || byName);
      $("services-count").textContent = `${rows.length === all ? all : `${rows.length} of ${all}`} ${all === 1 ? "service" : "services"}, ${instances} ${instances === 1 ? "instance" : "instances"}`;
      servicesList.show(rows, known.heard === null ? "Waiting for news …" : all ? "No service matches." : "There are no services.");
    },
  },

  service: {
    enter(asked, moved) {
      const name = asked.get("service");
      const row = known.services.get(name);
      $("service-title").textContent = row ? row[1] : name;
      $("service-timeline").href = address("/timeline", { service: name });
      fill(instancesForm, asked, ["q", "state", "sort"]);
      const id = asked.get("id");
      if (id === null) closeInstance();
      else if (moved || instancesList.chosen !== id || shown.service !== name || shown.id !== id) showInstance(name, id);
      this.refresh();
    },
    refresh() {
      const asked = wanted();
      const row = known.services.get(asked.get("service"));
      if (row && $("service-title").textContent !== row[1]) $("service-title").textContent = row[1];
      const text = (asked.get("q") || "").toLowerCase();
      const state = asked.get("state") || "";
      const sort = asked.get("sort") || "id";
      let rows = [...known.instances.values()];
      const all = rows.length;
      if (text) rows = rows.filter((each) => [0, 2, 4, 6, 7].some((column) => String(each[column]).toLowerCase().includes(text)));
      if (state) rows = rows.filter((each) => each[3] === state);
      const byId = (a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0);
      const created = (each) => each[5] ?? 0;
      const orders = { id: byId, trouble: (a, b) => TROUBLE[a[3]] - TROUBLE[b[3]] || byId(a, b), young: (a, b) => created(b) - created(a), old: (a, b) => created(a) - created(b) };
      rows.sort(orders[sort] || byId);
      const stale = row && row[9] !== null ? `; as it was ${age(now() - row[9])} ago` : "";
      $("instances-count").textContent = `${rows.length === all ? all : `${rows.length} of ${all}`} ${all === 1 ? "instance" : "instances"}${stale}`;
      const none = row && row[10] ? `It cannot be followed: ${row[10]}` : known.isKnown === null ? "Waiting for news …"
        : !known.isKnown ? "There is no such service." : all ? "No instance matches." : "There are no instances.";
      instancesList.show(rows, none);
      refreshInstance();
    },
  },

  timeline: {
    enter(asked) { enterTimeline(asked); },
  },

  compare: {
    enter(asked) { enterCompare(asked); },
  },
};

function filtersChange(form, path, names, kept = []) {
  const act = later(150, () => {
    const asked = wanted();
    const parameters = {};
    for (const name of kept) if (asked.has(name)) parameters[name] = asked.get(name);
    for (const name of names) {
      const input = field(form, name);
      if (input.value && !(input.tagName === "SELECT" && input.selectedIndex === 0)) parameters[name] = input.value;
    }
    go(path, parameters, true);
  });
  form.addEventListener("input", act);
}
filtersChange(servicesForm, "/", ["q", "state", "sort"]);

const askSearch = lastOnly();
$("find").addEventListener("click", async () => {
  const text = field(servicesForm, "q").value.trim();
  const list = document.querySelector("#found ul");
  $("found").hidden = false;
  const isLast = askSearch();
  if (!text) {
    list.replaceChildren(make("li", {}, "Write a part of an id, an address or an owner into the field above."));
    return;
  }
  try {
    const { found } = await ask("search", { q: text });
    if (!isLast()) return;
    list.replaceChildren(...found.map(([service, shownService, id, shownId, place, state]) =>
      make("li", {}, make("a", { href: address("/", { service, id }) }, `${shownService} / ${shownId}`), ` ${place} `, stateMark(state))));
    if (!found.length) list.replaceChildren(make("li", {}, "No instance matches."));
    say(`${found.length} instances match.`);
  } catch (error) {
    if (isLast()) list.replaceChildren(make("li", { class: "error" }, error.message));
  }
});

// ---------------------------------------------------------------- instances

const instancesForm = document.querySelector("#service .filters");
const instancesList = new List($("instances-list"),
  [["Instance"], ["Address"], ["State", "state-cell"], ["Owner session", "owner soft"], ["Age", "number"], ["Payload or reason", "more soft"]],
  {
    key: (row) => row[0],
    link: (row) => address("/", { service: known.watched, id: row[0] }),
    open: (row) => {
      const asked = Object.fromEntries(wanted());
      go("/", { ...asked, id: row[0] });
    },
    render: (row) => [row[1], row[2], stateMark(row[3]), row[4], row[5] === null ? "-" : age(now() - row[5]), [warming(row[8]), row[6], row[7]].filter(Boolean).join("; ")],
  });
filtersChange(instancesForm, "/", ["q", "state", "sort"], ["service", "id"]);

const shown = { service: null, id: null, print: null };
const askInstance = lastOnly();

function closeInstance() {
  $("instance").hidden = true;
  shown.service = shown.id = shown.print = null;
  askInstance(); // an answer that is still under way is not shown
  instancesList.choose(null, false);
}

async function showInstance(service, id) {
  const isNew = shown.service !== service || shown.id !== id;
  shown.service = service;
  shown.id = id;
  instancesList.choose(id, isNew);
  const panel = $("instance");
  if (isNew) {
    panel.hidden = false;
    panel.replaceChildren(make("h2", { id: "instance-title" }, id), make("p", {}, "Waiting for news …"));
  }
  const isLast = askInstance();
  try {
    const answer = await ask("instance", { service, id });
    if (isLast()) renew(panel, instanceParts(service, id, answer));
  } catch (error) {
    if (isLast()) panel.replaceChildren(make("h2", { id: "instance-title" }, id), make("p", { class: "error" }, error.message));
  }
}

// A form that the user has begun to fill in stays where it is, and keeps the focus; all around it is new.
function renew(panel, parts) {
  const form = panel.querySelector("form");
  const place = parts.findIndex((part) => part.tagName === "FORM");
  if (form === null || place < 0 || !(form.contains(document.activeElement) || form.elements.reason.value)) {
    panel.replaceChildren(...parts);
    return;
  }
  for (const child of [...panel.children]) if (child !== form) child.remove();
  form.before(...parts.slice(0, place));
  form.after(...parts.slice(place + 1));
}

function refreshInstance() {
  if (shown.id === null) return;
  const print = JSON.stringify(known.instances.get(shown.id) || null);
  if (shown.print === null) shown.print = print;
  else if (shown.print !== print) {
    shown.print = print;
    showInstance(shown.service, shown.id);
  }
}

function instanceParts(service, id, answer) {
  const found = answer.instance;
  const close = make("button", { type: "button", class: "quiet close" }, "Close");
  close.addEventListener("click", () => {
    const asked = Object.fromEntries(wanted());
    delete asked.id;
    go("/", asked);
    $("instances-list").focus();
  });
  const parts = [close, make("h2", { id: "instance-title" }, found ? found.shown : id)];
  if (!found) parts.push(make("p", {}, "It is not listed now."));
  else {
    const facts = make("dl");
    const fact = (title, content) => { if (content !== null && content !== undefined && content !== "") facts.append(make("dt", {}, title), make("dd", {}, content)); };
    fact("State", stateMark(found.state));
    fact("Reason", found.reason);
    fact("Warm-up", warming(found.new));
    if (found.weight !== undefined && found.weight !== 1) fact("Weight", `${found.weight} of its share of calls`);
    fact("Address", found.place);
    fact("Owner session", found.owner);
    if (found.created !== undefined) fact("Listed since", `${when(found.created)} (${age(now() - found.created)})`);
    if (found.modified !== undefined && found.modified !== found.created) fact("Changed", `${when(found.modified)} (${age(now() - found.modified)} ago)`);
    if (found.suspicion) fact("Suspect", `since ${when(found.suspicion.since)}${found.suspicion.until === null ? "" : `, until ${when(found.suspicion.until)}`}`);
    if (found.override) fact("Override", `${found.override.reason}, by ${found.override.by}, ${found.override.until === null ? "for ever" : `until ${when(found.override.until)}`}${found.override.applies ? "" : "; of an earlier process, so it says nothing of this one"}`);
    fact("Node", `created by ${found.czxid}, changed by ${found.mzxid}`);
    parts.push(facts);
    if (document.body.dataset.drain === "yes" && found.state !== "invalid") parts.push(found.override ? enableForm(service, id) : drainForm(service, id));
    if (found.payload) parts.push(make("h2", {}, "Payload"), make("pre", { tabindex: "0", "aria-label": "Payload" }, found.payload.join("\n")));
    if (found.document) parts.push(make("h2", {}, "Document"), make("pre", { tabindex: "0", "aria-label": "Document" }, found.document.join("\n")));
  }
  parts.push(make("h2", {}, "History"));
  if (answer.unavailable) parts.push(make("p", { class: "error" }, `Not to be had: ${answer.unavailable}`));
  else if (!answer.events.length) parts.push(make("p", {}, "Nothing has happened to it since the history began."));
  else parts.push(make("ol", {}, ...answer.events.map(([at, kind, , , , , text]) => make("li", {}, make("time", {}, when(at)), ` ${words(kind)}${text ? `: ${text}` : ""}`))));
  parts.push(make("p", {}, make("a", { href: address("/timeline", { service, q: id }) }, "On the timeline")));
  return parts;
}

function drainForm(service, id) {
  const form = make("form", { "aria-label": "Maintenance" });
  const reason = make("input", { name: "reason", required: true, maxlength: "300", autocomplete: "off" });
  const seconds = make("select", { name: "seconds" });
  for (const [text, value] of [["15 minutes", 900], ["1 hour", 3600], ["8 hours", 28800], ["1 day", 86400], ["7 days", 604800], ["ever", ""]]) seconds.append(make("option", { value: String(value) }, text));
  seconds.value = "3600";
  const outcome = make("p", { role: "alert" });
  form.append(make("label", {}, "Reason", reason), make("label", {}, "For", seconds), make("button", { type: "submit", class: "primary" }, "Take into maintenance"), outcome);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await tell("/api/drain", { service, id, reason: reason.value, seconds: seconds.value === "" ? null : Number(seconds.value) });
      $("instances-list").focus();
      form.remove();
      say("It is in maintenance.");
      showInstance(service, id);
    } catch (error) {
      outcome.className = "error";
      outcome.textContent = error.message;
    }
  });
  return form;
}

function enableForm(service, id) {
  const form = make("form", { "aria-label": "Maintenance" });
  const reason = make("input", { name: "reason", maxlength: "300", autocomplete: "off" });
  const outcome = make("p", { role: "alert" });
  form.append(make("label", {}, "Reason", reason), make("button", { type: "submit", class: "primary" }, "End its maintenance"), outcome);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await tell("/api/enable", { service, id, reason: reason.value });
      $("instances-list").focus();
      form.remove();
      say("Its maintenance is over.");
      showInstance(service, id);
    } catch (error) {
      outcome.className = "error";
      outcome.textContent = error.message;
    }
  });
  return form;
}

// ---------------------------------------------------------------- the timeline

const timelineForm = document.querySelector("#timeline .filters");
const boxes = [...timelineForm.querySelectorAll("input[name=kind]")];
const KINDS = Object.fromEntries(boxes.map((box) => [box.value, box.parentElement.textContent.trim()]));
const words = (kind) => KINDS[kind] || kind;
const eventsList = new List($("events-list"), [["Time"], ["Event"], ["Service"], ["Instance"], ["What"]],
  {
    key: (row) => row.number,
    render: ({ row }) => [when(row[0]), words(row[1]), row[3], row[5], row[6]],
    open: ({ row }) => { if (row[2]) go("/", row[4] ? { service: row[2], id: row[4] } : { service: row[2] }); },
  });
const drawing = { answer: null, since: 0, until: 0 };
const askTimeline = lastOnly();

function timeWindow(asked) {
  const range = Math.min(Math.max(Number(asked.get("range")) || 3600, 10), 4e8);
  const from = Date.parse(asked.get("from") || "") / 1000;
  const to = Date.parse(asked.get("to") || "") / 1000;
  if (!Number.isNaN(from) && !Number.isNaN(to) && to > from) return { since: from, until: to, live: false };
  const end = now();
  return { since: end - range, until: end, live: true };
}

function iso(seconds) {
  return new Date(Math.round(seconds * 1000)).toISOString().replace(".000Z", "Z");
}

function timelineParameters(changes) {
  const asked = Object.fromEntries(wanted());
  const merged = { ...asked, ...changes };
  if (changes.from !== undefined) delete merged.range;
  if (changes.range !== undefined) { delete merged.from; delete merged.to; }
  return merged;
}

function enterTimeline(asked) {
  fill(timelineForm, asked, ["service", "q"]);
  const kinds = asked.get("kinds");
  for (const box of boxes) box.checked = kinds === null || kinds.split(",").includes(box.value);
  loadTimeline();
}

async function loadTimeline() {
  const asked = wanted();
  const { since, until, live } = timeWindow(asked);
  $("live").checked = live;
  const isLast = askTimeline();
  try {
    const answer = await ask("timeline", { since, until, service: asked.get("service"), kinds: asked.get("kinds"), q: asked.get("q") });
    if (!isLast() || page !== pages.timeline) return;
    Object.assign(drawing, { answer, since, until });
    showTimeline(live);
  } catch (error) {
    if (isLast()) $("timeline-count").textContent = error.message;
  }
}

function showTimeline(live) {
  const { answer, since, until } = drawing;
  const inputs = { from: since, to: until };
  for (const [name, moment] of Object.entries(inputs)) {
    const input = field(timelineForm, name);
    if (document.activeElement !== input) input.value = toInput(moment);
  }
  const more = answer.more ? "the latest " : "";
  const gap = answer.gaps.length ? `; nothing was recorded for ${age(answer.gaps.reduce((sum, [a, b]) => sum + b - a, 0))} of it` : "";
  const lanes = answer.lanes_more ? `; ${answer.lanes_more} quieter ones are not drawn` : "";
  $("timeline-count").textContent = `${more}${answer.events.length} events from ${when(since)} to ${when(until)}${live ? ", followed" : ""}${gap}${lanes}`;
  $("compare-window").href = address("/compare", live ? { a: iso(since), now: "yes", ...service() } : { a: iso(since), b: iso(until), ...service() });
  drawLanes();
  eventsList.show(answer.events.map((row, index) => ({ row, number: `${row[0]} ${row[1]} ${row[2]} ${row[4]} ${index}` })), "Nothing happened.");
}

function service() {
  const name = wanted().get("service");
  return name ? { service: name } : {};
}

const LANE = 22;
const TOP = 26;

function drawLanes() {
  const { answer, since, until } = drawing;
  const box = $("lanes");
  const width = Math.max(box.clientWidth - 2, 200);
  const left = Math.min(Math.max(width * 0.22, 90), 240);
  const scale = (width - left - 8) / (until - since);
  const x = (moment) => left + (Math.min(Math.max(moment, since), until) - since) * scale;
  const lanes = answer.instances || answer.services;
  const height = TOP + Math.max(lanes.length, 1) * LANE + 6;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${lanes.length} lanes from ${when(since)} to ${when(until)}` });
  for (const moment of ticks(since, until, Math.max(Math.floor((width - left) / 110), 2))) {
    svg.append(draw("line", { class: "grid", x1: x(moment), x2: x(moment), y1: TOP - 6, y2: height }));
    svg.append(draw("text", { class: "soft", x: x(moment) + 3, y: 14 }, tick(moment, until - since)));
  }
  for (const [a, b] of answer.gaps) svg.append(draw("rect", { class: "gap", x: x(a), y: TOP - 4, width: Math.max(x(b) - x(a), 1), height: height - TOP }));
  let led = null; // a console that starts again finds the same leader, which is not a new one
  for (const [kind, a, b, text] of answer.periods) {
    if (kind === "outage") svg.append(titled(draw("rect", { class: "outage", x: x(a), y: TOP - 4, width: Math.max(x(b) - x(a), 2), height: height - TOP }), `no connection to ZooKeeper from ${when(a)} to ${when(b)}${text ? `: ${text}` : ""}`));
    else if (kind === "leader" && led !== null && led !== text && a > since) svg.append(titled(draw("line", { class: "leader", x1: x(a), x2: x(a), y1: TOP - 6, y2: height }), `new leader, ${text}`));
    if (kind === "leader") led = text;
  }
  lanes.forEach((lane, index) => {
    const y = TOP + index * LANE;
    const group = draw("g", { class: "lane" });
    group.append(draw("text", { x: 6, y: y + 14 }, clipped(lane[1], left / 7)));
    group.append(draw("line", { class: "grid", x1: left, x2: width, y1: y + LANE - 2, y2: y + LANE - 2 }));
    if (answer.instances) for (const [a, b, state, count] of lane[2]) group.append(titled(draw("rect", { class: `s-${state}`, x: x(a), y: y + 3, width: Math.max(x(b) - x(a), 1.5), height: LANE - 8 }), `${lane[1]}: ${state} from ${when(a)} to ${when(b)}${count > 1 ? `, ${count} states` : ""}`));
    else drawBins(group, lane, y, answer.bins, x, since, until);
    group.addEventListener("click", () => {
      if (Math.abs(dragged) > 3) return;
      if (answer.instances) go("/", { service: wanted().get("service"), id: lane[0] });
      else go("/timeline", timelineParameters({ service: lane[0] }));
    });
    svg.append(group);
  });
  if (!lanes.length) svg.append(draw("text", { class: "soft", x: left, y: TOP + 14 }, "Nothing happened."));
  svg.append(draw("rect", { class: "band", id: "band", x: 0, y: 0, width: 0, height }));
  box.replaceChildren(svg);
  showLegend(answer.instances ? OF_INSTANCES : OF_SERVICES);
  Object.assign(drawing, { left, scale });
}

const BIN_STATES = { joined: "enabled", released: "enabled", left: "failing", invalid: "invalid", held: "suspect", override: "maintenance", "override-over": "enabled", state: "draining" };

function drawBins(group, lane, y, bins, x, since, until) {
  const sums = new Map();
  for (const [bin, kind, count] of lane[2]) {
    if (!sums.has(bin)) sums.set(bin, []);
    sums.get(bin).push([kind, count]);
  }
  const size = (until - since) / bins;
  for (const [bin, kinds] of sums) {
    const total = kinds.reduce((sum, [, count]) => sum + count, 0);
    const [kind] = kinds.reduce((most, each) => (each[1] > most[1] ? each : most));
    const height = Math.min(4 + Math.log2(total + 1) * 3, LANE - 6);
    const a = since + bin * size;
    const text = kinds.map(([each, count]) => `${count} × ${words(each)}`).join(", ");
    group.append(titled(draw("rect", { class: `s-${BIN_STATES[kind] || "mixed"}`, x: x(a), y: y + LANE - 3 - height, width: Math.max(x(a + size) - x(a) - 0.5, 2), height }), `${lane[1]}, ${when(a)}: ${text}`));
  }
}

function titled(element, text) {
  element.append(draw("title", {}, text));
  return element;
}

function clipped(text, characters) {
  return text.length > characters ? `${text.slice(0, Math.max(characters - 1, 3))}…` : text;
}

function ticks(since, until, most) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000, 7776000, 31536000];
  const step = steps.find((each) => (until - since) / each <= most) || steps[steps.length - 1] * Math.ceil((until - since) / 31536000 / most);
  const zone = new Date(since * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let moment = Math.ceil((since - zone) / step) * step + zone; moment <= until; moment += step) found.push(moment);
  return found;
}

function tick(moment, length) {
  const text = when(moment);
  if (length > 3 * 86400) return text.slice(5, 10);
  return length > 600 ? text.slice(11, 16) : text.slice(11);
}

// Zooming: by buttons, keys, the wheel with Ctrl, and a band that is drawn with the mouse.
function zoomTo(since, until) {
  const length = Math.max(until - since, 1);
  const middle = (since + until) / 2;
  go("/timeline", timelineParameters({ from: iso(middle - length / 2), to: iso(middle + length / 2) }), true);
}

function zoom(kind, at = 0.5) {
  const { since, until } = timeWindow(wanted());
  const length = until - since;
  const fixed = since + length * at;
  if (kind === "in") zoomTo(fixed - (fixed - since) / 2, fixed + (until - fixed) / 2);
  else if (kind === "out") zoomTo(fixed - (fixed - since) * 2, fixed + (until - fixed) * 2);
  else zoomTo(since + (kind === "on" ? length / 2 : -length / 2), until + (kind === "on" ? length / 2 : -length / 2));
}

for (const button of document.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => zoom(button.dataset.zoom));
for (const button of document.querySelectorAll("[data-range]")) {
  button.addEventListener("click", () => {
    if (button.dataset.range !== "all") go("/timeline", timelineParameters({ range: button.dataset.range }), true);
    else if (drawing.answer && drawing.answer.bounds[0] !== null) zoomTo(drawing.answer.bounds[0] - 1, now());
  });
}
$("live").addEventListener("change", () => {
  const { since, until } = timeWindow(wanted());
  if ($("live").checked) go("/timeline", timelineParameters({ range: String(Math.max(Math.round(until - since), 10)) }), true);
  else zoomTo(since, until);
});
$("lanes").addEventListener("keydown", (event) => {
  const kind = { "+": "in", "=": "in", "-": "out", ArrowLeft: "back", ArrowRight: "on" }[event.key];
  if (!kind || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  zoom(kind);
});
$("lanes").addEventListener("wheel", (event) => {
  if (!event.ctrlKey || !drawing.answer) return;
  event.preventDefault();
  const at = (event.offsetX - drawing.left) / (drawing.scale * (drawing.until - drawing.since));
  zoom(event.deltaY < 0 ? "in" : "out", Math.min(Math.max(at, 0), 1));
}, { passive: false });

let dragFrom = null;
let dragged = 0;
const within = (event) => event.clientX - $("lanes").getBoundingClientRect().left - 1;
$("lanes").addEventListener("pointerdown", (event) => {
  dragged = 0;
  dragFrom = event.pointerType === "mouse" && event.button === 0 && within(event) > drawing.left ? within(event) : null;
});
$("lanes").addEventListener("pointermove", (event) => {
  if (dragFrom === null) return;
  dragged = within(event) - dragFrom;
  const band = $("band");
  if (band) {
    band.setAttribute("x", Math.min(dragFrom, dragFrom + dragged));
    band.setAttribute("width", Math.abs(dragged));
  }
});
addEventListener("pointerup", () => {
  if (dragFrom !== null && Math.abs(dragged) > 3) {
    const moment = (place) => drawing.since + (place - drawing.left) / drawing.scale;
    const [a, b] = [dragFrom, dragFrom + dragged].sort((one, other) => one - other);
    zoomTo(moment(a), Math.min(moment(b), drawing.until));
  }
  dragFrom = null;
});
addEventListener("resize", later(150, () => { if (page === pages.timeline && drawing.answer) drawLanes(); }));

timelineForm.addEventListener("input", later(300, (event) => {
  if (["from", "to"].includes(event.target.name)) {
    const [since, until] = ["from", "to"].map((name) => fromInput(field(timelineForm, name).value));
    if (since !== null && until !== null && until > since) zoomTo(since, until);
    return;
  }
  const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
  go("/timeline", timelineParameters({
    service: field(timelineForm, "service").value || null,
    q: field(timelineForm, "q").value || null,
    kinds: chosen.length === boxes.length ? null : chosen.join(",") || "none",
  }), true);
}));
setInterval(() => {
  if (page === pages.timeline && !document.hidden && timeWindow(wanted()).live && dragFrom === null) loadTimeline();
}, 2000);

const PERIODS = [["outage", "no connection to ZooKeeper"], ["gap", "not recorded"]];
const OF_INSTANCES = [...STATES.map((state) => [`s-${state}`, state]), ["s-mixed", "several states"], ...PERIODS];
const OF_SERVICES = [["s-enabled", "joined, or picked again"], ["s-failing", "left"], ["s-draining", "state changed"], ["s-maintenance", "override set"],
  ["s-suspect", "held back"], ["s-invalid", "not readable"], ["s-mixed", "other"], ...PERIODS];

function showLegend(colours) {
  const legend = document.querySelector(".legend");
  if (legend.colours === colours) return;
  legend.colours = colours;
  legend.replaceChildren(...colours.map(([kind, text]) => {
    const mark = draw("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" });
    mark.append(draw("rect", { class: kind, width: 10, height: 10 }));
    return make("li", {}, mark, text);
  }));
}

// ---------------------------------------------------------------- two moments

const compareForm = document.querySelector("#compare .filters");
const KIND_WORDS = { came: "came", went: "went", owner: "owner changed", changed: "changed", back: "was away or otherwise", brief: "came and went" };
const differencesList = new List($("differences-list"), [["Difference"], ["Service"], ["Instance"], ["Earlier"], ["Later"]],
  {
    key: (row) => `${row[0]}\n${row[2]}`,
    render: (row) => [KIND_WORDS[row[4]] + (row[7] > 2 ? ` (${row[7]} states)` : ""), row[1], row[3], sideOf(row[5], row[6]), sideOf(row[6], row[5])],
    open: (row) => go("/", { service: row[0], id: row[2] }),
  });

function sideOf(own, other) {
  if (own === null) return "not there";
  const parts = [own.state];
  if (own.reason) parts.push(own.reason);
  if (!other || own.owner !== other.owner) parts.push(`session ${own.owner}`);
  if (!other || own.place !== other.place) parts.push(own.place);
  if (other && own.payload !== other.payload) parts.push(own.payload || "no payload");
  return parts.join(", ");
}

function enterCompare(asked) {
  const a = Date.parse(asked.get("a") || "") / 1000;
  const isNow = asked.get("now") === "yes" || !asked.has("b");
  const b = isNow ? now() : Date.parse(asked.get("b")) / 1000;
  fill(compareForm, asked, ["service"]);
  field(compareForm, "now").checked = isNow;
  field(compareForm, "a").value = toInput(Number.isNaN(a) ? now() - 3600 : a);
  field(compareForm, "b").value = toInput(Number.isNaN(b) ? now() : b);
  field(compareForm, "b").disabled = isNow;
  if (!Number.isNaN(a) && !Number.isNaN(b)) loadCompare(a, b, asked.get("service"));
  else {
    $("compare-count").textContent = "Choose two moments.";
    $("totals").hidden = true;
    differencesList.show([], "");
  }
}

field(compareForm, "now").addEventListener("change", () => { field(compareForm, "b").disabled = field(compareForm, "now").checked; });
compareForm.addEventListener("submit", () => {
  const a = fromInput(field(compareForm, "a").value);
  const isNow = field(compareForm, "now").checked;
  const b = isNow ? now() : fromInput(field(compareForm, "b").value);
  if (a === null || b === null) {
    $("compare-count").textContent = "Give both moments.";
    return;
  }
  go("/compare", { a: iso(a), ...(isNow ? { now: "yes" } : { b: iso(b) }), service: field(compareForm, "service").value });
});

const askCompare = lastOnly();
async function loadCompare(a, b, service) {
  const count = $("compare-count");
  const isLast = askCompare();
  try {
    const answer = await ask("compare", { a, b, service });
    if (!isLast() || page !== pages.compare) return;
    const notes = [];
    if (answer.more) notes.push("there are more, which are not shown");
    if (answer.gaps.length) notes.push(`nothing was recorded for ${age(answer.gaps.reduce((sum, [since, until]) => sum + until - since, 0))} between them`);
    if (answer.bounds[0] !== null && answer.a < answer.bounds[0]) notes.push(`the history begins at ${when(answer.bounds[0])}`);
    count.textContent = `${answer.differences.length} differences between ${when(answer.a)} and ${when(answer.b)}${notes.length ? `; ${notes.join("; ")}` : ""}`;
    const table = $("totals");
    table.tHead.replaceChildren(make("tr", {}, ...["State", when(answer.a), when(answer.b)].map((text) => make("th", { scope: "col" }, text))));
    table.tBodies[0].replaceChildren(...STATES.filter((state) => answer.totals.some((each) => each[state])).map((state) =>
      make("tr", {}, make("th", { scope: "row" }, stateMark(state)), ...answer.totals.map((each) => make("td", {}, String(each[state] || 0))))));
    table.hidden = !table.tBodies[0].rows.length;
    differencesList.show(answer.differences, "Nothing differs.");
  } catch (error) {
    if (isLast()) count.textContent = error.message;
  }
}

// ---------------------------------------------------------------- the beginning

const logout = $("logout");
if (logout) {
  logout.addEventListener("click", async () => {
    await tell("/logout", {});
    location.assign("/login");
  });
  logout.disabled = false; // a click before this would be lost
}
open();
