// The page: shows what the gateway tells, and repeats what it said until it comes back with its place in the room.

const query = new URLSearchParams(location.search);
const name = query.get("name") ?? "";
const room = query.get("room") ?? "lobby";
const author = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const $ = (id) => document.getElementById(id);

const messages = new Map(); // id → { message, item }
const unsaid = new Map(); // id → what was said and did not come back yet, in order
let socket;
let attempts = 0;
let said = 0;
let controls = false;

const door = $("door");
door.elements.name.value = name;
door.elements.room.value = room;
if (door.checkValidity()) {
  door.remove();
  $("chat").hidden = false;
  $("room").textContent = room;
  document.title = `#${room} – Chat`;
  $("composer").addEventListener("submit", say);
  $("text").focus();
  await offerControls();
  connect();
} else {
  door.elements.name.focus();
}

// ---------------------------------------------------------------- the line to the gateway

function connect() {
  const gateway = new URL(`rooms/${encodeURIComponent(room)}`, location.href);
  gateway.protocol = gateway.protocol.replace("http", "ws");
  socket = new WebSocket(gateway);
  socket.onopen = () => {
    attempts = 0;
    happened({ what: "gateway", text: "Connected to the gateway." });
    socket.send(JSON.stringify({ kind: "hello", people: [name] }));
    for (const message of unsaid.values()) socket.send(JSON.stringify(message));
  };
  socket.onmessage = ({ data }) => {
    const told = JSON.parse(data);
    hear[told.kind](told);
  };
  socket.onclose = () => {
    if (attempts === 0) happened({ what: "lost", text: "The gateway is gone; what you say waits here." });
    showStatus(null, "looking for the gateway");
    // Full jitter, so that a thousand pages do not come back in the same moment.
    attempts += 1;
    setTimeout(connect, Math.random() * Math.min(5000, 250 * 2 ** attempts));
  };
}

function say(event) {
  event.preventDefault();
  said += 1;
  const message = { kind: "say", id: `${author}-${said}`, name, text: $("text").value.toWellFormed() };
  $("text").value = "";
  unsaid.set(message.id, message);
  show(message);
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

// ---------------------------------------------------------------- what it tells

const hear = {
  message(message) {
    unsaid.delete(message.id);
    const known = messages.get(message.id)?.message;
    if (known?.at === undefined || message.at < known.at) show(message);
  },
  people({ names }) {
    $("people").replaceChildren(...names.map((each) => element("li", each)));
  },
  servers({ room: server, all }) {
    showStatus(server, all.length ? "the room is moving" : "there is no chat server");
    $("servers").replaceChildren(...all.map((each) => serverItem(each, server)));
  },
  happened,
};

function show(message) {
  const item = messages.get(message.id)?.item ?? element("li");
  item.dataset.id = message.id;
  item.className = [message.id.startsWith(author) ? "own" : "", message.at === undefined ? "unsaid" : ""].join(" ");
  const place = message.at === undefined ? "waiting…" : `✓ ${message.by}`;
  item.replaceChildren(element("b", message.name), element("span", message.text), element("small", place));
  messages.set(message.id, { message, item });
  const follow = atEnd($("messages"));
  $("messages").insertBefore(item, later(message)); // null: the last
  if (follow || message.at === undefined) item.scrollIntoView({ block: "end" });
}

function later(message) {
  // From the end: nearly always it is the last one that has a place.
  let found = null;
  for (const item of Array.from($("messages").children).reverse()) {
    if (item.dataset.id !== message.id && !before(message, messages.get(item.dataset.id).message)) break;
    found = item.dataset.id === message.id ? found : item;
  }
  return found;
}

function before(one, other) {
  if (one.at === undefined) return false; // what waits is last, in the order in which it was said
  if (other.at === undefined) return true;
  return one.at === other.at ? one.id < other.id : one.at < other.at;
}

function happened({ what, text }) {
  const list = $("happened");
  const item = element("li", text);
  item.dataset.what = what;
  item.prepend(element("time", new Date().toLocaleTimeString()));
  const follow = atEnd(list);
  list.append(item);
  if (follow) list.scrollTop = list.scrollHeight;
}

function showStatus(server, otherwise) {
  $("status").textContent = server ? `connected to ${server}` : otherwise;
  $("status").dataset.state = server ? "connected" : "waiting";
}

// ---------------------------------------------------------------- servers, and what may be done to them

async function offerControls() {
  controls = await fetch("stage").then((answer) => answer.ok, () => false); // only the launcher has a stage
  $("start").hidden = !controls;
  $("start").addEventListener("click", () => fetch("stage/servers", { method: "POST" }));
}

function serverItem({ id, state }, current) {
  const item = element("li", id);
  item.dataset.server = id;
  item.dataset.state = state;
  if (id === current) item.setAttribute("aria-current", "true");
  item.append(element("small", id === current ? "this room" : state));
  if (controls) item.append(control(id, "kill", "kill -9"), control(id, "stop", "stop"));
  return item;
}

function control(server, action, title) {
  const button = element("button", title);
  button.setAttribute("aria-label", `${title} ${server}`);
  button.addEventListener("click", () => fetch(`stage/servers/${encodeURIComponent(server)}/${action}`, { method: "POST" }));
  return button;
}

// ---------------------------------------------------------------- elements

function element(tag, text = "") {
  const made = document.createElement(tag);
  made.textContent = text; // never HTML: it is what people said
  return made;
}

function atEnd(list) {
  return list.scrollHeight - list.scrollTop - list.clientHeight < 40;
}
