"use strict";
const at = id => document.getElementById(id);
const kept = { // a private window may have no storage
  get(name, store = "localStorage") { try { return window[store].getItem(name); } catch { return null; } },
  set(name, value, store = "localStorage") { try { window[store].setItem(name, value); } catch { /* not kept */ } },
  drop(name, store = "localStorage") { try { window[store].removeItem(name); } catch { /* not kept */ } },
};

// Every text goes in as a text node: nothing that people or models wrote is ever read as HTML.
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter(child => child != null));
  return node;
}
const announce = text => { at("live").textContent = text; };
let toastTimer = 0;
function toast(text) {
  at("toast").textContent = text;
  at("toast").hidden = false;
  announce(text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { at("toast").hidden = true; }, 2600);
}

// Language and theme. `words` holds the texts of each language; `redraw` shows the page again in another one.
let language = "ko", say = {};
function startPage(name, words, redraw) {
  const choose = chosen => { language = chosen; say = words[chosen]; };
  choose(kept.get(`${name}-language`) === "en" ? "en" : "ko");
  at("language").addEventListener("click", () => {
    choose(language === "ko" ? "en" : "ko");
    kept.set(`${name}-language`, language);
    redraw();
  });
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const followSystem = () => { root.dataset.theme = kept.get(`${name}-theme`) ?? (dark.matches ? "dark" : "light"); };
  dark.addEventListener("change", followSystem);
  at("theme").addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    kept.set(`${name}-theme`, root.dataset.theme);
  });
  followSystem();
}
function drawWords() {
  document.documentElement.lang = language;
  document.title = say.title;
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say[node.dataset.say];
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", say[node.dataset.label]);
  at("language").textContent = say.other;
}

// The server
class Refused extends Error {
  constructor(status, message, code) { super(message || say.failed); this.status = status; this.code = code; }
}
async function send(method, path, { body, headers = {}, ...options } = {}) {
  if (body !== undefined) headers = { ...headers, "Content-Type": "application/json" };
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const answer = await fetch(path, { method, headers, body: sent, ...options });
  if (answer.ok) return answer;
  const { error, detail } = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, error?.message ?? (typeof detail === "string" ? detail : ""), error?.code);
}
