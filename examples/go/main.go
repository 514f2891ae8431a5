// Publish a photo and print its result: go run . HOST PORT NODE DEVICE PHOTO
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// Result has the fields that this client uses; others are ignored.
type Result struct {
	Status     string   `json:"status"`
	Label      *string  `json:"label"`
	Code       *string  `json:"code"`
	Confidence *float64 `json:"confidence"`
}

func main() {
	host, port, node, device := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	photo, err := os.ReadFile(os.Args[5])
	if err != nil {
		log.Fatal(err)
	}
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + host + ":" + port))
	must(client.Connect())
	final := make(chan Result, 1)
	must(client.Subscribe("gleaner/v1/result/"+node+"/"+device, 1, func(_ mqtt.Client, m mqtt.Message) {
		var result Result
		if err := json.Unmarshal(m.Payload(), &result); err != nil || result.Status == "deferred" {
			return // the final result follows
		}
		select {
		case final <- result:
		default: // there is one already
		}
	}))
	must(client.Publish("gleaner/v1/photo/"+node+"/"+device, 1, false, photo))
	result := <-final
	client.Disconnect(250)
	if result.Status != "ok" {
		log.Fatal(result.Status, ": ", *result.Code)
	}
	fmt.Println(*result.Label, *result.Confidence)
}

func must(token mqtt.Token) {
	if token.Wait(); token.Error() != nil {
		log.Fatal(token.Error())
	}
}
