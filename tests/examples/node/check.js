// Check the published contract: node check.js SCHEMAS EXAMPLES, where EXAMPLES has <number>-<kind>.msgpack files.
const fs = require("node:fs");
const path = require("node:path");
const Ajv = require("ajv/dist/2020");
const { decode } = require("@msgpack/msgpack");
const { Parser } = require("@asyncapi/parser");

const [schemas, examples] = process.argv.slice(2);
const ajv = new Ajv({ strict: true, keywords: ["x-events"], formats: { "date-time": true } });
const validators = {};
for (const name of fs.readdirSync(schemas).filter((name) => name.endsWith(".schema.json"))) {
  const schema = JSON.parse(fs.readFileSync(path.join(schemas, name)));
  const validate = ajv.compile(schema);
  validators[name.split(".")[0]] = validate;
  for (const example of schema.examples)
    if (!validate(example)) throw new Error(`${name}: ${ajv.errorsText(validate.errors)}`);
}
for (const name of fs.readdirSync(examples)) {
  const validate = validators[name.split(/[-.]/)[1]];
  if (!validate(decode(fs.readFileSync(path.join(examples, name)))))
    throw new Error(`${name}: ${ajv.errorsText(validate.errors)}`);
}
new Parser().parse(fs.readFileSync(path.join(schemas, "asyncapi.json"), "utf8")).then(({ document, diagnostics }) => {
  const bad = diagnostics.filter((one) => one.severity < 2); // errors and warnings
  if (document === undefined || bad.length > 0) throw new Error(JSON.stringify(bad));
  console.log(Object.keys(validators).length, "schemas,", document.allChannels().length, "channels");
});
