// The API on one page, made from openapi.json: every call with its parameters, an example to copy, and what it answers.

import { make } from "./cards.js";

const main = document.getElementById("main");
const api = await (await fetch("openapi.json")).json();

const resolve = (schema) => schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema;

/** A type in a few words. */
function words(schema) {
  const known = resolve(schema) || {};
  if (known.const !== undefined) return JSON.stringify(known.const);
  if (known.enum) return known.enum.map((value) => JSON.stringify(value)).join(" | ");
  const options = known.anyOf || known.oneOf;
  if (options) return options.map(words).join(" or ");
  if (known.type === "array") return `list of ${words(known.items)}`;
  if (schema?.$ref) return schema.$ref.split("/").pop();
  const bounds = [["minimum", "≥"], ["maximum", "≤"], ["maxLength", "length ≤"]].filter(([name]) => known[name] !== undefined);
  return [known.type || "anything", ...bounds.map(([name, sign]) => `${sign} ${known[name]}`)].join(", ");
}

function table(rows) {
  return rows.length ? make("table", {}, rows.map(([name, type, text]) =>
    make("tr", {}, make("td", {}, make("code", {}, name)), make("td", { class: "hint" }, type), make("td", {}, text || "")))) : null;
}

function fields(schema) {
  const known = resolve(schema) || {};
  const options = known.anyOf || known.oneOf;
  if (options) return options.flatMap(fields);
  return Object.entries(known.properties || {}).map(([name, field]) => [name, words(field), field.description]);
}

/** The first example of a body or an answer. */
function example(content) {
  const media = content?.["application/json"];
  const named = Object.values(media?.examples || {})[0]?.value;
  return named ?? resolve(media?.schema)?.examples?.[0];
}

function curl(method, path, operation) {
  const filled = path.replace(/{(\w+)}/g, (_, name) =>
    operation.parameters?.find((parameter) => parameter.name === name)?.schema?.examples?.[0] ?? name);
  const query = (operation.parameters || []).filter((parameter) => parameter.in === "query" && parameter.required).map((parameter) => `${parameter.name}=lamp`);
  const verb = method === "get" ? "" : ` -X ${method.toUpperCase()}`;
  const body = example(operation.requestBody?.content);
  return `curl${verb} '${location.origin}${filled}${query.length ? `?${query}` : ""}'${body ? ` -d '${JSON.stringify(body)}'` : ""}`;
}

function answers(operation) {
  return Object.entries(operation.responses).map(([status, answer]) => {
    const kinds = Object.keys(answer.content?.["application/problem+json"]?.examples || {});
    return [status, kinds.length ? "problem" : words(answer.content?.["application/json"]?.schema), kinds.join(", ") || answer.description];
  });
}

function draw(method, path, operation) {
  const body = operation.requestBody && resolve(operation.requestBody.content["application/json"].schema);
  const given = example(operation.responses[200]?.content) ?? example(operation.responses[201]?.content) ?? example(operation.responses[202]?.content);
  return make("details", { class: "panel call", id: operation.operationId },
    make("summary", {}, make("code", { class: `method ${method}` }, method.toUpperCase()), make("code", {}, path),
      make("span", { class: "hint" }, operation.summary), operation["x-scope"] ? make("span", { class: "chip board" }, operation["x-scope"]) : null),
    make("p", {}, operation.description || ""),
    make("pre", {}, curl(method, path, operation)),
    operation.parameters?.length ? make("h3", {}, "Parameters") : null,
    table((operation.parameters || []).map((parameter) => [parameter.name, `${parameter.in}, ${words(parameter.schema)}`, parameter.description])),
    body ? make("h3", {}, "Body") : null, body ? table(fields(body)) : null,
    make("h3", {}, "Answers"), given ? make("pre", {}, JSON.stringify(given, null, 2)) : null, table(answers(operation)));
}

main.append(make("h1", {}, `${api.info.title} ${api.info.version}`), ...api.info.description.split("\n\n").map((text) => make("p", { class: "hint" }, text)));
for (const tag of api.tags) {
  const calls = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).filter(([, operation]) => operation.tags?.includes(tag.name)).map(([method, operation]) => draw(method, path, operation)));
  main.append(make("h2", { id: tag.name }, tag.name), make("p", { class: "hint" }, tag.description), ...calls);
}
const chosen = location.hash && document.getElementById(location.hash.slice(1));
if (chosen) { chosen.open = true; chosen.scrollIntoView(); }
