package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Labels for public hosts that nobody names: an adjective and an animal, easy to read
// and to say. Half of those that are drawn have a number too, so that one is free when
// all pairs are taken.
var (
	labelAdjectives = strings.Fields(`able agile amber ample azure bold brave breezy bright brisk broad calm
		candid clear clever cosmic cozy crisp curious daring deft eager early fair fancy fast fine fond frank free
		fresh gentle glad golden grand green happy hardy honest jolly keen kind late light lively lucky merry mild
		modest neat nimble noble plain polite proud quick quiet ready rosy royal sharp silent silver simple smart
		smooth snowy solid spry steady still sturdy sunny swift tidy true vivid warm wide wise witty young`)
	labelAnimals = strings.Fields(`badger beaver bison bobcat camel caribou cheetah condor coyote crane cricket
		curlew deer dingo dolphin dove eagle egret elk falcon ferret finch fox gannet gazelle gecko gibbon goose
		grouse hare hawk hedgehog heron hornbill ibex ibis iguana jackal jaguar jay kestrel kiwi koala lark lemur
		leopard lion lizard llama lynx magpie marten mole moose newt ocelot orca osprey otter owl panda panther
		pelican penguin pigeon plover puffin puma quail rabbit raccoon raven robin salmon seal shrew sparrow stork
		swallow swan tapir tern thrush tiger toad trout turtle vole walrus weasel whale wolf wombat wren yak zebra`)
)

func drawLabels(n int) []string {
	labels := make([]string, n)
	for i := range labels {
		labels[i] = labelAdjectives[rand.IntN(len(labelAdjectives))] + "-" + labelAnimals[rand.IntN(len(labelAnimals))]
		if i >= n/2 {
			labels[i] += fmt.Sprintf("-%d", 1000+rand.IntN(9000))
		}
	}
	return labels
}
