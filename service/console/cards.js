// Pieces that several views share: calls to the service, elements, pin cards.

document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";

let key = "";
export const useKey = (given) => { key = given; };

/** Call the service; answers the JSON (null for 204). Throws an Error whose message is the problem in words. */
export async function call(method, path, body) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) })
    .catch(() => { throw new Error("The service does not answer"); });
  if (answer.status === 204) return null;
  const data = await answer.json().catch(() => ({}));
  if (answer.ok) return data;
  const error = new Error(answer.status === 401 ? "A key is needed: see Key, top right" : data.detail || data.title || `Error ${answer.status}`);
  error.status = answer.status;
  throw error;
}

/** An element: make("a", {href, class, onclick}, child, "text", …); null children are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let timer;
export function say(text) {
  const toast = document.getElementById("said");
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(timer);
  timer = setTimeout(() => toast.classList.remove("shown"), 3500);
}

/** Run something that calls the service; what goes wrong is said, and answers undefined. */
export async function attempt(action) {
  try { return await action(); } catch (error) { say(error.message); return undefined; }
}

export const path = (...parts) => "/" + parts.map(encodeURIComponent).join("/");
export const pinLink = (id) => `#/pin/${encodeURIComponent(id)}`;

/** The pin's picture, or a tile coloured by its words where there is none. */
export function picture(pin) {
  const frame = make("span", { class: "picture" });
  if (!pin.image_url) { frame.append(tile(pin)); return frame; }
  const image = make("img", { src: pin.image_url, alt: "", loading: "lazy", decoding: "async", referrerpolicy: "no-referrer" });
  image.addEventListener("error", () => image.replaceWith(tile(pin)));
  frame.append(image);
  return frame;
}

function tile(pin) {
  const words = (pin.title || pin.pin_id).split(/[\s_.:-]+/).filter(Boolean);
  const hue = hash(words[0] || ""), other = (hue + 40 + (hash(pin.pin_id) % 60)) % 360;
  const svg = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const root = svg("svg", { viewBox: "0 0 200 150", class: "tile", "aria-hidden": "true", preserveAspectRatio: "xMidYMid slice" });
  root.append(svg("rect", { width: 200, height: 150, fill: `hsl(${hue} 45% 42%)` }));
  for (let i = 0; i < 3; i += 1) {
    const seed = hash(`${pin.pin_id}/${i}`);
    root.append(svg("circle", { cx: seed % 200, cy: (seed >> 3) % 150, r: 30 + (seed % 55), fill: `hsl(${other} 55% ${45 + i * 8}% / .45)` }));
  }
  const text = svg("text", { x: 100, y: 86, "text-anchor": "middle" });
  text.textContent = words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join("");
  root.append(text);
  return root;
}

function hash(text) {
  let value = 2166136261;
  for (const character of text) value = Math.imul(value ^ character.codePointAt(0), 16777619);
  return (value >>> 0) % 360;
}

const REASONS = {
  saved_together: "Saved together", similar: "Alike", because_you_saved: "Because you saved", because_you_clicked: "Because you looked at",
  trending: "Trending", popular: "Popular", fresh: "New", title: "In the title", annotation: "In its tags",
};
const titles = new Map(); // of the pins that this page has shown, to name them in reasons

function why(pin) {
  const source = pin.source_pin_id;
  return (REASONS[pin.reason] || pin.reason.replaceAll("_", " ")) + (source ? ` ${titles.get(source) || source}` : "");
}

/** One pin as a list item; `acts` are [label, function] buttons below it. */
export function card(pin, acts = []) {
  const share = Math.max(0, Math.min(1, pin.score));
  const bar = make("i");
  bar.style.setProperty("--share", share);
  const scored = pin.score !== 0;
  titles.set(pin.pin_id, pin.title || pin.pin_id);
  const reason = make("span", { class: "why" }, make("span", { title: why(pin) }, why(pin)),
    scored ? make("span", { title: "score" }, pin.score.toFixed(3)) : null);
  const link = make("a", { href: pinLink(pin.pin_id) }, picture(pin),
    make("span", { class: "words" }, make("span", { class: "title" }, pin.title || pin.pin_id), reason,
      scored ? make("span", { class: "score", "aria-hidden": "true" }, bar) : null));
  const buttons = acts.map(([label, act]) =>
    make("button", { type: "button", onclick: act, "aria-label": `${label}: ${pin.title || pin.pin_id}` }, label));
  return make("li", { class: "card" }, link, buttons.length ? make("div", { class: "acts" }, buttons) : null);
}

/** A grid of a list's items that loads further pages on demand; `load(cursor)` answers a page. */
export function grid(first, load, acts = () => []) {
  const list = make("ul", { class: "grid" });
  const box = make("div", {}, list);
  const add = (page) => {
    list.append(...page.items.map((pin) => card(pin, acts(pin))));
    box.querySelector(".more")?.remove();
    if (!page.next) return;
    const more = make("button", { type: "button", class: "more quiet" }, "More");
    more.addEventListener("click", async () => {
      more.disabled = true;
      const following = await attempt(() => load(page.next));
      if (following) add(following); else more.disabled = false;
    });
    box.append(more);
  };
  add(first);
  if (!first.items.length) box.append(make("p", { class: "empty" }, "Nothing here yet."));
  return box;
}
