// The demo's page: shows what the server says of the session, and follows it over a WebSocket.
// Nothing is kept here that matters; reload at any time. Text reaches the page as text only.

const TIMES = 20;
const ITEMS = ["apple", "bread", "cheese", "pear", "tea"];
const CART_LIMIT = 400; // the server's own
const ENDED = 4401; // the close code for "your session has ended"

const find = (id) => document.getElementById(id);
const write = (id, text) => {
  const element = find(id);
  if (element.textContent !== text) element.textContent = text;
};
const make = (tag, className = "", text = "") => {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
};

let shown = { exists: false };
let clock = 0; // the server's clock minus ours, in milliseconds
let socket = null;
let asked = false; // a look is on its way over the socket
let again = false; // and the session has changed since
let racing = false;
let ending = null; // how the session that was here ended
let pause = 500; // milliseconds until the next try to reach a server that is gone

// Asking

async function ask(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: body ? { "content-type": "application/json" } : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  noteResponse(method, path, response);
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new Error(describeFailure(answer));
  return answer;
}

function describeFailure(answer) {
  const detail = answer?.detail;
  return typeof detail === "string" ? detail : "The server refused this.";
}

async function look() {
  if (socket?.readyState === WebSocket.OPEN) {
    lookThroughSocket();
    return;
  }
  try {
    const answer = await ask("GET", "/api/session");
    pause = 500;
    show(answer);
    connect();
  } catch {
    lookLater();
  }
}

function lookLater() {
  setMode("away");
  setTimeout(look, pause);
  pause = Math.min(pause * 2, 10_000);
}

// One question at a time: a burst of changes is answered by one more look, not by twenty.
function lookThroughSocket(question = "look") {
  if (asked && question === "look") {
    again = true;
    return;
  }
  asked = true;
  socket.send(question);
}

async function act(method, path, body) {
  tell("notice", "", false);
  try {
    const answer = await ask(method, path, body);
    if (answer?.data) show(answer);
    if (socket === null) await look();
  } catch (error) {
    tell("notice", error.message, true);
  }
}

async function end() {
  try {
    await ask("POST", "/api/end");
    if (socket === null && ending === null) showEnded("There was no socket to close.");
  } catch (error) {
    tell("notice", error.message, true);
  }
}

// Following

function connect() {
  if (socket !== null || !shown.exists) return;
  const opened = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket = opened;
  asked = true; // the first answer comes unasked
  again = false;
  opened.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    if (message.changed) {
      lookThroughSocket();
      return;
    }
    asked = false;
    show(message);
    setMode("live");
    if (again) {
      again = false;
      lookThroughSocket();
    }
  });
  opened.addEventListener("close", (event) => {
    if (socket === opened) socket = null;
    if (event.code === ENDED) {
      showEnded(`The server closed this tab’s socket: code ${event.code}, “${event.reason}”.`);
      return;
    }
    lookLater();
  });
}

function setMode(mode) {
  find("status").dataset.mode = mode;
  const tabs = shown.tabs ?? 1;
  const words = {
    live: tabs === 1 ? "Live" : `Live in ${tabs} tabs`,
    none: "No session yet",
    ended: "Session ended",
    away: "Looking for the server",
  };
  write("status-text", words[mode]);
  find("count-socket").disabled = mode !== "live";
  find("socket-hint").hidden = mode === "live";
}

// Showing

function show(answer) {
  shown = answer;
  if (answer.exists) ending = null;
  clock = Date.parse(answer.now) - Date.now();
  const { data = {} } = answer;
  showCounter(data.counter ?? 0);
  showCart(data.cart ?? {});
  showSize(answer.state?.size ?? "medium");
  find("something").hidden = !answer.exists;
  find("nothing").hidden = answer.exists || ending !== null;
  find("ended").hidden = ending === null;
  write("ended-text", ending ?? "");
  if (answer.exists) showFacts(answer);
  for (const [message, category] of answer.flashes ?? []) tell("flash", message, category === "error");
  showUsage(answer.usage);
  write("store", answer.store);
  write("jar", document.cookie || "(nothing)");
  if (!answer.exists) setMode(ending === null ? "none" : "ended");
  else if (socket?.readyState === WebSocket.OPEN) setMode("live");
}

function showEnded(how) {
  ending = `${how} What you do next begins a new one.`;
  show({ ...shown, exists: false, data: {}, state: undefined });
  forgetRace();
  setTimeout(look, 500); // by then the browser has deleted the cookie; another tab may have a new one
}

function showCounter(value) {
  const counter = find("counter");
  if (counter.textContent === String(value)) return;
  counter.textContent = value;
  counter.classList.remove("moved");
  void counter.offsetWidth; // lets the animation start over
  counter.classList.add("moved");
}

function showCart(cart) {
  const counts = new Map();
  for (const item of Object.values(cart)) counts.set(item, (counts.get(item) ?? 0) + 1);
  const chips = ITEMS.filter((item) => counts.has(item)).map((item) => {
    const chip = make("li", "", item);
    chip.append(make("b", "", counts.get(item)));
    return chip;
  });
  find("cart").replaceChildren(...chips);
  setRacing();
}

function showSize(size) {
  for (const input of find("sizes").querySelectorAll("input")) input.checked = input.value === size;
}

function showFacts(answer) {
  const time = (iso) => new Date(iso).toLocaleTimeString();
  write("id", answer.id);
  write("created", time(answer.created_at));
  write("seen", time(answer.seen_at));
  write("from", [answer.labels.address, browserName(answer.labels.browser)].filter(Boolean).join(", "));
  write("size", `${answer.bytes.toLocaleString()} of ${answer.max_bytes.toLocaleString()} bytes`);
  write("tabs", answer.tabs === 1 ? "1 WebSocket" : `${answer.tabs} WebSockets`);
  showValues(answer.data);
  showTimeLeft();
}

function browserName(agent = "") {
  const known = [["Edg/", "Edge"], ["Firefox/", "Firefox"], ["Chrome/", "Chrome"], ["Safari/", "Safari"]];
  return known.find(([mark]) => agent.includes(mark))?.[1] ?? agent.slice(0, 40);
}

// Rows are kept from one look to the next, so that what was unfolded stays unfolded.
function showValues(data) {
  const list = find("values");
  const rows = new Map([...list.children].map((row) => [row.dataset.key, row]));
  for (const [key, value] of Object.entries(data)) {
    const text = JSON.stringify(value);
    let row = rows.get(key);
    rows.delete(key);
    if (row === undefined) {
      row = make("div");
      row.dataset.key = key;
      row.append(make("dt", "", key), make("dd"));
      list.append(row);
    }
    const entries = value !== null && typeof value === "object" ? Object.keys(value).length : null;
    fill(row.lastChild, text, entries);
  }
  for (const row of rows.values()) row.remove();
}

function fill(cell, text, entries) {
  if (entries === null || entries === 0) {
    cell.textContent = text;
    return;
  }
  let details = cell.querySelector("details");
  if (details === null) {
    details = make("details");
    details.append(make("summary"), make("code"));
    cell.replaceChildren(details);
  }
  details.firstChild.textContent = entries === 1 ? "1 entry" : `${entries} entries`;
  details.lastChild.textContent = text;
}

function showTimeLeft() {
  if (!shown.exists || !shown.expires_at) return;
  const seconds = Math.max(0, (Date.parse(shown.expires_at) - Date.now() - clock) / 1000);
  const minutes = Math.floor(seconds / 60);
  write("left", `${minutes}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`);
  find("left-bar").value = Math.min(1, seconds / shown.idle_seconds);
}

function showUsage(usage = {}) {
  const list = find("usage");
  list.replaceChildren(
    ...Object.entries(usage).map(([name, value]) => {
      const box = make("div");
      box.append(make("dt", "", name), make("dd", "", value.toLocaleString()));
      return box;
    }),
  );
}

function tell(id, text, bad) {
  write(id, text);
  find(id).classList.toggle("bad", bad);
}

// What the server sent: the last answers, equal ones counted together

const answers = [];

function noteResponse(method, path, response) {
  const end = response.redirected ? `${path} → ${new URL(response.url).pathname}` : path;
  const answer = {
    line: `${method} ${end}`,
    status: response.status,
    headers: [
      ["Set-Cookie", response.headers.get("x-demo-set-cookie")],
      ["Vary", response.headers.get("vary")],
      ["Cache-Control", response.headers.get("cache-control")],
    ].filter(([, value]) => value !== null),
    times: 1,
  };
  const same = (other) => JSON.stringify({ ...other, times: 1 }) === JSON.stringify(answer);
  if (answers.length > 0 && same(answers[0])) answers[0].times += 1;
  else answers.unshift(answer);
  forgetOldest();
  find("wire").replaceChildren(...answers.map(drawAnswer));
}

// Four are shown; the last one that carried a cookie stays, because it is the one worth seeing.
function forgetOldest() {
  if (answers.length <= 4) return;
  const cookie = answers.findIndex(({ headers }) => headers.some(([name]) => name === "Set-Cookie"));
  answers.splice(cookie === answers.length - 1 ? -2 : -1, 1);
}

function drawAnswer({ line, status, headers, times }) {
  const row = make("li");
  const first = make("div", "line");
  first.append(
    make("span", "", times === 1 ? line : `${line}  × ${times}`),
    make("span", status < 400 ? "status-code" : "status-code bad", status),
  );
  row.append(first);
  for (const [name, value] of headers) {
    row.append(make("div", name === "Set-Cookie" ? "header cookie" : "header", `${name}: ${value}`));
  }
  return row;
}

// Twenty at once: the IDs are ours, so what comes back can be compared with what was sent

async function addMany() {
  racing = true;
  setRacing();
  const lines = Array.from({ length: TIMES }, (_, index) => ({
    id: Math.random().toString(36).slice(2, 12) || "0",
    item: ITEMS[index % ITEMS.length],
  }));
  tell("race-result", "", false);
  drawDots("kept", lines.map(() => ""), "sending");
  drawDots("whole", lines.map(() => ""), "sending");
  try {
    if (!shown.exists) await ask("DELETE", "/api/cart"); // begins the session, for all of them
    await Promise.all(lines.map((line) => ask("POST", "/api/cart", line)));
    const answer = await ask("GET", "/api/session");
    const whole = new Set(answer.whole);
    score("kept", lines.map((line) => line.id in (answer.data.cart ?? {})));
    score("whole", lines.map((line) => whole.has(line.id)));
    const gone = lines.filter((line) => !whole.has(line.id)).length;
    tell("race-result", gone > 0 ? `Saving the whole state undid ${gone} items that its writers had not seen.` : "", false);
    show(answer);
    connect();
  } catch (error) {
    drawDots("kept", [], "not finished");
    drawDots("whole", [], "not finished");
    tell("race-result", error.message, true);
  } finally {
    racing = false;
    setRacing();
  }
}

function setRacing() {
  find("add-many").disabled = racing || Object.keys(shown.data?.cart ?? {}).length > CART_LIMIT - TIMES;
  find("empty").disabled = racing;
}

function score(lane, kept) {
  const count = kept.filter(Boolean).length;
  drawDots(lane, kept.map((one) => (one ? "kept" : "lost")), `${count} of ${kept.length} kept`);
  find(`score-${lane}`).className = count === kept.length ? "score good" : "score bad";
}

function drawDots(lane, states, text) {
  const dots = states.length > 0 ? states.map((state) => make("span", `dot ${state || "sent"}`)) : blank();
  find(`dots-${lane}`).replaceChildren(...dots);
  find(`score-${lane}`).className = "score";
  write(`score-${lane}`, text);
}

function forgetRace() {
  drawDots("kept", [], "not tried yet");
  drawDots("whole", [], "not tried yet");
  tell("race-result", "", false);
}

const blank = () => Array.from({ length: TIMES }, () => make("span", "dot"));

// Buttons

find("count-http").addEventListener("click", () => act("POST", "/api/count"));
find("count-socket").addEventListener("click", () => lookThroughSocket("count"));
find("add-many").addEventListener("click", addMany);
find("empty").addEventListener("click", () => act("DELETE", "/api/cart"));
find("end").addEventListener("click", end);
find("sizes").addEventListener("change", (event) => act("POST", "/api/size", { size: event.target.value }));
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") look();
});
setInterval(showTimeLeft, 1000);

forgetRace();
look();
