// Generate the messages of an AsyncAPI document: node generate.js asyncapi.json OUT; writes OUT/LANGUAGE/NAME.
const fs = require("node:fs");
const path = require("node:path");
const { GoGenerator, PythonGenerator, TypeScriptGenerator } = require("@asyncapi/modelina");

const [document, out] = process.argv.slice(2);
const languages = {
  go: [new GoGenerator(), ".go", { packageName: "messages" }],
  python: [new PythonGenerator(), ".py", {}],
  typescript: [new TypeScriptGenerator({ modelType: "interface" }), ".ts", { exportType: "named" }],
};
const input = JSON.parse(fs.readFileSync(document));
(async () => {
  for (const [language, [generator, suffix, options]] of Object.entries(languages)) {
    const folder = path.join(out, language);
    fs.mkdirSync(folder, { recursive: true });
    const models = await generator.generateCompleteModels(input, options);
    for (const model of models) fs.writeFileSync(path.join(folder, model.modelName + suffix), model.result);
    console.log(language, models.map((model) => model.modelName).sort().join(" "));
  }
})();
