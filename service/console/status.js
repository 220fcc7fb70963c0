// The status view: what is served, the reindex and its progress, the releases.

import { attempt, call, make, path, say } from "./cards.js";

const MODES = {
  index: "index: new and changed pins, quickest", embed: "embed: every vector anew", train: "train: the model too",
};
const NUMBERS = {
  index_vectors: "pins in the release", live_pins: "new pins since", delta_vectors: "vectors since", live_boards: "new boards since",
  follower_lag_entries: "changes behind Redis", quarantined_entries: "damaged changes",
};
const ended = (job) => ["succeeded", "failed", "cancelled"].includes(job.state);
const count = (value) => (typeof value === "number" ? value.toLocaleString("en") : value ?? "–");

/** Keep the little light at the status link right. */
export async function watchHealth(light) {
  const answer = await fetch("/readyz").catch(() => null);
  light.className = `light ${answer?.ok ? "good" : "bad"}`;
  light.parentElement.title = answer?.ok ? "ready" : "not ready";
  setTimeout(watchHealth, 10000, light);
}

/** The view; it renews itself as long as it is in `main`. */
export async function showStatus(main) {
  const served = make("section", { class: "panel" }), jobs = make("section", { class: "panel" }), releases = make("section", { class: "panel" });
  const columns = make("div", { class: "columns" }, served, jobs, releases);
  const form = reindexForm(() => renew());
  let timer;
  const renew = async () => {
    clearTimeout(timer);
    const parts = [drawServed(served), drawJobs(jobs, form, renew), drawReleases(releases, renew)];
    const busy = (await Promise.all(parts)).some(Boolean);
    timer = setTimeout(() => { if (main.contains(columns)) renew(); }, busy ? 1000 : 5000);
  };
  await renew();
  return [make("div", { class: "head" }, make("h1", {}, "Status")), columns];
}

async function drawServed(panel) {
  const [status, ready] = await Promise.all([
    call("GET", "/v1/status").catch(() => ({})),
    fetch("/readyz").then((answer) => answer.json()).catch(() => ({ status: "unavailable", reasons: ["no answer"] })),
  ]);
  const number = (label, value) => make("div", {}, make("b", {}, count(value)), make("span", {}, label));
  const reasons = (ready.reasons || []).map((reason) => make("p", { class: "bad" }, reason));
  for (const trouble of [status.trouble, status.worker].filter(Boolean)) reasons.push(make("p", { class: "bad" }, trouble));
  panel.replaceChildren(
    make("div", { class: "row" }, make("h2", {}, "Served now"), ready.status === "ok" ? make("span", { class: "mark" }, "ready") : null),
    ...reasons,
    make("p", {}, status.release || "no release"),
    make("p", { class: "hint" }, status.release ? `made ${span(status.release_age_seconds)} ago` : ""),
    make("div", { class: "numbers" }, Object.entries(NUMBERS).map(([name, label]) => number(label, status[name]))));
}

function span(seconds) {
  const units = [[86400, "days"], [3600, "hours"], [60, "minutes"]];
  const [size, name] = units.find(([length]) => seconds >= 2 * length) || [1, "seconds"];
  return `${Math.round(seconds / size)} ${name}`;
}

function reindexForm(renew) {
  const mode = make("select", { "aria-label": "Mode" }, Object.entries(MODES).map(([value, text]) => make("option", { value }, text)));
  return make("form", { class: "row", onsubmit: async (event) => {
    event.preventDefault();
    const job = await attempt(() => call("POST", "/v1/admin/reindex", { mode: mode.value }));
    if (job) { say("Reindex started"); await renew(); }
  } }, mode, make("button", {}, "Reindex"));
}

async function drawJobs(panel, form, renew) {
  const answer = await call("GET", "/v1/admin/jobs").catch((error) => ({ error: error.message, jobs: [] }));
  const list = make("ul", { class: "list" }, answer.jobs.slice(0, 8).map((job) => drawJob(job, renew)));
  const parts = [make("h2", {}, "Reindex"), form, answer.error ? make("p", { class: "hint" }, answer.error) : list];
  if (panel.contains(form)) panel.lastChild.replaceWith(parts.at(-1)); else panel.replaceChildren(...parts);
  return answer.jobs.some((job) => !ended(job));
}

function drawJob(job, renew) {
  const left = job.eta_seconds === null || ended(job) ? "" : `, ${Math.ceil(job.eta_seconds)} s left`;
  const doing = ended(job) ? job.state : `${job.state}${job.phase ? `: ${job.phase}` : ""} ${Math.round(job.progress * 100)} %${left}`;
  const cancel = ended(job) ? null : make("button", { type: "button", class: "quiet", onclick: async () => {
    if (await attempt(() => call("POST", path("v1", "admin", "jobs", job.id, "cancel")))) await renew();
  } }, "Cancel");
  return make("li", {},
    make("div", { class: "row" }, make("span", {}, `${job.mode} · ${doing}`), cancel),
    ended(job) ? null : make("progress", { value: job.progress, max: 1, "aria-label": `progress of ${job.id}` }),
    job.error ? make("span", { class: "bad" }, job.error) : null,
    make("span", { class: "hint" }, `${new Date(job.created_at * 1000).toLocaleString()}${job.release ? ` → ${job.release}` : ""}`));
}

async function drawReleases(panel, renew) {
  const answer = await call("GET", "/v1/admin/releases").catch((error) => ({ error: error.message, releases: [] }));
  const list = answer.releases.map((release) => make("li", {},
    make("div", { class: "row" }, make("b", {}, release.id), release.live
      ? make("span", { class: "mark" }, "live")
      : make("button", { type: "button", class: "quiet", onclick: async () => {
        if (await attempt(() => call("POST", path("v1", "admin", "releases", release.id, "activate")))) { say(`Serving ${release.id}`); await renew(); }
      } }, "Activate")),
    make("span", { class: "hint" }, `${count(release.num_pins)} pins, ${count(release.num_boards)} boards, made by ${release.mode}`)));
  panel.replaceChildren(make("h2", {}, "Releases"), answer.error ? make("p", { class: "hint" }, answer.error) : make("ul", { class: "list" }, list));
}
