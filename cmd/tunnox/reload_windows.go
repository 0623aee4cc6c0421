package main

import "os"

// reloadSignals are none: Windows has no such signal. The file is watched there too.
var reloadSignals []os.Signal
