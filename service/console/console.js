// The console: every view is an address (#/…), so the browser's own back, forward and reload work.

import { attempt, call, grid, make, path, picture, pinLink, say, useKey } from "./cards.js";
import { showStatus, watchHealth } from "./status.js";

const main = document.getElementById("main");
const query = document.getElementById("query");
let user = "me";
let shown = 0; // counts views, so that a slow answer does not overwrite a newer view

function head(title, hint, ...actions) {
  return make("div", { class: "head" },
    make("div", {}, make("h1", {}, title), hint ? make("p", { class: "hint" }, hint) : null), make("div", { class: "row" }, actions));
}

async function start() {
  const load = (cursor) => call("GET", listPath(path("v1", "users", "visitor", "homefeed"), { limit: 40, cursor }));
  const page = await load();
  return [head("What there is", "Popular and new pins. Choose one to see what is like it, or search."), grid(page, load)];
}

function listPath(base, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  return `${base}?${new URLSearchParams(given)}`;
}

async function search(words) {
  query.value = words;
  const page = await call("GET", listPath("/v1/search", { q: words, limit: 60 }));
  const count = page.items.length;
  return [head(words, count ? `${count} ${count === 1 ? "pin" : "pins"}` : "No pin has these words."), grid(page)];
}

async function showPin(id) {
  const base = path("v1", "pins", id);
  const load = (cursor) => call("GET", listPath(`${base}/related`, { limit: 24, cursor }));
  const started = performance.now();
  const [pin, related] = await Promise.all([call("GET", base), load()]);
  const took = Math.round(performance.now() - started);
  return [hero(pin), head("Related pins", `${took} ms, release ${related.release}`), grid(related, load)];
}

function hero(pin) {
  const chips = (texts, kind) => texts.slice(0, 24).map((text) => make("span", { class: `chip ${kind}` }, text));
  return make("section", { class: "hero" }, picture(pin),
    make("div", { class: "facts" },
      make("h1", {}, pin.title || pin.pin_id),
      pin.description ? make("p", { class: "hint" }, pin.description.slice(0, 400)) : null,
      make("div", { class: "chips" }, chips([pin.category, pin.language].filter(Boolean), ""), chips(pin.annotations || [], "")),
      make("div", { class: "chips" }, chips((pin.boards || []).map((board) => `on ${board}`), "board")),
      make("p", { class: "hint" }, pin.pin_id),
      make("div", { class: "row" },
        make("button", { type: "button", onclick: () => record(pin.pin_id, "save") }, "Save"),
        make("button", { type: "button", class: "quiet", onclick: () => remove(pin.pin_id) }, "Delete"))));
}

async function record(pinId, type, after) {
  const done = await attempt(() => call("POST", path("v1", "users", user, "events"), { type, pin_id: pinId }));
  if (!done) return;
  say(type === "save" ? `Saved for ${user}: the feed knows already` : "Hidden");
  if (after) await after();
}

async function remove(pinId) {
  if (!confirm(`Delete ${pinId}?`)) return;
  const done = await attempt(() => call("DELETE", path("v1", "pins", pinId)));
  if (done === null) { say("Deleted"); location.hash = "#/"; }
}

async function feed(given) {
  user = given || user;
  const load = (cursor) => call("GET", listPath(path("v1", "users", user, "homefeed"), { limit: 30, cursor }));
  const page = await load();
  const acts = (pin) => [["Save", () => record(pin.pin_id, "save", show)], ["Hide", () => record(pin.pin_id, "hide", show)]];
  const name = make("input", { name: "user", value: user, "aria-label": "User", pattern: "[A-Za-z0-9_.:\\-]{1,128}", required: true });
  const choose = make("form", { class: "row", onsubmit: (event) => {
    event.preventDefault();
    location.hash = `#/feed/${encodeURIComponent(name.value)}`;
  } }, name);
  return [head(`Feed of ${user}`, "Save or hide a pin and the feed changes at once.", choose), grid(page, load, acts)];
}

async function addPin() {
  const form = document.getElementById("add-form").content.cloneNode(true).querySelector("form");
  form.elements.pin_id.value = `new-${Date.now().toString(36)}`;
  const outcome = make("section", { "aria-live": "polite" });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    await attempt(async () => outcome.replaceChildren(...await put(new FormData(form))));
    button.disabled = false;
  });
  return [make("div", { class: "split" }, form, outcome)];
}

async function put(form) {
  const id = form.get("pin_id");
  const list = (name) => form.get(name).split(",").map((part) => part.trim()).filter(Boolean);
  const body = { annotations: list("annotations"), boards: list("boards") };
  for (const name of ["title", "category", "image_url"]) if (form.get(name).trim()) body[name] = form.get(name).trim();
  const answer = await call("PUT", path("v1", "pins", id), body);
  const related = await call("GET", `${path("v1", "pins", id)}/related?limit=12`);
  const nearest = answer.neighbors.slice(0, 9);
  const pins = await Promise.all(nearest.map(({ pin_id: neighbor }) => call("GET", path("v1", "pins", neighbor))));
  return [
    make("div", { class: "panel" },
      make("h2", {}, make("a", { href: pinLink(id) }, id), ` was in after ${(answer.timings.total * 1000).toFixed(1)} ms`),
      make("p", { class: "hint" }, pins.length ? "The neighbours that its vector was pooled from, by weight:" : "No neighbours: embedded from its content alone."),
      make("ul", { class: "around" }, pins.map((pin, i) => neighbor(pin, nearest[i].weight, nearest[0].weight)))),
    head("Its related pins", ""), grid(related),
  ];
}

function neighbor(pin, weight, heaviest) {
  return make("li", {}, make("a", { href: pinLink(pin.pin_id), title: `weight ${weight.toFixed(3)}` }, picture(pin),
    make("span", {}, make("span", { class: "title" }, pin.title || pin.pin_id),
      make("progress", { value: weight, max: heaviest, "aria-label": `weight ${weight.toFixed(3)}` }))));
}

const VIEWS = { "": start, search, pin: showPin, feed, add: addPin, status: () => showStatus(main) };

async function show() {
  const mine = (shown += 1);
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#/${name}` && name) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  const view = VIEWS[name] || start;
  const parts = await view(rest.length ? decodeURIComponent(rest.join("/")) : "").catch((error) =>
    [make("p", { class: "empty" }, make("b", {}, error.message))]);
  if (mine !== shown) return;
  main.replaceChildren(...parts);
  document.title = `${main.querySelector("h1")?.textContent || "pinsage"} – pinsage`;
}

function listen() {
  window.addEventListener("hashchange", () => { scrollTo(0, 0); show().then(() => main.focus({ preventScroll: true })); });
  document.getElementById("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const words = query.value.trim();
    location.hash = words ? `#/search/${encodeURIComponent(words)}` : "#/";
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, select, dialog")) return;
    event.preventDefault();
    query.select();
  });
  const dialog = document.getElementById("key-dialog"), field = document.getElementById("key");
  document.getElementById("key-button").addEventListener("click", () => dialog.showModal());
  document.getElementById("key-cancel").addEventListener("click", () => dialog.close("cancel"));
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "use") { useKey(field.value.trim()); show(); }
    dialog.returnValue = field.value = "";
  });
}

function offerThemes() {
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  });
}

offerThemes();
listen();
watchHealth(document.getElementById("light"));
show();
