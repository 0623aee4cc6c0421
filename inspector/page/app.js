"use strict";
// The token is in the address that was opened. It goes out of the address bar, so that a
// screenshot does not show it, and stays for this tab only.
const given = new URLSearchParams(location.search).get("token");
if (given) {
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem("token") || "";
const $ = (id) => document.getElementById(id);
const exchanges = new Map();
let selected = 0, shownNow = null;
const marked = new Set();

async function ask(path, options = {}) {
  const r = await fetch(path, { ...options, headers: { Authorization: "Bearer " + token } });
  const value = await r.json();
  if (!r.ok) throw new Error(value.detail || r.statusText);
  return value;
}

// el makes an element. Text of visitors and services is only ever text, never markup.
function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (key === "class") e.className = value;
    else e.setAttribute(key, value);
  }
  e.append(...children.map((c) => (c instanceof Node ? c : document.createTextNode(String(c)))));
  return e;
}

const ms = (n) => (n >= 1000 ? (n / 1000).toFixed(2) + " s" : n.toFixed(n < 10 ? 1 : 0) + " ms");
const bytes = (base64) => Uint8Array.from(atob(base64 || ""), (c) => c.charCodeAt(0));
const size = (n) => (n < 1024 ? n + " B" : n < 1 << 20 ? (n / 1024).toFixed(1) + " KiB" : (n / (1 << 20)).toFixed(1) + " MiB");

function matches(x) {
  const text = `${x.method} ${x.host}${x.target} ${x.status} ${x.visitor}`.toLowerCase();
  return $("filter").value.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function drawList() {
  const rows = [...exchanges.values()].filter(matches).sort((a, b) => b.id - a.id);
  $("list").replaceChildren(...rows.map((x) => {
    const mark = el("input", { type: "checkbox", "aria-label": "compare request " + x.id, onclick: (e) => { e.stopPropagation(); toggle(x.id); } });
    mark.checked = marked.has(x.id);
    return el("div", { class: "row", role: "option", id: "x" + x.id, "aria-selected": x.id === selected, onclick: () => show(x.id) },
      mark, el("span", { class: "s" + String(x.status)[0] }, x.status || (x.error ? "!" : "...")), el("span", {}, x.method),
      el("span", { class: "target", title: x.target }, (x.replay_of ? "\u21bb " : "") + x.target), el("span", {}, x.done_ms ? ms(x.done_ms) : ""));
  }));
  $("compare").disabled = marked.size !== 2;
}

function toggle(id) {
  if (!marked.delete(id)) marked.add(id);
  drawList();
}

function textOf(base64) {
  const raw = bytes(base64);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(raw);
    if (/[\u0000-\u0008\u000e-\u001f]/.test(text)) throw new Error();
    try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
  } catch {
    return [...raw.slice(0, 4096)].map((b) => b.toString(16).padStart(2, "0")).join(" ") + (raw.length > 4096 ? " ..." : "");
  }
}

const headerLines = (h) => Object.keys(h || {}).sort().flatMap((k) => h[k].map((v) => `${k}: ${v}`));

function message(title, m, text) {
  if (!m) return el("div", {}, el("h3", {}, title), el("p", { class: "hint" }, "none"));
  const kept = bytes(m.body).length;
  return el("div", {}, el("h3", {}, title),
    el("table", {}, ...headerLines(m.header).map((line) => {
      const at = line.indexOf(": ");
      return el("tr", {}, el("td", {}, line.slice(0, at)), el("td", {}, line.slice(at + 2)));
    })),
    m.length ? el("pre", {}, textOf(text)) : el("p", { class: "hint" }, "no body"),
    kept < m.length ? el("p", { class: "hint" }, `The first ${size(kept)} of ${size(m.length)} were kept.`) : "");
}

function curl(x) {
  const quote = (s) => "'" + s.replaceAll("'", "'\\''") + "'";
  const skip = /^(content-length|connection|transfer-encoding|accept-encoding|forwarded|x-forwarded-.*)$/i;
  const parts = ["curl", "-X", x.method, quote(`http://${x.host}${x.target}`)];
  for (const line of headerLines(x.request.header)) if (!skip.test(line.split(":")[0])) parts.push("-H", quote(line));
  if (x.request.length) parts.push("--data-binary", quote(new TextDecoder().decode(bytes(x.request_text))));
  return parts.join(" ");
}

function timing(x) {
  if (!x.done_ms) return el("p", { class: "hint" }, x.error || (x.upgrade ? "the connection became another protocol" : "under way"));
  const parts = [["request", x.sent_ms], ["service", Math.max(x.first_ms - x.sent_ms, 0)], ["answer", Math.max(x.done_ms - x.first_ms, 0)]];
  const bar = el("div", { class: "bar" }, ...parts.map(([name, n], i) => {
    const s = el("span", { class: "b" + (i + 1), title: `${name} ${ms(n)}` });
    s.style.flexGrow = Math.max(n, 0.001);
    return s;
  }));
  return el("div", {}, el("p", {}, parts.map(([name, n]) => `${name} ${ms(n)}`).join(", ") + (x.error ? ". " + x.error : "")), bar);
}

async function show(id) {
  selected = id;
  drawList();
  try {
    shownNow = await ask("/api/exchanges/" + id);
  } catch (e) {
    return fail(e);
  }
  if (selected !== id) return;
  const x = shownNow;
  $("detail").replaceChildren(
    el("h2", {}, `${x.method} ${x.target}`),
    el("p", {}, `${x.host}, ${new Date(x.started).toLocaleTimeString()}, from ${x.visitor || "this machine"}`, x.replay_of ? `, replay of ${x.replay_of}` : ""),
    timing(x),
    el("p", {}, el("button", { id: "replay", onclick: () => replay({}) }, "Replay"), " ", el("button", { id: "change", onclick: edit }, "Replay changed"), " ",
      el("button", { id: "curl", onclick: copyCurl }, "Copy as curl"), " ", el("span", { id: "said", role: "status" })),
    message("Request", x.request, x.request_text),
    message(`Answer ${x.status || ""}`, x.response, x.response_text));
}

const say = (text) => { const at = $("said"); if (at) at.textContent = text; };
const fail = (e) => { say(e.message); $("state").textContent = e.message; };

async function copyCurl() {
  const text = curl(shownNow);
  try {
    await navigator.clipboard.writeText(text);
    say("copied");
  } catch {
    $("detail").append(el("pre", { id: "curl-text" }, text)); // no clipboard: show it
  }
}

async function replay(change) {
  try {
    const { id } = await ask(`/api/exchanges/${shownNow.id}/replay`, { method: "POST", body: JSON.stringify(change) });
    await show(id);
  } catch (e) {
    fail(e);
  }
}

function edit() {
  const x = shownNow;
  $("edit-method").value = x.method;
  $("edit-target").value = x.target;
  $("edit-header").value = headerLines(x.request.header).join("\n");
  $("edit-body").value = new TextDecoder().decode(bytes(x.request_text));
  $("editor").returnValue = "";
  $("editor").showModal();
}

$("editor").addEventListener("close", () => {
  if ($("editor").returnValue !== "send") return;
  const header = {};
  for (const line of $("edit-header").value.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) (header[line.slice(0, at).trim()] ||= []).push(line.slice(at + 1).trim());
  }
  replay({ method: $("edit-method").value, target: $("edit-target").value, header, body: $("edit-body").value });
});

// lines gives what is compared of an exchange.
const lines = (x) => [`${x.method} ${x.target}`, ...headerLines(x.request.header), "", ...textOf(x.request_text).split("\n"), "",
  `answer ${x.status}`, ...headerLines(x.response && x.response.header), "", ...textOf(x.response_text).split("\n")].slice(0, 2000);

// diff is the longest common subsequence of two lists of lines.
function diff(a, b) {
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--)
    best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const out = [];
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (i < a.length && j < b.length && a[i] === b[j]) { out.push(["", "  " + a[i]]); i++; j++; }
    else if (j >= b.length || i < a.length && best[i + 1][j] >= best[i][j + 1]) out.push(["del", "- " + a[i++]]);
    else out.push(["add", "+ " + b[j++]]);
  }
  return out;
}

$("compare").addEventListener("click", async () => {
  try {
    const [a, b] = await Promise.all([...marked].sort((x, y) => x - y).map((id) => ask("/api/exchanges/" + id)));
    $("detail").replaceChildren(el("h2", {}, `Request ${a.id} and request ${b.id}`),
      el("pre", { id: "diff" }, ...diff(lines(a), lines(b)).map(([kind, text]) => el("div", { class: kind }, text))));
  } catch (e) {
    fail(e);
  }
});

$("clear").addEventListener("click", async () => {
  try { await ask("/api/exchanges", { method: "DELETE" }); } catch (e) { return fail(e); }
  exchanges.clear();
  marked.clear();
  drawList();
});
$("filter").addEventListener("input", drawList);
$("list").addEventListener("keydown", (e) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
  if (!step) return;
  e.preventDefault();
  const ids = [...$("list").children].map((r) => Number(r.id.slice(1)));
  const next = ids[Math.min(Math.max(ids.indexOf(selected) + step, 0), ids.length - 1)];
  if (next) show(next).then(() => $("x" + next)?.scrollIntoView({ block: "nearest" }));
});

async function load() {
  for (const x of await ask("/api/exchanges")) exchanges.set(x.id, x);
  drawList();
}

let drawing = 0;
function live() {
  const source = new EventSource("/api/live?token=" + encodeURIComponent(token));
  source.onopen = () => { $("state").textContent = "live"; load().catch(fail); };
  source.onmessage = (e) => {
    const x = JSON.parse(e.data);
    exchanges.set(x.id, x);
    if (exchanges.size > 500) exchanges.delete(Math.min(...exchanges.keys()));
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => { drawList(); if (x.id === selected && x.done_ms && !$("editor").open) show(x.id); });
  };
  source.onerror = () => { $("state").textContent = "not connected: the tunnel has ended, or the address is old"; };
}
live();
