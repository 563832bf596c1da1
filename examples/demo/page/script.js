// Shows the session that the server reports, and follows its changes over a WebSocket. The page keeps no
// state of its own that a reload would lose. Text is inserted as text, never as HTML.

const PARALLEL_REQUESTS = 20;
const ITEMS = ["apple", "bread", "cheese", "pear", "tea"];
const CART_LIMIT = 400; // as in app.py
const SESSION_ENDED = 4401; // WebSocket close code

const byId = (id) => document.getElementById(id);
const setText = (id, text) => {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
};
const createElement = (tag, className = "", text = "") => {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
};

let current = { exists: false };
let clockOffset = 0; // milliseconds: the server's clock minus this one
let socket = null;
let requestPending = false; // a request was sent over the WebSocket and not answered yet
let refreshNeeded = false; // the session has changed since that request
let adding = false;
let endReason = null; // why the last session ended
let retryDelay = 500; // milliseconds until the next attempt to reach the server

// Requests

async function request(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: body ? { "content-type": "application/json" } : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  recordResponse(method, path, response);
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new Error(describeFailure(answer));
  return answer;
}

function describeFailure(answer) {
  const detail = answer?.detail;
  return typeof detail === "string" ? detail : "The server rejected this request.";
}

async function refresh() {
  if (socket?.readyState === WebSocket.OPEN) {
    sendOverSocket();
    return;
  }
  try {
    const answer = await request("GET", "/api/session");
    retryDelay = 500;
    render(answer);
    connect();
  } catch {
    refreshLater();
  }
}

function refreshLater() {
  setMode("offline");
  setTimeout(refresh, retryDelay);
  retryDelay = Math.min(retryDelay * 2, 10_000);
}

// One request at a time: a burst of changes causes one more request, not twenty.
function sendOverSocket(message = "refresh") {
  if (requestPending && message === "refresh") {
    refreshNeeded = true;
    return;
  }
  requestPending = true;
  socket.send(message);
}

async function perform(method, path, body) {
  showMessage("notice", "", false);
  try {
    const answer = await request(method, path, body);
    if (answer?.data) render(answer);
    if (socket === null) await refresh();
  } catch (error) {
    showMessage("notice", error.message, true);
  }
}

async function endSession() {
  try {
    await request("POST", "/api/end");
    if (socket === null && endReason === null) renderEnded("No WebSocket was open.");
  } catch (error) {
    showMessage("notice", error.message, true);
  }
}

// WebSocket

function connect() {
  if (socket !== null || !current.exists) return;
  const opened = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket = opened;
  requestPending = true; // the server sends the first message unasked
  refreshNeeded = false;
  opened.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    if (message.changed) {
      sendOverSocket();
      return;
    }
    requestPending = false;
    render(message);
    setMode("live");
    if (refreshNeeded) {
      refreshNeeded = false;
      sendOverSocket();
    }
  });
  opened.addEventListener("close", (event) => {
    if (socket === opened) socket = null;
    if (event.code === SESSION_ENDED) {
      renderEnded(`The server closed the WebSocket of this tab: code ${event.code}, “${event.reason}”.`);
      return;
    }
    refreshLater();
  });
}

function setMode(mode) {
  byId("status").dataset.mode = mode;
  const tabs = current.tabs ?? 1;
  const words = {
    live: tabs === 1 ? "Live" : `Live in ${tabs} tabs`,
    none: "No session yet",
    ended: "Session ended",
    offline: "Reconnecting",
  };
  setText("status-text", words[mode]);
  byId("count-socket").disabled = mode !== "live";
  byId("socket-hint").hidden = mode === "live";
}

// Rendering

function render(answer) {
  current = answer;
  if (answer.exists) endReason = null;
  clockOffset = Date.parse(answer.now) - Date.now();
  const { data = {} } = answer;
  renderCounter(data.counter ?? 0);
  renderCart(data.cart ?? {});
  renderSize(answer.state?.size ?? "medium");
  byId("session-details").hidden = !answer.exists;
  byId("no-session").hidden = answer.exists || endReason !== null;
  byId("ended").hidden = endReason === null;
  setText("ended-text", endReason ?? "");
  if (answer.exists) renderFacts(answer);
  for (const [message, category] of answer.flashes ?? []) showMessage("flash", message, category === "error");
  renderUsage(answer.usage);
  setText("store", answer.store);
  setText("document-cookie", document.cookie || "(nothing)");
  if (!answer.exists) setMode(endReason === null ? "none" : "ended");
  else if (socket?.readyState === WebSocket.OPEN) setMode("live");
}

function renderEnded(reason) {
  endReason = `${reason} The next action starts a new session.`;
  render({ ...current, exists: false, data: {}, state: undefined });
  resetComparison();
  setTimeout(refresh, 500); // the browser has deleted the cookie by then; another tab may have set a new one
}

function renderCounter(value) {
  const counter = byId("counter");
  if (counter.textContent === String(value)) return;
  counter.textContent = value;
  counter.classList.remove("moved");
  void counter.offsetWidth; // restarts the animation
  counter.classList.add("moved");
}

function renderCart(cart) {
  const counts = new Map();
  for (const item of Object.values(cart)) counts.set(item, (counts.get(item) ?? 0) + 1);
  const chips = ITEMS.filter((item) => counts.has(item)).map((item) => {
    const chip = createElement("li", "", item);
    chip.append(createElement("b", "", counts.get(item)));
    return chip;
  });
  byId("cart").replaceChildren(...chips);
  updateButtons();
}

function renderSize(size) {
  for (const input of byId("sizes").querySelectorAll("input")) input.checked = input.value === size;
}

function renderFacts(answer) {
  const time = (iso) => new Date(iso).toLocaleTimeString();
  setText("id", answer.id);
  setText("created", time(answer.created_at));
  setText("seen", time(answer.seen_at));
  setText("client", [answer.labels.address, browserName(answer.labels.browser)].filter(Boolean).join(", "));
  setText("size", `${answer.bytes.toLocaleString()} of ${answer.max_bytes.toLocaleString()} bytes`);
  setText("connections", answer.tabs === 1 ? "1 WebSocket" : `${answer.tabs} WebSockets`);
  renderValues(answer.data);
  renderTimeLeft();
}

function browserName(agent = "") {
  const known = [["Edg/", "Edge"], ["Firefox/", "Firefox"], ["Chrome/", "Chrome"], ["Safari/", "Safari"]];
  return known.find(([mark]) => agent.includes(mark))?.[1] ?? agent.slice(0, 40);
}

// Existing rows are reused, so that expanded values stay expanded.
function renderValues(data) {
  const list = byId("values");
  const rows = new Map([...list.children].map((row) => [row.dataset.key, row]));
  for (const [key, value] of Object.entries(data)) {
    const text = JSON.stringify(value);
    let row = rows.get(key);
    rows.delete(key);
    if (row === undefined) {
      row = createElement("div");
      row.dataset.key = key;
      row.append(createElement("dt", "", key), createElement("dd"));
      list.append(row);
    }
    const entries = value !== null && typeof value === "object" ? Object.keys(value).length : null;
    renderValue(row.lastChild, text, entries);
  }
  for (const row of rows.values()) row.remove();
}

function renderValue(cell, text, entries) {
  if (entries === null || entries === 0) {
    cell.textContent = text;
    return;
  }
  let details = cell.querySelector("details");
  if (details === null) {
    details = createElement("details");
    details.append(createElement("summary"), createElement("code"));
    cell.replaceChildren(details);
  }
  details.firstChild.textContent = entries === 1 ? "1 entry" : `${entries} entries`;
  details.lastChild.textContent = text;
}

function renderTimeLeft() {
  if (!current.exists || !current.expires_at) return;
  const seconds = Math.max(0, (Date.parse(current.expires_at) - Date.now() - clockOffset) / 1000);
  const minutes = Math.floor(seconds / 60);
  setText("time-left", `${minutes}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`);
  byId("time-left-bar").value = Math.min(1, seconds / current.idle_seconds);
}

function renderUsage(usage = {}) {
  const list = byId("usage");
  list.replaceChildren(
    ...Object.entries(usage).map(([name, value]) => {
      const box = createElement("div");
      box.append(createElement("dt", "", name), createElement("dd", "", value.toLocaleString()));
      return box;
    }),
  );
}

function showMessage(id, text, bad) {
  setText(id, text);
  byId(id).classList.toggle("bad", bad);
}

// Response headers: the last responses; equal ones are counted together

const responses = [];

function recordResponse(method, path, response) {
  const target = response.redirected ? `${path} → ${new URL(response.url).pathname}` : path;
  const answer = {
    line: `${method} ${target}`,
    status: response.status,
    headers: [
      ["Set-Cookie", response.headers.get("x-demo-set-cookie")],
      ["Vary", response.headers.get("vary")],
      ["Cache-Control", response.headers.get("cache-control")],
    ].filter(([, value]) => value !== null),
    times: 1,
  };
  const same = (other) => JSON.stringify({ ...other, times: 1 }) === JSON.stringify(answer);
  if (responses.length > 0 && same(responses[0])) responses[0].times += 1;
  else responses.unshift(answer);
  dropOldest();
  byId("responses").replaceChildren(...responses.map(renderResponse));
}

// Four are shown. The last one with Set-Cookie stays.
function dropOldest() {
  if (responses.length <= 4) return;
  const cookie = responses.findIndex(({ headers }) => headers.some(([name]) => name === "Set-Cookie"));
  responses.splice(cookie === responses.length - 1 ? -2 : -1, 1);
}

function renderResponse({ line, status, headers, times }) {
  const row = createElement("li");
  const first = createElement("div", "line");
  first.append(
    createElement("span", "", times === 1 ? line : `${line}  × ${times}`),
    createElement("span", status < 400 ? "status-code" : "status-code bad", status),
  );
  row.append(first);
  for (const [name, value] of headers) {
    row.append(createElement("div", name === "Set-Cookie" ? "header cookie" : "header", `${name}: ${value}`));
  }
  return row;
}

// Parallel requests: the page creates the IDs, so that it can compare what was sent with what was stored

async function addItemsInParallel() {
  adding = true;
  updateButtons();
  const lines = Array.from({ length: PARALLEL_REQUESTS }, (_, index) => ({
    id: Math.random().toString(36).slice(2, 12) || "0",
    item: ITEMS[index % ITEMS.length],
  }));
  showMessage("comparison", "", false);
  renderDots("merged", lines.map(() => ""), "sending");
  renderDots("last-write", lines.map(() => ""), "sending");
  try {
    if (!current.exists) await request("DELETE", "/api/cart"); // starts the session for all of them
    await Promise.all(lines.map((line) => request("POST", "/api/cart", line)));
    const answer = await request("GET", "/api/session");
    const stored = new Set(answer.last_write_wins);
    renderScore("merged", lines.map((line) => line.id in (answer.data.cart ?? {})));
    renderScore("last-write", lines.map((line) => stored.has(line.id)));
    const lost = lines.filter((line) => !stored.has(line.id)).length;
    showMessage("comparison", lost > 0 ? `Saving the whole cart overwrote ${lost} items of other requests.` : "", false);
    render(answer);
    connect();
  } catch (error) {
    renderDots("merged", [], "not completed");
    renderDots("last-write", [], "not completed");
    showMessage("comparison", error.message, true);
  } finally {
    adding = false;
    updateButtons();
  }
}

function updateButtons() {
  byId("add-many").disabled = adding || Object.keys(current.data?.cart ?? {}).length > CART_LIMIT - PARALLEL_REQUESTS;
  byId("clear").disabled = adding;
}

function renderScore(lane, kept) {
  const count = kept.filter(Boolean).length;
  renderDots(lane, kept.map((one) => (one ? "kept" : "lost")), `${count} of ${kept.length} kept`);
  byId(`score-${lane}`).className = count === kept.length ? "score good" : "score bad";
}

function renderDots(lane, states, text) {
  const dots = states.length > 0 ? states.map((state) => createElement("span", `dot ${state || "sent"}`)) : emptyDots();
  byId(`dots-${lane}`).replaceChildren(...dots);
  byId(`score-${lane}`).className = "score";
  setText(`score-${lane}`, text);
}

function resetComparison() {
  renderDots("merged", [], "not started");
  renderDots("last-write", [], "not started");
  showMessage("comparison", "", false);
}

const emptyDots = () => Array.from({ length: PARALLEL_REQUESTS }, () => createElement("span", "dot"));

// Buttons

byId("count-http").addEventListener("click", () => perform("POST", "/api/count"));
byId("count-socket").addEventListener("click", () => sendOverSocket("count"));
byId("add-many").addEventListener("click", addItemsInParallel);
byId("clear").addEventListener("click", () => perform("DELETE", "/api/cart"));
byId("end").addEventListener("click", endSession);
byId("sizes").addEventListener("change", (event) => perform("POST", "/api/size", { size: event.target.value }));
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") refresh();
});
setInterval(renderTimeLeft, 1000);

resetComparison();
refresh();
