package services_test

import (
	"testing"

	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }
