// Compile each published schema and validate its examples: go run . SCHEMAS
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func main() {
	files, err := filepath.Glob(filepath.Join(os.Args[1], "*.schema.json"))
	if err != nil || len(files) == 0 {
		log.Fatal("no schemas in ", os.Args[1])
	}
	for _, file := range files {
		schema, err := jsonschema.NewCompiler().Compile(file)
		if err != nil {
			log.Fatal(err)
		}
		text, err := os.Open(file)
		if err != nil {
			log.Fatal(err)
		}
		document, err := jsonschema.UnmarshalJSON(text)
		if err != nil {
			log.Fatal(err)
		}
		for _, example := range document.(map[string]any)["examples"].([]any) {
			if err := schema.Validate(example); err != nil {
				log.Fatal(file, ": ", err)
			}
		}
	}
	fmt.Println(len(files), "schemas")
}
