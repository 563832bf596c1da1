// Shows the session that the server reports, and follows its changes over a WebSocket. The page keeps no
// state of its own that a reload would lose. Text is inserted as text, never as HTML.

const PARALLEL_REQUESTS = 20;
const ITEMS = ["apple", "bread", "cheese", "pear", "tea"];
const CART_LIMIT = 400; // as in app.py
const SESSION_ENDED = 4401; // WebSocket close codes
const TRY_AGAIN_LATER = 1013;
const STORE_INTERVAL = 2000; // milliseconds between two looks at a stopped store
const LOGGED_IN = "logged in again"; // the reason with which a login closes the WebSockets of the old cookie

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
let accountWanted = false; // the account takes the focus when it is shown
let socketCounts = 0; // increments to send when the WebSocket is open
const wanted = wantedPage(); // the path of the device page, if it sent the visitor here
let before = null; // what the session held when the store was stopped
let retryDelay = 500; // milliseconds until the next attempt to reach the server

// Requests

class Failure extends Error {
  constructor(response, answer) {
    const detail = answer?.detail;
    super(typeof detail === "string" ? detail : "The server rejected this request.");
    this.status = response.status;
    this.retryAfter = Number(response.headers.get("retry-after")) || null; // seconds
  }
}

async function request(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: { accept: "application/json", ...(body ? { "content-type": "application/json" } : {}) },
    body: body ? JSON.stringify(body) : undefined,
  });
  recordResponse(method, path, response);
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new Failure(response, answer);
  return answer;
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
    if (!answer.exists && !answer.store_running) refreshIn(STORE_INTERVAL); // no WebSocket reports the start
  } catch (error) {
    if (error.status === 503) waitForStore(error);
    else refreshLater();
  }
}

let retryTimer = null;

function refreshIn(milliseconds) {
  clearTimeout(retryTimer);
  retryTimer = setTimeout(refresh, milliseconds);
}

function refreshLater() {
  setMode("offline");
  refreshIn(retryDelay);
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
    return true;
  } catch (error) {
    showMessage("notice", error.message, true);
    if (error.status === 503) waitForStore(error);
    return false;
  }
}

async function endSession(path) {
  if (!(await perform("POST", path))) return;
  if (socket === null && endReason === null) renderEnded("No WebSocket was open.");
}

async function logIn(event) {
  event.preventDefault(); // the policy of this page allows scripts to send forms, and nothing else
  const user = byId("user").value.trim();
  if (user === "") return;
  const kept = summary(current);
  accountWanted = true;
  if (!(await perform("POST", "/api/login", { user, remember: byId("remember").checked }))) {
    accountWanted = false;
    return;
  }
  if (wanted !== null) location.assign(wanted);
  showMessage("login-result", kept === "" ? "" : `Kept at the login: ${kept}.`, false);
}

// The device page sends visitors here to log in. Other addresses are ignored.
function wantedPage() {
  const next = new URLSearchParams(location.search).get("next") ?? "";
  return /^\/devices\/[\w/-]*$/.test(next) ? next : null;
}

async function logOutDevice(device) {
  if (await perform("DELETE", `/api/devices/${device.id}`)) {
    showMessage("login-result", "The other browser is logged out. Its page shows why.", false);
    byId("logout").focus();
  }
}

// WebSocket

function connect(start = false) {
  if (socket !== null || !(current.exists || start)) return;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const opened = new WebSocket(`${scheme}://${location.host}/live${start ? "?start" : ""}`);
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
    if (socketCounts > 0) sendCounts();
    else if (refreshNeeded) {
      refreshNeeded = false;
      sendOverSocket();
    }
  });
  opened.addEventListener("close", (event) => {
    if (socket === opened) socket = null;
    if (event.code === SESSION_ENDED && event.reason !== LOGGED_IN) {
      renderEnded(`The server closed the WebSocket of this tab: code ${event.code}, “${event.reason}”.`);
      showMessage("notice", `This session has ended: ${event.reason}.`, true);
      return;
    }
    if (event.code === SESSION_ENDED) refreshIn(300); // with the new cookie, which the browser is about to get
    else if (event.code === TRY_AGAIN_LATER) refresh();
    else refreshLater();
  });
}

function countOverSocket() {
  showMessage("notice", "", false);
  socketCounts += 1;
  if (socket?.readyState === WebSocket.OPEN) sendCounts();
  else connect(true);
}

function sendCounts() {
  for (; socketCounts > 0; socketCounts -= 1) sendOverSocket("count");
}

// The store

async function switchStore() {
  const running = current.store_running === false;
  try {
    await request("POST", "/api/store", { running });
  } catch {
    refreshLater();
    return;
  }
  current.store_running = running;
  showMessage("notice", "", false);
  renderStore();
  refresh();
}

function waitForStore(error) {
  before ??= { data: snapshot(current), text: summary(current) };
  current.store_running = false;
  setMode("outage");
  renderStore();
  refreshIn(error.retryAfter === null ? STORE_INTERVAL : error.retryAfter * 1000);
}

function renderStore() {
  const stopped = current.store_running === false;
  setText("store-switch", stopped ? "Start the store" : "Stop the store");
  byId("store-switch").classList.toggle("primary", stopped);
  if (stopped) {
    showMessage("outage", "The store is stopped. Requests to this session are answered 503, Retry-After: 2.", true);
  } else if (byId("outage").classList.contains("bad") && current.usage) {
    const unchanged = before !== null && before.data === snapshot(current);
    const kept = unchanged && before.text !== "" ? ` Nothing is lost: ${before.text}.` : "";
    showMessage("outage", `The store answers again.${kept}`, false);
    showMessage("notice", "", false);
    if (byId("comparison").classList.contains("bad")) showMessage("comparison", "", false);
    before = null;
  }
}

const snapshot = ({ id, user, data }) => JSON.stringify([id, user, data]);

// What a session holds, as text
function summary({ exists, user, data = {} }) {
  if (!exists) return "";
  const items = Object.keys(data.cart ?? {}).length;
  return [
    `counter ${data.counter ?? 0}`,
    items === 0 ? null : items === 1 ? "1 item in the cart" : `${items} items in the cart`,
    user ? `logged in as ${user}` : null,
  ].filter(Boolean).join(", ");
}

function setMode(mode) {
  byId("status").dataset.mode = mode;
  const tabs = current.tabs ?? 1;
  const words = {
    live: tabs === 1 ? "Live" : `Live in ${tabs} tabs`,
    none: "No session yet",
    ended: "Session ended",
    outage: "Store stopped",
    offline: "Reconnecting",
  };
  setText("status-text", words[mode]);
}

// Rendering

function render(answer) {
  current = answer;
  if (answer.exists) endReason = null;
  else if (answer.ended_reason && endReason === null) endReason = describeEnd(answer.ended_reason);
  clockOffset = Date.parse(answer.now) - Date.now();
  const { data = {} } = answer;
  renderCounter(data.counter ?? 0);
  renderCart(data.cart ?? {});
  renderSize(answer.state?.size ?? "medium");
  byId("session-details").hidden = !answer.exists;
  byId("no-session").hidden = answer.exists || endReason !== null;
  byId("ended").hidden = endReason === null;
  setText("ended-text", endReason ?? "");
  renderAccount(answer);
  if (answer.exists) renderFacts(answer);
  for (const [message, category] of answer.flashes ?? []) showMessage("flash", message, category === "error");
  renderUsage(answer.usage);
  setText("store", answer.store);
  renderStore();
  setText("document-cookie", document.cookie || "(nothing)");
  if (!answer.exists) setMode(endReason === null ? "none" : "ended");
  else if (socket?.readyState === WebSocket.OPEN) setMode("live");
}

function renderEnded(reason) {
  endReason = `${reason} The next action starts a new session.`;
  render({ ...current, exists: false, data: {}, state: undefined, user: null, ended_reason: null });
  resetComparison();
  for (const id of ["login-result", "outage", "flash"]) showMessage(id, "", false);
  refreshIn(500); // the browser has deleted the cookie by then; another tab may have set a new one
}

const describeEnd = (reason) => `The server says why: “${reason}”. The next action starts a new session.`;

function renderAccount({ user = null, devices = [] }) {
  byId("login").hidden = user !== null;
  byId("account").hidden = user === null;
  setText("account-user", user ?? "");
  const list = byId("devices");
  const shown = JSON.stringify(devices);
  if (list.dataset.shown !== shown) { // otherwise a button would lose the focus
    list.dataset.shown = shown;
    list.replaceChildren(...devices.map(renderDevice));
  }
  byId("second-browser").hidden = devices.length > 1;
  if (user !== null && accountWanted) {
    accountWanted = false;
    byId("logout").focus(); // the form, which had the focus, is hidden
  }
}

function renderDevice(device) {
  const row = createElement("li");
  const about = createElement("div");
  const name = [browserName(device.labels.browser), device.labels.address].filter(Boolean).join(" at ");
  const since = `since ${new Date(device.authenticated_at).toLocaleTimeString()}`;
  const open = device.tabs === 1 ? "1 open tab" : `${device.tabs} open tabs`;
  about.append(createElement("strong", "", name), createElement("span", "hint", `${since}, ${open}`));
  row.append(about);
  if (device.this) {
    row.append(createElement("span", "badge", "this browser"));
  } else {
    const button = createElement("button", "danger", "Log out this browser");
    button.type = "button";
    button.addEventListener("click", () => logOutDevice(device));
    row.append(button);
  }
  return row;
}

// The same machine under another host name: browsers keep its cookies apart, as another browser would.
function renderSecondBrowser() {
  const other = { localhost: "127.0.0.1", "127.0.0.1": "localhost", "[::1]": "localhost" }[location.hostname];
  if (other === undefined) return;
  const link = createElement("a", "", `${other}:${location.port}`);
  link.href = `${location.protocol}//${other}:${location.port}/`;
  link.target = "_blank";
  link.rel = "noopener";
  byId("second-browser").replaceChildren(
    "For a second browser, open ", link,
    " and log in with the same name. That address has cookies of its own, so the server sees another browser.",
  );
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
  setText("client", [browserName(answer.labels.browser), answer.labels.address].filter(Boolean).join(" at "));
  setText("cookie", answer.persistent ? "kept when the browser is closed" : "deleted when the browser is closed");
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
  byId("values-title").hidden = list.hidden = list.children.length === 0;
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
  const days = seconds / 86_400;
  setText("time-left", days > 1 ? `${Number(days.toFixed(1))} days` : `${minutes}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`);
  byId("time-left-bar").value = Math.min(1, seconds / current.idle_seconds);
}

const MEANINGS = {
  reads: "sessions loaded",
  writes: "sessions saved",
  creates: "sessions started",
  touches: "idle times extended",
  removes: "sessions ended",
  logins: "cookies replaced by a login",
  rotations: "cookies replaced by age",
  conflicts: "parallel changes merged",
  rejected: "invalid cookies",
  failures: "failed calls of the store",
  connections: "open WebSockets",
};

function renderUsage(usage = {}) {
  const list = byId("usage");
  list.replaceChildren(
    ...Object.entries(usage).map(([name, value]) => {
      const box = createElement("div");
      const term = createElement("dt", "", name);
      term.append(createElement("span", "meaning", MEANINGS[name]));
      box.append(term, createElement("dd", "", value.toLocaleString()));
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
      ["Retry-After", response.headers.get("retry-after")],
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
  showMessage("notice", "", false);
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
byId("count-socket").addEventListener("click", countOverSocket);
byId("add-many").addEventListener("click", addItemsInParallel);
byId("clear").addEventListener("click", () => perform("DELETE", "/api/cart"));
byId("end").addEventListener("click", () => endSession("/api/end"));
byId("login").addEventListener("submit", logIn);
byId("logout").addEventListener("click", () => endSession("/api/logout"));
byId("store-switch").addEventListener("click", switchStore);
byId("sizes").addEventListener("change", (event) => perform("POST", "/api/size", { size: event.target.value }));
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") refresh();
});
setInterval(renderTimeLeft, 1000);

if (wanted !== null) {
  showMessage("login-result", "Log in to see your devices.", false);
  byId("user").focus();
}
resetComparison();
renderSecondBrowser();
refresh();
