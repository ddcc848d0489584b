// Renders /openapi.json readable, and lets one try each call. No dependencies; all text goes in as text, never as HTML.

const byId = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Descriptions mark code with backticks, one or two.
function prose(text) {
  return (text ?? "").split(/``?([^`]+)``?/).map((piece, index) => (index % 2 ? element("code", {}, piece) : piece));
}

function resolve(api, node) {
  if (!node || !node.$ref) return node;
  return node.$ref.slice(2).split("/").reduce((at, step) => at[step], api);
}

function schemaName(schema) {
  return schema?.$ref ? schema.$ref.split("/").pop() : null;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schemaName(schema);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `${typeOf(schema.items) || "any"}[]`;
  return schema.type ?? "any";
}

function table(head, rows) {
  const cells = (tag, values) => element("tr", {}, ...values.map((value) => element(tag, {}, ...prose(value))));
  return element("table", {}, element("thead", {}, cells("th", head)), element("tbody", {}, ...rows.map((row) => cells("td", row))));
}

function example(api, schema) {
  const shape = resolve(api, schema) ?? {};
  if (shape.anyOf) return example(api, shape.anyOf[0]);
  if (shape.enum) return shape.enum[0];
  if (shape.type === "object" || shape.properties) {
    const required = shape.required ?? shape.oneOf?.[0]?.required ?? [];
    return Object.fromEntries(required.map((name) => [name, example(api, shape.properties?.[name])]));
  }
  if (shape.type === "array") return [];
  if (shape.type === "integer") return shape.minimum ?? 0;
  if (shape.type === "boolean") return false;
  return shape.type === "string" ? "text" : {};
}

async function send(api, call, form, output) {
  const values = new FormData(form);
  let path = call.path;
  const query = new URLSearchParams();
  const headers = {};
  for (const parameter of call.parameters) {
    const value = values.get(`${parameter.in}:${parameter.name}`);
    if (!value) continue;
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (parameter.in === "query") query.set(parameter.name, value);
    else headers[parameter.name] = value;
  }
  if (byId("token").value) headers.Authorization = `Bearer ${byId("token").value.trim()}`;
  const request = { method: call.method, headers };
  if (call.body) {
    headers["Content-Type"] = "application/json";
    request.body = values.get("body");
  }
  output.hidden = false;
  output.textContent = "…";
  try {
    const began = performance.now();
    const server = call.operation.servers?.[0].url ?? "";
    const response = await fetch(server + (query.size ? `${path}?${query}` : path), request);
    const text = await response.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: shown as it is */ }
    const head = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    output.textContent = `${response.status} in ${Math.round(performance.now() - began)} ms\n${head}\n\n${shown}`;
  } catch (error) {
    output.textContent = String(error);
  }
}

function tryForm(api, call) {
  const form = element("form");
  for (const parameter of call.parameters) {
    const id = `${call.operation.operationId}-${parameter.in}-${parameter.name}`;
    form.append(
      element("label", { htmlFor: id }, `${parameter.name} (${parameter.in}) `, ...prose(parameter.description)),
      element("input", { id, name: `${parameter.in}:${parameter.name}`, required: parameter.in === "path", autocomplete: "off" }),
    );
  }
  if (call.body) {
    const id = `${call.operation.operationId}-body`;
    const text = JSON.stringify(example(api, call.body), null, 2);
    form.append(element("label", { htmlFor: id }, `Body: ${schemaName(call.body)}`), element("textarea", { id, name: "body", rows: 6, value: text }));
  }
  const output = element("pre", { hidden: true });
  output.setAttribute("aria-live", "polite");
  form.append(element("button", { type: "submit" }, "Send"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(api, call, form, output);
  });
  return [form, output];
}

function callDetails(api, path, method, operation) {
  const parameters = operation.parameters.map((parameter) => resolve(api, parameter));
  const body = operation.requestBody?.content["application/json"].schema;
  const call = { path, method: method.toUpperCase(), operation, parameters, body };
  const answers = Object.entries(operation.responses).map(([status, answer]) => {
    const [media] = Object.values(answer.content ?? {});
    return [status, answer.description, typeOf(media?.schema)];
  });
  const title = element("summary", {},
    element("span", { className: "method" }, call.method), element("code", {}, path), ` ${operation.summary}`);
  const about = [`${operation.operationId}. `, ...prose(operation.description)];
  const server = operation.servers ? [element("p", {}, "Server: ", element("code", {}, operation.servers[0].url))] : [];
  return element("details", { id: operation.operationId }, title, element("p", { className: "quiet" }, ...about), ...server,
    table(["Status", "", "Body"], answers), ...tryForm(api, call));
}

function schemaDetails(name, schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([field, shape]) =>
    [required.has(field) ? `${field} *` : field, typeOf(shape), shape.description ?? ""]);
  return element("details", { id: `schema-${name}` }, element("summary", {}, element("code", {}, name)),
    element("p", {}, ...prose(schema.description)), table(["Field", "Type", ""], rows));
}

function show(api) {
  byId("about").replaceChildren(...prose(api.info.description));
  const tags = new Map(api.tags.map((tag) => [tag.name, []]));
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(methods))
      tags.get(operation.tags[0]).push(callDetails(api, path, method, operation));
  for (const [tag, calls] of tags) byId("calls").append(element("h2", {}, tag), ...calls);
  const methods = Object.entries(api["x-blotter-methods"]).map(([name, calls]) =>
    [name, calls.map((call) => `${call.method} ${call.path}`).join(", ")]);
  byId("methods").append(table(["Method", "Calls"], methods));
  const problems = api["x-blotter-problems"].map((kind) => [String(kind.status), kind.type, kind.meaning]);
  byId("problem-list").append(table(["Status", "Type", "Meaning"], problems));
  byId("schemas").append(...Object.entries(api.components.schemas).map(([name, schema]) => schemaDetails(name, schema)));
}

try {
  const response = await fetch("/openapi.json");
  show(await response.json());
} catch (error) {
  byId("about").textContent = `The document cannot be read: ${error}`;
}
